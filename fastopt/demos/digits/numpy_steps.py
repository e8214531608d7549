"""The same methods as plain NumPy steps, as a careful author writes them, to be timed against.

Each function returns a step: it takes a gradient and updates ``p``, in place. State is updated in place
too; expressions that need a temporary array have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from fastopt import NAG, SGD, Adadelta, Adagrad, Adam, AdamW, Momentum, Optimizer, RMSprop
from fastopt.demos.digits.network import Array

Step = Callable[[Array], None]


def sgd(p: Array, lr: float, momentum: float = 0.0, nesterov: bool = False) -> Step:
    """Gradient descent: plain, with momentum, with Nesterov's momentum."""
    buffer = np.zeros_like(p)

    def step(g: Array) -> None:
        nonlocal p, buffer
        if momentum == 0.0:
            p -= lr * g
            return
        buffer *= momentum
        buffer += g
        p -= lr * (g + momentum * buffer) if nesterov else lr * buffer

    return step


def classical_momentum(p: Array, lr: float, momentum: float) -> Step:
    """Momentum with the learning rate inside the velocity."""
    velocity = np.zeros_like(p)

    def step(g: Array) -> None:
        nonlocal p, velocity
        velocity *= momentum
        velocity += lr * g
        p -= velocity

    return step


def nag(p: Array, lr: float, momentum: float) -> Step:
    """Nesterov's first form, with the point ahead as an array of its own."""
    velocity, ahead = np.zeros_like(p), np.empty_like(p)

    def step(g: Array) -> None:
        nonlocal p, velocity
        np.multiply(velocity, -momentum, out=ahead)
        np.add(ahead, p, out=ahead)  # where ``g`` would be taken
        velocity *= momentum
        velocity += lr * g
        p -= velocity

    return step


def adagrad(p: Array, lr: float, eps: float = 1e-10) -> Step:
    """Adagrad."""
    total = np.zeros_like(p)

    def step(g: Array) -> None:
        nonlocal p, total
        total += g * g
        p -= lr * g / (np.sqrt(total) + eps)

    return step


def adadelta(p: Array, lr: float, rho: float = 0.9, eps: float = 1e-6) -> Step:
    """Adadelta."""
    squares, deltas = np.zeros_like(p), np.zeros_like(p)

    def step(g: Array) -> None:
        nonlocal p, squares, deltas
        squares *= rho
        squares += (1.0 - rho) * g * g
        delta = np.sqrt((deltas + eps) / (squares + eps))
        delta *= g
        deltas *= rho
        deltas += (1.0 - rho) * delta * delta
        p -= lr * delta

    return step


def rmsprop(
    p: Array,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
) -> Step:
    """RMSprop, also centered and with momentum."""
    squares, mean, buffer = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)

    def step(g: Array) -> None:
        nonlocal p, squares, mean, buffer
        squares *= alpha
        squares += (1.0 - alpha) * g * g
        if centered:
            mean *= alpha
            mean += (1.0 - alpha) * g
            root = np.sqrt(np.abs(squares - mean * mean))
        else:
            root = np.sqrt(squares)
        root += eps
        if momentum == 0.0:
            p -= lr * g / root
            return
        buffer *= momentum
        buffer += g / root
        p -= lr * buffer

    return step


def adam(
    p: Array,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Step:
    """Adam, also with AMSGrad. The weight decay is AdamW's."""
    beta1, beta2 = betas
    mean, squares, greatest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    count = 0

    def step(g: Array) -> None:
        nonlocal p, mean, squares, count
        count += 1
        mean *= beta1
        mean += (1.0 - beta1) * g
        squares *= beta2
        squares += (1.0 - beta2) * g * g
        if amsgrad:
            np.maximum(greatest, squares, out=greatest)
        root = np.sqrt(greatest if amsgrad else squares)
        root /= math.sqrt(1.0 - beta2**count)
        root += eps
        if weight_decay != 0.0:
            p *= 1.0 - lr * weight_decay
        p -= lr / (1.0 - beta1**count) * mean / root

    return step


#: By the class of fastopt that does the same.
NUMPY_STEPS: Mapping[type[Optimizer], Callable[..., Step]] = {
    SGD: sgd,
    Momentum: classical_momentum,
    NAG: nag,
    Adagrad: adagrad,
    Adadelta: adadelta,
    RMSprop: rmsprop,
    Adam: adam,
    AdamW: adam,
}
