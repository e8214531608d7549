import numpy as np
import pytest

from fastopt.benchmark import rounds


class Clock:
    """Time that passes only when a step says so."""

    def __init__(self, monkeypatch):
        self.now, self.calls, self.slept = 0.0, [], []

        def timeit(step, number):
            before = self.now
            for _ in range(number):
                step()
            return self.now - before

        monkeypatch.setattr(rounds.timeit, "timeit", timeit)
        monkeypatch.setattr(rounds.time, "sleep", self.slept.append)

    def step(self, name, seconds):
        def step():
            self.calls.append(name)
            self.now += seconds

        return step


def test_long_steps_take_turns_and_nobody_is_always_first(monkeypatch):
    clock = Clock(monkeypatch)
    steps = {name: clock.step(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 4.0))}
    times = rounds.interleaved(steps, rounds=4, seconds=0.1)
    assert "".join(clock.calls) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert clock.slept == []
    for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 4.0)):
        np.testing.assert_array_equal(times[name], [seconds] * 4)


def test_short_steps_are_repeated_after_a_warm_up(monkeypatch):
    clock = Clock(monkeypatch)
    steps = {"short": clock.step("s", 1e-3), "long": clock.step("l", 1.0)}
    np.testing.assert_allclose(rounds.seconds_of(steps["short"], 0.1), 1e-3)
    clock.calls.clear()
    times = rounds.interleaved(steps, rounds=2, seconds=0.1, pause=0.5)
    np.testing.assert_allclose(times["short"], 1e-3)
    assert "".join(clock.calls).endswith("l" + "l" + "s" * (10 + 100))
    assert clock.slept == [0.5] * 4


def test_a_long_step_is_warmed_up_where_that_is_asked_for(monkeypatch):
    clock = Clock(monkeypatch)
    steps = {"a": clock.step("a", 1.0), "b": clock.step("b", 2.0)}
    rounds.interleaved(steps, rounds=1, seconds=0.1, warm=1.5)
    assert "".join(clock.calls) == "aabb" + "aa" + "b"


def test_a_call_that_is_held_up_does_not_shorten_the_turns(monkeypatch):
    clock = Clock(monkeypatch)
    delays = iter([0.0, 0.05])  # the first call that is timed

    def step():
        clock.now += 1e-3 + next(delays, 0.0)

    assert rounds.seconds_of(step, 0.1) == pytest.approx(1e-3)
