"""What schedules share, and products of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastopt.hyperparameters import as_number
from fastopt.schedules import _checks
from fastopt.schedules._state import Composite

#: What schedules are made of: a number stays as it is, a callable is given the number of steps.
Part: TypeAlias = float | Callable[[int], float]


class Schedule(ABC):
    """A value for each step: what all schedules are.

    A schedule is called with the number of steps already taken, which is 0 at the first, and returns the
    value. It cannot be changed, can be compared, copied and pickled, and its ``repr`` is the expression that
    makes it. A number times a schedule is a :class:`Chain`. A subclass defines ``__call__``; a plain function
    of the step serves an optimizer as well.

    Examples
    --------
    >>> from fastopt.schedules import Linear
    >>> half = 0.5 * Linear(1.0, steps=4)
    >>> [half(step) for step in range(6)]
    [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    """

    #: NumPy's numbers leave the multiplication to the schedule, and make no array of it.
    __array_ufunc__ = None

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the value of the update that comes after ``step`` others."""

    def __mul__(self, factor: Part) -> Chain:
        return Chain((self, factor)) if is_part(factor) else NotImplemented

    def __rmul__(self, factor: Part) -> Chain:
        return Chain((factor, self)) if is_part(factor) else NotImplemented

    def _set(self, **values: Any) -> None:
        """Set checked attributes of a frozen instance, while it is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Chain(Composite, Schedule):
    r"""The product of schedules and numbers.

    .. math::
        \eta_t = \prod_i f_i(t)

    Parameters
    ----------
    schedules : list of schedule or float
        The factors.

    Raises
    ------
    TypeError
        If one of them is neither a number nor a schedule.
    ValueError
        If there is none, or a number is not finite.

    See Also
    --------
    Sequence : One after the other.

    Notes
    -----
    ``torch.optim.lr_scheduler.ChainedScheduler`` is the same for schedulers that multiply: let one factor
    have the learning rate, and the others start or end at 1. Its cosine moves the current value towards
    ``eta_min``, so that it is no factor unless that is 0. A schedule times a number, or another, is a chain.

    Examples
    --------
    >>> from fastopt.schedules import Exponential, Piecewise
    >>> chain = Chain([Exponential(0.05, gamma=0.9), Piecewise(0.1, {2: 1.0})])
    >>> [round(chain(step), 6) for step in range(4)]
    [0.005, 0.0045, 0.0405, 0.03645]
    >>> 2 * Exponential(0.05, gamma=0.9) == Chain([2.0, Exponential(0.05, gamma=0.9)])
    True
    """

    schedules: Iterable[Part]

    def __post_init__(self) -> None:
        self._set(schedules=check_parts(self.schedules))

    def __call__(self, step: int) -> float:
        value = 1.0
        for part in self.schedules:
            value *= value_of(part, step)
        return value

    def _parts(self) -> Mapping[str, Any]:
        return name_parts(self.schedules)


def value_of(part: Part, step: int) -> float:
    """Return the value of a schedule at a step, or of a number at any."""
    return part(step) if callable(part) else part


def is_part(value: Any) -> bool:
    """Tell whether a value is a number or a schedule."""
    return callable(value) or as_number(value) is not None


def check_part(name: str, value: Any) -> Part:
    """Return a schedule as it is, and a finite number as a float."""
    if callable(value):
        schedule: Part = value
        return schedule
    if not is_part(value):
        raise TypeError(f"{name} must be a number or a schedule; got {value!r}")
    return _checks.number(name, value)


def check_parts(values: Any) -> tuple[Part, ...]:
    """Return the argument ``schedules``: at least one number or schedule."""
    parts = _checks.items("schedules", values, "numbers and schedules")
    if not parts:
        raise ValueError("schedules must have at least one item; got none")
    return tuple(check_part(f"schedules[{i}]", part) for i, part in enumerate(parts))


def name_parts(schedules: Iterable[Part]) -> dict[str, Any]:
    """Return the items of the argument ``schedules`` by the names that their state has."""
    return {f"schedules[{i}]": part for i, part in enumerate(schedules)}
