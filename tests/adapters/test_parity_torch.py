"""The adapter for torch: each algorithm steps as fastopt does, and torch's own machinery works with it."""

import copy
import inspect
import io
import pickle
import weakref

import numpy as np
import pytest

import fastopt

torch = pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")

import fastopt.adapters.torch as adapters  # noqa: E402

SHAPES = [(4, 3), (3,), (2, 3, 2), ()]


def parameters(dtype=torch.float32, shapes=SHAPES):
    rng = np.random.default_rng(1)
    return [torch.nn.Parameter(torch.tensor(rng.standard_normal(shape), dtype=dtype)) for shape in shapes]


def set_gradients(params, seed):
    """Give each parameter a new gradient, as a backward pass does."""
    rng = np.random.default_rng(seed)
    for param in params:
        param.grad = torch.tensor(rng.standard_normal(param.shape), dtype=param.dtype)


def run(opt, params, steps):
    for seed in steps:
        set_gradients(params, seed)
        opt.step()


def assert_equal(mine, theirs):
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=0, atol=0)


def settings(name):
    return {"lr": 0.03, **({"momentum": 0.9} if name in ("SGD", "RMSprop") else {})}


@pytest.mark.parametrize("name", sorted(set(fastopt.algorithms.__all__) - {"LBFGS", "SparseAdam", "NAG"}))
def test_each_algorithm_is_that_of_fastopt(name):
    cls, params = getattr(adapters, name), parameters()
    assert issubclass(cls, torch.optim.Optimizer)
    assert cls is getattr(adapters, name) is pickle.loads(pickle.dumps(cls))
    assert inspect.signature(cls) == inspect.signature(getattr(fastopt, name))
    assert f"{name}" in repr(cls)
    assert cls.__doc__.startswith(inspect.getdoc(getattr(fastopt, name)).splitlines()[0])
    assert "params : iterable of Tensor" in cls.__doc__
    assert "np." not in cls.__doc__
    arrays = [param.detach().numpy().copy() for param in params]
    opt, plain = cls(params, **settings(name)), getattr(fastopt, name)(arrays, **settings(name))
    where = [param.data_ptr() for param in params]
    for seed in range(4):
        set_gradients(params, seed)
        if seed == 2:
            params[1].grad = None
        plain.step([None if param.grad is None else param.grad.numpy() for param in params])
        assert opt.step() is None
        assert_equal(params, map(torch.from_numpy, arrays))
    assert [param.data_ptr() for param in params] == where
    (state,) = plain.state
    for i, param in enumerate(params):
        assert opt.state[param].pop("step", 0) == 4 - (i == 1)
        for own in ("eta", "mu") if name == "ASGD" else ():
            del opt.state[param][own]
        wanted = {key: each[i] for key, each in state.items() if each[i] is not None}
        assert opt.state[param].keys() == wanted.keys()
        assert_equal(opt.state[param].values(), [torch.from_numpy(wanted[key]) for key in opt.state[param]])


def test_state_is_a_view():
    params = parameters()
    opt = adapters.AdamW(params)
    assert not opt.state
    run(opt, params, range(1))
    entry = opt.state[params[0]]
    where = entry["exp_avg"].data_ptr()
    before = entry["exp_avg"].clone()
    run(opt, params, range(1, 2))
    assert opt.state[params[0]]["exp_avg"].data_ptr() == where
    assert not torch.equal(entry["exp_avg"], before)
    assert opt.state[params[0]]["step"].dtype == torch.float32
    entry["exp_avg"].zero_()  # what is written there counts
    entry["exp_avg_sq"].zero_()
    set_gradients(params, 5)
    opt.step()
    torch.testing.assert_close(entry["exp_avg"], 0.1 * params[0].grad)


def test_state_changes_with_the_rule():
    params = parameters()
    opt = adapters.Adam(params)
    run(opt, params, range(1))
    assert set(opt.state[params[0]]) == {"step", "exp_avg", "exp_avg_sq"}
    opt.param_groups[0]["amsgrad"] = True
    run(opt, params, range(1, 2))
    assert set(opt.state[params[0]]) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    opt.param_groups[0]["amsgrad"] = False
    run(opt, params, range(2, 3))
    assert set(opt.state[params[0]]) == {"step", "exp_avg", "exp_avg_sq"}


