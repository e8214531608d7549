"""What the libraries are asked for, what each of them hands in, and the check of the answers."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from workloads import Arrays

from tests import reference

#: Settings, by fastopt's names: the same for all. With weight decay where the algorithm is about it.
SETTINGS: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2},
    "SGD": {"lr": 1e-2, "momentum": 0.9},
    "Adagrad": {"lr": 1e-2, "eps": 1e-10},
    "Lion": {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 1e-2},
    "Adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "Momentum": {"lr": 1e-2, "momentum": 0.9},
    "RMSprop": {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8},
    "Adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
}
#: What a step consists of. The average is one of the parameters; "zero" sets the gradients to zero.
KINDS = ("update", "clip", "clip + EMA", "clip + EMA + zero")
#: The norm of all gradients together is clipped to that; in every workload it is greater.
MAX_NORM = 1.0
#: The share of the average that is kept in a step.
KEPT = 0.99
#: Gradients that a step sets to zero are written anew at every so many steps. Otherwise the state would fade
#: into subnormal numbers, with which some libraries are many times slower; bench/slowdown.py is about that.
REFILLED = 256


class Unavailable(Exception):
    """Says why a library cannot do a task here."""


class Task(NamedTuple):
    """An algorithm, and what is done beside the update."""

    algorithm: str
    kind: str = "update"

    @property
    def settings(self) -> dict[str, Any]:
        return SETTINGS[self.algorithm]

    @property
    def clips(self) -> bool:
        return "clip" in self.kind

    @property
    def averages(self) -> bool:
        return "EMA" in self.kind

    @property
    def zeroes(self) -> bool:
        return "zero" in self.kind


class Contestant(NamedTuple):
    """A step without arguments, over memory of its own."""

    step: Callable[[], object]
    #: Copies gradients to where the step takes them from.
    write: Callable[[Arrays], None]
    #: Returns the parameters, and their averages where there are some.
    read: Callable[[], tuple[Arrays, Arrays]]
    #: Returns the gradients as the step left them.
    left: Callable[[], Arrays] | None = None
    #: The algorithm, where it is another one than was asked for.
    algorithm: str | None = None


def need(package: str) -> Any:
    """Import a package, or say that it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed") from None


def refuse(task: Task, algorithms: Sequence[str], kinds: Sequence[str] = KINDS) -> None:
    """Raise Unavailable for a task that is not among those that a library has."""
    if task.algorithm not in algorithms:
        raise Unavailable(f"has no {task.algorithm}")
    if task.kind not in kinds:
        raise Unavailable(f"has no {task.kind} of its own")


def refilled(
    step: Callable[[], object], write: Callable[[Arrays], None], grads: Arrays
) -> Callable[[], None]:
    """Return the step, with the gradients written anew from time to time."""
    turns = itertools.count(1)

    def again() -> None:
        if not next(turns) % REFILLED:
            write(grads)
        step()

    return again


def check(task: Task, contestant: Contestant, params: Arrays, grads: Arrays) -> None:
    """Take three steps, and raise unless their results are those of a plain reference in float64.

    The gradients of the three steps differ, and so what is remembered of them is checked too. All elements
    of small arrays are compared; of large ones both ends and many between. Of a step's length 0.01 % may be
    missing: libraries that compute ``1 - beta2`` in float32 need half of that.
    """
    algorithm = contestant.algorithm or task.algorithm
    places = [_sample(array.size, len(params)) for array in params]
    exact = reference.Run(reference_of(algorithm), _picked(params, places), **reference_settings(algorithm))
    start, average, given = exact.params, exact.params, _picked(grads, places)
    norm = np.sqrt(sum(_square(grad) for grad in grads))
    for factor in (1.0, -0.5, 2.0):
        contestant.write([np.float32(factor) * grad for grad in grads])
        contestant.step()
        clip = min(1.0, MAX_NORM / (abs(factor) * norm + 1e-6)) if task.clips else 1.0
        exact.step(factor * clip * given)
        average = KEPT * average + (1 - KEPT) * exact.params
    found, averages = contestant.read()
    compare("parameters", _picked(found, places), exact.params, start)
    if task.averages:
        compare("averages", _picked(averages, places), average, start)
    if task.zeroes and (contestant.left is None or any(np.any(left) for left in contestant.left())):
        raise AssertionError("gradients are not zero after the step")
    contestant.write(grads)


def compare(
    what: str,
    got: NDArray[np.float64],
    want: NDArray[np.float64],
    start: NDArray[np.float64],
    off: float = 0.0,
) -> None:
    """Raise unless numbers are those that are wanted; ``off`` more is allowed to what is stored coarsely."""
    eps = np.finfo(np.float32).eps
    tolerance = 1e-4 * np.mean(abs(want - start)) + 8 * eps * abs(want) + eps * abs(want).max() + off
    wrong = ~(abs(got - want) <= tolerance)  # NaN is wrong
    if wrong.any():
        most = np.nanmax(abs(got - want) / np.mean(abs(want - start)))
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} {what} differ from float64's, by up to {most:.1g} of a step"
        )


def reference_of(algorithm: str) -> Callable[..., Any]:
    """Return the plain function, in float64, of an algorithm's step."""
    function: Callable[..., Any] = getattr(reference, algorithm.lower())
    return function


def reference_settings(algorithm: str) -> dict[str, Any]:
    """Return the settings, with those that the reference wants to be told though they are off."""
    known = inspect.signature(reference_of(algorithm)).parameters
    off = {name: 0.0 for name in ("weight_decay", "lr_decay") if name in known}
    return {**off, **SETTINGS[algorithm]}


def _sample(size: int, arrays: int) -> NDArray[np.int64]:
    ends, apart = 50, max(1, size * arrays // 200_000)
    return np.unique(np.r_[: min(size, ends), :size:apart, max(0, size - ends) : size])


def _picked(arrays: Arrays, places: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    picked = [np.asarray(array).reshape(-1)[at] for array, at in zip(arrays, places, strict=True)]
    return np.concatenate(picked).astype(np.float64)


def _square(array: NDArray[np.float32], chunk: int = 1 << 20) -> float:
    """Return the sum of squares, in double, without a copy in double of all."""
    values = array.reshape(-1)
    parts = (values[at : at + chunk].astype(np.float64) for at in range(0, values.size, chunk))
    return float(sum(np.dot(part, part) for part in parts))
