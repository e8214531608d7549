"""Numbers in fewer bits: what their bits mean, how they are rounded, and where the random bits come from.

All by integer arithmetic of 32 bits, without a branch, for loops to be compiled to vectors: Numba has no
half precision on the CPU, and what the processor has for it is not everywhere.

A format of 8 bits has its exponents relative to a power of two, which is the block's. So the numbers that it
has stay where they are while the greatest one of a block changes, and what is stored is the same when it is
stored again: each further rounding would be noise. What is stored are the leading bits of a number to which
an offset was added. So numbers that are smaller than the offset have fixed steps, and are no case apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

# Unsigned numbers of 32 bits. In Python they are its integers: NumPy's would warn of what is cut off.


def u32(x):
    """Return the low 32 bits of an integer."""
    return int(x) & 0xFFFFFFFF


@overload(u32)
def _u32_compiled(x):
    return lambda x: np.uint32(x)


def bits(x):
    """Return the bits of a float32."""
    return int(np.float32(x).view(np.uint32))


def number(b):
    """Return the float32 with these bits."""
    return np.uint32(b).view(np.float32)


def _cast(source: Any, target: Any) -> Any:
    @intrinsic
    def cast(typingctx, x):
        def generate(context, builder, signature, args):
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), generate

    return cast


_to_bits = _cast(types.float32, types.uint32)
_to_number = _cast(types.uint32, types.float32)


@overload(bits)
def _bits_compiled(x):
    return lambda x: _to_bits(np.float32(x))


@overload(number)
def _number_compiled(b):
    return lambda b: _to_number(np.uint32(b))


# Random bits.


def draw(first, i, key):
    """Return 32 random bits for an element.

    They depend on its place, ``first + i``, and on the two halves of the key, and on nothing else.
    """
    x = u32((u32(first + i) ^ u32(key)) * _FACTORS[0])
    x = u32((x ^ x >> 15 ^ u32(key >> 32)) * _FACTORS[1])
    return _rotated(x ^ x >> 16)


def draw_again(x):
    """Return further random bits, from those that were drawn."""
    x = u32(x * _FACTORS[0])
    return _rotated(x ^ x >> 15)


def _rotated(x):
    return u32(x << 16 | x >> 16)


_FACTORS = 0x9E3779B1, 0x846CA68B

# Compiled from operations of 32 bits by themselves. Of Numba's, on 64 bits, LLVM would make vectors of 64
# bits, because a place is counted in such; it does so until it comes to a call, and the rotation is one.


@intrinsic
def _draw(typingctx, first, i, key):
    def generate(context, builder, signature, args):
        word = ir.IntType(32)
        place = builder.add(*(builder.trunc(each, word) for each in args[:2]))
        high = builder.trunc(builder.lshr(args[2], ir.IntType(64)(32)), word)
        x = builder.mul(builder.xor(place, builder.trunc(args[2], word)), word(_FACTORS[0]))
        x = builder.mul(builder.xor(_mixed(builder, x, 15), high), word(_FACTORS[1]))
        return _rotate(builder, _mixed(builder, x, 16))

    return types.uint32(types.int64, types.int64, types.int64), generate


@intrinsic
def _draw_again(typingctx, x):
    def generate(context, builder, signature, args):
        (x,) = args
        return _rotate(builder, _mixed(builder, builder.mul(x, x.type(_FACTORS[0])), 15))

    return types.uint32(types.uint32), generate


def _mixed(builder, x, shift):
    return builder.xor(x, builder.lshr(x, x.type(shift)))


def _rotate(builder, x):
    kind = ir.FunctionType(x.type, [x.type] * 3)
    return builder.call(builder.module.declare_intrinsic("llvm.fshl", [x.type], kind), [x, x, x.type(16)])


@overload(draw)
def _draw_compiled(first, i, key):
    return lambda first, i, key: _draw(first, i, key)


@overload(draw_again)
def _draw_again_compiled(x):
    return lambda x: _draw_again(x)


def make_key(seed: int, step: int) -> int:
    """Return the 64 bits that the random bits of a step depend on, as a signed integer."""
    x = 0
    for word in (seed, step):  # splitmix64
        x = (x + word + 0x9E3779B97F4A7C15) & _WORD
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
        x ^= x >> 31
    return x - (1 << 64) if x >> 63 else x


_WORD = (1 << 64) - 1

# bfloat16: the high half of a float32. To round, a number up to 0xFFFF is added to what is cut off.


@register_jitable
def from_bfloat16(stored):
    """Return the float32 that a bfloat16 is."""
    return number(u32(u32(stored) << 16))


@register_jitable
def to_bfloat16(x, noise):
    """Round up or down; up where the noise, of 16 bits, is large enough.

    NaN stays, if it is a quiet one, as all are that come of arithmetic: nothing is added to it.
    """
    return u32(u32(bits(x) + (u32(noise) if x == x else u32(0))) >> 16)


@register_jitable
def to_nearest_bfloat16(x):
    """Round to nearest, ties to even."""
    b = bits(x)
    rounded = u32(b + 0x7FFF + (b >> 16 & 1))
    return u32((rounded if x == x else u32(b & _SIGN | 0x7FC00000)) >> 16)


_SIZE, _INF, _SIGN = 0x7FFFFFFF, 0x7F800000, 0x80000000

# The same with the low half beside it, which is signed: the high one is rounded to nearest.


@register_jitable
def from_halves(high, low):
    """Return the number that was split."""
    return number(u32((u32(high) << 16) + (u32(low) ^ 0x8000) - 0x8000))


@register_jitable
def to_halves(x):
    """Return the high half and the low one of a number; of a NaN, those of NumPy's."""
    b = bits(x)
    b = b if u32(b & _SIZE) <= _INF else u32(b & _SIGN | 0x7FC00000)
    return u32(u32(b + 0x8000) >> 16), u32(b & 0xFFFF)


