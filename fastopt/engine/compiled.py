"""What Numba's Python lacks, for the templates of the kernels.

Each is a Python function (the meaning, and what runs with the JIT off) with an overload (what is compiled).
"""

from __future__ import annotations

import ctypes
import types as python_types
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable
from numba.np.numpy_support import as_dtype
from numba.np.unsafe.ndarray import to_fixed_tuple

from fastopt.engine.declared import GENERATED, functions_of
from fastopt.engine.rule import digest


def view(address, size, like):
    """Return an array of ``like``'s dtype over the memory at ``address``."""
    kind = ctypes.c_float if like.itemsize == 4 else ctypes.c_double
    return np.ctypeslib.as_array((kind * int(size)).from_address(int(address)))


@intrinsic
def _pointer(typingctx, address):
    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), generate


@overload(view)
def _view_compiled(address, size, like):
    return lambda address, size, like: numba.carray(_pointer(address), (size,), like.dtype)


def prefetch(address):
    """Have the processor fetch the cache line at ``address``, without waiting for it."""


@intrinsic
def _prefetch(typingctx, address):
    def generate(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], context.get_value_type(types.voidptr))
        number = context.get_value_type(types.int32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, for long, data
        return context.get_dummy_value()

    return types.void(types.intp), generate


@overload(prefetch)
def _prefetch_compiled(address):
    return lambda address: _prefetch(address)


def add(total, term):
    """Return a sum; those of a loop may be added in any order, and so in vectors."""
    return total + term


@intrinsic
def _add(typingctx, total, term):
    def generate(context, builder, signature, args):
        return builder.fadd(*args, flags=("reassoc",))

    return types.float64(types.float64, types.float64), generate


@overload(add)
def _add_compiled(total, term):
    return lambda total, term: _add(total, term)


def take_ticket(tickets, i):
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


@overload(take_ticket)
def _take_ticket_compiled(tickets, i):
    return lambda tickets, i: _fetch_add_one(tickets, i)


def flush(x):
    """Return ``x``, or zero where it is subnormal: some processors are 100 times slower on those."""
    return x.dtype.type(0) if abs(x) < np.finfo(x.dtype).smallest_normal else x


@overload(flush)
def _flush_compiled(x):
    zero, smallest = as_dtype(x).type(0), np.finfo(as_dtype(x)).smallest_normal
    # Not "x if abs(x) >= smallest else zero", which would lose a NaN.
    return lambda x: zero if abs(x) < smallest else x


# Tuples of buffers and of scalars. Numba types each length of a tuple apart, so the compiled versions are
# unrolled: "({}[i], {}[i], )" and so on.


def _unrolled(signature: str, item: str, n: int, **names: Any) -> Callable[..., Any]:
    items = "".join(f"{item.format(k)}, " for k in range(n))
    return defined("unrolled", signature, [f"return ({items})"], **names)


def views(addresses, offset, size, like):
    return tuple(view(address + offset, size, like) for address in addresses)


@overload(views)
def _views_compiled(addresses, offset, size, like):
    item = "view(addresses[{}] + offset, size, like)"
    return _unrolled("addresses, offset, size, like", item, len(addresses), view=view)


def load(arrays, i):
    return tuple(array[i] for array in arrays)


@overload(load)
def _load_compiled(arrays, i):
    return _unrolled("arrays, i", "arrays[{}][i]", len(arrays))


def slices(arrays, i, j):
    return tuple(array[i:j] for array in arrays)


@overload(slices)
def _slices_compiled(arrays, i, j):
    return _unrolled("arrays, i, j", "arrays[{}][i:j]", len(arrays))


def row(array, n):
    """Return an array's first ``n`` elements as a tuple."""
    return tuple(array[:n])


@overload(row)
def _row_compiled(array, n):
    return lambda array, n: to_fixed_tuple(array, n)


def cast(values, like):
    return tuple(like.dtype.type(value) for value in values)


@overload(cast)
def _cast_compiled(values, like):
    return _unrolled("values, like", "kind(values[{}])", len(values), kind=as_dtype(like.dtype).type)


def store(p, state, i, new):
    """Store what a rule returned: the parameter, and the state that it writes."""
    if not state:
        p[i] = new
        return
    p[i] = new[0]
    for array, value in zip(state, new[1:], strict=True):
        array[i] = flush(array.dtype.type(value))


@overload(store)
def _store_compiled(p, state, i, new):
    if len(state) and not (isinstance(new, types.BaseTuple) and len(new) == 1 + len(state)):
        raise TypeError(f"the rule must return {1 + len(state)} values: p, then its state")
    lines = ["p[i] = new[0]" if len(state) else "p[i] = new"]
    lines += [f"state[{k}][i] = flush(new[{k + 1}])" for k in range(len(state))]
    return defined("store", "p, state, i, new", lines, flush=flush)


def defined(name: str, arguments: str, lines: list[str], **names: Any) -> Callable[..., Any]:
    """Return a function made of source lines."""
    source = "\n    ".join([f"def {name}({arguments}):", *lines])
    exec(compile(source, GENERATED, "exec"), names)
    return named(names[name])


@cache
def named(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy of a function whose compiled code has a name that no other function's has.

    The linker knows functions by their qualified names, and by a number that begins anew in each process.
    """
    if not isinstance(function, python_types.FunctionType):
        return function
    copy = python_types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__qualname__ = f"{function.__qualname__}_{digest(function)}"
    copy.__module__ = function.__module__
    return copy


# What an update ends with.


def leave(g, i):
    """Do nothing."""


def clear(g, i):
    """Set a gradient to zero."""
    g[i] = 0


# Functions that are made for a rule.


def selector(chosen: tuple[int, ...]) -> Callable[..., Any]:
    """Return a function that takes some items of a tuple."""
    items = "".join(f"items[{k}], " for k in chosen)
    return jitable(defined("select", "items", [f"return ({items})"]))


#: How terms are added to a sum, and how many of them it takes.
KINDS = {"square": ("{0} * {0}", 1), "abs": ("abs({0})", 1), "sum": ("{0}", 1), "product": ("{0} * {1}", 2)}


def collector(n_written: int, kinds: tuple[str, ...]) -> Callable[..., Any]:
    """Return a function that stores the state a measure returned, and returns the sums with its terms."""
    n_terms = sum(KINDS[kind][1] for kind in kinds)
    n = n_written + n_terms
    wrong = (
        f"the measure must return {n} value{'s' if n > 1 else ''}: the state that it writes, then its terms"
    )
    lines = [f"state[{k}][i] = flush(state[{k}].dtype.type(new[{k}]))" for k in range(n_written)]
    for k in range(n_terms):
        term = f"new[{n_written + k}]" if n > 1 else "new"
        lines.append(f"t{k} = np.float64({term})")
    sums, taken = "", 0
    for k, kind in enumerate(kinds):
        form, count = KINDS[kind]
        sums += f"add(sums[{k}], {form.format(*(f't{taken + j}' for j in range(count)))}), "
        taken += count
    lines.append(f"return ({sums})")
    function = defined("collect", "state, sums, i, new", lines, flush=flush, add=add, np=np)

    def collect(state, sums, i, new):
        if (len(new) if isinstance(new, tuple) else 1) != n:
            raise TypeError(wrong)
        return function(state, sums, i, new)

    @overload(collect)
    def collect_compiled(state, sums, i, new):
        if (len(new) if isinstance(new, types.BaseTuple) else 1) != n:
            raise TypeError(wrong)
        return function

    return collect


def zeros(n: int) -> Callable[..., Any]:
    """Return a function that returns sums of nothing."""
    return jitable(defined("zeros", "", [f"return ({'0.0, ' * n})"]))


def keeper(n: int) -> Callable[..., Any]:
    """Return a function that writes sums to an array."""
    return jitable(defined("keep", "sums, at, new", [f"sums[at + {k}] = new[{k}]" for k in range(n)]))


def jitable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a plain function, and those that it calls, callable from compiled code."""
    for each in functions_of(function) if hasattr(function, "__code__") else ():
        if each not in _JITABLE:
            _JITABLE.add(each)
            register_jitable(each)
    return function


_JITABLE: set[Callable[..., Any]] = {flush}


def check_dtypes(arrays):
    """Raise a TypeError unless all arrays have one dtype."""
    if len({array.dtype for array in arrays}) > 1:
        raise TypeError(f"p, g and the state must have one dtype, got {[a.dtype.name for a in arrays]}")


@overload(check_dtypes)
def _check_dtypes_compiled(arrays):
    if len({array.dtype for array in arrays}) > 1:
        names = [str(array.dtype) for array in arrays]
        raise numba.TypingError(f"p, g and the state must have one dtype, got {names}")
    return lambda arrays: None
