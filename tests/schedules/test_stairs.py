import math

import pytest

from fastopt.schedules import MultiStep, Piecewise, Step


def values(schedule, steps):
    return [schedule(step) for step in range(steps)]


def test_step():
    assert values(Step(1.0, 3, gamma=0.5), 7) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    assert Step(1.0, 1, gamma=0.0)(0) == 1.0
    assert Step(1.0, 1, gamma=0.0)(1) == 0.0


def test_multi_step():
    assert values(MultiStep(1.0, [1, 3], gamma=0.5), 5) == [1.0, 0.5, 0.5, 0.25, 0.25]
    assert MultiStep(1.0, (3, 1), 0.5) == MultiStep(1.0, [1, 3], 0.5)
    assert values(MultiStep(1.0, [2, 2], gamma=0.5), 3) == [1.0, 1.0, 0.25]
    assert values(MultiStep(1.0, [0], gamma=0.5), 2) == [0.5, 0.5]
    assert values(MultiStep(1.0, []), 2) == [1.0, 1.0]
    assert MultiStep(1.0, iter([1, 3]), gamma=0.5)(1) == 0.5


def test_piecewise_constant():
    stairs = Piecewise(1.0, {2: 0.5, 3: 4.0})
    assert values(stairs, 5) == [1.0, 1.0, 0.5, 4.0, 4.0]
    assert stairs == Piecewise(1.0, [(3, 4.0), (2, 0.5)]) == Piecewise(1.0, {3: 4, 2.0: 0.5})
    assert values(Piecewise(1.0, {0: 0.5}), 2) == [0.5, 0.5]
    assert values(Piecewise(1.0, {}), 2) == [1.0, 1.0]


def test_piecewise_curves():
    points = {2: 0.0, 4: 2.0}
    assert values(Piecewise(1.0, points, "linear"), 6) == [1.0, 0.5, 0.0, 1.0, 2.0, 2.0]
    cosine = [1.0, 0.5, 0.0, 1.0, 2.0, 2.0]  # halfway it meets the line
    assert values(Piecewise(1.0, points, "cosine"), 6) == pytest.approx(cosine)
    assert Piecewise(1.0, {4: 0.0}, "cosine")(1) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert Piecewise(1.0, {4: 0.0}, "1-sqrt")(1) == 0.5
    assert Piecewise(1.0, {0: 3.0, 4: 1.0}, "linear")(0) == 3.0
    assert Piecewise(1.0, {}, "linear")(5) == 1.0
