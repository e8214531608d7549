"""Groups with settings for single arrays: their own, those that change, arrays that are frozen, copies."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import BY_ID, assert_same, step, values
from tests.small_model import NAMES, falling, flat, large, model, set_gradients, small

F = np.float32


# --- what groups say


def test_a_group_says_more_than_the_optimizer_and_for_itself_alone():
    a, b = {"w": np.ones((2, 2)), "b": np.ones(2)}, {"w": np.ones((2, 2)), "b": np.ones(2)}
    second = {
        "params": b, "weight_decay": 0.75, "no_decay": "w", "frozen": lambda name, array: name == "b",
        "overrides": {"*": {"lr": 2.0}},
    }  # fmt: skip
    opt = fastopt.AdamW(
        [{"params": a}, second], no_decay=small, overrides={"w": {"lr": 1.0, "lr_scale": 0.5}}
    )
    assert [group.overrides for group in opt.param_groups] == [
        {"w": {"lr": 1.0, "lr_scale": 0.5}, "b": {"weight_decay": 0.0}},
        {"w": {"lr": 2.0, "lr_scale": 0.5, "weight_decay": 0.0}, "b": {"frozen": True}},
    ]
    assert "no_decay" not in opt.param_groups[1]
    assert opt.param_groups[1]["weight_decay"] == 0.75


def test_a_pattern_of_the_optimizer_may_fit_in_any_group():
    groups = [{"params": {"w": np.ones(1)}}, {"params": {"v": np.ones(1)}}]
    opt = fastopt.SGD(groups, frozen=["v", "w"])
    assert [group.overrides for group in opt.param_groups] == [
        {"w": {"frozen": True}},
        {"v": {"frozen": True}},
    ]
    with pytest.raises(ValueError, match=r"^frozen: no array has a name like 'x'; the names are 'w', 'v'$"):
        fastopt.SGD(groups, frozen="x")
    groups[1]["frozen"] = "w"
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fastopt.SGD(groups)
    assert str(caught.value) == "params[1]['frozen']: no array has a name like 'w'; the names are 'v'"


def test_parts_of_a_pack_with_overrides():
    pack = fastopt.pack(model())
    opt = fastopt.SGD(
        [
            {"params": pack["layers"], "overrides": {"0.b": {"lr": 0.5}}},
            {"params": pack["head"], "frozen": "w"},
        ],
        lr=1.0,
    )
    before = pack.flat.copy()
    pack.flat_grads[:] = 1
    opt.step()
    moved = (before - pack.flat).round(6)
    assert moved.tolist() == [0] * 10 + [1] * 6 + [0.5] * 3 + [0] * 6 + [1] * 2
    assert len(opt._arrangement.launches) == 1


def test_groups_that_are_added():
    a, b = np.ones((2, 2)), {"w": np.ones((2, 2)), "b": np.ones(2)}
    opt = fastopt.SGD(a, lr=1.0, weight_decay=0.5, no_decay=small)
    opt.step(np.ones((2, 2)))
    for wrong, message in (
        ({"frozen": "v"}, r"^params\[1\]\['frozen'\]: no array has a name like 'v'; the names are 'w', 'b'$"),
        (
            {"overrides": {"w": {"x": 1}}},
            r"^unknown hyperparameter 'x' in params\[1\]\['overrides'\]\['w'\]; known",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            opt.add_param_group({"params": b, **wrong})
        assert len(opt.param_groups) == 1
    opt.add_param_group({"params": b, "overrides": {"w": {"frozen": True}}})
    assert opt.param_groups[1].overrides == {"w": {"frozen": True}, "b": {"weight_decay": 0.0}}
    opt.step([np.zeros((2, 2)), {"w": None, "b": np.zeros(2)}])
    assert (a[0, 0], b["w"][0, 0], b["b"][0]) == (-0.25, 1, 1)
    assert [group["steps"] for group in opt.state_dict()["param_groups"]] == [[2], [0, 1]]


# --- what changes later


def test_the_groups_values_hold_where_they_are_not_overridden():
    params = [np.zeros(1) for _ in range(3)]
    opt = fastopt.SGD(params, lr=1.0, overrides={"1": {"lr": 0.25}, "2": {"lr_scale": 0.5}})
    grads = [np.ones(1)] * 3
    total = np.zeros(3)

    def check(*moves, **options):
        nonlocal total
        opt.step(grads, **options)
        total = total + moves
        assert [w[0] for w in params] == (-total).tolist()

    check(1.0, 0.25, 0.5)
    opt.param_groups[0]["lr"] = 4.0
    check(4.0, 0.25, 2.0)
    opt.param_groups[0]["lr"] = lambda count: count  # 2 steps are taken
    check(2.0, 0.25, 1.0)
    check(3.0, 0.25, 1.5)
    check(8.0, 8.0, 4.0, lr=8.0)  # in place of all
    check(5.0, 0.25, 2.5)
    opt.param_groups[0]["maximize"] = True
    check(-6.0, -0.25, -3.0)


def test_a_change_of_the_group_may_change_the_rules_of_some():
    opt = fastopt.SGD({"a": np.zeros(1), "b": np.zeros(1)}, lr=1.0, overrides={"b": {"momentum": 0.0}})
    grads = {"a": np.ones(1), "b": np.ones(1)}
    opt.step(grads)
    assert opt.state == [{}]
    opt.param_groups[0]["momentum"] = 0.5
    opt.step(grads)
    assert opt.state[0]["momentum_buffer"]["b"] is None
    assert opt.state[0]["momentum_buffer"]["a"].tolist() == [1.0]


def test_what_holds_for_an_array_is_a_mapping_like_its_group():
    opt = fastopt.AdamW(model(), overrides={"head.w": {"lr": 0.5, "betas": (0.5, 0.5), "lr_scale": 3.0}})
    group = opt.param_groups[0]
    overlay = opt._groups[0].leaves[3].group
    assert (list(overlay), len(overlay)) == (list(group), len(group))
    assert dict(overlay) == {**group, "lr": 0.5, "betas": (0.5, 0.5)}
    group["eps"] = group["lr"] = 0.25
    assert (overlay["eps"], overlay["lr"], overlay["params"]) == (0.25, 0.5, group["params"])


def test_a_schedule_out_of_range_writes_nothing():
    w = {"a": np.ones(1), "b": np.ones(1)}
    opt = fastopt.SGD(w, overrides={"b": {"lr": lambda count: -1.0}})
    with pytest.raises(ValueError, match=r"^lr must be a finite number >= 0; got -1.0$"):
        opt.step({"a": np.ones(1), "b": np.ones(1)})
    opt = fastopt.SGD(w, lr=1e308, overrides={"b": {"lr_scale": 1e10}})
    with pytest.raises(ValueError, match=r"^lr must be a finite number >= 0; got inf$"):
        opt.step({"a": np.ones(1), "b": np.ones(1)})
    assert (w["a"][0], w["b"][0]) == (1, 1)


def test_corrected_weight_decay_goes_by_the_schedule_and_not_by_lr_scale():
    params = [np.ones(3), np.ones(3)]
    opt = fastopt.AdamW(
        params, lr=falling, weight_decay=0.5, corrected_weight_decay=0.1, overrides={"1": {"lr_scale": 0.5}}
    )
    # as in a group whose schedule has half the height
    other = fastopt.AdamW(
        np.ones(3), lr=lambda count: 0.5 * falling(count), weight_decay=0.5, corrected_weight_decay=0.05
    )
    for _ in range(4):
        opt.step([np.ones(3)] * 2)
        other.step(np.ones(3))
    np.testing.assert_array_equal(params[1], other.param_groups[0]["params"])
    opt.step([np.ones(3)] * 2, lr=0.05)
    other.step(np.ones(3), lr=0.025)
    np.testing.assert_array_equal(params[1], other.param_groups[0]["params"])


def test_the_point_ahead_goes_by_each_arrays_own_momentum():
    opt = fastopt.NAG([np.zeros(1), np.zeros(1)], lr=1.0, momentum=0.5, overrides={"1": {"momentum": 0.25}})
    step(opt, [np.ones(1)] * 2)
    with opt.lookahead() as ahead:
        assert [w[0] for w in ahead] == [-1.5, -1.25]


def test_estimates_of_the_hessian_go_by_each_arrays_own_beta():
    opt = fastopt.Sophia([np.ones(1), np.ones(1)], betas=(0.5, 0.5), overrides={"1": {"betas": (0.5, 0.75)}})
    opt.update_hessian([np.ones(1)] * 2)
    assert [h[0] for h in opt.state[0]["hessian"]] == [0.5, 0.25]


# --- frozen arrays


@pytest.mark.parametrize("packed", [False, True], ids=["arrays", "pack"])
def test_a_frozen_array_stays_and_has_no_state(packed):
    params = fastopt.pack(model()) if packed else model()
    tree = params.params if packed else params
    before = [w.copy() for w in flat(tree)]
    opt = fastopt.AdamW(params, lr=0.5, frozen=["embedding.*", "*.b"], ema_decay=0.5)
    for count in range(2):
        grads = model(seed=count + 1)
        if packed:
            params.flat_grads[:] = 1
        opt.step(None if packed else grads)
    for name, now, then in zip(NAMES, flat(tree), before, strict=True):
        assert np.array_equal(now, then) == (name not in ("layers.0.w", "head.w"))
    for state in opt.state[0].values():
        assert [array is None for array in flat(state)] == [True, False, True, False, True]
    assert opt.state_dict()["param_groups"][0]["steps"] == [0, 2, 0, 2, 0]


@pytest.mark.parametrize(
    "grad", [None, "nothing", np.ones(1), np.full(2, np.nan), fastopt.Rows([0], np.ones((1, 2)))]
)
def test_the_gradient_of_a_frozen_array_may_be_anything(grad):
    w, kept = {"a": np.ones(2), "b": np.ones(2)}, np.ones(2)
    opt = fastopt.SGD(w, lr=0.5, momentum=0.5, frozen="a")
    for _ in range(2):
        opt.step({"a": grad, "b": np.ones(2)})
    np.testing.assert_array_equal(w["a"], kept)
    np.testing.assert_array_equal(w["b"], [-0.25, -0.25])
    with pytest.raises(ValueError, match=r"^grads must have the keys \['a', 'b'\], got \['b'\]$"):
        opt.step({"b": np.ones(2)})
    with pytest.raises(TypeError, match=r"^grads\['b'\] must be an array of float64"):
        opt.step({"a": grad, "b": "x"})


def test_a_frozen_array_may_be_read_only_but_no_parameter_twice():
    w = {"a": np.ones(2), "b": np.ones(2)}
    w["a"].flags.writeable = False
    opt = fastopt.SGD(w, lr=0.5, frozen="a")
    opt.step({"a": None, "b": np.ones(2)})
    assert w["b"].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"^params\['a'\] must be writeable"):
        fastopt.SGD(w, frozen="b")
    with pytest.raises(ValueError, match=r"^params\['a'\] and params\['b'\] are the same array"):
        fastopt.SGD({"a": w["b"], "b": w["b"]}, frozen="a")
    with pytest.raises(TypeError, match=r"^params\['a'\] must be a NumPy array of float32 or float64"):
        fastopt.SGD({"a": np.ones(2, int)}, frozen="a")


def test_all_may_be_frozen():
    params = model()
    opt = fastopt.Prodigy(params, frozen="*")
    opt.step(params)
    opt.step(None)
    assert opt.step_count == 2
    np.testing.assert_equal(params, model())
    assert opt.state == [{}]


def test_arrays_outside_of_packs_need_no_gradients_if_they_are_frozen():
    pack = fastopt.pack(np.ones(2))
    table = np.ones(3)
    opt = fastopt.SGD([{"params": table, "frozen": "*"}, {"params": pack}], lr=0.5)
    pack.flat_grads[:] = 1
    opt.step()
    assert (pack.flat.tolist(), table.tolist()) == ([0.5, 0.5], [1, 1, 1])


@pytest.mark.parametrize("name", ["prodigy", "dog"])
def test_frozen_arrays_are_no_part_of_what_is_measured(name):
    """The estimates are those of a model without them."""
    case = BY_ID[name]
    params, twins = model(), model()
    kept = params["embedding"]["w"].copy()
    opt = case.optimizer(params, frozen="embedding.*")
    del twins["embedding"]
    other = case.optimizer(twins)
    for count in range(4):
        grads = model(seed=count + 1)
        opt.step(grads)
        other.step({key: grads[key] for key in twins})
        first, *rest = values(opt)
        assert_same(rest, values(other))
        assert_same([first], [{"params": kept}])


def test_frozen_arrays_are_no_part_of_the_norm_nor_cause_a_skip():
    params, twins = model(), model()
    options = {"max_grad_norm": 0.5, "skip_nonfinite": True, "ema_decay": 0.5}
    opt = fastopt.AdamW(params, frozen="head.w", overrides={"*.b": {"lr_scale": 0.5}}, **options)
    kept = twins["head"].pop("w")
    other = fastopt.AdamW(twins, overrides={"*.b": {"lr_scale": 0.5}}, **options)
    for count in range(3):
        grads = model(seed=count + 1)
        grads["head"]["w"].fill(np.nan)
        opt.step(grads)
        del grads["head"]["w"]
        other.step(grads)
        assert opt.grad_norm == other.grad_norm > 0.5
        got = values(opt)
        assert_same([got.pop(3)], [{"params": kept}])
        assert_same(got, values(other))
    assert (opt.step_count, opt.skipped_nonfinite) == (3, 0)


def test_the_gradients_of_frozen_arrays_of_a_pack_are_zeroed_with_the_others():
    pack = fastopt.pack(model())
    opt = fastopt.SGD(pack, frozen=["embedding.w", "head.w"], overrides={"*.b": {"lr": 1}}, zero_grads=True)
    before = pack.params["head"]["w"].copy()
    pack.flat_grads[:] = 1
    opt.step()
    assert not pack.flat_grads.any()
    np.testing.assert_array_equal(pack.params["head"]["w"], before)


def test_the_averages_of_arrays_that_have_none_are_the_arrays():
    params = model()
    opt = fastopt.SGD(params, lr=0.5, frozen="head.w", overrides={"layers.*": {"ema_decay": 0.5}})
    kept = params["head"]["w"].copy()
    opt.step(model(seed=1))
    now = params["head"]["b"].copy(), opt.state[0]["ema"]["layers"][0]["w"].copy()
    with opt.averaged_parameters():
        np.testing.assert_array_equal(params["head"]["w"], kept)
        np.testing.assert_array_equal(params["head"]["b"], now[0])
        np.testing.assert_array_equal(params["layers"][0]["w"], now[1])


@pytest.mark.parametrize("name", ["nag", "schedule_free_sgd", "sophia", "muon", "lamb"])
def test_frozen_arrays_of_optimizers_that_do_more(name):
    case = BY_ID[name]
    params, twins = model(), model()
    kept = params["head"]["w"].copy()
    opt = case.optimizer(params, frozen="head.w", overrides={"head.b": {"lr_scale": 0.5}})
    del twins["head"]["w"]
    other = case.optimizer(twins, overrides={"head.b": {"lr_scale": 0.5}})
    for count in range(4):
        grads = model(seed=count + 1)
        without = copy.deepcopy(grads)
        del without["head"]["w"]
        if name == "sophia":
            opt.update_hessian({**grads, "head": {"w": "nothing", "b": grads["head"]["b"]}})
            other.update_hessian(without)
        if name == "nag":
            with opt.lookahead() as ahead:
                assert np.array_equal(ahead["head"]["w"], kept)
                assert not count or not np.array_equal(ahead["head"]["b"], values(opt)[4]["velocity"])
        step(opt, grads)
        step(other, without)
        if name == "schedule_free_sgd":
            for each in (opt, other):
                each.eval()
        got = values(opt)
        assert_same([got.pop(3)], [{"params": kept}])
        assert_same(got, values(other))
        if name == "schedule_free_sgd":
            for each in (opt, other):
                each.train()


# --- going on elsewhere


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict"])
@pytest.mark.parametrize("name", ["adamw", "schedule_free_adamw", "prodigy"])
def test_goes_on_bit_for_bit(name, way):
    case = BY_ID[name]
    options = {
        "no_decay": lambda name, array: array.ndim < 2,
        "frozen": "embedding.*",
        "overrides": {large: {"lr_scale": 0.5}, "head.b": {"maximize": True, "lr": falling}},
    }
    if name == "adamw":
        options["overrides"]["head.*"] = {"ema_decay": 0.5}
    params = fastopt.pack(model())
    opt = case.optimizer(params, **options)

    def go(opt, seed):
        pack = opt.param_groups[0]["params"]
        set_gradients(pack, model(seed=seed))
        opt.step()
        return values(opt)

    for seed in (1, 2):
        go(opt, seed)
    if way == "state_dict":
        twin = case.optimizer(copy.deepcopy(params), **{**options, "lr": 123.0})
        twin.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    else:
        twin = copy.deepcopy(opt) if way == "deepcopy" else pickle.loads(pickle.dumps(opt))
    assert twin.param_groups[0].overrides == opt.param_groups[0].overrides
    assert_same(values(twin), values(opt))
    for seed in (3, 4):
        assert_same(go(twin, seed), go(opt, seed))
    opt.param_groups[0]["lr"] = twin.param_groups[0]["lr"] = 0.25
    assert_same(go(twin, 5), go(opt, 5))


def test_a_pickle_knows_patterns_and_says_what_it_has_lost():
    opt = fastopt.AdamW({"w": np.ones(2)}, no_decay="w")
    twin = pickle.loads(pickle.dumps(opt))
    twin.add_param_group({"params": {"w": np.ones(3), "v": np.ones(4)}})
    assert twin.param_groups[1].overrides == {"w": {"weight_decay": 0.0}}
    opt = fastopt.AdamW({"w": np.ones(2)}, overrides={("w", small): {"lr": 1.0}})
    twin = copy.deepcopy(opt)
    twin.add_param_group({"params": np.ones(3)})
    assert twin.param_groups[1].overrides == {"": {"lr": 1.0}}
    twin = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(opt))))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        twin.add_param_group({"params": np.ones(3)})
    assert str(caught.value) == (
        "overrides[('w', small)] has a function, and this optimizer comes from a pickle, which holds no "
        "functions: it cannot tell what holds for another group"
    )
    assert len(twin.param_groups) == 1


def test_a_schedule_of_an_override_is_copied_once():
    """One that keeps something in mind belongs to the copy alone, and to all that share it."""

    class Halving:
        rate = 1.0

        def __call__(self, count):
            return self.rate

    schedule = Halving()
    opt = fastopt.SGD([np.zeros(1), np.zeros(1)], overrides={"*": {"lr": schedule}})
    twin = copy.deepcopy(opt)
    theirs = [own["lr"] for own in twin.param_groups[0].overrides.values()]
    assert theirs[0] is theirs[1] is not schedule
    twin.add_param_group({"params": np.zeros(1)})
    assert twin.param_groups[1].overrides[""]["lr"] is theirs[0]


def test_a_state_dict_of_other_frozen_arrays_does_not_fit():
    opt = fastopt.Adam({"a": np.ones(2), "b": np.ones(2)}, frozen="a")
    other = fastopt.Adam({"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(
        ValueError, match=r"^state_dict does not fit: .* of params\['a'\] must be an array, got None$"
    ):
        other.load_state_dict(opt.state_dict())
    opt.load_state_dict(opt.state_dict())


def test_a_loaded_value_holds_where_it_is_not_overridden():
    saved = fastopt.SGD({"a": np.zeros(1), "b": np.zeros(1)}, lr=0.5, momentum=0.5).state_dict()
    w = {"a": np.zeros(1), "b": np.zeros(1)}
    opt = fastopt.SGD(w, lr=2.0, momentum=0.25, overrides={"b": {"lr": 0.25}})
    opt.load_state_dict(saved)
    opt.step({"a": np.ones(1), "b": np.ones(1)})
    assert (w["a"][0], w["b"][0]) == (-0.5, -0.25)
    plain = fastopt.SGD({"a": np.zeros(1), "b": np.zeros(1)}, overrides={"b": {"momentum": 0.5}})
    with pytest.raises(ValueError, match=r"names of the state must be \['momentum_buffer'\], got \[\]$"):
        plain.load_state_dict(fastopt.SGD({"a": np.zeros(1), "b": np.zeros(1)}).state_dict())
