"""Which leaves are updated together: cohorts that share their scalars, launches that share a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.rows import Touched
from fastopt.engine.storage import Format
from fastopt.formats import format_of, is_half
from fastopt.launch import (
    Cohort,
    Factors,
    GlobalLaunch,
    Launch,
    Manner,
    MeasuringLaunch,
    Member,
    RowsLaunch,
    launch,
)
from fastopt.leaf import Leaf
from fastopt.norms import GradientNorms
from fastopt.options import StepOptions
from fastopt.passes import Passes


class Arrangement:
    """The launches of a step, for one choice of leaves.

    Usually one launch of one cohort. There are more cohorts with several groups or overrides, and once some
    leaves have missed a step for want of a gradient; more launches, with several dtypes or rules.

    Parameters
    ----------
    leaves : sequence of Leaf
        What the optimizer updates.
    present : collection of int, optional
        The numbers of the leaves that are given gradients. By default all leaves, with those of their pack.
    threads : int
        The most threads that a launch may use.
    sparse : collection of int
        The numbers of those that are given rows.
    options : StepOptions
        What is done with the gradients beside the update.
    halves : mapping of int to Format
        The numbers of those whose gradients are given in half precision.

    Attributes
    ----------
    norms : GradientNorms or None
        What measures the gradients, if the options ask for it.
    alone : bool
        Whether the kernels of each step are the same.
    """

    def __init__(
        self,
        leaves: Sequence[Leaf],
        present: Collection[int] | None,
        threads: int,
        sparse: Collection[int],
        options: StepOptions,
        halves: Mapping[int, Format] = MappingProxyType({}),
    ) -> None:
        self.present, self.sparse, self.halves = present, sparse, halves
        numbers, with_rows = None if present is None else set(present), set(sparse)
        cohorts: dict[tuple[object, ...], Cohort] = {}
        members: dict[tuple[Any, ...], list[Member]] = {}
        shared: dict[tuple[str, ...], tuple[float, ...]] = {}
        position = 0
        for number, leaf in enumerate(leaves):
            chosen = numbers is None or number in numbers
            rule = leaf.rule
            carry = _carried(leaf)
            if rule.measure is not None and rule.measure.over == "all":
                carry = shared.setdefault(rule.carry, carry)  # one for the whole optimizer
            key = id(leaf.group), rule, leaf.step, carry, chosen
            cohort = cohorts.setdefault(key, Cohort(leaf.group, rule, leaf.step, carry))
            cohort.leaves.append(leaf)
            if chosen and leaf.flat.size:
                storage = leaf.storage(_grad_format(leaf) if present is None else halves.get(number))
                kind = rule, leaf.dtype, storage, number in with_rows
                members.setdefault(kind, []).append((position, leaf, cohort))
            position += chosen
        self._cohorts = list(cohorts.values())
        self._updated = [cohort for key, cohort in cohorts.items() if key[-1]]
        manner = Manner(present is None, threads, options.clips_apart, options.zero_grads)
        self.launches = [
            launch(rule, found, manner, storage, rows) for (rule, _, storage, rows), found in members.items()
        ]
        self._keyed = [
            each for each in self.launches if isinstance(each, Launch) and each.storage is not None
        ]
        self._seed = options.seed
        self.norms: GradientNorms | None = None
        if options.looks_at_norm:
            found = [
                (place, leaf, None if storage is None or storage.grad.native else storage.grad)
                for (_, _, storage, _), each in members.items()
                for place, leaf, _ in each
            ]
            places = [place for place, number in enumerate(present or ()) if number in with_rows]
            self.norms = self._norms_of(sorted(found, key=itemgetter(0)), position, manner, places)
        self._global = [each for each in self.launches if isinstance(each, GlobalLaunch)]
        self._measuring = [each for each in self.launches if isinstance(each, MeasuringLaunch)]
        passes = Passes(self.launches, self._updated, manner)
        self._passes = passes if passes else None
        self.alone = not passes
        self._carrying = any(cohort.rule.carry for cohort in self._cohorts)
        self._starting = [leaf for cohort in self._updated for leaf in cohort.leaves if leaf.step == 0]
        self.staged = [leaf for cohort in self._updated for leaf in cohort.leaves if leaf.staged]

    def _norms_of(self, *members: Any) -> GradientNorms:
        return GradientNorms(*members)

    def set_gradients(self, addresses: NDArray[np.int64], touched: Mapping[int, Touched]) -> None:
        """Set where the gradients are of the leaves that are present, and which rows are given."""
        for each in self.launches:
            each.set_gradients(addresses)
            if isinstance(each, RowsLaunch):
                each.set_rows(touched)
        if self.norms is not None:
            self.norms.set_gradients(addresses, touched)

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        """Compute the scalars of a step; see :meth:`fastopt.launch.Launch.set_scalars`."""
        for each in self.launches:
            each.set_scalars(count, multiplier, lr, factors)
        for keyed in self._keyed:
            keyed.set_key(self._seed, count)
        if self._passes is not None:
            self._passes.set_scalars(count)

    def run(self) -> None:
        """Update the leaves."""
        if self._starting:
            self.begin()
        for leaf in self.staged:
            leaf.stage()
        if self._measuring:
            self._measure()
        for each in self.launches:
            each.run()
        if self._passes is not None:
            self._passes.run()
        for leaf in self.staged:
            leaf.unstage()
        for cohort in self._updated:
            cohort.step += 1
        if self._carrying:
            self._carry_on()

    def begin(self) -> None:
        """Before the first update, have state that starts as a copy of the parameters be one."""
        for leaf in self._starting:
            leaf.begin()
        self._starting = []

    def _measure(self) -> None:
        for each in self._measuring:
            each.measure()
        if self._global:
            found = [each.measurement.totals() for each in self._global]
            totals = [sum(column) for column in zip(*found, strict=True)]
            size = sum(each.size for each in self._global)
            for each in self._global:
                each.conclude(size, totals)

    def _carry_on(self) -> None:
        for cohort in self._updated:
            cohort.carry = cohort.carry_next
        self._share_carry()

    def _share_carry(self) -> None:
        for each in self._global:  # leaves that had no gradient learn of it too
            for cohort in self._cohorts:
                if cohort.rule.carry == each.rule.carry:
                    cohort.carry = cohort.carry_next = each.cohorts[0].carry_next

    def settle(self) -> None:
        """Write what the cohorts know to their leaves, before another arrangement is made."""
        for cohort in self._cohorts:
            cohort.settle()
        if self._passes is not None:
            self._passes.settle()


def _grad_format(leaf: Leaf) -> Format | None:
    """Return the format of a leaf's gradient in its pack, where it is half precision."""
    return format_of(leaf.grad.dtype) if leaf.grad is not None and is_half(leaf.grad.dtype) else None


def _carried(leaf: Leaf) -> tuple[float, ...]:
    """Return what a leaf carries, unless it is measured apart: then the numbers stay with it."""
    rule = leaf.rule
    if rule.measure is not None and rule.measure.over != "all":
        return ()
    return tuple(float(leaf.extra[name]) for name in rule.carry)
