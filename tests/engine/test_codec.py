"""Numbers in fewer bits: what they mean, how they are rounded, and the random bits."""

import ml_dtypes
import numba
import numpy as np
import pytest

from fastopt.engine import codec
from fastopt.engine.codec import (
    draw,
    draw_again,
    from_bfloat16,
    from_float16,
    from_halves,
    make_key,
    to_bfloat16,
    to_float16,
    to_halves,
    to_nearest_bfloat16,
    to_nearest_float16,
)

CODES = np.arange(1 << 16, dtype=np.uint16)


@numba.njit(error_model="numpy")
def read(which, stored, out):
    for i in range(stored.size):
        out[i] = from_bfloat16(stored[i]) if which == 0 else from_float16(stored[i])


@numba.njit(error_model="numpy")
def write(which, values, out):
    for i in range(values.size):
        out[i] = to_nearest_bfloat16(values[i]) if which == 0 else to_nearest_float16(values[i])


@numba.njit(error_model="numpy")
def write_randomly(which, values, out, key):
    for i in range(values.size):
        noise = draw(0, i, key) >> 16
        out[i] = to_bfloat16(values[i], noise) if which == 0 else to_float16(values[i], noise)


@numba.njit(error_model="numpy")
def cut(values, high, low, joined):
    for i in range(values.size):
        high[i], low[i] = to_halves(values[i])
    for i in range(values.size):
        joined[i] = from_halves(high[i], low[i])


@numba.njit
def fill(first, key, one, other):
    for i in range(one.size):
        one[i] = draw(first, i, key)
        other[i] = draw_again(one[i])


HALVES = {"bfloat16": (0, ml_dtypes.bfloat16), "float16": (1, np.float16)}
each_half = pytest.mark.parametrize(("which", "peer"), HALVES.values(), ids=HALVES.keys())


def awkward():
    """Return float32: the neighbourhoods of all numbers of half precision and between them; and any bits."""
    rng = np.random.default_rng(0)
    bits = [rng.integers(0, 1 << 32, 50_000, dtype=np.uint64).astype(np.uint32)]
    for offset in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        bits.append((CODES.astype(np.uint32) << 16) + np.uint32(offset))
    with np.errstate(invalid="ignore"):
        halves = CODES.view(np.float16).astype(np.float32).view(np.uint32)
    for offset in (0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF):
        bits.append(halves + np.uint32(offset))
    return np.concatenate(bits).view(np.float32)


@pytest.mark.jit
@each_half
def test_all_numbers_are_read_as_by_ml_dtypes_and_numpy(which, peer):
    got = np.empty(CODES.size, np.float32)
    read(which, CODES, got)
    with np.errstate(invalid="ignore"):
        want = CODES.view(peer).astype(np.float32)
    nan = np.isnan(want)
    np.testing.assert_array_equal(got.view(np.uint32)[~nan], want.view(np.uint32)[~nan])
    assert np.isnan(got[nan]).all()
    np.testing.assert_array_equal(np.signbit(got[nan]), np.signbit(want[nan]))


@pytest.mark.jit
@each_half
def test_all_numbers_are_written_as_by_ml_dtypes_and_numpy(which, peer):
    values = awkward()
    got = np.empty(values.size, np.uint16)
    write(which, values, got)
    with np.errstate(all="ignore"):
        want = values.astype(peer).view(np.uint16)
    nan = np.isnan(values)
    np.testing.assert_array_equal(got[~nan], want[~nan])
    quiet = {0: 0x7FC0, 1: 0x7E00}[which] | (np.signbit(values[nan]) * np.uint16(0x8000))
    np.testing.assert_array_equal(got[nan], quiet)


@pytest.mark.jit
@each_half
def test_what_can_be_stored_is_not_rounded(which, peer):
    values = np.empty(CODES.size, np.float32)
    read(which, CODES, values)
    nan = np.isnan(values)
    for key in range(5):
        got = np.empty(CODES.size, np.uint16)
        write_randomly(which, values, got, make_key(0, key))
        np.testing.assert_array_equal(got[~nan], CODES[~nan])
        assert np.isnan(got[nan].view(peer).astype(np.float32)).all()


@pytest.mark.jit
@each_half
def test_random_rounding_is_to_a_neighbour(which, peer):
    values = awkward()
    values = values[np.abs(values) < 6e4]
    got = np.empty(values.size, np.uint16)
    write_randomly(which, values, got, make_key(3, 1))
    found = got.view(peer).astype(np.float32)
    assert (np.sign(found) * np.sign(values) >= 0).all()
    wrong = np.abs(found - values)
    down = np.where(np.abs(found) > np.abs(values), got - 1, got + 1).astype(np.uint16)
    other = down.view(peer).astype(np.float32)
    exact = found == values
    assert (wrong[~exact] < np.abs(found - other)[~exact]).all()
    assert ((found < values) != (other < values))[~exact].all()


