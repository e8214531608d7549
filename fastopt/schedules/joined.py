"""Schedules joined in time or side by side: a warm-up, a sequence, a tuple."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastopt.schedules import _checks
from fastopt.schedules._shapes import progress
from fastopt.schedules._state import Composite
from fastopt.schedules.schedule import (
    Part,
    Schedule,
    check_part,
    check_parts,
    name_parts,
    value_of,
)


@dataclass(frozen=True)
class Warmup(Composite, Schedule):
    r"""A warm-up, and any schedule behind it.

    .. math::
        \eta_t = \begin{cases} (f + (1 - f)\, t / T)\, s_0 & t < T \\ s_{t - T} & t \ge T \end{cases}

    Parameters
    ----------
    schedule : schedule or float
        :math:`s`, what comes behind. It counts from 0 at the end of the warm-up.
    steps : int
        :math:`T \ge 0`, the length of the warm-up.
    start_factor : float
        :math:`f \ge 0`, the factor of the first step. With 0, it changes nothing.
    shape : {"linear", "constant"}
        Whether the factor grows to 1 along a line, or stays as it is until the end.
    delay : bool
        With False, the schedule counts from the first step on and is multiplied by the factor:
        :math:`\eta_t = (f + (1 - f)\, t / T)\, s_t`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    See Also
    --------
    WarmupStableDecay : A warm-up, a constant, and a decay.

    Notes
    -----
    As ``torch.optim.lr_scheduler.SequentialLR`` of a ``LinearLR`` (or ``ConstantLR``) and another; without
    the delay, as ``ChainedScheduler`` of both. torch's default factor is 1/3. The schedules ``warmup_*`` of
    optax have the first value in place of a factor, and count the warm-up in ``decay_steps``.

    References
    ----------
    Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, arXiv:1706.02677, 2017.

    Examples
    --------
    >>> from fastopt.schedules import Cosine
    >>> warm = Warmup(Cosine(1.0, steps=2), steps=2)
    >>> [round(warm(step), 6) for step in range(6)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """

    schedule: Part
    steps: int
    start_factor: float = 0.0
    shape: str = "linear"
    delay: bool = True

    def __post_init__(self) -> None:
        self._set(
            schedule=check_part("schedule", self.schedule),
            steps=_checks.whole("steps", self.steps),
            start_factor=_checks.number("start_factor", self.start_factor, _checks.NOT_NEGATIVE),
            shape=_checks.choice("shape", self.shape, ("linear", "constant")),
            delay=_checks.flag("delay", self.delay),
        )

    def __call__(self, step: int) -> float:
        own = step if not self.delay else max(step - self.steps, 0)
        value = value_of(self.schedule, own)
        if step >= self.steps:
            return value
        factor = self.start_factor
        if self.shape == "linear":
            time = progress(step, self.steps)
            factor = factor * (1.0 - time) + time
        return factor * value

    def _parts(self) -> Mapping[str, Any]:
        return {"schedule": self.schedule}


@dataclass(frozen=True)
class Sequence(Composite, Schedule):
    r"""Schedules one after the other.

    .. math::
        \eta_t = s_i(t - t_i), \qquad t_i \le t < t_{i+1}, \quad t_0 = 0

    Parameters
    ----------
    schedules : list of schedule or float
        :math:`s_i`, at least one. Each counts from 0 at its start.
    milestones : list of int
        :math:`t_1 \le t_2 \le \dots`, the steps at which the second and the following start.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, out of range or out of order, or if their numbers do not fit.

    See Also
    --------
    Chain : All at once.

    Notes
    -----
    As ``torch.optim.lr_scheduler.SequentialLR`` and ``optax.join_schedules``. Of two that start at one step,
    the second is used.

    Examples
    --------
    >>> from fastopt.schedules import Linear
    >>> sequence = Sequence([1.0, Linear(1.0, steps=2), 0.1], milestones=[2, 5])
    >>> [sequence(step) for step in range(7)]
    [1.0, 1.0, 1.0, 0.5, 0.0, 0.1, 0.1]
    """

    schedules: Iterable[Part]
    milestones: Iterable[int]

    def __post_init__(self) -> None:
        parts = check_parts(self.schedules)
        given = _checks.items("milestones", self.milestones, "whole numbers")
        milestones = [_checks.whole(f"milestones[{i}]", m) for i, m in enumerate(given)]
        if milestones != sorted(milestones):
            raise ValueError(f"milestones must be in ascending order; got {self.milestones!r}")
        if len(milestones) != len(parts) - 1:
            raise ValueError(
                f"milestones must be one fewer than the schedules: {len(parts) - 1}; got {len(milestones)}"
            )
        self._set(schedules=parts, milestones=tuple(milestones))

    def __call__(self, step: int) -> float:
        milestones = cast(tuple[int, ...], self.milestones)
        place = bisect_right(milestones, step)
        part = cast(tuple[Part, ...], self.schedules)[place]
        return value_of(part, step - milestones[place - 1] if place else step)

    def _parts(self) -> Mapping[str, Any]:
        return name_parts(self.schedules)


@dataclass(frozen=True)
class Tuple(Composite):
    r"""A schedule of several values, such as ``betas``, made of one for each.

    Parameters
    ----------
    schedules : list of schedule or float
        What gives the values, one each.

    Raises
    ------
    TypeError
        If one of them is neither a number nor a schedule.
    ValueError
        If there is none, or a number is not finite.

    Examples
    --------
    >>> from fastopt.schedules import Linear
    >>> betas = Tuple([Linear(0.5, steps=4, final=0.9), 0.999])
    >>> betas(0), betas(4)
    ((0.5, 0.999), (0.9, 0.999))
    """

    schedules: Iterable[Part]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", check_parts(self.schedules))

    def __call__(self, step: int) -> tuple[float, ...]:
        """Return the values of the update that comes after ``step`` others."""
        return tuple(value_of(part, step) for part in self.schedules)

    def _parts(self) -> Mapping[str, Any]:
        return name_parts(self.schedules)
