"""A run that begins in optax goes on in fastopt, and the other way round: every parameter at every step."""

import math
import os
from functools import cache

import numpy as np
import pytest

import fastopt
from fastopt.exchange import from_optax, to_optax
from fastopt.exchange.peers import OPTAX
from tests.algorithms.cases import BY_ID, CASES, Closeness, assert_same, draw, values
from tests.exchange.refusal import refused

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # do not look for accelerators, nor warn that there are none
jax = pytest.importorskip("jax", reason="jax is not installed: pip install fastopt[parity]")
optax = pytest.importorskip("optax", reason="optax is not installed: pip install fastopt[parity]")
contrib = pytest.importorskip("optax.contrib", reason="optax.contrib is not there")

DECAY = 0.07
MOMENTS = {"b1": 0.8, "b2": 0.95, "eps": 1e-2}
OURS = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": DECAY}


def coupled(*transformations):
    return optax.chain(optax.add_decayed_weights(DECAY), *transformations)


def decoupled(*transformations):
    return optax.chain(*transformations, optax.add_decayed_weights(DECAY), optax.scale_by_learning_rate(0.02))


def corrected_eps(count):
    return 1e-2 * math.sqrt(1 - 0.95 ** (count + 1))


#: fastopt's class and settings, and optax's transformation; besides the cases that have one.
RUNS = {
    "adam": (fastopt.Adam, OURS, lambda: coupled(optax.adam(0.02, **MOMENTS))),
    "adamw": (fastopt.AdamW, OURS, lambda: optax.adamw(0.02, **MOMENTS, weight_decay=DECAY)),
    "adamw_schedule": (
        fastopt.AdamW,
        {**OURS, "lr": lambda count: 0.02 / (1 + count)},
        lambda: optax.chain(
            optax.clip_by_global_norm(1e9),
            optax.adamw(lambda count: 0.02 / (1 + count), **MOMENTS, weight_decay=DECAY),
        ),
    ),
    "nadam": (
        fastopt.NAdam, {**OURS, "momentum_decay": 1e6}, lambda: coupled(optax.nadam(0.02, **MOMENTS)),
    ),
    "nadamw": (
        fastopt.NAdam,
        {**OURS, "momentum_decay": 1e6, "decoupled_weight_decay": True},
        lambda: optax.nadamw(0.02, **MOMENTS, weight_decay=DECAY),
    ),
    "radam": (
        fastopt.RAdam, {**OURS, "eps": corrected_eps}, lambda: coupled(optax.radam(0.02, **MOMENTS)),
    ),
    "radam_eps_0": (
        fastopt.RAdam,
        {**OURS, "eps": 0, "decoupled_weight_decay": True},
        lambda: decoupled(optax.scale_by_radam(b1=0.8, b2=0.95, eps=0)),
    ),
}  # fmt: skip
for case in CASES:
    if case.optax and case.cls in OPTAX and case.id != "ademamix_warmup":  # makes float32 state float64
        RUNS[case.id] = case.cls, case.hyper, lambda case=case: case.optax(optax, contrib)
#: That the maximum is taken before or after the correction makes no difference once 0.2**t is below eps.
SETTLED = {**OURS, "betas": (0.8, 0.2), "amsgrad": True}
AMSGRAD = (
    fastopt.Adam, SETTLED, lambda: coupled(optax.amsgrad(0.02, b1=0.8, b2=0.2, eps=1e-2)),
)  # fmt: skip

#: Keys whose order jax changes, and both dtypes.
SHAPES = {"w": ((17, 3), "float32"), "b": ((), "float64"), "a": ((15,), "float64")}
each_run = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(autouse=True)
def _doubles():
    """Let jax have float64, powers of the betas too; and compile quickly."""
    names = ("jax_enable_x64", "jax_disable_most_optimizations")
    before = {name: jax.config.read(name) for name in names}
    for name in names:
        jax.config.update(name, True)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def random(seed):
    rng = np.random.default_rng(seed)
    return {name: draw(rng, shape, dtype) for name, (shape, dtype) in SHAPES.items()}


