"""autograd (HIPS): its gradients go into step() as they are, whatever the parameters are nested in."""

import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fastopt

pytest.importorskip("autograd")

import autograd.numpy as anp
from autograd import grad, value_and_grad
from autograd.misc import flatten
from autograd.misc.optimizers import adam, sgd

from fastopt.adapters import flat


def digits(n=500):
    x, y = load_digits(return_X_y=True)
    return x[:n] / 16, y[:n]


X, Y = digits()
BATCHES = np.split(np.arange(len(X)), 5)


def start():
    rng = np.random.default_rng(0)
    sizes = (64, 16, 10)
    return [{"w": 0.1 * rng.standard_normal((m, n)), "b": np.zeros(n)} for m, n in itertools.pairwise(sizes)]


def loss(params, i):
    rows = BATCHES[i % len(BATCHES)]
    hidden = X[rows]
    for layer in params[:-1]:
        hidden = anp.tanh(anp.dot(hidden, layer["w"]) + layer["b"])
    logits = anp.dot(hidden, params[-1]["w"]) + params[-1]["b"]
    shifted = logits - anp.max(logits, axis=1, keepdims=True)
    picked = shifted[np.arange(len(rows)), Y[rows]]
    return anp.mean(anp.log(anp.sum(anp.exp(shifted), axis=1)) - picked)


GRADIENT = grad(loss)


#: autograd's method, and fastopt's with the same conventions.
CASES = {
    "adam": (adam, {"step_size": 0.02}, lambda params: fastopt.Adam(params, lr=0.02)),
    "adam, with its settings": (
        adam,
        {"step_size": 0.05, "b1": 0.8, "b2": 0.99, "eps": 1e-4},
        lambda params: fastopt.Adam(params, lr=0.05, betas=(0.8, 0.99), eps=1e-4),
    ),
    "sgd without momentum": (
        sgd,
        {"step_size": 0.5, "mass": 0.0},
        lambda params: fastopt.SGD(params, lr=0.5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_parameters_of_autograd_s_own_optimizers(name):
    method, settings, make = CASES[name]
    params, seen = start(), []
    opt = make(params)
    expected = method(GRADIENT, start(), lambda x, i, g: seen.append(x), num_iters=30, **settings)
    for i in range(30):
        for layer, wanted in zip(params, seen[i], strict=True):  # before each step
            for key in layer:
                np.testing.assert_allclose(layer[key], wanted[key], rtol=1e-9, atol=1e-11)
        opt.step(GRADIENT(params, i))
    for layer, wanted in zip(params, expected, strict=True):
        for key in layer:
            assert layer[key].dtype == np.float64
            np.testing.assert_allclose(layer[key], wanted[key], rtol=1e-9, atol=1e-11)
    assert loss(params, 0) < 0.7 * loss(start(), 0)


def test_sgd_with_momentum_is_that_of_a_flat_vector():
    """Its velocity is damped from the first step on; that of fastopt.SGD starts as the first gradient."""
    theta, unflatten = flatten(start())
    optimizer = flat.SGD(theta, 0.5, momentum=0.8)
    for i in range(20):
        optimizer.update(flatten(GRADIENT(unflatten(theta), i))[0])
    expected = flatten(sgd(GRADIENT, start(), num_iters=20, step_size=0.5, mass=0.8))[0]
    np.testing.assert_allclose(theta, expected, rtol=1e-9, atol=1e-11)


def test_tuples_and_0d_arrays_and_value_and_grad():
    params = {"w": np.array([2.0, -1.0]), "rest": (np.array(0.5), [np.array([[1.0]])])}

    def energy(params):
        scale, (matrix,) = params["rest"]
        return anp.sum(params["w"] ** 2) * scale + anp.sum(matrix**2)

    opt = fastopt.SGD(params, lr=0.125)
    value, gradients = value_and_grad(energy)(params)
    opt.step(gradients)
    assert value == 3.5
    assert params["w"].tolist() == [1.75, -0.875]
    assert params["rest"][0] == 0.5 - 0.125 * 5
    assert params["rest"][1][0].tolist() == [[0.75]]


def test_a_pack_takes_autograd_s_gradients():
    pack = fastopt.pack(start())
    params = start()
    opt, own = fastopt.AdamW(pack, lr=0.02), fastopt.AdamW(params, lr=0.02)
    for i in range(3):
        opt.step(GRADIENT(pack.params, i))
        own.step(GRADIENT(params, i))
    for layer, wanted in zip(pack.params, params, strict=True):
        for key in layer:
            assert np.array_equal(layer[key], wanted[key])
