"""Adagrad: the sum of squares, where it starts, and the rate's decay."""

import numpy as np
import pytest

from fastopt import Adagrad


def test_the_first_step_is_the_learning_rate_and_the_nth_of_a_constant_gradient_its_nth_root():
    w = np.zeros(3)
    opt = Adagrad(w, lr=0.5, eps=0.0)
    grad = np.array([1e-3, -1.0, 1e3])
    for n in range(1, 101):
        before = w.copy()
        opt.step(grad)
        np.testing.assert_allclose(w - before, -0.5 / np.sqrt(n) * np.sign(grad), rtol=1e-12)
    np.testing.assert_allclose(opt.state[0]["sum"], 100 * grad**2, rtol=1e-13)


def test_the_rate_decays_from_the_second_step_on():
    w = np.zeros(1)
    opt = Adagrad(w, lr=1.0, lr_decay=0.5, eps=0.0)
    for step in (1.0, 1.0 / 1.5 / np.sqrt(2), 1.0 / 2.0 / np.sqrt(3)):
        before = w.copy()
        opt.step(np.ones(1))
        np.testing.assert_allclose(before - w, step, rtol=1e-15)


def test_the_sum_starts_at_its_initial_value():
    w = np.zeros(3, np.float32)
    opt = Adagrad([{"params": w}, {"params": np.zeros(2), "initial_accumulator_value": 1.0}],
                  lr=1.0, eps=0.0, initial_accumulator_value=3.0)  # fmt: skip
    assert [state["sum"].tolist() for state in opt.state] == [[3.0] * 3, [1.0] * 2]
    opt.step([np.ones(3, np.float32), None])
    assert w.tolist() == [-0.5] * 3


def test_the_initial_value_is_no_schedule():
    with pytest.raises(
        TypeError, match="initial_accumulator_value must be a finite number >= 0; got <function"
    ):
        Adagrad(np.ones(3), initial_accumulator_value=lambda count: 0.1)


def test_eps_keeps_a_zero_gradient_from_zero_over_zero():
    w = np.ones(2)
    Adagrad(w).step(np.zeros(2))
    assert (w == 1.0).all()
