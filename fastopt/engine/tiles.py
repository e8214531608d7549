"""The kernel that scales the gradients of matrices by their rows and columns: passes over tiles.

A matrix is cut into tiles, at the same places whoever does them. What is summed up is summed up in
each tile, and then over the tiles in their order.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numba.extending import register_jitable

from fastopt.engine.columns import END
from fastopt.engine.compiled import add, flush, jitable, named, row, take_ticket, view
from fastopt.engine.declared import arguments
from fastopt.engine.diagnosis import examiner
from fastopt.engine.kernel import (
    Launch,
    compile_template,
    launch_signature,
    specialised,
    update_names,
)
from fastopt.engine.rule import Rule, digest

#: The passes.
SUM, AVERAGE, SQUARE, UPDATE = range(4)

#: Columns of a launch's table, which has one row: its first pass and its last, addresses, and sizes. The
#: offset of each matrix, in bytes, follows.
(
    FIRST, LAST, PARAM, GRAD, DOWN, ACROSS, LEFT, RIGHT, ROW_AVERAGES, COLUMN_AVERAGES, TOTALS, NUMBERS,
    FORTRAN, MATRICES, LINES, SIZE, STEP, TALL, WIDE, GROUP, OFFSETS,
) = range(END + 1, END + 22)  # fmt: skip

#: Elements of a tile. A thread takes one at a time, or several.
TILE = 1 << 16
#: The most elements of a line of it: the sums of its columns stay in the first cache.
WIDEST = 1 << 11

# The templates, for memory in lines: the rows of a matrix in C order, the columns of one in Fortran's.
# ``_rule``, the other names with an underscore and the capitals are bound by ``compile_scaled``.

_rule: Any = None
_examine: Any = None
_finish_with: Any = None
_move: Any = None
_line: Any = None
_value: Any = None
_sum_line: Any = None
_sum_lines: Any = None
_square_line: Any = None
_update_line: Any = None
_sum_tile: Any = None
_total: Any = None
_average: Any = None
_average_all: Any = None
_row_factor: Any = None
_column_factor: Any = None
_move_all: Any = None
_do: Any = None
N_SCALARS = N_MOVED = N_SHARES = N_FACTORS = 0


def _contiguous(address, size, step, like):
    return view(address, size, like)


def _strided(address, size, step, like):
    return view(address, (size - 1) * step + 1, like)[::step]


def _gradient(g, scalars):
    """Return what the rule gathers of a gradient. The first scalar multiplies it."""
    return _rule(g, scalars[0] * g, *scalars[1:])


def _sum_one(a, down, scalars):
    """Return the sum of the squares of a line, and add them to those of the columns."""
    total = 0.0
    for j in range(down.size):
        x = np.float64(_value(a[j], scalars))
        x = x * x
        total = add(total, x)
        down[j] += x
    return total


def _sum_four(a, b, c, d, down, scalars):
    """Return the sums of the squares of four lines. The sums of the columns are loaded and stored once."""
    totals = 0.0, 0.0, 0.0, 0.0
    for j in range(down.size):
        x, y = np.float64(_value(a[j], scalars)), np.float64(_value(b[j], scalars))
        z, w = np.float64(_value(c[j], scalars)), np.float64(_value(d[j], scalars))
        x, y, z, w = x * x, y * y, z * z, w * w
        totals = add(totals[0], x), add(totals[1], y), add(totals[2], z), add(totals[3], w)
        down[j] += (x + y) + (z + w)
    return totals


def _sum_of_tile(at, pitch, step, across, down, scalars):
    """Put the sums of the squares of a tile's lines into ``across``, and of its columns into ``down``."""
    own, n, m = row(scalars[0], N_SCALARS), across.size, down.size
    for j in range(m):
        down[j] = 0.0
    i = 0
    while i + 4 <= n:
        across[i], across[i + 1], across[i + 2], across[i + 3] = _sum_lines(
            _line(at, m, step, scalars),
            _line(at + pitch, m, step, scalars),
            _line(at + 2 * pitch, m, step, scalars),
            _line(at + 3 * pitch, m, step, scalars),
            down,
            own,
        )
        at += 4 * pitch
        i += 4
    while i < n:
        across[i] = _sum_line(_line(at, m, step, scalars), down, own)
        at += pitch
        i += 1


