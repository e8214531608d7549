"""State of a fastopt optimizer as torch has it: tensors that are views, and dicts for checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastopt import checkpoint
from fastopt.adapters._torch_core import TensorCore, host, plain
from fastopt.algorithms import ASGD, Adagrad
from fastopt.engine.device import DeviceArray
from fastopt.exchange.values import count
from fastopt.group import Group
from fastopt.leaf import Array, Leaf
from fastopt.tree import describe

#: What a state dict has beside the keys of torch's: what only fastopt knows.
OWN = "fastopt"


class StateViews:
    """Keeps the state of each parameter, by name, as tensors in the memory that fastopt updates.

    Parameters
    ----------
    core : TensorCore
        The optimizer.
    params : sequence of Tensor
        Its parameters, in order.
    """

    def __init__(self, core: TensorCore, params: Sequence[Any]) -> None:
        self._core, self._params = core, params
        self._steps = np.zeros(len(params), np.float32)  # as torch counts
        self._shown: list[dict[str, Array]] = [{} for _ in params]

    def refresh(self, state: Any) -> None:
        """Bring a dict of dicts up to date. As in torch, parameters are in it from their first step on."""
        self._core._settle()
        leaves = leaves_of(self._core)
        self._steps[:] = [leaf.step for leaf in leaves]
        for i, (param, leaf, shown) in enumerate(zip(self._params, leaves, self._shown, strict=True)):
            if leaf.frozen or not (leaf.step or isinstance(self._core, Adagrad)):
                continue
            if isinstance(self._core, ASGD):
                state[param] |= _rates(leaf, param.device)
            now = {**leaf.state, **leaf.extra}
            if shown.keys() == now.keys() and all(shown[name] is now[name] for name in now) and shown:
                continue
            entry = state[param]
            for name in shown.keys() - now.keys():
                entry.pop(name, None)
            entry["step"] = host().from_numpy(self._steps[i : i + 1]).reshape(())
            entry.update({name: _shown(array, param.device) for name, array in leaf.values().items()})
            self._shown[i] = now


def _shown(array: Any, device: Any) -> Any:
    """Return an array as a tensor in the same memory."""
    if isinstance(array, DeviceArray):
        return host().as_tensor(array, device=device)
    return host().from_numpy(array)


def _rates(leaf: Leaf, device: Any) -> dict[str, Any]:
    """Return what ASGD computes from the number of the step, and torch.optim keeps."""
    lr, lambd, alpha, t0 = leaf.group.values_at(leaf.step, ("lr", "lambd", "alpha", "t0"), None)
    rates = {"eta": lr / (1.0 + lambd * lr * leaf.step) ** alpha, "mu": 1.0 / max(1.0, leaf.step - t0)}
    return {name: host().tensor(rate, device=device) for name, rate in rates.items()}


def leaves_of(core: TensorCore) -> list[Leaf]:
    """Return all leaves of an optimizer, the frozen ones too."""
    return [leaf for group in core._groups for leaf in group.leaves]


def own_part(core: TensorCore) -> dict[str, Any]:
    """Return what an optimizer needs to go on, and torch has no place for; with tensors for arrays."""
    return {
        "step_count": core.step_count,
        "options": _converted(core._options_state(), np.ndarray, _tensor),
        "schedules": [_memories(group.mapping) for group in core._groups],
        "own_schedules": [[_memories(own) for own in group.own] for group in core._groups],
    }


def _memories(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the schedules that have some."""
    states = {name: value.state_dict() for name, value in values.items() if hasattr(value, "load_state_dict")}
    return {name: copy.deepcopy(dict(state)) for name, state in states.items() if state}


