"""Rules that also keep averages of the parameters, and the formulas of these."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np

from fastopt.engine import MatrixRule, Rule
from fastopt.engine.compiled import defined
from fastopt.wrapping import arguments, listed, own, with_scalars, with_state

#: The state that is an average of the parameters, in the order in which it is updated, and the option that
#: asks for it.
AVERAGES: Mapping[str, str] = {"ema": "ema_decay", "swa": "swa_start", "slow": "lookahead_steps"}

#: How many parameters "swa" is the mean of: state of an array too, one number.
COUNT = "n_averaged"


def wanted_averages(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the averages that a group asks for."""
    wanted = group["ema_decay"] != 0.0, group["swa_start"] is not None, group["lookahead_steps"] != 0.0
    return tuple(itertools.compress(AVERAGES, wanted))


# The formulas, for the update and for the passes of those rules that do not average as they update.


def ema(average: Any, p: Any, kept: Any, rest: Any) -> Any:
    """Return the next exponential average."""
    return kept * average + rest * p


def swa(average: Any, p: Any, share: Any, zero: Any) -> Any:
    """Return the next mean, which begins with zero. With a share of zero nothing happens."""
    return average + share * (p - average) if share > zero else average  # also where p is not finite


def warmed(decay: Any, step: Any) -> Any:
    """Return the decay of an exponential average in a step, counted from 1."""
    return min(decay, (1.0 + step) / (10.0 + step))


def is_due(step: Any, start: Any, every: Any) -> Any:
    """Tell whether the parameters after a step, counted from 1, are among those that "swa" is the mean of."""
    return step > start and (step - 1.0 - start) % every == 0.0


# In the update.


def with_ema(rule: Rule, warm: bool) -> Rule:
    """Return a rule that also keeps an exponential average of the parameters."""
    kept = "_warmed(ema_decay, step)" if warm else "ema_decay"
    made = with_scalars(
        rule, ("ema_decay",), "ema_kept, 1.0 - ema_kept", [f"ema_kept = {kept}"], _warmed=warmed
    )
    return _averaging(rule, made, "ema", ema, "ema_kept, ema_rest, ")


def with_swa(rule: Rule) -> Rule:
    """Return a rule that also keeps the mean of the parameters."""
    if rule.measure is not None and rule.measure.over == "all":
        # What such a rule carries is one for all arrays; each has a count of its own. So: a pass.
        return _counting(with_state(rule, "swa"))
    lines = [
        "due = _is_due(step, swa_start, swa_every)",
        f"share = 1.0 / ({COUNT} + 1.0) if due else 0.0",
        f"count = {COUNT} + (1.0 if due else 0.0)",
    ]
    hyperparameters, values = ("swa_start", "swa_every"), "share, 0.0"
    made = with_scalars(rule, hyperparameters, values, lines, (COUNT, "count"), _is_due=is_due)
    return _averaging(rule, made, "swa", swa, "swa_share, zero, ")


def _averaging(rule: Rule, made: Rule, name: str, formula: Any, more: str) -> Rule:
    """Return ``made``, which is ``rule`` with ``more`` scalars, as a rule that keeps an average by them."""
    kept = listed([f"new[{k + 1}]" for k in range(len(rule.written))])
    function = defined(
        f"averaged_{rule.name}",
        f"p, g, {listed(rule.state)}{name}, {own(rule.n_scalars)}{more}",
        [
            f"new = _rule({arguments(rule)})",
            f"p = new{'[0]' if rule.written else ''}",
            f"return p, {kept}_formula({name}, p, {more})",
        ],
        _rule=rule.function,
        _formula=formula,
    )
    wide = with_state(rule, name)
    written = (*rule.written, name)
    return replace(made, function=function, state=wide.state, measure=wide.measure, writes=written)


@cache
def idle(rule: Rule) -> Rule:
    """Return what a rule is in steps in which no "swa" is due: one that neither reads nor writes it."""
    kept = [(k + 1, name) for k, name in enumerate(rule.written) if name != "swa"]
    result = "new[0]" + "".join(f", new[{k}]" for k, _ in kept)
    lines = [f"new = _rule({arguments(rule)})", f"return {result}"]
    function = defined(f"idle_{rule.name}", arguments(rule), lines, _rule=rule.function)
    return replace(rule, function=function, writes=tuple(name for _, name in kept))


# In passes of their own.

_Extra = dict[str, tuple[tuple[int, ...], np.dtype[np.floating]]]
_COUNT: _Extra = {COUNT: ((), np.dtype(np.float64))}


@dataclass(frozen=True)
class _CountingRule(Rule):
    def extra_state(self, shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> _Extra:
        return {**super().extra_state(shape, dtype), **_COUNT}


@dataclass(frozen=True)
class _CountingMatrixRule(MatrixRule):
    def extra_state(self, shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> _Extra:
        return {**super().extra_state(shape, dtype), **_COUNT}


def _counting(rule: Rule) -> Rule:
    return _CountingRule(**{field.name: getattr(rule, field.name) for field in fields(rule)})


def with_averages(rule: MatrixRule, names: tuple[str, ...]) -> MatrixRule:
    """Return a rule for matrices with the state for averages, which are updated after it."""
    made = replace(rule, state=(*rule.state, *names))
    if "swa" not in names:
        return made
    return _CountingMatrixRule(**{field.name: getattr(made, field.name) for field in fields(made)})


def has_own_pass(rule: Rule | MatrixRule, name: str) -> bool:
    """Tell whether an average is updated after the update, not in it."""
    return name in rule.state and (isinstance(rule, MatrixRule) or name not in rule.written)
