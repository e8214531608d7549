"""Which leaves are updated together: cohorts that share their scalars, batches that share a launch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import Batch, Rule
from fastopt.hyperparameters import ParamGroup
from fastopt.leaf import Leaf


class Cohort:
    """Leaves of one group that have been updated equally often."""

    __slots__ = ("group", "leaves", "rule", "step")

    def __init__(self, group: ParamGroup, rule: Rule, step: int) -> None:
        self.group, self.rule, self.step = group, rule, step
        self.leaves: list[Leaf] = []


class Arrangement:
    """The launches of a step, for one choice of leaves.

    Usually one launch of one cohort. There are more cohorts with several groups, and once some
    leaves have missed a step for want of a gradient; more launches, with several dtypes or rules.

    Parameters
    ----------
    groups : sequence of (ParamGroup, Rule, sequence of Leaf)
        What the optimizer updates.
    present : collection of int, optional
        The numbers of the leaves that are given gradients. By default all leaves, with those of their pack.
    threads : int
        The most threads that a launch may use.
    """

    def __init__(
        self,
        groups: Sequence[tuple[ParamGroup, Rule, Sequence[Leaf]]],
        present: Collection[int] | None,
        threads: int,
    ) -> None:
        self.present = present
        numbers = None if present is None else set(present)
        cohorts: dict[tuple[int, int, bool], Cohort] = {}
        members: dict[tuple[Rule, np.dtype[np.floating]], list[tuple[int, Leaf, Cohort]]] = {}
        number = position = 0
        for group, rule, leaves in groups:
            for leaf in leaves:
                chosen = numbers is None or number in numbers
                key = id(group), leaf.step, chosen
                cohort = cohorts.setdefault(key, Cohort(group, rule, leaf.step))
                cohort.leaves.append(leaf)
                if chosen and leaf.flat.size:
                    members.setdefault((rule, leaf.dtype), []).append((position, leaf, cohort))
                number += 1
                position += chosen
        self.updated = [cohort for (_, _, chosen), cohort in cohorts.items() if chosen]
        #: Of each launch: the batch, its cohorts by their row of scalars, its gradients' positions.
        self.launches: list[tuple[Batch, list[Cohort], NDArray[np.int64]]] = []
        for (rule, _), found in members.items():
            rows = list(dict.fromkeys(cohort for _, _, cohort in found))
            segments = [
                (
                    leaf.flat,
                    leaf.grad if present is None else None,
                    [leaf.state[name] for name in rule.state],
                    rows.index(cohort),
                )
                for _, leaf, cohort in found
            ]
            positions = np.array([position for position, _, _ in found], np.int64)
            self.launches.append((Batch(rule, segments, len(rows), threads), rows, positions))
        self.staged = [leaf for cohort in self.updated for leaf in cohort.leaves if leaf.staged]

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        """Set where the gradients are of the leaves that are present."""
        for batch, _, positions in self.launches:
            batch.set_gradients(addresses[positions])

    def set_scalars(self, count: int, multiplier: float, lr: float | None) -> None:
        """Compute the scalars of a step, in double.

        Schedules are asked for the ``count`` of steps that the optimizer has taken; the rules, for the
        number of the update of their own leaves.
        """
        for batch, cohorts, _ in self.launches:
            for row, cohort in enumerate(cohorts):
                group, rule = cohort.group, cohort.rule
                scalars = group.values_at(count, rule.hyperparameters, lr)
                if rule.scalars is not None:
                    scalars = rule.scalars(cohort.step + 1, *scalars)
                batch.set_scalars(row, -multiplier if group.maximize else multiplier, scalars)

    def run(self) -> None:
        """Update the leaves."""
        for leaf in self.staged:
            leaf.stage()
        for batch, _, _ in self.launches:
            batch.run()
        for leaf in self.staged:
            leaf.unstage()
        for cohort in self.updated:
            cohort.step += 1

    def settle(self) -> None:
        """Write the cohorts' step counts to their leaves, before another arrangement is made."""
        for cohort in self.updated:
            for leaf in cohort.leaves:
                leaf.step = cohort.step
