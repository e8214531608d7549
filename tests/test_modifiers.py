"""The modifiers are what their papers say, whatever the rule, one by one and together."""

import copy
import pickle

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastopt
from fastopt.engine import threads
from tests.algorithms.cases import (
    CASES,
    assert_same,
    assert_same_history,
    draw,
    each_dtype,
    history,
    step,
    values,
)
from tests.modified import ALL, APART, COMPILED, EVERYWHERE, LR_MAX, assert_follows, fast, suitable

#: Rules that measure, or carry numbers, or have no step apart from the parameters, or work on matrices.
OTHERS = [
    case
    for case in CASES
    if case.id
    in ("nag", "ftrl", "lamb", "nadam", "prodigy", "adam_mini", "adam_mini_by_row", "muon", "adafactor")
]
by_id = {"ids": lambda case: case.id}
#: Of every kind of weight decay one, with state of every size; without the JIT, all are.
each_kind = fast(COMPILED, "sgd_nesterov", "adamw_amsgrad", "rprop")
#: What random modifiers are combined with: one that can have all of them.
COMBINED = [
    case
    for case in COMPILED
    if case.id == "adamw_amsgrad" or (numba.config.DISABLE_JIT and case.id == "adam")
]


@each_dtype
@pytest.mark.parametrize("case", [case for case in APART if case.id != "sophia"], **by_id)  # see its own test
@pytest.mark.parametrize(
    "names",
    [
        ["cautious"],
        ["cautious_weight_decay"],
        ["ema_decay"],
        ["ema_decay", "ema_warmup"],
        ["swa_start"],
        ["swa_start", "swa_every"],
        ["max_grad_value"],
    ],
    ids="+".join,
)
def test_one_alone_without_the_engine(case, names, dtype):
    options = suitable(case, {name: ALL[name] for name in names})
    if not options:
        pytest.skip("the rule has no such weight decay")
    assert_follows(case, dtype, options, interpreted=True)


@each_kind
def test_all_together(case):
    assert_follows(case, "float32", suitable(case, ALL))


@pytest.mark.parametrize("case", COMPILED[:3], **by_id)
def test_corrected_weight_decay(case):
    assert_follows(case, "float64", {"corrected_weight_decay": LR_MAX})


@fast(COMPILED, "adamw_amsgrad")
def test_all_together_in_double_and_upwards(case):
    assert_follows(case, "float64", suitable(case, ALL), maximize=True)


# The others with other options too: see test_whole_step.py.
@fast(OTHERS, "nag", "ftrl", "prodigy", "adam_mini", "adam_mini_by_row", "adafactor")
def test_what_every_rule_can_have(case):
    assert_follows(case, "float64", EVERYWHERE)


