"""Arrays in the memory of a CUDA device: fastopt's own view of them, whoever allocated them.

Importing this imports no package for CUDA.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

#: How errors say where an array is.
HERE = "on a CUDA device"
ELSEWHERE = "in the memory of the CPU"

_Casting = Literal["no", "equiv", "safe", "same_kind", "unsafe"]


class Flags:
    """How an array lies in memory, by the names of ``ndarray.flags``."""

    __slots__ = ("aligned", "c_contiguous", "f_contiguous", "writeable")

    def __init__(self, c_contiguous: bool, f_contiguous: bool, aligned: bool, writeable: bool) -> None:
        self.c_contiguous, self.f_contiguous = c_contiguous, f_contiguous
        self.aligned, self.writeable = aligned, writeable

    @property
    def forc(self) -> bool:
        """Whether the elements follow each other, in C or in Fortran order."""
        return self.c_contiguous or self.f_contiguous

    @property
    def carray(self) -> bool:
        """Whether they do in C order, aligned, and can be written to."""
        return self.c_contiguous and self.aligned and self.writeable


class DeviceArray:
    """A contiguous array in the memory of a CUDA device.

    It has of an ndarray what the optimizers need. It computes nothing: other libraries take it without a
    copy, by ``__cuda_array_interface__`` (``cupy.asarray(x)``, ``torch.as_tensor(x, device="cuda")``), and
    NumPy has copies. What it does on the device is in the order of the stream of
    :func:`fastopt.engine.cuda.on_stream`; copies from the host and to it wait for all streams.

    Parameters
    ----------
    owner : object
        What keeps the memory alive.
    address : int
        Where its first element is.
    shape : tuple of int
        Its shape.
    dtype : data-type
        Its dtype.
    order : {"C", "F"}
        The order of its elements in memory.
    writeable : bool
        Whether it may be written to.

    Attributes
    ----------
    flags : Flags
        How it lies in memory, and whether it may be written to.
    """

    __slots__ = ("__weakref__", "address", "dtype", "flags", "order", "owner", "shape", "size")

    def __init__(
        self,
        owner: Any,
        address: int,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        order: str = "C",
        writeable: bool = True,
    ) -> None:
        self.owner, self.address, self.shape, self.dtype = owner, address, shape, np.dtype(dtype)
        size = 1
        for n in shape:
            size *= n
        self.size: int = size
        both = size < 2 or sum(n > 1 for n in shape) < 2
        self.order = "C" if both else order
        c, f = both or order == "C", both or order == "F"
        self.flags = Flags(c, f, address % (self.dtype.alignment or 1) == 0, writeable)

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    def reshape(self, shape: int | tuple[int, ...], order: str = "C") -> DeviceArray:
        """Return a view in another shape; "A" is the order that it has.

        Raises
        ------
        ValueError
            If the shape has another size, or the elements lie in another order: there are no copies.
        """
        wanted = (shape,) if isinstance(shape, int) else tuple(shape)
        if -1 in wanted:
            known = -int(np.prod(wanted, dtype=np.intp))
            rest = self.size // known if known > 0 else 0
            wanted = tuple(rest if n == -1 else n for n in wanted)
        if int(np.prod(wanted, dtype=np.intp)) != self.size:
            raise ValueError(f"an array of the shape {self.shape} has no shape {wanted}")
        if order == "A":
            order = self.order
        if not (self.flags.f_contiguous if order == "F" else self.flags.c_contiguous):
            raise ValueError(f"an array in {self.order} order {HERE} is not copied to one in {order} order")
        return DeviceArray(self.owner, self.address, wanted, self.dtype, order, self.flags.writeable)

    def view(self, dtype: DTypeLike) -> DeviceArray:
        """Return a view of the same bytes as another dtype of the same size."""
        dtype = np.dtype(dtype)
        if dtype.itemsize != self.itemsize:
            raise ValueError(f"a view of {self.dtype} must be of a dtype of its size, got {dtype}")
        return DeviceArray(self.owner, self.address, self.shape, dtype, self.order, self.flags.writeable)

    def __getitem__(self, key: slice) -> DeviceArray:
        """Return a view of consecutive items of the first axis."""
        if not isinstance(key, slice) or key.step not in (None, 1) or not self.shape or self.order != "C":
            raise TypeError(
                f"an array {HERE} has slices of step 1 of the first axis, in C order; got {key!r} of "
                f"{self!r}: copy_to_host() returns an array of NumPy"
            )
        start, stop, _ = key.indices(self.shape[0])
        shape = max(stop - start, 0), *self.shape[1:]
        skipped = start * (self.nbytes // self.shape[0]) if self.shape[0] else 0
        return DeviceArray(self.owner, self.address + skipped, shape, self.dtype, "C", self.flags.writeable)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<DeviceArray of {self.dtype}, shape {self.shape}, {HERE}>"

    def fill(self, value: Any) -> None:
        """Set all elements to a number."""
        from fastopt.engine import cuda

        self._check_writeable()
        if value == 0 and not np.signbit(value):
            cuda.clear(self.address, self.nbytes)
        else:
            self.copy_to_device(value)

    def copy(self) -> DeviceArray:
        """Return a copy on the device."""
        new = empty(self.shape, self.dtype, self.order)
        copyto(new, self)
        return new

    def copy_to_host(self) -> NDArray[Any]:
        """Return a copy that NumPy can read, in the same order, once all that the device does is done."""
        from fastopt.engine import cuda

        flat: NDArray[Any] = np.empty(self.size, self.dtype)
        if self.size:
            wait()
            cuda.to_host(flat, self.address)
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")

    def copy_to_device(self, values: Any, casting: _Casting = "same_kind") -> None:
        """Set its elements: to those of an array, which is cast and broadcast as :func:`numpy.copyto` does.

        Another dtype, or another order, is converted on the host.
        """
        from fastopt.engine import cuda

        self._check_writeable()
        if isinstance(values, DeviceArray):
            alike = values.dtype == self.dtype and values.order == self.order
            if alike and values.shape == self.shape:
                cuda.on_device(self.address, values.address, self.nbytes)
                return
        host = np.empty(self.shape, self.dtype, order="F" if self.order == "F" else "C")
        source = values.copy_to_host() if isinstance(values, DeviceArray) else np.asarray(values)
        np.copyto(host, source, casting=casting)
        if self.size:
            wait()
            cuda.to_device(self.address, host.reshape(-1, order="A"))

    def _check_writeable(self) -> None:
        if not self.flags.writeable:
            raise ValueError(f"{self!r} is read-only")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"NumPy reads an array {HERE} as a copy only, and copy=False was asked for")
        found = self.copy_to_host()
        return found if dtype is None else found.astype(dtype, copy=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        from fastopt.engine import cuda

        strides, step = [], self.itemsize
        if self.order == "F":
            for n in self.shape:
                strides.append(step)
                step *= n
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, not self.flags.writeable),
            "strides": tuple(strides) if self.order == "F" else None,
            "stream": cuda.current_stream() or 1,  # 1: the default one
        }

    def __reduce__(self) -> Any:
        return _restored, (self.copy_to_host(), self.flags.writeable)


#: What the arrays of an optimizer may be.
ARRAYS = np.ndarray, DeviceArray


def _restored(values: NDArray[Any], writeable: bool) -> DeviceArray:
    array = asarray(values)
    array.flags.writeable = writeable
    return array


def is_foreign(x: Any) -> bool:
    """Tell whether something can only be an array of another library."""
    return x is not None and not isinstance(x, ARRAYS)


def require() -> None:
    """Raise an error unless a CUDA device can be used."""
    from fastopt.engine import cuda

    cuda.package()


def wait() -> None:
    """Wait for all that the device does, on any stream."""
    from fastopt.engine import cuda

    cuda.package().synchronize()


def is_on_device(x: Any) -> bool:
    """Tell whether something is a :class:`DeviceArray`."""
    return isinstance(x, DeviceArray)


def empty(shape: int | tuple[int, ...], dtype: DTypeLike, order: str = "C") -> DeviceArray:
    """Return a new array, of whatever the memory holds. It starts at a multiple of 256 bytes."""
    from fastopt.engine import cuda

    shape, dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
    memory = cuda.Memory(int(np.prod(shape, dtype=np.intp)) * dtype.itemsize)
    return DeviceArray(memory, memory.address, shape, dtype, order)


def zeros(shape: int | tuple[int, ...], dtype: DTypeLike, order: str = "C") -> DeviceArray:
    """Return a new array of zeros; see :func:`empty`."""
    array = empty(shape, dtype, order)
    array.fill(0)
    return array


def asarray(values: ArrayLike) -> DeviceArray:
    """Return a new array with the values of one of the host, in its order."""
    host = np.asarray(values)
    order = "F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
    array = empty(host.shape, host.dtype, order)
    array.copy_to_device(host)
    return array


def of(obj: Any, place: str) -> DeviceArray:
    """Return a view of an array of any library that has ``__cuda_array_interface__``.

    Raises
    ------
    TypeError
        If the library does not show it, or its elements are no numbers.
    ValueError
        If its elements do not follow each other in C or Fortran order, or are not aligned.
    """
    if isinstance(obj, DeviceArray):
        return obj
    try:
        known = obj.__cuda_array_interface__
        shape, dtype = tuple(known["shape"]), _dtype(known["typestr"], obj)
        (address, read_only), strides = known["data"], known.get("strides")
    except (AttributeError, RuntimeError, TypeError, ValueError, KeyError) as error:
        kind = type(obj).__name__
        raise TypeError(f"{place} cannot be seen as an array {HERE}, {kind} says: {error}") from error
    order = _order(shape, strides, dtype.itemsize)
    if order is None:
        raise ValueError(
            f"{place} must be contiguous, in C or Fortran order, because it is {HERE}; "
            f"got strides {strides} for the shape {shape} of {dtype}"
        )
    array = DeviceArray(obj, int(address or 0), shape, dtype, order, not read_only)
    if not array.flags.aligned:
        raise ValueError(f"{place} must be aligned: {address:#x} is no multiple of {dtype.alignment} bytes")
    return array


def check_current(number: int, place: str) -> None:
    """Raise a ValueError unless a device is the one that this thread works on; -1 stands for that one."""
    from fastopt.engine import cuda

    if number >= 0 and number != (own := cuda.device_number()):
        raise ValueError(f"{place} is on CUDA device {number}, and this thread works on device {own}")


def _dtype(typestr: str, obj: Any) -> np.dtype[Any]:
    """Return the dtype of an array; NumPy knows bfloat16 as two bytes of anything."""
    dtype = np.dtype(typestr)
    if dtype.kind == "V" and str(getattr(obj, "dtype", None)).endswith("bfloat16"):
        with suppress(ModuleNotFoundError):
            dtype = np.dtype(import_module("ml_dtypes").bfloat16)
    return dtype


def _order(shape: tuple[int, ...], strides: Any, itemsize: int) -> str | None:
    """Return the order of elements that follow each other, else None."""
    if strides is None or 0 in shape:
        return "C"
    for order, axes in (("C", range(len(shape) - 1, -1, -1)), ("F", range(len(shape)))):
        step = itemsize
        for axis in axes:
            if shape[axis] != 1 and strides[axis] != step:
                break
            step *= shape[axis]
        else:
            return order
    return None


def copyto(dst: Any, src: Any, casting: _Casting = "same_kind") -> None:
    """Copy values, as :func:`numpy.copyto` does, where either may be an array on the device."""
    if isinstance(dst, DeviceArray):
        dst.copy_to_device(src, casting)
    else:
        np.copyto(dst, src.copy_to_host() if isinstance(src, DeviceArray) else src, casting=casting)


def on_stream(stream: Any) -> AbstractContextManager[None]:
    """Have what fastopt does on a CUDA device in this thread be done on a stream, inside a ``with`` block.

    It is for arrays that do not say whose stream they are on: packs of :func:`fastopt.pack`, and
    Numba's. Those of torch and CuPy do: theirs is the current one of their library.

    Parameters
    ----------
    stream : stream, or int
        A stream of torch, CuPy or Numba, or CUDA's handle of one; 0 is the default one.

    Examples
    --------
    ::

        pack = fastopt.pack(params, device="cuda")
        opt = fastopt.AdamW(pack)
        with fastopt.on_stream(torch.cuda.current_stream()):
            opt.step()
    """
    from fastopt.engine import cuda

    handle = getattr(stream, "cuda_stream", getattr(stream, "ptr", stream))  # torch's, CuPy's
    return cuda.on_stream(int(handle))


def stream_of(arrays: Iterable[Any]) -> int:
    """Return the handle of the stream on which the caller works with arrays of any library.

    It is what the first of them says that tells. By default, that of
    :func:`fastopt.engine.cuda.on_stream`.
    """
    from fastopt.engine import cuda

    torch = sys.modules.get("torch")
    for array in arrays:
        if not is_foreign(array):
            continue
        if torch is not None and isinstance(array, torch.Tensor):
            if array.is_cuda:
                return int(torch.cuda.current_stream(array.device).cuda_stream)
            continue
        stream = getattr(array, "__cuda_array_interface__", {}).get("stream")
        if stream is not None:
            return int(stream)
    return cuda.current_stream()