def test_closures_and_hooks():
    params, calls = parameters(), []
    opt = adapters.SGD(params, lr=0.1)
    opt.register_step_pre_hook(lambda *_: calls.append("pre"))
    opt.register_step_post_hook(lambda *_: calls.append("post"))
    opt.register_state_dict_pre_hook(lambda _: calls.append("saving"))
    opt.register_state_dict_post_hook(lambda _, saved: {**saved, "more": 1})
    opt.register_load_state_dict_pre_hook(lambda _, saved: {**saved, "more": calls.append(saved["more"])})
    opt.register_load_state_dict_post_hook(lambda _: calls.append("loaded"))
    before = params[0].detach().clone()

    def closure():
        opt.zero_grad()
        loss = sum((param**2).sum() for param in params)
        loss.backward()
        return loss

    with torch.no_grad():
        loss = opt.step(closure)
    assert loss.requires_grad
    torch.testing.assert_close(params[0].detach(), before - 0.1 * (2 * before))
    opt.load_state_dict(opt.state_dict())
    assert calls == ["pre", "post", "saving", 1, "loaded"]


def test_zero_grad_and_maximize():
    params = parameters()
    opt = adapters.SGD(params, lr=1.0, maximize=True)
    before = params[0].detach().clone()
    set_gradients(params, 0)
    opt.step()
    torch.testing.assert_close(params[0].detach(), before + params[0].grad)
    opt.zero_grad(set_to_none=False)
    assert not any(param.grad.any() for param in params)
    opt.zero_grad()
    assert all(param.grad is None for param in params)
    before = params[0].detach().clone()
    opt.step()
    assert torch.equal(params[0], before)


def test_groups():
    params = parameters()
    given = [{"params": params[:1], "lr": 0.5}, {"params": params[1:2], "name": "bias"}]
    opt = adapters.SGD(given, lr=0.1)
    start = [param.detach().clone() for param in params]
    run(opt, params, range(1))
    opt.add_param_group({"params": params[2], "weight_decay": 0.5})
    opt.param_groups[1]["lr"] = 0.25
    assert [group["lr"] for group in opt.param_groups] == [0.5, 0.25, 0.1]
    assert opt.param_groups[1]["name"] == "bias"
    run(opt, params, range(1))
    grads = [param.grad for param in params]
    for param, wanted in zip(
        params,
        [
            start[0] - 1.0 * grads[0],
            start[1] - 0.35 * grads[1],
            start[2] - 0.1 * (grads[2] + 0.5 * start[2]),
            start[3],
        ],
        strict=True,
    ):
        torch.testing.assert_close(param.detach(), wanted)
    assert [int(opt.state[param].get("step", 0)) for param in params] == [2, 2, 1, 0]


def test_a_group_that_does_not_fit_is_not_added():
    params = parameters()
    opt = adapters.Adam(params[:2])
    for group, message in [
        ({"params": [params[2]], "lr": -1.0}, "lr must be a finite number >= 0"),
        (
            {"params": [params[2].detach().half()]},
            r"param_groups\[1\]\['params'\]\[0\] must be of torch.float32",
        ),
        ({"params": [params[0]]}, "some parameters appear in more than one parameter group"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            opt.add_param_group(group)
        assert len(opt.param_groups) == 1
        run(opt, params, range(1))
    assert opt.state[params[0]]["step"] == 3


def test_names_of_parameters():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    opt = adapters.AdamW(model.named_parameters(), lr=0.1, weight_decay=0.5, no_decay="*.bias")
    assert opt.param_groups[0]["param_names"] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    before = [param.detach().clone() for param in model.parameters()]
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    opt.step()
    for param, was, factor in zip(model.parameters(), before, [0.95, 1.0, 0.95, 1.0], strict=True):
        torch.testing.assert_close(param.detach(), factor * was)
    with pytest.raises(ValueError, match=r"no_decay: no array has a name like '\*.bios'"):
        adapters.AdamW(model.named_parameters(), no_decay="*.bios")


def test_frozen_parameters_stay():
    model = torch.nn.Linear(3, 2)
    opt = adapters.Adam([{"params": model.named_parameters(), "frozen": "weight"}], lr=0.1)
    assert "frozen" not in opt.param_groups[0]
    before = [param.detach().clone() for param in model.parameters()]
    model(torch.ones(1, 3)).sum().backward()
    opt.step()
    assert torch.equal(model.weight, before[0])
    assert not torch.equal(model.bias, before[1])
    assert set(opt.state) == {model.bias}
    opt.load_state_dict(opt.state_dict())
    assert set(opt.state) == {model.bias}


@pytest.mark.parametrize(
    "schedule",
    [
        lambda opt: torch.optim.lr_scheduler.StepLR(opt, 2, 0.5),
        lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=12),  # betas too
        lambda opt: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, 4),
    ],
)
@pytest.mark.parametrize("lr", [0.03, "tensor"])
def test_schedulers(schedule, lr):
    mine, theirs = parameters(torch.float64), parameters(torch.float64)
    for params, cls in ((mine, adapters.AdamW), (theirs, torch.optim.AdamW)):
        opt = cls(params, lr=torch.tensor(0.03, dtype=torch.float64) if lr == "tensor" else lr)
        scheduler = schedule(opt)
        for seed in range(10):
            run(opt, params, [seed])
            scheduler.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["AdamW", "NAdam", "SGD", "Adagrad", "Rprop", "ASGD", "Adafactor"])