@given(data=st.data(), case=st.sampled_from(COMBINED), size=st.integers(1, 40))
@settings(
    max_examples=20 if numba.config.DISABLE_JIT else 8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_any_combination(data, case, size):
    names = data.draw(st.sets(st.sampled_from(sorted(suitable(case, ALL)))))
    assert_follows(case, "float64", {name: ALL[name] for name in names}, steps=5, size=size, tol=1000)


# What they must not change.


@fast(COMPILED, "sgd")
def test_a_step_taken_apart_is_the_same_step(case):
    """All steps agree with gradients that never change: nothing is left out, and nothing is enlarged."""
    w, grad = np.linspace(0.5, 1.0, 9), np.linspace(1.0, 2.0, 9)
    plain, cautious = w.copy(), w.copy()
    for opt in (case.optimizer(plain), case.optimizer(cautious, cautious=True)):
        for _ in range(5):
            step(opt, grad)
    np.testing.assert_allclose(cautious, plain, rtol=1e-13)


@pytest.mark.jit
@each_kind
def test_threads_packs_and_checkpoints(case, monkeypatch):
    """The same bits on three threads, in a pack, and after going on elsewhere."""
    rng = np.random.default_rng(0)
    shapes = [(33, 5), (129,), (), (0, 2), (20_001,)]
    params = [draw(rng, shape, "float32") for shape in shapes]
    grads = [[draw(rng, shape, "float32") for shape in shapes] for _ in range(7)]
    options = suitable(case, ALL)
    want = history(case.optimizer(copy.deepcopy(params), threads=1, **options), grads)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    monkeypatch.setattr(threads, "CHUNK", 1 << 13)
    assert_same_history(history(case.optimizer(copy.deepcopy(params), threads=3, **options), grads), want)
    opt = case.optimizer(fastopt.pack(params), threads=3, **options)
    assert_same_history(history(opt, grads[:4]), want[:4])
    other = case.optimizer(fastopt.pack([w.copy() for w in opt.param_groups[0]["params"].params]), **options)
    other.load_state_dict(opt.state_dict())
    for way in (other, pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        assert_same_history(history(way, grads[4:]), want[4:])


def test_groups_have_modifiers_of_their_own():
    rng = np.random.default_rng(0)
    params, grads = rng.standard_normal((2, 9)), rng.standard_normal((6, 2, 9))
    alone = [params[0].copy(), params[1].copy()]
    opts = [fastopt.AdamW(alone[0], cautious=True), fastopt.AdamW(alone[1], ema_decay=0.9, lookahead_steps=2)]
    w = [params[0].copy(), params[1].copy()]
    both = fastopt.AdamW(
        [{"params": w[0], "cautious": True}, {"params": w[1], "ema_decay": 0.9, "lookahead_steps": 2}]
    )
    for given_grads in grads:
        both.step(list(given_grads))
        for opt, grad in zip(opts, given_grads, strict=True):
            opt.step(grad)
    assert_same(values(both), [*values(opts[0]), *values(opts[1])])


def test_switching_one_on_and_off_keeps_the_state():
    w = np.linspace(-1.0, 1.0, 7)
    opt = fastopt.Adam(w)
    opt.step(np.ones(7))
    kept = opt.state[0]["exp_avg"].copy()
    opt.param_groups[0]["ema_decay"] = 0.5
    assert np.array_equal(opt.state[0]["exp_avg"], kept)
    before = w.copy()
    opt.step(np.ones(7))
    np.testing.assert_allclose(opt.state[0]["ema"], 0.5 * (before + w), rtol=1e-15)
    opt.param_groups[0]["ema_decay"] = 0.0
    opt.step(np.ones(7))
    assert list(opt.state[0]) == ["exp_avg", "exp_avg_sq"]


def test_the_average_starts_with_the_parameters_of_the_first_step():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0, ema_decay=0.5)
    w[:] = 8.0  # loaded after the optimizer was made
    opt.step(np.full(3, 4.0))
    assert opt.state[0]["ema"].tolist() == [6.0, 6.0, 6.0]


def test_averages_start_over_for_each_array_at_its_own_first_gradient():
    w = [np.zeros(1), np.zeros(1)]
    opt = fastopt.SGD(w, lr=1.0, lookahead_steps=2, lookahead_alpha=0.5)
    opt.step([np.ones(1), None])
    opt.step([np.ones(1), np.ones(1)])
    assert [float(each[0]) for each in w] == [-1.0, -1.0]  # the first is set back, half the way
    opt.step([None, np.ones(1)])
    assert [float(each[0]) for each in w] == [-1.0, -1.0]


def test_cautious_steps_are_enlarged_by_the_share_that_is_left():
    w = np.zeros(4)
    opt = fastopt.Signum(w, lr=1.0, momentum=0.9, cautious=True)
    opt.step(np.array([1.0, 1.0, 1.0, 1.0]))
    assert w.tolist() == [-1.0] * 4
    opt.step(np.array([-0.1, 0.1, 0.1, 0.1]))  # the momentum goes on against the first gradient
    np.testing.assert_allclose(w, [-1.0, *[-1.0 - 4 / 3] * 3])


def test_where_no_step_is_left_nothing_moves():
    w = np.zeros(3)
    opt = fastopt.Signum(w, lr=1.0, momentum=0.9, cautious=True)
    opt.step(np.ones(3))
    opt.step(np.full(3, -0.1))
    assert w.tolist() == [-1.0] * 3


def test_nan_comes_through():
    w = np.zeros(3)
    opt = fastopt.AdamW(w, cautious=True, cautious_weight_decay=True)
    opt.step(np.array([1.0, np.nan, 1.0]))
    assert np.isnan(w).tolist() == [False, True, False]


# Kernels.


def test_a_kernel_can_be_modified():
    rng = np.random.default_rng(0)
    w, grads = rng.standard_normal(9001), rng.standard_normal((4, 9001))
    options = {"cautious": True, "cautious_weight_decay": True, "ema_decay": 0.9}
    kernel = fastopt.AdamW.kernel(**options)
    v, state = w.copy(), [np.zeros_like(w), np.zeros_like(w), w.copy()]
    opt = fastopt.AdamW(w, **options)
    for i, grad in enumerate(grads):
        opt.step(grad)
        kernel(v, grad, *state, i + 1)
    assert np.array_equal(v, w)
    assert np.array_equal(state[2], opt.state[0]["ema"])


@pytest.mark.parametrize("name", ["maximize", "corrected_weight_decay", "lookahead_steps"])
def test_what_a_kernel_cannot_have(name):
    with pytest.raises(ValueError, match=f"a kernel cannot have {name}"):
        fastopt.AdamW.kernel(**{name: {**ALL, "maximize": True}[name]})


# What cannot be.


@pytest.mark.parametrize(
    ("cls", "options", "why"),
    [
        (fastopt.NAG, {"cautious": True}, "NAG has no step apart from its parameters: no cautious=True"),
        (fastopt.LAMB, {"cautious_weight_decay": True}, "LAMB has no step apart from its parameters"),
        (fastopt.Adam, {"cautious_weight_decay": True}, "Adam has no decoupled weight decay"),
        (fastopt.NAdam, {"cautious": True}, "NAdam knows its scalars only after a pass of its own"),
        (
            fastopt.Muon,
            {"cautious": True},
            "Muon works on whole matrices, not on their elements: no cautious=True",
        ),
    ],
)
def test_what_cannot_be_is_refused(cls, options, why):
    with pytest.raises(ValueError, match=why):
        cls(np.ones((3, 3)), **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cautious": 1}, TypeError),
        ({"ema_decay": 1.5}, ValueError),
        ({"ema_warmup": 1}, TypeError),
        ({"lookahead_steps": -1}, ValueError),
        ({"lookahead_steps": 2.5}, ValueError),
        ({"lookahead_steps": lambda count: 3}, TypeError),
        ({"lookahead_alpha": 2.0}, ValueError),
        ({"corrected_weight_decay": -1.0}, ValueError),
    ],
)
def test_values_are_checked(options, error):
    (name,) = options
    with pytest.raises(error, match=f"{name} must be"):
        fastopt.AdamW(np.ones(3), **options)


def test_a_schedule_that_fails_changes_nothing():
    w = np.ones(3)
    opt = fastopt.SGD(w, lr=0.5, lookahead_steps=1, lookahead_alpha=lambda count: 2.0)
    with pytest.raises(ValueError, match="lookahead_alpha must be"):
        opt.step(np.ones(3))
    assert w.tolist() == [1, 1, 1]
    assert opt.step_count == 0
