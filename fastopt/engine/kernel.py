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
from fastopt.engine.compiled import (
    cast,  # noqa: F401
    check_dtypes,  # noqa: F401
    clear,
    collector,
    defined,
    flush,
    jitable,
    keeper,
    leave,
    load,
    named,
    prefetch,
    row,
    selector,
    slices,
    store,
    take_ticket,
    view,
    views,
    zeros,
)
from fastopt.engine.diagnosis import examiner, failed, scalars_examiner
from fastopt.engine.rule import Rule, digest

#: With ``nogil`` several threads can run a kernel at once. With the "numpy" error model a division
#: by zero gives Inf or NaN, as it does in NumPy; the other model's exception stops vectorisation.
OPTIONS: Mapping[str, Any] = {"nogil": True, "error_model": "numpy"}

#: Columns of a table of segments. The addresses of the state buffers follow them.
START, END, ROW, PARAM, GRAD, STATE = range(6)

Launch = Callable[[NDArray[np.int64], NDArray[np.floating], NDArray[np.int64], int], None]

#: Elements whose terms are summed up together. The sums do not depend on how the work is cut, because it
#: is cut at multiples of this, counted from the beginning of each tensor.
BLOCK = 1 << 13

#: How many segments ahead their memory is fetched, and how many bytes of each buffer: after those, the
#: processor has seen where it goes. Without it, each row of a large table waits for the memory.
AHEAD, FETCHED = 8, 1024

# The templates. ``_rule``, the other names with an underscore and the capitals are bound for each rule by
# ``_specialised``.

_rule: Any = None
_examine: Any = None
_apply: Any = None
_written: Any = None
_finish_with: Any = None
_collect: Any = None
_zeros: Any = None
_keep: Any = None
_scalars: Any = None
N_STATE = N_SCALARS = N_SUMS = 0


def _update(p, g, state, scalars):
    """Apply the rule to each element. The first scalar multiplies the gradient."""
    _examine(p)
    written = _written(state)
    for i in range(p.size):
        store(p, written, i, _rule(p[i], scalars[0] * g[i], *load(state, i), *scalars[1:]))
        _finish_with(g, i)


def _measure(p, g, state, scalars):
    """Return the sums of all elements' terms."""
    _examine(p)
    written, sums = _written(state), _zeros()
    for i in range(p.size):
        sums = _collect(written, sums, i, _rule(p[i], scalars[0] * g[i], *load(state, i), *scalars[1:]))
    return sums


