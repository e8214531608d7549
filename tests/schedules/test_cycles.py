import pytest

from fastopt.schedules import Cyclic, OneCycle


def test_one_cycle_has_its_defaults_shown():
    assert repr(OneCycle(1.0, 10)) == (
        "OneCycle(peak=1.0, steps=10, pct_start=0.3, initial=0.04, final=4e-06, shape='cosine', three_phase=False)"
    )


def test_one_cycle_in_two_phases_and_in_three():
    two = OneCycle(1.0, 11, 0.5, initial=0.1, final=0.0, shape="linear")
    assert two(0) == pytest.approx(0.1)
    assert two(4) + two(5) == pytest.approx((0.1 + 0.9 * 4 / 4.5) + (1.0 - 0.5 / 5.5))
    assert two(10) == 0.0
    three = OneCycle(1.0, 11, 4 / 11, initial=0.1, final=0.0, shape="linear", three_phase=True)
    assert [three(t) for t in range(12)] == pytest.approx(
        [0.1, 0.4, 0.7, 1.0, 0.7, 0.4, 0.1, 0.075, 0.05, 0.025, 0.0, 0.0]
    )


def test_one_cycle_starts_at_the_peak_if_its_first_phase_has_no_length():
    cycle = OneCycle(1.0, 10, 0.1, shape="linear", final=0.0)
    assert [cycle(t) for t in (0, 9)] == [1.0, 0.0]
    assert cycle(3) == pytest.approx(2 / 3)
    assert [OneCycle(1.0, 1, final=0.5)(t) for t in (0, 1)] == [0.5, 0.5]


def test_momentum_falls_as_the_rate_rises():
    for cycle in (OneCycle(1.0, 20, 0.3, initial=0.0, final=0.0), Cyclic(0.0, 1.0, 4, 7)):
        momentum = cycle.momentum(0.6, 0.9)
        for t in range(60):
            assert momentum(t) == pytest.approx(0.9 - 0.3 * cycle(t))
    assert OneCycle(1.0, 10).momentum()(0) == 0.95
    assert Cyclic(0.1, 1.0, 5).momentum()(5) == pytest.approx(0.8)


def test_cyclic():
    assert [Cyclic(1.0, 2.0, 2)(t) for t in range(6)] == [1.0, 1.5, 2.0, 1.5, 1.0, 1.5]
    assert [Cyclic(0.0, 1.0, 1, 2, "triangular2")(t) for t in range(7)] == [
        0.0,
        1.0,
        0.5,
        0.0,
        0.5,
        0.25,
        0.0,
    ]
    assert [Cyclic(0.0, 1.0, 2, mode="exp_range", gamma=0.5)(t) for t in range(6)] == [
        0.0, 0.25, 0.25, 0.0625, 0.0, 0.015625,
    ]  # fmt: skip
    assert [Cyclic(0.0, 1.0, 4, 0)(t) for t in range(6)] == [0.0, 0.25, 0.5, 0.75, 0.0, 0.25]
    assert Cyclic(0.0, 1.0, 3) == Cyclic(0.0, 1.0, 3, 3)
    assert Cyclic(0.0, 1.0).steps_up == 2000
    assert Cyclic(0.0, 1.0, 1, mode="triangular2")(10_001) == 0.0  # 0.5**5000
