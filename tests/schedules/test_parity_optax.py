"""Values are those of optax's schedules, in doubles."""

import os

import pytest

from fastopt.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    Piecewise,
    Polynomial,
    Sequence,
    Warmup,
    WarmupStableDecay,
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # do not look for accelerators, nor warn that there are none
jax = pytest.importorskip("jax", reason="jax is not installed: pip install fastopt[parity]")
optax = pytest.importorskip("optax", reason="optax is not installed: pip install fastopt[parity]")

LR = 0.3
STEPS = 200


@pytest.fixture(autouse=True)
def _doubles():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def same(schedule, peer):
    """Compare all steps; optax's are computed at once."""
    expected = jax.vmap(lambda step: peer(step) * jax.numpy.ones(()))(jax.numpy.arange(STEPS))
    assert expected.dtype == "float64"
    ours = [schedule(step) for step in range(STEPS)]
    assert ours == pytest.approx(expected.tolist(), rel=1e-12, abs=1e-12 * LR)


def test_constant():
    same(Constant(LR), optax.constant_schedule(LR))


@pytest.mark.parametrize("steps", [1, 50, 300])
@pytest.mark.parametrize("final", [0.0, 0.05, 0.9])
def test_linear_polynomial_and_cosine(steps, final):
    same(Linear(LR, steps, final), optax.linear_schedule(LR, final, steps))
    for power in (0.5, 2.0, 3.0):
        same(Polynomial(LR, steps, final, power), optax.polynomial_schedule(LR, final, power, steps))
        same(Cosine(LR, steps, final, power), optax.cosine_decay_schedule(LR, steps, final / LR, power))
    same(Cosine(LR, steps, final), optax.cosine_decay_schedule(LR, steps, final / LR))


def test_a_late_begin_is_a_sequence():
    same(Sequence([LR, Linear(LR, 50)], [30]), optax.linear_schedule(LR, 0.0, 50, transition_begin=30))
    peer = optax.exponential_decay(LR, 7, 0.8, transition_begin=30)
    same(Sequence([LR, Exponential(LR, 0.8, 7)], [30]), peer)


@pytest.mark.parametrize("staircase", [False, True])
@pytest.mark.parametrize(
    ("gamma", "final"), [(0.8, None), (0.8, 0.01), (1.1, None), (1.1, 2.0), (1.0, 0.1), (1.0, 0.5)]
)
@pytest.mark.parametrize("steps", [1, 7])
def test_exponential(steps, gamma, final, staircase):
    peer = optax.exponential_decay(LR, steps, gamma, staircase=staircase, end_value=final)
    same(Exponential(LR, gamma, steps, staircase, final), peer)


def test_no_steps_are_over_at_once_and_optax_never_starts():
    assert Linear(LR, 0)(0) == 0.0
    assert optax.linear_schedule(LR, 0.0, 0)(0) == LR


@pytest.mark.parametrize("factors", [{}, {10: 0.5}, {0: 0.5, 60: 0.1}, {10: 0.5, 60: 0.1, 61: 3.0, 300: 2.0}])
def test_piecewise(factors):
    value, values = LR, {}
    for step, factor in factors.items():
        values[step] = value = value * factor
    same(Piecewise(LR, values), optax.piecewise_constant_schedule(LR, factors))
    for shape in ("linear", "cosine"):
        same(Piecewise(LR, values, shape), optax.piecewise_interpolate_schedule(shape, LR, factors))


def test_one_cycle_is_piecewise():
    peak, low, last = LR, LR / 25, LR / 25 / 1e4
    same(Piecewise(low, {30: peak, 100: last}, "cosine"), optax.cosine_onecycle_schedule(100, LR))
    same(Piecewise(low, {30: peak, 85: low, 100: last}, "linear"), optax.linear_onecycle_schedule(100, LR))


def test_warm_ups():
    same(Warmup(LR, 20, 0.1), optax.warmup_constant_schedule(0.1 * LR, LR, 20))
    same(
        Warmup(Cosine(LR, 100, 0.01, 2.0), 20),
        optax.warmup_cosine_decay_schedule(0.0, LR, 20, 120, 0.01, exponent=2.0),
    )
    same(
        Warmup(Exponential(LR, 0.8, 7, True, 0.01), 20, 0.5),
        optax.warmup_exponential_decay_schedule(0.5 * LR, LR, 20, 7, 0.8, staircase=True, end_value=0.01),
    )


def test_joined_schedules():
    parts = [optax.linear_schedule(0.0, LR, 20), optax.constant_schedule(LR)]
    for shape, down in (
        ("linear", optax.linear_schedule(LR, 0.0, 50)),
        ("cosine", optax.cosine_decay_schedule(LR, 50)),
    ):
        peer = optax.join_schedules([*parts, down], [20, 100])
        same(WarmupStableDecay(LR, 20, 80, 50, shape=shape), peer)
        behind = Linear(LR, 50) if shape == "linear" else Cosine(LR, 50)
        same(Sequence([Linear(0.0, 20, LR), LR, behind], [20, 100]), peer)


def test_warm_restarts_of_any_kind():
    cycles = [
        {"init_value": 0.0, "peak_value": LR, "warmup_steps": 10, "decay_steps": 50, "end_value": 0.01},
        {"init_value": 0.1, "peak_value": LR / 2, "warmup_steps": 5, "decay_steps": 80, "end_value": 0.0},
    ]
    ours = [Warmup(Cosine(LR, 40, 0.01), 10), Warmup(Cosine(LR / 2, 75), 5, 0.1 / (LR / 2))]
    same(Sequence(ours, [50]), optax.sgdr_schedule(cycles))
