"""What survives: pickles, deep copies and state dicts go on as the original does."""

import copy
import pickle

import numpy as np
import pytest

import fastopt

F = np.float32


def lr_schedule(step):
    return 0.01 * (step + 1)


def make_groups():
    rng = np.random.default_rng(0)
    a = {"w": rng.random((3, 4)), "f": np.asfortranarray(rng.random((2, 3)))}
    b = [rng.random(5, F), np.array(1.0)]
    opt = fastopt.Adam([{"params": a, "lr": 0.1}, {"params": b, "amsgrad": True}], lr=lr_schedule)
    return opt, (a, b)


def grads_at(step):
    rng = np.random.default_rng(step)
    some = None if step % 3 == 1 else rng.random((3, 4)) - 0.5
    return [
        {"w": some, "f": rng.random((2, 3)) - 0.5},
        [rng.random(5, F) - F(0.5), np.array(rng.random())],
    ]


def leaves(params):
    a, b = params
    return [a["w"], a["f"], *b]


def same(one, other):
    for x, y in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict"])
def test_a_copy_goes_on_as_the_original_does(way):
    opt, params = make_groups()
    opt.param_groups[1]["lr"] = lr_schedule
    for step in range(5):
        opt.step(grads_at(step))
    if way == "pickle":
        twin, twins = pickle.loads(pickle.dumps((opt, params)))
    elif way == "deepcopy":
        twin, twins = copy.deepcopy((opt, params))
    else:
        twin, twins = make_groups()
        for mine, others in zip(leaves(twins), leaves(params), strict=True):
            mine[...] = others
        twin.load_state_dict(opt.state_dict())
    assert twin.step_count == 5
    for step in range(5, 9):
        opt.step(grads_at(step))
        same_before = [x.copy() for x in leaves(twins)]
        twin.step(grads_at(step))
        assert not np.array_equal(same_before[1], leaves(twins)[1])
        same(params, twins)
    np.testing.assert_equal(twin.state, opt.state)


def test_copies_are_independent():
    w = np.ones(3)
    opt = fastopt.Adam(w)
    opt.step(np.ones(3))
    before = w.copy()
    twin = copy.deepcopy(opt)
    twin.step(np.ones(3))
    np.testing.assert_array_equal(w, before)
    assert not np.shares_memory(twin.state[0]["exp_avg"], opt.state[0]["exp_avg"])


def test_a_pickled_pack_stays_the_optimizers():
    pack = fastopt.pack({"w": np.ones(3, F), "b": np.ones(1, F)})
    pack.flat_grads[:] = 1
    opt = fastopt.SGD([{"params": pack["w"]}, {"params": pack["b"], "lr": 0.5}], lr=1.0)
    twin_pack, twin = pickle.loads(pickle.dumps((pack, opt)))
    twin.step()
    assert twin_pack.flat.tolist() == [0, 0, 0, 0.5]
    assert pack.flat.tolist() == [1, 1, 1, 1]


def test_state_has_the_structure_of_the_parameters():
    opt, _ = make_groups()
    opt.step(grads_at(0))
    first, second = opt.state
    assert set(first) == {"exp_avg", "exp_avg_sq"}
    assert set(second) == {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    assert first["exp_avg"]["f"].shape == (2, 3)
    np.testing.assert_allclose(first["exp_avg"]["f"], 0.1 * grads_at(0)[0]["f"])
    assert second["exp_avg"][0].dtype == F


def test_state_dict_is_plain_and_a_copy():
    opt, _ = make_groups()
    opt.step(grads_at(0))
    saved = opt.state_dict()
    kept = copy.deepcopy(saved)
    opt.step(grads_at(1))
    np.testing.assert_equal(saved, kept)
    assert saved["step_count"] == 1
    assert saved["param_groups"][0]["names"] == ["['w']", "['f']"]
    assert "lr" in saved["param_groups"][0]["hyperparameters"]
    assert "lr" not in saved["param_groups"][1]["hyperparameters"]  # a schedule


def broken(change):
    def apply(saved):
        change(saved)
        return saved

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("version"),
            "state_dict must be what state_dict() returned; state_dict has no 'version'",
        ),
        (
            lambda s: s.pop("step_count"),
            "state_dict must be what state_dict() returned; state_dict has no 'step_count'",
        ),
        (
            lambda s: s["param_groups"][1].pop("steps"),
            "state_dict must be what state_dict() returned; param_groups[1] has no 'steps'",
        ),
        (lambda s: s.update(version=99), "state_dict does not fit: version must be 1, got 99"),
        (lambda s: s.update(algorithm="SGD"), "state_dict does not fit: algorithm must be Adam, got SGD"),
        (
            lambda s: s["param_groups"].pop(),
            "state_dict does not fit: number of parameter groups must be 2, got 1",
        ),
        (
            lambda s: s["param_groups"][0].update(names=["['f']", "['w']"]),
            "state_dict does not fit: param_groups[0]['names'] must be [\"['w']\", \"['f']\"], "
            "got [\"['f']\", \"['w']\"]",
        ),
        (
            lambda s: s["param_groups"][0]["state"]["exp_avg"].__setitem__(0, np.ones(3)),
            "state_dict does not fit: param_groups[0]['state']['exp_avg'] of params[0]['params']['w']: "
            "shape must be (3, 4), got (3,)",
        ),
        (
            lambda s: s["param_groups"][0]["state"]["exp_avg"].__setitem__(0, np.ones((3, 4), F)),
            "state_dict does not fit: param_groups[0]['state']['exp_avg'] of params[0]['params']['w']: "
            "dtype must be float64, got float32",
        ),
        (
            lambda s: s["param_groups"][0]["hyperparameters"].update(lr=-1),
            "lr must be a finite number >= 0, or a schedule of such; got -1",
        ),
        (
            lambda s: s["param_groups"][0]["hyperparameters"].update(amsgrad=True),
            "state_dict does not fit: param_groups[0]: names of the state must be "
            "['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'], got ['exp_avg', 'exp_avg_sq']",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(change, message):
    opt, params = make_groups()
    opt.step(grads_at(0))
    saved = opt.state_dict()
    before = copy.deepcopy(saved)
    change(saved)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        opt.load_state_dict(saved)
    assert str(caught.value) == message
    np.testing.assert_equal(opt.state_dict(), before)
