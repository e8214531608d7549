"""Aligned buffers and raw addresses."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastopt.engine.device import DeviceArray, zeros

#: Bytes in a cache line, and in the widest vector register. NumPy's own big arrays start 16 bytes
#: past such a boundary, so that every vector load would touch two lines.
ALIGNMENT = 64


def aligned_zeros(size: int, dtype: DTypeLike, like: Any = None) -> NDArray[np.floating]:
    """Return a zeroed 1-D array that starts at a multiple of 64 bytes.

    Parameters
    ----------
    size : int
        Number of elements.
    dtype : data-type
        Their dtype.
    like : ndarray or DeviceArray, optional
        On the device if that is.

    Returns
    -------
    ndarray of shape (size,), or DeviceArray
        Pages that are never touched take no memory, as with :func:`numpy.zeros`.

    Examples
    --------
    >>> from fastopt.engine.memory import address, aligned_zeros
    >>> address(aligned_zeros(1000, "float32")) % 64
    0
    """
    dtype = np.dtype(dtype)
    if isinstance(like, DeviceArray):
        return zeros(size, dtype)  # type: ignore[return-value]
    spare = ALIGNMENT // dtype.itemsize
    raw = np.zeros(size + spare, dtype)
    start = -address(raw) % ALIGNMENT // dtype.itemsize
    return raw[start : start + size]


def address(array: NDArray[np.generic]) -> int:
    """Return the address of an array's first element."""
    if isinstance(array, DeviceArray):
        return array.address
    if array.flags.carray and array.size:
        return contiguous_address(array)
    return int(array.__array_interface__["data"][0])


def contiguous_address(array: NDArray[np.generic]) -> int:
    """Return the address of an array that is not empty and whose ``flags.carray`` is set.

    By way of the buffer protocol: three times as fast as by ``__array_interface__`` or ``ctypes.data``, which
    a step with a thousand new gradients notices.
    """
    return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]


def byte_bounds(array: NDArray[np.generic]) -> tuple[int, int]:
    """Return the addresses of an array's first byte and of the one after its last."""
    if isinstance(array, DeviceArray):
        return array.address, array.address + array.nbytes
    return np.lib.array_utils.byte_bounds(array)


def shares_memory(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    """Tell whether two arrays, on the host or on a device, share memory."""
    if not isinstance(one, DeviceArray) and not isinstance(other, DeviceArray):
        return np.shares_memory(one, other)
    (low, high), (start, end) = byte_bounds(one), byte_bounds(other)  # one address space, and no gaps
    return low < end and start < high


def overlapping(arrays: Sequence[NDArray[np.generic]]) -> tuple[int, int] | None:
    """Return the indices of two arrays that share memory, or None.

    Compares the arrays that lie next to each other in memory, so that a thousand of them cost
    a sort, not a million comparisons. Interleaved strided views (a matrix's even and odd columns) are
    told apart exactly.

    Examples
    --------
    >>> from fastopt.engine.memory import overlapping
    >>> a = np.zeros(10)
    >>> overlapping([a[:5], a[5:]]) is None
    True
    >>> overlapping([a[5:], a[:6]])
    (0, 1)
    """
    bounds = [(*byte_bounds(a), i) for i, a in enumerate(arrays) if a.size]
    bounds.sort()
    reached: list[tuple[int, int]] = []  # the (end, index) of those that the next may overlap
    for low, high, i in bounds:
        reached = [(end, j) for end, j in reached if end > low]
        for _, j in reached:
            if shares_memory(arrays[i], arrays[j]):
                return min(i, j), max(i, j)
        reached.append((high, i))
    return None


def self_overlapping(array: NDArray[np.generic]) -> bool:
    """Tell whether two indices of an array name one place, as in a broadcast array.

    Examples
    --------
    >>> from fastopt.engine.memory import self_overlapping
    >>> self_overlapping(np.broadcast_to(np.zeros(3), (2, 3)))
    True
    >>> self_overlapping(np.zeros((2, 3)).T)
    False
    """
    if isinstance(array, DeviceArray):
        return False
    axes = sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
    spans = itertools.accumulate((s * (n - 1) for s, n in axes), initial=array.itemsize - 1)
    return array.size > 0 and any(s <= span for (s, _), span in zip(axes, spans, strict=False))
