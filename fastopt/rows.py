"""Gradients of embedding tables: some rows of them, given by their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastopt.engine.rows import Touched, touch
from fastopt.foreign import as_numpy
from fastopt.formats import is_half
from fastopt.leaf import Array, Leaf
from fastopt.tree import describe


class Rows:
    r"""The gradient of some rows of a table, in the place of an array of the table's shape.

    The other rows, and their state, stay as they are: they are neither read nor written. See the notes of a
    class for whether it takes rows, and with which settings.

    Parameters
    ----------
    indices : array of int, of shape (k,)
        The rows' numbers, from 0, in any order. The values of one that occurs several times are added up.
    values : array of shape (k, \*shape of a row)
        The gradient of each, in the table's dtype.

    Attributes
    ----------
    indices, values : ndarray
        As given, or views of arrays of other libraries. They are read anew at each step.

    Raises
    ------
    TypeError
        If they are not in the CPU's memory.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> table = np.zeros((1000, 2))
    >>> opt = fastopt.Adagrad(table, lr=0.1)
    >>> opt.step(fastopt.Rows([7, 3, 7], np.array([[1.0, 2.0], [-5.0, 5.0], [0.0, -4.0]])))
    >>> table[[3, 7]].round(4)
    array([[ 0.1, -0.1],
           [-0.1,  0.1]])
    """

    __slots__ = ("indices", "values")

    def __init__(self, indices: ArrayLike, values: Array) -> None:
        plain = as_numpy(indices, "indices")
        self.indices = np.asarray(plain, None if np.size(plain) else np.intp)
        self.values = as_numpy(values, "values")

    def __repr__(self) -> str:
        return f"<Rows: {np.size(self.indices)} indices, values of shape {np.shape(self.values)}>"

    def touch(self, leaf: Leaf, place: str) -> Touched:
        """Return the rows of a leaf that are given, once each, or raise an error that names ``place``."""
        if not leaf.shape:
            raise ValueError(f"{place} cannot be Rows: {leaf.place} has no axes")
        if leaf.staged or leaf.order == "F":
            raise ValueError(f"{place} cannot be Rows: {leaf.place} is not C-contiguous (and aligned)")
        indices = self._checked_indices(leaf.shape[0], f"{place}.indices")
        values, wanted = self.values, (len(indices), *leaf.shape[1:])
        if not isinstance(values, np.ndarray):
            raise TypeError(f"{place}.values must be an array of {leaf.dtype}, got {describe(values)}")
        if leaf.dtype == np.float32 and is_half(values.dtype):
            values = values.astype(np.float32)
        if values.dtype != leaf.dtype:
            raise TypeError(f"{place}.values must be of {leaf.dtype}, like its parameter; got {values.dtype}")
        if values.shape != wanted:
            raise ValueError(f"{place}.values must have the shape {wanted}, got {values.shape}")
        plain = np.asarray(values)
        if not (plain.flags.c_contiguous and plain.flags.aligned):
            plain = plain.copy()
        return touch(indices, plain)

    def _checked_indices(self, n: int, place: str) -> NDArray[np.int64]:
        given: Any = self.indices
        if not isinstance(given, np.ndarray) or given.dtype.kind not in "iu":
            what = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else describe(given)
            raise TypeError(f"{place} must be an array of whole numbers, got {what}")
        if given.ndim != 1:
            raise ValueError(f"{place} must have one axis, got the shape {given.shape}")
        indices = np.ascontiguousarray(given, np.int64)
        # Seen as unsigned, what is negative is large.
        if len(indices) and int(indices.view(np.uint64).max()) >= n:
            bad = given[np.flatnonzero((indices < 0) | (indices >= n))[0]]
            raise ValueError(f"{place} must be in [0, {n}), got {bad}")
        return indices