def _square(g, left, right, largest, scalars):
    """Return the sum of the squares of a line that is scaled."""
    total = 0.0
    for j in range(right.size):
        scale = left * right[j]
        scale = largest if scale > largest else scale  # a NaN stays
        x = np.float64(_value(g[j], scalars) * scale)
        total = add(total, x * x)
    return total


def _update(p, g, left, right, largest, scalars, moved):
    """Apply the rule to each element of a line, with the gradient scaled."""
    _examine(largest)
    for j in range(right.size):
        scale = left * right[j]
        scale = largest if scale > largest else scale
        p[j] = _move(p[j], _value(g[j], scalars) * scale, *moved)
        _finish_with(g, j)


def _sum_squares(a):
    """Return the sum of the squares of a line."""
    total = 0.0
    for j in range(a.size):
        x = np.float64(a[j])
        total = add(total, x * x)
    return total


def _add_up(at, tiles, stride, size, double):
    """Return the sums of all tiles, which are added to those of the first."""
    sums = view(at, size, double)
    for tile in range(1, tiles):
        more = view(at + 8 * tile * stride, size, double)
        for i in range(size):
            sums[i] += more[i]
    return sums


def _move_averages(averages, sums, count, numbers):
    """Move averages to the means of this step, and return their mean. What becomes subnormal is zero."""
    shares, total = row(numbers, N_SHARES), 0.0
    for i in range(averages.size):
        new = _average(np.float64(averages[i]), sums[i] / count, *shares)
        averages[i] = flush(averages.dtype.type(new))
        total += np.float64(averages[i])
    return total / averages.size


def _average_matrix(header, k, below, beside, scalars, double):
    """Move the averages of a matrix's rows and columns, and compute their factors."""
    lines, size, itemsize = header[LINES], header[SIZE], scalars.itemsize
    numbers = view(header[NUMBERS], N_SHARES + N_FACTORS, double)
    factors = row(numbers[N_SHARES:], N_FACTORS)
    across = _add_up(header[ACROSS] + 8 * k * lines, beside, header[MATRICES] * lines, lines, double)
    down = _add_up(header[DOWN] + 8 * k * size, below, header[MATRICES] * size, size, double)
    left = view(header[LEFT] + itemsize * k * lines, lines, scalars)
    right = view(header[RIGHT] + itemsize * k * size, size, scalars)
    if header[FORTRAN]:
        across, down, left, right = down, across, right, left
    rows = view(header[ROW_AVERAGES] + itemsize * k * left.size, left.size, scalars)
    columns = view(header[COLUMN_AVERAGES] + itemsize * k * right.size, right.size, scalars)
    mean = _move_all(rows, across, right.size, numbers)
    _move_all(columns, down, left.size, numbers)
    for i in range(left.size):
        left[i] = _row_factor(np.float64(rows[i]), mean, *factors)
    for j in range(right.size):
        right[j] = _column_factor(np.float64(columns[j]), *factors)


def _do_unit(header, what, unit, scalars, double):
    """Do a pass over a tile of a matrix, or over several small matrices."""
    lines, size, step, itemsize = header[LINES], header[SIZE], header[STEP], scalars.itemsize
    beside = (size + header[WIDE] - 1) // header[WIDE]
    below = (lines + header[TALL] - 1) // header[TALL]
    tile = unit % (below * beside)
    begin = unit // (below * beside) * header[GROUP]
    end = min(begin + header[GROUP], header[MATRICES])
    if what == AVERAGE:
        if tile == 0:
            for k in range(begin, end):
                _average_all(header, k, below, beside, scalars, double)
        return
    above, before = tile // beside, tile % beside
    i, j = above * header[TALL], before * header[WIDE]
    n, m = min(header[TALL], lines - i), min(header[WIDE], size - j)
    pitch = size * step * itemsize
    own = row(scalars[0], N_SCALARS)
    largest, moved = scalars[0, N_SCALARS], row(scalars[0, N_SCALARS + 1 :], N_MOVED)
    total = 0.0
    for k in range(begin, end):
        offset = header[OFFSETS + k] + i * pitch + j * step * itemsize
        p, g = header[PARAM] + offset, header[GRAD] + offset
        if what == SUM:
            across = view(header[ACROSS] + 8 * ((before * header[MATRICES] + k) * lines + i), n, double)
            down = view(header[DOWN] + 8 * ((above * header[MATRICES] + k) * size + j), m, double)
            _sum_tile(g, pitch, step, across, down, scalars)
            if k == begin and step == 1 and m == size:  # all in one piece
                total += _total(_line(p, (end - begin) * n * m, step, scalars))
            elif step > 1 or m < size:
                for each in range(n):
                    total += _total(_line(p + each * pitch, m, step, scalars))
            continue
        left = view(header[LEFT] + itemsize * (k * lines + i), n, scalars)
        right = view(header[RIGHT] + itemsize * (k * size + j), m, scalars)
        for each in range(n):
            grads = _line(g + each * pitch, m, step, scalars)
            if what == SQUARE:
                total += _square_line(grads, left[each], right, largest, own)
            else:
                params = _line(p + each * pitch, m, step, scalars)
                _update_line(params, grads, left[each], right, largest, own, moved)
    if what != UPDATE:
        view(header[TOTALS] + 8 * (2 * unit + (what == SQUARE)), 1, double)[0] = total


