"""CUDA: what compiles for the GPU, its memory, its streams. The one file that knows a CUDA package.

There are three: Numba's own ``numba.cuda``, which is deprecated; NVIDIA's ``numba-cuda``, which takes its
place and its name; and that one's successor, ``numba-cuda-mlir``. Kernels here need little of them, which all
have: ``jit``, the numbers of threads and blocks, memory that the threads of a block share, device arrays. A
kernel is given addresses, and all that it reads and writes goes through ``load`` and ``store``, which are
made for each package. There is a fourth: Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``), in
which the GPU's memory is that of the CPU, and each thread of the GPU one of Python's.

What is read and written is of a *kind*; see :mod:`fastopt.engine.cuda_access`.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import importlib.util
import threading
import types as python_types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastopt.engine import codec, compiled
from fastopt.engine import cuda_access as access
from fastopt.engine.cache import wanted

SIMULATED = bool(numba.config.ENABLE_CUDASIM)  # type: ignore[attr-defined]

#: How many threads a block has, by which its work is divided; in the simulator, few.
THREADS = 2 if SIMULATED else 256

MISSING = (
    "arrays on a CUDA device need a package that compiles for it, which is missing: "
    'pip install "fastopt[cuda]"'
)


@cache
def package() -> Any:
    """Return the module ``cuda`` of the package in use.

    Raises
    ------
    ModuleNotFoundError
        If there is none.
    RuntimeError
        If there is no device that it can use.
    """
    cuda = _package()
    if not cuda.is_available():
        raise RuntimeError(
            f"no CUDA device can be used: {cuda.__name__} finds no driver, or no device; "
            "to try without one, set NUMBA_ENABLE_CUDASIM=1 before Python starts"
        )
    return cuda


@cache
def _package() -> Any:
    names = ["numba.cuda"]
    if not SIMULATED and importlib.util.find_spec("numba_cuda") is None:
        names.insert(0, "numba_cuda_mlir.cuda")
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ModuleNotFoundError(MISSING, name="numba_cuda")


def _is_mlir() -> bool:
    return str(_package().__name__).startswith("numba_cuda_mlir")


def _is_numba() -> bool:
    return not _is_mlir() and importlib.util.find_spec("numba_cuda") is None


def distribution() -> str | None:
    """Return under which name the package in use is installed; None if there is none."""
    try:
        _package()
    except ModuleNotFoundError:
        return None
    if _is_mlir():
        return "numba-cuda-mlir"
    return "numba" if importlib.util.find_spec("numba_cuda") is None or SIMULATED else "numba-cuda"


def devices() -> list[tuple[str, tuple[int, int]]]:
    """Return the name and the compute capability of each device that can be used.

    Raises
    ------
    RuntimeError
        If there is none; the message says why.
    """
    cuda = _package()
    if not cuda.is_available():
        error = cuda.cuda_error() or "the compiler of the package cannot be loaded"
        raise RuntimeError(" ".join(str(error).split()))
    if SIMULATED:
        return [("Numba's simulator", cuda.gpus[0].device.compute_capability)]
    return [(_text(each.name), each.compute_capability) for each in cuda.gpus]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def device_number() -> int:
    """Return the number of the device that this thread works on."""
    return 0 if SIMULATED else int(package().get_current_device().id)


# What kernels are made of.


@cache
def names() -> Mapping[str, Any]:
    """Return what kernels, and what they call, can refer to by name.

    ``load_KIND(address)``, ``store_KIND(address, value)``, ``load4_KIND(address)`` (a tuple),
    ``store4_KIND(address, a, b, c, d)``; ``bits``, ``number`` and ``u32`` of :mod:`fastopt.engine.codec`;
    ``cuda``.
    """
    if SIMULATED:
        kernel = importlib.import_module("numba.cuda.simulator.kernel")
        return {"cuda": access.Simulated(kernel._get_kernel_context), **access.simulated()}
    cuda = _package()
    made = (
        access.mlir(_mlir()) if _is_mlir() else access.llvm(importlib.import_module("numba.cuda.extending"))
    )
    made["u32"] = cuda.jit(device=True)(made["u32"])
    return {"cuda": cuda, **made}


def _mlir() -> SimpleNamespace:
    """Return what of numba-cuda-mlir makes functions for kernels."""
    names = {"types": "types", "ir": "_mlir.ir", "made": "_mlir.extras.types", "extending": "extending"}
    names |= {name: f"_mlir.dialects.{name}" for name in ("arith", "llvm", "vector")}
    return SimpleNamespace(**{k: importlib.import_module(f"numba_cuda_mlir.{v}") for k, v in names.items()})


@cache
def device(function: Callable[..., Any]) -> Any:
    """Return a plain function as one for kernels; with it, the plain functions that it calls."""
    function = getattr(function, "py_func", function)
    own = _OWN.get(function)
    if own is not None:
        return own()
    around = dict(function.__globals__)
    for name in function.__code__.co_names:
        found = around.get(name, getattr(builtins, name, None))
        if found is max or found is min or _is_plain(found):
            around[name] = device(found)
    cells = [
        python_types.CellType(
            device(cell.cell_contents) if _is_plain(cell.cell_contents) else cell.cell_contents
        )
        for cell in function.__closure__ or ()
    ]
    copy = python_types.FunctionType(
        function.__code__, around, function.__name__, function.__defaults__, tuple(cells) or None
    )
    copy.__qualname__, copy.__module__ = compiled.named(function).__qualname__, function.__module__
    if SIMULATED:
        return copy
    # Where it is a call, numba-cuda-mlir does not find its shared memory, nor what it returns if that is a
    # tuple of one.
    options = {"inline": "always"} if _is_mlir() else {}
    return _package().jit(device=True, **options)(copy)


def _is_plain(value: Any) -> bool:
    return isinstance(getattr(value, "py_func", value), python_types.FunctionType)


# Of a number and NaN, the GPU's own ``max`` and ``min`` return the number, and a NaN would be clipped to it.
# These return the first argument, as on the CPU.


def _greater(a, b):
    return b if b > a else a


def _less(a, b):
    return b if b < a else a


def _greatest(a, b, c=None):
    found = _greater(a, b)
    if c is None:
        return found
    return _greater(found, c)


def _least(a, b, c=None):
    found = _less(a, b)
    if c is None:
        return found
    return _less(found, c)


#: Functions of the CPU's kernels that have others in their place.
_OWN: dict[Any, Callable[[], Any]] = {
    max: lambda: device(_greater if _is_numba() else _greatest),  # it knows no defaults
    min: lambda: device(_less if _is_numba() else _least),
    codec.u32: lambda: names()["u32"],
    codec.bits: lambda: names()["bits"],
    codec.number: lambda: names()["number"],
}


def kernel(template: Any, name: str, around: Mapping[str, Any], keep: bool) -> Any:
    """Return a template as a kernel, under a name of its own and with names among its globals.

    It is compiled when it is first launched. With ``keep``, the disk cache of Numba keeps it.
    """
    around = {"max": device(max), "min": device(min), **around}  # Numba's own do not compile in 0.68
    function = python_types.FunctionType(template.__code__, {**template.__globals__, **around}, name)
    function.__qualname__, function.__module__ = name, template.__module__
    cuda = _package()
    if SIMULATED or not keep or not wanted():
        return cuda.jit(function)
    try:
        return cuda.jit(function, cache=True)
    except RuntimeError:  # no folder to write to
        return cuda.jit(function)


def run(compiled_kernel: Any, blocks: int, *arguments: int) -> None:
    """Launch a kernel of integers, with :data:`THREADS` threads in each of some blocks."""
    if SIMULATED:  # what is launched there is not kept apart from the kernel
        compiled_kernel[blocks, THREADS](*arguments)
    else:
        _configured(compiled_kernel, blocks, _current.handle)(*arguments)


@lru_cache(maxsize=1024)
def _configured(compiled_kernel: Any, blocks: int, handle: int) -> Any:
    with warnings.catch_warnings():  # small tensors make small grids
        warnings.filterwarnings("ignore", message="Grid size")
        return compiled_kernel[blocks, THREADS, _stream_of(handle)]


# Streams.


class _Current(threading.local):
    handle = 0


_current = _Current()


@contextmanager
def on_stream(handle: int) -> Iterator[None]:
    """Have this thread launch and copy on a stream, which is known by CUDA's handle; 0 is the default one."""
    before, _current.handle = _current.handle, handle
    try:
        yield
    finally:
        _current.handle = before


