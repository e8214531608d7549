import math
import re

import numpy as np
import pytest

import fastopt
from fastopt.__main__ import main
from fastopt.demos.evolution import pole
from fastopt.demos.evolution.contestants import METHODS
from fastopt.demos.evolution.pole import LONGEST, SIZE, balance, moved, pushes, recorded, starts, upright
from fastopt.demos.evolution.strategy import centred_ranks, evolve
from fastopt.demos.methods import Method


def linear(place, speed, angle, turning):
    """Return a policy that pushes by the sign of a weighted sum of the state: one small hidden unit."""
    theta = np.zeros(SIZE)
    theta[: pole.INPUTS * pole.HIDDEN : pole.HIDDEN] = place, speed, angle, turning
    theta[: pole.INPUTS * pole.HIDDEN] *= 1e-3
    theta[(pole.INPUTS + 1) * pole.HIDDEN] = 1.0
    return theta


BALANCING, FALLING = linear(0.5, 1.0, 10.0, 3.0), linear(-0.5, -1.0, -10.0, -3.0)


def test_the_physics_of_one_tick():
    """The equations of Barto, Sutton and Anderson, written out for one state."""
    x, v, a, w, force = 0.1, -0.2, 0.05, 0.3, 10.0
    total, moment = 1.1, 0.1 * 0.5
    inner = (force + moment * w**2 * math.sin(a)) / total
    turn = (9.8 * math.sin(a) - math.cos(a) * inner) / (0.5 * (4 / 3 - 0.1 * math.cos(a) ** 2 / total))
    gain = inner - moment * turn * math.cos(a) / total
    expected = [x + 0.02 * v, v + 0.02 * gain, a + 0.02 * w, w + 0.02 * turn]
    np.testing.assert_allclose(moved(np.array([[x, v, a, w]]), np.array([force]))[0], expected, rtol=1e-14)


def test_a_free_pole_falls_and_a_balanced_one_stays_up():
    start = np.array([[0.0, 0.0, 0.01, 0.0]])
    assert pushes(BALANCING[None], start).tolist() == [10.0]
    assert pushes(FALLING[None], start).tolist() == [-10.0]
    many = starts(np.random.default_rng(0), 20)
    assert abs(many).max() <= 0.05
    assert balance(np.tile(BALANCING, (20, 1)), many).tolist() == [LONGEST] * 20
    assert (balance(np.tile(FALLING, (20, 1)), many) < 20).all()


def test_each_policy_is_its_own_game():
    many = starts(np.random.default_rng(1), 4)
    policies = np.stack([BALANCING, FALLING, np.zeros(SIZE), BALANCING])
    together = balance(policies, many)
    assert together.tolist() == [int(balance(policies[i : i + 1], many[i : i + 1])[0]) for i in range(4)]
    assert together[0] == together[3] == LONGEST
    states = recorded(policies[1], many[1])
    assert len(states) == together[1] + 1
    assert upright(states).tolist() == [True] * together[1] + [False]
    assert len(recorded(BALANCING, many[0])) == LONGEST + 1


def test_ranks_are_centred_and_ties_share():
    assert centred_ranks([3.0, 1.0, 2.0]).tolist() == [0.5, -0.5, 0.0]
    assert centred_ranks(np.array([7, 7, 7, 7])).tolist() == [0.0] * 4
    ranks = centred_ranks(np.random.default_rng(0).integers(0, 9, 64))
    assert abs(ranks.sum()) < 1e-12
    assert abs(ranks).max() <= 0.5


def test_a_policy_is_evolved_that_balances():
    course = evolve(Method("Adagrad", fastopt.Adagrad, {"lr": 0.3}), 15, seed=0)
    assert course.lasted[0] < 30
    assert course.lasted[-1] > 400
    assert course.lasted.shape == (16,)
    assert course.ratios.shape == (15,)
    assert (course.ratios > 0).all()
    again = evolve(Method("Adagrad", fastopt.Adagrad, {"lr": 0.3}), 15, seed=0)
    assert np.array_equal(course.theta, again.theta)


def test_without_steps_nothing_is_learned():
    course = evolve(Method("SGD", fastopt.SGD, {"lr": 0.0}), 3, seed=0)
    assert course.lasted.tolist() == [course.lasted[0]] * 4
    assert course.ratios.tolist() == [0.0] * 3


def test_the_demo(tmp_path, capsys):
    for package in ("matplotlib", "tqdm"):
        pytest.importorskip(package)
    options = ["--generations", "2", "--trials", "2", "--seed", "3", "--out", str(tmp_path)]
    assert main(["demo", "evolution", *options]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^method +settings +after 1 +after 2 +solved in +\|step\|", shown, re.MULTILINE)
    for method in METHODS:
        row = rf"^{re.escape(method.label)} +{re.escape(method.described)}( +\d+){{2}} +(> 2|\d) +0\.\d{{3}}$"
        assert re.search(row, shown, re.MULTILINE), method.label
    assert (tmp_path / "fastopt-evolution.png").read_bytes().startswith(b"\x89PNG")
