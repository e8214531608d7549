"""A step of any algorithm over one vector, by fastopt and by NumPy: for the suites over the whole catalogue.

The comparisons with other libraries are in peers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import plain_numpy
from numpy.typing import NDArray

import fastopt

Array = NDArray[np.floating]


class Contestant(NamedTuple):
    """A step without arguments, and views of the arrays that it reads and writes."""

    step: Callable[[], object]
    p: Array
    g: Array
    #: What must come before each step and is not part of it.
    before: Callable[[], None] | None = None


def start(size: int) -> tuple[Array, Array]:
    """Return the parameters and the gradients that all begin with."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(size, np.float32), rng.standard_normal(size, np.float32)


def by_fastopt(algorithm: str, p: Array, g: Array, **options: Any) -> Contestant:
    pack = fastopt.pack(p)
    pack.flat_grads[:] = g
    opt = getattr(fastopt, algorithm)(pack, **options)

    def look() -> None:
        with opt.lookahead():
            pass

    return Contestant(opt.step, pack.flat, pack.flat_grads, look if hasattr(opt, "lookahead") else None)


def by_numpy(make: Callable[..., plain_numpy.Step], p: Array, g: Array, **options: Any) -> Contestant:
    p = p.copy()
    step = make(p, **options)
    return Contestant(lambda: step(g), p, g)


@cache
def torch_or_none() -> Any:
    with suppress(ImportError):
        import torch

        return torch
    print("skipped: torch (not installed)")
    return None


def check(algorithm: str, contestant: Contestant, steps: int = 3, **options: Any) -> None:
    """Take some first steps, and raise unless their result is what NumPy computes in float64.

    All of a small array is compared; of a large one both ends and some 100,000 elements between.
    """
    p, g = contestant.p, contestant.g
    size, near = p.size, 1000
    sample = np.unique(np.r_[: min(size, near), : size : max(1, size // 100_000), max(0, size - near) : size])
    exact, gradients = p[sample].astype(np.float64), g[sample].astype(np.float64)
    reference = plain_numpy.STEPS[algorithm](exact, **options)
    for _ in range(steps):
        if contestant.before:
            contestant.before()
        contestant.step()
        reference(gradients)
    tolerance = 8 * np.finfo(p.dtype).eps * np.maximum(1, abs(exact))
    wrong = ~(abs(p[sample] - exact) <= tolerance)  # NaN is wrong
    if wrong.any():
        raise AssertionError(f"{algorithm}: {wrong.sum()} of {sample.size} results differ from float64's")


def bytes_moved(algorithm: str, **settings: Any) -> int:
    """Return the bytes that an update must move for each float32 parameter, whoever does it."""
    cls = getattr(fastopt, algorithm)
    return 4 * int(cls.choose_rule({**cls._known_defaults(), **settings}).traffic)