def test_checkpoints_go_both_ways(name):
    mine, theirs = parameters(torch.float64), parameters(torch.float64)
    peer = getattr(torch.optim, name)(theirs, **settings(name))
    run(peer, theirs, range(5))
    with torch.no_grad():
        for one, other in zip(mine, theirs, strict=True):
            one.copy_(other)
    opt = getattr(adapters, name)(mine)
    opt.load_state_dict(peer.state_dict())
    assert opt.param_groups[0]["lr"] == 0.03
    run(opt, mine, range(5, 8))
    run(peer, theirs, range(5, 8))
    # torch keeps what is one number, such as ASGD's eta and NAdam's product, in float32
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=3e-7, atol=3e-7)
    back = getattr(torch.optim, name)(theirs)
    back.load_state_dict(copy.deepcopy(opt.state_dict()))  # torch's shares the tensors that it is given
    run(opt, mine, range(8, 11))
    run(back, theirs, range(8, 11))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_muon_says_how_it_scales_in_both_terms():
    params = parameters(shapes=[(3, 4)])
    peer = torch.optim.Muon(params, adjust_lr_fn="match_rms_adamw")
    opt = adapters.Muon(params)
    opt.load_state_dict(peer.state_dict())
    assert opt.param_groups[0]["match_rms_adamw"] is True
    peer = torch.optim.Muon(params)
    peer.load_state_dict(adapters.Muon(params, match_rms_adamw=True).state_dict())
    assert peer.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"


OPTIONS = {
    "max_grad_norm": 0.5,
    "ema_decay": 0.9,
    "skip_nonfinite": True,
    "skip_outliers": 5.0,
    "accumulate": 2,
    "zero_grads": True,
}


def saved_to_disk(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def clone(params):
    return [torch.nn.Parameter(param.detach().clone()) for param in params]


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "all options"])
@pytest.mark.parametrize("name", ["NAdam", "Prodigy", "Muon"])
def test_a_run_goes_on_bit_for_bit(name, options):
    if name == "Muon":
        options = {key: value for key, value in options.items() if key != "ema_decay"}
    params = parameters()
    opt = getattr(adapters, name)(params, lr=0.02, **options)
    run(opt, params, range(5))  # an odd number: in the middle of an accumulation
    params[1].grad = None
    copied = clone(params)
    other = getattr(adapters, name)(copied, **options)
    other.load_state_dict(saved_to_disk(opt.state_dict()))
    twins = [(other, copied)]
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert type(twin) is type(opt)
        twins.append((twin, twin.param_groups[0]["params"]))
    run(opt, params, range(5, 9))
    for twin, own in twins:
        assert twin.param_groups[0]["lr"] == 0.02
        run(twin, own, range(5, 9))
        assert_equal(own, params)
        assert_equal(
            *([s for p in ps for s in o.state[p].values()] for o, ps in ((twin, own), (opt, params)))
        )
        assert twin.fastopt.step_count == opt.fastopt.step_count
        assert twin.fastopt.grad_norm == opt.fastopt.grad_norm


