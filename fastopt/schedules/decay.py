"""Schedules with one formula: constant, linear, polynomial, exponential, inverse square root."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastopt.schedules import _checks
from fastopt.schedules._shapes import SHAPES, blend, power, progress
from fastopt.schedules.schedule import Schedule


@dataclass(frozen=True)
class Constant(Schedule):
    r"""Always the same value.

    Parameters
    ----------
    value : float
        The value.

    Notes
    -----
    ``optax.constant_schedule``. ``torch.optim.lr_scheduler.ConstantLR`` is
    ``Warmup(lr, steps, start_factor, shape="constant")``.

    Examples
    --------
    >>> Constant(0.1)(1000)
    0.1
    """

    value: float

    def __post_init__(self) -> None:
        self._set(value=_checks.number("value", self.value))

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    r"""A straight line from one value to another, which then stays.

    .. math::
        \eta_t = (1 - x)\, \eta_0 + x\, \eta_T, \qquad x = \min(t / T, 1)

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step.
    steps : int
        :math:`T \ge 0`: after so many steps, the value is ``final``.
    final : float
        :math:`\eta_T`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Polynomial : A curve.
    Warmup : A line up to another schedule.

    Notes
    -----
    As ``optax.linear_schedule``, and ``torch.optim.lr_scheduler.LinearLR`` with ``initial = lr *
    start_factor`` and ``final = lr * end_factor``. With ``steps=0`` the value is ``final`` from the first
    step on, where both of them stay at ``initial`` for ever. In place of optax's ``transition_begin``:
    ``Sequence([initial, Linear(initial, steps, final)], [begin])``.

    Examples
    --------
    >>> line = Linear(1.0, steps=4, final=0.2)
    >>> [round(line(step), 6) for step in range(6)]
    [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    """

    initial: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        self._set(
            initial=_checks.number("initial", self.initial),
            steps=_checks.whole("steps", self.steps),
            final=_checks.number("final", self.final),
        )

    def __call__(self, step: int) -> float:
        return blend(self.initial, self.final, SHAPES["linear"](progress(step, self.steps)))


@dataclass(frozen=True)
class Polynomial(Schedule):
    r"""A power of the time that is left.

    .. math::
        \eta_t = \eta_T + (\eta_0 - \eta_T) \left(1 - \min(t / T, 1)\right)^p

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step.
    steps : int
        :math:`T \ge 0`: after so many steps, the value is ``final``.
    final : float
        :math:`\eta_T`.
    power : float
        :math:`p > 0`. Above 1 the curve is steep at first, below 1 at the end.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Linear : The same with power 1.

    Notes
    -----
    As ``optax.polynomial_schedule``, and ``torch.optim.lr_scheduler.PolynomialLR``, whose final value is 0.
    With ``steps=0`` the value is ``final`` from the first step on, where both of them stay at ``initial`` for
    ever.

    Examples
    --------
    >>> curve = Polynomial(1.0, steps=4, power=2.0)
    >>> [curve(step) for step in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
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
        weight = (1.0 - progress(step, self.steps)) ** self.power
        return blend(self.initial, self.final, (weight, 1.0 - weight))


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""A factor for every so many steps.

    .. math::
        \eta_t = \eta_0\, \gamma^{t / T}

    With ``staircase``, the exponent is rounded down.

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step.
    gamma : float
        :math:`\gamma > 0`, the factor.
    steps : int
        :math:`T \ge 1`, the steps that it takes.
    staircase : bool
        Change the value once every ``steps`` steps only.
    final : float, optional
        Where the value stops: a lower bound if ``gamma`` is below 1, an upper one otherwise.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Step : The staircase, as torch names it.

    Notes
    -----
    As ``torch.optim.lr_scheduler.ExponentialLR``, and ``optax.exponential_decay``, whose ``decay_rate`` is
    ``gamma`` and whose ``transition_steps`` are ``steps``. A ``gamma`` of 0 is an error; optax takes it for
    no decay.

    Examples
    --------
    >>> decay = Exponential(1.0, gamma=0.5, steps=2, staircase=True)
    >>> [decay(step) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    initial: float
    gamma: float
    steps: int = 1
    staircase: bool = False
    final: float | None = None

    def __post_init__(self) -> None:
        self._set(
            initial=_checks.number("initial", self.initial),
            gamma=_checks.number("gamma", self.gamma, _checks.POSITIVE),
            steps=_checks.whole("steps", self.steps, least=1),
            staircase=_checks.flag("staircase", self.staircase),
            final=None if self.final is None else _checks.number("final", self.final),
        )

    def __call__(self, step: int) -> float:
        value = self.initial * power(self.gamma, step // self.steps if self.staircase else step / self.steps)
        if self.final is None:
            return value
        return max(value, self.final) if self.gamma < 1.0 else min(value, self.final)


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    r"""The inverse square root of the step, as transformers were first trained with.

    .. math::
        \eta_t = \eta_0 / \sqrt{1 + t / T}

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step.
    timescale : int
        :math:`T \ge 1`: the value is halved after :math:`3T` steps. Behind a warm-up, its length.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    Notes
    -----
    Behind a warm-up of :math:`T` steps, the value at step :math:`t \ge T` is :math:`\eta_0 \sqrt{T / t}`.
    So the schedule of the Transformer ("Noam"), with a peak of :math:`(d\,T)^{-1/2}`, is
    ``Warmup(InverseSqrt(peak, T), T)``, and that of T5, which is flat before it falls,
    ``Warmup(InverseSqrt(T**-0.5, T), T, start_factor=1.0)``. Both count the first step as 1: here it is 0.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, 2017. Raffel et al., Exploring the Limits of
    Transfer Learning with a Unified Text-to-Text Transformer, arXiv:1910.10683, 2019.

    Examples
    --------
    >>> from fastopt.schedules import Warmup
    >>> noam = Warmup(InverseSqrt(1.0, 4), 4)
    >>> [noam(step) for step in (0, 2, 4, 16, 64)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """

    initial: float
    timescale: int

    def __post_init__(self) -> None:
        self._set(
            initial=_checks.number("initial", self.initial),
            timescale=_checks.whole("timescale", self.timescale, least=1),
        )

    def __call__(self, step: int) -> float:
        return self.initial / math.sqrt(1.0 + step / self.timescale)
