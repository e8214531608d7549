"""The one kernel: a scalar rule, fused over flat buffers.

Each value is loaded once, computed with in registers, and stored once (``_update``). Two
functions are built around that loop for each rule: a *launch*, which the optimizers call with a table of
addresses and which does any number of tensors in one call, and a *kernel* over plain arrays, for a user's own
compiled code.

Nothing is compiled with fast-math, and no multiplication is contracted with an addition. So
a result does not depend on where its element falls: in a vector, in the tail of the loop, or at
the edge of a thread's share.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import types as python_types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable
from numba.np.numpy_support import as_dtype
from numba.np.unsafe.ndarray import to_fixed_tuple
from numpy.typing import NDArray

from fastopt.engine.rule import Rule

#: With ``nogil`` several threads can run a kernel at once. With the "numpy" error model a division
#: by zero gives Inf or NaN, as it does in NumPy; the other model's exception stops vectorisation.
OPTIONS: Mapping[str, Any] = {"nogil": True, "error_model": "numpy"}

#: Columns of a table of segments. The addresses of the state buffers follow them.
START, END, ROW, PARAM, GRAD, STATE = range(6)

Launch = Callable[[NDArray[np.int64], NDArray[np.floating], NDArray[np.int64], int], None]

# What Numba's Python lacks. Each is a Python function (the meaning, and what runs with the
# JIT off) with an overload (what is compiled).


def _view(address, size, like):
    """Return an array of ``like``'s dtype over the memory at ``address``."""
    kind = ctypes.c_float if like.itemsize == 4 else ctypes.c_double
    return np.ctypeslib.as_array((kind * int(size)).from_address(int(address)))


@intrinsic
def _pointer(typingctx, address):
    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), generate


@overload(_view)
def _view_compiled(address, size, like):
    return lambda address, size, like: numba.carray(_pointer(address), (size,), like.dtype)


def _take_ticket(tickets, i):
    """Return ``tickets[i]`` and add one to it, in one atomic operation."""
    tickets[i] += 1
    return tickets[i] - 1


@intrinsic
def _fetch_add_one(typingctx, array, index):
    def generate(context, builder, signature, args):
        array_type = signature.args[0]
        array = context.make_array(array_type)(context, builder, args[0])
        place = cgutils.get_item_pointer(context, builder, array_type, array, [args[1]])
        return builder.atomic_rmw("add", place, context.get_constant(types.int64, 1), "acq_rel")

    return types.int64(array, types.intp), generate


@overload(_take_ticket)
def _take_ticket_compiled(tickets, i):
    return lambda tickets, i: _fetch_add_one(tickets, i)


def _flush(x):
    """Return ``x``, or zero where it is subnormal: some processors are 100 times slower on those."""
    return x.dtype.type(0) if abs(x) < np.finfo(x.dtype).smallest_normal else x


@overload(_flush)
def _flush_compiled(x):
    zero, smallest = as_dtype(x).type(0), np.finfo(as_dtype(x)).smallest_normal
    # Not "x if abs(x) >= smallest else zero", which would lose a NaN.
    return lambda x: zero if abs(x) < smallest else x


# Tuples of buffers and of scalars. Numba types each length of a tuple apart, so the compiled versions are
# unrolled: "({}[i], {}[i], )" and so on.


def _unrolled(signature: str, item: str, n: int, **names: Any) -> Callable[..., Any]:
    items = "".join(f"{item.format(k)}, " for k in range(n))
    function: Callable[..., Any] = eval(f"lambda {signature}: ({items})", names)
    return function


def _views(addresses, offset, size, like):
    return tuple(_view(address + offset, size, like) for address in addresses)


@overload(_views)
def _views_compiled(addresses, offset, size, like):
    item = "_view(addresses[{}] + offset, size, like)"
    return _unrolled("addresses, offset, size, like", item, len(addresses), _view=_view)


def _load(arrays, i):
    return tuple(array[i] for array in arrays)


@overload(_load)
def _load_compiled(arrays, i):
    return _unrolled("arrays, i", "arrays[{}][i]", len(arrays))


def _row(array, n):
    """Return an array's ``n`` elements as a tuple."""
    return tuple(array)


@overload(_row)
def _row_compiled(array, n):
    return lambda array, n: to_fixed_tuple(array, n)


def _cast(values, like):
    return tuple(like.dtype.type(value) for value in values)


@overload(_cast)
def _cast_compiled(values, like):
    return _unrolled("values, like", "kind(values[{}])", len(values), kind=as_dtype(like.dtype).type)


def _store(p, state, i, new):
    """Store what a rule returned."""
    if not state:
        p[i] = new
        return
    p[i] = new[0]
    for array, value in zip(state, new[1:], strict=True):
        array[i] = _flush(array.dtype.type(value))


@overload(_store)
def _store_compiled(p, state, i, new):
    if len(state) and not (isinstance(new, types.BaseTuple) and len(new) == 1 + len(state)):
        raise numba.TypingError(f"the rule must return {1 + len(state)} values: p, then its state")
    lines = ["p[i] = new[0]" if len(state) else "p[i] = new"]
    lines += [f"state[{k}][i] = _flush(new[{k + 1}])" for k in range(len(state))]
    names: dict[str, Any] = {"_flush": _flush}
    exec("\n    ".join(["def store(p, state, i, new):", *lines]), names)
    return names["store"]


