"""Steps that run while Python goes on: on one thread, which sleeps when there are none."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue


class PendingStep:
    """A step that :meth:`fastopt.Optimizer.step_async` has begun.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.ones(3)
    >>> step = fastopt.SGD(w, lr=0.5).step_async(np.ones(3))
    >>> step.wait()
    >>> step.done(), w
    (True, array([0.5, 0.5, 0.5]))
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function
        self._finished = threading.Event()
        self._error: BaseException | None = None
        self._thread = 0
        self._process = os.getpid()
        self._told = False

    def done(self) -> bool:
        """Tell whether the step is done, or has failed."""
        return self._finished.is_set()

    def wait(self) -> None:
        """Wait until the step is done.

        Raises
        ------
        TypeError, ValueError, FloatingPointError, RuntimeError
            What the step raised; as of :meth:`fastopt.Optimizer.step`.
        RuntimeError
            In a child that the process forked while the step was under way: no thread goes on with it there,
            and the parameters may be half updated.
        """
        if self._process != os.getpid() and not self.done():
            self._told = True
            raise RuntimeError("a step was under way when this process was forked: here it never ends")
        self._finished.wait()
        self._told = True
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        """Take the step."""
        function, self._function = self._function, None  # which holds the optimizer, and the gradients
        assert function is not None
        self._thread = threading.get_ident()
        try:
            function()
        except BaseException as error:
            self._error = error
        finally:
            self._finished.set()


class Turn:
    """Says whose turn it is with an optimizer: what needs its parameters waits for a step that is under way.

    It is shared by the optimizer and its groups. It does not refer to them: a cycle would keep their memory.
    """

    def __init__(self) -> None:
        self._pending: PendingStep | None = None

    def begin(self, function: Callable[[], None], here: bool = False) -> PendingStep:
        """Have a step taken, after the one that is under way; on this thread if it is to be done ``here``."""
        self.wait()
        self._pending = pending = PendingStep(function)
        if here:
            pending.run()
        else:
            _worker.submit(pending)
        return pending

    def wait(self) -> None:
        """Wait for the step that is under way; raise its error, unless somebody has been told of it."""
        pending = self._pending
        if pending is None or (pending._thread == threading.get_ident() and not pending.done()):
            return
        try:
            if not pending._told:
                pending.wait()
        finally:
            if pending.done() or pending._told:
                self._pending = None


class _Worker:
    """A thread that takes steps, one after the other."""

    def __init__(self) -> None:
        self._steps: SimpleQueue[PendingStep] = SimpleQueue()
        self._lock = threading.Lock()
        self._begun = False

    def submit(self, step: PendingStep) -> None:
        with self._lock:
            if not self._begun:
                # A daemon, or the process would never exit; what is under way then is waited for.
                threading.Thread(target=self._work, name="fastopt-steps", daemon=True).start()
                self._begun = True
        self._steps.put(step)

    def finish(self) -> None:
        """Wait for all steps."""
        if self._begun:
            last = PendingStep(lambda: None)
            self._steps.put(last)
            last.wait()

    def _work(self) -> None:
        while True:
            step = self._steps.get()
            step.run()
            del step  # or its error lives until the next one


_worker = _Worker()


def _renew_after_fork() -> None:
    """Give a forked child a thread of its own: threads do not survive a fork."""
    global _worker
    _worker = _Worker()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)

# Buffers are freed at exit, while a daemon goes on.
atexit.register(lambda: _worker.finish())