def test_options_of_fastopt():
    params = parameters()
    opt = adapters.SGD(params, lr=1.0, max_grad_norm=0.5, ema_decay=0.5, zero_grads=True)
    start = [param.detach().clone() for param in params]
    set_gradients(params, 0)
    grads = [param.grad.clone() for param in params]
    opt.step()
    norm = torch.linalg.vector_norm(torch.cat([grad.flatten() for grad in grads]))
    assert opt.fastopt.grad_norm == pytest.approx(float(norm), rel=1e-6)
    for param, was, grad in zip(params, start, grads, strict=True):
        assert not param.grad.any()
        torch.testing.assert_close(param.detach(), was - 0.5 * grad / norm, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(opt.state[param]["ema"], (was + param.detach()) / 2)
    with opt.fastopt.averaged_parameters():
        torch.testing.assert_close(
            params[0].detach(), start[0] - 0.25 * grads[0] / norm, rtol=1e-5, atol=1e-6
        )


def test_a_schedule_of_fastopt():
    params = parameters()
    opt = adapters.SGD(params, lr=lambda step: 0.5 * 0.5**step)
    before = params[0].detach().clone()
    run(opt, params, [0, 0])
    torch.testing.assert_close(params[0].detach(), before - 0.75 * params[0].grad)
    saved = opt.state_dict()
    assert "lr" not in saved["param_groups"][0]
    opt.load_state_dict(saved)
    assert callable(opt.param_groups[0]["lr"])


def test_memory_in_any_layout():
    """Parameters, and gradients, that are transposed, strided, or of other strides than each other."""
    base = torch.arange(24.0).reshape(4, 6)
    params = [torch.nn.Parameter(view) for view in (base.clone().T, base.clone()[:, ::2], base.clone())]
    start = [param.detach().clone() for param in params]
    grads = [torch.randn(6, 4), torch.randn(3, 4).T, torch.randn(6, 4).T]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    opt = adapters.SGD(params, lr=0.5, momentum=0.9)
    opt.step()
    for param, was, grad in zip(params, start, grads, strict=True):
        torch.testing.assert_close(param.detach(), was - 0.5 * grad)
        torch.testing.assert_close(opt.state[param]["momentum_buffer"], grad)


def test_a_gradient_with_the_negative_bit():
    """Of one element it is contiguous, and its memory has the other sign."""
    param = torch.nn.Parameter(torch.tensor([1.0]))
    param.grad = torch.complex(torch.ones(1), torch.full((1,), 4.0)).conj().imag
    assert param.grad.is_neg()
    adapters.SGD([param], lr=0.5).step()
    assert param.item() == 3.0


def test_parameters_that_get_other_memory():
    params = parameters()
    twins = clone(params)
    opt, other = adapters.AdamW(params, lr=0.1), adapters.AdamW(twins, lr=0.1)
    run(opt, params, range(3))
    run(other, twins, range(3))
    for param in params:
        param.data = param.data.clone()
    run(opt, params, range(3, 5))
    run(other, twins, range(3, 5))
    assert_equal(params, twins)
    assert opt.state[params[0]]["step"] == 5
    params[0].data = params[0].data.double()
    params[0].grad = None
    with pytest.raises(
        ValueError,
        match=r"\[0\] was of float32 and \(4, 3\) when the optimizer was made, and is of torch.float64",
    ):
        opt.step()


def test_parameters_that_are_exchanged():
    params = parameters()
    opt = adapters.AdamW(params)
    opt.param_groups[0]["params"].pop()
    with pytest.raises(ValueError, match="the parameters in param_groups have been exchanged"):
        opt.step()


def test_autograd_notices_the_step():
    param = torch.nn.Parameter(torch.ones(3))
    opt = adapters.SGD([param], lr=0.1)
    loss = (param**2).sum()
    loss.backward(retain_graph=True)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.filterwarnings("ignore")
def test_within_a_function_that_is_compiled():
    """torch.compile leaves the step as it is, and compiles what is around it."""
    params, compiling = parameters(shapes=[(3, 2)]), []

    class Watched(adapters.AdamW):
        def _prepare(self, added=0):
            compiling.append(torch.compiler.is_compiling())
            super()._prepare(added)

    opt = Watched(params, lr=0.1)

    @torch.compile(backend="eager")
    def train():
        opt.zero_grad()
        (params[0] ** 2).sum().backward()
        opt.step()

    before = params[0].detach().clone()
    train()
    assert compiling == [False]
    torch.testing.assert_close(params[0].detach(), before * (1 - 0.1 * 0.01) - 0.1 * before.sign())


def test_loss_scaling():
    params = parameters()
    opt, scaler = adapters.SGD(params, lr=0.5), torch.amp.GradScaler("cpu", init_scale=4.0)
    start = params[0].detach().clone()
    for factor in (1.0, float("inf")):
        opt.zero_grad()
        scaler.scale(factor * sum(param.sum() for param in params)).backward()
        scaler.step(opt)
        scaler.update()
    assert opt.fastopt.step_count == 1
    torch.testing.assert_close(params[0].detach(), start - 0.5)


def test_memory_of_gradients_is_not_held():
    params = parameters()
    opt = adapters.AdamW(params)
    for strided in (False, True):
        set_gradients(params, 0)
        if strided:
            params[0].grad = torch.ones(3, 4).T
        watched = weakref.ref(params[0].grad)
        opt.step()
        opt.zero_grad()
        assert watched() is None


def test_nesterov_ahead():
    """What torch has no name for is done by fastopt's optimizer, on the same memory."""
    params = parameters(shapes=[(3,)])
    array = params[0].detach().numpy().copy()
    opt, plain = adapters.NAG(params, lr=0.1), fastopt.NAG(array, lr=0.1)
    for _ in range(3):
        with opt.fastopt.lookahead():
            params[0].grad = 2 * params[0].detach()
        with plain.lookahead():
            grad = 2 * array
        opt.step()
        plain.step(grad)
    assert torch.equal(params[0].detach(), torch.from_numpy(array))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("name", "own"),
    [("SGD", {}), ("Adagrad", {"eps": 1e-6}), ("RMSprop", {}), ("FTRL", {}), ("SparseAdam", {})],
)
def test_sparse_embeddings(name, own):
    table = torch.nn.Embedding(10, 3, sparse=True)
    dense = table.weight.detach().numpy().copy()
    opt, plain = (
        getattr(adapters, name)(table.parameters(), lr=0.1, **own),
        getattr(fastopt, name)(dense, lr=0.1, **own),
    )
    for rows in ([1, 4, 1], [9], [4, 0]):
        opt.zero_grad()
        (table(torch.tensor(rows)) ** 2).sum().backward()
        assert table.weight.grad.is_sparse
        values = 2 * dense[rows]
        opt.step()
        plain.step(fastopt.Rows(rows, values))
        np.testing.assert_allclose(table.weight.detach().numpy(), dense, rtol=1e-6, atol=1e-6)
    if name in ("SGD", "Adagrad", "SparseAdam"):
        theirs = torch.nn.Embedding(10, 3, sparse=True)
        theirs.load_state_dict(table.state_dict())
        peer = getattr(torch.optim, name)(theirs.parameters(), lr=0.1)
        peer.load_state_dict(copy.deepcopy(opt.state_dict()))
        for model, each in ((table, opt), (theirs, peer)):
            each.zero_grad()
            (model(torch.tensor([4, 4, 2])) ** 2).sum().backward()
            each.step()
        if name != "SparseAdam":  # torch's rows know the number of the whole table's steps
            torch.testing.assert_close(table.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_sparse_gradients_that_cannot_be():
    table = torch.nn.Embedding(10, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(
        TypeError,
        match=r"grads\[0\]\['weight'\] is sparse, and AdamW takes dense gradients only; use nn.Embed",
    ):
        adapters.AdamW(table.named_parameters()).step()
    with pytest.raises(ValueError, match="SGD takes them without momentum only, got momentum=0.9"):
        adapters.SGD(table.parameters(), momentum=0.9).step()
    table.weight.grad = torch.ones(10, 3)
    with pytest.raises(TypeError, match="must be Rows: SparseAdam takes no arrays"):
        adapters.SparseAdam(table.parameters()).step()
    table.weight.grad = torch.ones(10, 3).to_sparse()
    with pytest.raises(TypeError, match="got the layout torch.sparse_coo with 2 sparse dimensions"):
        adapters.SGD(table.parameters()).step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.ones(3, device="meta"),
            "must be on the CPU or on a CUDA device, got a tensor on meta: move the model with",
        ),
        (
            lambda: torch.ones(3, dtype=torch.bfloat16),
            "must be of torch.float32 or torch.float64, got torch.bfloat16",
        ),
        (lambda: torch.ones(3, dtype=torch.float16), "got torch.float16"),
        (lambda: torch.ones(3, dtype=torch.complex64), "got torch.complex64"),
        (
            lambda: torch.ones(3).to_sparse(),
            "Lion requires dense parameter tensors; .* has the layout torch.sparse_coo",
        ),
        (lambda: torch.ones(1).expand(3), "must hold each element once"),
    ],
)
def test_tensors_that_are_refused(make, message):
    params = [torch.ones(2), make()]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        adapters.Lion(params)
    assert "param" in str(caught.value)
    assert "[1]" in str(caught.value)


