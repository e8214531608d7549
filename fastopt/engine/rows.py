"""Rows of tables: put in order, found in memory, and updated by the same launch as whole tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import threads
from fastopt.engine.batch import Batch, Segment
from fastopt.engine.columns import END, GRAD, PARAM, ROW, START
from fastopt.engine.formats import Storage
from fastopt.engine.kernel import compile_launch
from fastopt.engine.memory import address
from fastopt.engine.plain import ADD
from fastopt.engine.rule import Rule


class Touched(NamedTuple):
    """The rows of a table that are updated."""

    #: Their numbers, each once, in order.
    rows: NDArray[np.int64]
    #: The address of each one's gradient.
    gradients: NDArray[np.int64]
    #: What is at these addresses.
    alive: tuple[NDArray[np.floating], ...]


def touch(indices: NDArray[np.int64], values: NDArray[np.floating]) -> Touched:
    """Return the rows that ``indices`` names, and where the gradient of each is.

    The values are not copied, except those of rows that occur several times: they are added up, in order.

    Parameters
    ----------
    indices : ndarray of shape (k,)
        Numbers of rows, none of them negative.
    values : ndarray of shape (k, ...)
        The gradient of each; in C order.

    Examples
    --------
    >>> from fastopt.engine.rows import touch
    >>> values = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    >>> found = touch(np.array([7, 3, 7]), values)
    >>> found.rows
    array([3, 7])
    >>> found.alive[1]
    array([[101., 202.]])
    """
    size = values.itemsize * (values.size // max(len(values), 1))
    base = address(values)
    if (indices[1:] > indices[:-1]).all():
        return Touched(indices, size * np.arange(len(values)) + base, (values,))
    rows, order = _sorted(indices)
    places = size * order + base
    repeats = rows[1:] == rows[:-1]
    if not repeats.any():
        return Touched(rows, places, (values,))
    first = np.flatnonzero(np.concatenate(([True], ~repeats)))
    rest = np.flatnonzero(repeats) + 1
    numbers = rest - np.arange(1, len(rest) + 1)  # of the row to which each of the rest is added
    several = numbers[np.concatenate(([True], numbers[1:] != numbers[:-1]))]
    gradients, sums = places[first], values[order[first[several]]]
    gradients[several] = size * np.arange(len(several)) + address(sums)
    if sums.size:
        width = size // values.itemsize
        table = np.zeros((len(rest), GRAD + 1), np.int64)
        table[:, START] = width * np.arange(len(rest))
        table[:, END] = table[:, START] + width
        table[:, PARAM], table[:, GRAD] = gradients[numbers], places[rest]
        # On one thread: several lines of the table add to one place.
        compile_launch(ADD, values.dtype)(table, np.ones((1, 1), values.dtype), np.zeros(2, np.int64), 0)
    return Touched(rows[first], gradients, (values, sums))


def _sorted(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices in order, and where each of them was; equal ones stay in their order.

    The place of each is put into its low bits. Plain numbers are sorted several times as fast as places
    are by what lies at them.
    """
    bits = (len(indices) - 1).bit_length()
    if int(indices.max()) >> (63 - bits):
        order = np.argsort(indices, kind="stable")
        return indices[order], order
    keys = indices << bits
    keys |= np.arange(len(indices))
    keys.sort()
    return keys >> bits, keys & ((1 << bits) - 1)


class RowBatch(Batch):
    """Tensors of which some rows are updated: those that :meth:`set_rows` names, others in each step.

    Parameters
    ----------
    rule : Rule
        The scalar rule. It goes by elements: it does not measure.
    segments : sequence of Segment
        The tensors.
    widths : sequence of int
        How many elements a row of each has.
    rows : int
        Number of rows of scalars.
    max_threads : int
        The most threads that a step may use.
    storage, origins
        As for a :class:`fastopt.engine.Batch`.

    Raises
    ------
    ValueError
        If elements share scales: rows may have some of a block.
    """

    def __init__(
        self,
        rule: Rule,
        segments: Sequence[Segment],
        widths: Sequence[int],
        rows: int,
        max_threads: int,
        storage: Storage | None = None,
        origins: Sequence[int] = (),
    ) -> None:
        if storage is not None and storage.in_blocks:
            raise ValueError("some rows alone cannot be updated where elements share scales, as in float8")
        super().__init__(rule, segments, rows, max_threads, False, storage, origins)
        compile_launch(ADD, self.dtype)  # now, and not in the first step in which a row occurs twice
        self._tensors, self._widths, self._max_threads = self.table, widths, max_threads
        self._touched: Sequence[Touched] = ()

    def _placed(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        return table  # each tensor apart

    def set_rows(self, touched: Sequence[Touched]) -> None:
        """Set which rows of each tensor are updated, and where their gradients are."""
        self._touched = touched
        lines = [self._lines(*each) for each in zip(self._tensors, self._widths, touched, strict=True)]
        self.table = table = lines[0] if len(lines) == 1 else np.concatenate(lines)
        sizes = table[:, END]
        np.cumsum(sizes, out=sizes)
        table[:1, START], table[1:, START] = 0, sizes[:-1]
        size = int(sizes[-1]) if len(table) else 0
        large = size * self._bytes() > threads.cutoff_bytes()
        self.threads = min(self._max_threads, -(-size // threads.CHUNK)) if large else 1

    def _lines(self, tensor: NDArray[np.int64], width: int, touched: Touched) -> NDArray[np.int64]:
        """Return a table of a tensor's rows, but for their places among all elements: in END is the size.

        Rows that follow each other, and whose gradients do, are one line of it.
        """
        rows, gradients, _ = touched
        sizes = width * self._itemsizes
        begins = np.ones(len(rows), bool)
        begins[1:] = (rows[1:] != rows[:-1] + 1) | (gradients[1:] != gradients[:-1] + sizes[1])
        first = np.flatnonzero(begins)
        lines = np.empty((len(first), len(tensor)), np.int64)
        lines[:, END], lines[:, ROW] = width, tensor[ROW]
        if len(first) < len(rows):
            rows, gradients = rows[first], gradients[first]
            lines[:, END] *= np.diff(first, append=len(begins))
        for column, size in enumerate(sizes.tolist(), PARAM):
            if column != GRAD:
                np.add(size * rows, tensor[column], out=lines[:, column])
        lines[:, GRAD] = gradients
        if self.storage is not None:
            key = self._key_column()
            np.add(width * rows, tensor[key - 1], out=lines[:, key - 1])
            lines[:, key] = tensor[key]
        return lines

    def run(self) -> None:
        """Update the rows."""
        if len(self.table):
            super().run()
        self._touched = ()
