"""What kernels of the GPU read and write by: functions of an address, as each package for CUDA makes them.

What is read and written is of a *kind*: "f32", "f64", "i64", and "u16" and "u8", which are read as integers
of 32 bits. ``load_KIND(address)`` returns an item, ``load4_KIND(address)`` a tuple of four that follow each
other, by instructions of 16 bytes where they have so many; ``store_KIND`` and ``store4_KIND`` take an address
and items. Four must be aligned to the bytes of all, or to 16. ``bits`` and ``number`` are those of
:mod:`fastopt.engine.codec`, and ``u32`` too, which the package must compile yet.

The packages are given as modules: :mod:`fastopt.engine.cuda` imports them.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from fastopt.engine import codec

#: Bytes of an item of each kind.
ITEMSIZES: Mapping[str, int] = {"f32": 4, "f64": 8, "i64": 8, "u16": 2, "u8": 1}

#: How many items of a kind are read or written at once, where they are aligned to the bytes of that many.
WIDTH = 4


def _named(kind: str, load: Any, store: Any, load4: Any, store4: Any) -> dict[str, Any]:
    return {f"load_{kind}": load, f"store_{kind}": store, f"load4_{kind}": load4, f"store4_{kind}": store4}


def u32(x):
    """Return the low 32 bits of an integer."""
    return np.uint32(x)


# The simulator's: the memory is the CPU's, and addresses are those.


class Simulated:
    """The module ``cuda``, as a kernel that is being simulated sees it.

    The simulator puts its own into a kernel's globals alone, not into those of the functions that it calls,
    and takes ten milliseconds for each shared array.

    Parameters
    ----------
    context : callable
        Returns the simulator's own.
    """

    def __init__(self, context: Callable[[], Any]) -> None:
        self._context = context

    class shared:
        """Memory that the threads of a block share."""

        @staticmethod
        def array(shape: int, dtype: Any) -> NDArray[Any]:
            """Return an array: the same for all threads that ask at one place."""
            caller = sys._getframe(1)
            key = caller.f_code, caller.f_lineno
            manager: Any = vars(threading.current_thread())["_manager"]  # one for each block
            arrays = vars(manager).setdefault("arrays", {})
            found: NDArray[Any] = arrays.setdefault(key, np.full(shape, 77, dtype))
            return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context(), name)


def _simulated_access(kind: str) -> dict[str, Any]:
    size = ITEMSIZES[kind]
    floats = {"f32": ctypes.c_float, "f64": ctypes.c_double}
    integers = {"i64": ctypes.c_int64, "u16": ctypes.c_uint16, "u8": ctypes.c_uint8}
    item: Any = {**floats, **integers}[kind]
    cast: Any = {"f32": np.float32, "f64": np.float64}.get(kind, int)

    def load(address):
        return cast(item.from_address(int(address)).value)

    def store(address, value):
        item.from_address(int(address)).value = cast(value)

    def load4(address):
        _check_aligned(address, WIDTH * size)
        return tuple(load(address + k * size) for k in range(WIDTH))

    def store4(address, a, b, c, d):
        _check_aligned(address, WIDTH * size)
        for k, value in enumerate((a, b, c, d)):
            store(address + k * size, value)

    return _named(kind, load, store, load4, store4)


def _check_aligned(address: int, size: int) -> None:
    if address % min(size, 16):
        raise ValueError(f"{address:#x} is no multiple of {min(size, 16)}")  # a GPU would stop


def simulated() -> dict[str, Any]:
    """Return the simulator's functions."""
    made = {"bits": codec.bits, "number": codec.number, "u32": codec.u32}
    for kind in ITEMSIZES:
        made |= _simulated_access(kind)
    return made


# Those of numba.cuda and numba-cuda, which make LLVM's code.


def llvm(extending: Any) -> dict[str, Any]:
    """Return the functions of numba.cuda, or numba-cuda; their module ``extending`` is given."""
    made = _llvm_bits(extending.intrinsic)
    for kind in ITEMSIZES:
        made |= _llvm_access(kind, extending.intrinsic)
    return made


def _llvm_access(kind: str, intrinsic: Any) -> dict[str, Any]:
    item: Any = {"f32": ir.FloatType(), "f64": ir.DoubleType()}.get(kind) or ir.IntType(8 * ITEMSIZES[kind])
    value: Any = {"f32": types.float32, "f64": types.float64, "i64": types.int64}.get(kind, types.uint32)
    word, narrow = ir.IntType(32), kind in ("u16", "u8")
    several = ir.VectorType(item, WIDTH)
    aligned = min(WIDTH * ITEMSIZES[kind], 16)

    def place(builder: Any, address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, ir.PointerType(kind, 1))  # 1: the device's memory, and no other

    @intrinsic
    def load(typingctx, address):
        def generate(context, builder, signature, args):
            found = builder.load(place(builder, args[0], item), align=ITEMSIZES[kind])
            return builder.zext(found, word) if narrow else found

        return value(types.int64), generate

    @intrinsic
    def store(typingctx, address, new):
        def generate(context, builder, signature, args):
            new = builder.trunc(args[1], item) if narrow else args[1]
            builder.store(new, place(builder, args[0], item), align=ITEMSIZES[kind])
            return context.get_dummy_value()

        return types.void(types.int64, value), generate

    @intrinsic
    def load4(typingctx, address):
        def generate(context, builder, signature, args):
            found = builder.load(place(builder, args[0], several), align=aligned)
            items = [builder.extract_element(found, word(k)) for k in range(WIDTH)]
            items = [builder.zext(each, word) for each in items] if narrow else items
            return context.make_tuple(builder, signature.return_type, items)

        return types.UniTuple(value, WIDTH)(types.int64), generate

    @intrinsic
    def store4(typingctx, address, a, b, c, d):
        def generate(context, builder, signature, args):
            found = ir.Constant(several, ir.Undefined)
            for k, each in enumerate(args[1:]):
                each = builder.trunc(each, item) if narrow else each
                found = builder.insert_element(found, each, word(k))
            builder.store(found, place(builder, args[0], several), align=aligned)
            return context.get_dummy_value()

        return types.void(types.int64, value, value, value, value), generate

    return _named(kind, load, store, load4, store4)


