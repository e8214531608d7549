"""ScheduleFreeSGD, and what both Schedule-Free methods share: the average, and the way to it and back."""

import copy
import pickle
import struct

import numpy as np
import pytest

import fastopt
from fastopt import SGD, ScheduleFreeAdamW, ScheduleFreeSGD
from fastopt.algorithms import _schedule_free, schedule_free_sgd
from fastopt.engine import threads
from tests import reference
from tests.algorithms.cases import BY_ID, LAYOUTS, assert_same, draw, each_dtype, follow, history, values
from tests.algorithms.test_mutants import mutants

CASES = [BY_ID["schedule_free_sgd"], BY_ID["schedule_free_adamw"]]
each_schedule_free = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def average(opt):
    """Return the average, by a copy: the optimizer itself stays in training."""
    other = copy.deepcopy(opt)
    other.eval()
    return values(other)[0]["params"]


# The three sequences.


def test_x_is_the_mean_of_all_z_at_a_constant_learning_rate():
    rng = np.random.default_rng(0)
    w = rng.standard_normal(9)
    opt, seen = ScheduleFreeSGD(w, lr=0.5, momentum=0.9), []
    for _ in range(20):
        opt.step(rng.standard_normal(9))
        seen.append(opt.state[0]["z"].copy())
        np.testing.assert_allclose(average(opt), np.mean(seen, axis=0), rtol=0, atol=1e-13)


