"""How a rule is wrapped: functions around its own, with more arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastopt.engine import Rule
from fastopt.engine.compiled import defined


def listed(names: Sequence[str]) -> str:
    """Return names as arguments, each followed by a comma."""
    return "".join(f"{name}, " for name in names)


def own(n_scalars: int) -> str:
    """Return names for the scalars of a rule that is wrapped, as arguments."""
    return listed([f"s{k}" for k in range(n_scalars)])


def arguments(rule: Rule) -> str:
    """Return the arguments of a rule's function."""
    return f"p, g, {listed(rule.state)}{own(rule.n_scalars)}"


def explicit(rule: Rule) -> Rule:
    """Return the rule with functions of the hyperparameters for all of its scalars."""

    def plain(names: tuple[str, ...], carry: tuple[str, ...] = ()) -> Any:
        return defined("scalars", f"step, {listed((*carry, *names))}", [f"return ({listed(names)})"])

    measure = rule.measure
    if measure is not None and measure.scalars is None:
        carry = rule.carry if measure.over == "all" else ()
        measure = replace(measure, scalars=plain(rule.measured_with, carry))
    return replace(rule, measure=measure, scalars=rule.scalars or plain(rule.scalars_of))


def with_state(rule: Rule, name: str) -> Rule:
    """Return a rule with a further state buffer, which it neither reads nor writes."""

    def widened(function: Any, n_scalars: int) -> Any:
        wide = f"p, g, {listed(rule.state)}{name}, {own(n_scalars)}"
        line = f"return _rule(p, g, {listed(rule.state)}{own(n_scalars)})"
        return defined(function.__name__, wide, [line], _rule=function)

    measure = rule.measure
    if measure is not None:
        measure = replace(measure, function=widened(measure.function, rule.n_measure_scalars))
    function = widened(rule.function, rule.n_scalars)
    return replace(rule, function=function, state=(*rule.state, name), measure=measure, writes=rule.written)


def with_scalars(
    rule: Rule,
    hyperparameters: tuple[str, ...],
    values: str,
    lines: Sequence[str] = (),
    carry: tuple[str, str] | None = None,
    **names: Any,
) -> Rule:
    """Return a rule whose scalars are followed by others. Its function must be wrapped to take them.

    Parameters
    ----------
    rule : Rule
        An explicit rule.
    hyperparameters : tuple of str
        What the other scalars are computed from, beside the step.
    values : str
        Their source, with commas between them.
    lines : sequence of str
        Source that comes before.
    carry : (str, str), optional
        A number more that is carried: its name, and the source of its next value.
    **names
        What the source refers to.
    """
    before = ["step"]
    if rule.measure is not None:
        before += ["size", *(f"sum{k}" for k in range(len(rule.measure.sums)))]
    before += rule.carry
    kept = "kept, " if rule.carry else ""
    first = f"{kept}own = _scalars({listed(before)}{listed(rule.scalars_of)})"
    carried = rule.carry
    if carry is not None:
        before.append(carry[0])
        kept = f"({'*kept, ' if rule.carry else ''}{carry[1]}, ), "
        carried = (*carried, carry[0])
    scalars = defined(
        "scalars",
        listed((*before, *rule.scalars_of, *hyperparameters)),
        [first, *lines, f"return {kept}(*own, {values})"],
        _scalars=rule.scalars,
        **names,
    )
    return replace(rule, scalars=scalars, carry=carried)
