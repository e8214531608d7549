"""A perceptron in NumPy that learns digits with AdamW, whose step is taken by one library or another.

The step of each library has the arrays that suit it: fastopt its pack, torch tensors over NumPy's memory. The
gradients are written by ``out=`` for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import plain_numpy
from _measure import median
from _turns import note_spread, turns
from contestants import Array, torch_or_none
from numpy.typing import DTypeLike, NDArray
from sklearn.datasets import load_digits

import fastopt

BATCH = 64

Hidden = tuple[int, ...]
Indices = NDArray[np.integer]


class Trained(NamedTuple):
    """Parameters and gradients, layer by layer: weights, then biases; and what takes a step."""

    params: list[Array]
    grads: list[Array]
    step: Callable[[], object]


class Run(NamedTuple):
    """Seconds an epoch, those of it that the steps took, and the mean loss of the last epoch."""

    epoch_s: float
    step_s: float
    loss: float


@cache
def data() -> tuple[Array, Indices]:
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels


def start(hidden: Hidden, dtype: DTypeLike) -> list[Array]:
    """Return the weights and biases that all begin with."""
    rng = np.random.default_rng(0)
    arrays: list[Array] = []
    for inputs, outputs in pairwise((64, *hidden, 10)):
        weights = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
        arrays += [weights.astype(dtype), np.zeros(outputs, dtype)]
    return arrays


def by_fastopt(arrays: list[Array]) -> Trained:
    pack = fastopt.pack(arrays)
    return Trained(pack.params, pack.grads, fastopt.AdamW(pack).step)


def by_numpy(make: Callable[[Array], plain_numpy.Step], arrays: list[Array]) -> Trained:
    params, grads = [array.copy() for array in arrays], [np.zeros_like(array) for array in arrays]
    steps = [make(param) for param in params]

    def step() -> None:
        for each, grad in zip(steps, grads, strict=True):
            each(grad)

    return Trained(params, grads, step)


def by_torch(torch: Any, arrays: list[Array]) -> Trained:
    params, grads = [array.copy() for array in arrays], [np.zeros_like(array) for array in arrays]
    tensors = [torch.nn.Parameter(torch.from_numpy(param)) for param in params]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(grad)
    return Trained(params, grads, torch.optim.AdamW(tensors, fused=True).step)


def makers() -> dict[str, Callable[[list[Array]], Trained]]:
    """Return what makes a trained network of arrays, by who takes its steps."""
    found: dict[str, Callable[[list[Array]], Trained]] = {
        "fastopt": by_fastopt,
        "NumPy, in place": partial(by_numpy, plain_numpy.adamw),
        "NumPy, textbook": partial(by_numpy, plain_numpy.adamw_textbook),
    }
    if torch := torch_or_none():
        found["torch, fused"] = partial(by_torch, torch)
    return found


def backward(params: Sequence[Array], grads: Sequence[Array], x: Array, labels: Indices) -> float:
    """Write the gradients of the mean cross-entropy of a batch; return that."""
    values = [x]
    last = len(params) // 2 - 1
    for layer in range(last + 1):
        x = x @ params[2 * layer]
        x += params[2 * layer + 1]
        if layer < last:
            np.maximum(x, 0, out=x)
        values.append(x)
    x -= x.max(axis=1, keepdims=True)
    own = x[np.arange(len(x)), labels]
    delta = np.exp(x, out=x)
    sums = delta.sum(axis=1, keepdims=True)
    loss = float((np.log(sums[:, 0]) - own).mean())
    delta /= sums
    delta[np.arange(len(x)), labels] -= 1
    delta /= len(x)
    for layer in reversed(range(last + 1)):
        np.matmul(values[layer].T, delta, out=grads[2 * layer])
        np.sum(delta, axis=0, out=grads[2 * layer + 1])
        if layer > 0:
            delta = delta @ params[2 * layer].T
            delta *= values[layer] > 0
    return loss


def batches(epochs: int) -> list[list[Indices]]:
    """Return which images each batch of each epoch has."""
    rng, count = np.random.default_rng(1), len(data()[0])
    orders = [rng.permutation(count) for _ in range(epochs)]
    return [[order[i : i + BATCH] for i in range(0, count, BATCH)] for order in orders]


def train(make: Callable[[list[Array]], Trained], hidden: Hidden, epochs: int) -> Run:
    """Train a network anew. An epoch before the clock starts touches the memory and wakes the threads."""
    images, labels = data()
    trained = make(start(hidden, np.float32))
    loss = in_steps = began = 0.0
    for epoch, rows in enumerate(batches(1 + epochs)):
        if epoch == 1:
            in_steps, began = 0.0, time.perf_counter()
        loss = 0.0
        for chosen in rows:
            mean = backward(trained.params, trained.grads, images[chosen], labels[chosen])
            before = time.perf_counter()
            trained.step()
            in_steps += time.perf_counter() - before
            loss += mean * len(chosen) / len(images)
    return Run((time.perf_counter() - began) / epochs, in_steps / epochs, loss)


def check(hidden: Hidden, steps: int = 4) -> None:
    """Raise an error unless, in double, all have the same parameters after some steps, up to rounding."""
    images, labels = data()
    rows = batches(1)[0][:steps]
    wanted: list[Array] = []
    for name, make in makers().items():
        trained = make(start(hidden, np.float64))
        for chosen in rows:
            backward(trained.params, trained.grads, images[chosen].astype(float), labels[chosen])
            trained.step()
        wanted = wanted or [param.copy() for param in trained.params]
        for got, want in zip(trained.params, wanted, strict=True):
            if not np.allclose(got, want, rtol=1e-9, atol=1e-9):
                raise AssertionError(f"{name}, {hidden}: parameters are off by {abs(got - want).max()}")


#: How far the losses may be apart, relatively. Rounding in single precision grows while a network learns.
CLOSE = 0.02


def measure(hidden: Hidden, epochs: int, rounds: int) -> dict[str, Any]:
    """Return the time and the loss of training with each step."""
    check(hidden)
    runs = {name: partial(train, make, hidden, epochs) for name, make in makers().items()}
    found = {}
    for name, taken in turns(runs, rounds).items():
        epoch_s, step_s = median(np.array([run.epoch_s for run in taken])), [run.step_s for run in taken]
        note_spread(f"NumPy network {hidden}, {name}", [run.epoch_s for run in taken])
        found[name] = {
            "epoch_s": epoch_s,
            "step_s": median(np.array(step_s)),
            "share": median(np.array([run.step_s / run.epoch_s for run in taken])),
            "loss": taken[-1].loss,
        }
    losses = {name: values["loss"] for name, values in found.items()}
    if not np.allclose(list(losses.values()), losses["fastopt"], rtol=CLOSE, atol=0.0):
        raise AssertionError(f"NumPy network {hidden}: the losses are {losses}")
    parameters = sum(array.size for array in start(hidden, np.float32))
    return {"hidden": hidden, "parameters": parameters, "epochs": epochs, "batch": BATCH, "by": found}
