"""Training ends where it ends in float32, with state in fewer bytes."""

import numpy as np
import pytest

import fastopt

#: Learning rates with which the losses are well below where they start, and not yet lost in rounding.
ALGORITHMS = {
    "adam": lambda params, **options: fastopt.Adam(params, lr=2e-3, **options),
    "adamw": lambda params, **options: fastopt.AdamW(params, lr=2e-3, **options),
    "lion": lambda params, **options: fastopt.Lion(params, lr=1e-3, **options),
    "adagrad": lambda params, **options: fastopt.Adagrad(params, lr=2e-2, **options),
    "rmsprop": lambda params, **options: fastopt.RMSprop(params, lr=1e-3, **options),
    "ademamix": lambda params, **options: fastopt.AdEMAMix(params, lr=1e-3, **options),
}
HIDDEN, BATCH, STEPS = 96, 100, 400


def digits():
    """Return images, their classes, and the loss with its derivative."""
    given = pytest.importorskip("sklearn.datasets").load_digits()
    x, labels = (given.data / 16).astype(np.float32), given.target

    def loss(out, rows):
        out = out - out.max(axis=1, keepdims=True)
        chances = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
        own = chances[np.arange(len(rows)), labels[rows]]
        chances[np.arange(len(rows)), labels[rows]] -= 1
        return float(-np.log(np.maximum(own, 1e-30)).mean(dtype=np.float64)), chances / len(rows)

    return x, 10, loss


def regression():
    """Return inputs, and the loss of what another network makes of them, with noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 48)).astype(np.float32)
    y = np.tanh(x @ rng.standard_normal((48, 8)) / 5) @ rng.standard_normal((8, 4))
    y = (y + 0.3 * rng.standard_normal(y.shape)).astype(np.float32)

    def loss(out, rows):
        off = out - y[rows]
        return float(np.square(off, dtype=np.float64).mean()), 2 * off / off.size

    return x, 4, loss


def trained(problem, make, seed, form):
    """Return the loss over all examples after training a network of two layers."""
    x, outputs, loss = problem
    rng = np.random.default_rng(seed)
    shapes = {"w1": (x.shape[1], HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, outputs), "b2": (outputs,)}
    params = {
        name: (rng.standard_normal(shape) * (shape[0] ** -0.5 if len(shape) == 2 else 0)).astype(np.float32)
        for name, shape in shapes.items()
    }
    # Of so small a network, all state would stay in float32.
    opt = make(params, seed=seed, overrides={"*": {"state_dtype": form}})

    def forward(rows):
        hidden = np.maximum(x[rows] @ params["w1"] + params["b1"], 0)
        return hidden, hidden @ params["w2"] + params["b2"]

    for _ in range(STEPS):
        rows = rng.integers(0, len(x), BATCH)
        hidden, out = forward(rows)
        _, delta = loss(out, rows)
        delta = delta.astype(np.float32)
        back = (delta @ params["w2"].T) * (hidden > 0)
        grads = {
            "w1": x[rows].T @ back,
            "b1": back.sum(axis=0),
            "w2": hidden.T @ delta,
            "b2": delta.sum(axis=0),
        }
        opt.step(grads)
    every = np.arange(len(x))
    return loss(forward(every)[1], every)[0]


def compare(problem, make, form, seeds):
    plain = np.mean([trained(problem, make, seed, None) for seed in seeds])
    low = np.mean([trained(problem, make, seed, form) for seed in seeds])
    return low / plain


@pytest.mark.parametrize("form", ["bfloat16", "float8"])
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("problem", [digits, regression])
@pytest.mark.slow
@pytest.mark.jit
def test_the_final_loss_is_that_of_float32(problem, name, form):
    ratio = compare(problem(), ALGORITHMS[name], form, range(5))
    assert abs(ratio - 1) < 0.03, f"the loss is {ratio:.4f} times as large"


@pytest.mark.jit
def test_one_of_them():
    assert abs(compare(regression(), ALGORITHMS["adamw"], "bfloat16", [0]) - 1) < 0.03