def test_duplicates_and_shared_memory():
    param = torch.nn.Parameter(torch.ones(3))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt = adapters.SGD([param, param], lr=0.5)
    param.grad = torch.ones(3)
    opt.step()
    torch.testing.assert_close(param.detach(), torch.full((3,), 0.5))
    opt.load_state_dict(opt.state_dict())
    with pytest.raises(ValueError, match=r"params'\]\[1\] share memory"):
        adapters.SGD([param, torch.nn.Parameter(param.data)])
    param.grad = param.data
    with pytest.raises(ValueError, match="shares memory with a parameter"):
        opt.step()


def test_arguments_that_are_refused():
    params = parameters()
    for flag in ("capturable", "differentiable"):
        with pytest.raises(ValueError, match=f"Adam takes no {flag}=True: "):
            adapters.Adam(params, **{flag: True})
        adapters.Adam(params, **{flag: False})
    for flag in ("foreach", "fused"):
        for cls in (adapters.Adam, adapters.Lion):
            assert cls(params, **{flag: True}).param_groups[0][flag] is True
    with pytest.raises(
        TypeError, match="Lion has no hyperparameter 'amsgrad'; it has lr, betas, weight_decay"
    ):
        adapters.Lion(params, amsgrad=True)
    with pytest.raises(ValueError, match="lr must be a finite number >= 0"):
        adapters.Lion(params, lr=-1.0)
    with pytest.raises(TypeError, match="lr must be a finite number >= 0, or a schedule of such; got 'fast'"):
        adapters.Adam(params, lr="fast")
    with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
        adapters.Lion(params, lr=torch.ones(2))


