"""The one kernel: a scalar rule, fused over flat buffers.

Each value is loaded once, computed with in registers, and stored once (``_update``). Two
functions are built around that loop for each rule: a *launch*, which the optimizers call with a table of
addresses and which does any number of tensors in one call, and a *kernel* over plain arrays, for a user's own
compiled code.

Nothing is compiled with fast-math, and no multiplication is contracted with an addition. So
a result does not depend on where its element falls: in a vector, in the tail of the loop, or at
the edge of a thread's share. Sums alone may be added up in another order, that of the vectors; but it is
always the same one for a tensor, because a tensor is cut at the same places whoever adds it up.
"""

from __future__ import annotations

import types as python_types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.errors import NumbaError
from numba.extending import register_jitable
from numpy.typing import NDArray

from fastopt.engine.cache import from_cache, sources
from fastopt.engine.columns import END, PARAM, ROW, START, STATE, Columns, keeper, plus, zeros
from fastopt.engine.compiled import clear, jitable, leave, named, prefetch, row, take_ticket, view
from fastopt.engine.diagnosis import examiner, failed
from fastopt.engine.formats import SHARED, Storage
from fastopt.engine.rule import Rule

#: With ``nogil`` several threads can run a kernel at once. With the "numpy" error model a division
#: by zero gives Inf or NaN, as it does in NumPy; the other model's exception stops vectorisation.
OPTIONS: Mapping[str, Any] = {"nogil": True, "error_model": "numpy"}

Launch = Callable[[NDArray[np.int64], NDArray[np.floating], NDArray[np.int64], int], None]

#: Elements whose terms are summed up together. The sums do not depend on how the work is cut, because it
#: is cut at multiples of this, counted from the beginning of each tensor.
BLOCK = 1 << 13

#: How many segments ahead their memory is fetched, and how many bytes of each buffer: after those, the
#: processor has seen where it goes. Without it, each row of a large table waits for the memory.
AHEAD, FETCHED = 8, 1024

# The templates. ``_rule``, the other names with an underscore and the capitals are bound for each rule by
# ``specialised``.

_rule: Any = None
_examine: Any = None
_apply: Any = None
_finish_with: Any = None
_columns: Any = None
_key: Any = None
_ahead: Any = None
_part: Any = None
_param: Any = None
_grad: Any = None
_load: Any = None
_store: Any = None
_scratch: Any = None
_opened: Any = None
_part_of: Any = None
_encode: Any = None
_collect: Any = None
_zeros: Any = None
_plus: Any = None
_keep: Any = None
_whole: Any = None
N_BUFFERS = N_KEYS = N_SCALARS = N_SUMS = 0


def _update(p, g, state, scalars, key, n):
    """Apply the rule to n elements. The first scalar multiplies the gradient."""
    _examine(scalars[0])
    for i in range(n):
        new = _rule(_param(p, state, i), scalars[0] * _grad(g, i), *_load(state, i), *scalars[1:])
        _store(p, state, i, new, key)
        _finish_with(g, i)


def _update_part(p, g, state, scalars, key, scratch, begin, n):
    """Update n elements that share scales, which follow from all of them: until then, they are in scratch."""
    own, ahead = _opened(state, scratch, begin, n), _ahead(key, begin)
    _update(p[begin : begin + n], g[begin : begin + n], own, scalars, ahead, n)
    _encode(state, scratch, begin, n, ahead)


def _update_shared(p, g, state, scalars, key, n):
    """Update, where elements share scales: those that do so together, for the scratch memory to be small."""
    scratch, whole = _scratch(), n // SHARED * SHARED
    for begin in range(0, whole, SHARED):
        # A number that is known when this is compiled: nearly all blocks have it, and need no checks.
        _part_of(p, g, state, scalars, key, scratch, begin, SHARED)
    if whole < n:
        _part_of(p, g, state, scalars, key, scratch, whole, n - whole)


