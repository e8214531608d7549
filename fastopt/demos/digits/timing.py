"""The time of a step: fastopt against plain NumPy, on the same flat array and the same gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np

from fastopt import NAG, Pack, pack
from fastopt.demos.digits.network import Array
from fastopt.demos.digits.numpy_steps import NUMPY_STEPS, Step
from fastopt.demos.methods import Method, gradient_point


class Times(NamedTuple):
    """Microseconds a step."""

    fastopt: float
    numpy: float

    @property
    def ratio(self) -> float:
        """How many times as long NumPy takes."""
        return self.numpy / self.fastopt


class Pair:
    """One method twice, in fastopt and in NumPy, each with a copy of the same parameters.

    Parameters
    ----------
    method : Method
        What to compare.
    params : ndarray of shape (size,)
        The parameters to start from.
    """

    def __init__(self, method: Method, params: Array) -> None:
        self.label = method.label
        self.pack: Pack = pack(params)
        self._optimizer = method.make(self.pack)
        #: Takes a step with the gradient in the pack.
        self.fastopt_step = self._look_and_step if method.optimizer is NAG else self._optimizer.step
        self.numpy_params = pack(params).flat  # as well aligned as the other
        self.numpy_step: Step = NUMPY_STEPS[method.optimizer](self.numpy_params, **method.settings)

    def _look_and_step(self) -> None:
        with gradient_point(self._optimizer):
            pass  # the gradient is there already
        self._optimizer.step()

    def difference(self, gradients: Sequence[Array]) -> float:
        """Take a step of both with each gradient; return the greatest difference.

        Its unit is the spacing of floats at the greatest parameter.
        """
        for g in gradients:
            self.pack.flat_grads[:] = g
            self.fastopt_step()
            self.numpy_step(g)
        unit = np.spacing(np.abs(self.numpy_params).max())
        return float(np.abs(self.pack.flat - self.numpy_params).max() / unit)


def check(pair: Pair, gradients: Sequence[Array]) -> None:
    """Raise a RuntimeError unless both give the same parameters, but for rounding."""
    difference = pair.difference(gradients)
    if not difference <= len(gradients):  # also if it is NaN
        raise RuntimeError(
            f"{pair.label}: fastopt and NumPy differ by {difference:g} units in the last place "
            f"after {len(gradients)} steps"
        )


def time_steps(pair: Pair, gradients: Sequence[Array], rounds: int, steps: int = 10) -> Times:
    """Return the median time of a step of both, measured in turns.

    Parameters
    ----------
    pair : Pair
        What has taken a step already, so that nothing is left to compile.
    gradients : sequence of ndarray
        Each round takes the next one.
    rounds : int
        How often each has its turn.
    steps : int
        How many steps a turn has.
    """
    fast, plain = [], []
    for number in range(rounds):
        g = gradients[number % len(gradients)]
        pair.pack.flat_grads[:] = g
        fast.append(_time(pair.fastopt_step, steps))
        plain.append(_time(partial(pair.numpy_step, g), steps))
    return Times(median(fast), median(plain))


def _time(function: Callable[[], None], calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        function()
    return (perf_counter() - start) / calls * 1e6
