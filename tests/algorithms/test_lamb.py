"""LAMB: the length of a tensor's step is the tensor's own."""

import numpy as np
import pytest

from fastopt import LAMB, Adam
from tests.algorithms.cases import draw, each_dtype


@each_dtype
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_each_tensor_moves_by_its_norm_times_the_learning_rate(dtype, weight_decay):
    rng = np.random.default_rng(0)
    params = [draw(rng, shape, dtype) for shape in [(5, 3), (7,), (8200,), ()]]
    opt = LAMB(params, lr=0.01, weight_decay=weight_decay)
    for _ in range(5):
        before = [w.astype(float) for w in params]
        opt.step([draw(rng, w.shape, dtype) for w in params])
        for w, old in zip(params, before, strict=True):
            moved = np.linalg.norm(w - old) / np.linalg.norm(old)
            assert moved == pytest.approx(0.01, rel=1e-3 if dtype == "float32" else 1e-12)


def test_the_scale_of_a_tensor_does_not_matter():
    rng = np.random.default_rng(0)
    start, grads = rng.standard_normal(9), rng.standard_normal((10, 9))
    small, large = start.copy(), 1024.0 * start
    opt = LAMB([small, large], eps=0.0)
    for grad in grads:
        opt.step([grad, grad])
    np.testing.assert_allclose(large, 1024.0 * small, rtol=1e-13)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-300])
def test_parameters_of_norm_zero_move_as_with_adam(size):
    grad = size * np.array([1.0, -2.0, 3.0])
    w, v = np.zeros(3), np.zeros(3)
    LAMB(w, lr=0.01, eps=0.0).step(grad)
    Adam(v, lr=0.01, eps=0.0).step(grad)
    assert v.any()
    np.testing.assert_allclose(w, v, rtol=1e-13)


def test_gradients_of_zero_change_nothing():
    w = np.array([1.0, 2.0])
    LAMB(w, lr=0.1).step(np.zeros(2))
    assert w.tolist() == [1.0, 2.0]


def test_norms_are_measured_in_double():
    """The squares of these overflow float32, or vanish in it."""
    for size in (1e-30, 1e30):
        w = np.full(100, size, np.float32)
        LAMB(w, lr=0.5, eps=0.0).step(np.ones(100, np.float32))
        np.testing.assert_allclose(w, np.float32(0.5 * size), rtol=1e-6)
