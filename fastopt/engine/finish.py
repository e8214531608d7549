"""What follows from what was measured of a tensor: the scalars of its update, and what it carries."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types

from fastopt.engine.columns import END, ROW, START
from fastopt.engine.compiled import defined, flush, jitable, named, view
from fastopt.engine.kernel import BLOCK, compile_template, measure_names
from fastopt.engine.rule import Rule, digest

# Bound for each rule.
_added: Any = None
_scalars: Any = None


def _finish(table, sums, carry, inputs, scalars):
    """Compute the scalars of each segment's update, in double, from its sums and what it carries.

    ``inputs`` has a row for each row of the measure's scalars: the gradients' multiplier, the number of the
    step and the hyperparameters. ``carry`` has the addresses of what each segment carries.
    """
    for s in range(table.shape[0]):
        size = table[s, END] - table[s, START]
        first = table[s, START] // BLOCK
        total = _added(sums, first, first + (size + BLOCK - 1) // BLOCK)
        _scalars(total, float(size), carry[s], inputs[table[s, ROW]], scalars[s])


@cache
def compile_finish(rule: Rule, dtype: np.dtype[np.floating], kinds: tuple[int, ...]) -> Callable[..., None]:
    """Return what computes the scalars of an update from what was measured of each tensor.

    Parameters
    ----------
    rule : Rule
        A rule that measures.
    dtype : dtype
        float32 or float64: of the scalars.
    kinds : tuple of int
        Of each of the hyperparameters in ``rule.scalars_of``: how many numbers it has, or 0 if it is none.

    Returns
    -------
    callable
        ``finish(table, sums, carry, inputs, scalars)``; see ``_finish``.
    """
    names = {"_added": measure_names(rule)["_added"], "_scalars": _finisher(rule, kinds)}
    name = f"{rule.name}_finish_{digest(rule.scalars, len(rule.carry), kinds)}_{dtype.name}"
    double, integer = types.float64[:, ::1], types.int64[:, ::1]
    signature = types.void(integer, double, integer, double, numba.from_dtype(dtype)[:, ::1])
    return compile_template(_finish, name, names, signature, rule)


def _finisher(rule: Rule, kinds: tuple[int, ...]) -> Callable[..., Any]:
    """Return what calls ``rule.scalars`` with the numbers of one segment, and keeps what comes back."""
    assert rule.measure is not None
    assert rule.scalars is not None
    place, hyper = 2, ""
    for kind in kinds:
        numbers = "".join(f"values[{place + k}], " for k in range(max(kind, 1)))
        hyper += f"({numbers}), " if kind else numbers
        place += max(kind, 1)
    sums = "".join(f"total[{k}], " for k in range(len(rule.measure.sums)))
    carry = "".join(f"view(carry[{k}], 1, total)[0], " for k in range(len(rule.carry)))
    return jitable(
        defined(
            "finish_one",
            "total, size, carry, values, scalars",
            [
                f"{'kept, ' if carry else ''}new = _rule_scalars(values[1], size, {sums}{carry}{hyper})",
                *(
                    f"view(carry[{k}], 1, total)[0] = flush(np.float64(kept[{k}]))"
                    for k in range(len(rule.carry))
                ),
                "scalars[0] = values[0]",
                *(f"scalars[{k + 1}] = new[{k}]" for k in range(rule.n_scalars)),
            ],
            view=view,
            flush=flush,
            np=np,
            _rule_scalars=jitable(named(rule.scalars)),
        )
    )