def _measure_blocks(p, g, state, scalars, sums):
    """Put the sums of each block's terms into ``sums``, block after block."""
    for block in range(0, p.size, BLOCK):
        end = min(block + BLOCK, p.size)
        found = _measure(p[block:end], g[block:end], slices(state, block, end), scalars)
        _keep(sums, block // BLOCK * N_SUMS, found)


def _apply_update(line, at, size, scalars):
    """Update ``size`` elements of a segment, from the element ``at`` on."""
    offset = at * scalars.itemsize
    p = view(line[PARAM] + offset, size, scalars)
    g = view(line[GRAD] + offset, size, scalars)
    state = views(row(line[STATE:], N_STATE), offset, size, scalars)
    _update(p, g, state, row(scalars[line[ROW]], N_SCALARS))


def _apply_measure(line, at, size, scalars):
    """Measure ``size`` elements of a segment, from the element ``at`` on, which begins a block."""
    offset = at * scalars.itemsize
    p = view(line[PARAM] + offset, size, scalars)
    g = view(line[GRAD] + offset, size, scalars)
    state = views(row(line[STATE:], N_STATE), offset, size, scalars)
    blocks = (size + BLOCK - 1) // BLOCK
    address = line[STATE + N_STATE] + at // BLOCK * N_SUMS * 8
    sums = view(address, blocks * N_SUMS, np.empty(0, np.float64))
    _measure_blocks(p, g, state, row(scalars[line[ROW]], N_SCALARS), sums)


def _fetch(line, itemsize):
    """Have the beginnings of a segment's buffers fetched."""
    size = min((line[END] - line[START]) * itemsize, FETCHED)
    for column in range(PARAM, STATE + N_STATE):
        for offset in range(0, size, 64):
            prefetch(line[column] + offset)


def _launch(table, scalars, tickets, chunk):
    """Go over the elements of all segments: all of them, or the chunks that ``tickets`` hands out.

    A segment is a row of ``table``: its place among all elements (START to END), the row of ``scalars``
    that holds for it, and the addresses of its parameters, its gradients and each of its state buffers
    (where it is measured, also that of the sums of its blocks).
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


def _total(p, g, state, scalars):
    """Return the sums of one tensor's terms."""
    blocks = (p.size + BLOCK - 1) // BLOCK
    sums = np.empty(blocks * N_SUMS, np.float64)
    _measure_blocks(p, g, state, scalars, sums)
    return _added(sums.reshape(blocks, N_SUMS), 0, blocks)


def _added(sums, first, last):
    """Return the sum of the sums of some blocks, in their order."""
    total = np.zeros(N_SUMS, np.float64)
    for block in range(first, last):
        for k in range(N_SUMS):
            total[k] += sums[block, k]
    return total


def _finish(table, sums, carry, inputs, scalars):
    """Compute the scalars of each segment's update, in double, from its sums and what it carries.

    ``inputs`` has a row for each row of the measure's scalars: the gradients' multiplier, the number of the
    step and the hyperparameters. ``carry`` has the addresses of what each segment carries.
    """
    for s in range(table.shape[0]):
        size = table[s, END] - table[s, START]
        first = table[s, START] // BLOCK
        total = _added(sums, first, first + (size + BLOCK - 1) // BLOCK)
        _scalars(total, float(size), carry[s], inputs[table[s, ROW]], scalars[s])


# How they are made and compiled.


def _specialised(template: Any, name: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    """Return ``template`` under a name of its own, with ``names`` among its globals.

    Globals, not a closure: Numba's disk cache pickles a closure's cells, and those of functions never
    compare equal. The name is what keeps the cached kernels apart: the cache's index is rewritten without
    a lock, so two processes that compile different things under one name load each other's code. And what a
    kernel calls is in the cache with it, under its name: of two that have one name, in kernels of
    different processes, both kernels call the first that is loaded.
    """
    function = python_types.FunctionType(template.__code__, {**globals(), **names}, name)
    function.__qualname__ = name
    function.__module__ = __name__
    return function


@cache
def _names(rule: Rule, clears: bool = False) -> Mapping[str, Any]:
    """Return what a rule puts in the place of the templates' names."""
    names: dict[str, Any] = {
        "_rule": jitable(named(rule.function)),
        "_examine": examiner(rule),
        "_finish_with": jitable(clear if clears else leave),
        "_written": selector(tuple(rule.state.index(name) for name in rule.written)),
        "N_STATE": len(rule.state),
        "N_SCALARS": 1 + rule.n_scalars,
    }
    own = f"{'clearing_' if clears else ''}{rule.name}_{rule.fingerprint}"
    for name, template in (("_update", _update), ("_apply", _apply_update), ("_fetch", _fetch)):
        names[name] = register_jitable(_specialised(template, f"{name[1:]}_{own}", names))
    return names


@cache
def _measure_names(rule: Rule) -> Mapping[str, Any]:
    """Return what a rule's measure puts in the place of the templates' names."""
    measure = rule.measure
    assert measure is not None
    names: dict[str, Any] = {
        "_rule": jitable(named(measure.function)),
        "_examine": examiner(rule, measuring=True),
        "_written": selector(tuple(rule.state.index(name) for name in measure.writes)),
        "_collect": collector(len(measure.writes), measure.sums),
        "_zeros": zeros(len(measure.sums)),
        "_keep": keeper(len(measure.sums)),
        "N_STATE": len(rule.state),
        "N_SCALARS": 1 + rule.n_measure_scalars,
        "N_SUMS": len(measure.sums),
    }
    templates = {
        "_measure": _measure,
        "_measure_blocks": _measure_blocks,
        "_apply": _apply_measure,
        "_fetch": _fetch,
        "_added": _added,
        "_total": _total,
    }
    own = f"measuring_{rule.name}_{rule.measure_fingerprint}"
    for name, template in templates.items():
        names[name] = register_jitable(_specialised(template, f"{name[1:]}_{own}", names))
    return names


def _compiled(
    template: Any, name: str, names: Mapping[str, Any], signature: Any, rule: Rule
) -> Callable[..., None]:
    """Return a template that is compiled for a signature, from the disk cache where it is there."""
    function = _specialised(template, f"{name}_{sources()}", names)
    try:
        return from_cache(function, signature, OPTIONS, rule) or numba.njit(signature, **OPTIONS)(function)
    except NumbaError as error:
        raise failed(rule, error) from error


def _launch_signature(dtype: np.dtype[np.floating]) -> Any:
    scalars = numba.from_dtype(dtype)[:, ::1]
    return types.void(types.int64[:, ::1], scalars, types.int64[::1], types.int64)


@cache
def compile_launch(rule: Rule, dtype: np.dtype[np.floating]) -> Launch:
    """Return the compiled launch of a rule's update.

    Parameters
    ----------
    rule : Rule
        The scalar rule.
    dtype : dtype
        float32 or float64: of the parameters, the gradients, the state and the scalars.

    Returns
    -------
    callable
        ``launch(table, scalars, tickets, chunk)``; see ``_launch``. It releases the GIL.
    """
    name = f"{rule.name}_{rule.fingerprint}_{dtype.name}"
    return _compiled(_launch, name, _names(rule), _launch_signature(dtype), rule)


@cache
def compile_clearing(rule: Rule, dtype: np.dtype[np.floating]) -> Launch:
    """Return a launch that also sets the gradients to zero, in the same pass. See :func:`compile_launch`."""
    name = f"{rule.name}_clearing_{rule.fingerprint}_{dtype.name}"
    return _compiled(_launch, name, _names(rule, clears=True), _launch_signature(dtype), rule)


@cache
def compile_measure(rule: Rule, dtype: np.dtype[np.floating]) -> Launch:
    """Return the compiled launch of a rule's measure. See :func:`compile_launch`."""
    name = f"{rule.name}_measure_{rule.measure_fingerprint}_{dtype.name}"
    return _compiled(_launch, name, _measure_names(rule), _launch_signature(dtype), rule)


@cache
def compile_finish(rule: Rule, dtype: np.dtype[np.floating], kinds: tuple[int, ...]) -> Callable[..., None]:
    """Return what computes the scalars of an update from what was measured of each tensor.

    Parameters
    ----------
    rule : Rule
        A rule that measures.
    dtype : dtype
        float32 or float64: of the scalars.
    kinds : tuple of int
        Of each of the hyperparameters in ``rule.scalars_of``: how many numbers it has, or 0 if it is none.

    Returns
    -------
    callable
        ``finish(table, sums, carry, inputs, scalars)``; see ``_finish``.
    """
    names = {"_added": _measure_names(rule)["_added"], "_scalars": _finisher(rule, kinds)}
    name = f"{rule.name}_finish_{digest(rule.scalars, len(rule.carry), kinds)}_{dtype.name}"
    double, integer = types.float64[:, ::1], types.int64[:, ::1]
    signature = types.void(integer, double, integer, double, numba.from_dtype(dtype)[:, ::1])
    return _compiled(_finish, name, names, signature, rule)


def _finisher(rule: Rule, kinds: tuple[int, ...]) -> Callable[..., Any]:
    """Return what calls ``rule.scalars`` with the numbers of one segment, and keeps what comes back."""
    assert rule.measure is not None
    assert rule.scalars is not None
    place, hyper = 2, ""
    for kind in kinds:
        numbers = "".join(f"values[{place + k}], " for k in range(max(kind, 1)))
        hyper += f"({numbers}), " if kind else numbers
        place += max(kind, 1)
    sums = "".join(f"total[{k}], " for k in range(len(rule.measure.sums)))
    carry = "".join(f"view(carry[{k}], 1, total)[0], " for k in range(len(rule.carry)))
    return jitable(
        defined(
            "finish_one",
            "total, size, carry, values, scalars",
            [
                f"{'kept, ' if carry else ''}new = _rule_scalars(values[1], size, {sums}{carry}{hyper})",
                *(
                    f"view(carry[{k}], 1, total)[0] = flush(np.float64(kept[{k}]))"
                    for k in range(len(rule.carry))
                ),
                "scalars[0] = values[0]",
                *(f"scalars[{k + 1}] = new[{k}]" for k in range(rule.n_scalars)),
            ],
            view=view,
            flush=flush,
            np=np,
            _rule_scalars=jitable(named(rule.scalars)),
        )
    )


@cache
def compile_kernel(rule: Rule, defaults: tuple[Any, ...]) -> Callable[..., None]:
    """Return a rule's kernel over arrays, to be called from compiled code or from Python.

    Parameters
    ----------
    rule : Rule
        The scalar rule.
    defaults : tuple
        Default values of the rule's hyperparameters.

    Returns
    -------
    callable
        ``kernel(p, g, *state, *carry, step, *hyperparameters)``, an ``@njit`` function that is compiled when
        it is first used. The arrays are 1-D, of one size and one dtype; what is carried is in
        float64 arrays of one element. The arguments have the names that the rule gives them, and the
        hyperparameters have defaults.
    """

    def listed(names: tuple[str, ...], form: str = "{}") -> str:
        return "".join(f"{form.format(name)}, " for name in names)

    state, carry = listed(rule.state), listed(rule.carry, "{}[0]")
    different = " or ".join(f"{name}.size != p.size" for name in ("g", *rule.state))
    lines = [
        f"if {different}:",
        f"    raise ValueError('{rule.name}: p, g and the state must have the same size')",
        f"check_dtypes((p, g, {state}))",
    ]
    # As a float: compiled code multiplies integer powers up, which rounds otherwise than Python's.
    begin = "float(step), "
    names = {**globals(), **_names(rule)}
    if rule.measure is not None:
        names["_total"] = _measure_names(rule)["_total"]
        values = listed(rule.measured_with)
        if rule.measure.scalars is not None:
            names["_measure_scalars"] = jitable(named(rule.measure.scalars))
            before = begin + (carry if rule.measure.over == "all" else "")
            values = f"*_measure_scalars({before}{values})"
        lines.append(f"sums = _total(p, g, ({state}), cast((1.0, {values}), p))")
        begin += "float(p.size), " + "".join(f"sums[{k}], " for k in range(len(rule.measure.sums)))
    if rule.scalars is None:
        lines.append(f"new = ({listed(rule.scalars_of)})")
    else:
        names["_rule_scalars"] = jitable(named(rule.scalars))
        names["_examine_scalars"] = scalars_examiner(rule)
        lines.append(f"_examine_scalars(({listed(rule.scalars_of)}))")
        kept = "kept, " if carry else ""
        lines.append(f"{kept}new = _rule_scalars({begin}{carry}{listed(rule.scalars_of)})")
    lines += [f"{name}[0] = flush(np.float64(kept[{k}]))" for k, name in enumerate(rule.carry)]
    lines.append(f"_update(p, g, ({state}), cast((1.0, *new), p))")
    arguments = f"p, g, {state}{listed(rule.carry)}step, {listed(rule.hyperparameters)}"
    function = defined(rule.name, arguments, lines, **names)
    function.__defaults__ = defaults
    function.__module__ = __name__
    compiled: Callable[..., None] = numba.njit(**OPTIONS)(function)
    return compiled
