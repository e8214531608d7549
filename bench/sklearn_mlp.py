"""A ``fit`` of scikit-learn's MLPClassifier and of fastopt's, on digits: the same epochs, the same losses.

How much an optimizer can save depends on the share that is left to the matrix products of NumPy's BLAS, which
both do alike. So the time of these alone is measured beside.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from _measure import median
from _turns import note_spread, turns
from numpy_mlp import Hidden
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

from fastopt.adapters._sklearn_driver import Driver
from fastopt.adapters.sklearn import MLPClassifier

BATCH = 200  # scikit-learn's
#: What takes the steps of each: by whose clock they are timed.
MODELS = {"scikit-learn": (neural_network.MLPClassifier, AdamOptimizer), "fastopt": (MLPClassifier, Driver)}
#: How many times as fast as scikit-learn's a fit should be.
TARGETS: dict[Hidden, float] = {(256, 128): 1.25, (1024, 1024): 1.6}


class Fit(NamedTuple):
    """Seconds of the whole, of an epoch after the first, and of the steps in it; and the losses."""

    fit_s: float
    epoch_s: float
    step_s: float
    losses: list[float]


@contextmanager
def clock(optimizer: type[Any]) -> Iterator[tuple[list[float], list[float]]]:
    """Note when each epoch ends, and the seconds that all steps so far have taken."""
    update, end = optimizer.update_params, optimizer.iteration_ends
    ends: list[float] = []
    in_steps = [0.0]

    def update_params(self: Any, *args: Any) -> None:
        before = time.perf_counter()
        update(self, *args)
        in_steps[-1] += time.perf_counter() - before

    def iteration_ends(self: Any, *args: Any) -> None:
        end(self, *args)
        ends.append(time.perf_counter())
        in_steps.append(in_steps[-1])

    with (
        mock.patch.object(optimizer, "update_params", update_params),
        mock.patch.object(optimizer, "iteration_ends", iteration_ends),
    ):
        yield ends, in_steps


def fit(by: str, hidden: Hidden, epochs: int) -> Fit:
    """Train a model, at least two epochs."""
    cls, optimizer = MODELS[by]
    images, labels = load_digits(return_X_y=True)
    # Neither stops early, whatever the loss does.
    model = cls(hidden, max_iter=epochs, tol=0.0, n_iter_no_change=epochs, batch_size=BATCH, random_state=0)
    with warnings.catch_warnings(), clock(optimizer) as (ends, in_steps):
        warnings.simplefilter("ignore", ConvergenceWarning)
        began = time.perf_counter()
        model.fit(images / 16, labels)
        took = time.perf_counter() - began
    epoch_s, step_s = ((each[epochs - 1] - each[0]) / (epochs - 1) for each in (ends, in_steps))
    return Fit(took, epoch_s, step_s, model.loss_curve_)


def check(hidden: Hidden, epochs: int) -> None:
    """Raise an error unless both have the same loss curve, up to rounding."""
    ours, theirs = (fit(by, hidden, epochs).losses for by in MODELS)
    if not np.allclose(ours, theirs, rtol=1e-10, atol=0.0):
        raise AssertionError(f"MLPClassifier {hidden}: the losses are {ours} and {theirs}")


def products(hidden: Hidden, epochs: int) -> Callable[[], float]:
    """Return what does the matrix products of a fit, and nothing else, and returns the seconds an epoch."""
    rng = np.random.default_rng(0)
    samples, features, outputs = 1797, 64, 10
    sizes = [features, *hidden, outputs]
    weights = [rng.standard_normal(shape) for shape in pairwise(sizes)]
    rows = [min(BATCH, samples - start) for start in range(0, samples, BATCH)]
    layers = {n: [rng.standard_normal((n, size)) for size in sizes] for n in set(rows)}
    grads = [np.empty_like(weight) for weight in weights]

    def epoch() -> None:
        for n in rows:
            for i, weight in enumerate(weights):
                layers[n][i] @ weight
            for i, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
                np.matmul(layers[n][i].T, layers[n][i + 1], out=grad)
                if i > 0:
                    layers[n][i + 1] @ weight.T

    def run() -> float:
        epoch()
        began = time.perf_counter()
        for _ in range(epochs):
            epoch()
        return (time.perf_counter() - began) / epochs

    return run


def measure(hidden: Hidden, epochs: int, rounds: int) -> dict[str, Any]:
    """Return the time and the loss of both, the time of the products alone, and how the target was met."""
    check(hidden, min(3, epochs))
    taken = turns({by: partial(fit, by, hidden, epochs) for by in MODELS}, rounds)
    alone = turns({"products": products(hidden, epochs)}, rounds)["products"]
    found = {}
    for by, fits in taken.items():
        note_spread(f"MLPClassifier {hidden}, {by}", [each.fit_s for each in fits])
        found[by] = {
            "fit_s": median(np.array([each.fit_s for each in fits])),
            "epoch_s": median(np.array([each.epoch_s for each in fits])),
            "step_s": median(np.array([each.step_s for each in fits])),
            "share": median(np.array([each.step_s / each.epoch_s for each in fits])),
            "loss": fits[-1].losses[-1],
        }
    ours, theirs = found["fastopt"]["loss"], found["scikit-learn"]["loss"]
    if not np.isclose(ours, theirs, rtol=1e-6, atol=0.0):
        raise AssertionError(f"MLPClassifier {hidden}: the last losses are {ours} and {theirs}")
    pairs = zip(taken["scikit-learn"], taken["fastopt"], strict=True)
    return {
        "hidden": hidden,
        "parameters": sum((m + 1) * n for m, n in pairwise((64, *hidden, 10))),
        "epochs": epochs,
        "batch": BATCH,
        "by": found,
        "products_s": median(np.array(alone)),
        "speed": median(np.array([theirs.fit_s / ours.fit_s for theirs, ours in pairs])),
        "target": TARGETS.get(hidden),
    }
