"""A run that begins in torch goes on in fastopt, and the other way round: every parameter at every step."""

import inspect
import io

import numpy as np
import pytest

import fastopt
from fastopt.exchange import from_torch, to_torch
from fastopt.exchange.peers import TORCH, torch_hyperparameters
from tests.algorithms.cases import BY_ID, CASES, Closeness, assert_same, draw, each_dtype, values
from tests.exchange.refusal import refused

torch = pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")

from tests.algorithms.test_parity import Torch  # noqa: E402

each_exchanged = pytest.mark.parametrize(
    "case", [case for case in CASES if case.cls in TORCH and case.torch], ids=lambda case: case.id
)
SHAPES = [(), (15,), (17, 3), (2, 3, 5), (0, 3)]
#: The two groups: which arrays, and what differs from the case's settings.
PARTS = [([0, 1], {}), ([2, 3, 4], {"weight_decay": 0.2, "maximize": True})]


@pytest.fixture(autouse=True)
def _scalars(request):
    """Have torch keep in the parameters' dtype what an array has one of."""
    before = torch.get_default_dtype()
    if "dtype" in request.fixturenames:
        torch.set_default_dtype(getattr(torch, request.getfixturevalue("dtype")))
    yield
    torch.set_default_dtype(before)


def own_of(case):
    """Return what the groups have of their own, as far as the class has it."""
    names = {"maximize", *case.hyper}
    parts = [(numbers, {name: v for name, v in own.items() if name in names}) for numbers, own in PARTS]
    parts[1][1]["lr"] = 0.6 * case.hyper["lr"]
    return parts


def in_torch(case, params, **changes):
    """Return a run in torch."""
    run = Torch(case, params)
    given = [{"params": [run.params[i] for i in numbers], **own} for numbers, own in own_of(case)]
    run.opt = getattr(torch.optim, case.torch)(given, **{**case.hyper, **changes})
    return run


def in_fastopt(case, params, *, own=True):
    """Return an optimizer over the same arrays; without ``own``, with none of the case's settings."""
    groups = [
        {"params": [params[i] for i in numbers], **(settings if own else {})}
        for numbers, settings in own_of(case)
    ]
    return case.cls(groups, **(case.hyper if own else {}))


def gradients(count, dtype):
    """Return gradients for a step. One array has none in the first ones, and another has some of them only."""
    rng = np.random.default_rng(count)
    grads = [draw(rng, shape, dtype) for shape in SHAPES]
    if count < 14:
        grads[2] = None
    if count % 3 == 1:
        grads[3] = None
    return grads


def by_group(grads):
    return [[grads[i] for i in numbers] for numbers, _ in PARTS]


def beginning(dtype):
    return [draw(np.random.default_rng(99), shape, dtype) for shape in SHAPES]


def go_on_together(case, mine, theirs, dtype, *, steps, tol):
    """Compare parameters and state after each of the steps that are left."""
    close = Closeness(tol, [tensor.numpy() for tensor in theirs.params])
    for count in steps:
        grads = gradients(count, dtype)
        mine.step(by_group(grads))
        theirs.step(grads)
        got, want = values(mine), theirs.values()
        if count < steps[-1]:  # torch makes the state of an array in its first step
            got = [{name: one[name] for name in other} for one, other in zip(got, want, strict=True)]
        close.check(got, want)


def adjusted(case, run):
    """Have the case's factors between the states be those of the second group too."""
    if case.id != "momentum":
        return run
    plain = run.state

    def state(tensor):
        second = any(tensor is each for each in run.opt.param_groups[1]["params"])
        return {name: value * (0.6 if second else 1.0) for name, value in plain(tensor).items()}

    run.state = state
    return run