def _llvm_bits(intrinsic: Any) -> dict[str, Any]:
    def cast(source: Any, target: Any) -> Any:
        @intrinsic
        def same_bits(typingctx, x):
            def generate(context, builder, signature, args):
                return builder.bitcast(args[0], context.get_value_type(target))

            return target(source), generate

        return same_bits

    return {
        "bits": cast(types.float32, types.uint32),
        "number": cast(types.uint32, types.float32),
        "u32": u32,
    }


# Those of numba-cuda-mlir.


def mlir(modules: Any) -> dict[str, Any]:
    """Return the functions of numba-cuda-mlir, whose modules are given."""
    made = _mlir_bits(modules)
    for kind in ITEMSIZES:
        made |= _mlir_access(kind, modules)
    return made


def _mlir_access(kind: str, modules: Any) -> dict[str, Any]:
    types, ir, made, intrinsic = modules.types, modules.ir, modules.made, modules.extending.intrinsic
    arith, llvm, vector = modules.arith, modules.llvm, modules.vector
    value: Any = {"f32": types.float32, "f64": types.float64, "i64": types.int64}.get(kind, types.uint32)
    narrow, aligned = kind in ("u16", "u8"), min(WIDTH * ITEMSIZES[kind], 16)

    def item() -> Any:
        return {"f32": made.f32, "f64": made.f64, "i64": made.i64, "u16": made.i16, "u8": made.i8}[kind]()

    def several() -> Any:
        return ir.VectorType.get([WIDTH], item())

    def given(builder: Any, target: Any, argument: Any) -> Any:
        return builder.lower_cast(builder.get_numba_type(argument.name), target, builder.load_var(argument))

    def place(builder: Any, argument: Any) -> Any:
        address = given(builder, types.int64, argument)
        return llvm.inttoptr(llvm.PointerType.get(1), address)  # 1: the device's memory, and no other

    def wide(found: Any) -> Any:
        return arith.extui(made.i32(), found) if narrow else found

    def small(builder: Any, argument: Any) -> Any:
        new = given(builder, value, argument)
        return arith.trunci(item(), new) if narrow else new

    @intrinsic
    def load(typingctx, address):
        def generate(builder, target, args, _):
            found = llvm.load(item(), place(builder, args[0]), alignment=ITEMSIZES[kind])
            builder.store_var(target, wide(found))

        return value(types.int64), generate

    @intrinsic
    def store(typingctx, address, new):
        def generate(builder, target, args, _):
            llvm.store(small(builder, args[1]), place(builder, args[0]), alignment=ITEMSIZES[kind])
            builder.store_var(target, None)

        return types.void(types.int64, value), generate

    @intrinsic
    def load4(typingctx, address):
        def generate(builder, target, args, _):
            found = llvm.load(several(), place(builder, args[0]), alignment=aligned)
            builder.store_var(target, tuple(wide(vector.extract(found, [], [k])) for k in range(WIDTH)))

        return types.UniTuple(value, WIDTH)(types.int64), generate

    @intrinsic
    def store4(typingctx, address, a, b, c, d):
        def generate(builder, target, args, _):
            new = vector.from_elements(several(), [small(builder, each) for each in args[1:]])
            llvm.store(new, place(builder, args[0]), alignment=aligned)
            builder.store_var(target, None)

        return types.void(types.int64, value, value, value, value), generate

    return _named(kind, load, store, load4, store4)


def _mlir_bits(modules: Any) -> dict[str, Any]:
    types, arith, intrinsic = modules.types, modules.arith, modules.extending.intrinsic

    def cast(source: Any, target: Any) -> Any:
        @intrinsic
        def same_bits(typingctx, x):
            def generate(builder, result, args, _):
                given = builder.get_numba_type(args[0].name)
                x = builder.lower_cast(given, source, builder.load_var(args[0]))
                builder.store_var(result, arith.bitcast(builder.get_mlir_type(target), x))

            return target(source), generate

        return same_bits

    return {
        "bits": cast(types.float32, types.uint32),
        "number": cast(types.uint32, types.float32),
        "u32": u32,
    }
