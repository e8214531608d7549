"""SGD: momentum's first step, Nesterov's conditions, and how it relates to the textbook's forms."""

import numpy as np
import pytest

from fastopt import SGD, Momentum


def test_plain_by_hand():
    w = np.array([1.0, -2.0])
    SGD(w, lr=0.5, weight_decay=0.25).step(np.array([2.0, 4.0]))
    assert w.tolist() == [1.0 - 0.5 * (2.0 + 0.25), -2.0 - 0.5 * (4.0 - 0.5)]


def test_plain_and_momentum_zero_have_no_state():
    opt = SGD(np.ones(3), momentum=0.0, dampening=0.5)
    opt.step(np.ones(3))
    assert opt.state == [{}]


def test_the_buffer_starts_as_the_first_gradient_undamped():
    opt = SGD(np.ones(3), momentum=0.5, dampening=0.75)
    opt.step(np.full(3, 4.0))
    assert opt.state[0]["momentum_buffer"].tolist() == [4.0] * 3
    opt.step(np.full(3, 4.0))
    assert opt.state[0]["momentum_buffer"].tolist() == [0.5 * 4.0 + 0.25 * 4.0] * 3


def test_momentum_of_a_constant_gradient_is_a_geometric_series():
    w = np.zeros(1)
    opt = SGD(w, lr=1.0, momentum=0.5)
    for _ in range(60):
        opt.step(np.ones(1))
    assert opt.state[0]["momentum_buffer"] == 2.0
    np.testing.assert_allclose(w, -(2 * 60 - 2), rtol=1e-15)


def test_nesterov_by_hand():
    w = np.zeros(1)
    opt = SGD(w, lr=1.0, momentum=0.5, nesterov=True)
    opt.step(np.ones(1))
    assert w == -(1.0 + 0.5 * 1.0)
    opt.step(np.ones(1))
    assert w == -1.5 - (1.0 + 0.5 * (0.5 + 1.0))


@pytest.mark.parametrize("wrong", [{"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_a_momentum_and_no_dampening(wrong):
    with pytest.raises(ValueError, match="nesterov needs a momentum and zero dampening; got momentum="):
        SGD(np.ones(3), nesterov=True, **wrong)
    with pytest.raises(ValueError, match="nesterov needs a momentum and zero dampening; got momentum="):
        SGD.kernel(nesterov=True, **wrong)


def test_momentum_can_be_switched_on_and_off():
    w = np.zeros(1)
    opt = SGD(w, lr=1.0)
    for momentum, expected in ((0.0, -1.0), (0.5, -2.0), (0.5, -3.5), (0.0, -4.5)):
        opt.param_groups[0]["momentum"] = momentum
        opt.step(np.ones(1))
        assert w == expected


def test_the_textbooks_form_is_the_same_at_a_constant_rate_and_another_when_it_changes():
    rng = np.random.default_rng(0)
    w, v = np.ones(50), np.ones(50)
    a, b = SGD(w, lr=0.1, momentum=0.9), Momentum(v, lr=0.1, momentum=0.9)
    for _ in range(20):
        grad = rng.standard_normal(50)
        a.step(grad)
        b.step(grad)
    np.testing.assert_allclose(v, w, rtol=0, atol=1e-14)
    np.testing.assert_allclose(b.state[0]["velocity"], 0.1 * a.state[0]["momentum_buffer"], rtol=1e-13)
    before = w.copy(), v.copy()
    a.step(np.zeros(50), lr=0.0)
    b.step(np.zeros(50), lr=0.0)
    assert np.array_equal(w, before[0])  # torch's form stops
    np.testing.assert_allclose(v, before[1] - b.state[0]["velocity"], rtol=1e-15)  # the ball rolls on
