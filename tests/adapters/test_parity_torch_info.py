"""torch's own table of optimizers, ``OptimizerInfo``: its inputs that must work, and those that must not."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")
pytest.importorskip(
    "expecttest", reason="torch's tables of tests need expecttest: pip install fastopt[parity]"
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import fastopt.adapters.torch as adapters  # noqa: E402

SHAPES = [(5, 4), (3, 3), (2, 6)]  # torch's Muon takes matrices only
STEPS = 7
#: torch keeps numbers of ASGD and NAdam, and an lr that is a tensor, in float32; for Muon, it
#: orthogonalizes in bfloat16.
TOLERANCES = {"ASGD": 1e-7, "NAdam": 1e-8, "SparseAdam": 1e-8, "Muon": 2e-2}

#: Errors that differ from torch's, and why.
DIFFERENT = {
    ("Adafactor", "does not support complex parameters"): "complex parameters are refused at construction",
    ("Muon", "does not support complex parameters"): "complex parameters are refused at construction",
    ("SparseAdam", "complex not supported"): "complex parameters are refused by a TypeError that names them",
}
#: What torch refuses, and fastopt does not.
TAKEN = {("Muon", "only support 2D parameters"): "fastopt's Muon updates what is no matrix by AdamW"}


def parameters(dtype):
    rng = np.random.default_rng(3)
    return [torch.nn.Parameter(torch.tensor(rng.standard_normal(shape), dtype=dtype)) for shape in SHAPES]


def tolerance(info):
    return TOLERANCES.get(info.name, 1e-11)


def closure_of(opt, params):
    def closure():
        opt.zero_grad()
        loss = sum(((param - 1) ** 2 * (1 + i)).sum() for i, param in enumerate(params))
        loss.backward()
        return loss

    return closure


def sparse(grad):
    """Return some rows of a gradient."""
    return torch.sparse_coo_tensor(torch.tensor([[0, 1]]), grad[:2], grad.shape, check_invariants=True)


def take_steps(info, opt, params):
    rng = np.random.default_rng(4)
    losses = []
    for _ in range(STEPS):
        if info.step_requires_closure or info.name == "LBFGS":
            losses.append(float(opt.step(closure_of(opt, params)).detach()))
            continue
        for param in params:
            grad = torch.tensor(rng.standard_normal(param.shape), dtype=param.dtype)
            param.grad = sparse(grad) if info.only_supports_sparse_grads else grad
        opt.step()
    return losses


@pytest.mark.parametrize(
    ("info", "given"),
    [
        pytest.param(info, each, id=f"{info.name} {each.desc}")
        for info in optim_db
        for each in info.optim_inputs_func(device="cpu")
    ],
)
def test_inputs_that_work(info, given):
    mine, theirs = parameters(torch.float64), parameters(torch.float64)
    opt, peer = getattr(adapters, info.name)(mine, **given.kwargs), info.optim_cls(theirs, **given.kwargs)
    np.testing.assert_allclose(
        take_steps(info, opt, mine), take_steps(info, peer, theirs), rtol=1e-6, atol=1e-9
    )
    tol = 1e-6 if info.name == "LBFGS" else tolerance(info)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tol, atol=tol)
        if info.name == "LBFGS":
            continue
        assert set(peer.state[other]) <= set(opt.state[one])
        for key, value in peer.state[other].items():
            wanted = torch.as_tensor(value)
            close = {"rtol": 10 * tol, "atol": 10 * tol, "check_dtype": False}
            torch.testing.assert_close(opt.state[one][key], wanted, **close)
    assert peer.defaults.items() <= {**opt.defaults, "eps": peer.defaults.get("eps")}.items()
    for one, other in zip(opt.param_groups, peer.param_groups, strict=True):
        assert other.keys() <= one.keys()


@pytest.mark.parametrize("info", optim_db, ids=lambda info: info.name)
def test_flags_that_change_nothing(info):
    if not {"foreach", "fused"} & set(info.supported_impls):
        pytest.skip(f"torch.optim.{info.name} has no such flags")
    results = []
    for flag in (None, *sorted({"foreach", "fused"} & set(info.supported_impls))):
        params = parameters(torch.float32)
        take_steps(info, getattr(adapters, info.name)(params, **({flag: True} if flag else {})), params)
        results.append(params)
    for params in results[1:]:
        assert all(map(torch.equal, params, results[0]))


def errors():
    for info in optim_db:
        for each in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
            yield pytest.param(info, each, id=f"{info.name} {each.optimizer_error_input.desc}")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(("info", "error"), list(errors()))
def test_inputs_that_do_not_work(info, error):
    given = error.optimizer_error_input
    params = given.params if given.params is not None else parameters(torch.float32)
    key = info.name, given.desc

    def use():
        opt = getattr(adapters, info.name)(params, **given.kwargs)
        if error.error_on is OptimizerErrorEnum.STEP_ERROR:
            opt.step()

    if key in TAKEN:
        use()
    elif key in DIFFERENT:
        with pytest.raises(TypeError, match="must be of torch.float32 or torch.float64, got torch.complex64"):
            use()
    elif issubclass(error.error_type, Warning):
        with pytest.warns(error.error_type, match=error.error_regex):
            use()
    else:
        with pytest.raises(error.error_type, match=error.error_regex):
            use()