def _check_dtypes(arrays):
    """Raise a TypeError unless all arrays have one dtype."""
    if len({array.dtype for array in arrays}) > 1:
        raise TypeError(f"p, g and the state must have one dtype, got {[a.dtype.name for a in arrays]}")


@overload(_check_dtypes)
def _check_dtypes_compiled(arrays):
    if len({array.dtype for array in arrays}) > 1:
        names = [str(array.dtype) for array in arrays]
        raise numba.TypingError(f"p, g and the state must have one dtype, got {names}")
    return lambda arrays: None


# The templates. ``_rule`` and the capitals are bound for each rule by ``_specialised``.

_rule: Any = None
N_STATE = N_SCALARS = 0


def _update(p, g, state, scalars):
    """Apply the rule to each element. The first scalar multiplies the gradient."""
    for i in range(p.size):
        _store(p, state, i, _rule(p[i], scalars[0] * g[i], *_load(state, i), *scalars[1:]))


def _launch(table, scalars, tickets, chunk):
    """Update the elements of all segments: all of them, or the chunks that ``tickets`` hands out.

    A segment is a row of ``table``: its place among all elements (START to END), the row of ``scalars``
    that holds for it, and the addresses of its parameters, its gradients and each of its state buffers.
    With ``chunk`` > 0 several threads can share the work: each draws the number of its
    next chunk from ``tickets[0]``, and counts the chunks that are done in ``tickets[1]``. A thread that
    comes late, or never, costs nothing: the others take its chunks.
    """
    segments = table.shape[0]
    total = table[segments - 1, END]
    while True:
        low, high = 0, total
        if chunk > 0:
            low = _take_ticket(tickets, 0) * chunk
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
            begin = max(low, start)
            size = min(high, table[s, END]) - begin
            offset = (begin - start) * scalars.itemsize
            p = _view(table[s, PARAM] + offset, size, scalars)
            g = _view(table[s, GRAD] + offset, size, scalars)
            addresses = _row(table[s, STATE:], N_STATE)
            state = _views(addresses, offset, size, scalars)
            _update(p, g, state, _row(scalars[table[s, ROW]], N_SCALARS))
        if chunk <= 0:
            return
        _take_ticket(tickets, 1)


def _specialised(template: Any, name: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    """Return ``template`` under a name of its own, with ``names`` among its globals.

    Globals, not a closure: Numba's disk cache pickles a closure's cells, and those of functions never
    compare equal. The name is what keeps the cached kernels apart: the cache's index is rewritten without
    a lock, so two processes that compile different things under one name load each other's code.
    """
    function = python_types.FunctionType(template.__code__, {**globals(), **names}, name)
    function.__qualname__ = name
    function.__module__ = __name__
    return function


@cache
def _names(rule: Rule) -> Mapping[str, Any]:
    """Return what a rule puts in the place of the templates' names."""
    names: dict[str, Any] = {
        "_rule": register_jitable(rule.function),
        "N_STATE": len(rule.state),
        "N_SCALARS": 1 + rule.n_scalars,
    }
    names["_update"] = register_jitable(_specialised(_update, f"update_{rule.name}", names))
    return names


@cache
def compile_launch(rule: Rule, dtype: np.dtype[np.floating]) -> Launch:
    """Return the compiled launch of a rule, from the disk cache where it is there.

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

    Notes
    -----
    The cache is Numba's: ``__pycache__`` beside this file, or a folder of the user's where that one is
    read-only, or ``NUMBA_CACHE_DIR``. Where none is writable, or with ``FASTOPT_CACHE=0``, each process
    compiles for itself.
    """
    name = f"{rule.name}_{rule.fingerprint}_{dtype.name}"
    function = _specialised(_launch, name, _names(rule))
    integers = types.int64[:, ::1], types.int64[::1]
    scalars = numba.from_dtype(dtype)[:, ::1]
    signature = types.void(integers[0], scalars, integers[1], types.int64)
    if os.environ.get("FASTOPT_CACHE", "1") != "0":
        try:
            return numba.njit(signature, cache=True, **OPTIONS)(function)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
            pass  # no folder to write to, or a damaged file in it: only time is lost
    return numba.njit(signature, **OPTIONS)(function)


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
        ``kernel(p, g, *state, step, *hyperparameters)``, an ``@njit`` function that is compiled when it
        is first used. The arrays are 1-D, of one size and one dtype; the arguments have the names that the
        rule gives them, and the hyperparameters have defaults.
    """
    hyper = "".join(f"{name}, " for name in rule.hyperparameters)
    state = "".join(f"{name}, " for name in rule.state)
    # As a float: compiled code multiplies integer powers up, which rounds otherwise than Python's.
    values = f"*_scalars(float(step), {hyper})" if rule.scalars else hyper
    different = " or ".join(f"{name}.size != p.size" for name in ("g", *rule.state))
    source = (
        f"def {rule.name}(p, g, {state}step, {hyper}):\n"
        f"    if {different}:\n"
        f"        raise ValueError('{rule.name}: p, g and the state must have the same size')\n"
        f"    _check_dtypes((p, g, {state}))\n"
        f"    _update(p, g, ({state}), _cast((1.0, {values}), p))\n"
    )
    names = {**globals(), **_names(rule)}
    if rule.scalars:
        names["_scalars"] = register_jitable(rule.scalars)
    exec(source, names)
    function = names[rule.name]
    function.__defaults__ = defaults
    function.__module__ = __name__
    compiled: Callable[..., None] = numba.njit(**OPTIONS)(function)
    return compiled
