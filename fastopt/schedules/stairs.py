"""Schedules that change at some steps: step, multi-step, piecewise."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, cast

from fastopt.schedules import _checks
from fastopt.schedules._shapes import SHAPES, blend, power
from fastopt.schedules.schedule import Schedule


@dataclass(frozen=True)
class Step(Schedule):
    r"""A factor, once every so many steps.

    .. math::
        \eta_t = \eta_0\, \gamma^{\lfloor t / T \rfloor}

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value of the first step.
    step_size : int
        :math:`T \ge 1`, the steps between two changes.
    gamma : float
        :math:`\gamma \ge 0`, the factor.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Exponential : The same as a smooth curve, or with a final value.

    Notes
    -----
    As ``torch.optim.lr_scheduler.StepLR``.

    Examples
    --------
    >>> step = Step(1.0, step_size=2, gamma=0.5)
    >>> [step(t) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    initial: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._set(
            initial=_checks.number("initial", self.initial),
            step_size=_checks.whole("step_size", self.step_size, least=1),
            gamma=_checks.number("gamma", self.gamma, _checks.NOT_NEGATIVE),
        )

    def __call__(self, step: int) -> float:
        return self.initial * power(self.gamma, step // self.step_size)


@dataclass(frozen=True)
class MultiStep(Schedule):
    r"""A factor, at each of some steps.

    .. math::
        \eta_t = \eta_0\, \gamma^{|\{i:\ t_i \le t\}|}

    Parameters
    ----------
    initial : float
        :math:`\eta_0`, the value before the first change.
    milestones : list of int
        :math:`t_i \ge 0`, the steps at which the value changes. One that is named twice counts twice.
    gamma : float
        :math:`\gamma \ge 0`, the factor.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Piecewise : A value of its own for each.

    Notes
    -----
    As ``torch.optim.lr_scheduler.MultiStepLR``. The milestones may come in any order.

    Examples
    --------
    >>> steps = MultiStep(1.0, milestones=[2, 5], gamma=0.5)
    >>> [steps(t) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    """

    initial: float
    milestones: Iterable[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        given = _checks.items("milestones", self.milestones, "whole numbers")
        self._set(
            initial=_checks.number("initial", self.initial),
            milestones=tuple(sorted(_checks.whole(f"milestones[{i}]", m) for i, m in enumerate(given))),
            gamma=_checks.number("gamma", self.gamma, _checks.NOT_NEGATIVE),
        )

    def __call__(self, step: int) -> float:
        return self.initial * power(self.gamma, bisect_right(cast(tuple[int, ...], self.milestones), step))


@dataclass(frozen=True)
class Piecewise(Schedule):
    r"""Values from given steps on, or a curve through them.

    .. math::
        \eta_t = (1 - w)\, v_i + w\, v_{i+1}, \qquad t_i \le t < t_{i+1}, \quad t_0 = 0

    with :math:`w = 0` if the shape is "constant", and :math:`x`, :math:`\tfrac12 (1 - \cos \pi x)` or
    :math:`\sqrt x` for the others, :math:`x = (t - t_i) / (t_{i+1} - t_i)`. Behind the last step the value
    stays.

    Parameters
    ----------
    initial : float
        :math:`v_0`, the value of the first step.
    values : mapping of int to float, or list of pairs
        The steps :math:`t_i \ge 0`, and the value :math:`v_i` of each.
    shape : {"constant", "linear", "cosine", "1-sqrt"}
        How the value gets from one to the next: at once, along a line, half a cosine, or a square root.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    Sequence : Schedules in place of values.

    Notes
    -----
    ``optax.piecewise_constant_schedule`` and ``optax.piecewise_interpolate_schedule`` take factors on the
    value before, where this takes the values themselves.

    Examples
    --------
    >>> stairs = Piecewise(1.0, {2: 0.5, 4: 0.1})
    >>> [stairs(step) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.1, 0.1]
    >>> line = Piecewise(1.0, {2: 0.5, 4: 0.1}, shape="linear")
    >>> [round(line(step), 6) for step in range(6)]
    [1.0, 0.75, 0.5, 0.3, 0.1, 0.1]
    """

    initial: float
    values: Mapping[int, float] | Iterable[tuple[int, float]]
    shape: str = "constant"

    def __post_init__(self) -> None:
        self._set(
            initial=_checks.number("initial", self.initial),
            values=_pairs(self.values),
            shape=_checks.choice("shape", self.shape, ("constant", *SHAPES)),
        )

    def __call__(self, step: int) -> float:
        pairs = cast(tuple[tuple[int, float], ...], self.values)
        passed = bisect_right(pairs, step, key=itemgetter(0))
        start, value = pairs[passed - 1] if passed else (0, self.initial)
        if self.shape == "constant" or passed == len(pairs):
            return value
        end, following = pairs[passed]
        return blend(value, following, SHAPES[self.shape]((step - start) / (end - start)))


def _pairs(values: Any) -> tuple[tuple[int, float], ...]:
    """Return steps and values, in the order of the steps."""
    given = values.items() if isinstance(values, Mapping) else values
    pairs = []
    for i, pair in enumerate(_checks.items("values", given, "pairs of a step and a value")):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"values[{i}] must be a pair of a step and a value; got {pair!r}")
        step = _checks.whole("the steps of values", pair[0])
        pairs.append((step, _checks.number(f"the value from step {step}", pair[1])))
    pairs.sort()
    for (step, _), (following, _) in pairwise(pairs):
        if step == following:
            raise ValueError(f"values must have one value for each step; got two for {step}")
    return tuple(pairs)
