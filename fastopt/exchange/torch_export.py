"""State of fastopt's optimizers, for torch.optim's."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from fastopt.exchange.holdings import Part, groups_of, parts_of, peer_of
from fastopt.exchange.peers import TORCH, TorchPeer, torch_factor
from fastopt.leaf import Leaf
from fastopt.optimizer import Optimizer

#: torch counts steps in float32, which is exact up to here.
_COUNTED = 2**24


def to_torch(opt: Optimizer) -> dict[str, Any]:
    """Return a state dict for the optimizer of torch.optim that has the method of ``opt``.

    For ``load_state_dict`` of an optimizer of that class, with as many groups, and in each of them as many
    parameters, of the same shapes and dtypes and in the same order. The run goes on there where it was here,
    to within rounding.

    Parameters
    ----------
    opt : Optimizer
        Its arrays are copied. In the place of schedules there are their values for the next step.

    Returns
    -------
    dict
        Of tensors. Parameters that have not been updated have no state, as in torch.

    Raises
    ------
    ImportError
        If torch is not installed.
    TypeError
        If the class of ``opt`` has no counterpart.
    ValueError
        If ``opt`` does what torch cannot go on with: arrays have hyperparameters of their own within a
        group, or a modifier changes the steps.

    See Also
    --------
    from_torch : The way back, with the classes that can be exchanged.

    Notes
    -----
    State is exchanged bit for bit: :func:`from_torch` of the result is that of ``opt``. ``load_state_dict``
    of torch rounds NAdam's ``mu_product`` to the dtype of the parameters, and Momentum is rounded where
    its velocity is divided by the learning rate. torch has no place for averages of the parameters,
    and SGD there none for the number of steps.

    Examples
    --------
    With torch, and the parameters of ``model`` in the order of those of ``opt``:

    >>> from fastopt.exchange import to_torch
    >>> theirs = torch.optim.AdamW(model.parameters())  # doctest: +SKIP
    >>> theirs.load_state_dict(to_torch(opt))  # doctest: +SKIP
    """
    peer = peer_of(opt, TORCH, "torch.optim")
    for group in groups_of(opt):
        for leaf in group.leaves:
            _check(leaf)
    step_count, parts = parts_of(opt)
    torch = _torch()
    fixed = {name: value for name, (value, _) in peer.fixed.items()}
    names = (*opt.defaults, "maximize")
    state: dict[int, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    number = 0
    for group, found in zip(groups_of(opt), parts, strict=True):
        values = dict(zip(names, group.mapping.values_at(step_count, names, None), strict=True))
        keys = range(number, number + len(found))
        number = keys.stop
        groups.append({**values, **fixed, "params": list(keys)})
        for key, leaf, part in zip(keys, group.leaves, found, strict=True):
            if part.state and (part.step or peer.early):
                state[key] = _entry(torch, leaf, part, peer)
    return {"state": state, "param_groups": groups}


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ImportError("to_torch needs torch, which is not installed: pip install torch") from None


def _check(leaf: Leaf) -> None:
    """Raise a ValueError if a leaf has settings that are not its group's."""
    own = dict(leaf.group.own)
    if leaf.group.lr_scale != 1.0:
        own["lr_scale"] = leaf.group.lr_scale
    if own:
        listed = ", ".join(f"{name}={value!r}" for name, value in own.items())
        raise ValueError(
            f"{leaf.place} has hyperparameters of its own, {listed}; torch has one value for a parameter "
            f"group: it must be in a group for itself"
        )


def _entry(torch: Any, leaf: Leaf, part: Part, peer: TorchPeer) -> dict[str, Any]:
    """Return the state of a leaf as torch's of a parameter."""
    entry = {}
    if peer.counts:
        dtype = torch.float32 if part.step <= _COUNTED else torch.float64
        entry["step"] = torch.tensor(float(part.step), dtype=dtype)
    for name, array in part.state.items():
        theirs, _ = peer.state.get(name, (name, ""))
        if name in peer.state:
            factor = torch_factor(peer, name, leaf, leaf.group)
            array = np.asarray(array.astype(np.float64) / factor).astype(leaf.dtype)
        entry[theirs] = torch.from_numpy(array)
    return entry
