"""What is done with the gradients of a step as a whole, on a CUDA device: nothing waits for the host."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import cuda, cuda_scalars
from fastopt.engine.cuda_kernels import MOST
from fastopt.engine.device import DeviceArray
from fastopt.engine.device_batch import DeviceSquares
from fastopt.grad_scaler import GREATEST, LEAST
from fastopt.guard import EPS, WINDOW, Guard
from fastopt.launch import Manner
from fastopt.leaf import Leaf
from fastopt.norms import GradientNorms
from fastopt.options import StepOptions

_SLOTS = cuda_scalars.WINDOW + WINDOW


class DeviceGuard:
    """What a :class:`fastopt.guard.Guard` knows, in the memory of the device.

    The device decides, counts and remembers. The guard's own attributes, and those of its scaler of the loss,
    are copies, as of the last :meth:`pull`.

    Parameters
    ----------
    guard : Guard
        The host's.
    options : StepOptions
        What it is to do.

    Attributes
    ----------
    address : int
        Where the slots of :mod:`fastopt.engine.cuda_scalars` are.
    taken : float
        How many steps had been taken, as of the last :meth:`pull`.
    """

    def __init__(self, guard: Guard, options: StepOptions) -> None:
        self._guard, self._options = guard, options
        self._memory = cuda.Memory(8 * _SLOTS)
        self.address = self._memory.address
        self._inputs = cuda.Upload((cuda_scalars.GREATEST + 1,), np.float64)
        self.taken = 0.0
        self._prepared = self._skipped = 0
        self.push()

    @property
    def control(self) -> int:
        """The address of what tells whether a step is taken; 0 if all are."""
        return self.address if self._options.may_skip else 0

    @property
    def factor(self) -> int:
        """The address of what all gradients are multiplied by."""
        return self.address + 8 * cuda_scalars.FACTOR

    @property
    def scale(self) -> DeviceArray:
        """The scale of the loss, as an array of no axes, which changes as steps are taken."""
        return DeviceArray(self._memory, self.address + 8 * cuda_scalars.SCALE32, (), np.float32)

    def push(self) -> None:
        """Have the device know what the host knows."""
        slots, guard, norms = np.zeros(_SLOTS), self._guard, self._guard.norms
        slots[cuda_scalars.TAKEN] = self.taken
        slots[cuda_scalars.NORM] = math.nan if guard.grad_norm is None else guard.grad_norm
        slots[cuda_scalars.NONFINITE] = guard.nonfinite
        slots[cuda_scalars.OUTLIERS] = guard.outliers
        slots[cuda_scalars.IN_A_ROW] = guard.in_a_row
        slots[cuda_scalars.SEEN] = len(norms)
        slots[cuda_scalars.WINDOW : cuda_scalars.WINDOW + len(norms)] = norms
        cuda.to_device(self.address, slots)
        self.push_scale()

    def push_scale(self) -> None:
        """Have the device know the scale of the loss, if there is one."""
        scaler, slots = self._options.grad_scaler, np.zeros(3)
        if scaler is not None:
            slots[0], slots[1] = scaler.known()
            slots[2:].view(np.float32)[0] = slots[0]
            cuda.to_device(self.address + 8 * cuda_scalars.SCALE, slots)

    def pull(self) -> None:
        """Have the host know what the device knows: it waits for the device."""
        slots, guard, before = np.empty(_SLOTS), self._guard, self.taken
        cuda.to_host(slots, self.address)
        self.taken = float(slots[cuda_scalars.TAKEN])
        self._skipped += self._prepared - int(self.taken - before)
        norms = self._prepared or guard.grad_norm is not None  # else there has been none
        guard.grad_norm = float(slots[cuda_scalars.NORM]) if norms else None
        self._prepared = 0
        guard.nonfinite, guard.outliers, guard.in_a_row = (
            int(slots[k]) for k in (cuda_scalars.NONFINITE, cuda_scalars.OUTLIERS, cuda_scalars.IN_A_ROW)
        )
        seen, window = int(slots[cuda_scalars.SEEN]), slots[cuda_scalars.WINDOW :]
        latest = window[:seen] if seen < WINDOW else np.roll(window, -(seen % WINDOW))
        guard.norms = deque(latest.tolist(), WINDOW)
        if self._options.grad_scaler is not None:
            self._options.grad_scaler.learn(float(slots[cuda_scalars.SCALE]), int(slots[cuda_scalars.GOOD]))

    def take_skipped(self) -> int:
        """Return how many of the steps, of which the host has learnt since it last asked, were left out."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    def prepare(self, multiplier: float, limit: float | None) -> None:
        """Say what a step's gradients are multiplied by, and what their greatest norm is."""
        self._prepared += 1
        options, inputs = self._options, self._inputs.values
        inputs[cuda_scalars.MULTIPLIER] = multiplier
        inputs[cuda_scalars.LIMIT] = math.nan if limit is None else limit
        inputs[cuda_scalars.APART] = options.clips_apart
        inputs[cuda_scalars.SKIPS] = options.skip_nonfinite or options.grad_scaler is not None
        deviations = options.skip_outliers
        inputs[cuda_scalars.DEVIATIONS] = math.nan if deviations is None else deviations
        scaler = options.grad_scaler
        inputs[cuda_scalars.SCALES] = scaler is not None
        if scaler is not None:
            inputs[cuda_scalars.GROWTH], inputs[cuda_scalars.BACKOFF] = (
                scaler.growth_factor,
                scaler.backoff_factor,
            )
            inputs[cuda_scalars.INTERVAL] = scaler.growth_interval
            inputs[cuda_scalars.LEAST], inputs[cuda_scalars.GREATEST] = LEAST, GREATEST
        self._inputs.run()

    def decide(self, norms: int, n: int, factors: int) -> None:
        """Decide on a step, from the norms at an address; write each tensor's factor to another."""
        kernel = cuda_scalars.guard_kernel(WINDOW, EPS)
        cuda.run(kernel, 1, norms, n, self._inputs.address, self.address, factors)


