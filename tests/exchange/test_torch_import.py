"""State dicts of torch.optim, as they would come with NumPy's arrays: torch is not needed to read them."""

import sys

import numpy as np
import pytest

import fastopt
from fastopt.exchange import from_torch, to_torch
from fastopt.exchange.peers import TORCH
from tests.algorithms.cases import CASES
from tests.exchange.refusal import refused

F = np.float32
SGD = {"lr": 0.5, "momentum": 0.75, "dampening": 0.25, "weight_decay": 0.0, "nesterov": False}
ADAM = {"lr": 0.5, "betas": (0.5, 0.75), "eps": 0.125, "weight_decay": 0.0, "amsgrad": False}
TECHNICAL = {"foreach": None, "fused": True, "capturable": False, "initial_lr": 7.0, "name": "all"}


def moments(shape, dtype=float, step=3, **more):
    one = {"exp_avg": np.full(shape, 2.0, dtype), "exp_avg_sq": np.full(shape, 4.0, dtype)}
    return {"step": np.float32(step), **one, **more}


def torch_dict(states, *settings, **more):
    """Return a dict with a group for each of the settings; the first takes all but one parameter a group."""
    keys, groups = list(states), []
    for i, own in enumerate(settings):
        taken = keys[: len(keys) - (len(settings) - 1 - i)]
        keys = keys[len(taken) :]
        groups.append({**own, **TECHNICAL, **more, "params": taken})
    return {"state": {key: entry for key, entry in states.items() if entry}, "param_groups": groups}


