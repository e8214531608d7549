"""A gradient that is scaled by its rows and columns, in passes that do not copy it."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import threads, tiles
from fastopt.engine.columns import END
from fastopt.engine.diagnosis import wrong_scalars
from fastopt.engine.memory import address, aligned_zeros
from fastopt.engine.rule import Rule
from fastopt.engine.tiles import TILE, WIDEST, Scaling, compile_scaled

if TYPE_CHECKING:
    from fastopt.engine.matrix import Workspace

Array = NDArray[np.floating]


class Scaled:
    """A gradient that is scaled by its rows and columns, as passes go over it; it is not copied.

    The rows and columns are those of the last two axes. The results do not depend on the number of threads.

    Parameters
    ----------
    gather : Rule
        What is made of the gradient before it is scaled. It has no state, and must not use ``p``.
    scaling : Scaling
        How it is scaled.
    param : ndarray
        The parameters: in C order or in Fortran's, of two or more axes, not empty.
    grad : ndarray of shape (size,), optional
        Their gradient, in the same order; else it is set later.
    workspace : Workspace
        Where the sums of tiles are.
    clears : bool
        Whether the gradient is set to zero once it is used.
    """

    def __init__(
        self,
        gather: Rule,
        scaling: Scaling,
        param: Array,
        grad: Array | None,
        workspace: Workspace,
        clears: bool = False,
    ) -> None:
        rows, columns = param.shape[-2:]
        self._param, self._grad, self._gather, self._workspace = param, grad, gather, workspace
        matrices, fortran = param.shape[:-2], not param.flags.c_contiguous
        count = math.prod(matrices)
        lines, size = (columns, rows) if fortran else (rows, columns)
        places = np.arange(count).reshape(matrices, order="F" if fortran else "C").reshape(-1)
        step, apart = (count, 1) if fortran else (1, lines * size)
        if size == 1:  # lines of one element are one line of the other axis
            fortran, lines, size = not fortran, size, lines
        wide = min(size, WIDEST)
        tall = TILE // wide
        below, beside = -(-lines // tall), -(-size // wide)
        group = max(TILE // (lines * size), 1) if below * beside == 1 else 1
        units = below * beside * -(-count // group)
        self._n_down, self._n_sums = below * count * size, count * (below * size + beside * lines)
        self._left, self._right = (aligned_zeros(count * n, param.dtype) for n in (lines, size))
        self._totals, self._numbers = np.zeros((units, 2)), np.zeros(scaling.n_shares + scaling.n_scalars)
        self._launch = compile_scaled(gather, scaling, param.dtype, clears, step > 1)
        self._table = np.zeros((1, tiles.OFFSETS + count), np.int64)
        self._header = header = self._table[0]
        header[END], header[tiles.PARAM] = units * TILE, address(param)
        header[tiles.GRAD] = 0 if grad is None else address(grad)
        header[tiles.LEFT], header[tiles.RIGHT] = address(self._left), address(self._right)
        header[tiles.TOTALS], header[tiles.NUMBERS] = address(self._totals), address(self._numbers)
        header[tiles.FORTRAN : tiles.OFFSETS] = fortran, count, lines, size, step, tall, wide, group
        header[tiles.OFFSETS :] = places * (apart * param.itemsize)
        self._n_scalars = 1 + gather.n_scalars
        n_scalars = self._n_scalars + 1 + scaling.update.n_scalars
        self._scalars = aligned_zeros(n_scalars, param.dtype).reshape(1, -1)
        self._format = struct.Struct(f"={self._n_scalars}{param.dtype.char}")  # "=": overflow raises
        self._bytes = memoryview(self._scalars).cast("B")  # type: ignore[arg-type]
        large = 2 * param.nbytes > threads.cutoff_bytes()
        self._threads = min(workspace.max_threads, units) if large else 1
        self._no_tickets = np.zeros(2, np.int64)

    def set_gradient(self, address: int) -> None:
        """Set where the gradient is."""
        self._header[tiles.GRAD] = address

    def set_scalars(self, multiplier: float, scalars: Sequence[float]) -> None:
        """Set the gradient's multiplier, and the scalars of what is made of it.

        Raises
        ------
        OverflowError
            If one is too large for the dtype.
        """
        try:
            self._format.pack_into(self._bytes, 0, multiplier, *scalars)
        except (struct.error, TypeError) as error:
            raise wrong_scalars(self._gather, self._gather.n_scalars, scalars) from error

    def ready(self) -> Scaled:
        """Return the gradient as a matrix rule takes it."""
        return self

    def average(
        self,
        rows: Array,
        columns: Array,
        shares: Sequence[float],
        scalars: Sequence[float] = (),
        largest: float = math.inf,
    ) -> tuple[float, float]:
        """Move the averages of the squares, and scale the gradient by what comes of them.

        Parameters
        ----------
        rows, columns : ndarray of shape (..., rows, 1) and (..., 1, columns)
            The averages: state, in C order. What becomes subnormal is zero.
        shares, scalars : sequence of float
            What the functions of the scaling take.
        largest : float
            The greatest factor, of row and column together. A greater one is replaced by it.

        Returns
        -------
        parameters, gradient : float
            The root of the sum of the squares of the parameters, and the same of the scaled gradient: in
            double, without overflow.
        """
        header, dtype = self._header, self._param.dtype
        sums = self._workspace.take("sums", (self._n_sums,), np.dtype(np.float64))
        header[tiles.DOWN] = start = address(sums)
        header[tiles.ACROSS] = start + 8 * self._n_down
        header[tiles.ROW_AVERAGES], header[tiles.COLUMN_AVERAGES] = address(rows), address(columns)
        self._numbers[:] = *shares, *scalars
        largest = largest if largest == math.inf else min(largest, float(np.finfo(dtype).max))
        self._scalars[0, self._n_scalars] = largest
        self._run(tiles.SUM, tiles.SQUARE)
        of_param, of_gradient = (
            self._totals.sum(axis=0).tolist() if len(self._totals) > 1 else self._totals[0].tolist()
        )
        if dtype.itemsize == 8 and of_gradient == math.inf:
            left, factor = self._left.copy(), 1e-160
            self._left *= factor
            self._scalars[0, self._n_scalars] = largest * factor
            self._run(tiles.SQUARE, tiles.SQUARE)
            self._left[:], self._scalars[0, self._n_scalars] = left, largest
            norm = math.sqrt(self._totals[:, 1].sum()) / factor
        else:
            norm = math.sqrt(of_gradient)
        safe = dtype.itemsize == 4 or 1e-200 < of_param < math.inf
        return math.sqrt(of_param) if safe else self._workspace.norm(self._param), norm

    def apply(self, scalars: Sequence[float]) -> None:
        """Update the parameters. A scalar too large for the dtype is infinite."""
        self._scalars[0, self._n_scalars + 1 :] = scalars
        self._run(tiles.UPDATE, tiles.UPDATE)

    def _run(self, first: int, last: int) -> None:
        header = self._header
        if self._threads == 1:
            header[tiles.FIRST], header[tiles.LAST] = first, last
            self._launch(self._table, self._scalars, self._no_tickets, 0)
            return
        for each in range(first, last + 1):
            header[tiles.FIRST] = header[tiles.LAST] = each
            threads.run(self._launch, self._table, self._scalars, self._threads, TILE)
