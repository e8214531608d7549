"""States of optax, with its names and NumPy's arrays: neither optax nor jax is needed to read and write them."""

from collections import namedtuple

import numpy as np
import pytest

import fastopt
from fastopt.exchange import from_optax, to_optax
from fastopt.exchange.peers import OPTAX
from tests.exchange.refusal import refused

F = np.float32
ScaleByAdamState = namedtuple("ScaleByAdamState", "count mu nu")
ScaleByAmsgradState = namedtuple("ScaleByAmsgradState", "count mu nu nu_max")
ScaleByLionState = namedtuple("ScaleByLionState", "count mu")
ScaleByBeliefState = namedtuple("ScaleByBeliefState", "count mu nu")
ScaleByAdemamixState = namedtuple("ScaleByAdemamixState", "count count_m2 m1 m2 nu")
ScaleByScheduleState = namedtuple("ScaleByScheduleState", "count")
WeightDecaySchedule = namedtuple("WeightDecaySchedule", "count")
MaskedState = namedtuple("MaskedState", "inner_state")
MaskedNode = namedtuple("MaskedNode", "")
PartitionState = namedtuple("PartitionState", "inner_states")
MultiStepsState = namedtuple(
    "MultiStepsState", "mini_step gradient_step inner_opt_state acc_grads skip_state"
)
InjectHyperparamsState = namedtuple("InjectHyperparamsState", "count hyperparams inner_state")
EmptyState = namedtuple("EmptyState", "")
TraceState = namedtuple("TraceState", "trace")


def adam_state(count=3, **shapes):
    """Return a state for arrays of these shapes, masked where there is None."""

    def tree(value):
        return {
            name: MaskedNode() if shape is None else np.full(shape, value) for name, shape in shapes.items()
        }

    return ScaleByAdamState(np.int32(count), tree(2.0), tree(4.0))


