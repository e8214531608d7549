import numpy as np
import pytest

from fastopt import machine
from fastopt.benchmark import arithmetic, checks, measurement, streams
from fastopt.benchmark.checks import WrongAnswer
from fastopt.benchmark.measurement import Case, Speed, measure, time_case
from tests.benchmark.results import result


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Have little memory, and one pass in a launch, so that it is quick without the JIT too."""
    monkeypatch.setattr(measurement, "room", lambda: 1 << 16)
    monkeypatch.setattr(machine, "caches", lambda: [machine.Cache(1, "data", 1 << 13)])
    monkeypatch.setattr(streams, "_LEAST", 0)
    monkeypatch.setattr(arithmetic, "_FEW", 16)


@pytest.fixture
def no_time(monkeypatch):
    """Time nothing: a parameter takes a nanosecond, a matrix ten milliseconds and more."""

    def timed(case, seconds):
        shares.append(seconds)
        return result(
            case.algorithm, case.size, seconds=0.01 if case.algorithm == "Muon" else 1e-9 * case.size
        )

    shares = []
    monkeypatch.setattr(measurement, "time_case", timed)
    monkeypatch.setattr(measurement, "memory", lambda threads, seconds, allowed: [])
    monkeypatch.setattr(measurement, "peak", lambda threads, seconds: None)
    monkeypatch.setattr(measurement, "room", lambda: 1 << 40)
    return shares


@pytest.mark.parametrize("threads", [1, 2])
def test_a_case(threads):
    found = time_case(Case("AdamW", 1000, "float64", threads), 0.01)
    assert (found.algorithm, found.parameters, found.shape, found.dtype) == (
        "AdamW",
        1000,
        (1000,),
        "float64",
    )
    assert (found.threads, found.footprint, found.bytes_per_parameter) == (threads, 32_000, 56)
    assert 0 < found.seconds_low <= found.seconds <= found.seconds_high
    assert found.parameters_per_s == pytest.approx(1000 / found.seconds)
    assert found.gb_per_s == pytest.approx(56e-6 / found.seconds)
    assert found.limit_gb_per_s > 0
    assert found.of_limit > 0
    assert not found.at_least
    assert found.operations_per_parameter == 16


def test_a_case_of_a_matrix_rule():
    found = time_case(Case("Muon", 100), 0.01)
    assert (found.shape, found.at_least) == ((10, 10), True)
    assert (found.limit_gb_per_s, found.of_limit) == (None, None)


def test_shares_of_the_limit_are_those_of_the_same_rounds(monkeypatch):
    step, limit = np.array([2.0, 4.0, 6.0]) * 1e-6, np.array([1.0, 2.0, 1.5]) * 1e-6
    monkeypatch.setattr(
        measurement, "interleaved", lambda steps, rounds, seconds: {"step": step, "limit": limit}
    )
    found = time_case(Case("SGD", 1000), 0.01)
    assert found.of_limit == pytest.approx(0.5)
    assert found.seconds == 4e-6
    assert (found.seconds_low, found.seconds_high) == (pytest.approx(3e-6), pytest.approx(5e-6))
    assert found.limit_gb_per_s == pytest.approx(12_000 / 1.5e-6 / 1e9)


def test_the_memory():
    found = measurement.memory({1, 2}, 0.01, 1 << 15)
    assert [(speed.stream, speed.where, speed.bytes, speed.threads) for speed in found] == [
        (name, where, size, 1)
        for where, size in (("L1", 1 << 12), ("memory", 1 << 15))
        for name in ("copy", "triad", "update")
    ]  # with two threads nothing is that small
    assert all(speed.gb_per_s > 0 for speed in found)


def test_the_memory_on_several_threads(monkeypatch):
    monkeypatch.setattr("fastopt.engine.threads.cutoff_bytes", lambda: 1 << 14)
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", 512)
    found = measurement.memory({1, 2}, 0.01, 1 << 15)
    assert [speed.threads for speed in found if speed.where == "memory"] == [1, 1, 1, 2, 2, 2]
    assert {speed.threads for speed in found if speed.where == "L1"} == {1}


def test_all_is_told_and_measured():
    told = []
    cases = [Case("SGD", 100), Case("LAMB", 100), Case("SGD", 10**6)]
    found = measure(cases, 0.05, told.append)
    assert told == ["memory", "SGD, 100", "LAMB, 100", "SGD, 1,000,000"]
    assert [each.algorithm for each in found.results] == ["SGD", "LAMB"]
    assert isinstance(found.memory[0], Speed)
    assert [each.threads for each in found.peaks] == [1]
    ((case, reason),) = found.missing
    assert case == cases[2]
    assert reason == "needs 0.0 GiB; 0.0 GiB may be taken, half of what is free"
    assert found.wrong == []


def test_wrong_answers_are_not_timed(monkeypatch):
    def wrong(subject):
        raise WrongAnswer(f"{subject.name}: is wrong")

    monkeypatch.setattr(checks, "check", wrong)
    monkeypatch.setattr(measurement, "_timed", lambda *args: pytest.fail("timed"))
    found = measure([Case("SGD", 100)], 0.01)
    assert found.results == []
    assert found.wrong == ["SGD: is wrong"]
    assert found.missing == [(Case("SGD", 100), "wrong: SGD: is wrong")]


def test_parameters_that_blow_up_meanwhile_are_wrong(monkeypatch):
    def blow_up(subject):
        if len(calls) == 1:
            raise WrongAnswer("SGD: parameters are not finite")
        calls.append(subject)

    calls = []
    monkeypatch.setattr(checks, "require_finite", blow_up)
    assert measure([Case("SGD", 100)], 0.01).wrong == ["SGD: parameters are not finite"]


def test_the_time_is_shared_out(no_time):
    measure([Case("SGD", 10**k) for k in range(1, 6)], 10.0)
    np.testing.assert_allclose(no_time, [10 / 5, 10 / 4, 10 / 3, 10 / 2, 10], rtol=0.01)


def test_large_steps_of_matrix_rules_are_foreseen(no_time, monkeypatch):
    cases = [Case("Muon", 10**5), Case("SGD", 10**8), Case("Muon", 10**6), Case("Muon", 10**8)]
    found = measure(cases, 5.0)
    assert [(each.algorithm, each.parameters) for each in found.results] == [
        ("Muon", 10**5),
        ("SGD", 10**8),
        ("Muon", 10**6),
    ]
    reason = "a step would take about 10 s; give it more --seconds"
    assert found.missing == [(Case("Muon", 10**8), reason)]
    assert measure(cases, 500.0).missing == []


@pytest.mark.parametrize("before", [None, (100, 1e-4)])
def test_a_first_large_step_of_a_matrix_rule_is_tried_at_a_smaller_size(no_time, monkeypatch, before):
    monkeypatch.setattr(measurement, "PROBE", 100)
    monkeypatch.setattr(measurement, "interleaved", lambda steps, rounds, seconds: {"step": np.array([0.01])})
    smaller = [] if before is None else [Case("Muon", 10)]  # too small to say anything
    (missing,) = measure([*smaller, Case("Muon", 10**6)], 5.0).missing
    assert missing == (Case("Muon", 10**6), "a step would take about 10000 s; give it more --seconds")


def test_the_room(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(machine, "free_bytes", lambda: 1000)
    assert measurement.room() == 500
    monkeypatch.setattr(machine, "free_bytes", lambda: None)
    assert measurement.room() == 2 << 30


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.123, "0.12 s"), (4.56, "4.6 s"), (789.0, "790 s"), (12345.0, "12000 s")]
)
def test_rough_times(seconds, shown):
    assert measurement._rough(seconds) == shown
