"""A multilayer perceptron in NumPy whose gradients are written where the optimizer reads them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastopt

Array = NDArray[np.floating]


class Network:
    """Layers of ReLU units, then softmax.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, classes.
    seed : int
        Of the weights, drawn as He et al. do (arXiv:1502.01852).
    dtype : float32 or float64
        Of everything.

    Attributes
    ----------
    pack : fastopt.Pack
        A list with a dict a layer, "w" of shape (inputs, outputs) and "b".
    """

    def __init__(self, sizes: Sequence[int], seed: int, dtype: DTypeLike = np.float32) -> None:
        rng = np.random.default_rng(seed)
        layers = [
            {"w": rng.standard_normal((m, n)) * np.sqrt(2.0 / m), "b": np.zeros(n)}
            for m, n in itertools.pairwise(sizes)
        ]
        self.pack = fastopt.pack(layers, dtype=dtype)

    def _activations(self, x: Array) -> list[Array]:
        """Return the input of each layer, and last the logits."""
        values = [x]
        for number, layer in enumerate(self.pack.params):
            x = x @ layer["w"]
            x += layer["b"]
            if number < len(self.pack.params) - 1:
                np.maximum(x, 0.0, out=x)
            values.append(x)
        return values

    def loss(self, x: Array, labels: NDArray[np.integer]) -> float:
        """Return the mean cross-entropy."""
        return float(-_log_softmax(self._activations(x)[-1])[np.arange(len(x)), labels].mean())

    def accuracy(self, x: Array, labels: NDArray[np.integer]) -> float:
        """Return the share of inputs whose label is the most probable class."""
        return float((self._activations(x)[-1].argmax(axis=1) == labels).mean())

    def backward(self, x: Array, labels: NDArray[np.integer]) -> None:
        """Write the gradients of the loss into ``pack.grads``."""
        *inputs, logits = self._activations(x)
        delta = np.exp(_log_softmax(logits))
        delta[np.arange(len(x)), labels] -= 1.0
        delta /= len(x)
        for number in reversed(range(len(inputs))):
            grads = self.pack.grads[number]
            np.matmul(inputs[number].T, delta, out=grads["w"])
            np.sum(delta, axis=0, out=grads["b"])
            if number > 0:
                delta = delta @ self.pack.params[number]["w"].T
                delta *= inputs[number] > 0.0


def _log_softmax(logits: Array) -> Array:
    shifted: Array = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
