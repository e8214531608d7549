"""Leaves that are updated in one launch: their scalars, and what is measured first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import Batch, Finish, Matrix, MatrixRule, Measurement, Rule, Segment, Workspace
from fastopt.engine.rows import RowBatch, Touched
from fastopt.engine.storage import Storage
from fastopt.formats import plain_bits
from fastopt.hyperparameters import Settings
from fastopt.leaf import Leaf


class Cohort:
    """Leaves of one rule and the same settings, updated equally often, that carry the same numbers."""

    __slots__ = ("carry", "carry_next", "group", "leaves", "rule", "step")

    def __init__(self, group: Settings, rule: Rule | MatrixRule, step: int, carry: tuple[float, ...]) -> None:
        self.group, self.rule, self.step = group, rule, step
        self.carry = self.carry_next = carry
        self.leaves: list[Leaf] = []

    def settle(self) -> None:
        """Write the step count, and what is carried, to the leaves."""
        for leaf in self.leaves:
            leaf.step = self.step
            for name, value in zip(self.rule.carry, self.carry, strict=False):
                leaf.extra[name][...] = value


#: A leaf that takes part in a step: its number among those that do, the leaf, its cohort.
Member = tuple[int, Leaf, Cohort]
#: The factors on the gradients of a step, by the number of the leaf.
Factors = NDArray[np.float64]


@dataclass(frozen=True)
class Manner:
    """How the leaves of a step are updated.

    Parameters
    ----------
    packed : bool
        Whether the gradients are those of their packs. Else they are set at each step.
    threads : int
        The most threads that a launch may use.
    apart : bool
        Whether each leaf has a factor on its gradient.
    clears : bool
        Whether the gradients are set to zero.
    """

    packed: bool
    threads: int
    apart: bool = False
    clears: bool = False


class Launch:
    """Leaves of one rule, dtype and storage, and the batch that updates them.

    Parameters
    ----------
    rule : Rule
        Their rule.
    members : sequence of Member
        The leaves, none of them empty.
    manner : Manner
        How they are updated.
    storage : Storage or None
        How their buffers are stored; None if all have the precision that is computed in.
    """

    def __init__(
        self, rule: Rule, members: Sequence[Member], manner: Manner, storage: Storage | None
    ) -> None:
        self.rule, self._manner, self.storage = rule, manner, storage
        self.cohorts = list(dict.fromkeys(cohort for _, _, cohort in members))
        rows = {cohort: row for row, cohort in enumerate(self.cohorts)}
        # Where each leaf has a factor of its own, rows of its own follow those of the cohorts.
        self._own = np.array([rows[cohort] for _, _, cohort in members if manner.apart], np.intp)
        self._members = np.array([position for position, _, _ in members])
        self._multipliers = [1.0] * len(self.cohorts)
        self._factors: Factors | None = None
        self.n_rows = len(self.cohorts) + len(self._own)
        positions: list[int] = []
        offsets: list[int] = []
        self._origins: list[int] = []
        segments: list[Segment] = []
        itemsize = members[0][1].dtype.itemsize if storage is None else storage.grad.dtype.itemsize
        for number, (position, leaf, cohort) in enumerate(members):
            row = len(self.cohorts) + number if manner.apart else rows[cohort]
            for begin, end in self.parts(leaf):
                grad = leaf.grad if manner.packed else None
                flat_grad = None if grad is None else plain_bits(grad).reshape(-1, order="A")
                state = [leaf.state[name] for name in leaf.buffer_names]
                whole = end - begin == leaf.flat.size
                segments.append(
                    (leaf.flat, flat_grad, state, row)
                    if whole
                    else (
                        leaf.flat[begin:end],
                        None if flat_grad is None else flat_grad[begin:end],
                        [buffer[begin:end] for buffer in state],
                        row,
                    )
                )
                positions.append(position)
                offsets.append(begin * itemsize)
                self._origins.append(leaf.origin + begin)
        self._positions, self._offsets = np.array(positions), np.array(offsets)
        self.prepare_batch(segments, [leaf for _, leaf, _ in members])

    def parts(self, leaf: Leaf) -> list[tuple[int, int]]:
        """Return where the parts of a leaf begin and end that are segments of their own."""
        return [(0, leaf.flat.size)]

    def prepare_batch(self, segments: list[Segment], leaves: list[Leaf]) -> None:
        """Make the batch."""
        self.batch = self._batch(segments, self.n_rows)

    def _batch(self, segments: list[Segment], rows: int) -> Batch:
        threads, clears = self._manner.threads, self._manner.clears
        return Batch(self.rule, segments, rows, threads, clears, self.storage, self._origins)

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        """Set where the gradients are, of all leaves that take part in the step."""
        self.batch.set_gradients(addresses[self._positions] + self._offsets)

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        """Compute the scalars of a step, in double.

        Schedules are asked for the ``count`` of steps that the optimizer has taken; the rules, for the
        number of the update of their own leaves. The gradients are multiplied by ``multiplier``, and each by
        its own factor.
        """
        rule, self._factors = self.rule, factors
        for row, cohort in enumerate(self.cohorts):
            group = cohort.group
            self._multipliers[row] = own = -multiplier if group.maximize else multiplier
            scalars = group.values_at(count, rule.hyperparameters, lr)
            if rule.scalars is None:
                pass
            elif rule.carry:
                cohort.carry_next, scalars = rule.scalars(cohort.step + 1, *cohort.carry, *scalars)
            else:
                scalars = rule.scalars(cohort.step + 1, *scalars)
            self.batch.set_scalars(row, own, scalars)
        if factors is not None:
            self.spread(self.batch.scalars)

    def spread(self, scalars: NDArray[np.floating]) -> None:
        """Copy the cohorts' rows of scalars to the rows of their leaves, with each one's own factor."""
        if self._factors is not None:
            own = scalars[len(self.cohorts) :]
            own[...] = scalars[self._own]
            own[:, 0] = np.array(self._multipliers)[self._own] * self._factors[self._members]

    def step_of(self, cohort: Cohort) -> float:
        """Return the number of the update that a cohort is about to have."""
        return cohort.step + 1

    def measure(self) -> None:
        """Do what must be known before the update."""

    def set_key(self, seed: int, count: int) -> None:
        """Set what the random bits of a step's stochastic rounding depend on."""
        self.batch.set_key(seed, count)

    def run(self) -> None:
        """Update the leaves."""
        self.batch.run()


