"""Where optax's methods and fastopt's part, and when their states are nevertheless the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.engine import Rule
from fastopt.exchange.peers import AMSGRAD, OptaxPeer
from fastopt.leaf import Leaf
from fastopt.optimizer import Optimizer


def check_method(opt: Optimizer, values: Mapping[str, Any], leaf: Leaf, step: int) -> None:
    """Raise a ValueError if optax's method, after so many steps, does not go on as that of a leaf.

    Parameters
    ----------
    opt : Optimizer
        The optimizer.
    values : mapping
        The leaf's hyperparameters, numbers or schedules.
    leaf : Leaf
        The leaf.
    step : int
        How many updates it has had.
    """
    problem = _problem(type(opt).__name__, values, leaf, step)
    if problem is not None:
        raise ValueError(f"{leaf.place}: {problem}")


def _problem(name: str, values: Mapping[str, Any], leaf: Leaf, step: int) -> str | None:
    if values["maximize"]:
        return "maximize=True has no counterpart in optax"
    if values.get("amsgrad") and not _settled(values, leaf, step):
        return (
            "AMSGrad takes the maximum after the bias correction in optax, and before it here; the two agree "
            f"only once beta2**step is below {np.finfo(leaf.dtype).eps:.2g}, "
            f"got betas={values['betas']} and step {step}"
        )
    if name == "RAdam" and not (
        callable(values["eps"]) or values["eps"] == 0.0 or _settled(values, leaf, step)
    ):
        beta2 = "beta2" if callable(values["betas"]) else repr(values["betas"][1])
        return (
            "optax's radam adds eps after the bias correction, and RAdam before it; they agree with "
            f"eps=lambda count: {values['eps']!r} * math.sqrt(1 - {beta2} ** (count + 1))"
        )
    if name == "NAdam":
        growth = values["momentum_decay"]
        if callable(growth) or callable(values["betas"]) or 1.0 - 0.5 * 0.96**growth != 1.0:
            return (
                "optax's nadam has mu = beta1 from the first step on: betas must be numbers, and "
                f"momentum_decay so large that NAdam has this too, such as 1e6; got "
                f"betas={values['betas']} and momentum_decay={growth!r}"
            )
    return None


def _settled(values: Mapping[str, Any], leaf: Leaf, step: int) -> bool:
    """Tell whether the bias of the second moment needs no correction any more."""
    return not callable(values["betas"]) and values["betas"][1] ** step <= np.finfo(leaf.dtype).eps


def carried(values: Mapping[str, Any], step: int) -> float:
    """Return NAdam's ``mu_product`` after so many steps with ``mu = beta1``, to the bit."""
    product = 1.0
    for _ in range(step):
        product *= values["betas"][0]
        if product <= 1e-30:
            return 0.0
    return product


def state_of(peer: OptaxPeer, rule: Rule) -> str:
    """Return what optax calls the state that goes with a rule."""
    return AMSGRAD if "max_exp_avg_sq" in rule.state else peer.state


def check_injected(opt: Optimizer, peer: OptaxPeer, leaf: Leaf, given: Mapping[str, Any], place: str) -> None:
    """Raise a ValueError if hyperparameters that optax keeps are of another method than a leaf's."""
    wanted = {"threshold": 5.0} if type(opt).__name__ == "RAdam" else {}
    wanted["eps_root"] = given.get(peer.eps_root, 0.0) if peer.eps_root else 0.0
    rule = opt.rule_for(leaf.group, leaf.shape)
    if isinstance(rule, Rule) and rule.decay == "coupled":
        wanted["weight_decay"] = 0.0  # optax's is decoupled
    for name, value in wanted.items():
        if given.get(name, value) != value:
            raise ValueError(
                f"{place}[{name!r}] must be {value!r} for fastopt.{type(opt).__name__}, got {given[name]!r}"
            )
