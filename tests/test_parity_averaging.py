"""Averages and clipping agree with torch's ``swa_utils`` and ``clip_grad_value_``."""

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import draw, each_dtype

torch = pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")
swa_utils = torch.optim.swa_utils

SHAPES = [(4, 3), (17,), (), (5, 2, 3)]
STEPS = 20


@pytest.fixture(autouse=True)
def _doubles():
    """Have torch compute the shares of its mean in double."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Model(torch.nn.Module):
    def __init__(self, params):
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(w)) for w in params])


def assert_follows(dtype, options, averaged_with, counts=lambda i: True, *, start=False, clip=None):
    """Train AdamW here and there; compare parameters and averages after every step."""
    rng = np.random.default_rng(0)
    params = [draw(rng, shape, dtype) for shape in SHAPES]
    model = Model(params)
    theirs = torch.optim.AdamW(model.parameters(), lr=0.1)
    average = swa_utils.AveragedModel(model, multi_avg_fn=averaged_with)
    if start:
        average.update_parameters(model)  # the average begins with the parameters
    opt = fastopt.AdamW(params, lr=0.1, max_grad_value=clip, **options)
    scale = [np.abs(w) for w in params]
    for i in range(STEPS):
        grads = [draw(rng, shape, dtype) for shape in SHAPES]
        for weight, grad in zip(model.parameters(), grads, strict=True):
            weight.grad = torch.tensor(grad)
        if clip is not None:
            torch.nn.utils.clip_grad_value_(model.parameters(), clip)
        theirs.step()
        opt.step(grads)
        if counts(i):
            average.update_parameters(model)
        scale = [np.maximum(size, np.abs(w)) for size, w in zip(scale, params, strict=True)]
        pairs = [(params, model)]
        if average.n_averaged > 0:
            pairs.append((opt.averages(), average.module))
        for mine, peer in pairs:
            for w, other, size in zip(mine, peer.parameters(), scale, strict=True):
                assert (np.abs(w - other.detach().numpy()) <= 30 * np.finfo(dtype).eps * size).all()
    return opt, average


@each_dtype
def test_ema(dtype):
    assert_follows(dtype, {"ema_decay": 0.9}, swa_utils.get_ema_multi_avg_fn(0.9), start=True)


@each_dtype
@pytest.mark.parametrize(("start", "every"), [(0, 1), (5, 1), (3, 4)])
def test_swa(dtype, start, every):
    options = {"swa_start": start, "swa_every": every}

    def counts(i):
        return i >= start and (i - start) % every == 0

    opt, average = assert_follows(dtype, options, swa_utils.get_swa_multi_avg_fn(), counts)
    assert int(average.n_averaged) == opt.state[0]["n_averaged"][0]


@each_dtype
@pytest.mark.parametrize("clip", [0.01, 1.0])
def test_clip_grad_value(dtype, clip):
    assert_follows(dtype, {"ema_decay": 0.5}, swa_utils.get_ema_multi_avg_fn(0.5), start=True, clip=clip)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.5, -7.0])
def test_clip_of_what_is_not_finite(value):
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    weight.grad = torch.tensor([value], dtype=torch.float64)
    torch.nn.utils.clip_grad_value_([weight], 2.0)
    w = np.zeros(1)
    fastopt.SGD(w, lr=1.0, max_grad_value=2.0).step(np.array([value]))
    np.testing.assert_array_equal(-w, weight.grad.numpy())