class RowsLaunch(Launch):
    """Leaves of which some rows are updated, others in each step."""

    batch: RowBatch

    def prepare_batch(self, segments: list[Segment], leaves: list[Leaf]) -> None:
        widths = [leaf.flat.size // leaf.shape[0] for leaf in leaves]
        threads, storage, origins = self._manner.threads, self.storage, self._origins
        self.batch = RowBatch(self.rule, segments, widths, self.n_rows, threads, storage, origins)

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        """Do nothing: where the gradients are is said of each row."""

    def set_rows(self, touched: Mapping[int, Touched]) -> None:
        """Set which rows are updated, of each leaf that is given rows."""
        self.batch.set_rows([touched[position] for position in self._positions.tolist()])


class MeasuringLaunch(Launch):
    """What launches of rules that measure have in common."""

    def prepare_batch(self, segments: list[Segment], leaves: list[Leaf]) -> None:
        threads, storage, origins = self._manner.threads, self.storage, self._origins
        self.measurement = Measurement(
            self.rule, segments, self.n_rows, threads, storage=storage, origins=origins
        )
        self.size = sum(segment[0].size for segment in segments)

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        super().set_gradients(addresses)
        self.measurement.set_gradients(addresses[self._positions] + self._offsets)

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        measure, self._factors = self.rule.measure, factors
        assert measure is not None
        for row, cohort in enumerate(self.cohorts):
            self._multipliers[row] = own = -multiplier if cohort.group.maximize else multiplier
            scalars = cohort.group.values_at(count, self.rule.measured_with, lr)
            if measure.scalars is not None:
                carry = cohort.carry if measure.over == "all" else ()
                scalars = measure.scalars(cohort.step + 1, *carry, *scalars)
            self.measurement.set_scalars(row, own, scalars)
            self.set_inputs(row, cohort, own, cohort.group.values_at(count, self.rule.scalars_of, lr))
        self.spread(self.measurement.scalars)

    def set_inputs(self, row: int, cohort: Cohort, multiplier: float, values: tuple[Any, ...]) -> None:
        """Take what the scalars of a row's update depend on, apart from what is measured."""
        raise NotImplementedError

    def measure(self) -> None:
        self.measurement.run()

    def set_key(self, seed: int, count: int) -> None:
        super().set_key(seed, count)
        self.measurement.set_key(seed, count)


class TensorLaunch(MeasuringLaunch):
    """Leaves of a rule that measures each tensor, or each row, apart: each has scalars of its own."""

    def parts(self, leaf: Leaf) -> list[tuple[int, int]]:
        assert self.rule.measure is not None
        if self.rule.measure.over != "row" or len(leaf.shape) < 2:
            return super().parts(leaf)
        if leaf.order == "F":
            raise ValueError(
                f"{leaf.place} must be in C order: {self.rule.name} goes by rows, got Fortran order"
            )
        size = leaf.flat.size // leaf.shape[0]
        return [(begin, begin + size) for begin in range(0, leaf.flat.size, size)]

    def prepare_batch(self, segments: list[Segment], leaves: list[Leaf]) -> None:
        super().prepare_batch(segments, leaves)
        carried = [
            [leaf.extra[name].reshape(-1)[i : i + 1] for name in self.rule.carry]
            for leaf in leaves
            for i in range(len(self.parts(leaf)))
        ]
        apart = [(*segment[:3], row) for row, segment in enumerate(segments)]
        self.batch = self._batch(apart, len(apart))
        self._kinds: tuple[int, ...] | None = None
        self._carried = carried

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        if self._kinds is None:
            values = self.cohorts[0].group.values_at(count, self.rule.scalars_of, lr)
            self._kinds = tuple(len(value) if isinstance(value, tuple) else 0 for value in values)
            self._finish = Finish(self.measurement, self._carried, self._kinds, self.n_rows)
        super().set_scalars(count, multiplier, lr, factors)
        self.spread(self._finish.inputs)

    def set_inputs(self, row: int, cohort: Cohort, multiplier: float, values: tuple[Any, ...]) -> None:
        numbers = [n for value in values for n in (value if isinstance(value, tuple) else (value,))]
        self._finish.set_inputs(row, (multiplier, self.step_of(cohort), *numbers))

    def run(self) -> None:
        self._finish.run(self.batch)
        super().run()


class GlobalLaunch(MeasuringLaunch):
    """Leaves of a rule that measures all tensors of the optimizer together."""

    def prepare_batch(self, segments: list[Segment], leaves: list[Leaf]) -> None:
        super().prepare_batch(segments, leaves)
        self.batch = self._batch(segments, self.n_rows)
        self._inputs: list[tuple[float, tuple[Any, ...]]] = [(0.0, ())] * len(self.cohorts)

    def set_inputs(self, row: int, cohort: Cohort, multiplier: float, values: tuple[Any, ...]) -> None:
        self._inputs[row] = multiplier, values

    def conclude(self, size: int, totals: Sequence[float]) -> None:
        """Set the scalars of the update from what was measured of all launches."""
        scalars_of: Callable[..., Any] | None = self.rule.scalars
        assert scalars_of is not None
        for row, (cohort, (multiplier, values)) in enumerate(zip(self.cohorts, self._inputs, strict=True)):
            scalars = scalars_of(cohort.step + 1, float(size), *totals, *cohort.carry, *values)
            if self.rule.carry:
                cohort.carry_next, scalars = scalars
            self.batch.scalars[row] = multiplier, *scalars
        self.spread(self.batch.scalars)


class MatrixLaunch:
    """Leaves of a rule for matrices, one after the other. See :class:`Launch`."""

    def __init__(self, rule: MatrixRule, members: Sequence[Member], manner: Manner) -> None:
        self.rule = rule
        workspace = Workspace(manner.threads)
        # The largest first: the others share its scratch memory.
        self._members = sorted(members, key=lambda member: -member[1].flat.size)
        self._matrices = []
        for _, leaf, _ in self._members:
            grad = None if not manner.packed or leaf.grad is None else leaf.grad.reshape(-1, order="A")
            matrix = Matrix(rule, leaf.flat, leaf.shaped, grad, leaf.values(), workspace, manner.clears)
            self._matrices.append(matrix)

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        """Set where the gradients are, of all leaves that take part in the step."""
        for matrix, (position, _, _) in zip(self._matrices, self._members, strict=True):
            matrix.set_gradient(int(addresses[position]))

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        """Compute the scalars of a step."""
        values = {
            cohort: cohort.group.values_at(count, self.rule.hyperparameters, lr)
            for cohort in dict.fromkeys(cohort for _, _, cohort in self._members)
        }
        for matrix, (position, _, cohort) in zip(self._matrices, self._members, strict=True):
            own = -multiplier if cohort.group.maximize else multiplier
            if factors is not None:
                own *= float(factors[position])
            matrix.set_scalars(cohort.step + 1, own, values[cohort])

    def run(self) -> None:
        """Update the leaves."""
        for matrix in self._matrices:
            matrix.run()


def launch(
    rule: Rule | MatrixRule,
    members: Sequence[Member],
    manner: Manner,
    storage: Storage | None = None,
    rows: bool = False,
) -> Launch | MatrixLaunch:
    """Return the launch of a rule's leaves, which are given whole gradients, or rows."""
    if isinstance(rule, MatrixRule):
        return MatrixLaunch(rule, members, manner)
    if members[0][1].on_device:
        made: Launch = import_module("fastopt.device_launch").device_launch(rule, members, manner, storage)
        return made
    if rule.measure is None:
        kind = RowsLaunch if rows else Launch
    else:
        kind = GlobalLaunch if rule.measure.over == "all" else TensorLaunch
    return kind(rule, members, manner, storage)
