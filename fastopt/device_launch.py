"""Leaves on a CUDA device that are updated in one launch. See :mod:`fastopt.launch`.

The host computes the scalars of a step, as for its own memory, where it knows all that they follow from.
Where only the device knows (what it measured, whether steps were left out) it does, with the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.device_guard import DeviceGuard
from fastopt.engine import Segment, cuda, cuda_scalars
from fastopt.engine.device_batch import DeviceBatch, DeviceFinish, DeviceMeasurement, OnDevice
from fastopt.engine.rule import Rule
from fastopt.engine.storage import Storage
from fastopt.launch import Cohort, Factors, GlobalLaunch, Launch, Manner, Member, TensorLaunch
from fastopt.leaf import Leaf


class _Inputs:
    """Rows of numbers that scalars follow from: for each cohort a multiplier, a step, hyperparameters."""

    def __init__(self, values: Sequence[tuple[Any, ...]]) -> None:
        self.kinds = tuple(len(value) if isinstance(value, tuple) else 0 for value in values[0])
        self._upload = cuda.Upload((len(values), 2 + sum(max(kind, 1) for kind in self.kinds)), np.float64)
        self.address, self.n = self._upload.address, len(values)

    def set(self, row: int, multiplier: float, step: float, values: tuple[Any, ...]) -> None:
        numbers = [n for value in values for n in (value if isinstance(value, tuple) else (value,))]
        self._upload.values[row] = multiplier, step, *numbers

    def send(self) -> None:
        self._upload.run()


class _Carry:
    """What cohorts carry, on the device."""

    def __init__(self, cohorts: Sequence[Cohort]) -> None:
        self._cohorts, self._n = cohorts, len(cohorts[0].rule.carry)
        self._memory = cuda.Memory(8 * len(cohorts) * self._n)
        cuda.to_device(self._memory.address, np.array([each.carry for each in cohorts], np.float64))
        places = cuda.Upload((len(cohorts), self._n), np.int64)
        places.values[...] = self._memory.address + 8 * np.arange(places.values.size).reshape(-1, self._n)
        places.run()
        self._places, self.address = places, places.address

    def settle(self) -> None:
        """Have the cohorts know it."""
        found = np.empty((len(self._cohorts), self._n))
        cuda.to_host(found, self._memory.address)
        for cohort, values in zip(self._cohorts, found.tolist(), strict=True):
            cohort.carry = cohort.carry_next = tuple(values)


class _Spread:
    """Copies the rows of cohorts to those of their leaves, which are guarded apart."""

    def __init__(self, batch: OnDevice, own: NDArray[np.intp]) -> None:
        self._batch, self._n = batch, len(own)
        self._own = cuda.Upload(own.shape, np.int64)
        self._own.values[...] = own
        if self._n:
            self._own.run()
            self._kernel = cuda_scalars.spread_kernel(batch.scalars.shape[1], batch.dtype)

    def run(self) -> None:
        if self._n:
            first = self._batch.scalars.shape[0] - self._n
            places = self._batch.scalars_address, first, self._n, self._own.address
            cuda.run(self._kernel, -(-self._n // cuda.THREADS), *places)


class _Rows:
    """Computes the rows of scalars of a batch on the device."""

    def __init__(
        self,
        batch: OnDevice,
        rule: Rule,
        inputs: _Inputs,
        carry: int,
        own: NDArray[np.intp],
        measuring: bool = False,
    ) -> None:
        self._batch, self.inputs, self._carry = batch, inputs, carry
        self._kernel = cuda_scalars.rows_kernel(rule, batch.dtype, inputs.kinds, measuring)
        batch.compute()
        self._copies = _Spread(batch, own)

    def run(self) -> None:
        blocks = -(-self.inputs.n // cuda.THREADS)
        places = self.inputs.address, self.inputs.n, self._carry, self._batch.scalars_address
        cuda.run(self._kernel, blocks, *places, self._batch.control)
        self._copies.run()


class DeviceLaunch(Launch):
    """Leaves on a device; see :class:`fastopt.launch.Launch`."""

    batch: DeviceBatch
    _guard: DeviceGuard | None = None
    _start = 0.0
    _rows: _Rows | None = None
    _carry: _Carry | None = None

    def guard(self, guard: DeviceGuard, factors: NDArray[np.int64] | int) -> None:
        """Have the device decide on each step; ``factors`` as of :meth:`OnDevice.guard`, by leaf."""
        if isinstance(factors, np.ndarray):
            factors = factors[self._positions]
        self._guard, self._start = guard, guard.taken
        for batch in self._batches():
            batch.guard(guard.control, factors)

    def _batches(self) -> list[OnDevice]:
        return [self.batch]

    @property
    def _uncertain(self) -> bool:
        """Whether only the device knows the number of the step."""
        return self._guard is not None and self._guard.control != 0

    def step_of(self, cohort: Cohort) -> float:
        """Return the number of a step; where only the device knows it, what it adds its count of steps to."""
        return cohort.step - self._start if self._uncertain else cohort.step + 1

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        if not self._uncertain or self.rule.scalars is None:
            self._set_on_host(count, multiplier, lr)
            return
        values = [cohort.group.values_at(count, self.rule.scalars_of, lr) for cohort in self.cohorts]
        if self._rows is None:
            if self.rule.carry:
                self._carry = _Carry(self.cohorts)
            carry = 0 if self._carry is None else self._carry.address
            self._rows = _Rows(self.batch, self.rule, _Inputs(values), carry, self._own)
        self._fill(self._rows.inputs, values, multiplier)

    def _set_on_host(self, count: int, multiplier: float, lr: float | None) -> None:
        # The device has the factors of leaves that are guarded apart: their rows are copies.
        ones = np.ones(int(self._members.max()) + 1) if len(self._own) else None
        super().set_scalars(count, multiplier, lr, ones)
        for batch in self._batches():
            batch.changed()

    def _fill(self, inputs: _Inputs, values: Sequence[tuple[Any, ...]], multiplier: float) -> None:
        for row, (cohort, own) in enumerate(zip(self.cohorts, values, strict=True)):
            signed = -multiplier if cohort.group.maximize else multiplier
            inputs.set(row, signed, self.step_of(cohort), own)
        inputs.send()

    def send(self) -> None:
        for batch in self._batches():
            batch.send()

    def run(self) -> None:
        if self._rows is not None:
            self._rows.run()
        super().run()

    def settle(self) -> None:
        if self._guard is not None:
            self._start = self._guard.taken
        if self._carry is not None:
            self._carry.settle()


class _Measuring(DeviceLaunch):
    """What launches of rules that measure have in common."""

    measurement: DeviceMeasurement
    _measured_rows: _Rows | None = None

    def prepare_batch(self, segments: list[Segment], leaves: list[Leaf]) -> None:
        super().prepare_batch(segments, leaves)
        self.batch.compute()

    def _batches(self) -> list[OnDevice]:
        return [self.measurement, self.batch]

    def _set_measured(self, count: int, multiplier: float, lr: float | None, carry: int) -> None:
        """Have the device compute the scalars of the measure, where the host cannot."""
        measure = self.rule.measure
        assert measure is not None
        if measure.scalars is None or not (self._uncertain or carry):
            return
        values = [cohort.group.values_at(count, self.rule.measured_with, lr) for cohort in self.cohorts]
        if self._measured_rows is None:
            inputs = _Inputs(values)
            self._measured_rows = _Rows(self.measurement, self.rule, inputs, carry, self._own, measuring=True)
        self._fill(self._measured_rows.inputs, values, multiplier)

    def measure(self) -> None:
        if self._measured_rows is not None:
            self._measured_rows.run()
        self.measurement.run()


class DeviceTensorLaunch(_Measuring, TensorLaunch):
    """Leaves on a device of a rule that measures each tensor, or each row, apart."""

    measurement: DeviceMeasurement
    _finish: DeviceFinish

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        self._set_on_host(count, multiplier, lr)
        self._set_measured(count, multiplier, lr, 0)
        self._finish.send()


class DeviceGlobalLaunch(_Measuring, GlobalLaunch):
    """Leaves on a device of a rule that measures all tensors of the optimizer together."""

    measurement: DeviceMeasurement
    _conclusion: Any = None

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        values = [cohort.group.values_at(count, self.rule.scalars_of, lr) for cohort in self.cohorts]
        if self._conclusion is None:
            self._numbers = _Inputs(values)
            self._conclusion = cuda_scalars.conclude_kernel(self.rule, self.batch.dtype, self._numbers.kinds)
            self._copies = _Spread(self.batch, self._own)
            if self.rule.carry:
                self._carry = _Carry(self.cohorts)
        self._set_on_host(count, multiplier, lr)
        carry = 0 if self._carry is None else self._carry.address
        self._set_measured(count, multiplier, lr, carry)
        self._fill(self._numbers, values, multiplier)

    def conclude_from(self, parts: int, n_parts: int, size: int) -> None:
        """Compute the scalars of the update from the sums of all parts; see :mod:`cuda_scalars`."""
        numbers, batch = self._numbers, self.batch
        places = parts, n_parts, size, numbers.address, numbers.n
        carry = 0 if self._carry is None else self._carry.address
        cuda.run(self._conclusion, 1, *places, carry, batch.scalars_address, batch.control)
        self._copies.run()


class Totals:
    """Concludes what all launches measured together: see :class:`DeviceGlobalLaunch`."""

    def __init__(self, launches: Sequence[DeviceGlobalLaunch]) -> None:
        self._launches, self._size = launches, sum(each.size for each in launches)
        self._parts = cuda.Upload((len(launches), 2), np.int64)
        self._parts.values[...] = [each.measurement.place for each in launches]
        self._parts.run()

    def run(self) -> None:
        """Compute the scalars of all updates."""
        for each in self._launches:
            each.conclude_from(self._parts.address, len(self._launches), self._size)


def device_launch(
    rule: Rule, members: Sequence[Member], manner: Manner, storage: Storage | None
) -> DeviceLaunch:
    """Return the launch of a rule's leaves on a device."""
    kind = DeviceLaunch
    if rule.measure is not None:
        kind = DeviceGlobalLaunch if rule.measure.over == "all" else DeviceTensorLaunch
    return kind(rule, members, manner, storage)
