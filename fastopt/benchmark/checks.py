"""Are the answers right? What is wrong is not timed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.benchmark.subjects import Subject
from fastopt.engine import Rule

#: Steps that are checked.
STEPS = 3

Values = NDArray[np.float64]


class WrongAnswer(Exception):
    """A step did not compute what its rule says."""


def check(subject: Subject) -> None:
    """Take some first steps, and raise an error unless they do what they must.

    Of rules that update each element by itself, elements at both ends and between are compared with the
    same rule applied in Python, in double. Those that measure whole tensors are compared so in a small
    problem; here they must have moved and be finite. So must those of matrix rules, and go downhill.

    Raises
    ------
    WrongAnswer
        If they do not.
    """
    rule, (group,) = subject.rule, subject.optimizer.param_groups
    if isinstance(rule, Rule) and rule.measure is not None:
        _check_small(subject.name, subject.pack.dtype.name)
    params, grads = subject.pack.flat, subject.pack.flat_grads
    sample = _sample(subject.size) if isinstance(rule, Rule) else np.arange(subject.size)
    before, g = params[sample].astype(np.float64), grads[sample].astype(np.float64)
    for _ in range(STEPS):
        subject.step()
    after = params[sample]
    if isinstance(rule, Rule):
        if rule.measure is None:
            initial = subject.optimizer.initial_state(group)
            _compare(subject.name, after, exact(rule, group, initial, before, g))
    elif not np.vdot(after - before, g) < 0:
        raise WrongAnswer(f"{subject.name}: {STEPS} steps did not go downhill")
    require_finite(subject)
    ends = np.r_[: min(_END, sample.size), max(0, sample.size - _END) : sample.size]
    if not (after != before)[ends].any():
        raise WrongAnswer(f"{subject.name}: the parameters did not move")


def require_finite(subject: Subject) -> None:
    """Raise an error unless the parameters of a sample are finite."""
    if not np.isfinite(subject.pack.flat[_sample(subject.size)]).all():
        raise WrongAnswer(f"{subject.name}: parameters are not finite")


def exact(
    rule: Rule, group: Mapping[str, Any], initial: Mapping[str, float | str], p: Values, g: Values
) -> Values:
    """Return the parameters after some steps with the same gradients: the rule in Python, in double.

    Parameters
    ----------
    rule : Rule
        The rule; if it measures, then all of ``p``.
    group : mapping
        The hyperparameters.
    initial : mapping
        What the state starts with, where that is not zero.
    p, g : ndarray of float64
        The parameters and the gradients.
    """
    p = p.copy()
    state = {
        name: p.copy() if initial.get(name) == "params" else _full(p, initial, name) for name in rule.state
    }
    carry = tuple(float(initial.get(name, 0.0)) for name in rule.carry)
    with np.errstate(all="ignore"):
        for step in range(1, STEPS + 1):
            values: Any = [group[name] for name in rule.scalars_of]
            known: tuple[Any, ...] = ()
            if rule.measure is not None:
                known = (float(p.size), *_measured(rule, group, step, carry, p, g, state))
            if rule.scalars is not None:
                values = rule.scalars(step, *known, *carry, *values)
            if rule.carry:
                carry, values = values
            scalars = np.array(values, np.float64)  # Python's own would let float32 constants win
            for i in range(p.size):
                found = rule.function(p[i], g[i], *(state[name][i] for name in rule.state), *scalars)
                p[i], *new = found if rule.written else (found,)
                for name, value in zip(rule.written, new, strict=True):
                    state[name][i] = value
    return p


def _measured(
    rule: Rule,
    group: Mapping[str, Any],
    step: int,
    carry: tuple[float, ...],
    p: Values,
    g: Values,
    state: Mapping[str, Values],
) -> list[float]:
    """Do the pass that measures, and return its sums."""
    measure = rule.measure
    assert measure is not None
    given: Any = [group[name] for name in rule.measured_with]
    if measure.scalars is not None:
        given = measure.scalars(step, *(carry if measure.over == "all" else ()), *given)
    scalars, sums = np.array(given, np.float64), [0.0] * len(measure.sums)
    for i in range(p.size):
        found = measure.function(p[i], g[i], *(state[name][i] for name in rule.state), *scalars)
        results = list(found) if isinstance(found, tuple) else [found]
        for name in measure.writes:
            state[name][i] = results.pop(0)
        for number, kind in enumerate(measure.sums):
            term = results.pop(0)
            if kind == "product":
                term *= results.pop(0)
            sums[number] += {"square": term * term, "abs": abs(term)}.get(kind, term)
    return sums


@cache
def _check_small(name: str, dtype: str) -> None:
    """Compare all of a small problem with the rule in double."""
    subject = Subject(name, _SMALL, dtype)
    rule, (group,) = subject.rule, subject.optimizer.param_groups
    assert isinstance(rule, Rule)
    p, g = (array.astype(np.float64) for array in (subject.pack.flat, subject.pack.flat_grads))
    for _ in range(STEPS):
        subject.step()
    _compare(name, subject.pack.flat, exact(rule, group, subject.optimizer.initial_state(group), p, g))


#: The size of the small problem; elements at each end of a sample, and how many there are between.
_SMALL, _END, _BETWEEN = 300, 32, 32


def _sample(size: int) -> NDArray[np.intp]:
    """Return the numbers of some elements: both ends, and some between."""
    between = np.linspace(0, size - 1, _BETWEEN).astype(np.intp)
    return np.unique(np.r_[: min(size, _END), between, max(0, size - _END) : size])


def _full(p: Values, initial: Mapping[str, float | str], name: str) -> Values:
    return np.full_like(p, float(initial.get(name, 0.0)))


def _compare(name: str, got: NDArray[np.floating], expected: Values) -> None:
    tolerance = 8 * np.finfo(got.dtype).eps * np.maximum(1.0, np.abs(expected))
    wrong = ~(np.abs(got - expected) <= tolerance)  # NaN is wrong
    if wrong.any():
        worst = np.nanmax(np.abs(got - expected), initial=0.0)
        raise WrongAnswer(
            f"{name}: {wrong.sum()} of {wrong.size} results of {STEPS} steps differ from those in double, "
            f"by up to {worst:.2g}"
        )
