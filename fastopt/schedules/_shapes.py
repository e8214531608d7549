"""The ways from one value to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

#: By name: given the share of the time that is over, how much the first value and the second weigh.
#: Each weight is computed by itself, because ``1 - weight`` would lose the digits of a small one.
SHAPES: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "linear": lambda time: (1.0 - time, time),
    "cosine": lambda time: _cosine(math.cos(math.pi * time)),
    "1-sqrt": lambda time: (1.0 - math.sqrt(time), math.sqrt(time)),
}


def _cosine(cosine: float) -> tuple[float, float]:
    return 0.5 * (1.0 + cosine), 0.5 * (1.0 - cosine)


def progress(step: float, steps: float) -> float:
    """Return the share of some steps that is over: 1 after the last, and where there are none."""
    return 1.0 if step >= steps else step / steps


def blend(first: float, second: float, weights: tuple[float, float]) -> float:
    """Return the weighted sum of two values. It is exactly one of them where the weights are 0 and 1."""
    return first * weights[0] + second * weights[1]


def power(base: float, exponent: float) -> float:
    """Return a power of a number that is not negative: infinity, not an error, where it is too large."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
