"""Settings of single arrays: chosen as told, and the same as if each array had a group of its own."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt
from fastopt.hyperparameters import Settings
from tests import reference
from tests.algorithms.cases import BY_ID, Closeness, assert_same, draw, run_values, step, values
from tests.small_model import NAMES, falling, flat, large, launches, model, set_gradients, small

F = np.float32


def own_settings(cls=fastopt.AdamW, params=None, **options):
    """Return what overrides have made of each array."""
    return cls(model() if params is None else params, **options).param_groups[0].overrides


# --- which arrays are chosen


@pytest.mark.parametrize(
    ("matcher", "chosen"),
    [
        ("head.w", ["head.w"]),
        ("*.b", ["layers.0.b", "head.b"]),
        ("*", NAMES),
        ("layers.?.[wb]", ["layers.0.w", "layers.0.b"]),
        ("l*b", ["layers.0.b"]),
        (("head.b", "*.0.w"), ["layers.0.w", "head.b"]),
        (["head.b", ("layers.*", small)], ["layers.0.w", "layers.0.b", "head.b"]),
        (small, ["layers.0.b", "head.b"]),
        (lambda name, array: np.bool_(name.endswith("w") and array.size == 6), ["layers.0.w", "head.w"]),
        (lambda name, array: False, []),
        ([], []),
    ],
)
def test_patterns_and_functions(matcher, chosen):
    assert own_settings(no_decay=matcher) == {name: {"weight_decay": 0.0} for name in chosen}
    assert own_settings(frozen=matcher) == {name: {"frozen": True} for name in chosen}
    if not isinstance(matcher, list):
        assert own_settings(overrides={matcher: {"lr": 1}}) == {name: {"lr": 1.0} for name in chosen}


def test_upper_case_is_not_lower_case():
    with pytest.raises(ValueError, match=r"^frozen: no array has a name like 'W'; the names are 'w'$"):
        fastopt.SGD({"w": np.ones(1)}, frozen="W")


def test_a_sole_array_has_an_empty_name():
    assert own_settings(params=np.ones(3), no_decay="") == {"": {"weight_decay": 0.0}}
    assert own_settings(params=np.ones(3), no_decay=lambda name, array: name == "") != {}


def test_functions_are_asked_once_for_each_array_with_the_users_own():
    asked = []

    def ask(name, array):
        asked.append((name, array))
        return True

    params = model()
    opt = fastopt.AdamW(params, no_decay=ask)
    grads = model(seed=1)
    for _ in range(2):
        opt.step(grads)
        opt.param_groups[0]["lr"] = 0.5
    assert [name for name, _ in asked] == NAMES
    assert all(array is mine for (_, array), mine in zip(asked, flat(params), strict=True))


def test_the_later_win():
    got = own_settings(
        no_decay=small,
        frozen="head.*",
        overrides={
            "*.b": {"weight_decay": 0.5, "lr": 1, "betas": [0.5, 0]},
            "layers.*": {"lr": 2, "lr_scale": 3},
            "head.w": {"frozen": False, "lr": 4},
        },
    )
    assert got == {
        "layers.0.w": {"lr": 2.0, "lr_scale": 3.0},
        "layers.0.b": {"weight_decay": 0.5, "lr": 2.0, "betas": (0.5, 0.0), "lr_scale": 3.0},
        "head.w": {"lr": 4.0},
        "head.b": {"frozen": True},
    }


def test_what_is_shown_is_a_copy():
    opt = fastopt.SGD(model(), overrides={"head.w": {"lr": 1.0}})
    opt.param_groups[0].overrides["head.w"]["lr"] = 2.0
    assert opt.param_groups[0].overrides == {"head.w": {"lr": 1.0}}


def test_repr_counts_them():
    opt = fastopt.SGD(model(), frozen="embedding.w", overrides={"*.b": {"lr": 1}, "head.w": {"lr": 2}})
    assert repr(opt).endswith(": 27 parameters in 5 arrays (1 frozen, 3 with overrides)), 0 steps taken>")
    opt = fastopt.SGD(model(), overrides={"*.b": {"lr": 1}})
    assert repr(opt).endswith(" in 5 arrays (2 with overrides)), 0 steps taken>")


# --- errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frozen": "embeding.*"}, ValueError,
         "frozen: no array has a name like 'embeding.*'; the names are 'embedding.w', 'layers.0.w', "
         "'layers.0.b', 'head.w', 'head.b'"),
        ({"no_decay": [small, "x"]}, ValueError, "no_decay: no array has a name like 'x'; the names are "),
        ({"overrides": {("head.*", "x"): {}}}, ValueError,
         "overrides[('head.*', 'x')]: no array has a name like 'x'; the names are "),
        ({"overrides": {"head": {"lr": 1}}}, ValueError, "overrides['head']: no array has a name like 'head'; "),
        ({"frozen": True}, TypeError,
         "frozen must be a pattern of names, such as 'head.*' or '*', a function (name, array) -> bool, or a "
         "list of those; got True"),
        ({"no_decay": ["*.b", 3]}, TypeError, "no_decay must be a pattern of names, "),
        ({"overrides": {3: {}}}, TypeError, "overrides[3] must be a pattern of names, "),
        ({"overrides": [("head.*", {"lr": 1})]}, TypeError,
         "overrides must be a dict of dicts: of hyperparameters, by patterns of names or functions "
         "(name, array) -> bool; got [('head.*', {'lr': 1})]"),
        ({"overrides": {"head.*": 0.1}}, TypeError,
         "overrides['head.*'] must be a dict of hyperparameters, lr_scale or frozen; got 0.1"),
        ({"no_decay": lambda name, array: array.ndim}, TypeError,
         "no_decay: a function that chooses arrays must return True or False; for 'embedding.w' <lambda> "
         "returned 2"),
        ({"overrides": {("*", lambda name, array: None): {}}}, TypeError,
         "overrides[('*', <lambda>)]: a function that chooses arrays must return True or False; for "
         "'embedding.w' <lambda> returned None"),
        ({"overrides": {small: {"rate": 1}}}, ValueError,
         "unknown hyperparameter 'rate' in overrides[small]; known are lr, betas, eps, weight_decay, amsgrad, "
         "maximize, "),
        ({"overrides": {"*.b": {"lr": -1}}}, ValueError,
         "overrides['*.b']: lr must be a finite number >= 0, or a schedule of such; got -1"),
        ({"overrides": {"*.b": {"betas": 0.9}}}, TypeError,
         "overrides['*.b']: betas must be 2 values, each a number in [0, 1), or a schedule of such; got 0.9"),
        ({"overrides": {"*.b": {"lr_scale": -1}}}, ValueError,
         "overrides['*.b']: lr_scale must be a finite number >= 0; got -1"),
        ({"overrides": {"*.b": {"lr_scale": abs}}}, TypeError,
         "overrides['*.b']: lr_scale must be a finite number >= 0; got <built-in function abs>"),
        ({"overrides": {"*.b": {"frozen": 1}}}, TypeError,
         "overrides['*.b']: frozen must be True or False, got 1"),
    ],
)  # fmt: skip
def test_options_that_are_wrong(options, error, message):
    with pytest.raises(error) as caught:
        fastopt.AdamW(model(), **options)
    text = str(caught.value)
    assert text == message or (message[-1] in " " and text.startswith(message))


def test_an_error_lists_no_thousand_names():
    params = [np.ones(1) for _ in range(1000)]
    with pytest.raises(
        ValueError, match=r"^frozen: no array has a name like 'w'; the names are '0', .* and 960 "
    ):
        fastopt.SGD(params, frozen="w")
    with pytest.raises(ValueError, match=r"^frozen: no array has a name like 'w'; there are no arrays$"):
        fastopt.SGD([], frozen="w")


def test_a_class_without_what_is_overridden():
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fastopt.Rprop(model(), no_decay="*")
    assert str(caught.value) == "no_decay sets weight_decay to 0, which Rprop does not have"

    class Fixed(fastopt.Optimizer):
        rule = fastopt.Rule(lambda p, g, rate: p - rate * g)
        defaults = {"rate": 1.0}

    with pytest.raises(
        ValueError, match="unknown hyperparameter 'lr_scale' in overrides.* known are rate, max"
    ):
        Fixed(np.ones(1), overrides={"*": {"lr_scale": 2.0}})


@pytest.mark.parametrize("option", [{"no_decay": "*"}, {"frozen": []}, {"overrides": {}}])
def test_lbfgs_refuses(option):
    (name,) = option
    if name == "no_decay":  # which it could not have anyway
        option, name = {"frozen": "*"}, "frozen"
    message = f"^LBFGS takes no {name}: each of its moves is that of all parameters together$"
    with pytest.raises(ValueError, match=message):
        fastopt.LBFGS(model(), **option)
    with pytest.raises(ValueError, match=message):
        fastopt.LBFGS([{"params": model(), **option}])


def test_a_rule_that_cannot_be_had_is_refused_for_the_arrays_that_ask_for_it():
    with pytest.raises(ValueError, match="nesterov needs a momentum and zero dampening; got momentum=0.0"):
        fastopt.SGD(model(), momentum=0.9, nesterov=True, overrides={"head.b": {"momentum": 0.0}})


# --- what it comes to


def run_of(case, params, own):
    own = dict(own)
    scale = own.pop("lr_scale", 1.0)
    hyper = {**case.hyper, **own}
    lr = hyper["lr"]
    hyper["lr"] = (lambda count: lr(count) * scale) if callable(lr) else lr * scale
    return reference.Run(case.reference, params, **hyper)


OVERRIDES = {
    "*.b": {"betas": (0.5, 0.8), "lr": falling},
    large: {"lr_scale": 0.25, "eps": 0.5},
    "head.*": {"weight_decay": 1.5},
    "embedding.w": {"maximize": True, "weight_decay": falling},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("packed", [False, True], ids=["arrays", "pack"])
def test_each_array_follows_its_own_reference(dtype, packed):
    case = BY_ID["adamw"]
    params = fastopt.pack(model(dtype)) if packed else model(dtype)
    opt = case.optimizer(params, overrides=OVERRIDES)
    own = opt.param_groups[0].overrides
    assert list(own) == NAMES
    tree = params.params if packed else params
    runs = [run_of(case, w, own[name]) for w, name in zip(flat(tree), NAMES, strict=True)]
    close = Closeness(30, [run.params for run in runs])
    for count in range(5):
        grads = model(dtype, seed=count + 1)
        if packed:
            set_gradients(params, grads)
        opt.step(None if packed else grads)
        for run, grad in zip(runs, flat(grads), strict=True):
            run.step(grad)
        close.check(values(opt), [run_values(run) for run in runs])
    assert len(launches(opt)) == 1


#: Algorithms of every kind, and overrides that mean something there.
KINDS = {
    "adagrad": {"initial_accumulator_value": 0.5},  # which the state starts with
    "adamw": {"betas": (0.5, 0.8)},
    "nag": {"momentum": 0.5},  # which looks ahead by it
    "sophia": {"betas": (0.5, 0.8)},
    "lamb": {"eps": 0.5},  # measures each tensor
    "muon": {"momentum": 0.5},  # has rules for matrices, and for others
    "schedule_free_adamw": {"betas": (0.5, 0.8)},  # carries numbers
    "dog": {"reps_rel": 0.01},  # measures all tensors together
    "prodigy": {"d_coef": 2.0},
}


def one_group_each(params):
    """Return a list of parameter groups, one for each array of a model, or of a pack of one."""
    if isinstance(params, fastopt.Pack):
        layer = params["layers"][0]
        parts = [params["embedding"]["w"], layer["w"], layer["b"], params["head"]["w"], params["head"]["b"]]
    else:
        parts = flat(params)
    return [{"params": part} for part in parts]


def settings_given_to_groups(params, own, hyper):
    groups = one_group_each(params)
    for group, name in zip(groups, NAMES, strict=True):
        group.update(own.get(name, {}))
        if "lr_scale" in group:
            group["lr"] = group.get("lr", hyper["lr"]) * group.pop("lr_scale")
    return groups


@pytest.mark.parametrize("packed", [False, True], ids=["arrays", "pack"])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_bits_as_groups(name, packed):
    case = BY_ID[name]
    overrides = {"head.*": KINDS[name], large: {"lr_scale": 0.25}, "*.b": {"lr": 0.015625}}
    if "weight_decay" in case.hyper:
        overrides["layers.*"] = {"weight_decay": 0.0}
    make = fastopt.pack if packed else (lambda tree: tree)
    mine, others = make(model()), make(model())
    opt = case.optimizer(mine, overrides=overrides)
    groups = settings_given_to_groups(
        others, opt.param_groups[0].overrides, {"lr": opt.param_groups[0]["lr"]}
    )
    other = case.optimizer(groups)
    for count in range(4):
        grads = model(seed=count + 1)
        if name == "sophia":
            curvature = model(seed=9)
            opt.update_hessian(curvature)
            other.update_hessian(flat(curvature))
        if packed:
            for params in (mine, others):
                set_gradients(params, grads)
        step(opt, None if packed else grads)
        step(other, None if packed else flat(grads))
        assert_same(values(opt), values(other))
        if name == "schedule_free_adamw" and count == 2:
            for each in (opt, other):
                each.eval()
            assert_same(values(opt), values(other))
            for each in (opt, other):
                each.train()
    assert len(launches(opt)) == len(launches(other)) == (2 if name == "muon" else 1)


numbers = st.sampled_from([0.0, 0.25, 1.5])
one_override = st.fixed_dictionaries(
    {},
    optional={
        "lr": numbers | st.just(falling),
        "weight_decay": numbers,
        "betas": st.sampled_from([(0.5, 0.75), (0.0, 0.9)]),
        "maximize": st.booleans(),
        "lr_scale": numbers,
        "frozen": st.booleans(),
    },
)
some_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple)


@settings(max_examples=25)
@given(
    st.dictionaries(some_names, one_override, max_size=4),
    st.none() | some_names,
    st.none() | some_names,
    st.booleans(),
)
def test_any_overrides_are_what_they_say(overrides, no_decay, frozen, packed):
    chosen = {name: {"lr": 0.5, "weight_decay": 0.25, "betas": (0.75, 0.5)} for name in NAMES}
    entries = [(no_decay, {"weight_decay": 0.0}), (frozen, {"frozen": True}), *overrides.items()]
    for names, own in entries:
        for name in names or ():
            chosen[name].update(own)
    mine, others = model(), model()
    opt = fastopt.AdamW(
        fastopt.pack(mine) if packed else mine,
        lr=0.5, weight_decay=0.25, betas=(0.75, 0.5), eps=0.1,
        no_decay=no_decay, frozen=frozen, overrides=overrides,
    )  # fmt: skip
    frozen_names = {name for name in NAMES if chosen[name].pop("frozen", False)}
    kept = {name: w.copy() for name, w in zip(NAMES, flat(others), strict=True)}
    apart = {}
    for name, w in zip(NAMES, flat(others), strict=True):
        own = chosen[name]
        lr, scale = own.pop("lr"), own.pop("lr_scale", 1.0)
        own["lr"] = (lambda count, lr=lr, scale=scale: lr(count) * scale) if callable(lr) else lr * scale
        apart[name] = fastopt.AdamW(w, eps=0.1, **own)
    for count in range(3):
        grads = model(seed=count + 1)
        if packed:
            set_gradients(opt.param_groups[0]["params"], grads)
        opt.step(None if packed else grads)
        for name, grad in zip(NAMES, flat(grads), strict=True):
            apart[name].step(grad)
        for name, got in zip(NAMES, values(opt), strict=True):
            assert_same([got], [{"params": kept[name]}] if name in frozen_names else values(apart[name]))
    if len(frozen_names) < len(NAMES):
        assert len(launches(opt)) == 1


def test_rows():
    """Arrays with overrides can be given rows."""
    case = fastopt.SparseAdam, {"lr": 0.5, "eps": 0.1}
    tables = {"a": np.ones((6, 2), F), "b": np.ones((6, 2), F), "c": np.ones((6, 2), F)}
    twins = copy.deepcopy(tables)
    opt = case[0](
        tables, **case[1], overrides={"b": {"betas": (0.5, 0.5), "lr_scale": 0.5}, "c": {"frozen": True}}
    )
    apart = [case[0](twins["a"], **case[1]), case[0](twins["b"], lr=0.25, eps=0.1, betas=(0.5, 0.5))]
    rng = np.random.default_rng(0)
    for _ in range(3):
        rows = {name: fastopt.Rows(rng.permutation(6)[:3], rng.random((3, 2), F)) for name in "ab"}
        opt.step({**rows, "c": np.ones(1)})  # whatever it is, it is ignored
        for each, name in zip(apart, "ab", strict=True):
            each.step(rows[name])
        assert_same(values(opt)[:2], [values(each)[0] for each in apart])
    assert (tables["c"] == 1).all()
    assert len(launches(opt)) == 1


@pytest.mark.parametrize(
    "own",
    [
        {"ema_decay": 0.75},
        {"swa_start": 1, "swa_every": 2},
        {"lookahead_steps": 2, "lookahead_alpha": 0.25},
        {"cautious": True},
        {"max_grad_value": 0.5},
    ],
)
def test_modifiers_of_some_arrays_only(own):
    rng = np.random.default_rng(0)
    params = {"a": draw(rng, (4,), F), "b": draw(rng, (4,), F)}
    a, b = params["a"].copy(), params["b"].copy()
    opt = fastopt.AdamW(params, lr=0.5, overrides={"b": own})
    apart = fastopt.AdamW(a, lr=0.5), fastopt.AdamW(b, lr=0.5, **own)
    for _ in range(4):
        grads = {name: draw(rng, (4,), F) for name in params}
        opt.step(grads)
        for each, grad in zip(apart, grads.values(), strict=True):
            each.step(grad)
        assert_same(values(opt), [values(each)[0] for each in apart])


# --- the work of a step


def test_a_thousand_arrays_are_one_launch_and_few_cohorts(monkeypatch):
    shapes = [(3, 2) if i % 2 else (4,) for i in range(1000)]
    pack = fastopt.pack([np.ones(shape, F) for shape in shapes])
    opt = fastopt.AdamW(
        pack,
        no_decay=small,
        overrides={
            lambda name, array: int(name) % 10 == 0: {"lr_scale": 0.5},
            "*7": {"betas": (0.5, 0.5)},
        },
    )
    opt.step()
    (launch,) = launches(opt)
    assert len(launch.cohorts) == 4
    asked = []
    usual = Settings.values_at
    monkeypatch.setattr(Settings, "values_at", lambda *args: asked.append(1) or usual(*args))
    opt.step()
    assert len(asked) == 4


def test_arrays_side_by_side_with_equal_settings_are_one_segment():
    pack = fastopt.pack([np.ones(4, F) for _ in range(6)])
    opt = fastopt.AdamW(
        pack, overrides={("0", "1", "2"): {"lr": 0.5}, "2": {"lr": 0.25}, "[345]": {"lr": 0.5}}
    )
    opt.step()
    (launch,) = launches(opt)
    assert (len(launch.cohorts), len(launch.batch.table)) == (2, 3)
