"""State dicts fit optimizers of the same parameters, in whatever order, and are refused by others."""

import copy

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import BY_ID, assert_same, draw, values

F = np.float32


def make_groups():
    rng = np.random.default_rng(0)
    a = {"w": rng.random((3, 4)), "f": np.asfortranarray(rng.random((2, 3)))}
    b = [rng.random(5, F), np.array(1.0)]
    opt = fastopt.Adam([{"params": a, "lr": 0.1}, {"params": b, "amsgrad": True}], lr=lambda step: 0.01)
    opt.step([{"w": np.ones((3, 4)), "f": np.ones((2, 3))}, [np.ones(5, F), np.array(1.0)]])
    return opt


# The same parameters in another order.

SHAPES = {"conv": {"w": (2, 3), "b": (3,)}, "head": [(3, 2), (2,)], "scale": ()}
REORDERED = {"scale": (), "head": [(3, 2), (2,)], "conv": {"b": (3,), "w": (2, 3)}}


def tree(rng, shapes):
    if isinstance(shapes, dict):
        return {key: tree(rng, inner) for key, inner in shapes.items()}
    if isinstance(shapes, list):
        return [tree(rng, inner) for inner in shapes]
    return draw(rng, shapes, F)


def like(other, shapes):
    """Return copies of the arrays of a tree, in the order of ``shapes``."""
    if isinstance(shapes, dict):
        return {key: like(other[key], inner) for key, inner in shapes.items()}
    if isinstance(shapes, list):
        return [like(each, inner) for each, inner in zip(other, shapes, strict=True)]
    return other.copy()


def sorted_values(opt):
    """Return the values of each array by its name."""
    names = [name for group in opt.state_dict()["param_groups"] for name in group["names"]]
    assert len(set(names)) == len(names)
    found = dict(zip(names, values(opt), strict=True))
    return [found[name] for name in sorted(names)]


# Elementwise; of matrices and vectors apart; with numbers that are a tensor's own; with its own shapes.
@pytest.mark.parametrize(
    "case", [BY_ID[name] for name in ("adamw", "soap", "novograd")], ids=lambda case: case.id
)
@pytest.mark.parametrize("packed", [False, True], ids=["arrays", "pack"])
def test_a_reordered_tree_goes_on_bit_for_bit(case, packed):
    rng = np.random.default_rng(0)
    params = tree(rng, SHAPES)
    grads = [tree(rng, SHAPES) for _ in range(6)]
    grads[1]["conv"]["b"] = grads[2]["scale"] = None  # their step counts differ
    opt = case.optimizer(params)
    for given in grads[:3]:
        opt.step(given)
    moved = like(params, REORDERED)
    twin = case.optimizer(fastopt.pack(moved) if packed else moved, lr=123.0)
    twin.load_state_dict(opt.state_dict())
    assert twin.state_dict()["param_groups"][0]["steps"] == [2, 3, 3, 2, 3]
    assert_same(sorted_values(twin), sorted_values(opt))
    for given in grads[3:]:
        opt.step(given)
        twin.step(like(given, REORDERED))
        assert_same(sorted_values(twin), sorted_values(opt))


def test_groups_in_another_order_take_their_hyperparameters_with_them():
    params = {"w": np.ones(2), "b": np.ones(2)}, {"v": np.ones(3)}
    first = {"params": params[0], "lr": 0.1}, {"params": params[1], "lr": 0.2, "ema_decay": 0.5}
    opt = fastopt.SGD(list(first), momentum=0.9)
    opt.step([{"w": np.ones(2), "b": None}, {"v": np.ones(3)}])
    others = {"v": np.zeros(3)}, {"b": np.zeros(2), "w": np.zeros(2)}
    twin = fastopt.SGD([{"params": each} for each in others])
    twin.load_state_dict(opt.state_dict(params=True))
    assert [group["lr"] for group in twin.param_groups] == [0.2, 0.1]
    assert [each["steps"] for each in twin.state_dict()["param_groups"]] == [[1], [0, 1]]
    assert_same(sorted_values(twin), sorted_values(opt))
    for each, grads in ((opt, [params[0], params[1]]), (twin, [others[0], others[1]])):
        each.step(copy.deepcopy(grads))
    assert_same(sorted_values(twin), sorted_values(opt))


