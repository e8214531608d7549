"""The whole step by each library that is installed: ``pytest bench/test_peers.py``; at full size, peers.py.

With FASTOPT_BENCH_SMOKE=1 it is a check of the answers alone, at small sizes.
"""

from __future__ import annotations

import os

import contest
import numpy as np
import peers
import pytest
from contest import KINDS, Contestant, Task, Unavailable, check
from libraries import PEERS, by_numpy
from workloads import WORKLOADS, parameters, start

SMOKE = os.environ.get("FASTOPT_BENCH_SMOKE", "") not in ("", "0")
#: What the libraries use is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SMALL = [(20, 7), (7,), (7, 5), (5,), (5, 3), (3,)]
MANY = [(1000,)] * (10 if SMOKE else 1000)
TASKS = [
    *(Task("AdamW", kind) for kind in KINDS),
    *(Task(algorithm, kind) for algorithm in peers.MAIN[1:] for kind in ("update", "clip + EMA")),
]


def _make(name: str, task: Task, params, grads) -> Contestant:
    if name == peers.COMPILED and task != Task("AdamW", "clip + EMA"):
        pytest.skip("takes seconds to compile")
    try:
        return PEERS[name](task, params, grads)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.algorithm}-{task.kind}")
@pytest.mark.parametrize("name", PEERS)
def test_answers(name, task):
    params, grads = start(SMALL)
    check(task, _make(name, task, params, grads), params, grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in PEERS if name != peers.COMPILED])
def test_whole_step(benchmark, name, kind):
    benchmark.group = f"{len(MANY)} arrays of 1000: {kind}"
    params, grads = start(MANY)
    contestant = _make(name, Task("AdamW", kind), params, grads)
    check(Task("AdamW", kind), contestant, params, grads)
    if SMOKE:
        benchmark.pedantic(contestant.step, rounds=2)
    else:
        benchmark(contestant.step)


def _spoiled(what: str, task: Task, params, grads) -> Contestant:
    """Return NumPy's step with a mistake."""
    right = by_numpy.in_place(task, params, grads)
    values = right.read()[0]
    if what == "nothing is done":
        return right._replace(step=lambda: None)
    if what == "the gradients are not clipped":
        return by_numpy.in_place(Task(task.algorithm), params, grads)._replace(read=lambda: (values, values))
    if what == "the gradients are left":
        return right._replace(left=lambda: grads)
    if what == "the average is the parameters":
        return right._replace(read=lambda: (values, values))

    def step() -> None:
        right.step()
        values[0][3, 4] += 2e-6  # 0.2 % of a step, in one element

    return right._replace(step=step)


MISTAKES = [
    "nothing is done",
    "one element is wrong",
    "the gradients are not clipped",
    "the gradients are left",
    "the average is the parameters",
]


@pytest.mark.parametrize("what", MISTAKES)
def test_the_check_refuses(what):
    task = Task("AdamW", "clip + EMA + zero")
    params, grads = start(SMALL)
    check(task, by_numpy.in_place(task, params, grads), params, grads)
    with pytest.raises(AssertionError, match=r"differ from float64's|not zero"):
        check(task, _spoiled(what, task, params, grads), params, grads)


@pytest.mark.parametrize("setting", ["lr", "betas", "weight_decay"])
def test_the_check_sees_a_setting(setting, monkeypatch):
    other = {"lr": 1.01e-3, "betas": (0.9, 0.99), "weight_decay": 2e-2}[setting]
    params, grads = start(SMALL)
    right = contest.SETTINGS["AdamW"]
    monkeypatch.setitem(contest.SETTINGS, "AdamW", {**right, setting: other})
    wrong = by_numpy.in_place(Task("AdamW"), params, grads)
    monkeypatch.setitem(contest.SETTINGS, "AdamW", right)
    with pytest.raises(AssertionError, match="parameters differ"):
        check(Task("AdamW"), wrong, params, grads)


def test_the_plan_has_what_is_promised():
    plan = peers.plan()
    assert sorted(plan) == sorted(WORKLOADS)
    for name in ("vector of 1e2", "vector of 5e7", "1000 arrays of 1000", "GPT-2 small, 148 arrays"):
        assert {Task("AdamW", "clip + EMA"), *(Task(algorithm) for algorithm in peers.MAIN)} <= set(
            plan[name]
        )
    for name in ("vector of 1e6", "perceptron, 6 arrays", "1000 arrays of 1000"):
        assert {Task(algorithm, "clip + EMA") for algorithm in peers.MAIN} <= set(plan[name])
    assert all(len(set(tasks)) == len(tasks) for tasks in plan.values())
    assert all(parameters(WORKLOADS[name]) <= 10**6 for name in peers.plan(quick=True))


def test_a_part_of_the_plan():
    tasks, names = peers.chosen(["vector of 1e4", "AdamW", "optax, jitted"], peers.plan())
    assert tasks == {"vector of 1e4": [Task("AdamW"), Task("AdamW", "clip + EMA")]}
    assert names == ["optax, jitted"]
    with pytest.raises(ValueError, match="there is no 'AdamX', but: vector of 1e2"):
        peers.chosen(["AdamX"], peers.plan())


def test_a_comparison(monkeypatch):
    monkeypatch.setitem(WORKLOADS, "small", SMALL)
    params, grads = start(SMALL)
    names = ["NumPy, in place", "scikit-learn", "fastopt, new gradients"]
    cell = peers.measure("small", Task("Lion"), names, peers.Run(2, 2, 1e-4), params, grads)
    assert list(cell["peers"]) == ["fastopt", "NumPy, in place"]
    assert list(cell["skipped"]) == ["scikit-learn", "fastopt, new gradients"]
    for found in cell["peers"].values():
        low, middle, high = found["seconds"]
        assert 0 < low <= middle <= high
    assert "NumPy, in place" in peers.shown(cell)
    assert np.isclose(cell["peers"]["fastopt"]["times_fastopt"], 1).all()
