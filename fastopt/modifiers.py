"""What can be added to any rule: clipped gradients, cautious updates, averages of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from fastopt.averaged import AVERAGES, has_own_pass, wanted_averages, with_averages, with_ema, with_swa
from fastopt.engine import MatrixRule, Measure, Rule
from fastopt.engine.compiled import defined
from fastopt.wrapping import arguments, explicit, listed, own, with_scalars, with_state

#: The modifiers of every optimizer, and their defaults: all off.
DEFAULTS: Mapping[str, Any] = {
    "max_grad_value": None,
    "cautious": False,
    "cautious_weight_decay": False,
    "corrected_weight_decay": 0.0,
    "ema_decay": 0.0,
    "ema_warmup": False,
    "swa_start": None,
    "swa_every": 1.0,
    "lookahead_steps": 0.0,
    "lookahead_alpha": 0.5,
    "state_dtype": None,
    "master_weights": None,
}

#: What a kernel in a user's own compiled code cannot do: it concerns several steps, or the gradients' sign.
OUTSIDE = ("maximize", "corrected_weight_decay", "lookahead_steps", "state_dtype", "master_weights")

#: Those that need whole arrays, not some rows of them.
_BY_ROWS = ("max_grad_value", "state_dtype", "master_weights")
NOT_BY_ROWS = tuple(name for name in DEFAULTS if name not in _BY_ROWS)


def modified(rule: Rule | MatrixRule, group: Mapping[str, Any], name: str) -> Rule | MatrixRule:
    """Return the rule with the modifiers that a group asks for.

    Parameters
    ----------
    rule : Rule or MatrixRule
        The algorithm's rule.
    group : mapping
        Hyperparameters and modifiers.
    name : str
        The algorithm's name, for errors.

    Raises
    ------
    ValueError
        If the rule cannot be modified so.
    """
    cautious, by_sign = group["cautious"], group["cautious_weight_decay"]
    averages, clipped = wanted_averages(group), group["max_grad_value"] is not None
    if not (cautious or by_sign or averages or clipped):
        return rule
    wanted = ", ".join(f"{each}=True" for each in ("cautious", "cautious_weight_decay") if group[each])
    if isinstance(rule, MatrixRule):
        if wanted:
            raise ValueError(f"{name} works on whole matrices, not on their elements: no {wanted}")
        return _modified_matrix(rule, averages, clipped)
    if wanted:
        if rule.decay is None:
            raise ValueError(f"{name} has no step apart from its parameters: no {wanted}")
        if cautious and (rule.measure is not None or rule.carry):
            raise ValueError(f"{name} knows its scalars only after a pass of its own: no cautious=True")
        if by_sign and rule.decay != "decoupled":
            raise ValueError(f"{name} has no decoupled weight decay: no cautious_weight_decay=True")
    return _modified(rule, cautious, by_sign, averages, "ema" in averages and group["ema_warmup"], clipped)


def check_kernel(rule: Rule | MatrixRule, values: Mapping[str, Any]) -> None:
    """Raise a ValueError if a modifier takes place outside of what a kernel of the rule does."""
    outside = [name for name in OUTSIDE if values[name] != DEFAULTS.get(name, False)]
    outside += [AVERAGES[name] for name in wanted_averages(values) if has_own_pass(rule, name)]
    for name in outside:
        raise ValueError(f"a kernel cannot have {name}: it takes place outside of the update")


@cache
def _modified(
    rule: Rule, cautious: bool, by_sign: bool, averages: tuple[str, ...], warm: bool, clipped: bool
) -> Rule:
    made = explicit(rule)
    if cautious or by_sign:
        made = _apart(made, cautious, by_sign)
    if "ema" in averages:
        made = with_ema(made, warm)
    if "swa" in averages:
        made = with_swa(made)
    if "slow" in averages:
        made = with_state(made, "slow")
    return _clipped(made) if clipped else made  # the outermost: all others see what it has clipped


@cache
def _modified_matrix(rule: MatrixRule, averages: tuple[str, ...], clipped: bool) -> MatrixRule:
    made = with_averages(rule, averages)
    return _clipped_matrix(made) if clipped else made


# Cautious updates.


def _apart(rule: Rule, cautious: bool, by_sign: bool) -> Rule:
    """Return a rule that takes the weight decay, and the step along the direction, apart.

    A rule's step does not depend on the parameter but for the weight decay. So with a parameter of zero, and
    no decay, a rule returns its step, not rounded to the parameter's size.
    """
    taken = f"{arguments(rule)}zero, one, decay, "
    body = [
        "total = g + decay * p" if rule.decay == "coupled" else "total = g",
        f"new = _rule(zero, total, {listed(rule.state)}{own(rule.n_scalars)})",
        f"step = -new{'[0]' if rule.written else ''}",
    ]
    moved, shrunk = "step", "decay * p"
    if cautious:
        moved = "(scale * step if step * total > zero else zero * step)"
    if by_sign:
        shrunk = "(shrunk if step * p >= zero else zero)"
        body.append("shrunk = decay * p")
    new = "p - " + (f"({shrunk} + {moved})" if rule.decay == "decoupled" else moved)
    kept = "".join(f", new[{k + 1}]" for k in range(len(rule.written)))
    prefix = "cautious_" if cautious else ""
    last = "scale, " if cautious else ""
    names: dict[str, Any] = {"_rule": rule.function}
    function = defined(f"{prefix}{rule.name}", taken + last, [*body, f"return {new}{kept}"], **names)

    # The scalars of the rule without decay, and then the decay by itself.
    hyper = rule.scalars_of
    needed = hyper if rule.decay == "none" else tuple(dict.fromkeys((*hyper, "lr", "weight_decay")))
    decay = {"none": "0.0", "coupled": "weight_decay", "decoupled": "lr * weight_decay"}[rule.decay or "none"]
    carry, kept = listed(rule.carry), "kept, " if rule.carry else ""
    values = listed(tuple("0.0" if name == "weight_decay" else name for name in hyper))
    first = f"{kept}own = _scalars(step, {carry}{values})"
    result = f"*own, 0.0, 1.0, {decay}"
    names = {"_scalars": rule.scalars}
    if not cautious:
        lines = [first, f"return {kept}({result})"]
        scalars = defined("scalars", f"step, {carry}{listed(needed)}", lines, **names)
        return replace(rule, function=function, scalars=scalars)
    agreeing = [*body, "return one if step * total > zero else zero"]
    measure = Measure(
        defined(f"{prefix}{rule.name}_measure", taken, agreeing, _rule=rule.function),
        ("sum",),
        defined("scalars", f"step, {listed(needed)}", [first, f"return ({result})"], **names),
    )
    # As in the authors' code: what is left is enlarged by the share that is left, but not without limit.
    scale = "1.0 / max(agreeing / size, 0.001)"
    lines = [first, f"return ({result}, {scale})"]
    scalars = defined("scalars", f"step, size, agreeing, {listed(needed)}", lines, **names)
    return replace(rule, function=function, scalars=scalars, measure=measure)


# Clipping.


def clip(g: Any, limit: Any) -> Any:
    """Return a gradient that is within the limit on both sides. NaN stays."""
    return limit if g > limit else (-limit if g < -limit else g)


def _clipping(function: Any, taken: str) -> Any:
    """Return a function that clips the gradient, by its last scalar, and goes on with another function."""
    line = f"return _rule({taken.replace('g, ', '_clip(g, limit), ', 1)})"
    return defined(f"clipped_{function.__name__}", f"{taken}limit, ", [line], _rule=function, _clip=clip)


def _clipped(rule: Rule) -> Rule:
    """Return a rule that clips each element of the gradient."""
    measure = rule.measure
    if measure is not None:
        before = listed(("step", *(rule.carry if measure.over == "all" else ())))
        hyper = listed(rule.measured_with)
        measure = replace(
            measure,
            function=_clipping(measure.function, f"p, g, {listed(rule.state)}{own(rule.n_measure_scalars)}"),
            scalars=defined(
                "scalars",
                f"{before}{hyper}max_grad_value, ",
                [f"return (*_scalars({before}{hyper}), max_grad_value)"],
                _scalars=measure.scalars,
            ),
        )
    made = with_scalars(rule, ("max_grad_value",), "max_grad_value")
    function = _clipping(rule.function, arguments(rule))
    return replace(made, function=function, measure=measure, writes=rule.written)


def _clipped_matrix(rule: MatrixRule) -> MatrixRule:
    """Return a rule that clips each element of the gradient as it gathers it."""
    gather, hyper = rule.gather, listed(rule.hyperparameters)
    first = gather.n_scalars
    scalars = defined(
        "scalars",
        f"step, shape, {hyper}max_grad_value, ",
        [
            f"own = ({hyper})" if rule.scalars is None else f"own = _scalars(step, shape, {hyper})",
            f"return (*own[:{first}], max_grad_value, *own[{first}:])",
        ],
        _scalars=rule.scalars,
    )
    gather = replace(gather, function=_clipping(gather.function, arguments(gather)), writes=gather.written)
    return replace(rule, gather=gather, scalars=scalars)
