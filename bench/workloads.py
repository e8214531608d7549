"""What is updated in the comparisons: the shapes of models, and the arrays that all begin with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import _measure  # noqa: F401  first: it says which fastopt is measured
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Arrays = Sequence[Array]
Shapes = Sequence[tuple[int, ...]]


def flat(size: int) -> Shapes:
    """Return the shape of one vector: what trainers that keep all parameters in one buffer have."""
    return [(size,)]


def perceptron() -> Shapes:
    """Return the shapes of a small network for 28x28 images: three layers, six arrays."""
    return [(784, 256), (256,), (256, 128), (128,), (128, 10), (10,)]


def gpt2_small() -> Shapes:
    """Return the shapes of GPT-2 small's 148 arrays: 124 million parameters."""
    width = 768
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    inner = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    block = [*norm, *attention, *norm, *inner]
    return [(50257, width), (1024, width), *(12 * block), *norm]


SIZES = (10**2, 10**3, 10**4, 10**5, 10**6, 10**7, 5 * 10**7)
PERCEPTRON, MANY, GPT2 = "perceptron, 6 arrays", "1000 arrays of 1000", "GPT-2 small, 148 arrays"


def name_of(size: int) -> str:
    """Return how the workload of one vector is called: "vector of 1e4"."""
    power = math.floor(math.log10(size))
    return f"vector of {size / 10**power:g}e{power}"


#: Workloads, by name.
WORKLOADS: dict[str, Shapes] = {
    **{name_of(size): flat(size) for size in SIZES},
    PERCEPTRON: perceptron(),
    MANY: [(1000,)] * 1000,
    GPT2: gpt2_small(),
}


def parameters(shapes: Shapes) -> int:
    """Return how many numbers there are in all arrays."""
    return sum(map(math.prod, shapes))


def start(shapes: Shapes) -> tuple[list[Array], list[Array]]:
    """Return the parameters and the gradients that all begin with.

    No gradient is nearly zero: there, libraries that add epsilon at another place would differ.
    """
    rng = np.random.default_rng(0)
    params = [np.float32(0.1) * rng.standard_normal(shape, np.float32) for shape in shapes]
    grads = [rng.random(shape, np.float32) for shape in shapes]
    for grad in grads:
        grad += np.float32(0.5)
        grad.reshape(-1)[::3] *= -1
    return params, grads
