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


def view_as(address, size, dtype):
    """Return an array of a dtype over the memory at ``address``."""
    bytes_ = (ctypes.c_char * (int(size) * np.dtype(dtype).itemsize)).from_address(int(address))
    return np.frombuffer(bytes_, dtype)


@overload(view_as)
def _view_as_compiled(address, size, dtype):
    return lambda address, size, dtype: numba.carray(_pointer(address), (size,), dtype)


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


def scratch(n: int) -> Callable[..., Any]:
    """Return a function that returns memory for some float32, until the function that calls it returns."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return lambda: np.empty(n, np.float32)

    # Not by an overload: the memory would be that of the overload's own function.
    @intrinsic
    def on_stack(typingctx):
        def generate(context, builder, signature, args):
            memory = cgutils.alloca_once(builder, ir.ArrayType(ir.FloatType(), n))
            memory.align = 64
            return builder.bitcast(memory, ir.FloatType().as_pointer())

        return types.CPointer(types.float32)(), generate

    return on_stack


def flush(x):
    """Return ``x``, or zero where it is subnormal: some processors are 100 times slower on those."""
    return x.dtype.type(0) if abs(x) < np.finfo(x.dtype).smallest_normal else x


@overload(flush)
def _flush_compiled(x):
    zero, smallest = as_dtype(x).type(0), np.finfo(as_dtype(x)).smallest_normal
    # Not "x if abs(x) >= smallest else zero", which would lose a NaN.
    return lambda x: zero if abs(x) < smallest else x


# Tuples. Numba types each length of a tuple apart, so the compiled versions are unrolled.


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
    items = "".join(f"kind(values[{k}]), " for k in range(len(values)))
    return defined("cast", "values, like", [f"return ({items})"], kind=as_dtype(like.dtype).type)


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
