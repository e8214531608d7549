"""Segments that one launch updates: the table of their addresses, and the scalars of a step."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import threads
from fastopt.engine.kernel import END, GRAD, PARAM, ROW, START, STATE, compile_launch
from fastopt.engine.memory import address, aligned_zeros
from fastopt.engine.rule import Rule

#: A tensor's part in a batch: its parameters, its gradients (None if they are given at each step), its state
#: buffers, all flat and contiguous, and the row of scalars that holds for it.
Segment = tuple[NDArray[np.floating], NDArray[np.floating] | None, Sequence[NDArray[np.floating]], int]


class Batch:
    """Tensors of one dtype that one rule updates, in one compiled call.

    The batch keeps the arrays of its segments alive. Of gradients that are set later it knows the
    addresses only: keep them until the launch is done.

    Parameters
    ----------
    rule : Rule
        The scalar rule.
    segments : sequence of Segment
        The tensors, none of them empty. Those that follow each other in memory, in all their buffers,
        become one.
    rows : int
        Number of rows of scalars.
    max_threads : int
        The most threads that a step may use.
    """

    def __init__(self, rule: Rule, segments: Sequence[Segment], rows: int, max_threads: int) -> None:
        dtype = segments[0][0].dtype
        table = np.zeros((len(segments), STATE + len(rule.state)), np.int64)
        for line, (param, grad, state, row) in zip(table, segments, strict=True):
            buffers = [address(buffer) for buffer in state]
            line[START:] = 0, param.size, row, address(param), 0 if grad is None else address(grad), *buffers
        self._alive = segments
        self.table = _joined(table, dtype.itemsize)
        self.launch = compile_launch(rule, dtype)
        self.scalars = aligned_zeros(rows * (1 + rule.n_scalars), dtype).reshape(rows, -1)
        self._format = struct.Struct(f"={1 + rule.n_scalars}{dtype.char}")  # "=": overflow raises
        self._view = memoryview(self.scalars).cast("B")  # type: ignore[arg-type]
        self._no_tickets = np.zeros(2, np.int64)
        total = int(self.table[-1, END])
        large = total * dtype.itemsize * (2 + len(rule.state)) > threads.cutoff_bytes()
        self.threads = min(max_threads, -(-total // threads.CHUNK)) if large else 1

    def set_gradients(self, addresses: NDArray[np.int64]) -> None:
        """Set where the gradients of each segment are, for segments that were given none."""
        self.table[:, GRAD] = addresses

    def set_scalars(self, row: int, multiplier: float, scalars: Sequence[float]) -> None:
        """Set the scalars of a row: the gradients' multiplier, and the rule's. They are cast here, once."""
        self._format.pack_into(self._view, row * self._format.size, multiplier, *scalars)

    def run(self) -> None:
        """Update all segments."""
        if self.threads == 1:
            self.launch(self.table, self.scalars, self._no_tickets, 0)
        else:
            threads.run(self.launch, self.table, self.scalars, self.threads)


def _joined(table: NDArray[np.int64], itemsize: int) -> NDArray[np.int64]:
    """Return the table with the segments joined that continue each other, and their places filled in."""
    sizes, buffers = table[:, END], table[:, PARAM:]
    follows = (buffers[1:] == buffers[:-1] + sizes[:-1, None] * itemsize).all(axis=1)
    follows &= table[1:, ROW] == table[:-1, ROW]
    first = np.flatnonzero(np.r_[True, ~follows])
    ends = np.cumsum(sizes)[np.r_[first[1:], len(table)] - 1]
    table = np.ascontiguousarray(table[first])
    table[:, END] = ends
    table[1:, START] = ends[:-1]
    return table
