"""Numbers in fewer bytes: their memory, and how they get into it and out of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import device
from fastopt.engine.batch import Batch
from fastopt.engine.device import DeviceArray
from fastopt.engine.formats import (
    BFLOAT16,
    FLOAT8,
    FLOAT8_SQUARES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FORMATS,
    Format,
    Storage,
    native,
)
from fastopt.engine.memory import aligned_zeros
from fastopt.engine.plain import COPY, KEEP, TAKE

__all__ = [
    "BFLOAT16",
    "FLOAT8",
    "FLOAT8_SQUARES",
    "FLOAT16",
    "FLOAT32",
    "FLOAT64",
    "FORMATS",
    "Format",
    "Storage",
    "allocate",
    "decode",
    "encode",
    "join",
    "native",
    "split",
    "stored_size",
]


def stored_size(format: Format, size: int) -> int:
    """Return how many items the array has that holds ``size`` numbers.

    Examples
    --------
    >>> from fastopt.engine.storage import FLOAT8, stored_size
    >>> stored_size(FLOAT8, 1001)
    1020
    """
    return size if format.block == 1 else -(-size // 4) * 4 + -(-size // format.block) * 4


def allocate(format: Format, size: int, like: Any = None) -> NDArray[Any]:
    """Return the array that holds ``size`` zeros, in the memory in which ``like`` is.

    It starts at a multiple of 64 bytes.
    """
    return aligned_zeros(stored_size(format, size), format.dtype, like)


def encode(
    format: Format,
    values: Any,
    out: Any = None,
    key: tuple[int, int, int] | None = None,
) -> Any:
    """Store numbers.

    In the formats of 8 bits, a block that has something that is not finite becomes NaN as a whole.

    Parameters
    ----------
    format : Format
        The format.
    values : ndarray of shape (size,)
        The numbers. They are cast to float32, unless the format is float64.
    out : ndarray or DeviceArray, optional
        What is written to: see :func:`allocate`. By default it is made where the values are.
    key : (int, int, int), optional
        Seed and number of a step, and the place of the first number: the numbers are rounded
        stochastically, as an update with these does. By default they are rounded to nearest.

    Examples
    --------
    >>> from fastopt.engine.storage import BFLOAT16, decode, encode
    >>> values = np.full(1000, 1.001, np.float32)
    >>> float(decode(BFLOAT16, encode(BFLOAT16, values), 1000).mean())
    1.0
    >>> rounded = decode(BFLOAT16, encode(BFLOAT16, values, key=(0, 1, 0)), 1000)
    >>> sorted(set(rounded.tolist())), round(float(rounded.mean()), 3)
    ([1.0, 1.0078125], 1.001)
    """
    size = values.size
    out = allocate(format, size, like=values) if out is None else out
    if format.native:
        device.copyto(out, values)
        return out
    if not size:
        return out
    seed, step, origin = key or (0, 0, 0)
    given = values if isinstance(values, DeviceArray) else np.require(values, np.float32, ["C", "A"])
    if isinstance(out, DeviceArray) and isinstance(given, np.ndarray):
        given = device.asarray(given)
    if format.block == 1:
        storage = Storage(format, FLOAT32, nearest=key is None)
        batch = Batch(COPY, [(out, given, [], 0)], 1, 1, False, storage, [origin])
    else:
        if given is values:
            given = values.copy()  # it is written to, too
        storage = Storage(FLOAT32, FLOAT32, (format,), nearest=key is None)
        batch = Batch(KEEP, [(given, given, [out], 0)], 1, 1, False, storage, [origin])
    batch.set_key(seed, step)
    batch.set_scalars(0, 1.0, ())
    batch.run()
    return out


def decode(format: Format, stored: Any, size: int) -> Any:
    """Return the numbers that are stored, where they are: float64 in that format, else float32."""
    if format.native:
        return stored[:size].copy()
    values = allocate(FLOAT32, size, like=stored)
    if not size:
        return values
    if format.block == 1:
        batch = Batch(COPY, [(values, stored, [], 0)], 1, 1, False, Storage(FLOAT32, format), [0])
    else:
        storage = Storage(FLOAT32, FLOAT32, (format,))
        batch = Batch(TAKE, [(values, values, [stored], 0)], 1, 1, False, storage, [0])
    batch.set_scalars(0, 1.0, ())
    batch.run()
    return values


def split(values: NDArray[np.floating]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the two halves of float32 numbers: bfloat16, rounded to nearest, and the rest.

    Examples
    --------
    >>> from fastopt.engine.storage import join, split
    >>> high, low = split(np.array([0.1, -3.3], np.float32))
    >>> join(high, low)
    array([ 0.1, -3.3], dtype=float32)
    """
    given = np.require(values, np.float32, ["C", "A"])
    high, low = allocate(BFLOAT16, given.size), allocate(BFLOAT16, given.size)
    if given.size:
        storage = Storage(BFLOAT16, FLOAT32, rest="split")
        batch = Batch(COPY, [(high, given, [low], 0)], 1, 1, False, storage, [0])
        batch.set_scalars(0, 1.0, ())
        batch.run()
    return high, low


def join(high: NDArray[np.uint16], low: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the numbers whose halves :func:`split` returned."""
    signed = low.astype(np.int16).astype(np.int32)
    return ((high.astype(np.uint32) << 16) + signed.view(np.uint32)).view(np.float32)
