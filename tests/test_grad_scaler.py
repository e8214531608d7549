"""The loss scaler: torch's rules, and its errors. Against torch itself: test_parity_guard.py."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from fastopt import GradScaler


def test_grows_after_an_interval_and_backs_off_at_once():
    scaler = GradScaler(init_scale=8.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=2)
    scales = []
    for finite in (True, True, True, False, True, True):
        scaler.update(finite)
        scales.append(scaler.scale)
    assert scales == [8.0, 32.0, 32.0, 8.0, 8.0, 32.0]


def test_stays_where_its_inverse_is_a_normal_float32():
    high = GradScaler(init_scale=1e37, growth_interval=1)
    high.update(True)
    assert high.scale == 1e37
    low = GradScaler(init_scale=1e-37)
    low.update(False)
    assert low.scale == 1e-37


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda scaler: pickle.loads(pickle.dumps(scaler))])
def test_copies_go_on_alike(clone):
    scaler = GradScaler(init_scale=4.0, growth_interval=3)
    scaler.update(True)
    other = clone(scaler)
    for each in (scaler, other):
        each.update(True)
        each.update(True)
    assert scaler.scale == other.scale == 8.0


def test_state_dict():
    scaler = GradScaler(init_scale=4.0, growth_interval=3)
    scaler.update(True)
    other = GradScaler(growth_interval=3)
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == {"scale": 4.0, "good_steps": 1}


def test_its_repr_makes_another():
    scaler = GradScaler(init_scale=4.0, growth_factor=3.0, backoff_factor=0.1, growth_interval=7)
    again = eval(repr(scaler), {"GradScaler": GradScaler})
    assert vars(again) == vars(scaler)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"init_scale": 0}, ValueError, r"init_scale must be a number in \[1e-37, 1e\+37\]; got 0"),
        ({"init_scale": "8"}, TypeError, "init_scale must be a number"),
        ({"growth_factor": 1.0}, ValueError, "growth_factor must be a finite number > 1; got 1.0"),
        ({"backoff_factor": 1.0}, ValueError, r"backoff_factor must be a number in \[0, 1\); got 1.0"),
        ({"growth_interval": 0}, ValueError, "growth_interval must be a whole number >= 1"),
        ({"growth_interval": 1.5}, ValueError, "growth_interval must be a finite whole number >= 1|whole"),
    ],
)
def test_bad_arguments(values, kind, message):
    with pytest.raises(kind, match=message):
        GradScaler(**values)


def test_an_optimizer_takes_nothing_else():
    with pytest.raises(TypeError, match="grad_scaler must be a fastopt.GradScaler, or None; got a float"):
        fastopt.SGD(np.ones(2), grad_scaler=65536.0)


def test_a_step_divides_by_the_scale_and_leaves_out_what_is_not_finite():
    w, plain = np.ones(3, np.float32), np.ones(3, np.float32)
    scaler = GradScaler(init_scale=1024.0, growth_interval=2)
    opt, other = fastopt.Adam(w, grad_scaler=scaler), fastopt.Adam(plain)
    grad = np.array([1, -2, 3], np.float32)
    seen = []
    for i in range(5):
        scaled = grad * np.float32(scaler.scale)
        if i == 2:
            scaled[1] = np.nan
        else:
            other.step(grad)
        opt.step(scaled)
        seen.append(scaler.scale)
    np.testing.assert_array_equal(w, plain)  # powers of two: no rounding
    assert seen == [1024.0, 2048.0, 1024.0, 1024.0, 2048.0]
    assert (opt.step_count, opt.skipped_nonfinite) == (4, 1)
    assert opt.grad_scaler is scaler


def test_grad_scale_counts_too():
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=1.0, grad_scaler=GradScaler(init_scale=4.0))
    opt.step(np.array([-24.0]), grad_scale=3.0)
    assert w == [2.0]


def test_the_optimizers_checkpoint_has_the_scale():
    opt = fastopt.SGD(np.ones(2), grad_scaler=GradScaler(init_scale=4.0))
    opt.step(np.array([np.inf, 1.0]))
    other = fastopt.SGD(np.ones(2), grad_scaler=GradScaler())
    other.load_state_dict(opt.state_dict())
    assert other.grad_scaler.scale == 2.0
    assert copy.deepcopy(opt).grad_scaler.scale == 2.0