def test_what_is_taken_over():
    params = [{"params": [np.zeros(2), np.zeros((2, 3), F)]}, {"params": np.zeros(1), "eps": 0.0}]
    opt = fastopt.Adam(params, betas=(0.1, 0.2))
    theirs = torch_dict(
        {0: moments(2), 1: moments((2, 3), F, step=5), 2: {}},
        ADAM,
        {**ADAM, "lr": 0.25, "maximize": True, "amsgrad": True},
    )
    before = opt.state_dict()
    made = from_torch(theirs, opt)
    np.testing.assert_equal(opt.state_dict(), before)  # it is not changed
    theirs["state"][0]["exp_avg"][:] = 9.0  # copied
    opt.load_state_dict(made)
    first, second = opt.param_groups
    assert (first["lr"], first["betas"], first["eps"]) == (0.5, (0.5, 0.75), 0.125)
    assert (first["maximize"], second["maximize"]) == (False, True)
    assert (second["lr"], second["eps"], second["amsgrad"]) == (0.25, 0.125, True)
    assert opt.step_count == 5
    saved = opt.state_dict()["param_groups"]
    assert [part["steps"] for part in saved] == [[3, 5], [0]]
    assert opt.state[0]["exp_avg"][1].tolist() == [[2.0] * 3] * 2
    assert opt.state[0]["exp_avg_sq"][1].dtype == F
    assert opt.state[1] == {name: np.zeros(1) for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")}
    assert opt.state[0]["exp_avg"][0].tolist() == [2.0, 2.0]


def test_schedules_and_overrides_stay():
    opt = fastopt.AdamW(
        {"w": np.zeros(2), "b": np.zeros(2)}, lr=lambda count: 1.0 / (1 + count), no_decay="b"
    )
    theirs = torch_dict({0: moments(2), 1: moments(2)}, {**ADAM, "weight_decay": 0.5})
    made = from_torch(theirs, opt, step_count=7)
    assert "lr" not in made["param_groups"][0]["hyperparameters"]
    opt.load_state_dict(made)
    assert (opt.step_count, opt.param_groups[0]["lr"](3)) == (7, 0.25)
    assert opt.param_groups[0]["weight_decay"] == 0.5
    assert dict(opt.param_groups[0].overrides["b"]) == {"weight_decay": 0.0}


def test_what_is_frozen_stays_so():
    opt = fastopt.Adam([np.zeros(2), np.zeros(3)], frozen="1")
    opt.load_state_dict(from_torch(torch_dict({0: moments(2), 1: moments(3)}, ADAM), opt))
    assert opt.state[0]["exp_avg"][1] is None
    assert opt.state_dict()["param_groups"][0]["steps"] == [3, 0]


def test_older_dicts_lack_what_was_not_invented():
    """And torch did not always mind 0 and None where there are none."""
    opt = fastopt.AdamW(np.zeros(2), maximize=True)
    theirs = torch_dict({0: moments(2)}, ADAM)
    assert "decoupled_weight_decay" not in theirs["param_groups"][0]
    opt.load_state_dict(from_torch(theirs, opt))
    assert opt.param_groups[0]["maximize"] is False


@pytest.mark.parametrize("empty", [None, {}, {"momentum_buffer": None}])
def test_the_first_momentum_is_not_dampened(empty):
    """Parameters that have no buffer yet begin as in torch; the others go on."""
    w = [np.zeros(1), np.zeros(1)]
    opt = fastopt.SGD(w)
    theirs = torch_dict({"a": empty, "b": {"momentum_buffer": np.full(1, 8.0)}}, SGD)
    opt.load_state_dict(from_torch(theirs, opt))
    assert opt.state_dict()["param_groups"][0]["steps"] == [0, 1]
    opt.step([np.ones(1), np.ones(1)])
    assert [opt.state[0]["momentum_buffer"][i].item() for i in (0, 1)] == [1.0, 0.75 * 8.0 + 0.75]


def test_sgd_does_not_count():
    theirs = torch_dict({0: {"momentum_buffer": np.ones(2)}}, SGD)
    opt = fastopt.SGD(np.zeros(2), weight_decay=lambda count: 0.5 if count == 7 else 0.0)
    with refused(
        ValueError,
        (
            "torch.optim.SGD does not count its steps, and a hyperparameter of opt is a schedule: step_count "
            "must be given"
        ),
    ):
        from_torch(theirs, opt)
    opt.load_state_dict(from_torch(theirs, opt, step_count=7))
    assert opt.step_count == 7
    assert opt.state_dict()["param_groups"][0]["steps"] == [7]
    made = from_torch(theirs, opt, step_count=0)  # but a buffer has come of a step
    assert (made["step_count"], made["param_groups"][0]["steps"]) == (0, [1])
    own = fastopt.SGD({"w": np.zeros(2)}, overrides={"w": {"lr": lambda count: 0.5}})
    with pytest.raises(ValueError, match="step_count must be given$"):
        from_torch(theirs, own)
    plain = fastopt.SGD(np.zeros(2))
    plain.load_state_dict(from_torch(torch_dict({0: {}}, {**SGD, "momentum": 0}), plain, step_count=7))
    assert (plain.step_count, plain.state) == (7, [{}])


def test_a_velocity_is_the_buffer_times_the_learning_rate():
    w = np.zeros(2, F)
    opt = fastopt.Momentum(w)
    theirs = torch_dict({0: {"momentum_buffer": np.array([4, 8], F)}}, {**SGD, "dampening": 0})
    opt.load_state_dict(from_torch(theirs, opt))
    assert opt.state[0]["velocity"].tolist() == [2.0, 4.0]
    opt.step(np.zeros(2, F))
    assert w.tolist() == [-1.5, -3.0]
    opt = fastopt.Momentum({"w": w}, overrides={"w": {"lr_scale": 2.0}})
    opt.load_state_dict(from_torch(theirs, opt))
    assert opt.state[0]["velocity"]["w"].tolist() == [4.0, 8.0]


def test_what_torch_keeps_of_nadam_goes_on_in_double():
    opt = fastopt.NAdam(np.zeros(2, F))
    settings = {**ADAM, "momentum_decay": 0.004, "decoupled_weight_decay": True}
    del settings["amsgrad"]
    theirs = torch_dict({0: moments(2, F, mu_product=np.float32(0.1))}, settings)
    opt.load_state_dict(from_torch(theirs, opt))
    product = opt.state[0]["mu_product"]
    assert (product.dtype, product.item()) == (np.float64, float(F(0.1)))
    assert opt.param_groups[0]["decoupled_weight_decay"] is True


def test_names_decide_where_torch_knows_them():
    w = {"b": np.zeros(2), "layers": [np.zeros(2), np.zeros(2)]}
    names = ["layers.0", "layers.1", "b"]
    states = {i: {"momentum_buffer": np.full(2, float(i))} for i in range(3)}
    opt = fastopt.SGD(w)
    opt.load_state_dict(from_torch(torch_dict(states, SGD, param_names=names), opt))
    first = opt.state[0]["momentum_buffer"]
    assert (first["b"][0], first["layers"][0][0], first["layers"][1][0]) == (2.0, 0.0, 1.0)
    for others in ({"param_names": ["x", "y", "z"]}, {}):  # otherwise the order does
        opt.load_state_dict(from_torch(torch_dict(states, SGD, **others), opt))
        assert opt.state[0]["momentum_buffer"]["b"][0] == 0.0


def test_averages_of_the_parameters_are_fastopts_own():
    w = np.zeros(2)
    opt = fastopt.Adam(w, ema_decay=0.5)
    w += 1.0  # the parameters arrive after the optimizer was made
    opt.load_state_dict(from_torch(torch_dict({0: moments(2)}, {**ADAM, "lr": 0.0}), opt))
    opt.step(np.ones(2))
    assert opt.state[0]["ema"].tolist() == [1.0, 1.0]
    w += 2.0
    opt.step(np.ones(2))
    assert opt.state[0]["ema"].tolist() == [2.0, 2.0]
    opt.load_state_dict(from_torch(torch_dict({0: moments(2)}, {**ADAM, "lr": 0.0}), opt))
    assert opt.state[0]["ema"].tolist() == [2.0, 2.0]  # they go on


def adam(**changes):
    return torch_dict({0: {**moments(2), **changes.pop("state", {})}}, {**ADAM, **changes})


def without(name):
    return torch_dict({0: moments(2)}, {key: value for key, value in ADAM.items() if key != name})


NOT_OF_ADAM = "it is not of torch.optim.Adam"


@pytest.mark.parametrize(
    ("theirs", "error", "message"),
    [
        (
            [1],
            TypeError,
            "state_dict must be what state_dict() of torch.optim.Adam returned; got a list",
        ),
        (
            {"model": {}},
            ValueError,
            "state_dict must be what state_dict() of torch.optim.Adam returned; it has no 'state'",
        ),
        (
            {"state": {}},
            ValueError,
            "state_dict must be what state_dict() of torch.optim.Adam returned; it has no 'param_groups'",
        ),
        (
            torch_dict({0: moments(2), 1: moments(2)}, ADAM, ADAM),
            ValueError,
            "state_dict must have as many parameter groups as opt, 1; got 2",
        ),
        (
            torch_dict({0: moments(2), 1: moments(2)}, ADAM),
            ValueError,
            "state_dict['param_groups'][0] must have as many parameters as that group of opt, 1; got 2",
        ),
        (
            {"state": {}, "param_groups": [ADAM]},
            ValueError,
            f"state_dict['param_groups'][0] has no 'params': {NOT_OF_ADAM}",
        ),
        (
            without("amsgrad"),
            ValueError,
            f"state_dict['param_groups'][0] has no 'amsgrad': {NOT_OF_ADAM}",
        ),
        (
            adam(momentum_decay=0.004),
            ValueError,
            f"state_dict['param_groups'][0] has 'momentum_decay': {NOT_OF_ADAM}",
        ),
        (
            adam(decoupled_weight_decay=True),
            ValueError,
            "state_dict['param_groups'][0]['decoupled_weight_decay'] must be False for fastopt.Adam, got True; "
            "fastopt.AdamW takes that",
        ),
        (
            adam(lr=np.ones(2)),
            ValueError,
            "state_dict['param_groups'][0]['lr'] must be a number, got array([1., 1.])",
        ),
        (
            adam(amsgrad=True),
            ValueError,
            "state_dict['state'][0] must have 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'step'; "
            "got 'step', 'exp_avg', 'exp_avg_sq'",
        ),
        (
            adam(state={"exp_avg": np.ones((1, 2))}),
            ValueError,
            "state_dict['state'][0]['exp_avg'] must have the shape of params, (2,); got (1, 2)",
        ),
        (
            adam(state={"exp_avg_sq": np.ones(2, F)}),
            ValueError,
            "state_dict['state'][0]['exp_avg_sq'] must be float64, as params is; got float32",
        ),
        (
            adam(state={"exp_avg": [1.0, 2.0]}),
            TypeError,
            "state_dict['state'][0]['exp_avg'] must be an array or a tensor, got a list",
        ),
        (
            adam(state={"step": 2.5}),
            ValueError,
            "state_dict['state'][0]['step'] must be a whole number >= 0, got 2.5",
        ),
        (
            adam(state={"step": float("inf")}),
            ValueError,
            "state_dict['state'][0]['step'] must be a whole number >= 0, got inf",
        ),
        (
            adam(state={"step": True}),
            TypeError,
            "state_dict['state'][0]['step'] must be a whole number >= 0, got True",
        ),
    ],
)
def test_what_does_not_fit(theirs, error, message):
    with refused(error, message):
        from_torch(theirs, fastopt.Adam(np.zeros(2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            SGD,
            "state_dict['param_groups'][0]['dampening'] must be 0 for fastopt.Momentum, got 0.25; "
            "fastopt.SGD takes that",
        ),
        (
            {**SGD, "dampening": 0, "nesterov": True},
            "state_dict['param_groups'][0]['nesterov'] must be False for fastopt.Momentum, got True; "
            "fastopt.SGD takes that",
        ),
        (
            {**SGD, "dampening": 0, "lr": 0},
            "lr of params must be a number above 0, got 0: velocity is momentum_buffer times lr; "
            "fastopt.SGD has the same method with torch's state",
        ),
    ],
)
def test_what_momentum_does_not_take(settings, message):
    theirs = torch_dict({0: {"momentum_buffer": np.ones(2)}}, settings)
    with refused(ValueError, message):
        from_torch(theirs, fastopt.Momentum(np.zeros(2)))


def test_steps_are_whole_numbers():
    theirs = adam()
    for given, error in ((-1, ValueError), (1.5, ValueError), ("7", TypeError), (True, TypeError)):
        with refused(error, f"step_count must be a whole number >= 0, got {given!r}"):
            from_torch(theirs, fastopt.Adam(np.zeros(2)), step_count=given)


@pytest.mark.parametrize("call", [lambda opt: from_torch(adam(), opt), to_torch])
def test_which_classes(call):
    with refused(
        TypeError,
        (
            "opt must be of a class whose method torch.optim has too (Adadelta, Adagrad, Adam, Adamax, AdamW, "
            "Momentum, NAdam, RAdam, RMSprop, Rprop, SGD); got a Lion"
        ),
    ):
        call(fastopt.Lion(np.zeros(2)))
    with refused(TypeError, "opt must be an optimizer of fastopt, got a dict"):
        call({})


def test_a_subclass_may_have_another_method():
    class Own(fastopt.Adam):
        pass

    with pytest.raises(TypeError, match=r"; got a Own$"):
        from_torch(adam(), Own(np.zeros(2)))


def test_the_table_agrees_with_the_tests_of_the_algorithms():
    """Which compare every class with torch's, by these names and factors."""
    cases = [case for case in CASES if case.torch]
    assert {case.cls for case in cases} == TORCH.keys()
    for case in cases:
        peer = TORCH[case.cls]
        assert peer.name == case.torch
        factors = {name: (theirs, case.hyper[by]) for name, (theirs, by) in peer.state.items()}
        assert factors == case.torch_state


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    opt = fastopt.SGD(np.zeros(2))
    with refused(ImportError, "to_torch needs torch, which is not installed: pip install torch"):
        to_torch(opt)