@cache
def transformation(name):
    """Return optax's transformation, and its step as a compiled function."""
    tx = (AMSGRAD if name == "amsgrad" else RUNS[name])[2]()

    @jax.jit
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return tx, step


class Optax:
    """A run of optax over copies of the same arrays."""

    def __init__(self, name, params):
        self.tx, self._step = transformation(name)
        self.params = jax.tree.map(jax.numpy.array, params)
        self.state = self.tx.init(self.params)

    def step(self, grads):
        self.params, self.state = self._step(grads, self.state, self.params)


def made(name, params, **changes):
    cls, hyper, _ = AMSGRAD if name == "amsgrad" else RUNS[name]
    return cls(params, **{**hyper, **changes})


def go_on_together(mine, theirs, *, steps, tol):
    """Compare the parameters after each step; the state is compared on its way back."""
    columns = {name: np.array(array) for name, array in theirs.params.items()}
    close = Closeness(tol, [columns[name] for name in SHAPES])
    for count in steps:
        grads = random(count)
        mine.step(grads)
        theirs.step(grads)
        got = [{"params": each["params"]} for each in values(mine)]
        close.check(got, [{"params": np.array(theirs.params[name], float)} for name in SHAPES])
    wanted = mine.state_dict()
    back = from_optax(theirs.state, mine)
    assert back["step_count"] == wanted["step_count"]
    for one, other in zip(back["param_groups"], wanted["param_groups"], strict=True):
        assert one["steps"] == other["steps"]
        for name, arrays in one["state"].items():
            for array, expected in zip(arrays, other["state"][name], strict=True):
                eps = np.finfo(array.dtype).eps
                np.testing.assert_allclose(array, expected, rtol=100 * eps, atol=100 * eps)


@each_run
def test_from_optax(name):
    theirs = Optax(name, random(99))
    for count in range(10):
        theirs.step(random(count))
    mine = made(name, {key: np.array(theirs.params[key]) for key in SHAPES})
    mine.load_state_dict(from_optax(theirs.state, mine))
    assert mine.step_count == 10
    assert mine.state_dict()["param_groups"][0]["steps"] == [10] * 3
    go_on_together(mine, theirs, steps=range(10, 30), tol=30)


@each_run
def test_to_optax(name):
    params = random(99)
    mine = made(name, params)
    for count in range(10):
        mine.step(random(count))
    theirs = Optax(name, params)
    theirs.state = to_optax(mine, theirs.state)
    assert jax.tree.structure(theirs.state) == jax.tree.structure(theirs.tx.init(theirs.params))
    go_on_together(mine, theirs, steps=range(10, 30), tol=30)


@each_run
def test_there_and_back_to_the_bit(name):
    params = random(99)
    mine = made(name, params)
    for count in range(10):
        mine.step(random(count))
    back = made(name, params)
    back.load_state_dict(from_optax(to_optax(mine, Optax(name, params).state), back))
    assert_same(values(back), values(mine))
    np.testing.assert_equal(back.state_dict(), mine.state_dict())


def test_amsgrad_is_the_same_once_there_is_no_bias():
    theirs = Optax("amsgrad", random(99))
    steps = math.ceil(math.log(np.finfo("float64").eps) / math.log(0.2))
    for count in range(steps - 1):
        theirs.step(random(count))
    mine = made("amsgrad", {key: np.array(theirs.params[key]) for key in SHAPES})
    with pytest.raises(ValueError, match=rf"the two agree only once beta2\*\*step .* and step {steps - 1}$"):
        from_optax(theirs.state, mine)
    theirs.step(random(steps - 1))
    for key, array in mine.param_groups[0]["params"].items():
        array[...] = theirs.params[key]
    mine.load_state_dict(from_optax(theirs.state, mine))
    twin = Optax("amsgrad", theirs.params)
    twin.state = to_optax(mine, twin.state)
    for one, other in zip(jax.tree.leaves(twin.state), jax.tree.leaves(theirs.state), strict=True):
        np.testing.assert_array_equal(one, other)
    go_on_together(mine, theirs, steps=range(steps, steps + 20), tol=30)


# What may stand around the state of the method.