def test_a_value_of_a_group_that_is_refused():
    params = parameters()
    opt = adapters.Adam(params)
    run(opt, params, range(1))
    before = clone(params)
    opt.param_groups[0]["lr"] = -0.5
    for _ in range(2):
        with pytest.raises(
            ValueError, match="lr must be a finite number >= 0, or a schedule of such; got -0.5"
        ):
            opt.step()
    assert_equal(params, before)
    opt.param_groups[0]["lr"] = 0.5
    opt.step()
    assert opt.state[params[0]]["step"] == 2


def test_checkpoints_that_do_not_fit():
    params = parameters()
    opt = adapters.Adam(params, lr=0.25)
    run(opt, params, range(2))
    before = clone(params)
    saved = opt.state_dict()
    groups, state = saved["param_groups"], saved["state"]
    wrong = {
        "different number of parameter groups: 2, and the optimizer has 1": {"param_groups": groups * 2},
        "doesn't match the size of optimizer's group: param_groups.0. has 1": {
            "param_groups": [{**groups[0], "params": [0]}]
        },
        r"\[1\] must have 'exp_avg', 'exp_avg_sq' for Adam; the state_dict has 'step', 'exp_avg'$": {
            "state": {**state, 1: {key: state[1][key] for key in ("step", "exp_avg")}}
        },
        "state.*'exp_avg'.* of .*: shape must be": {
            "state": {**state, 1: {**state[1], "exp_avg": torch.ones(5)}}
        },
        "'exp_avg' in the state of .*1. must be a tensor, got a float": {
            "state": {**state, 1: {**state[1], "exp_avg": 1.0}}
        },
        r"\['decoupled_weight_decay'\] must be False for Adam, got True; AdamW takes that": {
            "param_groups": [{**groups[0], "decoupled_weight_decay": True}]
        },
        "lr must be a finite number >= 0": {"param_groups": [{**groups[0], "lr": -1.0}]},
        "'step' in the state of .* must be a whole number >= 0": {
            "state": {**state, 0: {**state[0], "step": torch.tensor(-1.0)}}
        },
        r"\['fastopt'\] has no 'options'": {"fastopt": {"step_count": 1}},
    }
    for message, changes in wrong.items():
        with pytest.raises((TypeError, ValueError), match=message):
            opt.load_state_dict({**saved, **changes})
        assert opt.param_groups[0]["lr"] == 0.25
        assert opt.state[params[0]]["step"] == 2
    assert_equal(params, before)