@pytest.mark.jit
@pytest.mark.parametrize("value", [1.001, -3.3333, 1e-5, 2.2e-6, 3e-8, 60_001.0, 1e30])
@each_half
def test_random_rounding_is_unbiased(which, peer, value):
    if which == 1 and value > 1e5:
        value = 2.0**-14 * 1.0001
    values = np.full(100_000, value, np.float32)
    got = np.empty(values.size, np.uint16)
    write_randomly(which, values, got, make_key(1, 2))
    found = got.view(peer).astype(np.float64)
    low, high = sorted({*found.tolist()})
    error = found.mean() - float(values[0])
    assert abs(error) < 4 * found.std() / np.sqrt(found.size)
    assert low < float(values[0]) < high


@pytest.mark.jit
def test_two_halves_are_the_number():
    values = awkward()
    high, low = np.empty(values.size, np.uint16), np.empty(values.size, np.uint16)
    joined = np.empty(values.size, np.float32)
    cut(values, high, low, joined)
    nan = np.isnan(values)
    np.testing.assert_array_equal(joined.view(np.uint32)[~nan], values.view(np.uint32)[~nan])
    assert np.isnan(joined[nan]).all()
    rounded = high.view(ml_dtypes.bfloat16).astype(np.float32)
    assert np.isnan(rounded[nan]).all()
    with np.errstate(all="ignore"):
        nearest = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    tie = (values.view(np.uint32) & 0xFFFF) == 0x8000
    np.testing.assert_array_equal(rounded[~nan & ~tie], nearest[~nan & ~tie])


# Random bits.


@pytest.mark.jit
def test_compiled_and_in_python_the_bits_are_the_same():
    for key in (0, -1, make_key(7, 9)):
        for first in (0, (1 << 32) - 50, 1 << 40):
            one, other = np.empty(100, np.uint32), np.empty(100, np.uint32)
            fill(first, key, one, other)
            want = [draw(first, i, key) for i in range(100)]
            assert one.tolist() == want
            assert other.tolist() == [draw_again(x) for x in want]


def scaled(part):
    """Return whole numbers that are even from 0 to some power of two, with mean 0 and variance 1."""
    largest = (1 << int(part.max()).bit_length()) - 1
    return (part - largest / 2.0) / (largest / np.sqrt(12.0))


@pytest.mark.jit
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_random_bits_are_even_and_independent(step):
    one, other, later, last = np.empty((4, 1 << 18), np.uint32)
    fill(0, make_key(0, step), one, other)
    fill(0, make_key(0, step + 1), later, last)
    high, low, again = one >> 16, one & 0xFFFF, other >> 16
    limit = 4.5 / np.sqrt(one.size)
    for part in map(scaled, (high, low, again, other & 0xFFFF, one >> 12, one & 0xFFFFF)):
        assert abs(part.mean()) < limit
        assert part.var() == pytest.approx(1.0, abs=0.01)
        assert part.reshape(-1, 256).sum(axis=1).var() / 256 == pytest.approx(1.0, abs=0.25)
        for lag in (1, 2, 16, 256):
            assert abs((part[lag:] * part[:-lag]).mean()) < limit
    for first, second in ((high, low), (high, again), (low, again), (high, later >> 16)):
        assert abs((scaled(first) * scaled(second)).mean()) < limit


def test_keys():
    keys = {make_key(seed, step) for seed in range(50) for step in range(50)}
    assert len(keys) == 2500
    assert all(-(1 << 63) <= key < 1 << 63 for key in keys)


# 8 bits.


@pytest.mark.parametrize("kind", ["signed", "squares"])
def test_the_greatest_number_of_a_block(kind):
    constants, largest = codec.BLOCKS[kind], {"signed": 0x7F, "squares": 0xFF}[kind]
    read_code = getattr(codec, f"from_{kind}")
    round_code = getattr(codec, f"to_{kind}")
    for exponent in (45, 100, 127, 200, 254):
        for mantissa in (0, 1, 0x6FFEFF, 0x6FFF00, 0x6FFF01, 0x6FFFFF, 0x700000, 0x700001, 0x7FFFFF):
            greatest = (exponent << 23) | mantissa
            scale, inverse = codec.scale_of(greatest, *constants), codec.inverse_of(greatest, *constants)
            assert float(scale) * float(inverse) == 1.0
            value = codec.number(greatest)
            for noise in (0, 0x7FFFF, 0xFFFFF):
                code = round_code(value, inverse, noise)
                assert 0 <= code <= largest
                if exponent < 254:
                    assert abs(float(read_code(code, scale)) / float(value) - 1.0) <= 1 / 8


@pytest.mark.parametrize("kind", ["signed", "squares"])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_scale_of_what_is_not_finite(kind, value):
    greatest = codec.bits(np.float32(value))
    scale = codec.scale_of(greatest, *codec.BLOCKS[kind])
    assert np.isnan(scale)
    assert np.isnan(getattr(codec, f"from_{kind}")(0, scale))
