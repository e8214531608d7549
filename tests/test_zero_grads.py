"""Gradients are set to zero in the pass that uses them."""

import numpy as np
import pytest

import fastopt
from fastopt.engine import threads
from tests.algorithms.cases import CASES, LAYOUTS, assert_same, draw, each_dtype, history, values

CHOSEN = [
    case
    for case in CASES
    if case.id in ("sgd", "adamw", "lamb", "prodigy", "muon", "nag", "novograd", "soap")
]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.id)
@pytest.mark.parametrize("packed", [False, True])
def test_the_update_is_the_same_and_the_gradients_are_zero(case, packed):
    rng = np.random.default_rng(0)
    shapes = [case.shape(33), case.shape(9), (0, *case.shape(9)[1:])]
    params = [draw(rng, shape, "float32") for shape in shapes]
    plain = [array.copy() for array in params]
    given = fastopt.pack(params) if packed else params
    opt, other = case.optimizer(given, zero_grads=True), case.optimizer(plain)
    for _ in range(3):
        grads = [draw(rng, shape, "float32") for shape in shapes]
        history(other, [[grad.copy() for grad in grads]])
        if packed:
            for own, grad in zip(given.grads, grads, strict=True):
                own[...] = grad
            history(opt, [None])
            assert not given.flat_grads.any()
        else:
            history(opt, [grads])
            assert not any(grad.any() for grad in grads)
        assert_same(values(opt), values(other))


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, dtype):
    rng = np.random.default_rng(0)
    w, grad = (LAYOUTS[layout](draw(rng, (5, 4), dtype)) for _ in range(2))
    fastopt.SGD(w, zero_grads=True).step(grad)
    assert not grad.any()
    other = LAYOUTS["strided"](draw(rng, (5, 4), dtype))  # which is copied first
    fastopt.SGD(w, zero_grads=True).step(other)
    assert not other.any()


@pytest.mark.jit
def test_threads(monkeypatch):
    monkeypatch.setattr(threads, "CHUNK", 1000)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    w, grad = np.ones(100_003, np.float32), np.ones(100_003, np.float32)
    fastopt.SGD(w, lr=1.0, zero_grads=True, threads=4).step(grad)
    assert not grad.any()
    assert not w.any()


def test_rows():
    table = np.zeros((6, 2), np.float32)
    values_ = np.ones((3, 2), np.float32)
    fastopt.SGD(table, lr=1.0, zero_grads=True).step(fastopt.Rows([4, 1, 4], values_))
    assert not values_.any()
    np.testing.assert_array_equal(table[:, 0], [0, -1, 0, 0, -2, 0])


def test_frozen_ones_of_a_pack_too():
    pack = fastopt.pack({"a": np.ones(2), "b": np.ones(3)})
    opt = fastopt.SGD(pack, lr=1.0, zero_grads=True, frozen="a")
    pack.flat_grads.fill(1)
    opt.step()
    assert not pack.flat_grads.any()
    np.testing.assert_array_equal(pack.flat, [1, 1, 0, 0, 0])


@pytest.mark.parametrize("how", ["pack", "given", "rows"])
def test_also_when_the_step_is_left_out(how):
    table = np.ones((2, 2))
    bad = np.array([[np.nan, 1.0], [2.0, 3.0]])
    given = fastopt.pack(table) if how == "pack" else table
    opt = fastopt.SGD(given, zero_grads=True, skip_nonfinite=True)
    if how == "pack":
        given.grads[...] = bad
        opt.step()
        bad = given.grads
    else:
        opt.step(bad if how == "given" else fastopt.Rows([0, 1], bad))
    assert opt.skipped_nonfinite == 1
    assert not bad.any()


def test_gradients_that_are_added_up():
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, zero_grads=True, accumulate=2)
    strided = np.ones(4)[::2]
    for grad in (np.ones(2), strided):
        opt.step(grad)
        assert not grad.any()
    np.testing.assert_array_equal(w, [-1, -1])


def test_without_it_gradients_stay():
    grad = np.ones(3)
    fastopt.SGD(np.ones(3)).step(grad)
    assert grad.all()


@pytest.mark.parametrize("steps", [1, 2])
def test_what_cannot_be_written_is_refused(steps):
    w = np.ones(2)
    opt = fastopt.SGD(w, zero_grads=True, accumulate=steps)
    grad = np.ones(2)
    grad.flags.writeable = False
    with pytest.raises(ValueError, match="grads must be a writeable array: zero_grads=True sets it to zero"):
        opt.step(grad)
    scalar = fastopt.SGD(np.array(1.0), zero_grads=True)
    with pytest.raises(ValueError, match="grads must be a writeable array"):
        scalar.step(np.float64(1.0))
    with pytest.raises(ValueError, match="grads must be a writeable array"):
        fastopt.SGD(np.ones((2, 2)), zero_grads=True).step(fastopt.Rows([0, 1], np.broadcast_to(1.0, (2, 2))))
    np.testing.assert_array_equal(w, [1, 1])


def test_it_must_be_a_bool():
    with pytest.raises(TypeError, match="zero_grads must be True or False, got 'yes'"):
        fastopt.SGD(np.ones(2), zero_grads="yes")
