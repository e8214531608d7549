"""The kernels of the GPU: a scalar rule, over the elements of many tensors.

The counterparts of the templates in :mod:`fastopt.engine.kernel`, for the same tables. Their places are cut
into tiles; a tile lies in one segment, and a block of threads does a tile at a time. What is added up is
added in an order that depends on the sizes of the tensors alone: each thread's terms, then the threads' sums
two by two, then the blocks'. Nothing is added by atomic operations, so a run repeats bit for bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastopt.engine import cuda as gpu
from fastopt.engine.cache import sources
from fastopt.engine.columns import END, PARAM, START, STATE
from fastopt.engine.cuda_access import ITEMSIZES, WIDTH
from fastopt.engine.cuda_scalars import sum_functions
from fastopt.engine.cuda_source import Elements, tile_function
from fastopt.engine.formats import SHARED, Storage
from fastopt.engine.kernel import BLOCK
from fastopt.engine.rule import Rule

#: Elements of a tile: four for each thread of a block. The simulator's has few, for small arrays to have
#: several; but no fewer than share a scale, where some do.
TILE = 4 * WIDTH * gpu.THREADS if gpu.SIMULATED else WIDTH * gpu.THREADS

#: The most blocks of a launch, several for each place that a GPU has for one; each does several tiles then.
MOST = 1 << 14

# Bound for each kernel.
_tile: Any = None
_segment: Any = None
_reduce: Any = None
cuda: Any = None
load_i64: Any = None
load_raw: Any = None
store_raw: Any = None
store_f64: Any = None
N_COLUMNS = N_SUMS = SUMS = ITEMSIZE = OWN_TILE = 0


def _find_segment(table, segments, place):
    """Return the address of the line of the segment that has a place."""
    first, last = np.int64(0), segments - 1
    while first < last:
        middle = (first + last) // 2
        if load_i64(table + (middle * N_COLUMNS + END) * 8) > place:
            last = middle
        else:
            first = middle + 1
    return table + first * (N_COLUMNS * 8)


def update(table, segments, scalars, key, tiles, control):
    """Update the elements of all segments, unless ``control`` is the address of a zero."""
    goes = control == 0 or load_i64(control) != 0
    tile = np.int64(cuda.blockIdx.x)
    while tile < tiles:
        place = tile * OWN_TILE
        line = _segment(table, segments, place)
        start = load_i64(line + START * 8)
        end = min(place + OWN_TILE, load_i64(line + END * 8))
        _tile(line, place - start, end - start, scalars, key, goes)
        tile += cuda.gridDim.x


def measure(table, segments, scalars, key, blocks, control):
    """Put the sums of each block's terms where its segment says."""
    goes = control == 0 or load_i64(control) != 0
    block = np.int64(cuda.blockIdx.x)
    while block < blocks:
        place = block * BLOCK
        line = _segment(table, segments, place)
        start = load_i64(line + START * 8)
        end = min(place + BLOCK, load_i64(line + END * 8))
        sums = _tile(line, place - start, end - start, scalars, key, goes)
        total = _reduce(sums)
        if cuda.threadIdx.x == 0:
            address = load_i64(line + SUMS * 8) + (place - start) // BLOCK * (N_SUMS * 8)
            for k in range(N_SUMS):
                store_f64(address + k * 8, total[k])
        block += cuda.gridDim.x


def swap_tile(line, begin, end, scalars, key, goes):
    """Have parameters and the first state change places, bit for bit: a tile of an update that is none."""
    one, other = load_i64(line + PARAM * 8), load_i64(line + STATE * 8)
    i = begin + cuda.threadIdx.x
    while i < end:
        kept = load_raw(one + i * ITEMSIZE)
        store_raw(one + i * ITEMSIZE, load_raw(other + i * ITEMSIZE))
        store_raw(other + i * ITEMSIZE, kept)
        i += cuda.blockDim.x


# How they are made.


def around(elements: Elements, tile: int) -> dict[str, Any]:
    """Return what the templates' names are bound to that follows from the columns of the table."""
    made = {
        **gpu.names(),
        "N_COLUMNS": elements.n_columns,
        "SUMS": elements.sums_column,
        "N_SUMS": len(elements.sums),
        "OWN_TILE": tile,
        "ITEMSIZE": ITEMSIZES[elements.real],
    }
    find = _bound(_find_segment, {**made, "np": np})
    return {**made, "_segment": gpu.device(find)}


def _bound(template: Any, names: dict[str, Any]) -> Any:
    """Return a template with names among its globals, as a plain function."""
    kept = {**template.__globals__, **names}
    made = type(template)(template.__code__, kept, template.__name__)
    made.__qualname__ = f"{template.__name__}_{names['N_COLUMNS']}"
    return made


def tile_of(storage: Storage | None) -> int:
    """Return how many elements a tile of an update has."""
    return max(TILE, SHARED) if storage is not None and storage.in_blocks else TILE


def _name(rule: Rule, what: str, digest: str, dtype: np.dtype[Any], storage: Storage | None) -> str:
    stored = "" if storage is None else f"_{storage.name}"
    return f"cuda_{what}_{rule.name}_{digest}_{dtype.name}{stored}_{sources(cuda=True)}"


@cache
def update_kernel(
    rule: Rule,
    dtype: np.dtype[np.floating],
    clears: bool = False,
    storage: Storage | None = None,
    guarded: bool = False,
) -> Any:
    """Return the kernel of a rule's update: ``(table, segments, scalars, key, tiles, control)``.

    Parameters
    ----------
    rule : Rule
        The scalar rule.
    dtype : dtype
        float32 or float64: of the scalars, and of all that is computed.
    clears : bool
        Whether the gradients are set to zero in the same pass.
    storage : Storage, optional
        How the buffers are stored, unless they are all of that dtype.
    guarded : bool
        Whether the gradients are multiplied by numbers that the device has computed.
    """
    elements = Elements(rule, dtype, storage, guarded=guarded)
    bound = around(elements, tile_of(storage))
    bound["_tile"] = tile_function(elements, rule.function, clears)
    what = f"{'clearing' if clears else 'update'}{'_guarded' if guarded else ''}"
    name = _name(rule, what, rule.fingerprint, dtype, storage)
    return gpu.kernel(update, name, bound, rule.in_files)


@cache
def measure_kernel(
    rule: Rule, dtype: np.dtype[np.floating], storage: Storage | None = None, guarded: bool = False
) -> Any:
    """Return the kernel of a rule's measure: ``(table, segments, scalars, key, blocks, control)``."""
    assert rule.measure is not None
    elements = Elements(rule, dtype, storage, measuring=True, guarded=guarded)
    bound = {**around(elements, BLOCK), **sum_functions(len(elements.sums))}
    bound["_tile"] = tile_function(elements, rule.measure.function, False)
    name = _name(rule, f"measure{'_guarded' if guarded else ''}", rule.measure_fingerprint, dtype, storage)
    return gpu.kernel(measure, name, bound, rule.in_files)


@cache
def swap_kernel(elements_of: Rule, dtype: np.dtype[np.floating]) -> Any:
    """Return the kernel of a swap, for tables of a rule with one state."""
    elements = Elements(elements_of, dtype, None)
    bound = around(elements, TILE)
    bound["load_raw"] = bound[f"load_{elements.real}"]
    bound["store_raw"] = bound[f"store_{elements.real}"]
    bound["_tile"] = gpu.device(_bound(swap_tile, bound))
    return gpu.kernel(update, f"cuda_swap_{dtype.name}_{sources(cuda=True)}", bound, True)
