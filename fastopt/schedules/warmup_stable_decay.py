"""A warm-up, a constant, and a decay at the end."""

from __future__ import annotations

from dataclasses import dataclass

from fastopt.schedules import _checks
from fastopt.schedules._shapes import SHAPES, blend, progress
from fastopt.schedules.schedule import Schedule


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    r"""A warm-up along a line, a constant value, and a decay at the end ("WSD", "trapezoidal").

    .. math::
        \eta_t = \begin{cases}
        (1 - x)\, \eta_0 + x\, \eta_1 & x = t / W < 1 \\
        \eta_1 & W \le t < W + S \\
        d(x)\, \eta_1 + (1 - d(x))\, \eta_T & x = \min((t - W - S) / D, 1) \end{cases}

    with :math:`d(x) = 1 - x`, :math:`\tfrac12 (1 + \cos \pi x)` or :math:`1 - \sqrt x`. Until the decay
    starts, the length of the training need not be known.

    Parameters
    ----------
    peak : float
        :math:`\eta_1`, the value between warm-up and decay.
    warmup, stable, decay : int
        :math:`W, S, D \ge 0`, the steps of the three phases.
    initial : float
        :math:`\eta_0`, the value of the first step.
    final : float
        :math:`\eta_T`, the value from step :math:`W + S + D` on.
    shape : {"linear", "cosine", "1-sqrt"}
        The way down. The last falls fastest at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Warmup : A warm-up and any schedule.

    References
    ----------
    Hu et al., MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies,
    arXiv:2404.06395, 2024. Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations, arXiv:2405.18392, 2024, for the square root.

    Examples
    --------
    >>> wsd = WarmupStableDecay(1.0, warmup=2, stable=3, decay=4, shape="1-sqrt")
    >>> [round(wsd(step), 3) for step in range(11)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.293, 0.134, 0.0, 0.0]
    """

    peak: float
    warmup: int
    stable: int
    decay: int
    initial: float = 0.0
    final: float = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        self._set(
            peak=_checks.number("peak", self.peak),
            warmup=_checks.whole("warmup", self.warmup),
            stable=_checks.whole("stable", self.stable),
            decay=_checks.whole("decay", self.decay),
            initial=_checks.number("initial", self.initial),
            final=_checks.number("final", self.final),
            shape=_checks.choice("shape", self.shape, SHAPES),
        )

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return blend(self.initial, self.peak, SHAPES["linear"](step / self.warmup))
        late = step - self.warmup - self.stable
        if late < 0:
            return self.peak
        return blend(self.peak, self.final, SHAPES[self.shape](progress(late, self.decay)))
