"""What a class of torch.optim has beside the method: its checks, and how it computes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import fastopt.algorithms
from fastopt.adapters._torch_core import host
from fastopt.exchange.peers import TORCH

#: How torch's classes compute, not what: these change nothing here.
IGNORED = ("foreach", "fused")
#: What cannot be done here, and why.
REFUSED: Mapping[str, str] = {
    "capturable": "for CUDA graphs, its .fastopt has prepare_step(grads) and launch_step()",
    "differentiable": "autograd does not see fastopt's steps",
}


@cache
def peer_of(algorithm: Any) -> Any:
    """Return the class of torch.optim that has the name of a class of fastopt, or None."""
    name = algorithm.__name__
    if getattr(fastopt.algorithms, name, None) is not algorithm:  # a user's own
        return None
    return getattr(host().optim, name, None)


def check_as_torch_does(algorithm: Any, options: Mapping[str, Any]) -> None:
    """Have torch's class of the same name refuse hyperparameters: with its messages, and its rules."""
    peer = peer_of(algorithm)
    if peer is None:
        return
    names = inspect.signature(peer).parameters
    given = {name: value for name, value in options.items() if name in names and not callable(value)}
    try:
        peer([host().empty(1, 1)], **given)
    except TypeError:  # of another kind: fastopt's message names the argument
        return


@cache
def torch_defaults(algorithm: Any) -> dict[str, Any]:
    """Return what the groups of torch's class hold of how it computes, so that it can take over ours."""
    peer = peer_of(algorithm)
    return {} if peer is None else dict(peer([host().empty(1, 1)]).defaults)


def check_fixed(algorithm: Any, group: Mapping[str, Any], number: int) -> None:
    """Raise a ValueError if a saved group has a setting that makes it another method's."""
    peer = TORCH.get(algorithm)
    fixed = {} if peer is None or peer.name != algorithm.__name__ else peer.fixed
    for name, (value, other) in fixed.items():
        if group.get(name, value) != value:
            raise ValueError(
                f"state_dict['param_groups'][{number}][{name!r}] must be {value} for {algorithm.__name__}, "
                f"got {group[name]!r}; {other} takes that"
            )


def translate(group: dict[str, Any]) -> None:
    """Have a group say in fastopt's terms what it says in torch's, and the other way round."""
    eps = group.get("eps")
    if isinstance(eps, tuple | list) and eps[0] is None:  # Adafactor: that of the dtype
        group["eps"] = (host().finfo(group["params"][0].dtype).eps, *eps[1:])
    if "match_rms_adamw" in group:  # Muon
        named = "match_rms_adamw"
        group[named] = group[named] or group.get("adjust_lr_fn") == named
        if group[named]:
            group["adjust_lr_fn"] = named
