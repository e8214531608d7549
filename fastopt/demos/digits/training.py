"""The data, and training one network with one method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.demos.digits.network import Array, Network
from fastopt.demos.methods import Method, gradient_point

BATCH = 64


class Data(NamedTuple):
    """Images of 8 x 8 pixels as rows of numbers in [0, 1], and which digits they are."""

    train_x: Array
    train_labels: NDArray[np.integer]
    test_x: Array
    test_labels: NDArray[np.integer]


def load() -> Data:
    """Return scikit-learn's digits; a fifth of each class, always the same, is for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, labels = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    train_x, test_x, train_labels, test_labels = train_test_split(
        x, labels, test_size=0.2, random_state=0, stratify=labels
    )
    return Data(train_x, train_labels, test_x, test_labels)


@dataclass(frozen=True)
class Run:
    """What a training came to.

    Attributes
    ----------
    losses : list of float
        Mean cross-entropy over the training data, before the first epoch and after each.
    accuracy : float
        Share of the test images that are recognised.
    """

    losses: list[float]
    accuracy: float


def batches(count: int, rng: np.random.Generator) -> list[NDArray[np.integer]]:
    """Return which images are in each batch of an epoch; the last ones, too few for one, sit out."""
    order = rng.permutation(count)
    size = min(BATCH, count)
    return [order[start : start + size] for start in range(0, count - size + 1, size)]


def train(
    method: Method,
    data: Data,
    hidden: Sequence[int],
    epochs: int,
    seed: int,
    after_epoch: Callable[[], object] = lambda: None,
) -> Run:
    """Train a network: each method starts from the same weights and sees the same batches.

    Parameters
    ----------
    method : Method
        What to train it with.
    data : Data
        What to train it on.
    hidden : sequence of int
        Units of the hidden layers.
    epochs : int
        Passes over the training data.
    seed : int
        Of weights and batches.
    after_epoch : callable
        Called after each epoch.
    """
    network = Network([data.train_x.shape[1], *hidden, 10], seed)
    optimizer = method.make(network.pack)
    rng = np.random.default_rng(seed)
    losses = [network.loss(data.train_x, data.train_labels)]
    for _ in range(epochs):
        for chosen in batches(len(data.train_x), rng):
            with gradient_point(optimizer):
                network.backward(data.train_x[chosen], data.train_labels[chosen])
            optimizer.step()
        losses.append(network.loss(data.train_x, data.train_labels))
        after_epoch()
    return Run(losses, network.accuracy(data.test_x, data.test_labels))


def sample_gradients(data: Data, hidden: Sequence[int], seed: int, number: int) -> tuple[Array, list[Array]]:
    """Return flat parameters, and the flat gradients at them of some batches."""
    network = Network([data.train_x.shape[1], *hidden, 10], seed)
    rng = np.random.default_rng(seed)
    gradients: list[Array] = []
    while len(gradients) < number:
        for chosen in batches(len(data.train_x), rng)[: number - len(gradients)]:
            network.backward(data.train_x[chosen], data.train_labels[chosen])
            gradients.append(network.pack.flat_grads.copy())
    return network.pack.flat, gradients