def current_stream() -> int:
    """Return the handle of the stream that this thread is on."""
    return _current.handle


def _stream() -> Any:
    return _stream_of(_current.handle)


@cache
def _stream_of(handle: int) -> Any:
    # The default one as a stream, and not as 0, for which the packages' copies wait. 1: as others call it.
    return package().default_stream() if handle in (0, 1) else package().external_stream(handle)


def synchronize() -> None:
    """Wait for what the stream does."""
    if not SIMULATED:
        _stream().synchronize()


# Memory.


class Memory:
    """Bytes in the memory of the device, at a multiple of 256.

    Attributes
    ----------
    address : int
        Where they are.
    nbytes : int
        How many.
    array : device array
        They, as the package has it.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        if SIMULATED:
            self.array: Any = np.empty(nbytes + 256, np.uint8)
            self.address = -(-self.array.ctypes.data // 256) * 256
        else:
            self.array = package().device_array(max(nbytes, 1), np.uint8)
            self.address = int(self.array.__cuda_array_interface__["data"][0])


class _Span:
    """Memory at an address, as other libraries know such."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (address, False),
            "strides": None,
        }


def _array(address: int, nbytes: int) -> Any:
    return package().as_cuda_array(_Span(address, nbytes), sync=False)


def to_device(address: int, values: NDArray[Any]) -> None:
    """Copy a contiguous array of the CPU's memory; when this returns it may change."""
    if not values.nbytes:
        return
    if SIMULATED:
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
    else:
        given = values.reshape(-1).view(np.uint8)
        _array(address, values.nbytes).copy_to_device(given, stream=_stream())
        synchronize()