def test_state_that_is_set_anew():
    params = parameters()
    opt = adapters.Adam(params)
    run(opt, params, range(3))
    opt.state = {}
    assert not opt.state
    fresh = clone(params)
    run(opt, params, range(2))
    run(adapters.Adam(fresh), fresh, range(2))
    assert_equal(params, fresh)


def signum(p, g, momentum_buffer, lr, momentum):
    momentum_buffer = momentum * momentum_buffer + g
    return p - lr * momentum_buffer, momentum_buffer


class Own(fastopt.Optimizer):
    """Heavy ball, by a user."""

    rule = fastopt.Rule(signum, state=("momentum_buffer",))
    defaults = {"lr": 1e-3, "momentum": 0.9}


class Derived(adapters.SGD):
    """A subclass of an adapter."""


def test_a_rule_of_ones_own_and_subclasses():
    params, theirs = parameters(), parameters()
    opt, peer = adapters.adapt(Own)(params, lr=0.1), torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    assert type(opt).__doc__ == "Heavy ball, by a user."
    run(opt, params, range(3))
    run(peer, theirs, range(3))
    for one, other in zip(params, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    module = type(opt).__module__
    assert module == __name__
    twin = copy.deepcopy(opt)
    assert type(twin) is type(opt)
    assert twin.state[twin.param_groups[0]["params"][0]]["step"] == 3
    derived = Derived(params, lr=0.5, momentum=0.9)
    run(derived, params, range(2))
    twin = copy.deepcopy(derived)
    assert type(twin) is Derived
    own = twin.param_groups[0]["params"]
    run(derived, params, range(2, 3))
    run(twin, own, range(2, 3))
    assert_equal(own, params)


# --- L-BFGS


#: Where the least value is.
AT = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)


def rosenbrock(param):
    return (1 - param[0]) ** 2 + 100 * (param[1] - param[0] ** 2) ** 2 + (param[2:] ** 2).sum()


def minimize(opt, param, steps):
    losses = []

    def closure():
        opt.zero_grad()
        loss = rosenbrock(param)
        loss.backward()
        return loss

    for _ in range(steps):
        losses.append(opt.step(closure).item())
    return losses


def start():
    return torch.nn.Parameter(torch.tensor([-1.2, 1.0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("own", [{"lr": 0.01}, {"line_search_fn": "strong_wolfe"}], ids=["fixed", "wolfe"])
def test_lbfgs(own):
    mine, theirs = start(), start()
    opt, peer = adapters.LBFGS([mine], max_iter=5, **own), torch.optim.LBFGS([theirs], max_iter=5, **own)
    assert opt.param_groups[0]["history_size"] == 100
    np.testing.assert_allclose(minimize(opt, mine, 3), minimize(peer, theirs, 3), rtol=1e-6)
    assert set(opt.state[mine]) <= {*peer.state[theirs], "fresh"}
    with torch.no_grad():
        mine.copy_(theirs)
    fresh = adapters.LBFGS([mine])
    fresh.load_state_dict(peer.state_dict())
    assert fresh.fastopt.max_iter == 5
    peer.load_state_dict(copy.deepcopy(fresh.state_dict()))
    np.testing.assert_allclose(minimize(fresh, mine, 1), minimize(peer, theirs, 1), rtol=1e-6)
    twin = copy.deepcopy(fresh)
    (copied,) = twin.param_groups[0]["params"]
    assert minimize(twin, copied, 2) == minimize(fresh, mine, 2)
    if own.get("line_search_fn"):
        minimize(fresh, mine, 8)
        torch.testing.assert_close(mine.detach(), AT, rtol=0, atol=1e-4)


def test_lbfgs_takes_missing_gradients_for_zero_and_needs_a_closure():
    param, other = start(), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    opt = adapters.LBFGS([param, other], line_search_fn="strong_wolfe", max_iter=60)
    minimize(opt, param, 4)
    torch.testing.assert_close(param.detach(), AT, rtol=0, atol=1e-4)
    assert torch.equal(other.detach(), torch.ones(2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"LBFGS.step\(\) needs a closure, .*; got None"):
        opt.step()
    opt.param_groups[0]["max_iter"] = 0
    with pytest.raises(ValueError, match="max_iter must be a whole number >= 1, got 0"):
        minimize(opt, param, 1)