def test_errors_name_the_saved_group():
    had = [{"params": {"w": np.ones(2)}}, {"params": {"v": np.ones(3)}}]
    saved = fastopt.SGD(had, momentum=0.9).state_dict()
    saved["param_groups"][1]["state"]["momentum_buffer"][0] = None
    opt = fastopt.SGD([{"params": {"v": np.ones(3)}}, {"params": {"w": np.ones(2)}}], momentum=0.9)
    message = (
        "param_groups[1]['state']['momentum_buffer'] of params[0]['params']['v'] must be an array, got None"
    )
    assert refused(opt, saved) == message


def test_groups_of_the_same_names_keep_their_places():
    opt = fastopt.SGD([{"params": [np.ones(2)], "lr": 0.1}, {"params": [np.ones(2)], "lr": 0.2}])
    twin = fastopt.SGD([{"params": (np.zeros(2),)}, {"params": (np.zeros(2),)}])
    twin.load_state_dict(opt.state_dict())
    assert [group["lr"] for group in twin.param_groups] == [0.1, 0.2]


def test_the_vectors_of_lbfgs_are_reordered():
    def closure_of(params):
        def closure():
            gap = {"a": params["a"] - [1.0, 3.0], "b": params["b"] + 2.0, "c": params["c"]}
            grads = {"a": gap["a"], "b": 3 * gap["b"], "c": 10 * gap["c"]}
            return sum(float((grads[key] * gap[key]).sum()) / 2 for key in gap), grads

        return closure

    rng = np.random.default_rng(0)
    params = {"a": rng.random(2), "b": rng.random((2, 3)), "c": rng.random(4)}
    moved = {key: params[key].copy() for key in "cab"}
    opt, twin = (fastopt.LBFGS(each, max_iter=3, line_search_fn="strong_wolfe") for each in (params, moved))
    for _ in range(2):
        opt.step(closure_of(params))
    twin.load_state_dict(opt.state_dict(params=True))
    ends = {"a": slice(0, 2), "b": slice(2, 8), "c": slice(8, 12)}
    order = np.concatenate([np.arange(12)[ends[key]] for key in "cab"])
    for name in ("d", "prev_flat_grad"):
        np.testing.assert_array_equal(twin.state[0][name], opt.state[0][name][order])
    for name in ("old_dirs", "old_stps"):
        assert len(opt.state[0][name]) > 1
        np.testing.assert_array_equal(twin.state[0][name], np.array(opt.state[0][name])[:, order])
    opt.step(closure_of(params))
    twin.step(closure_of(moved))
    for key, array in params.items():
        np.testing.assert_allclose(moved[key], array, rtol=1e-9)  # its sums are in another order


# Other parameters.


def refused(opt, saved):
    """Return why a state dict is refused. Nothing is changed then."""
    before = opt.state_dict(params=True)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        opt.load_state_dict(saved)
    np.testing.assert_equal(opt.state_dict(params=True), before)
    return str(caught.value).removeprefix("state_dict does not fit: ")


A, B, C = np.ones(2), np.ones((2, 3)), np.ones(4)
AB = {"a": A, "b": B}


