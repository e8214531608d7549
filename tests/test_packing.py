import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from fastopt.engine.memory import address

F = np.float32
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
arrays = hnp.arrays(st.sampled_from([np.float32]), shapes)


@given(st.dictionaries(st.text(max_size=2), st.lists(arrays, min_size=1, max_size=3), min_size=1, max_size=3))
def test_views_hold_the_values_and_are_the_buffer(params):
    pack = fastopt.pack(params)
    flat = np.concatenate([a.ravel() for items in params.values() for a in items])
    np.testing.assert_array_equal(pack.flat, flat)
    assert pack.size == flat.size
    for key, items in params.items():
        for given_array, view, grad in zip(items, pack.params[key], pack.grads[key], strict=True):
            np.testing.assert_array_equal(view, given_array)
            assert view.shape == grad.shape == given_array.shape
            assert not np.shares_memory(view, given_array)
    pack.flat[:] = np.arange(pack.size)
    pack.flat_grads[:] = -np.arange(pack.size)
    for key, items in params.items():
        for view, grad in zip(pack.params[key], pack.grads[key], strict=True):
            np.testing.assert_array_equal(view, -grad)
            assert len(items)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_buffers_are_aligned_flat_and_zero(dtype):
    pack = fastopt.pack([np.ones((3, 5), dtype), np.ones(7, dtype)])
    for flat in (pack.flat, pack.flat_grads):
        assert (flat.shape, flat.dtype, address(flat) % 64) == ((22,), dtype, 0)
    assert pack.dtype == dtype
    assert not pack.flat_grads.any()
    assert pack.names == ["[0]", "[1]"]


def test_any_layout_and_scalars():
    a = np.arange(12, dtype=F).reshape(3, 4)
    params = {"f": np.asfortranarray(a), "s": a[::2, ::-1], "0d": np.array(5, F), "scalar": F(6)}
    pack = fastopt.pack(params)
    for key, value in params.items():
        np.testing.assert_array_equal(pack.params[key], value)
    assert pack.params["scalar"].shape == ()
    pack.params["scalar"][...] = 7
    assert pack.flat[-1] == 7


def test_a_sole_array():
    pack = fastopt.pack(np.ones((2, 3), F))
    assert pack.params.shape == pack.grads.shape == (2, 3)
    assert np.shares_memory(pack.params, pack.flat)


def test_dtype_converts():
    pack = fastopt.pack({"i": np.arange(3), "h": np.ones(2, np.float16), "d": np.ones(1)}, dtype=F)
    assert pack.flat.tolist() == [0, 1, 2, 1, 1, 1]
    assert pack.dtype == F


def test_tied_arrays_are_refused():
    w = np.ones((4, 4), F)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fastopt.pack({"enc": w, "dec": [w]})
    message = "params['enc'] and params['dec'][0] are the same array; each parameter must be given once"
    assert str(caught.value) == message
    with pytest.raises(ValueError, match=r"params\[0\] and params\[2\] share memory"):
        fastopt.pack([w, np.ones(2, F), w.T[1:]])


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            [1.0],
            TypeError,
            "params[0] must be a NumPy array of float32 or float64 (or float16, bfloat16), got float",
        ),
        (
            {"a": None},
            TypeError,
            "params['a'] must be a NumPy array of float32 or float64 (or float16, bfloat16), got NoneType",
        ),
        (
            [np.arange(3)],
            TypeError,
            "params[0] must be a NumPy array of float32 or float64 (or float16, bfloat16), got an array of int64",
        ),
        (
            [np.ones(3, ">f4")],
            TypeError,
            "params[0] must be a NumPy array of float32 or float64 (or float16, bfloat16), got an array of >f4",
        ),
        ({}, ValueError, "params must hold at least one array, got none"),
        (
            {"a": np.ones(1, F), "b": np.ones(1)},
            ValueError,
            "params must have one dtype: params['a'] is float32 and params['b'] is float64; "
            "to convert them, give pack a dtype",
        ),
    ],
)
def test_errors(params, error, message):
    with pytest.raises(error) as caught:
        fastopt.pack(params)
    assert str(caught.value) == message


def test_dtype_must_be_a_float():
    with pytest.raises(TypeError, match="dtype must be float32, float64, float16 or bfloat16, got int32"):
        fastopt.pack([np.ones(3)], dtype=np.int32)
    with pytest.raises(TypeError, match="got an array of complex128"):
        fastopt.pack([np.ones(3, complex)], dtype=F)


def test_parts_are_packs_over_the_same_memory():
    pack = fastopt.pack(
        {"a": [np.zeros((2, 2), F), np.ones(3, F)], "b": np.full(2, 5, F), "c": np.zeros(1, F)}
    )
    part = pack["a"]
    assert (part.size, part.names) == (7, ["[0]", "[1]"])
    assert pack["a"][1].flat.tolist() == [1, 1, 1]
    assert pack["a"][-1].flat.tolist() == [1, 1, 1]
    pack["b"].flat[:] = 9
    pack["b"].grads[:] = 8
    assert pack.params["b"].tolist() == [9, 9]
    assert pack.grads["b"].tolist() == [8, 8]
    with pytest.raises(KeyError):
        pack["d"]
    with pytest.raises(IndexError):
        pack["a"][2]
    with pytest.raises(TypeError, match="a sole array"):
        pack["b"][0]
    with pytest.raises(TypeError, match="not by a slice"):
        pack["a"][0:1]


def test_zero_grad():
    pack = fastopt.pack([np.ones(3, F)])
    pack.grads[0][:] = 2
    pack.zero_grad()
    assert pack.flat_grads.tolist() == [0, 0, 0]


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_views_of_their_own_buffer(twin_of):
    pack = fastopt.pack({"w": np.ones((2, 2), F), "b": np.zeros(3, F)})
    pack.flat_grads[:] = 4
    twin, part = twin_of((pack, pack["b"]))
    assert address(twin.flat) % 64 == 0
    twin.params["b"][:] = 7
    assert twin.flat[4:].tolist() == [7, 7, 7]
    assert part.flat.tolist() == [7, 7, 7]  # a part stays a part
    assert twin.grads["w"].tolist() == [[4, 4], [4, 4]]
    assert pack.params["b"].tolist() == [0, 0, 0]


def test_repr():
    assert repr(fastopt.pack([np.ones(3)])) == "<Pack of 1 array, 3 parameters, float64>"