@each_exchanged
@each_dtype
def test_from_torch(case, dtype):
    theirs = adjusted(case, in_torch(case, beginning(dtype)))
    for count in range(10):
        theirs.step(gradients(count, dtype))
    mine = in_fastopt(case, [tensor.detach().numpy().copy() for tensor in theirs.params], own=False)
    mine.load_state_dict(from_torch(theirs.opt.state_dict(), mine))
    for group, wanted in zip(mine.param_groups, theirs.opt.param_groups, strict=True):
        for name in (*mine.defaults, "maximize"):
            assert group[name] == wanted[name], name
    if TORCH[case.cls].counts:
        assert mine.step_count == 10
        assert [part["steps"] for part in mine.state_dict()["param_groups"]] == [[10, 10], [0, 7, 10]]
    go_on_together(case, mine, theirs, dtype, steps=range(10, 30), tol=30)


@each_exchanged
@each_dtype
def test_to_torch(case, dtype):
    mine = in_fastopt(case, beginning(dtype))
    for count in range(10):
        mine.step(by_group(gradients(count, dtype)))
    params = [array.copy() for group in mine.param_groups for array in group["params"]]
    theirs = adjusted(case, in_torch(case, params, lr=1.0))
    theirs.opt.load_state_dict(to_torch(mine))
    for group, wanted in zip(theirs.opt.param_groups, mine.param_groups, strict=True):
        for name in (*mine.defaults, "maximize"):
            assert group[name] == wanted[name], name
    go_on_together(case, mine, theirs, dtype, steps=range(10, 30), tol=30)


@each_exchanged
@each_dtype
def test_there_and_back_to_the_bit(case, dtype):
    mine = in_fastopt(case, beginning(dtype))
    for count in range(10):
        mine.step(by_group(gradients(count, dtype)))
    params = [array.copy() for group in mine.param_groups for array in group["params"]]
    theirs = in_torch(case, params)
    theirs.opt.load_state_dict(to_torch(mine))
    back = in_fastopt(case, params, own=False)
    back.load_state_dict(from_torch(theirs.opt.state_dict(), back, step_count=10))
    got, want = values(back), values(mine)
    if case.cls is fastopt.Momentum:  # divided by the learning rate and multiplied again
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(
                one.pop("velocity"), other.pop("velocity"), rtol=2 * np.finfo(dtype).eps, atol=0
            )
    if case.cls is fastopt.NAdam:  # torch rounds it to the parameters' dtype
        for one, other in zip(got, want, strict=True):
            assert one.pop("mu_product") == np.dtype(dtype).type(other.pop("mu_product"))
    assert_same(got, want)
    saved, again = mine.state_dict(), back.state_dict()
    assert again["step_count"] == 10
    for one, other in zip(again["param_groups"], saved["param_groups"], strict=True):
        assert one["hyperparameters"] == other["hyperparameters"]
        if TORCH[case.cls].counts:
            assert one["steps"] == other["steps"]


def test_without_torch_in_between_nadam_is_exact_too():
    case = BY_ID["nadam"]
    mine = in_fastopt(case, beginning("float32"))
    for count in range(10):
        mine.step(by_group(gradients(count, "float32")))
    back = in_fastopt(case, beginning("float32"), own=False)
    back.load_state_dict(from_torch(to_torch(mine), back))
    np.testing.assert_equal(back.state_dict(), mine.state_dict())


@pytest.mark.parametrize("cls", TORCH, ids=lambda cls: cls.__name__)
def test_the_hyperparameters_are_all_of_torchs(cls):
    """Those that are not say how torch computes."""
    theirs = inspect.signature(getattr(torch.optim, TORCH[cls].name)).parameters
    technical = {"params", "foreach", "fused", "capturable", "differentiable"}
    # AdamW and Adam differ in what they pass on.
    assert torch_hyperparameters(cls) - {"decoupled_weight_decay"} == theirs.keys() - technical - {
        "decoupled_weight_decay"
    }


