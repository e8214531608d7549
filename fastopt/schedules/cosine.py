"""Half a cosine, once or again and again."""

from __future__ import annotations

from dataclasses import dataclass

from fastopt.schedules import _checks
from fastopt.schedules._shapes import SHAPES, blend, progress
from fastopt.schedules.schedule import Schedule


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Half a cosine from one value to another, which then stays.

    .. math::
        \eta_t = \eta_T + (\eta_0 - \eta_T) \left(\tfrac12 (1 + \cos \pi x)\right)^p,
        \qquad x = \min(t / T, 1)

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step.
    steps : int
        :math:`T \ge 0`: after so many steps, the value is ``final``.
    final : float
        :math:`\eta_T`.
    power : float
        :math:`p > 0`, by default 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    CosineRestarts : Again and again.

    Notes
    -----
    As ``optax.cosine_decay_schedule`` with ``alpha = final / initial``, and
    ``torch.optim.lr_scheduler.CosineAnnealingLR`` up to the last step, after which torch's rises again. With
    ``steps=0`` the value is ``final``; for both others that is an error.

    References
    ----------
    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, arXiv:1608.03983, 2016.

    Examples
    --------
    >>> cosine = Cosine(1.0, steps=4, final=0.2)
    >>> [round(cosine(step), 3) for step in range(6)]
    [1.0, 0.883, 0.6, 0.317, 0.2, 0.2]
    """

    initial: float
    steps: int
    final: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        self._set(
            initial=_checks.number("initial", self.initial),
            steps=_checks.whole("steps", self.steps),
            final=_checks.number("final", self.final),
            power=_checks.number("power", self.power, _checks.POSITIVE),
        )

    def __call__(self, step: int) -> float:
        weights = SHAPES["cosine"](progress(step, self.steps))
        if self.power != 1.0:
            weight = weights[0] ** self.power
            weights = weight, 1.0 - weight
        return blend(self.initial, self.final, weights)


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    r"""Half a cosine, again and again from the start.

    .. math::
        \eta_t = \eta_T + \tfrac12 (\eta_0 - \eta_T) (1 + \cos(\pi\, t_i / T_i)), \qquad T_i = T_0\, m^i

    with :math:`t_i` the steps since the last restart.

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step, and of each restart.
    steps : int
        :math:`T_0 \ge 1`, the length of the first cycle.
    multiplier : int
        :math:`m \ge 1`: how much longer each cycle is than the one before it.
    final : float
        :math:`\eta_T`, what each cycle falls to. The step that would have it is the restart.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    Notes
    -----
    As ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`` with one step a batch; ``multiplier`` is its
    ``T_mult``. Cycles of any heights and lengths (``optax.sgdr_schedule``) are a :class:`Sequence` of
    :class:`Cosine`.

    References
    ----------
    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, arXiv:1608.03983, 2016.

    Examples
    --------
    >>> cycles = CosineRestarts(1.0, steps=2, multiplier=2)
    >>> [round(cycles(step), 3) for step in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    initial: float
    steps: int
    multiplier: int = 1
    final: float = 0.0

    def __post_init__(self) -> None:
        self._set(
            initial=_checks.number("initial", self.initial),
            steps=_checks.whole("steps", self.steps, least=1),
            multiplier=_checks.whole("multiplier", self.multiplier, least=1),
            final=_checks.number("final", self.final),
        )

    def __call__(self, step: int) -> float:
        length = self.steps
        if self.multiplier == 1:
            step %= length
        while step >= length:  # in whole numbers: the logarithm is wrong by one at some restarts
            step -= length
            length *= self.multiplier
        return blend(self.initial, self.final, SHAPES["cosine"](step / length))
