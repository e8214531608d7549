"""The norms of the gradients of a step: read once, before the update."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import Squares
from fastopt.engine.device import DeviceArray
from fastopt.engine.memory import address
from fastopt.engine.rows import Touched
from fastopt.engine.storage import Format
from fastopt.formats import plain_bits
from fastopt.launch import Manner
from fastopt.leaf import Leaf


class GradientNorms:
    """Measures the gradients of the leaves that take part in a step.

    Parameters
    ----------
    members : sequence of (int, Leaf, Format or None)
        The leaves, none of them empty, their places among all that are given gradients, and the formats of
        these, where it is not the leaves'.
    size : int
        How many are given gradients: those that are frozen or empty, too.
    manner : Manner
        How they are updated.
    sparse : collection of int
        The places of those that are given rows.
    """

    def __init__(
        self,
        members: Sequence[tuple[int, Leaf, Format | None]],
        size: int,
        manner: Manner,
        sparse: Collection[int],
    ) -> None:
        self._size, self._threads = size, manner.threads
        self._passes: list[tuple[NDArray[np.int64], Squares]] = []
        self._rows = [(place, leaf) for place, leaf, _ in members if place in sparse]
        self._touched: Mapping[int, Touched] = {}
        dense: dict[Any, list[tuple[int, Leaf]]] = {}
        for place, leaf, form in members:
            if place not in sparse:
                dense.setdefault((leaf.dtype, form), []).append((place, leaf))
        for (dtype, form), mine in dense.items():
            sizes = np.array([leaf.flat.size for _, leaf in mine])
            on_device = isinstance(mine[0][1].flat, DeviceArray)
            squares = Squares(sizes, dtype, manner.threads, form, on_device=on_device)
            if manner.packed:
                grads = [plain_bits(leaf.grad) for _, leaf in mine if leaf.grad is not None]
                squares.set_gradients(np.array([address(grad) for grad in grads], np.int64))
            self._passes.append((np.array([place for place, _ in mine]), squares))

    def set_gradients(self, addresses: NDArray[np.int64], touched: Mapping[int, Touched]) -> None:
        """Set where the gradients are, and which rows are given."""
        for places, squares in self._passes:
            squares.set_gradients(addresses[places])
        self._touched = touched

    def measure(self, multiplier: float) -> NDArray[np.float64]:
        """Return the norm of each gradient, by its place, times the size of a multiplier."""
        norms = np.zeros(self._size)
        for places, squares in self._passes:
            norms[places] = _roots(squares)
        for place, leaf in self._rows:
            touched = self._touched[place]
            if len(touched.rows) and leaf.flat.size:
                width = leaf.flat.size // leaf.shape[0]
                squares = Squares(np.full(len(touched.rows), width), leaf.dtype, self._threads)
                squares.set_gradients(touched.gradients)
                norms[place] = math.sqrt(float(np.add.reduce(_roots(squares) ** 2)))
        norms *= abs(multiplier)
        return norms


def _roots(squares: Squares) -> NDArray[np.float64]:
    """Return the root of the sum of each tensor's squares. Only in float64 can they overflow."""
    found = squares.each()
    if squares.dtype == np.float64 and np.isinf(found).any():
        small = 1e-160
        smaller = np.sqrt(squares.each(small)) / small
        return np.where(np.isinf(found), smaller, np.sqrt(found))
    return np.sqrt(found)
