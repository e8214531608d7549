"""LARS: the length of a tensor's step is a share of the tensor's own."""

import numpy as np
import pytest

from fastopt import LARS, SGD
from tests.algorithms.cases import draw, each_dtype

each_form = pytest.mark.parametrize("nesterov", [False, True])


@each_dtype
@each_form
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_without_momentum_each_tensor_moves_by_a_share_of_its_norm(dtype, nesterov, weight_decay):
    rng = np.random.default_rng(0)
    params = [draw(rng, shape, dtype) for shape in [(5, 3), (7,), (8200,), ()]]
    opt = LARS(
        params, lr=2.0, momentum=0.0, weight_decay=weight_decay, trust_coefficient=0.01, nesterov=nesterov
    )
    for _ in range(5):
        before = [w.astype(float) for w in params]
        opt.step([draw(rng, w.shape, dtype) for w in params])
        for w, old in zip(params, before, strict=True):
            moved = np.linalg.norm(w - old) / np.linalg.norm(old)
            assert moved == pytest.approx(0.02, rel=1e-3 if dtype == "float32" else 1e-12)


@each_form
def test_neither_the_scale_of_a_tensor_matters_nor_that_of_its_gradient(nesterov):
    rng = np.random.default_rng(0)
    start, grads = rng.standard_normal(9), rng.standard_normal((10, 9))
    small, large = start.copy(), 1024.0 * start
    opt = LARS([small, large], lr=100.0, nesterov=nesterov)
    for k, grad in enumerate(grads):
        opt.step([grad, 4.0**k * grad])
    assert np.array_equal(large, 1024.0 * small)


def test_the_learning_rate_is_inside_the_momentum():
    w = np.array([3.0, 4.0])
    opt = LARS(w, lr=100.0, momentum=0.5)
    opt.step(np.array([0.0, 8.0]))
    assert w.tolist() == [3.0, 3.5]  # a tenth of the norm, 5
    opt.param_groups[0]["lr"] = 0.0
    opt.step(np.ones(2))
    opt.step(np.ones(2))
    assert w.tolist() == [3.0, 3.5 - 0.25 - 0.125]


@pytest.mark.parametrize(("nesterov", "steps"), [(False, (1, 1.5)), (True, (1.5, 1.75))])
def test_the_two_forms_of_momentum(nesterov, steps):
    """With a constant update: the velocity, or the update and half the velocity."""
    w = np.zeros(1)
    opt = LARS(w, lr=1.0, momentum=0.5, nesterov=nesterov)
    for size in steps:
        w[:] = 0.0  # of norm zero: the gradient counts as it is
        opt.step(np.ones(1))
        assert w == -size


@each_form
def test_parameters_of_norm_zero_move_as_with_sgd(nesterov):
    grad = np.array([1.0, -2.0, 3.0])
    w, v = np.zeros(3), np.zeros(3)
    LARS(w, lr=0.125, trust_coefficient=1e-3, nesterov=nesterov).step(grad)
    SGD(v, lr=0.125, momentum=0.9, nesterov=nesterov).step(grad)
    assert v.any()
    np.testing.assert_allclose(w, v, rtol=1e-15)


def test_gradients_of_zero_change_nothing():
    w = np.array([1.0, 2.0])
    opt = LARS(w, lr=0.1)
    opt.step(np.zeros(2))
    assert w.tolist() == [1.0, 2.0]
    assert not opt.state[0]["velocity"].any()


def test_norms_are_measured_in_double():
    """The squares of these overflow float32, or vanish in it."""
    for size in (1e-30, 1e30):
        w = np.full(100, size, np.float32)
        LARS(w, lr=500.0).step(np.ones(100, np.float32))
        np.testing.assert_allclose(w, np.float32(0.5 * size), rtol=1e-6)
