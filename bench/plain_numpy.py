"""The steps as a good NumPy author writes them: the peers that fastopt is compared with.

In place, with ``out=`` and scratch arrays made once: NumPy at its best without blocking by hand. Each
function takes the parameters and the hyperparameters, by fastopt's names, and returns ``step(g)``. In
float64 they are also the reference for the answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Step = Callable[[Array], None]


def sgd(
    p: Array, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
) -> Step:
    b = np.zeros_like(p) if momentum else p
    a, d = np.empty_like(p), np.empty_like(p)

    def step(g: Array) -> None:
        g = _decayed(g, p, weight_decay, d)
        if momentum:
            np.multiply(b, momentum, out=b)
            np.add(b, g, out=b)
        if nesterov:
            np.multiply(b, momentum, out=a)
            np.add(a, g, out=a)
            np.multiply(a, lr, out=a)
        else:
            np.multiply(b if momentum else g, lr, out=a)
        np.subtract(p, a, out=p)

    return step


def momentum(p: Array, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0) -> Step:
    velocity, a = np.zeros_like(p), np.empty_like(p)

    def step(g: Array) -> None:
        np.multiply(_decayed(g, p, weight_decay, a), lr, out=a)
        np.multiply(velocity, momentum, out=velocity)
        np.add(velocity, a, out=velocity)
        np.subtract(p, velocity, out=p)

    return step


def nag(p: Array, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0) -> Step:
    """The update, for a gradient that was taken at the point ahead, where the penalty belongs as well."""
    velocity, a = np.zeros_like(p), np.empty_like(p)

    def step(g: Array) -> None:
        np.multiply(velocity, momentum, out=velocity)
        if weight_decay:
            np.subtract(p, velocity, out=a)
            np.multiply(a, weight_decay, out=a)
            np.add(a, g, out=a)
            np.multiply(a, lr, out=a)
        else:
            np.multiply(g, lr, out=a)
        np.add(velocity, a, out=velocity)
        np.subtract(p, velocity, out=p)

    return step


def adagrad(p: Array, lr: float = 1e-2, eps: float = 1e-10, weight_decay: float = 0.0) -> Step:
    total, a, d = np.zeros_like(p), np.empty_like(p), np.empty_like(p)

    def step(g: Array) -> None:
        g = _decayed(g, p, weight_decay, d)
        np.multiply(g, g, out=a)
        np.add(total, a, out=total)
        _subtract_normalised(p, g, total, lr, eps, a)

    return step


def adadelta(
    p: Array, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0
) -> Step:
    square, moved = np.zeros_like(p), np.zeros_like(p)
    a, b, d = np.empty_like(p), np.empty_like(p), np.empty_like(p)

    def step(g: Array) -> None:
        g = _decayed(g, p, weight_decay, d)
        _average_square(square, g, rho, a)
        np.add(moved, eps, out=a)
        np.add(square, eps, out=b)
        np.divide(a, b, out=a)
        np.sqrt(a, out=a)
        np.multiply(a, g, out=a)
        _average_square(moved, a, rho, b)
        if lr != 1.0:
            np.multiply(a, lr, out=a)
        np.subtract(p, a, out=p)

    return step


def rmsprop(
    p: Array, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0
) -> Step:
    square, a, d = np.zeros_like(p), np.empty_like(p), np.empty_like(p)

    def step(g: Array) -> None:
        g = _decayed(g, p, weight_decay, d)
        _average_square(square, g, alpha, a)
        _subtract_normalised(p, g, square, lr, eps, a)

    return step


def adam(
    p: Array,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> Step:
    m, v, a, d = np.zeros_like(p), np.zeros_like(p), np.empty_like(p), np.empty_like(p)
    beta1, beta2 = betas
    t = 0

    def step(g: Array) -> None:
        nonlocal t
        t += 1
        if not decoupled:
            g = _decayed(g, p, weight_decay, d)
        np.multiply(g, 1 - beta1, out=a)
        np.multiply(m, beta1, out=m)
        np.add(m, a, out=m)
        _average_square(v, g, beta2, a)
        # The bias corrections are moved into the scalars, which saves two passes.
        root = math.sqrt(1 - beta2**t)
        if decoupled and weight_decay:
            np.multiply(p, 1 - lr * weight_decay, out=p)
        _subtract_normalised(p, m, v, lr * root / (1 - beta1**t), eps * root, a)

    return step


def adamw(
    p: Array,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Step:
    return adam(p, lr, betas, eps, weight_decay, decoupled=True)


def lion(
    p: Array, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
) -> Step:
    m, a = np.zeros_like(p), np.empty_like(p)
    beta1, beta2 = betas

    def step(g: Array) -> None:
        # Scaling does not change a sign: beta1 * m + (1 - beta1) * g has that of this.
        np.multiply(m, beta1 / (1 - beta1), out=a)
        np.add(a, g, out=a)
        np.sign(a, out=a)
        np.multiply(a, lr, out=a)
        if weight_decay:
            np.multiply(p, 1 - lr * weight_decay, out=p)
        np.subtract(p, a, out=p)
        np.multiply(g, 1 - beta2, out=a)
        np.multiply(m, beta2, out=m)
        np.add(m, a, out=m)

    return step


# The steps as most people write them: the papers' expressions, line by line.


def adamw_textbook(
    p: Array,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Step:
    m, v = np.zeros_like(p), np.zeros_like(p)
    beta1, beta2 = betas
    t = 0

    def step(g: Array) -> None:
        nonlocal m, v, t
        t += 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p[...] = p - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * p)

    return step


def sgd_textbook(p: Array, lr: float = 1e-3, momentum: float = 0.9) -> Step:
    b = np.zeros_like(p)

    def step(g: Array) -> None:
        nonlocal b
        b = momentum * b + g
        p[...] = p - lr * b

    return step


def adagrad_textbook(p: Array, lr: float = 1e-2, eps: float = 1e-10) -> Step:
    total = np.zeros_like(p)

    def step(g: Array) -> None:
        nonlocal total
        total = total + g**2
        p[...] = p - lr * g / (np.sqrt(total) + eps)

    return step


def lion_textbook(
    p: Array, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
) -> Step:
    m = np.zeros_like(p)
    beta1, beta2 = betas

    def step(g: Array) -> None:
        nonlocal m
        c = beta1 * m + (1 - beta1) * g
        p[...] = p - lr * (np.sign(c) + weight_decay * p)
        m = beta2 * m + (1 - beta2) * g

    return step


def _decayed(g: Array, p: Array, weight_decay: float, out: Array) -> Array:
    if weight_decay == 0.0:
        return g
    np.multiply(p, weight_decay, out=out)
    return np.add(out, g, out=out)


def _average_square(average: Array, x: Array, keep: float, scratch: Array) -> None:
    np.multiply(x, x, out=scratch)
    np.multiply(scratch, 1 - keep, out=scratch)
    np.multiply(average, keep, out=average)
    np.add(average, scratch, out=average)


def _subtract_normalised(p: Array, x: Array, square: Array, lr: float, eps: float, scratch: Array) -> None:
    np.sqrt(square, out=scratch)
    np.add(scratch, eps, out=scratch)
    np.divide(x, scratch, out=scratch)
    np.multiply(scratch, lr, out=scratch)
    np.subtract(p, scratch, out=p)


#: By fastopt's names.
STEPS: dict[str, Callable[..., Step]] = {
    "SGD": sgd,
    "Momentum": momentum,
    "NAG": nag,
    "Adagrad": adagrad,
    "Adadelta": adadelta,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": adamw,
    "Lion": lion,
}
TEXTBOOK: dict[str, Callable[..., Step]] = {
    "AdamW": adamw_textbook,
    "SGD": sgd_textbook,
    "Adagrad": adagrad_textbook,
    "Lion": lion_textbook,
}
