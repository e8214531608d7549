"""What holds for every schedule."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt
from fastopt import schedules
from tests.schedules.kinds import KINDS, lengths, powers, shapes, values

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
STEPS = (0, 1, 2, 3, 7, 30, 59, 60, 61, 10_000)


def test_all_are_drawn():
    assert {kind.__name__ for kind in KINDS} == set(schedules.__all__) - {"Schedule"}
    assert schedules.__all__ == sorted(schedules.__all__)
    assert fastopt.schedules is schedules


@each_kind
@settings(max_examples=30)
@given(data=st.data())
def test_copies_are_equal(kind, data):
    schedule = data.draw(KINDS[kind])
    for other in (
        copy.copy(schedule),
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
        eval(repr(schedule), vars(schedules)),
    ):
        assert type(other) is kind
        assert other == schedule
        assert repr(other) == repr(schedule)
        assert [other(step) for step in STEPS] == [schedule(step) for step in STEPS]


@each_kind
@settings(max_examples=30)
@given(data=st.data())
def test_values_are_finite_doubles_that_depend_on_the_step_alone(kind, data):
    schedule = data.draw(KINDS[kind])
    found = [schedule(step) for step in range(70)]
    numbers = [x for value in found for x in (value if isinstance(value, tuple) else (value,))]
    assert all(type(x) is float and math.isfinite(x) and x >= 0.0 for x in numbers)
    assert [schedule(step) for step in reversed(range(70))] == found[::-1]
    assert [schedule(np.int64(step)) for step in range(70)] == found


@each_kind
@settings(max_examples=10)
@given(data=st.data())
def test_attributes_cannot_be_set(kind, data):
    schedule = data.draw(KINDS[kind])
    name = next(iter(vars(schedule)))
    with pytest.raises(AttributeError):
        setattr(schedule, name, 1.0)


@each_kind
@settings(max_examples=10)
@given(data=st.data())
def test_only_what_has_state_cannot_be_hashed(kind, data):
    schedule = data.draw(KINDS[kind])
    if "ReduceOnPlateau" in repr(schedule):
        with pytest.raises(TypeError, match="unhashable"):
            hash(schedule)
    else:
        assert hash(schedule) == hash(copy.deepcopy(schedule))


def test_different_ones_are_not_equal():
    linear = schedules.Linear(1.0, 10)
    assert linear != schedules.Linear(1.0, 11)
    assert linear != schedules.Polynomial(1.0, 10)
    assert linear != 2 * linear


def test_numbers_of_any_kind_become_plain():
    given = schedules.Linear(np.float32(0.5), np.int64(10), final=np.array(0.25))
    assert repr(given) == "Linear(initial=0.5, steps=10, final=0.25)"
    assert schedules.Linear(1, 1e4) == schedules.Linear(1.0, 10_000)
    assert type(schedules.Linear(1, 1e4).steps) is int


# Bounds, ends and joints, where they are promised.


def between(schedule, low, high, steps=130):
    found = [schedule(step) for step in range(steps)]
    slack = 4e-16 * max(abs(low), abs(high))
    assert min(low, high) - slack <= min(found)
    assert max(found) <= max(low, high) + slack
    return found


def monotonous(found, first, last):
    slack = 4e-16 * max(abs(first), abs(last))
    differences = np.diff(found) if first <= last else -np.diff(found)
    assert differences.min() >= -slack


@given(values, lengths, values, powers)
def test_decays_go_from_one_value_to_the_other(initial, steps, final, power):
    for schedule in (
        schedules.Linear(initial, steps, final),
        schedules.Polynomial(initial, steps, final, power),
        schedules.Cosine(initial, steps, final, power),
        schedules.Piecewise(initial, {steps: final}, "linear"),
        schedules.Piecewise(initial, {steps: final}, "cosine"),
        schedules.Piecewise(initial, {steps: final}, "1-sqrt"),
        schedules.WarmupStableDecay(initial, 0, 0, steps, final=final),
        schedules.WarmupStableDecay(final, steps, 9, 0, initial=initial, final=final),
    ):
        found = between(schedule, initial, final)
        assert found[0] == (initial if steps else final)
        assert set(found[steps:]) == {final}
        monotonous(found, initial, final)


@given(values, st.floats(0.1, 1.0, exclude_max=True), st.integers(1, 9), st.booleans(), st.floats(0.0, 1.0))
def test_decays_without_an_end_do_not_rise(initial, gamma, steps, staircase, final):
    for schedule in (
        schedules.Exponential(initial, gamma, steps, staircase),
        schedules.Step(initial, steps, gamma),
        schedules.MultiStep(initial, [steps, 2 * steps], gamma),
        schedules.InverseSqrt(initial, steps),
        schedules.Exponential(initial + final, gamma, steps, staircase, final=final),
    ):
        found = between(schedule, schedule.initial, 0.0)
        assert found[0] == schedule.initial
        monotonous(found, schedule.initial, 0.0)
        if schedule == schedules.Exponential(initial + final, gamma, steps, staircase, final):
            assert min(found) >= final


@given(values, st.integers(1, 40), st.integers(1, 4), values)
def test_each_restart_has_the_first_value(initial, steps, multiplier, final):
    schedule = schedules.CosineRestarts(initial, steps, multiplier, final)
    between(schedule, initial, final)
    start = 0
    for number in range(20):
        length = steps * multiplier**number
        cycle = schedules.Cosine(initial, length, final)
        for step in {0, 1, length // 2, length - 1} - {length}:
            assert schedule(start + step) == cycle(step)
        start += length


@given(values, st.integers(1, 60), st.floats(0.0, 0.5), values, values, shapes, st.booleans())
def test_one_cycle_goes_through_its_values(peak, steps, share, initial, final, shape, three_phase):
    schedule = schedules.OneCycle(peak, steps, share, initial, final, shape, three_phase)
    between(schedule, min(initial, final, peak), max(initial, final, peak))
    assert {schedule(step) for step in range(max(steps - 1, 1), 100)} == {final}
    if share * steps > 1.0 and steps > 1:
        assert schedule(0) == initial


@given(values, values, st.integers(1, 30), st.integers(0, 30), st.floats(0.5, 1.0))
def test_cyclic_keeps_to_its_values(initial, peak, up, down, gamma):
    plain, halved, shrinking = (
        schedules.Cyclic(initial, peak, up, down, mode, gamma)
        for mode in ("triangular", "triangular2", "exp_range")
    )
    for schedule in (plain, halved, shrinking):
        between(schedule, initial, peak)
    for cycle in range(5):
        start = cycle * (up + down)
        assert plain(start) == halved(start) == shrinking(start) == initial
        if down:
            assert plain(start + up) == peak
            middle = initial + (peak - initial) * 0.5**cycle
            assert halved(start + up) == pytest.approx(middle, rel=1e-14, abs=1e-14 * initial)
            middle = initial + (peak - initial) * gamma ** (start + up)
            assert shrinking(start + up) == pytest.approx(middle, rel=1e-14, abs=1e-14 * initial)


@given(values, st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), values, shapes)
def test_warmup_stable_decay_meets_its_joints(peak, warmup, stable, decay, initial, shape):
    schedule = schedules.WarmupStableDecay(peak, warmup, stable, decay, initial, shape=shape)
    assert {schedule(step) for step in range(warmup, warmup + stable + 1)} == {peak}
    assert schedule(0) == (initial if warmup else peak)
    assert schedule(warmup + stable + decay) == 0.0
    decaying = [schedule(step) for step in range(warmup + stable, 130)]
    monotonous(decaying, peak, 0.0)


@given(KINDS[schedules.Cosine], st.integers(0, 40), st.floats(0.0, 2.0), st.booleans())
def test_a_warm_up_ends_where_the_schedule_starts(cosine, steps, factor, delay):
    schedule = schedules.Warmup(cosine, steps, factor, delay=delay)
    begin = 0 if delay else steps
    assert [schedule(steps + t) for t in range(70)] == [cosine(begin + t) for t in range(70)]
    if steps:
        assert schedule(0) == factor * cosine(0)
    if delay and factor <= 1.0:
        monotonous([schedule(t) for t in range(steps + 1)], factor * cosine(0), cosine(0))


@given(st.lists(KINDS[schedules.Cosine] | values, min_size=2, max_size=4), st.data())
def test_a_sequence_has_the_value_of_its_present_part(parts, data):
    milestones = sorted(
        data.draw(st.sets(st.integers(1, 90), min_size=len(parts) - 1, max_size=len(parts) - 1))
    )
    schedule = schedules.Sequence(parts, milestones)
    for begin, end, part in zip([0, *milestones], [*milestones, 130], parts, strict=True):
        for step in range(begin, end):
            assert schedule(step) == (part(step - begin) if callable(part) else part)


@given(KINDS[schedules.Cosine], KINDS[schedules.Step], st.floats(0.0, 10.0))
def test_a_chain_is_the_product(first, second, factor):
    for schedule in (schedules.Chain([first, factor, second]), first * factor * second):
        for step in STEPS:
            assert schedule(step) == first(step) * factor * second(step)
