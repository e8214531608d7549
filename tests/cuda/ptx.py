"""Kernels compiled to PTX, the GPU's assembly: that takes a package, and NVIDIA's compiler, but no GPU."""

import importlib
import os
import re
import shutil
import subprocess
import types as python_types
from functools import cache
from pathlib import Path

import pytest

from fastopt.engine import cuda


def missing():
    """Return why nothing can be compiled, or None."""
    if cuda.SIMULATED:
        return "the simulator compiles nothing"
    try:
        package = cuda._package()
        base = "numba_cuda_mlir.numba_cuda" if cuda._is_mlir() else package.__name__
        importlib.import_module(f"{base}.cudadrv.nvvm").NVVM()
    except Exception as error:  # each package has others, for the compiler too
        return f"nothing compiles for a GPU here: {error}"
    return None


@cache
def ptx(kernel, target=(9, 0)):
    """Return the PTX of a kernel of integers, as its lines, for a compute capability."""
    package, patch = cuda._package(), pytest.MonkeyPatch()
    with patch.context() as there:  # a device is asked for what it can do, when functions are compiled
        if cuda._is_mlir():
            there.setattr(importlib.import_module("numba_cuda_mlir.tools"), "_cached_cc", target)
        else:
            device = python_types.SimpleNamespace(compute_capability=target)
            where = importlib.import_module("numba.cuda.dispatcher")
            there.setattr(where, "get_current_device", lambda: device)
        types = importlib.import_module("numba_cuda_mlir" if cuda._is_mlir() else "numba").types
        signature = types.void(*[types.int64] * kernel.py_func.__code__.co_argcount)
        text, _ = package.compile_ptx(kernel.py_func, signature, cc=target)
    return text if isinstance(text, str) else text.decode()


def instructions(text):
    """Return the instructions of the one kernel in PTX: names with types, as in "fma.rn.f32"."""
    (body,) = re.findall(r"\.entry.*?\n\{\n(.*?)\n\}", text, re.DOTALL)
    return re.findall(r"^\s*(?:@!?%p\d+\s+)?([a-z]\w*(?:\.\w+)*)", body, re.MULTILINE)


@cache
def assembler():
    """Return the path of NVIDIA's assembler, or None: of the packages' own, the system's, CUDA_HOME's."""
    try:
        found = [Path(each) for each in importlib.import_module("nvidia.cuda_nvcc").__path__]
    except ImportError:
        found = []
    found += [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    places = [each / "bin" / "ptxas" for each in found]
    return next((each for each in places if each.exists()), None) or shutil.which("ptxas")


def assembled(text, folder, target="sm_90"):
    """Return what the assembler needs for PTX: registers, and bytes of them that it keeps in memory."""
    source = folder / "kernel.ptx"
    source.write_text(text)
    command = [assembler(), "-v", f"-arch={target}", source, "-o", folder / "kernel.cubin"]
    done = subprocess.run(command, capture_output=True, text=True)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    registers = max(map(int, re.findall(r"Used (\d+) registers", report)))
    return registers, sum(map(int, re.findall(r"(\d+) bytes spill", report)))
