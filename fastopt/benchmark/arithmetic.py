"""How much a rule computes, and how much the processor can: the flat part of the roofline."""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastopt.benchmark.rounds import interleaved
from fastopt.engine import Batch, Rule
from fastopt.engine.memory import aligned_zeros

#: Instructions that are one operation on numbers.
_COUNTED = ("BINARY_OP", "COMPARE_OP", "UNARY_NEGATIVE")
_OF_PYTHON = {abs, min, max, pow, round, divmod}


def operations(rule: Rule) -> int:
    """Return how many operations a step does for each parameter, as the rule is written.

    Sums, differences, products, quotients, comparisons and functions, such as roots, are one each. Both ways
    of an ``if`` count, because vectors go both. The gradient's multiplier is one, a sum's term two.

    Examples
    --------
    >>> from fastopt import Rule
    >>> from fastopt.benchmark.arithmetic import operations
    >>> operations(Rule(lambda p, g, lr: p - lr * g))
    3
    """
    count = 1 + _operations(rule.function)
    if rule.measure is not None:
        count += 1 + _operations(rule.measure.function) + 2 * len(rule.measure.sums)
    return count


def _operations(function: Callable[..., Any]) -> int:
    around = function.__globals__
    count = 0
    for each in dis.get_instructions(function):
        if each.opname in _COUNTED:
            count += 1
        elif each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found = around.get(each.argval, getattr(builtins, each.argval, None))
            found = getattr(found, "py_func", found)  # if Numba has compiled it already
            if isinstance(found, types.FunctionType):
                count += _operations(found)
            elif found in _OF_PYTHON:
                count += 1
        elif each.opname in ("LOAD_ATTR", "LOAD_METHOD"):  # math.sqrt
            count += 1
    return count


def chain(x: Any, y: Any, c: Any) -> Any:
    """Multiply and add sixteen times: it tends to y / (1 - c)."""
    x = c * (c * (c * (c * x + y) + y) + y) + y
    x = c * (c * (c * (c * x + y) + y) + y) + y
    x = c * (c * (c * (c * x + y) + y) + y) + y
    return c * (c * (c * (c * x + y) + y) + y) + y


def much(p: Any, g: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Compute four chains that do not wait for each other."""
    return (chain(p, g, a) + chain(p, g, b)) + (chain(p, g, c) + chain(p, g, d))


MUCH = Rule(much)
_FACTORS = (0.1, -0.15, 0.2, -0.25)  # sums stay near 4 * g, whatever was there before


#: Elements for one thread, and for several.
_FEW, _MANY = 1 << 11, 1 << 23


class Peak(NamedTuple):
    """The most operations, in 10^9 a second, on a number of threads."""

    threads: int
    gop_per_s: float


def peak(threads: int, seconds: float, rounds: int = 3) -> Peak | None:
    """Measure how fast many products and sums of float32 are; None if a step uses fewer threads.

    On one thread, in the first cache; on several, over so much memory that they are woken.
    """
    p, g = (aligned_zeros(_FEW if threads == 1 else _MANY, np.float32) for _ in range(2))
    g[:] = np.linspace(1.0, 2.0, g.size)
    passes = 64 if threads == 1 else 1  # in one launch, whose cost is not to count
    batch = Batch(MUCH, [(p, g, [], 0)] * passes, 1, threads)
    if batch.threads != threads:
        return None
    batch.set_scalars(0, 1.0, _FACTORS)
    times = interleaved({"much": batch.run}, rounds, seconds / rounds)["much"]
    return Peak(threads, operations(MUCH) * passes * p.size / float(np.median(times)) / 1e9)