def doubles(seed):
    """Return the same in float64: optax's own hyperparameters would make float32 state that too."""
    return {name: array.astype(float) for name, array in random(seed).items()}


def compiled(tx):
    """Return a step of a transformation."""

    @jax.jit
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def run(tx, params, steps, grads=random):
    """Return parameters and state after some steps."""
    params, step = jax.tree.map(jax.numpy.array, params), compiled(tx)
    state = tx.init(params)
    for count in range(steps):
        params, state = step(grads(count), state, params)
    return params, state


def assert_goes_on(tx, params, state, mine, first, last, *, tol=30, grads=random, like=None):
    """Compare the parameters after some more steps, and the state on its way back into optax."""
    mine.load_state_dict(from_optax(state, mine))
    step = compiled(tx)
    start = to_optax(mine, like or tx.init(params))
    for one, other in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)
        assert (one.dtype, type(one)) == (other.dtype, type(other))
    close = Closeness(tol, [np.array(params[name]) for name in SHAPES])
    for count in range(first, last):
        params, state = step(grads(count), state, params)
        mine.step(grads(count))
        got = [{"params": each["params"]} for each in values(mine)]
        close.check(got, [{"params": np.array(params[name], float)} for name in SHAPES])


def adamw(params, **changes):
    return fastopt.AdamW({name: np.array(params[name]) for name in SHAPES}, **{**OURS, **changes})


def test_chains_masks_and_schedules():
    tx = optax.named_chain(
        ("nothing", optax.apply_if_finite(optax.zero_nans(), 3)),
        ("clip", optax.adaptive_grad_clip(1e9)),
        ("adam", optax.apply_if_finite(optax.scale_by_adam(**MOMENTS), 3)),
        ("decay", optax.add_decayed_weights(DECAY, mask={"w": True, "b": False, "a": True})),
        ("schedule", optax.scale_by_schedule(lambda count: -0.02 / (1 + count))),
    )
    params, state = run(tx, random(99), 10)
    assert_goes_on(
        tx, params, state, adamw(params, lr=lambda count: 0.02 / (1 + count), no_decay="b"), 10, 15
    )


def test_a_schedule_that_began_anew():
    tx = optax.adamw(lambda count: 0.02 / (1 + count), **MOMENTS, weight_decay=DECAY)
    params, state = run(tx, random(99), 10)
    state = (*state[:2], state[2]._replace(count=state[2].count * 0 + 3))
    mine = adamw(params, lr=lambda count: 0.02 / (1 + count))
    assert_goes_on(tx, params, state, mine, 10, 15)
    assert mine.step_count == 8
    assert mine.state_dict()["param_groups"][0]["steps"] == [15] * 3


def test_injected_hyperparameters_are_taken_over():
    tx = optax.inject_hyperparams(optax.adamw)(
        lambda count: 0.02 / (1 + count), **MOMENTS, weight_decay=DECAY
    )
    params, state = run(tx, doubles(99), 10, doubles)
    others = {"betas": (0.5, 0.5), "eps": 1.0, "weight_decay": 0.0}
    mine = adamw(params, lr=lambda count: 0.02 / (1 + count), **others)
    like = tx.init(params)
    like.hyperparams["learning_rate"] = state.hyperparams["learning_rate"]  # what optax computes anew
    assert_goes_on(tx, params, state, mine, 10, 15, grads=doubles, like=like)
    assert {name: mine.param_groups[0][name] for name in others} == {name: OURS[name] for name in others}


def test_an_injected_schedule_leaves_the_optimizer_what_it_has():
    tx = optax.inject_hyperparams(optax.adamw)(lambda count: 0.5, **MOMENTS, weight_decay=DECAY)
    params, state = run(tx, doubles(99), 1, doubles)
    mine = adamw(params, lr=0.25)
    mine.load_state_dict(from_optax(state, mine))
    assert mine.param_groups[0]["lr"] == 0.25
    mine.param_groups[0]["eps"] = 1.0
    made = to_optax(mine, state)
    assert (float(made.hyperparams["learning_rate"]), float(made.hyperparams["eps"])) == (0.5, 1.0)


