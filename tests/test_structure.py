"""Nested dicts as a text and arrays: the same comes back, and nothing else is taken."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastopt.structure import DTYPES, decode, encode


def there_and_back(content):
    text, arrays = encode(content)
    return decode(text, arrays.__getitem__)


def assert_same(got, want):
    """Raise an AssertionError unless both are of the same types and values, bit for bit; NaN is NaN."""
    assert type(got) is type(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, list | tuple):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
    elif isinstance(want, np.ndarray):
        assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())
    elif isinstance(want, float | np.floating) and math.isnan(want):
        assert math.isnan(got)
    elif isinstance(want, float):
        assert (got, math.copysign(1, got)) == (want, math.copysign(1, want))
    else:
        assert got == want


EVERYTHING = {
    "numbers": [0, -1, 2**70, 0.1, -0.0, 5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf],
    "others": [None, True, False, "", "text", "Grüße \N{SNOWMAN} \ud800 \0 \"'\\", ()],
    "betas": (0.9, 0.999, (math.inf,)),
    "scalars": [np.float32(0.1), np.float64("-inf"), np.float16("nan"), np.int64(-(2**63)), np.bool_(True)],
    "nested": {"dict": {}, "list": [[], {"": [{}]}], "a.b": np.ones(1), "a": {"b": np.zeros(2)}},
    "a_b": np.ones(3),
    "a b": np.ones(4),
    "é": np.ones(5),
    "fastopt-state": np.ones(6),
    "empty": np.zeros((0, 4), np.float32),
    "zero": np.array(3.0),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12)[::-2],
    "special": np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324]),
    "payload": np.array([0x7FF8000000000001, 0xFFF0000000000123], np.uint64).view(np.float64),
    "dtypes": [np.ones(3, name) for name in sorted(DTYPES)],
}


def test_everything_comes_back_exactly():
    assert_same(there_and_back(EVERYTHING), EVERYTHING)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ARRAYS = hnp.arrays(st.sampled_from(sorted(DTYPES)), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
KEYS = st.text().filter(lambda key: not key.startswith("$"))


@settings(max_examples=50)
@given(
    st.dictionaries(
        KEYS,
        st.recursive(
            PLAIN | ARRAYS,
            lambda inner: (
                st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner, max_size=4)
            ),
            max_leaves=12,
        ),
    )
)
def test_anything_comes_back_exactly(content):
    assert_same(there_and_back(content), content)


def test_the_text_is_strict_json_and_says_which_arrays_there_are():
    def refuse(constant):
        raise AssertionError(constant)

    text, arrays = encode(EVERYTHING)
    assert text.isascii()
    assert json.loads(text, parse_constant=refuse)["fastopt"] == 1
    assert {"nested.a.b", "nested.a.b_", "a_b", "a_b_", "zero", "dtypes.0"} <= set(arrays)
    assert len(set(arrays)) == 12 + len(DTYPES)
    assert all(array.flags.c_contiguous for array in arrays.values())


def test_arrays_are_not_copied():
    w = np.ones((3, 4))
    assert encode({"w": [w]})[1]["w.0"] is w


def test_arrays_are_fetched_in_the_order_of_encoding():
    text, arrays = encode(EVERYTHING)
    asked = []
    decode(text, lambda name: (asked.append(name), arrays[name])[1])
    assert asked == list(arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"a": [{}, {"f": len}]},
            "state_dict['a'][1]['f'] must be a number, a string, None, an array, or a dict, list or tuple of "
            "such; got builtin_function_or_method",
        ),
        ({"a": {1, 2}}, "state_dict['a'] must be a number, a string, None, an array, or a dict, list or tuple of such; got set"),
        ({"a": b""}, "state_dict['a'] must be a number, a string, None, an array, or a dict, list or tuple of such; got bytes"),
        ({"a": {1: 2}}, "the keys of state_dict['a'] must be strings without a leading $, got 1"),
        ({"$a": 1}, "the keys of state_dict must be strings without a leading $, got '$a'"),
        ({"a": np.array([None])}, "state_dict['a'] must be of integers, bools or floats of up to 64 bits, got object"),
        ({"a": np.ones(2, ">f4")}, "state_dict['a'] must be of integers, bools or floats of up to 64 bits, got >f4"),
        ({"a": np.ones(2, complex)}, "state_dict['a'] must be of integers, bools or floats of up to 64 bits, got complex128"),
        ({"a": np.longdouble(1)}, f"state_dict['a'] must be of integers, bools or floats of up to 64 bits, got {np.dtype(np.longdouble)}"),
        ({"a": np.array(["x"])}, "state_dict['a'] must be of integers, bools or floats of up to 64 bits, got <U1"),
        ({"a": np.ones(2, [("x", float)])}, "state_dict['a'] must be of integers, bools or floats of up to 64 bits, got [('x', '<f8')]"),
        ({"a": np.str_("x")}, "state_dict['a'] must be of integers, bools or floats of up to 64 bits, got <U1"),
    ],
)  # fmt: skip
def test_what_cannot_be_encoded(content, message):
    with pytest.raises(TypeError) as caught:
        encode(content)
    assert str(caught.value) == message


def spoilt(old, new):
    text, arrays = encode({"w": np.ones(2), "b": (1, math.inf), "s": np.float32(1)})
    assert old in text
    return text.replace(old, new), arrays


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fastopt": 1', '"fastopt": 2', "its format must be 1, got 2"),
        ('"fastopt": 1', '"other": 1', "its text is not fastopt's"),
        ('"fastopt": 1', '"fastopt": 1, "more": 1', "its text is not fastopt's"),
        ("[2]", "[3]", "its array 'w' must be of float64 and of shape (3,), got float64 and (2,)"),
        ("float64", "float32", "its array 'w' must be of float32 and of shape (2,), got float64 and (2,)"),
        ("$array", "$other", "its text has an unknown entry '$other'"),
        ('"shape": [2]', '"shape": 2', "its text has an unknown entry '$array'"),
        ('"shape": [2]', '"shape": [2], "more": 1', "its text has an unknown entry '$array'"),
        ('"$tuple": [', '"$tuple": 1, "x": [', "its text has an unknown entry '$tuple'"),
        ('"inf"', '"Infinity"', "its text has an unknown entry '$float'"),
        ("float32", "object", "its text has an unknown entry '$scalar'"),
        ("1.0", "NaN", "its text has a number that is none: NaN"),
    ],
)
def test_what_is_not_decoded(old, new, message):
    text, arrays = spoilt(old, new)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        decode(text, arrays.__getitem__)
    assert str(caught.value) == message