def load(
    core: TensorCore,
    hyperparameters: Sequence[Mapping[str, Any]],
    entries: Sequence[Mapping[str, Any]],
    own: Mapping[str, Any] | None,
    more: Mapping[str, Any],
) -> None:
    """Give an optimizer the state of its parameters, in order, and other hyperparameters.

    Parameters
    ----------
    core : TensorCore
        The optimizer.
    hyperparameters : sequence of mapping
        Those of each group.
    entries : sequence of mapping
        The state of each parameter, as tensors by name. Of one that has none, it begins anew.
    own : mapping or None
        What :func:`own_part` returned.
    more : mapping
        What the state dict of the class has beside what all have.

    Raises
    ------
    TypeError, ValueError
        If something does not fit. Nothing is changed then.
    """
    if own is not None:
        checkpoint.expect_keys(own, ("step_count", "options", "schedules", "own_schedules"), f"[{OWN!r}]")
    parts: list[dict[str, Any]] = []
    begin = 0
    for number, (group, values) in enumerate(zip(core._groups, hyperparameters, strict=True)):
        found = entries[begin : begin + len(group.leaves)]
        parts.append(_part(core, group, values, found))
        if own is not None:
            parts[-1] |= {key: own[key][number] for key in ("schedules", "own_schedules")}
        begin += len(group.leaves)
    steps = [step for part in parts for step in part["steps"]]
    whole = {
        "version": checkpoint.VERSION,
        "algorithm": type(core).__name__,
        "step_count": max(steps, default=0) if own is None else own["step_count"],
        "param_groups": parts,
        "options": core._options_state()
        if own is None
        else _converted(own["options"], host().Tensor, lambda tensor: tensor.cpu().numpy()),
        **more,
    }
    core.load_state_dict(whole)


def _part(
    core: TensorCore,
    group: Group,
    values: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the part of a state dict of fastopt that is of one group."""
    layouts = core._layouts(group, values)
    state: list[dict[str, Any]] = []
    steps = []
    for leaf, layout, entry in zip(group.leaves, layouts, entries, strict=True):
        step, held = _held(core, leaf, layout, values, entry)
        steps.append(step)
        state.append(held)
    names = dict.fromkeys(name for held in state for name in held)
    return {
        "hyperparameters": dict(values),
        "schedules": {},
        "names": list(group.tree.names),
        "shapes": [leaf.shape for leaf in group.leaves],
        "dtypes": [leaf.dtype.name for leaf in group.leaves],
        "steps": steps,
        "own_schedules": [{} for _ in group.leaves],
        "state": {name: [held.get(name) for held in state] for name in names},
    }


def _held(
    core: TensorCore,
    leaf: Leaf,
    layout: checkpoint.Layout,
    values: Mapping[str, Any],
    entry: Mapping[str, Any],
) -> tuple[int, dict[str, Any]]:
    """Return how often a leaf was updated, and its state: what is given, else what new state starts with."""
    if leaf.frozen:
        return 0, {}
    settings = leaf.group.with_values(values)
    required = leaf.layout(core.rule_for(settings, leaf.shape))
    missing = [name for name in required if entry.get(name) is None]
    given = {name: entry[name] for name in layout if entry.get(name) is not None}
    if given and missing:
        has = ", ".join(map(repr, entry))
        raise ValueError(
            f"the state of {leaf.place} must have {', '.join(map(repr, required))} for "
            f"{type(core).__name__}; the state_dict has {has}"
        )
    fills = {**core.initial_state(settings), "ema": "params", "slow": "params"}
    held: dict[str, Any] = {}
    for name, (shape, dtype) in layout.items():
        if name in given:
            held[name] = _array(given[name], dtype, f"{name!r} in the state of {leaf.place}")
        elif fills.get(name) == "params":
            held[name] = leaf.array
        else:
            held[name] = np.full(shape, fills.get(name, 0.0), dtype)
    step = entry.get("step")  # torch's SGD counts nothing; what is there has come of a step at least
    number = int(bool(given)) if step is None else count(step, f"'step' in the state of {leaf.place}")
    return number, held


def _array(value: Any, dtype: np.dtype[Any], what: str) -> Array:
    if not isinstance(value, host().Tensor):
        raise TypeError(f"{what} must be a tensor, got {describe(value)}")
    converted: Array = value.detach().to("cpu", getattr(host(), dtype.name)).numpy()
    return converted


def _tensor(array: Any) -> Any:
    return host().from_numpy(np.array(array))


def _converted(node: Any, kind: Any, convert: Any) -> Any:
    """Return nested dicts and lists with something else in the place of each object of a kind."""
    if isinstance(node, kind):
        return convert(node)
    if isinstance(node, Mapping):
        return {key: _converted(item, kind, convert) for key, item in node.items()}
    if isinstance(node, list | tuple):
        return [_converted(item, kind, convert) for item in node]
    return node


def numbers(group: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that a group of torch's has for fastopt, without tensors."""
    return {name: plain(group[name]) for name in known if name in group}
