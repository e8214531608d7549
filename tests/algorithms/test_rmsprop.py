"""RMSprop: its four forms."""

import numpy as np
import pytest

from fastopt import RMSprop


def test_plain_by_hand():
    w = np.zeros(1)
    opt = RMSprop(w, lr=0.5, alpha=0.75, eps=0.125)
    opt.step(np.array([2.0]))
    assert opt.state[0]["square_avg"] == 1.0
    assert w == -0.5 * 2.0 / (1.0 + 0.125)


def test_centered_by_hand():
    w = np.zeros(1)
    opt = RMSprop(w, lr=0.5, alpha=0.75, eps=0.0, centered=True)
    opt.step(np.array([2.0]))
    assert opt.state[0]["grad_avg"] == 0.5
    np.testing.assert_allclose(w, -0.5 * 2.0 / np.sqrt(1.0 - 0.25), rtol=1e-15)


def test_momentum_gathers_the_fractions_without_the_learning_rate():
    w = np.zeros(1)
    opt = RMSprop(w, lr=lambda count: [1.0, 0.0, 1.0][count], alpha=0.0, eps=0.0, momentum=0.5)
    for buffer, place in ((1.0, -1.0), (1.5, -1.0), (1.75, -2.75)):
        opt.step(np.array([3.0]))
        assert opt.state[0]["momentum_buffer"] == buffer
        assert w == place


@pytest.mark.parametrize(
    ("form", "state"),
    [
        ({}, ["square_avg"]),
        ({"momentum": 0.9}, ["square_avg", "momentum_buffer"]),
        ({"centered": True}, ["square_avg", "grad_avg"]),
        ({"centered": True, "momentum": 0.9}, ["square_avg", "grad_avg", "momentum_buffer"]),
    ],
)
def test_each_form_has_the_state_it_needs(form, state):
    assert list(RMSprop(np.ones(3), **form).state[0]) == state


@pytest.mark.jit  # else it takes long
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_variance_that_rounding_makes_negative_does_no_harm(momentum):
    """A constant gradient has none; torch gives NaN."""
    grad = np.linspace(0.1, 3.0, 1001, dtype=np.float32)
    w = np.zeros_like(grad)
    opt = RMSprop(w, lr=1e-3, alpha=0.9, eps=1e-2, centered=True, momentum=momentum)
    negative = False
    for _ in range(300):
        opt.step(grad)
        state = opt.state[0]
        negative |= bool((state["square_avg"] < state["grad_avg"] ** 2).any())
        assert np.isfinite(w).all()
    assert negative
    assert (w < 0).all()
