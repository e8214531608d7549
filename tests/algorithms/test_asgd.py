"""ASGD: shrinking steps, and the average."""

from dataclasses import replace

import numpy as np
import pytest

from fastopt import ASGD, SGD
from tests.algorithms.cases import BY_ID, each_dtype
from tests.algorithms.families import modern


def test_without_decay_it_is_gradient_descent():
    rng = np.random.default_rng(0)
    w = rng.standard_normal(9)
    v = w.copy()
    asgd, sgd = ASGD(w, lr=0.1, lambd=0.0, weight_decay=0.5), SGD(v, lr=0.1, weight_decay=0.5)
    for _ in range(10):
        grad = rng.standard_normal(9)
        asgd.step(grad)
        sgd.step(grad)
        np.testing.assert_allclose(w, v, rtol=1e-13)


def test_the_steps_shrink():
    """By (1 + lambd * lr * (t - 1))**-alpha, where alpha = 1 gives 1, 1/2, 1/3, ... here."""
    w = np.zeros(1)
    opt = ASGD(w, lr=1.0, lambd=1.0, alpha=1.0)
    want = 0.0
    for t in range(1, 8):
        opt.step(np.ones(1))
        want = (1 - 1 / t) * want - 1 / t  # the decay is lambd times the step
        assert w == pytest.approx(want, rel=1e-14)
    assert w == pytest.approx(-1.0)


@each_dtype
@pytest.mark.parametrize("t0", [0, 3, 1e6])
def test_the_average_is_that_of_the_points_after_the_start(dtype, t0):
    rng = np.random.default_rng(0)
    w = np.zeros(9, dtype)
    opt = ASGD(w, lr=0.1, t0=t0)
    points = []
    for t in range(1, 21):
        opt.step(rng.standard_normal(9).astype(dtype))
        points.append(w.copy())
        average = opt.state[0]["ax"]
        if t <= t0 + 2:
            assert np.array_equal(average, w)  # to the bit
        else:
            mean = np.mean(points[t0 + 1 :], axis=0, dtype=float)
            np.testing.assert_allclose(average, mean, atol=9 * np.finfo(dtype).eps)


@pytest.mark.jit  # else it takes long
def test_the_average_comes_nearer_to_the_minimum_than_the_points():
    rng = np.random.default_rng(0)
    w = np.ones(500)
    opt = ASGD(w, lr=0.5, lambd=0.0, t0=10)
    for _ in range(1000):
        opt.step(w + rng.standard_normal(500))  # the minimum is at 0
    assert np.sqrt((w**2).mean()) > 0.4
    assert np.sqrt((opt.state[0]["ax"] ** 2).mean()) < 0.05


# torch keeps the scalars of a step as tensors of its default dtype. All numbers are of about one size: so the
# average, which is what is left of the parameter after the first step, is no small difference.


@pytest.fixture
def parity(request, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")
    import torch

    from tests.algorithms import test_parity

    dtype = request.getfixturevalue("dtype")
    monkeypatch.setattr(test_parity, "draw", modern.beyond_the_parameters)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    yield test_parity
    torch.set_default_dtype(before)


CASE = replace(BY_ID["asgd"], torch="ASGD", torch_state={"ax": ("ax", 1.0)})


@pytest.mark.jit  # else it takes long
@each_dtype
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_agrees_with_torch(dtype, maximize, large, parity):
    shapes = parity.LARGE if large else parity.SHAPES
    parity.assert_parity(CASE, shapes, dtype, steps=50, tol=30, maximize=maximize)


@each_dtype
def test_agrees_with_torch_where_gradients_are_missing(dtype, parity):
    def without(count, i):
        return count % (i + 1) != i

    parity.assert_parity(CASE, parity.SHAPES, dtype, steps=50, tol=30, without=without)


@each_dtype
def test_agrees_with_torch_in_groups(dtype, parity):
    groups = [([0, 1, 2], {}), ([3, 4, 5], {"lr": 0.01, "lambd": 0.2, "t0": 8.0, "maximize": True})]
    parity.assert_parity(CASE, parity.SHAPES, dtype, steps=50, tol=30, groups=groups)


@each_dtype
def test_torchs_learning_rates_come_a_step_late(dtype, parity):
    rates = [0.1, 0.03, 0.03, 0.2, 0.0, 0.05, 0.01, 0.01]
    rng = np.random.default_rng(0)
    w = rng.standard_normal(99).astype(dtype)
    theirs = parity.Torch(CASE, [w], lr=rates[0])
    opt = ASGD(w, **{**CASE.hyper, "lr": lambda count: rates[max(count - 1, 0)]})
    close = parity.Closeness(30, [w])
    for rate in rates:
        grad = rng.standard_normal(99).astype(dtype)
        theirs.opt.param_groups[0]["lr"] = rate
        theirs.step([grad])
        opt.step(grad)
        close.check(parity.values(opt), theirs.values())