class DeviceNorms(GradientNorms):
    """Measures the gradients of the leaves that take part in a step, and decides on it.

    See :class:`fastopt.norms.GradientNorms`.
    """

    def __init__(
        self,
        members: Sequence[tuple[int, Leaf, Any]],
        size: int,
        manner: Manner,
        sparse: Collection[int],
    ) -> None:
        super().__init__(members, size, manner, sparse)
        self._apart = manner.apart
        self._norms, self._factors = cuda.Memory(8 * size), cuda.Memory(8 * size)
        for memory in (self._norms, self._factors):  # leaves without elements have a norm, too
            cuda.clear(memory.address, memory.nbytes)
        self._roots = []
        for places, squares in self._passes:
            assert isinstance(squares, DeviceSquares)
            squares.scalars[0, 0] = 1.0
            where = cuda.Upload(places.shape, np.int64)
            where.values[...] = places
            where.run()
            self._roots.append((squares, where))

    def factors(self, guard: DeviceGuard) -> NDArray[np.int64] | int:
        """Return the address of what the gradients are multiplied by; or one for each."""
        return self._factors.address + 8 * np.arange(self._size) if self._apart else guard.factor

    def send(self) -> None:
        """Have the device know what has changed."""
        for squares, _ in self._roots:
            squares.send()

    def run(self, guard: DeviceGuard) -> None:
        """Measure, and decide."""
        for squares, where in self._roots:
            squares.run()
            kernel = cuda_scalars.roots_kernel(squares.rule, squares.dtype, squares.storage)
            segments = len(squares.table)
            places = squares.table_address, segments, where.address, self._norms.address
            cuda.run(kernel, min(segments, MOST), *places)
        guard.decide(self._norms.address, self._size, self._factors.address)