# float16.


@register_jitable
def from_float16(stored):
    """Return the float32 that a float16 is."""
    size, sign = u32(stored & 0x7FFF), u32(u32(stored & 0x8000) << 16)
    rebias = u32(0x38000000) if size < 0x7C00 else u32(0x70000000)
    # What is subnormal is converted as an integer: to compute with subnormals is slow on some processors.
    normal, small = u32(u32(size << 13) + rebias), bits(np.float32(size) * _QUANTUM)
    return number(u32((normal if size >= 0x400 else small) | sign))


@register_jitable
def to_float16(x, noise):
    """Round up or down; up where the noise, of 16 bits, is large enough. NaN stays."""
    b = bits(x)
    size = u32(b & _SIZE)
    if size >= _LEAST:
        code = min(u32(u32(size + (noise >> 3) - 0x38000000) >> 13), u32(0x7C00))
    else:
        code = u32(np.int32(number(size) * _QUANTA + np.float32(np.int32(noise)) * _SHARE))
    return u32((code if size <= _INF else u32(0x7E00)) | (b >> 16 & 0x8000))


@register_jitable
def to_nearest_float16(x):
    """Round to nearest, ties to even."""
    b = bits(x)
    size = u32(b & _SIZE)
    if size >= _LEAST:
        code = min(u32(u32(size + 0xFFF + (size >> 13 & 1) - 0x38000000) >> 13), u32(0x7C00))
    else:
        code = u32(bits(number(size) + _HALF) - 0x3F000000)  # the sum's last bit is worth the smallest number
    return u32((code if size <= _INF else u32(0x7E00)) | (b >> 16 & 0x8000))


#: The bits of the smallest normal float16. The smallest number of all, and how many of it are 1.
_LEAST = 0x38800000
_QUANTUM, _QUANTA, _HALF = np.float32(2.0**-24), np.float32(2.0**24), np.float32(0.5)
_SHARE = np.float32(2.0**-16)

# 8 bits. A number is divided by the scale of its block, and 2 is added. The greatest is then just below the
# greatest power of two that the exponents reach, and what follows the sign in the code are the leading bits.


@register_jitable
def exponent_of(greatest, slack):
    """Return the exponent of a block, from the bits of the greatest number, which is finite.

    As if that were rounded up, where it is no number of the format: it can still become the next power of
    two. It is so large that no number of the format becomes subnormal.
    """
    return max(u32(u32(greatest + slack) >> 23), u32(45))


@register_jitable
def scale_of(greatest, slack, span):
    """Return the scale of a block. If anything in it is not finite, it is NaN, and so is all that is read."""
    exponent = exponent_of(greatest, slack)
    return number(u32((exponent - span) << 23) if greatest < _INF else u32(0x7FC00000))


@register_jitable
def inverse_of(greatest, slack, span):
    """Return the inverse of a finite scale."""
    return number(u32((254 + span - exponent_of(greatest, slack)) << 23))


@register_jitable
def from_signed(code, scale):
    """Return what a code of 8 bits means."""
    b = u32(u32(code) << 24)
    size = number(u32((b >> 4 & 0x07F00000) | _OFFSET_BITS)) - _OFFSET
    return number(u32(bits(size * scale) | (b & _SIGN)))


@register_jitable
def to_signed(x, inverse, noise):
    """Round up or down; up where the noise, of 20 bits, is large enough."""
    b = bits(x)
    rounded = u32(bits(number(u32(b & _SIZE)) * inverse + _OFFSET) + noise)
    return u32((rounded >> 20 & 0x7F) | (b >> 24 & 0x80))


@register_jitable
def to_nearest_signed(x, inverse):
    """Round to nearest."""
    return to_signed(x, inverse, 0x80000)


@register_jitable
def from_squares(code, scale):
    """Return what a code of 8 bits without a sign means."""
    return (number(u32((u32(code) << 20) + _OFFSET_BITS)) - _OFFSET) * scale


@register_jitable
def to_squares(x, inverse, noise):
    """Round up or down; up where the noise, of 20 bits, is large enough. Only zero becomes zero.

    For what is divided by the root of a mean of squares: that must not jump when the mean is lost.
    """
    size = u32(bits(x) & _SIZE)
    rounded = u32(bits(number(size) * inverse + _OFFSET) + noise)
    least = u32(min(size, u32(0x100000)) + _OFFSET_BITS)  # all numbers but zero have more bits than that
    return u32(max(rounded, least) >> 20 & 0xFF)


@register_jitable
def to_nearest_squares(x, inverse):
    """Round to nearest. Only zero becomes zero."""
    return to_squares(x, inverse, 0x80000)


_OFFSET, _OFFSET_BITS = np.float32(2.0), 0x40000000

#: What to add to the bits of a number so that, if it could be rounded up from the greatest of a format to the
#: next power of two, it is that (the offset makes the greatest signed one greater, by 256 units); and the
#: number of exponents.
BLOCKS = {"signed": (0xFFFFF + 256, 16), "squares": (0xFFFFF, 32)}