@pytest.mark.parametrize(
    ("had", "has", "message"),
    [
        (AB, {"a": A, "renamed": B}, "parameters of param_groups[0] differ: only the optimizer has params['renamed']; only the state_dict has params['b']"),
        (AB, {**AB, "c": C}, "parameters of param_groups[0] differ: only the optimizer has params['c']"),
        (AB, {"b": B}, "parameters of param_groups[0] differ: only the state_dict has params['a']"),
        (AB, [A, B], "parameters of param_groups[0] differ: only the optimizer has params[0], params[1]; only the state_dict has params['a'], params['b']"),
        ({"a": A}, A, "parameters of param_groups[0] differ: only the optimizer has params; only the state_dict has params['a']"),
        ([A] * 9, {}, "parameters of param_groups[0] differ: only the state_dict has params[0], params[1], params[2] and 6 more"),
        (AB, {"a": A, "b": C}, "param_groups[0]: shape of params['b'] must be (4,), got (2, 3)"),
        (AB, {"b": A, "a": B}, "param_groups[0]: shape of params['b'] must be (2,), got (2, 3)"),
        ([A, C], [C, A], "param_groups[0]: shape of params[0] must be (4,), got (2,)"),
        (AB, {"a": A, "b": B.T}, "param_groups[0]: shape of params['b'] must be (3, 2), got (2, 3)"),
        (AB, {"a": A, "b": B.astype(F)}, "param_groups[0]: dtype of params['b'] must be float32, got float64"),
        ([{"params": A}, {"params": B}], A, "number of parameter groups must be 1, got 2"),
        (
            [{"params": {"a": A}}, {"params": {"b": B, "c": C}}], [{"params": AB}, {"params": {"c": C}}],
            "parameters of param_groups[0] differ: only the optimizer has params['b']; param_groups[1] of the state_dict has what is missing",
        ),
        (
            [{"params": {"a": A}}, {"params": {"a": C}}, {"params": {"b": B}}],
            [{"params": {"b": B}}, {"params": {"a": A}}, {"params": {"a": C}}],
            "parameters of param_groups[0] differ: only the optimizer has params['b']; only the state_dict has params['a']; param_groups[2] of the state_dict has what is missing",
        ),
        (
            [{"params": {"a": A}}, {"params": {"b": C}}], [{"params": {"b": B}}, {"params": {"a": A}}],
            "param_groups[1]: shape of params[0]['params']['b'] must be (2, 3), got (4,)",
        ),
    ],
)  # fmt: skip
def test_other_parameters(had, has, message):
    had, has = (
        [{**each, "params": copy.deepcopy(each["params"])} for each in given]
        if isinstance(given, list) and isinstance(given[0], dict)
        else [each.copy() for each in given] if isinstance(given, list) else copy.deepcopy(given)
        for given in (had, has)
    )  # fmt: skip
    assert refused(fastopt.SGD(has, momentum=0.9), fastopt.SGD(had, momentum=0.9).state_dict()) == message


class Key:
    """A key that does not show which it is."""

    def __repr__(self):
        return "key"


def test_names_that_are_not_unique():
    one, other = (
        {Key(): np.ones(2), "a": np.ones(1), Key(): np.ones(3)},
        {Key(): np.ones(2), Key(): np.ones(3), "a": np.ones(1)},
    )
    saved = fastopt.SGD(one).state_dict()
    fastopt.SGD({Key(): np.ones(2), "a": np.ones(1), Key(): np.ones(3)}).load_state_dict(saved)
    assert refused(fastopt.SGD(other), saved) == "parameters in another order need names that differ"


# What has been tampered with.


