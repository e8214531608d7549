"""Segments on a CUDA device: the batches of :mod:`fastopt.engine.batch`, with kernels of the GPU.

What changes from step to step, and is small, the host writes to arrays of its own: tables of addresses,
scalars, inputs. :meth:`OnDevice.send` copies it to the device, :meth:`OnDevice.run` launches the kernels, and
neither waits. So the kernels of a step can be recorded, and be launched again with other scalars.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import cuda
from fastopt.engine.batch import Batch, Finish, Measurement, Squares, apart
from fastopt.engine.columns import END, PARAM, START
from fastopt.engine.cuda_access import WIDTH
from fastopt.engine.cuda_kernels import MOST, measure_kernel, swap_kernel, tile_of, update_kernel
from fastopt.engine.cuda_scalars import finish_kernel
from fastopt.engine.kernel import BLOCK
from fastopt.engine.rule import Rule
from fastopt.engine.swap import Swap


class OnDevice(Batch):
    """What all batches on a device have in common.

    Attributes
    ----------
    control : int
        The address of a number that is zero if a step is to be left out; 0 if none is.
    scalars_address : int
        Where the device has the scalars.
    """

    on_device = True
    control = 0
    _guarded = False

    def _prepare(self, *args: Any, **options: Any) -> None:
        super()._prepare(*args, **options)
        table, scalars, self.threads = self.table, self.scalars, 1
        # Vectors of four, of no more than 16 bytes.
        self._alignment = np.array([min(WIDTH * size, 16) for size in self._itemsizes], np.int64)
        self._table = cuda.Upload((len(table), table.shape[1] + 2), np.int64)
        self._table.values[:, :-2] = table
        self.table = self._table.values[:, :-2]
        self._small = cuda.Upload((_KEY + scalars.nbytes,), np.uint8)  # the key of the random bits, scalars
        self._key = self._small.values[:8].view(np.int64)
        self.scalars = self._small.values[_KEY:].view(scalars.dtype).reshape(scalars.shape)
        self._view = memoryview(self._small.values[_KEY:])  # type: ignore[arg-type]
        self.scalars_address = self._small.address + _KEY
        tile = self._tile()
        last = self.table[-1]
        self._tiles = int(last[START]) // tile + -(-int(last[END] - last[START]) // tile)
        self._mark_aligned()
        self._table_changed = self._small_changed = True

    def _tile(self) -> int:
        return tile_of(self.storage)

    def _placed(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        return apart(super()._placed(table), self._tile())

    def _mark_aligned(self) -> None:
        places = self.table[:, PARAM : PARAM + self._n_addresses]
        self._table.values[:, -1] = (places % self._alignment == 0).all(axis=1)

    def guard(self, control: int, factors: NDArray[np.int64] | int) -> None:
        """Have the device decide whether a step is taken, and what the gradients are multiplied by.

        Parameters
        ----------
        control : int
            See the attribute.
        factors : int, or ndarray of int64
            The address of a double that all gradients are multiplied by; or one for each segment.
        """
        self.control, self._guarded = control, True
        self._table.values[:, -2] = factors
        self.launch = self._compiled(self._clears)

    def compute(self) -> None:
        """Have the device compute the scalars, at an address of their own."""
        self._computed = cuda.Memory(self.scalars.nbytes)
        self.scalars_address = self._computed.address

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        super().set_gradients(addresses)
        self._mark_aligned()
        self._table_changed = True

    def set_key(self, seed: int, step: int) -> None:
        super().set_key(seed, step)
        if self.storage is not None:
            self._key[0] = self.table[0, self._key_column()]
            self._small_changed = True

    def set_scalars(self, *args: Any) -> None:
        super().set_scalars(*args)
        self._small_changed = True

    def changed(self) -> None:
        self._small_changed = True

    def send(self) -> None:
        if self._table_changed:
            self._table.run()
            self._table_changed = False
        if self._small_changed:
            self._small.run()
            self._small_changed = False

    def run(self) -> None:
        self.send()
        places = self._table.address, len(self.table), self.scalars_address, self._small.address
        cuda.run(self.launch, min(self._tiles, MOST), *places, self._tiles, self.control)


#: Bytes before the scalars, so that they are aligned.
_KEY = 16


class DeviceBatch(OnDevice):
    """Tensors that one rule updates, in one launch; see :class:`fastopt.engine.Batch`."""

    def _compiled(self, clears: bool) -> Any:
        return update_kernel(self.rule, self.dtype, clears, self.storage, self._guarded)


class DeviceMeasurement(OnDevice, Measurement):
    """Tensors that a rule measures; see :class:`fastopt.engine.Measurement`."""

    def _compiled(self, clears: bool) -> Any:
        return measure_kernel(self.rule, self.dtype, self.storage, self._guarded)

    def _tile(self) -> int:
        return BLOCK

    def _make_sums(self, blocks: int, n: int) -> int:
        self._shape = blocks, n
        self._sums = cuda.Memory(8 * blocks * n)
        return self._sums.address

    @property
    def sums(self) -> NDArray[np.float64]:  # type: ignore[override]
        """The sums of each block, copied to the host: it waits for the device."""
        found = np.empty(self._shape)
        cuda.to_host(found, self._sums.address)
        return found

    @property
    def place(self) -> tuple[int, int]:
        """The address of the sums, and the number of their blocks."""
        return self._sums.address, self._shape[0]

    @property
    def table_address(self) -> int:
        """Where the device has the table."""
        return self._table.address


class DeviceSquares(DeviceMeasurement, Squares):
    """The squares of gradients, summed up for each tensor; see :class:`fastopt.engine.Squares`."""


class DeviceFinish(Finish):
    """Computes the scalars of each segment's update on the device; see :class:`fastopt.engine.Finish`."""

    _measurement: DeviceMeasurement

    def _compile(self, rule: Rule, dtype: np.dtype[np.floating], kinds: tuple[int, ...]) -> Any:
        self._carried = cuda.Upload(self._carry.shape, np.int64)
        self._carried.values[...] = self._carry
        self._sent = False
        return finish_kernel(rule, dtype, kinds, self._measurement.storage)

    def _make_inputs(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        self._inputs = cuda.Upload(shape, np.float64)
        return self._inputs.values

    def send(self) -> None:
        if not self._sent:
            self._carried.run()
            self._sent = True
        self._inputs.run()

    def run(self, batch: Batch) -> None:
        assert isinstance(batch, DeviceBatch)
        segments = len(self._measurement.table)
        cuda.run(
            self._finish,
            min(segments, MOST),
            *(self._measurement.table_address, segments, self._carried.address, self._inputs.address),
            *(batch.scalars_address, batch.control),
        )


class DeviceSwap(OnDevice, Swap):
    """Buffers that change places; see :class:`fastopt.engine.swap.Swap`."""

    def _compiled(self, clears: bool) -> Any:
        return swap_kernel(self.rule, self.dtype)
