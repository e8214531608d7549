"""Adadelta: no learning rate, and the units are right."""

import numpy as np

from fastopt import Adadelta


def test_by_hand():
    w = np.zeros(1)
    opt = Adadelta(w, rho=0.75, eps=0.25)
    opt.step(np.array([2.0]))
    delta = np.sqrt(0.25) / np.sqrt(0.25 * 4.0 + 0.25) * 2.0
    np.testing.assert_allclose(opt.state[0]["square_avg"], 1.0, rtol=1e-15)
    np.testing.assert_allclose(opt.state[0]["acc_delta"], 0.25 * delta**2, rtol=1e-15)
    np.testing.assert_allclose(w, -delta, rtol=1e-15)
    opt.step(np.array([-2.0]))
    second = -np.sqrt(0.25 * delta**2 + 0.25) / np.sqrt(0.75 * 1.0 + 1.0 + 0.25) * 2.0
    np.testing.assert_allclose(w, -delta - second, rtol=1e-15)
    np.testing.assert_allclose(
        opt.state[0]["acc_delta"], 0.75 * 0.25 * delta**2 + 0.25 * second**2, rtol=1e-14
    )


def test_the_learning_rate_does_not_enter_the_averages():
    rng = np.random.default_rng(0)
    grads = rng.standard_normal((20, 7))
    states = []
    for lr in (1.0, 0.125):
        w = np.zeros(7)
        opt = Adadelta(w, lr=lr)
        for grad in grads:
            opt.step(grad)
        states.append((opt.state[0]["acc_delta"].copy(), w / lr))
    assert np.array_equal(states[0][0], states[1][0])
    np.testing.assert_allclose(states[0][1], states[1][1], rtol=1e-12)


def test_steps_have_the_units_of_the_parameters():
    """Measured in other units (w' = 8 w), the same function takes the same way."""
    w, scaled = np.array([1.0, -2.0]), 8 * np.array([1.0, -2.0])
    a, b = Adadelta(w, eps=2.0**-20), Adadelta(scaled, eps=2.0**-20)
    a.state[0]["acc_delta"][...] = 1.0
    b.state[0]["acc_delta"][...] = 64.0
    for _ in range(30):
        a.step(4 * w)
        b.step(4 * scaled / 64)
    np.testing.assert_allclose(scaled, 8 * w, rtol=1e-3)  # but for eps


def test_the_size_of_the_gradient_cancels():
    rng = np.random.default_rng(0)
    grads = rng.standard_normal((20, 7))
    ways = []
    for scale in (1.0, 2.0**20):
        w = np.zeros(7)
        opt = Adadelta(w, eps=1e-6)
        for grad in grads:
            opt.step(grad * scale)
        ways.append(w)
    np.testing.assert_allclose(ways[0], ways[1], rtol=1e-3)
