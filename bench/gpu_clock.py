"""What a step takes on a CUDA device: by the device's events, and by the host's clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import _measure  # noqa: F401  first: it says which fastopt is measured
import numpy as np

from fastopt.engine import cuda

Step = Callable[[], object]

#: Steps that are queued at once, at most. fastopt's host waits when it is sixteen steps ahead, and CUDA's at
#: about a thousand launches.
AHEAD = 1 if cuda.SIMULATED else 8
#: How long the host may take to queue them.
QUEUED_S = 5e-3
#: How long a loop of steps is, and of how many steps at most.
LOOP_S, LOOP = 0.02, 1 if cuda.SIMULATED else 200
#: Steps after each of which the caches are flushed.
COLD = 1 if cuda.SIMULATED else 3


class Times(NamedTuple):
    """Seconds that a step takes.

    Attributes
    ----------
    device : float
        On the device, among others that were all queued before the first began.
    cold : float
        On the device, after much else went through its caches.
    loop : float
        In a loop, from the first call until the device is done: the greater of the host's time and the
        device's.
    host : float
        Until the call returns, where the device does not hold it up: the overhead.
    """

    device: float
    cold: float
    loop: float
    host: float


class _Simulated:
    """An event of the simulator, whose own have no time."""

    def record(self, stream: Any = 0) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: _Simulated) -> float:
        return 1e3 * (end.at - self.at)


class Clock:
    """Takes the times of steps on the default stream, which is torch's too.

    Parameters
    ----------
    ballast : int
        Bytes that are copied to keep the device busy while the host queues steps, and that flush its caches:
        several times as many as those hold.
    """

    def __init__(self, ballast: int) -> None:
        self._from, self._to = cuda.Memory(ballast), cuda.Memory(ballast)
        for memory in (self._from, self._to):
            cuda.clear(memory.address, ballast)
        event = _Simulated if cuda.SIMULATED else cuda.package().event
        self._begin, self._end = event(), event()
        self._copy()
        cuda.synchronize()
        self._copy_s = min(self._span(self._copy, 4) for _ in range(3))

    def times(self, step: Step) -> Times:
        """Return the times of a step, in the order that disturbs the next least."""
        loop = self._looped(step, 1)  # warms, too
        host = self._called(step, min(AHEAD, max(1, int(0.1 / loop))))
        loop = self._looped(step, max(1, min(LOOP, int(LOOP_S / loop))))
        calls = max(1, min(AHEAD, int(LOOP_S / loop), int(QUEUED_S / host)))
        self._occupy(host * calls)
        device = self._span(step, calls)
        cold = []
        for _ in range(COLD):
            self._occupy(host)
            cold.append(self._span(step, 1))
        return Times(device, float(np.median(cold)), loop, host)

    def _copy(self) -> None:
        cuda.on_device(self._to.address, self._from.address, self._from.nbytes)

    def _occupy(self, seconds: float) -> None:
        """Keep the device busy for more than that, without waiting."""
        for _ in range(2 if cuda.SIMULATED else 2 + math.ceil(2 * seconds / self._copy_s)):
            self._copy()

    def _span(self, step: Step, calls: int) -> float:
        """Return what the device takes for a call."""
        self._begin.record()
        for _ in range(calls):
            step()
        self._end.record()
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) / 1e3 / calls

    def _called(self, step: Step, calls: int) -> float:
        """Return what the host takes for a call."""
        cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(calls):
            step()
        seconds = (time.perf_counter() - begun) / calls
        cuda.synchronize()
        return seconds

    def _looped(self, step: Step, calls: int) -> float:
        """Return what a call takes, until the device is done with all."""
        cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(calls):
            step()
        cuda.synchronize()
        return (time.perf_counter() - begun) / calls