def zeros(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def test_dicts_are_matched_by_their_keys():
    opt = fastopt.AdamW(zeros(w=(2, 3), b=3), lr=0.5)
    state = adam_state(b=3, w=(2, 3))
    state.mu["b"][:] = 5.0
    found = from_optax((state, EmptyState()), opt)
    state.mu["b"][:] = 9.0  # copied
    opt.load_state_dict(found)
    assert opt.step_count == 3
    assert opt.state[0]["exp_avg"]["b"].tolist() == [5.0] * 3
    assert opt.state[0]["exp_avg_sq"]["w"].tolist() == [[4.0] * 3] * 2
    assert opt.param_groups[0]["lr"] == 0.5
    made = to_optax(opt, (adam_state(b=3, w=(2, 3)), EmptyState()))
    assert (list(made[0].mu), made[0].mu["b"].tolist()) == (["b", "w"], [5.0] * 3)
    assert (made[0].count, type(made[0].count)) == (3, np.int32)
    opt.state[0]["exp_avg"]["b"][:] = 9.0  # copied
    assert made[0].mu["b"].tolist() == [5.0] * 3


def test_a_sole_array_and_packs_and_containers():
    opt = fastopt.Lion(np.zeros(2))
    opt.load_state_dict(from_optax(ScaleByLionState(7, np.ones(2)), opt))
    assert (opt.step_count, opt.state[0]["exp_avg"].tolist()) == (7, [1.0, 1.0])
    made = to_optax(opt, [ScaleByLionState(0, np.zeros(2)), None or EmptyState()])
    assert (type(made), made[0].count, made[0].mu.tolist()) == (list, 7, [1.0, 1.0])
    pair = namedtuple("pair", "w b")
    pack = fastopt.pack(pair(np.zeros(2, F), [np.zeros(1, F)]))
    opt = fastopt.Lion([{"params": pack}, {"params": np.zeros(3)}])
    mu = [pair(np.ones(2, F), (np.full(1, 2, F),)), np.full(3, 3.0)]
    opt.load_state_dict(from_optax({"lion": ScaleByLionState(np.int32(7), mu)}, opt))
    assert opt.state[0]["exp_avg"] == pair(pytest.approx(1), [pytest.approx(2)])
    assert opt.state[1]["exp_avg"].tolist() == [3.0] * 3
    made = to_optax(opt, {"lion": ScaleByLionState(np.array(0), mu)})
    assert type(made["lion"].mu[0]) is pair
    np.testing.assert_equal(made, {"lion": ScaleByLionState(np.array(7), mu)})


def test_parts_of_the_parameters():
    """Each part has a state for itself, in which the others are masked, one by one or as a whole."""
    params = {"a": np.zeros(2), "b": {"c": np.zeros(3), "d": np.zeros(1)}, "e": [np.zeros(1)]}
    one = ScaleByAdamState(4, {"a": np.full(2, 1.0), "b": MaskedNode(), "e": MaskedNode()}, None)
    one = one._replace(nu=one.mu)
    tree = {"a": MaskedNode(), "b": {"c": np.full(3, 2.0), "d": MaskedNode()}, "e": [MaskedNode()]}
    two = ScaleByAdamState(6, tree, tree)
    state = PartitionState({"one": MaskedState((one, EmptyState())), "two": MaskedState((two,))})
    opt = fastopt.Adam(params)
    opt.load_state_dict(from_optax(state, opt))
    assert opt.state_dict()["param_groups"][0]["steps"] == [4, 6, 0, 0]
    first = opt.state[0]["exp_avg"]
    assert (first["a"].tolist(), first["b"]["c"].tolist()) == ([1.0] * 2, [2.0] * 3)
    assert (first["b"]["d"].tolist(), first["e"][0].tolist()) == ([0.0], [0.0])
    np.testing.assert_equal(to_optax(opt, state), state)


def test_schedules_have_counts_of_their_own():
    opt = fastopt.AdamW(zeros(w=2), lr=lambda count: 1.0)
    state = (adam_state(3, w=2), MaskedState(WeightDecaySchedule(8)), ScaleByScheduleState(8))
    opt.load_state_dict(from_optax(state, opt))
    assert opt.step_count == 8
    assert opt.state_dict()["param_groups"][0]["steps"] == [3]
    np.testing.assert_equal(to_optax(opt, state), state)
    with refused(ValueError, "the schedules of state must be at one step, got [8, 9]"):
        from_optax((*state, ScaleByScheduleState(9)), opt)


def test_nadam_goes_on_without_a_schedule_of_its_momentum():
    opt = fastopt.NAdam(zeros(w=2), betas=(0.5, 0.75), momentum_decay=1e6)
    opt.load_state_dict(from_optax(adam_state(3, w=2), opt))
    assert opt.state[0]["mu_product"]["w"] == 0.125
    opt.load_state_dict(from_optax(adam_state(200, w=2), opt))
    assert opt.state[0]["mu_product"]["w"] == 0.0  # too small to count
    opt = fastopt.NAdam(zeros(w=2), betas=(0.5, 0.75), momentum_decay=0.004)
    opt.step({"w": np.ones(2)})
    opt.param_groups[0]["momentum_decay"] = 1e6
    product = opt.state[0]["mu_product"]["w"].item()
    with refused(
        ValueError,
        (
            f"params['w']: mu_product is {product!r}, and would be 0.5 if beta1 and momentum_decay had always "
            "been what they are, which optax takes for granted"
        ),
    ):
        to_optax(opt, adam_state(w=2))


def test_radam_with_any_eps_once_there_is_no_bias():
    opt = fastopt.RAdam(zeros(w=2), betas=(0.5, 0.5))
    steps = 52  # 0.5**52 is float64's eps
    opt.load_state_dict(from_optax(adam_state(steps, w=2), opt))
    assert to_optax(opt, adam_state(w=2)).count == steps
    with pytest.raises(ValueError, match="optax's radam adds eps after the bias correction"):
        from_optax(adam_state(steps - 1, w=2), opt)


def inject(state, **hyperparams):
    return InjectHyperparamsState(np.int32(3), {k: np.float32(v) for k, v in hyperparams.items()}, state)


def test_injected_hyperparameters():
    params = [{"params": zeros(w=2)}, {"params": zeros(w=2), "betas": (0.5, 0.5)}]
    opt = fastopt.AdamW(params, eps=lambda count: 0.5)

    def half(i, **hyperparams):
        tree = [MaskedNode(), MaskedNode()]
        tree[i] = {"w": np.ones(2)}
        return MaskedState(inject((ScaleByAdamState(3, tree, tree),), **hyperparams))

    state = PartitionState(
        {
            0: half(0, learning_rate=0.25, b1=0.75, eps=0.125, clip=1.0, eps_root=0.0),
            1: half(1, weight_decay=0.5, b2=0.25),
        }
    )
    found = from_optax(state, opt)
    assert "eps" not in found["param_groups"][0]["hyperparameters"]  # a schedule
    opt.load_state_dict(found)
    first, second = opt.param_groups
    assert (first["lr"], first["betas"], first["weight_decay"]) == (0.25, (0.75, 0.999), 0.01)
    assert (second["lr"], second["betas"], second["weight_decay"]) == (1e-3, (0.5, 0.25), 0.5)
    assert callable(first["eps"])
    first["betas"] = lambda count: (0.75, 0.999)
    from_optax(state, opt)  # b1 of a schedule is not taken over either
    np.testing.assert_equal(to_optax(opt, state), state)
    first["lr"] = second["lr"] = 0.5
    both = inject(ScaleByAdamState(0, *[[zeros(w=2), zeros(w=2)]] * 2), learning_rate=0.1, eps=0.25)
    made = to_optax(opt, both)
    assert made.hyperparams == {"learning_rate": 0.5, "eps": 0.25}
    assert both.hyperparams["learning_rate"] == F(0.1)  # it is not changed
    second["lr"] = 0.25
    with refused(
        ValueError,
        (
            "like.hyperparams['learning_rate'] is one for all parameters inside, got lr=0.5 and 0.25 of the "
            "groups of opt"
        ),
    ):
        to_optax(opt, both)


def lion(**changes):
    return ScaleByLionState(**{"count": np.int32(3), "mu": {"w": np.ones(2)}, **changes})


ADAM = adam_state(w=2)
MISPLACED = {
    "no optax": (fastopt.AdamW, {}, 3, TypeError, "{} must be a state of optax, or a tuple or dict of such; got an int"),
    "nothing": (fastopt.AdamW, {}, (EmptyState(),), ValueError, None),
    "another method": (
        fastopt.AdamW, {}, (lion(),), ValueError,
        "{}[0] is a ScaleByLionState, which fastopt has nothing for; to go on without it, give the "
        "ScaleByAdamState alone",
    ),
    "a transformation": (
        fastopt.AdamW, {}, {"a": TraceState(ADAM.mu), "b": ADAM}, ValueError,
        "{}['a'] is a TraceState, which fastopt has nothing for; to go on without it, give the "
        "ScaleByAdamState alone",
    ),
    "no AMSGrad": (
        fastopt.Adam, {}, ScaleByAmsgradState(*ADAM, ADAM.nu), ValueError,
        "{} must be a ScaleByAdamState, as params['w'] has it in opt; got a ScaleByAmsgradState",
    ),
    "AMSGrad": (
        fastopt.Adam, {"amsgrad": True}, ADAM, ValueError,
        "{} must be a ScaleByAmsgradState, as params['w'] has it in opt; got a ScaleByAdamState",
    ),
    "other keys": (
        fastopt.AdamW, {}, adam_state(v=2), ValueError, "{}.mu must have the keys ['w'], got ['v']",
    ),
    "another structure": (
        fastopt.Lion, {}, lion(mu=[np.ones(2)]), TypeError, "{}.mu must be a dict with the keys ['w'], got a list",
    ),
    "another shape": (
        fastopt.Lion, {}, lion(mu={"w": np.ones((2, 1))}), ValueError,
        "{}.mu['w'] must have the shape of params['w'], (2,); got (2, 1)",
    ),
    "another dtype": (
        fastopt.Lion, {}, lion(mu={"w": np.ones(2, F)}), ValueError,
        "{}.mu['w'] must be float64, as params['w'] is; got float32",
    ),
    "no array": (
        fastopt.Lion, {}, lion(mu={"w": 1.0}), TypeError, "{}.mu['w'] must be an array or a tensor, got a float",
    ),
    "twice": (
        fastopt.Lion, {}, {"a": lion(), "b": lion()}, ValueError, "params['w'] has state in {0}['a'] and in {0}['b']",
    ),
    "halfway": (
        fastopt.Lion, {}, MultiStepsState(1, 3, lion(), None, ()), ValueError,
        "{} is in the middle of an accumulation: mini_step must be 0, got 1",
    ),
    "maximize": (
        fastopt.Lion, {"maximize": True}, lion(), ValueError, "params['w']: maximize=True has no counterpart in optax",
    ),
    "early AMSGrad": (
        fastopt.Adam, {"amsgrad": True}, ScaleByAmsgradState(*ADAM, ADAM.nu), ValueError,
        "params['w']: AMSGrad takes the maximum after the bias correction in optax, and before it here; the two "
        "agree only once beta2**step is below 2.2e-16, got betas=(0.9, 0.999) and step 3",
    ),
    "early RAdam": (
        fastopt.RAdam, {}, ADAM, ValueError,
        "params['w']: optax's radam adds eps after the bias correction, and RAdam before it; they agree with "
        "eps=lambda count: 1e-08 * math.sqrt(1 - 0.999 ** (count + 1))",
    ),
    "NAdam's schedule": (
        fastopt.NAdam, {}, ADAM, ValueError,
        "params['w']: optax's nadam has mu = beta1 from the first step on: betas must be numbers, and "
        "momentum_decay so large that NAdam has this too, such as 1e6; got betas=(0.9, 0.999) and "
        "momentum_decay=0.004",
    ),
    "decoupled decay": (
        fastopt.Adam, {}, inject(ADAM, weight_decay=0.5), ValueError,
        "{}.hyperparams['weight_decay'] must be 0.0 for fastopt.Adam, got 0.5",
    ),
    "eps in the root": (
        fastopt.AdamW, {}, inject(ADAM, eps_root=0.5), ValueError,
        "{}.hyperparams['eps_root'] must be 0.0 for fastopt.AdamW, got 0.5",
    ),
    "two eps": (
        fastopt.AdaBelief, {"eps": 0.25}, inject(ScaleByBeliefState(*ADAM), eps=0.25, eps_root=0.5), ValueError,
        "{}.hyperparams['eps_root'] must be 0.25 for fastopt.AdaBelief, got 0.5",
    ),
    "another threshold": (
        fastopt.RAdam, {"eps": 0.0}, inject(ADAM, threshold=4.0), ValueError,
        "{}.hyperparams['threshold'] must be 5.0 for fastopt.RAdam, got 4.0",
    ),
    "an array of hyperparameters": (
        fastopt.Lion, {}, InjectHyperparamsState(3, {"eps_root": np.ones(2)}, lion()), ValueError,
        "{}.hyperparams['eps_root'] must be a number, got array([1., 1.])",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISPLACED)
def test_what_does_not_fit(name):
    cls, changes, state, error, message = MISPLACED[name]
    calls = {"state": from_optax, "like": lambda state, opt: to_optax(opt, state)}
    for place, call in calls.items():
        opt = cls(zeros(w=2), **changes)
        opt.step({"w": np.ones(2)})  # one update of three: not enough for AMSGrad and RAdam
        wanted = (
            message
            or {
                "state": "state must hold a ScaleByAdamState, which is what AdamW goes on from",
                "like": "like must hold a ScaleByAdamState, which is what AdamW goes on as",
            }[place]
        )
        if place == "like":
            wanted = wanted.replace("step 3", "step 1")
            if name == "decoupled decay":  # here the optimizer's is put in
                opt.param_groups[0]["weight_decay"] = 0.5
        with refused(error, wanted.format(place)):
            call(state, opt)


def test_counts_that_are_none():
    for given, error in ((-1, ValueError), (0.5, ValueError), (None, TypeError)):
        with refused(error, f"state.count must be a whole number >= 0, got {given!r}"):
            from_optax(lion(count=given), fastopt.Lion(zeros(w=2)))
    tree = {"w": np.ones(2)}
    with refused(ValueError, "the counts of state must be equal, got {'count': 3, 'count_m2': 4}"):
        from_optax(ScaleByAdemamixState(3, 4, tree, tree, tree), fastopt.AdEMAMix(zeros(w=2)))


def test_groups_have_one_value():
    opt = fastopt.AdamW(zeros(a=2, b=2))
    state = {
        "one": inject(adam_state(a=2, b=None), learning_rate=0.5),
        "two": inject(adam_state(a=None, b=2), learning_rate=0.25),
    }
    with refused(
        ValueError,
        (
            "state['two'].hyperparams['learning_rate'] must be the same for all parameters of a group of opt, "
            "got 0.5 and 0.25"
        ),
    ):
        from_optax(state, opt)


def test_optax_counts_once_for_all():
    opt = fastopt.AdamW(zeros(a=2, b=2))
    opt.step({"a": np.ones(2), "b": None})
    with refused(
        ValueError,
        "like has one count of updates for all of its arrays, but params['a'] has had 1 update, "
        "params['b'] has had 0 updates",
    ):
        to_optax(opt, adam_state(a=2, b=2))
    made = to_optax(opt, adam_state(a=2, b=None))
    assert (made.count, made.mu["b"]) == (1, MaskedNode())
    opt.step({"a": np.ones(2), "b": np.ones(2)})
    with refused(ValueError, "like has no state for params['b'], which has had 1 update"):
        to_optax(opt, adam_state(a=2, b=None))


def test_what_is_frozen_needs_no_state():
    opt = fastopt.AdamW(zeros(a=2, b=2), frozen="b")
    opt.load_state_dict(from_optax(adam_state(3, a=2, b=2), opt))
    assert opt.state_dict()["param_groups"][0]["steps"] == [3, 0]
    like = adam_state(0, a=2, b=2)
    made = to_optax(opt, like)
    assert (made.count, made.mu["a"].tolist()) == (3, [2.0, 2.0])
    assert made.mu["b"] is like.mu["b"]


def test_modifiers_that_optax_does_not_have():
    opt = fastopt.AdamW(zeros(w=2), cautious_weight_decay=True)
    with refused(
        ValueError, "params['w'] is updated with cautious_weight_decay=True, which only fastopt has"
    ):
        to_optax(opt, ADAM)


def test_gradients_that_have_been_added_up_are_not_lost():
    opt = fastopt.AdamW(zeros(w=2), accumulate=2)
    opt.step({"w": np.ones(2)})
    with refused(
        ValueError, "opt is in the middle of an accumulation: the gradients of 1 step would be lost"
    ):
        to_optax(opt, ADAM)
    opt.step({"w": np.ones(2)})
    assert to_optax(opt, ADAM).count == 1


@pytest.mark.parametrize("call", [lambda opt: from_optax(ADAM, opt), lambda opt: to_optax(opt, ADAM)])
def test_which_classes(call):
    with refused(
        TypeError,
        (
            "opt must be of a class whose method optax has too (AdaBelief, Adam, Adamax, AdamW, AdEMAMix, ADOPT, "
            "LAMB, Lion, NAdam, RAdam, Yogi); got a SGD"
        ),
    ):
        call(fastopt.SGD(np.zeros(2)))


def test_the_table_in_the_docstring_is_complete():
    for cls in OPTAX:
        assert f"``{cls.__name__}``" in from_optax.__doc__
