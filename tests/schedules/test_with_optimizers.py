"""Optimizers use the value that a schedule has for the number of steps taken."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from fastopt.schedules import (
    Cosine,
    Cyclic,
    Linear,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Tuple,
    Warmup,
)

STEPS = 12
CYCLE = OneCycle(0.3, STEPS)
RATES = [
    Warmup(Cosine(0.3, STEPS, 0.01), 4),
    CYCLE,
    2 * Linear(0.1, 8),
    Cyclic(0.01, 0.3, 3, mode="triangular2"),
]


@pytest.mark.parametrize("lr", RATES, ids=repr)
def test_the_rate_that_is_used(lr):
    params = np.zeros(3)
    opt = fastopt.SGD(params, lr=lr)
    for step in range(STEPS):
        before = params.copy()
        opt.step(np.ones(3))
        assert params == pytest.approx(before - lr(step), rel=1e-15, abs=1e-16)


def test_every_group_has_its_own():
    first, second, third = np.zeros(2), np.zeros(2), np.zeros(2)
    rates = (RATES[0], RATES[1], lambda step: 0.1 * step)
    opt = fastopt.SGD(
        [
            {"params": [first], "lr": rates[0]},
            {"params": [second], "lr": rates[1]},
            {"params": [third]},
        ],
        lr=rates[2],
    )
    for _ in range(STEPS):
        opt.step([[np.ones(2)], [np.ones(2)], [np.ones(2)]])
    for params, lr in zip((first, second, third), rates, strict=True):
        assert params == pytest.approx(-sum(lr(step) for step in range(STEPS)), rel=1e-14)


def by_hand(make, hyperparameters):
    """Compare with numbers that are set before each step: the bits must be the same."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=7)
    scheduled, plain = start.copy(), start.copy()
    one = make(scheduled, **hyperparameters)
    other = make(plain)
    for step in range(STEPS):
        grads = rng.normal(size=7)
        for name, value in hyperparameters.items():
            other.param_groups[0][name] = value(step) if isinstance(value, Schedule | Tuple) else value
        one.step(grads)
        other.step(grads)
        np.testing.assert_array_equal(scheduled, plain)
    assert not np.array_equal(scheduled, start)


def test_momentum_and_weight_decay():
    by_hand(
        lambda p, momentum=0.9, **kw: fastopt.SGD(p, momentum=momentum, **kw),
        {"lr": CYCLE, "momentum": CYCLE.momentum(), "weight_decay": Linear(0.1, 8, 0.01)},
    )


def test_betas_and_eps():
    by_hand(
        fastopt.AdamW,
        {
            "lr": RATES[0],
            "betas": Tuple([CYCLE.momentum(), Linear(0.9, 8, 0.999)]),
            "eps": Linear(1e-4, 10, 1e-8),
            "weight_decay": Cosine(0.1, STEPS),
        },
    )


def test_momentum_against_the_formula():
    lr, momentum, decay = RATES[0], CYCLE.momentum(), Linear(0.1, 8, 0.01)
    rng = np.random.default_rng(1)
    p = rng.normal(size=5)
    expected, buffer = p.copy(), np.zeros(5)
    opt = fastopt.SGD(p, lr=lr, momentum=momentum, weight_decay=decay)
    for step in range(STEPS):
        grads = rng.normal(size=5)
        opt.step(grads)
        total = grads + decay(step) * expected
        buffer = total if step == 0 else momentum(step) * buffer + total
        expected = expected - lr(step) * buffer
        assert p == pytest.approx(expected, rel=1e-13, abs=1e-14)


def test_a_value_out_of_range_is_an_error_before_the_step():
    params = np.zeros(3)
    opt = fastopt.SGD(params, lr=Linear(0.1, 1, final=-0.1))
    opt.step(np.ones(3))
    with pytest.raises(ValueError, match=r"lr must be a finite number >= 0; got -0\.1"):
        opt.step(np.ones(3))
    assert params == pytest.approx(-0.1)


def test_a_plateau_in_two_groups():
    plateau = ReduceOnPlateau(0.4, factor=0.5, patience=0)
    first, second = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD([{"params": first}, {"params": second, "lr": 0.5 * plateau}], lr=plateau)
    sums = [0.0, 0.0]
    for loss in (1.0, 2.0, 3.0, 0.5, 0.1):
        opt.step([np.ones(2), np.ones(2)])
        sums = [sums[0] - plateau.value, sums[1] - 0.5 * plateau.value]
        plateau.report(loss)
    assert plateau.value == 0.1
    assert first == pytest.approx(sums[0])
    assert second == pytest.approx(sums[1])


@pytest.mark.parametrize("renewed", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_a_copied_optimizer_has_its_schedule_s_state(renewed):
    plateau = ReduceOnPlateau(0.4, factor=0.5, patience=0)
    opt = fastopt.SGD(np.zeros(2), lr=plateau, momentum=CYCLE.momentum())
    opt.step(np.ones(2))
    plateau.report(1.0)
    plateau.report(1.0)
    other = renewed(opt)
    again = other.param_groups[0]["lr"]
    assert again == plateau
    again.report(1.0)
    assert (again.value, plateau.value) == (0.1, 0.2)
    assert other.param_groups[0]["momentum"] == CYCLE.momentum()


def test_a_resumed_run_needs_no_state_of_a_schedule():
    grads = np.random.default_rng(2).normal(size=(STEPS, 3))

    def made(params):
        return fastopt.SGD(params, lr=RATES[0], momentum=CYCLE.momentum())

    straight, stopped = np.ones(3), np.ones(3)
    one, two = made(straight), made(stopped)
    for g in grads:
        one.step(g)
    for g in grads[:5]:
        two.step(g)
    resumed = stopped.copy()
    three = made(resumed)
    three.load_state_dict(two.state_dict())
    for g in grads[5:]:
        three.step(g)
    np.testing.assert_array_equal(resumed, straight)


@pytest.mark.parametrize("scaled", [lambda plateau: plateau, lambda plateau: Warmup(0.5 * plateau, 3)])
def test_a_resumed_run_goes_on_with_the_state_of_a_plateau(scaled):
    grads = np.random.default_rng(3).normal(size=(STEPS, 3))
    losses = [3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]

    def made(params):
        plateau = ReduceOnPlateau(0.4, factor=0.5, patience=1)
        return plateau, fastopt.SGD(params, lr=scaled(plateau), momentum=CYCLE.momentum())

    def train(plateau, opt, steps):
        for step in steps:
            opt.step(grads[step])
            plateau.report(losses[step])

    straight = np.ones(3)
    first, one = made(straight)
    train(first, one, range(STEPS))
    assert first.value < 0.4
    for stop in range(STEPS):
        params = np.ones(3)
        before, two = made(params)
        train(before, two, range(stop))
        after, three = made(params)
        three.load_state_dict(two.state_dict())
        assert after == before
        train(after, three, range(stop, STEPS))
        np.testing.assert_array_equal(params, straight)
        assert after == first
