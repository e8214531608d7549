"""Segments that one launch goes over: the table of their addresses, and the scalars of a step."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import threads
from fastopt.engine.codec import make_key
from fastopt.engine.columns import END, GRAD, PARAM, ROW, START, STATE
from fastopt.engine.device import DeviceArray
from fastopt.engine.diagnosis import wrong_scalars
from fastopt.engine.finish import compile_finish
from fastopt.engine.formats import FLOAT32, SHARED, Format, Storage
from fastopt.engine.kernel import BLOCK, Launch, compile_clearing, compile_launch, compile_measure
from fastopt.engine.memory import address, aligned_zeros
from fastopt.engine.plain import SQUARES
from fastopt.engine.rule import Rule

#: A tensor's part in a batch: its parameters, its gradients (None if they are given at each step), its state
#: buffers and the rest of its parameters, all flat and contiguous, and the row of scalars that holds for it.
#: The arrays are NumPy's, or DeviceArrays.
Segment = tuple[Any, Any, Sequence[Any], int]


class Batch:
    """Tensors of one dtype and storage that one rule updates, in one compiled call.

    Where they are on a CUDA device, ``Batch(...)`` is one of :mod:`fastopt.engine.device_batch`, and so with
    the other classes of this module. It keeps the arrays of its segments alive. Of gradients that are set
    later it knows the addresses only: keep them until the launch is done.

    Parameters
    ----------
    rule : Rule
        The scalar rule.
    segments : sequence of Segment
        The tensors, none of them empty. Those that follow each other in memory, in all their buffers,
        become one.
    rows : int
        Number of rows of scalars.
    max_threads : int
        The most threads that a step may use.
    clears : bool
        Whether the gradients are set to zero in the same pass.
    storage : Storage, optional
        How they are stored, unless all are of the parameters' dtype. Where elements share scales, each
        segment is a whole tensor.
    origins : sequence of int
        Where something is stored otherwise: the place of the first element of each segment among all elements
        of the optimizer, on which its random bits depend.
    """

    _chunk_unit = 1
    #: Whether it works on a CUDA device.
    on_device = False

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Make a batch for where the arrays are."""
        return object.__new__(_on_device(cls) if not cls.on_device and _are_on_device(args) else cls)

    def __init__(
        self,
        rule: Rule,
        segments: Sequence[Segment],
        rows: int,
        max_threads: int,
        clears: bool = False,
        storage: Storage | None = None,
        origins: Sequence[int] = (),
    ) -> None:
        dtype = segments[0][0].dtype
        n_buffers = len(rule.state)
        if storage is not None:
            dtype, n_buffers = storage.dtype, len(storage.buffers)
        table = np.zeros((len(segments), STATE + n_buffers), np.int64)
        for line, (param, grad, state, row) in zip(table, segments, strict=True):
            buffers = [address(buffer) for buffer in state]
            line[START:] = 0, param.size, row, address(param), 0 if grad is None else address(grad), *buffers
        self._alive = segments
        self._prepare(rule, dtype, table, rows, max_threads, clears, storage, origins)

    def _prepare(
        self,
        rule: Rule,
        dtype: np.dtype[np.floating],
        table: NDArray[np.int64],
        rows: int,
        max_threads: int,
        clears: bool = False,
        storage: Storage | None = None,
        origins: Sequence[int] = (),
    ) -> None:
        size = int(table[:, END].sum())
        # What is stored as it is computed has no kernel of its own.
        self.storage = None if storage is None or storage.native else storage
        self.rule, self.dtype = rule, dtype
        self._itemsizes = np.full(table.shape[1] - PARAM, dtype.itemsize)
        if self.storage is not None:
            self._itemsizes[:] = self.storage.itemsizes
            keys = np.zeros(len(table), np.int64)  # see set_key
            table = np.c_[table, np.array(origins, np.int64), keys]
            if self.storage.in_blocks:
                self._chunk_unit = math.lcm(self._chunk_unit, SHARED)
        self._n_addresses = len(self._itemsizes)
        self.table = self._placed(table)
        self._clears = clears
        self.launch = self._compiled(clears)
        n_scalars = 1 + self._n_scalars()
        self.scalars = aligned_zeros(rows * n_scalars, dtype).reshape(rows, -1)
        self._format = struct.Struct(f"={n_scalars}{dtype.char}")  # "=": overflow raises
        self._view = memoryview(self.scalars).cast("B")  # type: ignore[arg-type]
        self._no_tickets = np.zeros(2, np.int64)
        large = self._bytes() * size > threads.cutoff_bytes()
        self.threads = min(max_threads, -(-int(self.table[-1, END]) // threads.CHUNK)) if large else 1

    def _compiled(self, clears: bool) -> Launch:
        compiled = compile_clearing if clears else compile_launch
        return compiled(self.rule, self.dtype, *self._stored())

    def _stored(self) -> tuple[Storage, ...]:
        return () if self.storage is None else (self.storage,)

    def _n_scalars(self) -> int:
        return self.rule.n_scalars

    def _bytes(self) -> int:
        """Return how many bytes of an element's buffers a step goes over."""
        # Two passes take more than twice as long, so half the size is worth waking a thread.
        return (1 if self.rule.measure is None else 2) * int(self._itemsizes.sum())

    def _placed(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the table with the segments joined that continue each other, and their places filled in."""
        if self.storage is not None and self.storage.in_blocks:
            return apart(table, SHARED)
        sizes, buffers = table[:, END], table[:, PARAM:]
        steps = np.zeros(buffers.shape[1], np.int64)
        steps[: self._n_addresses] = self._itemsizes
        if self.storage is not None:
            steps[self._n_addresses] = 1  # the origin
        follows = (buffers[1:] == buffers[:-1] + sizes[:-1, None] * steps).all(axis=1)
        follows &= table[1:, ROW] == table[:-1, ROW]
        first = np.flatnonzero(np.r_[True, ~follows])
        ends = np.cumsum(sizes)[np.r_[first[1:], len(table)] - 1]
        table = np.ascontiguousarray(table[first])
        table[:, END] = ends
        table[1:, START] = ends[:-1]
        return table

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        """Set where the gradients of each segment are, for segments that were given none."""
        self.table[:, GRAD] = addresses

    def set_key(self, seed: int, step: int) -> None:
        """Set what the random bits of a step depend on, beside the places of the elements."""
        if self.storage is not None:
            self.table[:, self._key_column()] = make_key(seed, step)

    def _key_column(self) -> int:
        return PARAM + self._n_addresses + 1

    def set_scalars(self, row: int, multiplier: float, scalars: Sequence[float]) -> None:
        """Set the scalars of a row: the gradients' multiplier, and the rule's. They are cast here, once."""
        try:
            self._format.pack_into(self._view, row * self._format.size, multiplier, *scalars)
        except (struct.error, TypeError) as error:
            raise wrong_scalars(self.rule, self._n_scalars(), scalars) from error

    def switch(self, rule: Rule) -> None:
        """Have another rule, of the same state and scalars, update the tensors from now on."""
        self.rule = rule
        self.launch = self._compiled(self._clears)

    def changed(self) -> None:
        """Take note that :attr:`scalars` were written to."""

    def run(self) -> None:
        """Go over all segments."""
        if self.threads == 1:
            self.launch(self.table, self.scalars, self._no_tickets, 0)
        else:
            threads.run(self.launch, self.table, self.scalars, self.threads, self._chunk_unit)


def _are_on_device(args: Sequence[Any]) -> bool:
    """Tell whether the arrays that a batch is made of are on a CUDA device."""
    segments = next((each for each in args if isinstance(each, Sequence)), ())
    return len(segments) > 0 and isinstance(segments[0][0], DeviceArray)


def _on_device(cls: type) -> Any:
    """Return the class of a device that has another's place; it is imported when it is first needed."""
    return getattr(import_module("fastopt.engine.device_batch"), f"Device{cls.__name__}")


def apart(table: NDArray[np.int64], unit: int) -> NDArray[np.int64]:
    """Return a table of segments that begin at multiples of a number."""
    sizes = table[:, END] - table[:, START]
    units = -(-sizes // unit)
    table = np.ascontiguousarray(table)
    table[:, START] = unit * (np.cumsum(units) - units)
    table[:, END] = table[:, START] + sizes
    return table


class Measurement(Batch):
    """Tensors that a rule measures before it updates them; see :class:`fastopt.engine.Measure`.

    The segments are not joined, and each begins at a multiple of the size of a block. So its sums do not
    depend on what lies beside it, nor on who adds up what.

    Attributes
    ----------
    sums : ndarray of float64, of shape (blocks, sums)
        The sums of each block, after ``run``.
    """

    _chunk_unit = BLOCK

    def _compiled(self, clears: bool) -> Launch:
        return compile_measure(self.rule, self.dtype, *self._stored())

    def _n_scalars(self) -> int:
        return self.rule.n_measure_scalars

    def _placed(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self.rule.measure is not None
        blocks = -(-table[:, END] // BLOCK)
        first = np.cumsum(blocks) - blocks
        table = apart(np.c_[table, np.zeros(len(table), np.int64)], BLOCK)
        n = len(self.rule.measure.sums)
        table[:, -1] = self._make_sums(int(blocks.sum()), n) + first * n * 8
        return table

    def _make_sums(self, blocks: int, n: int) -> int:
        """Make the memory of the sums, and return its address."""
        self.sums = np.zeros((blocks, n))
        return address(self.sums)

    def totals(self) -> list[float]:
        """Return the sums over all segments, added in their order."""
        totals: list[float] = np.cumsum(self.sums, axis=0)[-1].tolist()  # row after row
        return totals


class Squares(Measurement):
    """The squares of gradients, summed up for each tensor.

    Parameters
    ----------
    sizes : ndarray of int64
        How many elements each tensor has, at least one.
    dtype : dtype
        float32 or float64.
    max_threads : int
        The most threads that a pass may use.
    grad : Format, optional
        How they are stored, unless they are of that dtype.
    on_device : bool
        Whether they are on a CUDA device.
    """

    def __new__(cls, *args: Any, on_device: bool = False, **options: Any) -> Any:
        """Make one for where the gradients are."""
        return object.__new__(_on_device(cls) if on_device and not cls.on_device else cls)

    def __init__(
        self,
        sizes: NDArray[np.int64],
        dtype: np.dtype[np.floating],
        max_threads: int,
        grad: Format | None = None,
        on_device: bool = False,
    ) -> None:
        table = np.zeros((len(sizes), STATE), np.int64)
        table[:, END] = sizes
        storage = None if grad is None else Storage(FLOAT32 if grad.dtype.itemsize < 4 else grad, grad)
        self._prepare(SQUARES, dtype, table, 1, max_threads, False, storage, [0] * len(sizes))
        self._first = self.table[:, START] // BLOCK

    def _bytes(self) -> int:
        return int(self._itemsizes[1])

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        """Set where each tensor is."""
        # It is not read as the parameter, but it is fetched ahead.
        self.table[:, GRAD] = self.table[:, PARAM] = addresses

    def each(self, factor: float = 1.0) -> NDArray[np.float64]:
        """Return the sum of the squares of each tensor's elements, times a factor."""
        self.scalars[0, 0] = factor
        self.changed()
        self.run()
        return np.add.reduceat(self.sums[:, 0], self._first)


class Finish:
    """Computes the scalars of each segment's update from its sums, and what it carries.

    Parameters
    ----------
    measurement : Measurement
        Its rule measures each tensor apart.
    carry : sequence of sequence of ndarray
        For each segment, float64 arrays of one element: what it carries.
    kinds : tuple of int
        What the rule's hyperparameters are; see ``compile_finish``.
    rows : int
        Number of rows of inputs.
    """

    def __new__(cls, measurement: Measurement, *args: Any) -> Any:
        """Make one for where the measurement is."""
        return object.__new__(_on_device(Finish) if measurement.on_device else cls)

    def __init__(
        self,
        measurement: Measurement,
        carry: Sequence[Sequence[NDArray[np.floating]]],
        kinds: tuple[int, ...],
        rows: int,
    ) -> None:
        self._measurement, self._alive = measurement, carry
        self._carry = np.array([[address(each) for each in own] for own in carry], np.int64)
        self._carry = self._carry.reshape(len(carry), -1)
        self._finish = self._compile(measurement.rule, measurement.dtype, kinds)
        #: A row of numbers for each row of scalars: the gradients' multiplier is the first.
        self.inputs = self._make_inputs((rows, 2 + sum(max(kind, 1) for kind in kinds)))

    def _compile(self, rule: Rule, dtype: np.dtype[np.floating], kinds: tuple[int, ...]) -> Any:
        return compile_finish(rule, dtype, kinds)

    def _make_inputs(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        return np.zeros(shape)

    def set_inputs(self, row: int, inputs: Sequence[float]) -> None:
        """Set a row's inputs: the gradients' multiplier, the number of the step, the hyperparameters."""
        self.inputs[row] = inputs

    def run(self, batch: Batch) -> None:
        """Fill in the scalars of each segment's update."""
        measured = self._measurement
        self._finish(measured.table, measured.sums, self._carry, self.inputs, batch.scalars)
