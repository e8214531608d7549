"""Momentum: a ball with friction."""

import numpy as np

from fastopt import Momentum


def test_by_hand():
    w = np.array([1.0])
    opt = Momentum(w, lr=0.5, momentum=0.5, weight_decay=0.25)
    opt.step(np.array([2.0]))
    assert opt.state[0]["velocity"] == 0.5 * (2.0 + 0.25)
    assert w == 1.0 - 1.125
    opt.step(np.array([2.0]))
    assert opt.state[0]["velocity"] == 0.5 * 1.125 + 0.5 * (2.0 - 0.25 * 0.125)
    assert w == -0.125 - opt.state[0]["velocity"]


def test_the_velocity_of_a_constant_slope_is_limited_by_friction():
    opt = Momentum(np.zeros(1), lr=0.25, momentum=0.75)
    for _ in range(200):
        opt.step(np.ones(1))
    np.testing.assert_allclose(opt.state[0]["velocity"], 0.25 / (1 - 0.75), rtol=1e-15)


def test_the_velocity_holds_the_learning_rates_of_its_steps():
    opt = Momentum(np.zeros(1), lr=lambda count: [1.0, 0.25][count], momentum=0.5)
    opt.step(np.ones(1))
    opt.step(np.ones(1))
    assert opt.state[0]["velocity"] == 0.5 * 1.0 + 0.25


def test_without_momentum_it_is_gradient_descent():
    w = np.ones(3)
    opt = Momentum(w, lr=0.5, momentum=0.0)
    for _ in range(2):
        opt.step(np.ones(3))
    assert (w == 0.0).all()