def test_y_x_and_z_are_those_of_the_definition():
    """With all that there is: warm-up, weights, decay, a learning rate and a momentum that change."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(9)
    rates, betas = rng.uniform(0.1, 1.0, 20), rng.uniform(0.3, 0.95, 20)
    opt = ScheduleFreeSGD(
        w, lr=lambda count: rates[count], momentum=lambda count: betas[count],
        weight_decay=0.1, warmup_steps=6.0, r=1.5, weight_lr_power=0.5,
    )  # fmt: skip
    x, z, lr_max, weights = w.copy(), w.copy(), 0.0, 0.0
    for t in range(1, 21):
        grad = rng.standard_normal(9)
        lr = rates[t - 1] * min(1.0, t / 6.0)
        z = z - lr * (grad + 0.1 * w)  # the decay is that of y
        lr_max = max(lr_max, lr)
        weight = t**1.5 * lr_max**0.5
        weights += weight
        x = x + weight / weights * (z - x)
        opt.step(grad)
        np.testing.assert_allclose(opt.state[0]["z"], z, rtol=0, atol=1e-13)
        np.testing.assert_allclose(average(opt), x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(w, (1.0 - betas[t - 1]) * z + betas[t - 1] * x, rtol=0, atol=1e-13)


def test_without_momentum_it_is_sgd_bit_for_bit():
    rng = np.random.default_rng(0)
    w = draw(rng, 33, "float32")
    v = w.copy()
    opt, sgd = ScheduleFreeSGD(w, lr=0.1, momentum=0.0, weight_decay=0.2), SGD(v, lr=0.1, weight_decay=0.2)
    for _ in range(10):
        grad = draw(rng, 33, "float32")
        opt.step(grad)
        sgd.step(grad)
        assert np.array_equal(w, v)
    opt.eval()  # there is no average
    assert np.array_equal(w, v)


def test_the_average_has_less_noise_than_sgd():
    rng = np.random.default_rng(0)
    w, v = np.ones(100), np.ones(100)
    opt, sgd = ScheduleFreeSGD(w, lr=0.5), SGD(v, lr=0.5)
    for _ in range(2000):
        noise = rng.standard_normal(100)
        opt.step(w + noise)
        sgd.step(v + noise)
    opt.eval()
    assert np.square(w).mean() < 0.01 * np.square(v).mean()


def test_every_change_of_the_weights_is_noticed(monkeypatch):
    """By schedules of the learning rate and of the momentum; the scalars of a step are computed in Python."""
    rng = np.random.default_rng(0)
    rates, betas = rng.uniform(0.1, 1.0, 12), rng.uniform(0.3, 0.95, 12)

    def agrees(average):
        monkeypatch.setattr(schedule_free_sgd, "average", average)
        try:
            follow(
                CASES[0], 5, "float64", steps=12, tol=50, lr=lambda count: rates[count],
                momentum=lambda count: betas[count], warmup_steps=4.0, r=0.7,
            )  # fmt: skip
        except (AssertionError, ArithmeticError, ValueError, TypeError, struct.error):
            return False
        return True

    assert agrees(_schedule_free.average)
    changes = list(mutants(_schedule_free.average, 1))
    assert len(changes) > 80
    assert {name[1:] for name, mutant in changes if agrees(mutant)} == {
        # Only where there is no learning rate: see the last test here.
        ("weight / weight_sum if weight_sum > 0.0 else 0.0", "weight / weight_sum"),
        ("0.0", "1.0"),
        ("1.0", "2.0"),  # at the first step, where y is z
    }


# To the average and back.


@each_schedule_free
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_eval_and_train_move_the_parameters_in_place(case, dtype, layout):
    rng = np.random.default_rng(0)
    params = {"w": LAYOUTS[layout](draw(rng, (17, 5), dtype)), "b": LAYOUTS[layout](draw(rng, (), dtype))}
    opt = case.optimizer(params)
    eps = np.finfo(dtype).eps
    for _ in range(4):
        history(opt, [{name: draw(rng, w.shape, dtype) for name, w in params.items()} for _ in range(3)])
        y = {name: w.astype(float) for name, w in params.items()}
        z = {name: array.astype(float) for name, array in opt.state[0]["z"].items()}
        x = {name: reference.schedule_free_x(y[name], {"z": z[name], "beta": 0.8}) for name in params}
        largest = {name: np.maximum(abs(x[name]), abs(z[name])) for name in params}
        opt.eval()
        assert any((w != y[name]).any() for name, w in params.items())
        for name, w in params.items():
            assert (abs(w - x[name]) <= 4 * eps * largest[name]).all()
        opt.train()
        for name, w in params.items():
            assert (abs(w - y[name]) <= 4 * eps * largest[name]).all()
            assert (opt.state[0]["z"][name] == z[name]).all()


@pytest.mark.jit  # else it takes long
@each_dtype
def test_how_much_an_evaluation_rounds(dtype):
    rng = np.random.default_rng(0)
    w = draw(rng, 100_003, dtype)
    opt = ScheduleFreeSGD(w, lr=0.1)
    history(opt, [draw(rng, 100_003, dtype) for _ in range(5)])
    y, z = w.copy(), opt.state[0]["z"]
    opt.eval()
    unit = np.finfo(dtype).eps * np.maximum(abs(w), abs(z))
    opt.train()
    moved = abs(w - y) / unit
    assert np.mean(moved > 0) > 0.1
    assert moved.mean() < 0.5
    assert moved.max() < 4
    for _ in range(10):  # it does not add up
        opt.eval()
        opt.train()
    assert (abs(w - y) / unit).mean() < 1.0


@each_schedule_free
def test_steps_are_refused_after_eval(case):
    w = np.ones(3)
    opt = case.optimizer(w)
    opt.step(np.ones(3))
    opt.step(np.ones(3))
    opt.eval()
    x = w.copy()
    with pytest.raises(RuntimeError, match=rf"{case.cls.__name__} cannot step after eval\(\): call train"):
        opt.step(np.ones(3))
    opt.eval()  # does nothing
    assert np.array_equal(w, x)
    assert opt.step_count == 2
    opt.train()
    y = w.copy()
    opt.train()  # does nothing
    assert np.array_equal(w, y)
    assert (x != y).all()
    opt.step(np.ones(3))
    assert opt.step_count == 3


@each_schedule_free
def test_before_the_first_step_all_points_are_one(case):
    w = np.ones(3)
    opt = case.optimizer(w)
    w[:] = 5.0
    opt.eval()
    assert w.tolist() == [5.0] * 3
    opt.train()
    opt.step(np.ones(3))
    assert (opt.state[0]["z"] > 4.0).all()


def test_each_array_has_an_average_of_its_own_steps():
    rng = np.random.default_rng(0)
    params, alone = [np.ones(3), np.ones(3), np.ones(3)], np.ones(3)
    opt, other = ScheduleFreeSGD(params), ScheduleFreeSGD(alone)
    for count in range(10):
        grad = rng.standard_normal(3)
        opt.step([grad, grad if count % 3 == 0 else None, None])
        if count % 3 == 0:
            other.step(grad)
    opt.eval()
    other.eval()
    assert np.array_equal(params[1], alone)
    assert not np.array_equal(params[0], alone)
    assert params[2].tolist() == [1.0] * 3


def test_groups_packs_and_both_dtypes():
    pack, w, v = fastopt.pack({"a": np.ones(4), "b": np.ones((2, 2))}), np.ones(3), np.ones(2, np.float32)
    opt = ScheduleFreeSGD([{"params": pack, "momentum": 0.5}, {"params": [w, v]}], lr=1.0, momentum=0.75)
    pack.flat_grads[:] = 1.0
    grads = [pack.grads, [np.ones(3), np.ones(2, np.float32)]]
    opt.step(grads)
    opt.step(grads)
    # z: 0, -1. x: 0, -0.5. So y is the mixture of -1 and -0.5.
    assert (pack.flat == -0.75).all()
    assert w.tolist() == [-0.625] * 3
    opt.eval()
    assert [*pack.flat, *w, *v] == [-0.5] * (8 + 3 + 2)
    opt.add_param_group({"params": np.ones(2)})
    opt.train()
    assert (pack.flat == -0.75).all()
    assert v.tolist() == [-0.625] * 2
    assert opt.param_groups[2]["params"].tolist() == [1.0, 1.0]


def test_a_momentum_that_is_set_in_between_leaves_the_average_where_it_is():
    rng = np.random.default_rng(0)
    w = np.ones(5)
    opt = ScheduleFreeSGD(w, momentum=0.9)
    history(opt, [rng.standard_normal(5) for _ in range(5)])
    x, y = average(opt), w.copy()
    opt.param_groups[0]["momentum"] = 0.5
    np.testing.assert_allclose(average(opt), x, rtol=1e-14)
    opt.eval()
    opt.train()
    np.testing.assert_allclose(w, y, rtol=1e-14)
    grad = rng.standard_normal(5)
    opt.step(grad)
    z = opt.state[0]["z"]
    np.testing.assert_allclose(average(opt), x + (z - x) / 6, rtol=1e-13)
    np.testing.assert_allclose(w, 0.5 * (average(opt) + z), rtol=1e-13)


@pytest.mark.jit
@each_schedule_free
@each_dtype
def test_threads_make_no_difference(case, dtype, monkeypatch):
    monkeypatch.setattr(threads, "CHUNK", 64)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    rng = np.random.default_rng(0)
    params = [draw(rng, shape, dtype) for shape in [(33, 5), (129,), (0, 2), (4097,)]]
    grads = [[draw(rng, w.shape, dtype) for w in params] for _ in range(3)]
    found = []
    for count in (1, 2, 5):
        opt = case.optimizer(copy.deepcopy(params), threads=count)
        history(opt, grads)
        opt.eval()
        x = values(opt)
        opt.train()
        found.append((x, values(opt)))
    for x, y in found[1:]:
        assert_same(x, found[0][0])
        assert_same(y, found[0][1])


# Going on elsewhere.


def from_state_dict(opt):
    other = type(opt)(opt.param_groups[0]["params"].copy(), lr=123.0)
    other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    return other


@each_schedule_free
@pytest.mark.parametrize("evaluating", [False, True], ids=["training", "evaluating"])
@pytest.mark.parametrize(
    "way", [from_state_dict, copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))],
    ids=["state_dict", "deepcopy", "pickle"],
)  # fmt: skip
def test_copies_know_where_they_are(case, evaluating, way):
    rng = np.random.default_rng(0)
    w = rng.standard_normal(9)
    opt = case.optimizer(w)
    history(opt, [rng.standard_normal(9) for _ in range(3)])
    if evaluating:
        opt.eval()
    other = way(opt)
    assert other.state_dict()["training"] == (not evaluating)
    assert_same(values(other), values(opt))
    for each in (opt, other):
        if evaluating:
            with pytest.raises(RuntimeError, match="after eval"):
                each.step(np.ones(9))
            each.train()
        each.step(np.ones(9))
        each.eval()
    assert_same(values(other), values(opt))


def test_a_state_dict_must_say_where_the_parameters_are():
    opt = ScheduleFreeSGD(np.ones(3))
    saved = opt.state_dict()
    del saved["training"]
    with pytest.raises(ValueError, match="state_dict has no 'training'"):
        opt.load_state_dict(saved)
    opt.eval()
    with pytest.raises(ValueError, match="algorithm must be ScheduleFreeAdamW, got ScheduleFreeSGD"):
        ScheduleFreeAdamW(np.ones(3)).load_state_dict(opt.state_dict())


@each_schedule_free
def test_a_learning_rate_of_zero_weighs_nothing(case):
    """And is no 0 / 0, also when the average is taken."""
    w = np.ones(3)
    opt = case.optimizer(w, lr=lambda count: 0.0 if count < 2 else 0.5)
    for _ in range(2):
        opt.step(np.ones(3))
        assert w.tolist() == [1.0] * 3
    opt.step(np.ones(3))
    opt.eval()
    np.testing.assert_allclose(w, opt.state[0]["z"], rtol=1e-15)  # the only one that counts
    assert (w < 1.0).all()
