"""Arrays of other libraries, seen as NumPy's, or as those of a CUDA device: the same memory, no copy."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from fastopt.engine.device import DeviceArray, check_current, of

#: The devices of DLPack whose memory the CPU can reach, as :func:`numpy.from_dlpack` has them: the CPU,
#: pinned memory of CUDA and ROCm, and memory that CUDA manages.
REACHABLE = frozenset({1, 3, 11, 13})

#: A CUDA device.
CUDA = 2

#: Names of others, for errors.
DEVICES = {CUDA: "a CUDA device", 4: "an OpenCL device", 7: "a Vulkan device", 8: "a Metal device"}
DEVICES |= {10: "a ROCm device", 14: "a oneAPI device"}

#: Whether NumPy makes all views of DLPack read-only: before 2.1 it was not told which arrays are.
ALL_READ_ONLY = np.lib.NumpyVersion(np.__version__) < "2.1.0"


def as_array(value: Any, place: str) -> Any:
    """Return an array of another library as NumPy's, or as a DeviceArray if it lies on a CUDA device.

    Those are known by ``__cuda_array_interface__``. All else is as with :func:`as_numpy`.

    Raises
    ------
    TypeError
        If the array lies where neither the CPU nor CUDA can reach it, or it cannot be shown.
    ValueError
        If it lies on a CUDA device and is not contiguous, or on one that is not the current one.
    """
    if value is None or isinstance(value, np.ndarray | np.generic | DeviceArray):
        return value
    where = _cuda_device(value)
    if where is None:
        return as_numpy(value, place)
    array = of(value, place)
    check_current(where, place)
    return array


def _cuda_device(value: Any) -> int | None:
    """Return the number of the CUDA device on which an array is, -1 if it does not say; None if on none."""
    with suppress(BufferError, RuntimeError, ValueError):
        if _is_exchanged(value):
            kind, number = map(int, value.__dlpack_device__())
            return number if kind == CUDA else None
        return -1 if hasattr(value, "__cuda_array_interface__") else None
    return None


def _is_exchanged(value: Any) -> bool:
    return hasattr(type(value), "__dlpack__") and hasattr(type(value), "__dlpack_device__")


def as_numpy(value: Any, place: str) -> Any:
    """Return an array of another library as a NumPy array over its memory, and anything else as it is.

    Arrays are known by their protocols: ``__array_interface__``, or DLPack's ``__dlpack__``. The view is
    read-only where the array is immutable, as JAX's are. It keeps the memory alive.

    Parameters
    ----------
    value : object
        What stands in the place of an array.
    place : str
        How errors name it.

    Raises
    ------
    TypeError
        If the array lies where the CPU cannot reach it, or NumPy cannot show it.

    Examples
    --------
    >>> import array, ctypes
    >>> class Vector:
    ...     def __init__(self, *values):
    ...         self.data = (ctypes.c_double * len(values))(*values)
    ...         where = ctypes.addressof(self.data), False  # not read-only
    ...         self.__array_interface__ = dict(version=3, typestr="<f8", shape=(len(values),), data=where)
    >>> vector = Vector(1.0, 2.0)
    >>> as_numpy(vector, "params")[0] = 5.0
    >>> vector.data[0]
    5.0
    """
    if value is None or isinstance(value, np.ndarray | np.generic):
        return value
    kind = type(value)
    exchanged = _is_exchanged(value)
    try:
        if exchanged:
            device = int(value.__dlpack_device__()[0])
            if device not in REACHABLE:
                where = DEVICES.get(device, f"a device of DLPack's kind {device}")
                raise TypeError(_elsewhere(value, place, where))
        elif hasattr(value, "__cuda_array_interface__"):
            raise TypeError(_elsewhere(value, place, DEVICES[CUDA]))
        if hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return _exchanged(value) if exchanged else value
    except (BufferError, RuntimeError, ValueError) as error:
        raise TypeError(f"{place} cannot be seen as a NumPy array, {kind.__name__} says: {error}") from error


def _exchanged(value: Any) -> Any:
    view = np.from_dlpack(value)
    if ALL_READ_ONLY and hasattr(value, "__array__"):
        array = np.asarray(value)  # torch's is writeable; a copy would not do
        return array if np.shares_memory(array, view) else view
    return view


def _elsewhere(value: Any, place: str, where: str) -> str:
    name = type(value).__name__
    return f"{place} must be in the memory of the CPU, got {name} on {where}: copy it to the CPU first"
