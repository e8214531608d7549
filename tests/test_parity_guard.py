"""Clipping, scaling, accumulating and zeroing, against torch's own."""

import math

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import draw, each_dtype

torch = pytest.importorskip("torch")

SHAPES = [(5, 3), (7,), (1000,), (1,)]


def start(dtype):
    rng = np.random.default_rng(0)
    params = [draw(rng, shape, dtype) for shape in SHAPES]
    return params, [torch.nn.Parameter(torch.tensor(param)) for param in params]


def gradients(i, dtype, scale=1.0):
    rng = np.random.default_rng(100 + i)
    return [np.asarray(draw(rng, shape, dtype) * scale, dtype) for shape in SHAPES]


def give(parameters, grads):
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)


def assert_close(params, parameters, dtype, tol=50):
    for own, parameter in zip(params, parameters, strict=True):
        other = parameter.detach().numpy()
        np.testing.assert_allclose(own, other, rtol=tol * np.finfo(dtype).eps, atol=tol * np.finfo(dtype).eps)


@each_dtype
@pytest.mark.parametrize("limit", [0.0, 0.1, 3.0, 1e6, math.inf])
def test_clip_grad_norm(dtype, limit):
    params, parameters = start(dtype)
    opt = fastopt.AdamW(params, lr=0.01, eps=1e-3, max_grad_norm=limit)
    other = torch.optim.AdamW(parameters, lr=0.01, eps=1e-3)
    for i in range(10):
        grads = gradients(i, dtype, 10.0 ** (i - 5))
        give(parameters, grads)
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        other.step()
        opt.step(grads)
        assert opt.grad_norm == pytest.approx(norm.item(), rel=float(10 * np.finfo(dtype).eps))
        assert_close(params, parameters, dtype)


@each_dtype
def test_clip_grad_norm_of_each(dtype):
    params, parameters = start(dtype)
    opt = fastopt.SGD(params, lr=0.1, momentum=0.9, max_grad_norm=0.5, grad_norm_over="tensor")
    other = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for i in range(10):
        grads = gradients(i, dtype)
        give(parameters, grads)
        for parameter in parameters:
            torch.nn.utils.clip_grad_norm_([parameter], 0.5)
        other.step()
        opt.step(grads)
        assert_close(params, parameters, dtype)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clip_grad_norm_of_what_is_not_finite(bad):
    params, parameters = start("float64")
    grads = gradients(0, "float64")
    grads[1][2] = bad
    give(parameters, grads)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    torch.optim.SGD(parameters, lr=0.1).step()
    fastopt.SGD(params, lr=0.1, max_grad_norm=1.0).step(grads)
    assert_close(params, parameters, "float64")


@each_dtype
def test_grad_scaler(dtype):
    """Ten updates, of which some have a gradient that is not finite: scales, steps and parameters agree."""
    params, parameters = start(dtype)
    settings = {"init_scale": 2.0**10, "growth_factor": 4.0, "backoff_factor": 0.125, "growth_interval": 3}
    scaler = torch.amp.GradScaler("cpu", **settings)
    opt = fastopt.Adam(params, lr=0.01, eps=1e-3, grad_scaler=fastopt.GradScaler(**settings))
    other = torch.optim.Adam(parameters, lr=0.01, eps=1e-3)
    for i in range(20):
        assert opt.grad_scaler.scale == scaler.get_scale()
        grads = gradients(i, dtype, opt.grad_scaler.scale)
        if i in (4, 5, 12):
            grads[i % 4].flat[0] = np.inf if i % 2 else np.nan
        give(parameters, grads)
        scaler.scale(torch.zeros(1))  # torch makes its scale at the first use
        scaler.step(other)
        scaler.update()
        opt.step(grads)
        assert_close(params, parameters, dtype)
    assert opt.grad_scaler.scale == scaler.get_scale()
    assert opt.skipped_nonfinite == 3


@each_dtype
def test_unscale_then_clip_then_accumulate(dtype):
    params, parameters = start(dtype)
    scale = 2.0**8
    pack = fastopt.pack(params)
    opt = fastopt.AdamW(pack, lr=0.01, eps=1e-3, max_grad_norm=0.5, accumulate=4, zero_grads=True)
    other = torch.optim.AdamW(parameters, lr=0.01, eps=1e-3)
    for i in range(5):
        for j in range(4):
            for own, parameter, grad in zip(
                pack.grads, parameters, gradients(4 * i + j, dtype, scale), strict=True
            ):
                own += grad
                new = torch.tensor(grad / scale / 4)
                parameter.grad = new if parameter.grad is None else parameter.grad + new
            opt.step(grad_scale=scale)
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        other.step()
        other.zero_grad(set_to_none=False)
        assert not pack.flat_grads.any()
        assert_close(pack.params, parameters, dtype)
