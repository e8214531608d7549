"""What follows the update in passes of its own: Lookahead, and averages that are not kept in the update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastopt.averaged import COUNT, ema, has_own_pass, idle, is_due, swa, wanted_averages, warmed
from fastopt.engine import Batch, Rule, Segment
from fastopt.engine.storage import FLOAT32, Storage
from fastopt.launch import Cohort, Launch, Manner, MatrixLaunch
from fastopt.leaf import Leaf

# Of an average, nothing else is written: it is in the parameter's place, and the parameter in the gradient's.


def _ema(p: Any, g: Any, kept: Any, rest: Any, smallest: Any, zero: Any) -> Any:
    p = ema(p, g, kept, rest)
    return zero if abs(p) < smallest else p  # as the update does with its state; a NaN stays


def _swa(p: Any, g: Any, share: Any, smallest: Any, zero: Any) -> Any:
    p = swa(p, g, share, zero)
    return zero if abs(p) < smallest else p


def _lookahead(p: Any, g: Any, slow: Any, alpha: Any) -> Any:
    slow = slow + alpha * (p - slow)
    return slow, slow


class Passes:
    """The passes that follow an update.

    Parameters
    ----------
    launches : sequence of Launch or MatrixLaunch
        The update.
    cohorts : sequence of Cohort
        What it updates.
    manner : Manner
        How.
    """

    def __init__(
        self, launches: Sequence[Launch | MatrixLaunch], cohorts: Sequence[Cohort], manner: Manner
    ) -> None:
        self._switches = [
            _Switch(each)
            for each in launches
            if isinstance(each, Launch) and "swa" in wanted_averages(each.cohorts[0].group)
            if "swa" in each.rule.written
        ]
        self._passes = [
            each
            for cohort in cohorts
            for name in wanted_averages(cohort.group)
            if has_own_pass(cohort.rule, name)
            for each in _PASSES[name].over(cohort, manner.threads)
        ]
        self._due: list[_Pass] = []

    def __bool__(self) -> bool:
        return bool(self._switches or self._passes)

    @property
    def batches(self) -> list[Batch]:
        """What the passes go over."""
        return [each.batch for each in self._passes]

    def set_scalars(self, count: int) -> None:
        """See what is due. ``count`` is the number of steps that the optimizer has taken."""
        self._due = [each for each in self._passes if each.set_scalars(count)]
        for switch in self._switches:
            switch.turn()

    def run(self) -> None:
        """Do what is due."""
        for each in self._due:
            each.run()

    def take_back(self) -> None:
        """Forget the latest run, which came to nothing."""
        for each in self._due:
            each.take_back()
        self._due = []

    def settle(self) -> None:
        """Write what is known here to the leaves."""
        self._due = []
        for each in self._passes:
            each.settle()


class _Switch:
    """Has a launch leave "swa" alone, unless it is due."""

    def __init__(self, launch: Launch) -> None:
        self._launch, self._due = launch, True

    def turn(self) -> None:
        launch = self._launch
        due = any(
            is_due(each.step + 1, each.group["swa_start"], each.group["swa_every"]) for each in launch.cohorts
        )
        if due != self._due:
            launch.batch.switch(launch.rule if due else idle(launch.rule))
            self._due = due


class _Pass:
    """A pass over leaves of one cohort and dtype, whose count is the same."""

    name: ClassVar[str]
    rule: ClassVar[Rule]

    def __init__(self, cohort: Cohort, leaves: Sequence[Leaf], count: float, threads: int) -> None:
        self.cohort, self.leaves, self.count = cohort, leaves, count
        segments, half = [self.segment(leaf) for leaf in leaves], leaves[0].half
        storage = None if half is None else Storage(FLOAT32, half)
        self.batch = Batch(
            self.rule, segments, 1, threads, storage=storage, origins=[leaf.origin for leaf in leaves]
        )

    @classmethod
    def over(cls, cohort: Cohort, threads: int) -> list[_Pass]:
        """Return the passes over the leaves of a cohort."""
        found: dict[Any, list[Leaf]] = {}
        for leaf in cohort.leaves:
            if leaf.flat.size:
                found.setdefault((leaf.dtype, leaf.half, cls.count_of(leaf)), []).append(leaf)
        return [cls(cohort, leaves, count, threads) for (*_, count), leaves in found.items()]

    @staticmethod
    def count_of(leaf: Leaf) -> float:
        """Return how many parameters are averaged, where that is counted."""
        return 0.0

    def segment(self, leaf: Leaf) -> Segment:
        return leaf.state[self.name], leaf.flat, [], 0

    def set_scalars(self, count: int) -> bool:
        """Return whether the time has come; set the scalars if so."""
        raise NotImplementedError

    def run(self) -> None:
        self.batch.run()

    def take_back(self) -> None:
        pass

    def settle(self) -> None:
        pass

    def smallest(self) -> float:
        return float(np.finfo(self.batch.dtype).smallest_normal)


class _EmaPass(_Pass):
    name, rule = "ema", Rule(_ema)

    def set_scalars(self, count: int) -> bool:
        group = self.cohort.group
        (kept,) = group.values_at(count, ("ema_decay",), None)
        if group["ema_warmup"]:
            kept = warmed(kept, self.cohort.step + 1)
        self.batch.set_scalars(0, 1.0, (kept, 1.0 - kept, self.smallest(), 0.0))
        return True


class _SwaPass(_Pass):
    name, rule = "swa", Rule(_swa)

    @staticmethod
    def count_of(leaf: Leaf) -> float:
        return float(leaf.extra[COUNT])

    def set_scalars(self, count: int) -> bool:
        start, every = self.cohort.group["swa_start"], self.cohort.group["swa_every"]
        if not is_due(self.cohort.step + 1, start, every):
            return False
        self.batch.set_scalars(0, 1.0, (1.0 / (self.count + 1.0), self.smallest(), 0.0))
        return True

    def run(self) -> None:
        super().run()
        self.count += 1.0

    def take_back(self) -> None:
        self.count -= 1.0

    def settle(self) -> None:
        for leaf in self.leaves:
            leaf.extra[COUNT][...] = self.count


class _LookaheadPass(_Pass):
    name, rule = "slow", Rule(_lookahead, ("slow",))

    def segment(self, leaf: Leaf) -> Segment:
        # The gradient is not read: the slow copy stands in its place.
        return leaf.flat, leaf.state["slow"], [leaf.state["slow"]], 0

    def set_scalars(self, count: int) -> bool:
        group = self.cohort.group
        if (self.cohort.step + 1) % group["lookahead_steps"] != 0:
            return False
        self.batch.set_scalars(0, 1.0, group.values_at(count, ("lookahead_alpha",), None))
        return True


_PASSES: dict[str, type[_Pass]] = {each.name: each for each in (_EmaPass, _SwaPass, _LookaheadPass)}
