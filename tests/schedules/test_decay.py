import math

import pytest

from fastopt.schedules import Constant, Exponential, InverseSqrt, Linear, Polynomial, Warmup


def values(schedule, steps):
    return [schedule(step) for step in range(steps)]


def test_constant():
    assert values(Constant(0.3), 3) == [0.3] * 3


def test_linear_up_and_down():
    assert values(Linear(1.0, 4), 6) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert values(Linear(0.0, 2, final=3.0), 4) == [0.0, 1.5, 3.0, 3.0]


def test_small_values_of_a_long_ramp_keep_their_digits():
    steps = 10**7
    for step in (1, 3, 12_345):
        assert Linear(0.0, steps, final=1e-3)(step) == pytest.approx(1e-3 * step / steps, rel=1e-15)
        assert Linear(1e-3, steps)(steps - step) == pytest.approx(1e-3 * step / steps, rel=1e-8)


@pytest.mark.parametrize("schedule", [Linear(1.0, 0, 0.2), Polynomial(1.0, 0, 0.2, power=2)])
def test_no_steps_are_over_at_once(schedule):
    assert values(schedule, 3) == [0.2] * 3


def test_polynomial():
    assert values(Polynomial(1.0, 4, power=2), 6) == [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    assert Polynomial(0.0, 4, final=2.0, power=3)(2) == 2.0 * (1.0 - 0.125)


def test_exponential():
    assert values(Exponential(1.0, 0.5), 4) == [1.0, 0.5, 0.25, 0.125]
    assert Exponential(1.0, 0.5, steps=4)(2) == pytest.approx(math.sqrt(0.5))
    assert values(Exponential(1.0, 0.5, steps=2, staircase=True), 5) == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_exponential_stops():
    assert values(Exponential(1.0, 0.5, final=0.2), 5) == [1.0, 0.5, 0.25, 0.2, 0.2]
    assert values(Exponential(1.0, 2.0, final=5.0), 5) == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert Exponential(1.0, 2.0, final=5.0)(10**6) == 5.0  # the power is too large for a double
    assert Exponential(1.0, 0.5)(10**6) == 0.0
    assert Exponential(1.0, 2.0)(10**6) == math.inf


def test_inverse_sqrt_is_that_of_the_transformer_behind_its_warm_up():
    d, warmup = 512, 40
    noam = Warmup(InverseSqrt((d * warmup) ** -0.5, warmup), warmup)
    for step in range(1, 400):
        assert noam(step) == pytest.approx(d**-0.5 * min(step**-0.5, step * warmup**-1.5), rel=1e-14)
    assert noam(0) == 0.0


def test_inverse_sqrt_is_that_of_t5_behind_a_constant():
    k = 40
    t5 = Warmup(InverseSqrt(k**-0.5, k), k, start_factor=1.0)
    for step in range(400):
        assert t5(step) == pytest.approx(1.0 / math.sqrt(max(step, k)), rel=1e-14)
