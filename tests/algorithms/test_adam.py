"""Adam: the correction of its start, eps, and AMSGrad's maximum."""

import numpy as np
import pytest

from fastopt import Adam


@pytest.mark.parametrize("amsgrad", [False, True])
def test_steps_of_a_constant_gradient_are_the_learning_rate_whatever_its_size(amsgrad):
    w = np.zeros(3)
    opt = Adam(w, lr=0.125, eps=0.0, amsgrad=amsgrad)
    for n in range(1, 51):
        opt.step(np.array([1e-5, -1.0, 1e5]))
        np.testing.assert_allclose(w, [-0.125 * n, 0.125 * n, -0.125 * n], rtol=1e-12)


def test_eps_is_added_to_the_corrected_root():
    w = np.zeros(1)
    Adam(w, lr=1.0, eps=1.0).step(np.array([3.0]))
    np.testing.assert_allclose(w, -3.0 / (3.0 + 1.0), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_powers_of_beta_do_not_drift(dtype):
    """The 200,000th step is as exact as the first: beta**t is no running product."""
    w = np.zeros(1, dtype)
    opt = Adam(w, lr=1.0, betas=(0.99999, 0.999999), eps=0.0)
    saved = opt.state_dict()
    (group,) = saved["param_groups"]
    group["steps"] = [200_000 - 1]
    group["state"] = {"exp_avg": [np.full(1, 0.5, dtype)], "exp_avg_sq": [np.full(1, 0.25, dtype)]}
    opt.load_state_dict(saved)
    opt.step(np.full(1, 0.5, dtype))
    exact = (1 - 0.999999**200_000) ** 0.5 / (1 - 0.99999**200_000)
    np.testing.assert_allclose(w, -exact, rtol=4 * np.finfo(dtype).eps)


def test_amsgrads_maximum_is_taken_before_the_correction():
    """As in torch and Keras. After it, as in optax, the first step's would win: 0.05 * 1 / 0.05 = 1."""
    w = np.zeros(1)
    opt = Adam(w, lr=1.0, betas=(0.0, 0.95), eps=0.0, amsgrad=True)
    opt.step(np.array([1.0]))
    opt.step(np.array([0.5]))
    v = 0.95 * 0.05 + 0.05 * 0.25
    np.testing.assert_allclose(opt.state[0]["max_exp_avg_sq"], v, rtol=1e-15)
    np.testing.assert_allclose(w, -1.0 - 0.5 / np.sqrt(v / (1 - 0.95**2)), rtol=1e-14)


def test_amsgrad_never_forgets_a_large_gradient():
    opt = Adam(np.zeros(1), betas=(0.9, 0.5), amsgrad=True)
    opt.step(np.array([100.0]))
    for _ in range(50):
        opt.step(np.zeros(1))
    assert opt.state[0]["max_exp_avg_sq"] == 5000.0
    assert opt.state[0]["exp_avg_sq"] < 1e-10


def test_decay_is_part_of_the_gradient_and_so_normalised():
    w = np.array([1.0, -100.0])
    Adam(w, lr=0.125, eps=0.0, weight_decay=0.25).step(np.zeros(2))
    np.testing.assert_allclose(w, [0.875, -99.875], rtol=1e-15)
