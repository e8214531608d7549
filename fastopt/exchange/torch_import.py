"""State of torch.optim's optimizers, for fastopt's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastopt.exchange.holdings import Part, fresh, groups_of, merged, peer_of, rule_of
from fastopt.exchange.peers import LATE, TORCH, TorchPeer, torch_factor, torch_hyperparameters
from fastopt.exchange.values import array_for, count, plain
from fastopt.group import Group
from fastopt.leaf import Array, Leaf
from fastopt.optimizer import Optimizer
from fastopt.tree import describe

#: The hyperparameters of all classes: which of them a dict has tells whose it is.
_KNOWN = set().union(*map(torch_hyperparameters, TORCH))


def from_torch(
    state_dict: Mapping[str, Any], opt: Optimizer, *, step_count: int | None = None
) -> dict[str, Any]:
    r"""Return a state dict for an optimizer, from one of torch.optim.

    ``opt.load_state_dict(from_torch(theirs.state_dict(), opt))``, and the run goes on where torch's was, to
    within rounding. The class of ``opt`` says which class of torch is meant: that of its name, and SGD for
    Momentum. Learning rates and the other hyperparameters are taken over, group by group, except where
    ``opt`` has schedules or overrides.

    Parameters
    ----------
    state_dict : dict
        What ``state_dict()`` of the optimizer of torch returned. Its tensors are copied. They may be
        NumPy arrays as well; torch is not needed.
    opt : Optimizer
        Of parameters that have the shapes, the dtypes and the groups of torch's: the weight of a Linear
        layer is ``(out, in)``. Where torch's optimizer was made from ``named_parameters()``, and the
        arrays of ``opt`` have these names, they are matched by name; otherwise by their order.
    step_count : int, optional
        How many steps have been taken, for schedules. By default as many as the array that has had most.
        torch's SGD does not count: there, arrays with momentum have had this many, or one.

    Returns
    -------
    dict
        For ``opt.load_state_dict``. Parameters that torch has no state for have not been updated yet. State
        that torch does not have, such as averages of the parameters, is that of ``opt``.

    Raises
    ------
    TypeError
        If the class of ``opt`` has no counterpart, or something is of another kind.
    ValueError
        If the dict is from another class of torch, or does not fit ``opt``, or has settings that the class
        does not take; the message says where.

    See Also
    --------
    to_torch : The way back.

    Notes
    -----
    For SGD, Momentum, Adagrad, RMSprop, Adadelta, Rprop, Adam, AdamW, NAdam, RAdam and Adamax. The velocity
    of Momentum is torch's buffer times the learning rate, so the two agree only while that is constant. What
    torch keeps in float32 (NAdam's ``mu_product``) is gone on with in double.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> from fastopt.exchange import from_torch
    >>> settings = {"lr": 0.5, "momentum": 0.75, "dampening": 0, "weight_decay": 0, "nesterov": False}
    >>> theirs = {
    ...     "state": {0: {"momentum_buffer": np.array([4.0, 8.0])}},
    ...     "param_groups": [{**settings, "params": [0]}],
    ... }
    >>> w = np.zeros(2)
    >>> opt = fastopt.SGD(w)
    >>> opt.load_state_dict(from_torch(theirs, opt))
    >>> opt.step(np.zeros(2))
    >>> w  # -0.5 * 0.75 times the buffer
    array([-1.5, -3. ])
    """
    peer = peer_of(opt, TORCH, "torch.optim")
    given = _groups(state_dict, opt, peer)
    if step_count is not None:
        step_count = count(step_count, "step_count")
    elif not peer.counts and any(map(_is_scheduled, groups_of(opt))):
        raise ValueError(
            f"torch.optim.{peer.name} does not count its steps, and a hyperparameter of opt is a schedule: "
            f"step_count must be given"
        )
    hyperparameters, parts = [], []
    for i, (group, theirs) in enumerate(zip(groups_of(opt), given, strict=True)):
        values = _hyperparameters(theirs, i, group, opt, peer)
        hyperparameters.append(values)
        parts.append(
            [
                _part(state_dict["state"], key, leaf, values, opt, peer, step_count)
                for leaf, key in zip(group.leaves, _keys(theirs, i, group), strict=True)
            ]
        )
    if step_count is None:
        step_count = max((part.step for found in parts for part in found), default=0)
    return merged(opt, hyperparameters, parts, step_count)


def _is_scheduled(group: Group) -> bool:
    return any(callable(value) for leaf in group.leaves for value in leaf.group.values())


def _groups(state_dict: Any, opt: Optimizer, peer: TorchPeer) -> list[Mapping[str, Any]]:
    """Return the groups of a state dict, which must be as many as the optimizer's."""
    wanted = f"state_dict must be what state_dict() of torch.optim.{peer.name} returned"
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{wanted}; got {describe(state_dict)}")
    for key in ("state", "param_groups"):
        if key not in state_dict:
            raise ValueError(f"{wanted}; it has no {key!r}")
    groups = list(state_dict["param_groups"])
    own = len(groups_of(opt))
    if len(groups) != own:
        raise ValueError(f"state_dict must have as many parameter groups as opt, {own}; got {len(groups)}")
    return groups


def _hyperparameters(
    theirs: Mapping[str, Any], i: int, group: Group, opt: Optimizer, peer: TorchPeer
) -> dict[str, Any]:
    """Return those that a group takes over: where it has schedules, it keeps them."""
    place, own = f"state_dict['param_groups'][{i}]", torch_hyperparameters(type(opt))
    for name in ("params", *sorted(own - LATE.keys())):
        if name not in theirs:
            raise ValueError(f"{place} has no {name!r}: it is not of torch.optim.{peer.name}")
    for name in sorted(_KNOWN - own):
        if name in theirs:
            raise ValueError(f"{place} has {name!r}: it is not of torch.optim.{peer.name}")
    found = {name: plain(theirs[name], f"{place}[{name!r}]") for name in sorted(own) if name in theirs}
    for name, (value, other) in peer.fixed.items():
        got = found.get(name, value)
        if got != value:
            raise ValueError(
                f"{place}[{name!r}] must be {value} for fastopt.{type(opt).__name__}, got {got!r}; "
                f"fastopt.{other} takes that"
            )
    return {
        name: found.get(name, LATE.get(name))
        for name in (*opt.defaults, "maximize")
        if not callable(group.mapping[name])
    }


def _keys(theirs: Mapping[str, Any], i: int, group: Group) -> Sequence[Any]:
    """Return torch's key of each leaf's state: by name, if torch knows the same names, or in its order."""
    keys, names = list(theirs["params"]), list(theirs.get("param_names", ()))
    if len(keys) != len(group.leaves):
        raise ValueError(
            f"state_dict['param_groups'][{i}] must have as many parameters as that group of opt, "
            f"{len(group.leaves)}; got {len(keys)}"
        )
    if sorted(names) == sorted(group.tree.paths):
        key_of = dict(zip(names, keys, strict=True))
        return [key_of[path] for path in group.tree.paths]
    return keys


def _part(
    state: Mapping[Any, Any],
    key: Any,
    leaf: Leaf,
    values: Mapping[str, Any],
    opt: Optimizer,
    peer: TorchPeer,
    step_count: int | None,
) -> Part:
    """Return what torch keeps of a parameter, as the state of a leaf."""
    if leaf.frozen:
        return fresh(opt, values, leaf)
    place, entry, rule = f"state_dict['state'][{key!r}]", state.get(key) or {}, rule_of(opt, values, leaf)
    names = {name: peer.state.get(name, (name, ""))[0] for name in (*rule.state, *rule.carry)}
    wanted = [*names.values(), "step"] if peer.counts else list(names.values())
    has = [name for name in wanted if entry.get(name) is not None]
    if not has:
        return fresh(opt, values, leaf)
    if has != wanted:
        raise ValueError(
            f"{place} must have {', '.join(map(repr, wanted))}; got {', '.join(map(repr, entry))}"
        )
    found: dict[str, Array] = {}
    for name, theirs in names.items():
        where, given = f"{place}[{theirs!r}]", entry[theirs]
        if name in rule.carry:
            found[name] = np.array(plain(given, where), np.float64)
            continue
        found[name] = array_for(leaf, given, where)
        if name in peer.state:
            factor = torch_factor(peer, name, leaf, leaf.group.with_values(values))
            found[name] = np.asarray(found[name].astype(np.float64) * factor).astype(leaf.dtype)
    if not peer.counts:  # what is there has come of a step at least
        return Part(step_count or 1, found)
    return Part(count(entry["step"], f"{place}['step']"), found)
