"""What a class of optimizers must state: its rule, and its defaults, which must fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from fastopt import modifiers
from fastopt.averaged import AVERAGES, COUNT
from fastopt.engine import MatrixRule, Rule
from fastopt.engine.declared import arguments, place
from fastopt.formats import REST
from fastopt.options import StepOptions
from fastopt.overrides import OPTIONS

#: What is called so in every optimizer.
_OPTIONS = {"params", "maximize", "lr_scale", *modifiers.DEFAULTS, *StepOptions.names, *OPTIONS}
_STATE = {*AVERAGES, COUNT, *(name for name, _ in REST.values())}

#: What modifiers and kernels call their own, in the functions that they put around those of a rule.
_INNER_STATE = {"decay", "ema_kept", "ema_rest", "limit", "one", "scale", "swa_share", "total", "zero"}
_INNER_CARRY = {"kept", "new", "sums"}
_INNER_CAUTIOUS = {"agreeing", "size"}


def check_declaration(name: str, rule: Any, defaults: Mapping[str, Any]) -> None:
    """Raise an error unless a class's rule is one, its hyperparameters have defaults, and names are free.

    Parameters
    ----------
    name : str
        The class's name.
    rule : Rule or MatrixRule
        What should be its rule.
    defaults : mapping
        What should be its defaults.

    Raises
    ------
    TypeError
        If something is missing, or of another kind.
    ValueError
        If a name is taken.

    Examples
    --------
    >>> import fastopt
    >>> def descend(p, g, lr):
    ...     return p - lr * g
    >>> class Descend(fastopt.Optimizer):
    ...     rule = fastopt.Rule(descend)
    Traceback (most recent call last):
    TypeError: Descend: its rule takes 'lr', which has no default; write defaults = {'lr': ...}
    """
    if not isinstance(rule, Rule | MatrixRule):
        hint = "; write rule = fastopt.Rule(function, ...)" if callable(rule) else ""
        raise TypeError(f"{name}.rule must be a fastopt.Rule, got {rule!r}{hint}")
    if not isinstance(defaults, Mapping):
        raise TypeError(f"{name}.defaults must be a dict of names and numbers, got {defaults!r}")
    for key, default in defaults.items():
        if key in _OPTIONS:
            raise ValueError(f"{name}.defaults: {key!r} is an option of every optimizer; rename yours")
        if not _is_default(default):
            raise TypeError(
                f"{name}.defaults[{key!r}] must be a number, a tuple of numbers, a bool, or None; "
                f"got {default!r}"
            )
    if isinstance(rule, Rule):
        _check_rule(name, rule, defaults)
    for key in rule.hyperparameters:
        if key not in defaults:
            raise TypeError(
                f"{name}: its rule takes {key!r}, which has no default; write defaults = {{{key!r}: ...}}"
            )


def _is_default(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) > 0 and all(isinstance(each, Real) for each in value)
    return value is None or isinstance(value, Real | np.bool_)


def _check_rule(name: str, rule: Rule, defaults: Mapping[str, Any]) -> None:
    if rule.scalars is not None and arguments(rule.scalars)[:1] and arguments(rule.scalars)[0] in defaults:
        raise TypeError(
            f"{name}: the scalars of its rule, {place(rule.scalars)}, must take the step first; they "
            f"begin with {arguments(rule.scalars)[0]!r}"
        )
    for key in rule.state:
        if key in _STATE:
            raise ValueError(f"{name}: every optimizer can have a state {key!r}; rename that of its rule")
    taken = [key for key in rule.state if key in _INNER_STATE or _is_numbered(key)]
    taken += [key for key in rule.carry if key in _INNER_CARRY]
    taken += [key for key in rule.hyperparameters if rule.decay is not None and key in _INNER_CAUTIOUS]
    for key in taken:
        raise ValueError(f"{name}: its rule cannot have a name {key!r}, which modifiers use; rename it")


def _is_numbered(name: str) -> bool:
    return name[:1] == "s" and name[1:].isdigit()