def test_a_model_of_torch_is_trained_in_place():
    """The arrays are the model's own memory, known by name, in whatever order."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    twin.load_state_dict(model.state_dict())
    x, y = torch.randn(20, 3), torch.randn(20, 2)

    def backward(network):
        network.zero_grad()
        loss = torch.nn.functional.mse_loss(network(x), y)
        loss.backward()
        return loss.item()

    theirs = [torch.optim.AdamW(net.named_parameters(), lr=0.01) for net in (model, twin)]
    scheduler = torch.optim.lr_scheduler.StepLR(theirs[0], 3)  # its leftovers in the groups do no harm
    for net, opt in zip((model, twin), theirs, strict=True):
        for _ in range(5):
            backward(net)
            opt.step()
    scheduler.step()
    named = dict(reversed(list(model.named_parameters())))
    mine = fastopt.AdamW({name: p.detach().numpy() for name, p in named.items()})
    mine.load_state_dict(from_torch(theirs[0].state_dict(), mine))
    losses = []
    for _ in range(20):
        losses.append((backward(model), backward(twin)))
        mine.step({name: p.grad.numpy() for name, p in named.items()})
        theirs[1].step()
    np.testing.assert_allclose(*np.transpose(losses), rtol=1e-5)
    assert losses[-1][0] < losses[0][0]


def test_a_nested_tree_has_the_modules_names():
    model = torch.nn.ModuleDict({"b": torch.nn.Linear(2, 2), "a": torch.nn.Linear(2, 2)})
    theirs = torch.optim.Adam(model.named_parameters())
    for i, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, i + 1.0)
    theirs.step()
    one = {"weight": np.zeros((2, 2), "f"), "bias": np.zeros(2, "f")}
    mine = fastopt.Adam({"a": one, "b": {name: array.copy() for name, array in one.items()}})
    mine.load_state_dict(from_torch(theirs.state_dict(), mine))
    first = mine.state[0]["exp_avg"]
    assert first["b"]["weight"].ravel() == pytest.approx(0.1)
    assert first["a"]["bias"] == pytest.approx(0.4)


def test_tensors_as_hyperparameters():
    w = torch.ones(3)
    theirs = torch.optim.Adam(
        [w], lr=torch.tensor(0.25), betas=(torch.tensor([0.5]), torch.tensor(0.75)), foreach=False
    )
    mine = fastopt.Adam(w.numpy().copy())
    mine.load_state_dict(from_torch(theirs.state_dict(), mine))
    assert (mine.param_groups[0]["lr"], mine.param_groups[0]["betas"]) == (0.25, (0.5, 0.75))


def test_the_dict_can_be_saved_by_torch():
    w = np.ones(3, "f")
    mine = fastopt.NAdam(w)
    mine.step(w.copy())
    file = io.BytesIO()
    torch.save(to_torch(mine), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    back = fastopt.NAdam(w)
    back.load_state_dict(from_torch(saved, back))
    np.testing.assert_equal(back.state_dict(), mine.state_dict())


def test_half_precision_is_refused():
    w = torch.ones(3, dtype=torch.bfloat16)
    theirs = torch.optim.SGD([w], momentum=0.9)
    w.grad = torch.ones_like(w)
    theirs.step()
    with refused(
        ValueError, "state_dict['state'][0]['momentum_buffer'] must be float32, as params is; got bfloat16"
    ):
        from_torch(theirs.state_dict(), fastopt.SGD(np.ones(3, "f")))


def test_many_steps_are_counted_exactly():
    """torch's own count stops at 2**24, in float32."""
    w = np.ones(1)
    mine = fastopt.Adam(w)
    mine.step(w.copy())
    saved = mine.state_dict()
    for steps, dtype in ((2**24, torch.float32), (2**24 + 1, torch.float64)):
        saved["param_groups"][0]["steps"] = [steps]
        mine.load_state_dict(saved)
        step = to_torch(mine)["state"][0]["step"]
        assert (int(step), step.dtype) == (steps, dtype)


