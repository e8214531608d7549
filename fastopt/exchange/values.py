"""Arrays and numbers of other libraries, as NumPy's and Python's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastopt.leaf import Array, Leaf
from fastopt.tree import describe


def check_fits(leaf: Leaf, value: Any, place: str) -> None:
    """Raise an error that names ``place`` unless an array of any library can be state of a leaf."""
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise TypeError(f"{place} must be an array or a tensor, got {describe(value)}")
    dtype, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape)
    if shape != leaf.shape:
        raise ValueError(f"{place} must have the shape of {leaf.place}, {leaf.shape}; got {shape}")
    if dtype != leaf.dtype.name:  # also the half precisions, which NumPy may not know
        raise ValueError(f"{place} must be {leaf.dtype.name}, as {leaf.place} is; got {dtype}")


def array_for(leaf: Leaf, value: Any, place: str) -> Array:
    """Return a copy of an array that is state of a leaf, or raise an error that names ``place``.

    Tensors of torch and arrays of jax are taken as well as NumPy's; neither library is imported.
    """
    check_fits(leaf, value, place)
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    copied: Array = np.array(value, leaf.dtype, order="C")
    return copied


def plain(value: Any, place: str) -> Any:
    """Return a value without tensors: numbers for those of one element, tuples for lists."""
    if isinstance(value, list | tuple):
        return tuple(plain(item, place) for item in value)
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{place} must be a number, got {value!r}") from None


def count(value: Any, place: str) -> int:
    """Return a number of steps."""
    number = plain(value, place)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{place} must be a whole number >= 0, got {value!r}")
    if not (number >= 0 and number == number // 1):  # nor NaN, nor Inf
        raise ValueError(f"{place} must be a whole number >= 0, got {number!r}")
    return int(number)