def test_accumulated_gradients():
    steps = optax.MultiSteps(optax.adamw(0.02, **MOMENTS, weight_decay=DECAY), 2, accumulator_dtype="float64")
    tx = steps.gradient_transformation()
    params, state = run(tx, random(99), 10, lambda count: random(count // 2))
    mine = adamw(params)
    mine.load_state_dict(from_optax(state, mine))
    assert mine.step_count == 5
    again = to_optax(mine, tx.init(params))
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)
    _, halfway = compiled(tx)(random(5), state, params)
    with refused(ValueError, "state is in the middle of an accumulation: mini_step must be 0, got 1"):
        from_optax(halfway, mine)


def test_parts_with_settings_of_their_own():
    """One of fastopt's groups for each of optax's labels, and a part that is frozen."""
    params = [{"w": np.ones((2, 3)), "b": np.ones(3)}, {"w": np.ones((3, 2)), "b": np.ones(2)}]
    labels = [{"w": "fast", "b": "fast"}, {"w": "slow", "b": "frozen"}]
    inject = optax.inject_hyperparams(optax.adamw)
    tx = optax.partition(
        {
            "fast": inject(0.02, weight_decay=DECAY),
            "slow": inject(0.01, b1=0.5),
            "frozen": optax.set_to_zero(),
        },
        labels,
    )
    rng = np.random.default_rng(0)
    grads = [jax.tree.map(lambda w: rng.standard_normal(w.shape), params) for _ in range(20)]
    theirs, state = run(tx, params, 10, lambda count: grads[count])
    mine = fastopt.AdamW([{"params": jax.tree.map(np.array, part)} for part in theirs])
    mine.load_state_dict(from_optax(state, mine))
    steps = [part["steps"] for part in mine.state_dict()["param_groups"]]
    assert steps == [[10, 10], [0, 10]]  # what is frozen has no state
    settings = [(group["lr"], group["betas"], group["weight_decay"]) for group in mine.param_groups]
    assert settings == [(0.02, (0.9, 0.999), DECAY), (0.01, (0.5, 0.999), 1e-4)]
    for one, other in zip(
        jax.tree.leaves(to_optax(mine, tx.init(params))), jax.tree.leaves(state), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    step = compiled(tx)
    for count in range(10, 20):
        theirs, state = step(grads[count], state, theirs)
        mine.step([grads[count][0], {**grads[count][1], "b": None}])
        for one, group in zip(theirs, mine.param_groups, strict=True):
            for name in "wb":
                np.testing.assert_allclose(group["params"][name], one[name], rtol=1e-14)


def test_moments_of_another_dtype_are_refused():
    tx = optax.adam(0.1, mu_dtype="bfloat16")
    state = tx.init({"w": jax.numpy.ones(2, "float32")})
    opt = fastopt.Adam({"w": np.ones(2, "f")})
    for call, where in ((lambda: from_optax(state, opt), "state"), (lambda: to_optax(opt, state), "like")):
        with refused(ValueError, f"{where}[0].mu['w'] must be float32, as params['w'] is; got bfloat16"):
            call()


def test_every_state_in_the_table_is_there():
    """A change of optax's names is noticed here, and not by users."""
    for cls, peer in OPTAX.items():
        kinds = [*vars(optax).values(), *vars(contrib).values(), contrib._ademamix.ScaleByAdemamixState]
        found = [kind for kind in kinds if getattr(kind, "__name__", "") == peer.state]
        assert found, cls
        assert set(peer.fields.values()) - {"nu_max"} <= set(found[0]._fields)
    assert "nu_max" in optax.ScaleByAmsgradState._fields


def test_the_state_is_that_of_the_cases():
    """Which compare it with optax's after every step."""
    for name in RUNS:
        case = BY_ID.get(name)
        if case is not None and case.optax:
            theirs = Optax(name, random(99))
            theirs.step(random(0))
            mine = made(name, random(99))
            found = from_optax(theirs.state, mine)["param_groups"][0]["state"]
            wanted = case.optax_state(theirs.state, theirs.params)
            assert found.keys() == wanted.keys()
            for state, arrays in found.items():
                for key, array in zip(SHAPES, arrays, strict=True):
                    np.testing.assert_array_equal(array, wanted[state][key])