def test_what_has_not_been_updated_has_no_state():
    params = [np.ones(2), np.ones(2), np.ones(2)]
    for cls, keys in ((fastopt.Adam, [1]), (fastopt.Adagrad, [0, 1])):
        opt = cls(params, frozen="2")
        opt.step([None, np.ones(2), None])
        made = to_torch(opt)
        assert list(made["state"]) == keys
        assert made["param_groups"][0]["params"] == [0, 1, 2]
    theirs = torch.optim.Adagrad([torch.ones(2, dtype=torch.float64) for _ in params])
    theirs.load_state_dict(made)
    theirs.param_groups[0]["params"][0].grad = torch.ones(2, dtype=torch.float64)
    theirs.step()  # which needs the state of the first


def test_schedules_are_represented_by_their_values():
    w = np.ones(2)
    opt = fastopt.Adam(w, lr=lambda count: 0.5**count, betas=lambda count: (0.5, 0.75))
    opt.step(np.ones(2))
    opt.step(np.ones(2))
    (group,) = to_torch(opt)["param_groups"]
    assert (group["lr"], group["betas"]) == (0.25, (0.5, 0.75))


@pytest.mark.parametrize("cls", TORCH, ids=lambda cls: cls.__name__)
def test_torch_finds_all_settings(cls):
    """But for those that say how it computes, which it adds itself."""
    w = torch.ones(2, dtype=torch.float64)
    theirs = getattr(torch.optim, TORCH[cls].name)([w], lr=1.0)
    keys = theirs.param_groups[0].keys()
    made = to_torch(cls(np.ones(2)))
    assert made["param_groups"][0].keys() == torch_hyperparameters(cls) | {"params"}
    theirs.load_state_dict(made)
    assert theirs.param_groups[0].keys() == keys
    w.grad = torch.ones_like(w)
    theirs.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda w: fastopt.AdamW(w, cautious=True),
            "params is updated with cautious=True, which only fastopt has",
        ),
        (
            lambda w: fastopt.AdamW(w, lookahead_steps=5),
            "params is updated with lookahead_steps=5.0, which only fastopt has",
        ),
        (
            lambda w: fastopt.AdamW(
                {"w": w, "b": np.ones(2)}, no_decay="b", overrides={"b": {"lr_scale": 2}}
            ),
            "params['b'] has hyperparameters of its own, weight_decay=0.0, lr_scale=2.0; torch has one value "
            "for a parameter group: it must be in a group for itself",
        ),
        (
            lambda w: fastopt.Momentum(w, lr=lambda count: 0.1),
            "lr of params must be a number above 0, got a schedule: velocity is momentum_buffer times lr; "
            "fastopt.SGD has the same method with torch's state",
        ),
        (
            lambda w: fastopt.Momentum(w, lr=0),
            "lr of params must be a number above 0, got 0: velocity is momentum_buffer times lr; "
            "fastopt.SGD has the same method with torch's state",
        ),
    ],
)
def test_what_torch_cannot_go_on_with(make, message):
    opt = make(np.ones(2))
    opt.step(
        {"w": np.ones(2), "b": np.ones(2)} if isinstance(opt.param_groups[0]["params"], dict) else np.ones(2)
    )
    with refused(ValueError, message):
        to_torch(opt)


def test_the_example_of_the_docstring_runs():
    opt = fastopt.AdamW([np.ones((2, 3), "f"), np.ones(2, "f")])
    opt.step([np.ones((2, 3), "f"), np.ones(2, "f")])
    names = {"torch": torch, "model": torch.nn.Linear(3, 2), "opt": opt}
    lines = [
        line.split(">>> ")[1].split("  #")[0] for line in to_torch.__doc__.splitlines() if ">>> " in line
    ]
    exec("\n".join(lines), names)
    assert names["theirs"].state_dict()["state"][1]["exp_avg"].tolist() == pytest.approx([0.1, 0.1])