def to_host(values: NDArray[Any], address: int) -> None:
    """Copy to a contiguous array of the CPU's memory, and wait until it is there."""
    if not values.nbytes:
        return
    if SIMULATED:
        ctypes.memmove(values.ctypes.data, address, values.nbytes)
    else:
        into = values.reshape(-1).view(np.uint8)
        _array(address, values.nbytes).copy_to_host(into, stream=_stream())
        synchronize()


def on_device(address: int, source: int, nbytes: int) -> None:
    """Copy from one place of the device's memory to another, after what the stream does until then."""
    if not nbytes:
        return
    if SIMULATED:
        ctypes.memmove(address, source, nbytes)
    else:
        _array(address, nbytes).copy_to_device(_array(source, nbytes), stream=_stream())


def clear(address: int, nbytes: int) -> None:
    """Set memory to zero, after what the stream does until then."""
    if nbytes:
        words = nbytes // 16 if address % 16 == 0 else 0
        blocks = min(max(-(-words // THREADS), 1), 1 << 12)
        run(_clear_kernel(), blocks, address, words, nbytes)


@cache
def _clear_kernel() -> Any:
    return kernel(_clear, "cuda_clear", names(), True)


def _clear(address, words, nbytes):
    zero, i = np.float32(0), np.int64(cuda.grid(1))
    while i < words:
        store4_f32(address + 16 * i, zero, zero, zero, zero)
        i += cuda.gridsize(1)
    i = 16 * words + cuda.grid(1)
    while i < nbytes:
        store_u8(address + i, 0)
        i += cuda.gridsize(1)


cuda: Any = None  # these three are bound for the kernel
store4_f32: Any = None
store_u8: Any = None


class Upload:
    """A small array on the device that the host sets step by step, without waiting.

    What is written to ``values`` is copied to the device by :meth:`run`, in the order of the stream. The copy
    goes by way of memory that the device reads by itself. There are several such places: the host waits only
    if it is as many steps ahead.

    Attributes
    ----------
    values : ndarray
        What the host writes.
    address : int
        Where the device has it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.values = np.zeros(shape, dtype)
        self._memory = Memory(self.values.nbytes)
        self.address = self._memory.address
        self._places: list[Any] = []
        self._count = 0

    def run(self) -> None:
        """Copy the values to the device."""
        if SIMULATED:
            ctypes.memmove(self.address, self.values.ctypes.data, self.values.nbytes)
            return
        if not self.values.nbytes:
            return
        if not self._places:
            self._places = self._make_places()
        stream, (pinned, event) = _stream(), self._places[self._count % len(self._places)]
        if self._count >= len(self._places):
            event.synchronize()
        self._count += 1
        pinned[:] = self.values.reshape(-1).view(np.uint8)
        self._memory.array.copy_to_device(pinned, stream=stream)
        event.record(stream)

    def _make_places(self) -> list[Any]:
        cuda, size = package(), self.values.nbytes
        n = max(2, min(16, (1 << 20) // size))
        pinned = cuda.pinned_array(n * size, np.uint8)
        return [(pinned[k * size : (k + 1) * size], cuda.event(timing=False)) for k in range(n)]