def group_of(saved, number=0):
    return saved["param_groups"][number]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("version"), "state_dict must be what state_dict() returned; state_dict has no 'version'"),
        (lambda s: s.pop("step_count"), "state_dict must be what state_dict() returned; state_dict has no 'step_count'"),
        (lambda s: s.pop("options"), "state_dict must be what state_dict() returned; state_dict has no 'options'"),
        (lambda s: group_of(s, 1).pop("steps"), "state_dict must be what state_dict() returned; param_groups[1] has no 'steps'"),
        (lambda s: s.update(param_groups={}), "state_dict must be what state_dict() returned; param_groups is a dict"),
        (lambda s: group_of(s).update(names="ab"), "state_dict must be what state_dict() returned; param_groups[0]['names'] is a str"),
        (lambda s: group_of(s).update(state=[]), "state_dict must be what state_dict() returned; param_groups[0]['state'] is a list"),
        (
            lambda s: group_of(s)["state"].update(exp_avg=None),
            "state_dict must be what state_dict() returned; param_groups[0]['state']['exp_avg'] is None",
        ),
        (lambda s: s.update(version=1), "version must be 2, got 1"),
        (lambda s: s.update(version=99, algorithm=None), "version must be 2, got 99"),
        (lambda s: s.update(algorithm="SGD"), "algorithm must be Adam, got SGD"),
        (lambda s: s["param_groups"].pop(), "number of parameter groups must be 2, got 1"),
        (lambda s: s.update(step_count=1.0), "step_count must be a whole number >= 0, got 1.0"),
        (lambda s: s.update(step_count=-1), "step_count must be a whole number >= 0, got -1"),
        (
            lambda s: group_of(s, 1).update(steps=[1, True]),
            "param_groups[1]: number of steps of params[1]['params'][1] must be a whole number >= 0, got True",
        ),
        (lambda s: group_of(s)["steps"].pop(), "param_groups[0]['steps']: number of items must be 2, got 1"),
        (lambda s: group_of(s)["state"]["exp_avg"].pop(), "param_groups[0]['state']['exp_avg']: number of items must be 2, got 1"),
        (
            lambda s: group_of(s)["state"]["exp_avg"].__setitem__(0, np.ones(3)),
            "param_groups[0]['state']['exp_avg'] of params[0]['params']['w']: shape must be (3, 4), got (3,)",
        ),
        (
            lambda s: group_of(s)["state"]["exp_avg"].__setitem__(0, np.ones((3, 4), F)),
            "param_groups[0]['state']['exp_avg'] of params[0]['params']['w']: dtype must be float64, got float32",
        ),
        (
            lambda s: group_of(s)["state"]["exp_avg"].__setitem__(1, None),
            "param_groups[0]['state']['exp_avg'] of params[0]['params']['f'] must be an array, got None",
        ),
        (
            lambda s: group_of(s)["state"]["exp_avg"].__setitem__(1, [[1.0] * 3] * 2),
            "param_groups[0]['state']['exp_avg'] of params[0]['params']['f'] must be an array, got a list",
        ),
        (lambda s: group_of(s)["state"].pop("exp_avg"), "param_groups[0]: names of the state must be ['exp_avg', 'exp_avg_sq'], got ['exp_avg_sq']"),
        (
            lambda s: group_of(s)["hyperparameters"].update(amsgrad=True),
            "param_groups[0]: names of the state must be "
            "['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'], got ['exp_avg', 'exp_avg_sq']",
        ),
        (lambda s: group_of(s)["hyperparameters"].update(speed=1), "unknown hyperparameter 'speed'"),
        (lambda s: group_of(s)["hyperparameters"].update(lr=-1), "lr must be a finite number >= 0, or a schedule of such; got -1"),
        (
            lambda s: group_of(s)["hyperparameters"].update(cautious_weight_decay=True),
            "Adam has no decoupled weight decay: no cautious_weight_decay=True",
        ),
        (lambda s: group_of(s)["params"].pop(), "param_groups[0]['params']: number of items must be 2, got 1"),
        (
            lambda s: group_of(s)["params"].__setitem__(0, np.ones(12)),
            "param_groups[0]['params'] of params[0]['params']['w']: shape must be (3, 4), got (12,)",
        ),
        (
            lambda s: group_of(s)["own_schedules"].__setitem__(1, None),
            "state_dict must be what state_dict() returned; param_groups[0]['own_schedules'] of params[0]['params']['f'] is None",
        ),
        (
            lambda s: group_of(s)["params"].__setitem__(0, None),
            "param_groups[0]['params'] of params[0]['params']['w'] must be an array, got None",
        ),
    ],
)  # fmt: skip
def test_a_state_dict_that_does_not_fit_changes_nothing(change, message):
    opt = make_groups()
    saved = opt.state_dict(params=True)
    change(saved)
    assert refused(opt, saved) == message


def test_what_is_no_state_dict():
    opt = make_groups()
    for given in (None, [], "file.npz", fastopt):
        assert (
            refused(opt, given)
            == "state_dict must be what state_dict() returned; state_dict has no 'version'"
        )


def test_state_of_one_leaf_alone_must_be_none_elsewhere():
    """SOAP has factors for matrices only."""
    opt = fastopt.SOAP({"w": np.ones((2, 3)), "b": np.ones(3)})
    saved = opt.state_dict()
    assert group_of(saved)["state"]["Q_left"][1] is None
    group_of(saved)["state"]["Q_left"][1] = np.ones((3, 3))
    assert (
        refused(opt, saved) == "param_groups[0]['state']['Q_left'] of params['b'] must be None, got a ndarray"
    )
