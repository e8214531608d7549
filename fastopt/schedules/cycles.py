"""Up and down: one cycle, or many."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fastopt.hyperparameters import Range
from fastopt.schedules import _checks
from fastopt.schedules._shapes import SHAPES, blend, power
from fastopt.schedules.schedule import Schedule


@dataclass(frozen=True)
class OneCycle(Schedule):
    r"""One cycle: up to a peak, and down to almost nothing at the end of the training.

    The value moves from ``initial`` to ``peak`` until step :math:`sT - 1`, and from there to ``final`` at
    step :math:`T - 1`, which is the last. With three phases, it moves back to ``initial`` until step
    :math:`2sT - 2`, and from there to ``final``.

    Parameters
    ----------
    peak : float
        The greatest value.
    steps : int
        :math:`T \ge 1`, the number of steps in all.
    pct_start : float
        :math:`s`, the share of them on the way to the peak; with three phases, at most a half.
    initial : float, optional
        The value of the first step. By default ``peak / 25``.
    final : float, optional
        The value of the last step. By default ``initial / 1e4``.
    shape : {"cosine", "linear", "1-sqrt"}
        The way from one value to the next.
    three_phase : bool
        Go back to ``initial`` as fast as from it, before the last phase. The paper has it so.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Cyclic : Again and again.

    Notes
    -----
    As ``torch.optim.lr_scheduler.OneCycleLR`` with ``initial = max_lr / div_factor`` and ``final = initial /
    final_div_factor``. Behind the last step the value stays, and where a phase has no length the next one
    starts with its end; torch's values go on beyond the final one, or are an error. In
    ``optax.cosine_onecycle_schedule`` and ``optax.linear_onecycle_schedule`` the phases end at other steps:
    they are a :class:`Piecewise` of shape "cosine", or "linear". :meth:`momentum` is torch's
    ``cycle_momentum``.

    References
    ----------
    Smith and Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates,
    arXiv:1708.07120, 2017.

    Examples
    --------
    >>> cycle = OneCycle(1.0, steps=9, pct_start=1 / 3)
    >>> [round(cycle(step), 3) for step in range(10)]
    [0.04, 0.52, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067, 0.0, 0.0]
    """

    peak: float
    steps: int
    pct_start: float = 0.3
    initial: float | None = None
    final: float | None = None
    shape: str = "cosine"
    three_phase: bool = False
    #: The last step of each phase, and the values that it goes from and to.
    _phases: tuple[tuple[float, float, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        peak = _checks.number("peak", self.peak)
        initial = peak / 25.0 if self.initial is None else _checks.number("initial", self.initial)
        final = initial / 1e4 if self.final is None else _checks.number("final", self.final)
        three_phase = _checks.flag("three_phase", self.three_phase)
        steps = _checks.whole("steps", self.steps, least=1)
        share = _checks.number("pct_start", self.pct_start, Range(0, 0.5 if three_phase else 1))
        phases = [(share * steps - 1.0, initial, peak)]
        if three_phase:
            phases.append((2.0 * share * steps - 2.0, peak, initial))
        phases.append((steps - 1.0, phases[-1][2], final))
        self._set(
            peak=peak,
            steps=steps,
            pct_start=share,
            initial=initial,
            final=final,
            shape=_checks.choice("shape", self.shape, ("cosine", "linear", "1-sqrt")),
            three_phase=three_phase,
            _phases=tuple(phases),
        )

    def __call__(self, step: int) -> float:
        start = 0.0
        for end, first, second in self._phases:
            if step < end:
                return blend(first, second, SHAPES[self.shape]((step - start) / (end - start)))
            if step == end:
                return second
            start = end
        return second

    def momentum(self, lowest: float = 0.85, highest: float = 0.95) -> OneCycle:
        """Return the schedule of a momentum that falls as this one rises.

        Parameters
        ----------
        lowest : float
            The value at the peak.
        highest : float
            The value at the start and at the end.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> from fastopt.schedules import OneCycle, Tuple
        >>> cycle = OneCycle(0.1, steps=100)
        >>> [round(cycle.momentum()(step), 3) for step in (0, 29, 99)]
        [0.95, 0.85, 0.95]
        >>> sgd = fastopt.SGD(np.ones(3), lr=cycle, momentum=cycle.momentum())
        >>> adam = fastopt.Adam(np.ones(3), lr=cycle, betas=Tuple([cycle.momentum(), 0.999]))
        """
        return replace(self, peak=lowest, initial=highest, final=highest)


@dataclass(frozen=True)
class Cyclic(Schedule):
    r"""Up and down between two values, again and again.

    .. math::
        \eta_t = \eta_0 + (\eta_1 - \eta_0)\, x_t\, s_t

    with :math:`x_t` going from 0 to 1 and back along straight lines, and :math:`s_t` what the mode says.

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step, and at the end of each cycle.
    peak : float
        :math:`\eta_1`, the value in the middle of the first cycle.
    steps_up : int
        The steps up, at least 1.
    steps_down : int, optional
        The steps down, at least 0. By default as many as up.
    mode : {"triangular", "triangular2", "exp_range"}
        :math:`s_t`: 1; :math:`2^{-i}` in cycle :math:`i = 0, 1, \dots`; or :math:`\gamma^t`.
    gamma : float
        :math:`\gamma > 0` of the mode "exp_range".

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    OneCycle : Once.

    Notes
    -----
    As ``torch.optim.lr_scheduler.CyclicLR`` without its ``scale_fn``. :meth:`momentum` is its
    ``cycle_momentum``.

    References
    ----------
    Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, 2015.

    Examples
    --------
    >>> cyclic = Cyclic(0.0, 1.0, steps_up=2, mode="triangular2")
    >>> [cyclic(step) for step in range(8)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]
    """

    initial: float
    peak: float
    steps_up: int = 2000
    steps_down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0
    #: The length of a cycle.
    _length: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        up = _checks.whole("steps_up", self.steps_up, least=1)
        down = up if self.steps_down is None else _checks.whole("steps_down", self.steps_down)
        self._set(
            initial=_checks.number("initial", self.initial),
            peak=_checks.number("peak", self.peak),
            steps_up=up,
            steps_down=down,
            mode=_checks.choice("mode", self.mode, ("triangular", "triangular2", "exp_range")),
            gamma=_checks.number("gamma", self.gamma, _checks.POSITIVE),
            _length=up + down,
        )

    def __call__(self, step: int) -> float:
        cycle, position = divmod(step, self._length)
        up = self.steps_up
        height = position / up if position < up else (self._length - position) / (self._length - up)
        if self.mode == "triangular2":
            height *= power(0.5, cycle)
        elif self.mode == "exp_range":
            height *= power(self.gamma, step)
        return blend(self.initial, self.peak, (1.0 - height, height))

    def momentum(self, lowest: float = 0.8, highest: float = 0.9) -> Cyclic:
        """Return the schedule of a momentum that falls as this one rises.

        Parameters
        ----------
        lowest : float
            The value in the middle of the first cycle.
        highest : float
            The value at the ends of the cycles.

        Examples
        --------
        >>> momentum = Cyclic(0.01, 0.1, steps_up=10).momentum()
        >>> [round(momentum(step), 3) for step in (0, 5, 10, 20)]
        [0.9, 0.85, 0.8, 0.9]
        """
        return replace(self, initial=highest, peak=lowest)
