"""Kernels over plain arrays, for a user's own compiled code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np

from fastopt.engine.compiled import cast, check_dtypes, defined, flush, jitable, named
from fastopt.engine.diagnosis import scalars_examiner
from fastopt.engine.kernel import OPTIONS, measure_names, update_names
from fastopt.engine.rule import Rule


@cache
def compile_kernel(rule: Rule, defaults: tuple[Any, ...]) -> Callable[..., None]:
    """Return a rule's kernel over arrays, to be called from compiled code or from Python.

    Parameters
    ----------
    rule : Rule
        The scalar rule.
    defaults : tuple
        Default values of the rule's hyperparameters.

    Returns
    -------
    callable
        ``kernel(p, g, *state, *carry, step, *hyperparameters)``, an ``@njit`` function that is compiled when
        it is first used. The arrays are 1-D, of one size and one dtype; what is carried is in
        float64 arrays of one element. The arguments have the names that the rule gives them, and the
        hyperparameters have defaults.
    """

    def listed(names: tuple[str, ...], form: str = "{}") -> str:
        return "".join(f"{form.format(name)}, " for name in names)

    state, carry = listed(rule.state), listed(rule.carry, "{}[0]")
    different = " or ".join(f"{name}.size != p.size" for name in ("g", *rule.state))
    lines = [
        f"if {different}:",
        f"    raise ValueError('{rule.name}: p, g and the state must have the same size')",
        f"check_dtypes((p, g, {state}))",
    ]
    # As a float: compiled code multiplies integer powers up, which rounds otherwise than Python's.
    begin = "float(step), "
    names: dict[str, Any] = {"np": np, "cast": cast, "check_dtypes": check_dtypes, "flush": flush}
    names.update(update_names(rule))
    if rule.measure is not None:
        names["_total"] = measure_names(rule)["_total"]
        values = listed(rule.measured_with)
        if rule.measure.scalars is not None:
            names["_measure_scalars"] = jitable(named(rule.measure.scalars))
            before = begin + (carry if rule.measure.over == "all" else "")
            values = f"*_measure_scalars({before}{values})"
        lines.append(f"sums = _total(p, g, ({state}), cast((1.0, {values}), p), None)")
        begin += "float(p.size), " + "".join(f"sums[{k}], " for k in range(len(rule.measure.sums)))
    if rule.scalars is None:
        lines.append(f"new = ({listed(rule.scalars_of)})")
    else:
        names["_rule_scalars"] = jitable(named(rule.scalars))
        names["_examine_scalars"] = scalars_examiner(rule)
        lines.append(f"_examine_scalars(({listed(rule.scalars_of)}))")
        kept = "kept, " if carry else ""
        lines.append(f"{kept}new = _rule_scalars({begin}{carry}{listed(rule.scalars_of)})")
    lines += [f"{name}[0] = flush(np.float64(kept[{k}]))" for k, name in enumerate(rule.carry)]
    lines.append(f"_update(p, g, ({state}), cast((1.0, *new), p), None, p.size)")
    arguments = f"p, g, {state}{listed(rule.carry)}step, {listed(rule.hyperparameters)}"
    function = defined(rule.name, arguments, lines, **names)
    function.__defaults__ = defaults
    function.__module__ = __name__
    compiled: Callable[..., None] = numba.njit(**OPTIONS)(function)
    return compiled
