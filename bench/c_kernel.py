"""Compiles and loads ``adam.c``, with the flags that a C programmer would try."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.memory import aligned_zeros

#: Without -fno-math-errno the square root is a call, and the loop is not vectorised.
COMMON = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC"]
VARIANTS: dict[str, list[str]] = {
    "C": [],
    "C, 512 bits": ["-mprefer-vector-width=512"],
    "C, fast-math": ["-ffast-math"],
}


@cache
def kernels() -> dict[str, Callable[..., None]]:
    """Return the compiled kernel in each variant that compiles here; say why where none does."""
    compiler = shutil.which("gcc")
    if compiler is None:
        print("skipped: C (there is no gcc)")
        return {}
    source = Path(__file__).with_name("adam.c")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, flags) in enumerate(VARIANTS.items()):
            library = Path(folder, f"adam{i}.so")  # a loaded library outlives its file
            command = [compiler, *COMMON, *flags, str(source), "-o", str(library), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"skipped: {name} ({compiler}: {(done.stderr.splitlines() or ['failed'])[0]})")
                continue
            function = ctypes.CDLL(str(library)).adamw
            function.restype = None
            function.argtypes = [ctypes.c_ssize_t, *[ctypes.c_void_p] * 4, *[ctypes.c_float] * 6]
            found[name] = function
    return found


class AdamW:
    """A step of the kernel, as an optimizer around it would take it: the scalars in double, then one call.

    Parameters and gradients must start at multiples of 64 bytes.
    """

    def __init__(
        self,
        function: Callable[..., None],
        p: NDArray[np.float32],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        self.function, self.p = function, p
        self.m, self.v = aligned_zeros(p.size, np.float32), aligned_zeros(p.size, np.float32)
        self.lr, self.betas, self.eps, self.shrink = lr, betas, eps, 1.0 - lr * weight_decay
        self.addresses = p.ctypes.data, 0, self.m.ctypes.data, self.v.ctypes.data
        self.g: NDArray[np.float32] | None = None
        self.t = 0

    def __call__(self, g: NDArray[np.float32]) -> None:
        if g is not self.g:  # to ask for an address takes longer than a small step
            p, _, m, v = self.addresses
            self.g, self.addresses = g, (p, g.ctypes.data, m, v)
        self.t += 1
        beta1, beta2 = self.betas
        step_size = self.lr / (1.0 - beta1**self.t)
        correction = 1.0 / math.sqrt(1.0 - beta2**self.t)
        scalars = step_size, beta1, beta2, correction, self.eps, self.shrink
        self.function(self.p.size, *self.addresses, *scalars)
