"""C with OpenMP, by hand: ``steps.c``, compiled here with the flags that a C programmer would try."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from contest import KEPT, MAX_NORM, Contestant, Task, Unavailable, refuse
from workloads import Arrays

from fastopt.engine.memory import aligned_zeros

#: Without -fno-math-errno the square root is a call, and the loop is not vectorised.
COMMON = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC"]
VARIANTS = [[], ["-mprefer-vector-width=512"], ["-ffast-math"]]
#: How many buffers of state each step has.
STATE = {"AdamW": 2, "SGD": 1, "Adagrad": 1, "Lion": 1}
FUNCTIONS = {name: name.lower() for name in STATE}


@cache
def libraries() -> list[Any]:
    """Return what the compiler makes, for each of the flags that it knows."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Unavailable("there is no gcc")
    source, found, problem = Path(__file__).with_name("steps.c"), [], ""
    with tempfile.TemporaryDirectory() as folder:
        for i, flags in enumerate(VARIANTS):
            library = Path(folder, f"steps{i}.so")  # a loaded library outlives its file
            command = [compiler, *COMMON, *flags, str(source), "-o", str(library), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                problem = (done.stderr.splitlines() or ["failed"])[0]
                continue
            found.append(ctypes.CDLL(str(library)))
    if not found:
        raise Unavailable(f"{compiler}: {problem}")
    return found


def version() -> str | None:
    """Return the compiler's version."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    done = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def by_hand(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """Return the step over one aligned buffer, by whichever of the libraries takes it fastest."""
    refuse(task, list(STATE), ("update", "clip", "clip + EMA"))
    found = libraries()
    size = sum(array.size for array in params)
    p, g, *state = (aligned_zeros(size, np.float32) for _ in range(2 + STATE[task.algorithm]))
    average = aligned_zeros(size, np.float32) if task.averages else None
    _fill(p, params)
    _fill(g, grads)
    steps = [_step(library, task, p, g, state, average) for library in found]
    best = min(steps, key=_seconds)
    _fill(p, params)
    if average is not None:
        average[:] = p
    for buffer in state:
        buffer.fill(0.0)
    ends = np.cumsum([array.size for array in params])[:-1]

    def read() -> tuple[Arrays, Arrays]:
        return np.split(p, ends), [] if average is None else np.split(average, ends)

    step = _step(found[steps.index(best)], task, p, g, state, average)  # which counts from 1
    return Contestant(step, lambda given: _fill(g, given), read)


def _step(library: Any, task: Task, p: Any, g: Any, state: list[Any], average: Any) -> Callable[[], None]:
    """Return a step as an optimizer around it would take it: the scalars in double, then one call."""
    function, scalars = getattr(library, FUNCTIONS[task.algorithm]), SCALARS[task.algorithm]
    squares = library.sum_of_squares
    squares.restype, squares.argtypes = ctypes.c_double, [ctypes.c_ssize_t, ctypes.c_void_p]
    arrays = [p, g, *state, average]
    buffers = [None if array is None else array.ctypes.data for array in arrays]
    size, settings, clips, t = p.size, task.settings, task.clips, 0
    function.restype = None
    count = 2 + len(scalars(1, **settings))
    function.argtypes = [ctypes.c_ssize_t, *[ctypes.c_void_p] * len(buffers), *[ctypes.c_float] * count]

    def step(_held: list[Any] = arrays) -> None:
        nonlocal t
        t += 1
        factor = min(1.0, MAX_NORM / (math.sqrt(squares(size, buffers[1])) + 1e-6)) if clips else 1.0
        function(size, *buffers, factor, KEPT, *scalars(t, **settings))

    return step


def _adamw(t: int, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> Any:
    beta1, beta2 = betas
    correction = 1.0 / math.sqrt(1.0 - beta2**t)
    return lr / (1.0 - beta1**t), beta1, beta2, correction, eps, 1.0 - lr * weight_decay


SCALARS: dict[str, Callable[..., Any]] = {
    "AdamW": _adamw,
    "SGD": lambda t, lr, momentum: (lr, momentum),
    "Adagrad": lambda t, lr, eps: (lr, eps),
    "Lion": lambda t, lr, betas, weight_decay: (lr, *betas, 1.0 - lr * weight_decay),
}


def _seconds(step: Callable[[], None]) -> float:
    best = math.inf
    for _ in range(5):
        before = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - before)
    return best


def _fill(buffer: Any, arrays: Arrays) -> None:
    at = 0
    for array in arrays:
        buffer[at : at + array.size] = array.reshape(-1)
        at += array.size
