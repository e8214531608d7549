"""What is timed: the step of one algorithm over one array, in memory of its own."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastopt
from fastopt import NAG, Optimizer
from fastopt.benchmark.streams import Stream, like_update
from fastopt.engine import MatrixRule, Rule

Array = NDArray[np.floating]

#: The algorithms that have no step to be timed alone, and why.
LEFT_OUT = {
    "LBFGS": "its step is a search that calls your loss, whose time is most of it",
    "SparseAdam": "it updates rows of tables, not whole arrays: which rows decides its time",
}
NAMES = tuple(name for name in fastopt.algorithms.__all__ if name not in LEFT_OUT)

#: One of each kind: no state, one buffer of state, two, four; one that measures first; one for matrices.
USUAL = ("SGD", "Lion", "AdamW", "Adan", "LAMB", "Muon")

#: Elements of the random numbers that are repeated: drawing more would take longer than the steps.
_BLOCK = 1 << 18
#: What matrix rules, and the check of their answers, take beside, in arrays of the parameters' size.
_SCRATCH = 12


def rule_of(name: str) -> Rule | MatrixRule:
    """Return the rule of an algorithm with its default settings, that for matrices if it has one."""
    cls: type[Optimizer] = getattr(fastopt, name)
    return cls.rule_for(cls._known_defaults(), (2, 2))


def shape_of(name: str, size: int) -> tuple[int, ...]:
    """Return the shape of an array of ``size`` elements, or about as many for matrix rules: nearly square.

    Examples
    --------
    >>> from fastopt.benchmark.subjects import shape_of
    >>> shape_of("AdamW", 1000), shape_of("Muon", 1000), shape_of("Muon", 101)
    ((1000,), (25, 40), (10, 10))
    """
    if not isinstance(rule_of(name), MatrixRule):
        return (size,)
    side = math.isqrt(size)
    rows = next((n for n in range(side, side // 2, -1) if size % n == 0), side)
    return rows, size // rows


def memory_of(name: str, size: int, dtype: str) -> int:
    """Return how many bytes the parameters, the gradients and the state take, and scratch memory."""
    rule = rule_of(name)
    arrays = 2 + len(rule.state) + (_SCRATCH if isinstance(rule, MatrixRule) else 0)
    return arrays * size * np.dtype(dtype).itemsize


def fill(array: Array, seed: int) -> None:
    """Fill an array with normal random numbers, of which a block is repeated. None is subnormal or zero."""
    rng = np.random.default_rng(seed)
    block = rng.standard_normal(min(array.size, _BLOCK)).astype(array.dtype)
    block[np.abs(block) < 1e-3] = 1e-3
    for start in range(0, array.size, _BLOCK):
        part = array[start : start + _BLOCK]
        part[:] = block[: part.size]


class Subject:
    """An algorithm's optimizer over one packed array, with its gradients.

    Parameters
    ----------
    name : str
        The class's name.
    size : int
        How many parameters.
    dtype : {"float32", "float64"}
        Their dtype.
    threads : int, optional
        The most threads.

    Attributes
    ----------
    optimizer : Optimizer
        With its default settings, until :meth:`calm`.
    step : callable
        Takes a step.
    """

    def __init__(self, name: str, size: int, dtype: str, threads: int | None = None) -> None:
        self.name, self.shape = name, shape_of(name, size)
        self.pack = fastopt.pack(np.zeros(self.shape, dtype))
        fill(self.pack.flat, seed=0)
        fill(self.pack.flat_grads, seed=1)
        self.optimizer: Optimizer = getattr(fastopt, name)(self.pack, threads=threads)
        self.rule = rule_of(name)
        self.step = self._step_of(self.optimizer)

    @staticmethod
    def _step_of(optimizer: Optimizer) -> Any:
        if not isinstance(optimizer, NAG):
            return optimizer.step

        def step() -> None:
            optimizer._has_looked = (
                True  # moving to the point ahead comes before a step, and is no part of it
            )
            optimizer.step()

        return step

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return self.pack.size

    @cached_property
    def traffic(self) -> int:
        """How many numbers a step reads and writes for each parameter; of a matrix rule, the least."""
        if isinstance(self.rule, MatrixRule):
            return 3 + 2 * len(self.rule.state)
        return self.rule.traffic

    @property
    def bytes(self) -> int:
        """How many bytes a step reads and writes, or the least."""
        return self.traffic * self.pack.flat.nbytes

    @property
    def footprint(self) -> int:
        """How many bytes the parameters, the gradients and the state take."""
        return (2 + len(self.rule.state)) * self.pack.flat.nbytes

    def buffers(self) -> list[Array]:
        """Return the parameters, the gradients and the state, flat."""
        (state,) = self.optimizer.state
        return [self.pack.flat, self.pack.flat_grads, *(state[name].reshape(-1) for name in self.rule.state)]

    def limit(self, threads: int) -> Stream | None:
        """Return the stream over the same memory, or None for a matrix rule: it waits for products."""
        if isinstance(self.rule, MatrixRule):
            return None
        return like_update(self.buffers(), self.traffic, threads)

    def calm(self) -> None:
        """Make steps too small for the parameters to go anywhere, however many are taken."""
        (group,) = self.optimizer.param_groups
        group["lr"] = 1e-6 * group["lr"]