def _measure(p, g, state, scalars, key, n):
    """Return the sums of the terms of n elements."""
    _examine(scalars[0])
    sums = _zeros()
    for i in range(n):
        new = _rule(_param(p, state, i), scalars[0] * _grad(g, i), *_load(state, i), *scalars[1:])
        sums = _collect(state, sums, i, new, key)
    return sums


def _measure_part(p, g, state, scalars, key, scratch, begin, n):
    """Measure n elements that share scales. See ``_update_part``."""
    own, ahead = _opened(state, scratch, begin, n), _ahead(key, begin)
    sums = _measure(p[begin : begin + n], g[begin : begin + n], own, scalars, ahead, n)
    _encode(state, scratch, begin, n, ahead)
    return sums


def _measure_shared(p, g, state, scalars, key, n):
    """Measure, where elements share scales. See ``_update_shared``."""
    scratch, whole, sums = _scratch(), n // SHARED * SHARED, _zeros()
    for begin in range(0, whole, SHARED):
        sums = _plus(sums, _part_of(p, g, state, scalars, key, scratch, begin, SHARED))
    if whole < n:
        sums = _plus(sums, _part_of(p, g, state, scalars, key, scratch, whole, n - whole))
    return sums


def _measure_blocks(p, g, state, scalars, key, sums):
    """Put the sums of each block's terms into ``sums``, block after block."""
    for block in range(0, p.size, BLOCK):
        end = min(block + BLOCK, p.size)
        own = _part(state, block, end)
        found = _whole(p[block:end], g[block:end], own, scalars, _ahead(key, block), end - block)
        _keep(sums, block // BLOCK * N_SUMS, found)


def _apply_update(line, at, size, scalars):
    """Update ``size`` elements of a segment, from the element ``at`` on, which begins what shares a scale."""
    p, g, state = _columns(line, at, size, scalars)
    _whole(p, g, state, row(scalars[line[ROW]], N_SCALARS), _key(line, at), size)


def _apply_measure(line, at, size, scalars):
    """Measure ``size`` elements of a segment, from the element ``at`` on, which begins a block."""
    p, g, state = _columns(line, at, size, scalars)
    blocks = (size + BLOCK - 1) // BLOCK
    address = line[STATE + N_BUFFERS + N_KEYS] + at // BLOCK * N_SUMS * 8
    sums = view(address, blocks * N_SUMS, np.empty(0, np.float64))
    _measure_blocks(p, g, state, row(scalars[line[ROW]], N_SCALARS), _key(line, at), sums)


def _fetch(line, itemsize):
    """Have the beginnings of a segment's buffers fetched."""
    size = min((line[END] - line[START]) * itemsize, FETCHED)
    for column in range(PARAM, STATE + N_BUFFERS):
        for offset in range(0, size, 64):
            prefetch(line[column] + offset)


def launch(table, scalars, tickets, chunk):
    """Go over the elements of all segments: all of them, or the chunks that ``tickets`` hands out.

    A segment is a row of ``table``: its place among all elements (START to END), the row of ``scalars``
    that holds for it, and the addresses of its parameters, its gradients and each of its state buffers;
    ``fastopt.engine.columns`` says what follows them.
    With ``chunk`` > 0 several threads can share the work: each draws the number of its
    next chunk from ``tickets[0]``, and counts the chunks that are done in ``tickets[1]``. A thread that
    comes late, or never, costs nothing: the others take its chunks.
    """
    segments = table.shape[0]
    total = table[segments - 1, END]
    while True:
        low, high = 0, total
        if chunk > 0:
            low = take_ticket(tickets, 0) * chunk
            high = min(low + chunk, total)
            if low >= total:
                return
        first, last = 0, segments - 1  # bisect: the first segment that ends after low
        while first < last:
            middle = (first + last) // 2
            if table[middle, END] > low:
                last = middle
            else:
                first = middle + 1
        # Slices, then range(size): a loop from low to high over whole arrays is not vectorised,
        # because Numba's indices may be negative.
        for s in range(first, segments):
            start = table[s, START]
            if start >= high:
                break
            if s + AHEAD < segments:
                _fetch(table[s + AHEAD], scalars.itemsize)
            begin = max(low, start)
            _apply(table[s], begin - start, min(high, table[s, END]) - begin, scalars)
        if chunk <= 0:
            return
        take_ticket(tickets, 1)


def _total(p, g, state, scalars, key):
    """Return the sums of one tensor's terms."""
    blocks = (p.size + BLOCK - 1) // BLOCK
    sums = np.empty(blocks * N_SUMS, np.float64)
    _measure_blocks(p, g, state, scalars, key, sums)
    return _added(sums.reshape(blocks, N_SUMS), 0, blocks)


def _added(sums, first, last):
    """Return the sum of the sums of some blocks, in their order."""
    total = np.zeros(N_SUMS, np.float64)
    for block in range(first, last):
        for k in range(N_SUMS):
            total[k] += sums[block, k]
    return total


# How they are made and compiled.


def specialised(template: Any, name: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    """Return ``template`` under a name of its own, with ``names`` among its globals.

    Globals, not a closure: Numba's disk cache pickles a closure's cells, and those of functions never
    compare equal. The name is what keeps the cached kernels apart: the cache's index is rewritten without
    a lock, so two processes that compile different things under one name load each other's code. And what a
    kernel calls is in the cache with it, under its name: of two that have one name, in kernels of
    different processes, both kernels call the first that is loaded.
    """
    function = python_types.FunctionType(template.__code__, {**template.__globals__, **names}, name)
    function.__qualname__ = name
    function.__module__ = template.__module__
    return function


@cache
def update_names(rule: Rule, clears: bool = False, storage: Storage | None = None) -> Mapping[str, Any]:
    """Return what a rule puts in the place of the templates' names."""
    columns = Columns(len(rule.state), storage)
    written = [rule.state.index(name) for name in rule.written]
    names: dict[str, Any] = {
        **columns.names(),
        "_rule": jitable(named(rule.function)),
        "_examine": examiner(rule),
        "_store": columns.store(written),
        "_finish_with": jitable(clear if clears else leave),
        "_fetch": _fetcher(columns.n_buffers),
        "N_SCALARS": 1 + rule.n_scalars,
    }
    own = f"{'clearing_' if clears else ''}{rule.name}_{rule.fingerprint}{_stored(storage)}"
    if storage is not None and storage.in_blocks:
        names["_encode"] = columns.encode(written)
        _add_loop(names, own, _update, _update_part, _update_shared)
    else:
        _add_loop(names, own, _update)
    _add_templates(names, own, {"_apply": _apply_update})
    return names


@cache
def measure_names(rule: Rule, storage: Storage | None = None) -> Mapping[str, Any]:
    """Return what a rule's measure puts in the place of the templates' names."""
    measure = rule.measure
    assert measure is not None
    columns = Columns(len(rule.state), storage)
    written, n_sums = [rule.state.index(name) for name in measure.writes], len(measure.sums)
    names: dict[str, Any] = {
        **columns.names(),
        "_rule": jitable(named(measure.function)),
        "_examine": examiner(rule, measuring=True),
        "_collect": columns.collect(written, measure.sums),
        "_zeros": zeros(n_sums),
        "_plus": plus(n_sums),
        "_keep": keeper(n_sums),
        "_fetch": _fetcher(columns.n_buffers),
        "N_SCALARS": 1 + rule.n_measure_scalars,
        "N_SUMS": n_sums,
    }
    own = f"measuring_{rule.name}_{rule.measure_fingerprint}{_stored(storage)}"
    if storage is not None and storage.in_blocks:
        names["_encode"] = columns.encode(written)
        _add_loop(names, own, _measure, _measure_part, _measure_shared)
    else:
        _add_loop(names, own, _measure)
    rest = {"_measure_blocks": _measure_blocks, "_apply": _apply_measure}
    _add_templates(names, own, {**rest, "_added": _added, "_total": _total})
    return names


@cache
def _fetcher(n_buffers: int) -> Callable[..., Any]:
    """Return what fetches so many buffers ahead: the same for all rules, which then is compiled once."""
    fetch: Callable[..., Any] = specialised(_fetch, f"fetch_{n_buffers}", {"N_BUFFERS": n_buffers})
    return register_jitable(fetch)


def _add_loop(names: dict[str, Any], own: str, loop: Any, part: Any = None, shared: Any = None) -> None:
    """Add the loop over elements; where some share scales, with what goes over those that do so together."""
    name = loop.__name__
    if part is None:
        _add_templates(names, own, {name: loop})
        names["_whole"] = names[name]
    else:
        _add_templates(names, own, {name: loop, "_part_of": part}, forceinline=True)
        _add_templates(names, own, {"_whole": shared})


def _add_templates(names: dict[str, Any], own: str, templates: Mapping[str, Any], **options: bool) -> None:
    """Add templates to names, which those after them may use."""
    for name, template in templates.items():
        made = specialised(template, f"{template.__name__[1:]}_{own}", names)
        names[name] = register_jitable(**options)(made) if options else register_jitable(made)


def _stored(storage: Storage | None) -> str:
    return "" if storage is None else f"_{storage.name}"


def compile_template(
    template: Any, name: str, names: Mapping[str, Any], signature: Any, rule: Rule
) -> Callable[..., None]:
    """Return a template that is compiled for a signature, from the disk cache where it is there."""
    function = specialised(template, f"{name}_{sources()}", names)
    try:
        return from_cache(function, signature, OPTIONS, rule) or numba.njit(signature, **OPTIONS)(function)
    except NumbaError as error:
        raise failed(rule, error) from error


def launch_signature(dtype: np.dtype[np.floating]) -> Any:
    """Return the type of a launch, by the dtype of the scalars."""
    scalars = numba.from_dtype(dtype)[:, ::1]
    return types.void(types.int64[:, ::1], scalars, types.int64[::1], types.int64)


@cache
def compile_launch(rule: Rule, dtype: np.dtype[np.floating], storage: Storage | None = None) -> Launch:
    """Return the compiled launch of a rule's update.

    Parameters
    ----------
    rule : Rule
        The scalar rule.
    dtype : dtype
        float32 or float64: of the scalars, and of all that is computed.
    storage : Storage, optional
        How the buffers are stored, unless they are all of that dtype.

    Returns
    -------
    callable
        ``launch(table, scalars, tickets, chunk)``; see ``launch``. It releases the GIL.
    """
    name = f"{rule.name}_{rule.fingerprint}_{dtype.name}{_stored(storage)}"
    return compile_template(launch, name, update_names(rule, storage=storage), launch_signature(dtype), rule)


@cache
def compile_clearing(rule: Rule, dtype: np.dtype[np.floating], storage: Storage | None = None) -> Launch:
    """Return a launch that also sets the gradients to zero, in the same pass. See :func:`compile_launch`."""
    name = f"{rule.name}_clearing_{rule.fingerprint}_{dtype.name}{_stored(storage)}"
    return compile_template(launch, name, update_names(rule, True, storage), launch_signature(dtype), rule)


@cache
def compile_measure(rule: Rule, dtype: np.dtype[np.floating], storage: Storage | None = None) -> Launch:
    """Return the compiled launch of a rule's measure. See :func:`compile_launch`."""
    name = f"{rule.name}_measure_{rule.measure_fingerprint}_{dtype.name}{_stored(storage)}"
    return compile_template(launch, name, measure_names(rule, storage), launch_signature(dtype), rule)
