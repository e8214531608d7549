"""How many threads, from which size on, and the threads themselves.

They are Python threads that run ``nogil`` kernels and sleep on a queue in between. Numba's own
parallel loops spin between launches, and so do the threads of NumPy's BLAS: two pools that spin on the
same cores slow each other down a hundredfold. Numba's OpenMP layer also dies in a forked child. Waking
these threads costs some 20 microseconds instead, so small steps stay on the caller's thread.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.columns import END
from fastopt.engine.kernel import Launch

#: Elements that a thread takes at a time. Large enough that handing them out costs nothing, small
#: enough that a thread which loses its core (BLAS spins on it for a while after a product) holds up
#: the others for little. A multiple of what a cache line holds, so no line is written by two threads.
CHUNK = 1 << 16


def available_threads() -> int:
    """Return how many threads a step may use unless it is told otherwise.

    That is ``FASTOPT_NUM_THREADS`` where it is set, else the CPUs that this process may run on, or
    the CPU time that its control groups allow (a container's limit) where that is less.

    Raises
    ------
    ValueError
        If ``FASTOPT_NUM_THREADS`` is not a positive whole number.
    """
    given = os.environ.get("FASTOPT_NUM_THREADS")
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"FASTOPT_NUM_THREADS must be a whole number >= 1, got {given!r}")
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    quota = _control_group_quota(Path("/"))
    return cpus if quota is None else max(1, min(cpus, round(quota)))


def _control_group_quota(root: Path) -> float | None:
    """Return the CPUs' worth of time that this process's control groups allow, or None for any."""
    limits: list[float] = []
    mount = root / "sys/fs/cgroup"
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        own = Path(path.lstrip("/"))
        for group in (own, *own.parents):  # in a container, the path may be the host's: look above it
            try:
                if not controllers:
                    quota, period = (mount / group / "cpu.max").read_text().split()
                elif "cpu" in controllers.split(","):
                    folder = mount / controllers / group
                    quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                    period = (folder / "cpu.cfs_period_us").read_text()
                else:
                    break
            except OSError:
                continue
            if quota not in ("max", "-1"):
                limits.append(int(quota) / int(period))
    return min(limits, default=None)


#: A step over this much takes one core some 150 microseconds, several times as long as waking another.
_LARGEST_CUTOFF = 16 << 20


@cache
def cutoff_bytes() -> int:
    """Return the size of a step's buffers, in bytes, above which it uses several threads.

    Half of the last-level cache, or 16 MiB where that is less. Below it, one core computes as fast as the
    cache delivers; a second one can save a quarter of the time when it is awake, and nothing when it has to
    be woken or a BLAS thread spins on it. ``bench/scaling.py`` measures all of that.
    """
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [text for path in caches if (text := path.read_text().strip()).endswith("K")]
    last_level = max((int(text[:-1]) << 10 for text in sizes), default=2 * _LARGEST_CUTOFF)
    return min(last_level // 2, _LARGEST_CUTOFF)


class _Job:
    """A launch that threads can join."""

    def __init__(
        self, launch: Launch, table: NDArray[np.int64], scalars: NDArray[np.floating], unit: int = 1
    ) -> None:
        self._arguments = table, scalars
        self._launch = launch
        self._tickets = np.zeros(2, np.int64)
        self._chunk = -(-CHUNK // unit) * unit
        self._chunks = -(-int(table[-1, END]) // self._chunk)
        self._left: SimpleQueue[None] = SimpleQueue()

    def join(self) -> None:
        """Do chunks for as long as there are any."""
        self._launch(*self._arguments, self._tickets, self._chunk)

    def leave(self) -> None:
        """Say that a helper does no chunk any more."""
        self._left.put(None)

    def wait(self) -> None:
        """Wait until all chunks are done: not for helpers that woke up too late to do any."""
        while self._tickets[1] < self._chunks:
            self._left.get()


class _Pool:
    """Threads that help with launches. Any number of threads may ask for help at once."""

    def __init__(self) -> None:
        self._jobs: dict[int, _Job] = {}  # those under way
        self._wake_ups: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()
        self._size = 0

    def run(self, job: _Job, helpers: int) -> None:
        """Do a job on the caller's thread and on up to ``helpers`` others; return when it is done."""
        with self._lock:
            while self._size < helpers:
                # Daemons: at exit they are asleep, because whoever starts a job waits for its end.
                try:
                    threading.Thread(target=self._help, name="fastopt", daemon=True).start()
                except RuntimeError:  # none to be had: at the process's limit, or at its exit
                    break
                self._size += 1
        self._jobs[id(job)] = job
        # On a busy machine earlier wake-ups may not have been heard yet; they will do.
        for _ in range(helpers - self._wake_ups.qsize()):
            self._wake_ups.put(None)
        try:
            job.join()
        except BaseException:  # an interrupt, before the call or after it: half a step is no step
            job.join()
            raise
        finally:
            del self._jobs[id(job)]
            job.wait()

    def _help(self) -> None:
        while True:
            self._wake_ups.get()
            for job in list(self._jobs.values()):
                job.join()
                job.leave()
                del job  # or its buffers live until the next one


_pool = _Pool()


def _renew_after_fork() -> None:
    """Give a forked child a pool of its own: threads do not survive a fork, and locks may be held."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


def run(
    launch: Launch, table: NDArray[np.int64], scalars: NDArray[np.floating], threads: int, unit: int = 1
) -> None:
    """Run a launch on several threads, the caller's among them.

    Parameters
    ----------
    launch : callable
        A compiled launch.
    table, scalars : ndarray
        Its arguments.
    threads : int
        How many threads, at least 1.
    unit : int
        What each thread's share is a multiple of.
    """
    _pool.run(_Job(launch, table, scalars, unit), threads - 1)
