"""What an optimizer holds, array by array, and its state dict with what was found elsewhere in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from fastopt.engine import Rule
from fastopt.group import Group
from fastopt.leaf import Array, Leaf, unpacked
from fastopt.optimizer import Optimizer
from fastopt.tree import describe, plural

#: What changes an algorithm's steps, and no other library has; the values that leave them as they are.
_MODIFIERS = {
    "cautious": False,
    "cautious_weight_decay": False,
    "corrected_weight_decay": 0.0,
    "lookahead_steps": 0.0,
}

_Peer = TypeVar("_Peer")


class Part(NamedTuple):
    """The state of one array: how often it was updated, and what its algorithm keeps of it."""

    step: int
    state: Mapping[str, Array]


def peer_of(opt: Any, peers: Mapping[type[Optimizer], _Peer], library: str) -> _Peer:
    """Return what an optimizer goes on as, or raise a TypeError."""
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt must be an optimizer of fastopt, got {describe(opt)}")
    if type(opt) not in peers:
        known = ", ".join(sorted((cls.__name__ for cls in peers), key=str.lower))
        raise TypeError(
            f"opt must be of a class whose method {library} has too ({known}); got {describe(opt)}"
        )
    return peers[type(opt)]


def groups_of(opt: Optimizer) -> list[Group]:
    """Return the groups of an optimizer, with their leaves."""
    return opt._groups


def rule_of(opt: Optimizer, values: Mapping[str, Any], leaf: Leaf) -> Rule:
    """Return the algorithm's rule for a leaf, without modifiers, if its group had these hyperparameters."""
    return cast(Rule, opt.rule_for(leaf.group.with_values(values), leaf.shape))


def fresh(opt: Optimizer, values: Mapping[str, Any], leaf: Leaf) -> Part:
    """Return the state of a leaf that has never been updated."""
    if leaf.frozen:
        return Part(0, {})
    rule, fill = rule_of(opt, values, leaf), opt.initial_state(leaf.group.with_values(values))
    shapes = leaf.layout(rule).items()
    return Part(0, {name: np.full(shape, fill.get(name, 0.0), dtype) for name, (shape, dtype) in shapes})


def parts_of(opt: Optimizer) -> tuple[int, list[list[Part]]]:
    """Return the step count, and copies of the algorithm's state of each leaf of each group.

    Raises
    ------
    ValueError
        If a modifier changes the steps, or gradients have been added up: elsewhere, they would not go on.
    """
    for group in groups_of(opt):
        for leaf in group.trained:
            for name, off in _MODIFIERS.items():
                if leaf.group[name] != off:
                    raise ValueError(
                        f"{leaf.place} is updated with {name}={leaf.group[name]!r}, which only fastopt has"
                    )
    saved = opt.state_dict()
    added = saved["options"]["accumulated"]["count"]
    if added:
        raise ValueError(
            f"opt is in the middle of an accumulation: the gradients of {plural(added, 'step')} would be lost"
        )
    parts = []
    for group, own in zip(groups_of(opt), saved["param_groups"], strict=True):
        found = []
        for i, (leaf, step) in enumerate(zip(group.leaves, own["steps"], strict=True)):
            rule = None if leaf.frozen else rule_of(opt, {}, leaf)
            names = () if rule is None else (*rule.state, *rule.carry)
            found.append(Part(step, {name: _plain(own["state"][name][i], leaf) for name in names}))
        parts.append(found)
    return saved["step_count"], parts


def _plain(saved: Any, leaf: Leaf) -> Array:
    """Return saved state as an array: decoded, if it is as stored in fewer bytes."""
    return unpacked(saved, leaf.shape) if isinstance(saved, Mapping) else saved


def merged(
    opt: Optimizer,
    hyperparameters: Sequence[Mapping[str, Any]],
    parts: Sequence[Sequence[Part]],
    step_count: int,
) -> dict[str, Any]:
    """Return the optimizer's state dict, with other hyperparameters, step counts and state.

    What only fastopt has, such as averages of the parameters, stays as it is. Where an array has not been
    updated yet, it starts with the parameters as they are now.
    """
    for group, own in zip(groups_of(opt), opt.state_dict()["param_groups"], strict=True):
        for leaf, step in zip(group.leaves, own["steps"], strict=True):
            if step == 0:
                leaf.begin()
    result = opt.state_dict()
    result["step_count"] = step_count
    everything = zip(groups_of(opt), result["param_groups"], hyperparameters, parts, strict=True)
    for group, own, values, found in everything:
        held: list[dict[str, Array]] = []
        for i, (leaf, part) in enumerate(zip(group.leaves, found, strict=True)):
            more = {name: arrays[i] for name, arrays in own["state"].items() if arrays[i] is not None}
            if not leaf.frozen:
                before = rule_of(opt, {}, leaf)
                for name in (*before.state, *before.carry):
                    del more[name]
            held.append({**part.state, **more})
        names = dict.fromkeys(name for each in held for name in each)
        own["hyperparameters"].update(values)
        own["steps"] = [part.step for part in found]
        own["state"] = {name: [each.get(name) for each in held] for name in names}
    return result