def _launch(table, scalars, tickets, chunk):
    """Do the passes over all units, or one over those that ``tickets`` hands out."""
    header, double = table[0], np.empty(0, np.float64)
    if chunk <= 0:
        for what in range(header[FIRST], header[LAST] + 1):
            for unit in range(header[END] // TILE):
                _do(header, what, unit, scalars, double)
        return
    while True:
        low = take_ticket(tickets, 0) * chunk
        if low >= header[END]:
            return
        for unit in range(low // TILE, min(low + chunk, header[END]) // TILE):
            _do(header, header[FIRST], unit, scalars, double)
        take_ticket(tickets, 1)


# How they are compiled.


@dataclass(frozen=True)
class Scaling:
    """How the averages of the squares of rows and columns scale a gradient.

    Its functions are plain ones of scalars, compiled, and computed in double.

    Parameters
    ----------
    average : callable
        ``(average, mean, *shares)``: returns the new average of a row or a column from its mean in this step.
    row : callable
        ``(average, mean, *scalars)``: returns the factor of a row from its new average, and from the mean of
        those of all rows.
    column : callable
        ``(average, *scalars)``: returns the factor of a column.
    update : Rule
        What updates each parameter with the scaled gradient. It has no state.
    """

    average: Callable[..., Any]
    row: Callable[..., Any]
    column: Callable[..., Any]
    update: Rule

    @property
    def n_shares(self) -> int:
        """How many shares an average takes."""
        return len(arguments(self.average)) - 2

    @property
    def n_scalars(self) -> int:
        """How many scalars the factors take."""
        return len(arguments(self.column)) - 1

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the code that the compiled passes depend on."""
        return digest(self.average, self.row, self.column, self.update.function)


@cache
def compile_scaled(
    gather: Rule, scaling: Scaling, dtype: np.dtype[np.floating], clears: bool, strided: bool
) -> Launch:
    """Return the compiled launch of the passes.

    Parameters
    ----------
    gather : Rule
        What is made of a gradient.
    scaling : Scaling
        How it is scaled, and updates the parameters.
    dtype : dtype
        float32 or float64.
    clears : bool
        Whether the update sets the gradients to zero.
    strided : bool
        Whether the elements of a line lie apart.
    """
    kind = f"{'clearing_' if clears else ''}{'strided_' if strided else ''}"
    own = f"{kind}{gather.name}_{gather.fingerprint}_{scaling.update.name}_{scaling.fingerprint}"
    names: dict[str, Any] = {
        **update_names(gather, clears),
        "_move": jitable(named(scaling.update.function)),
        "_average": jitable(named(scaling.average)),
        "_row_factor": jitable(named(scaling.row)),
        "_column_factor": jitable(named(scaling.column)),
        "_examine": examiner(scaling.update),
        "N_MOVED": scaling.update.n_scalars,
        "N_SHARES": scaling.n_shares,
        "N_FACTORS": scaling.n_scalars,
    }
    for name, template in (
        ("_line", _strided if strided else _contiguous),
        ("_value", _gradient),
        ("_sum_line", _sum_one),
        ("_sum_lines", _sum_four),
        ("_sum_tile", _sum_of_tile),
        ("_total", _sum_squares),
        ("_square_line", _square),
        ("_update_line", _update),
        ("_add_up", _add_up),
        ("_move_all", _move_averages),
        ("_average_all", _average_matrix),
        ("_do", _do_unit),
    ):
        names[name] = register_jitable(specialised(template, f"scaled{name}_{own}", names))
    signature = launch_signature(dtype)
    return compile_template(_launch, f"scaled_{own}_{dtype.name}", names, signature, scaling.update)
