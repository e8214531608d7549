"""The one table of which classes go on as what elsewhere, and under which names.

Where nothing is said, names and values are the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastopt.algorithms import (
    ADOPT,
    LAMB,
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AdEMAMix,
    Lion,
    Momentum,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    Yogi,
)
from fastopt.leaf import Leaf
from fastopt.optimizer import Optimizer


@dataclass(frozen=True)
class TorchPeer:
    """The class of torch.optim that has a class's method."""

    name: str
    #: State of another name: torch's, and the hyperparameter that it must be multiplied by.
    state: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    #: Hyperparameters that only torch has: the one value that will do, and the class that takes the others.
    fixed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    #: Whether torch counts the steps of each array.
    counts: bool = True
    #: Whether torch's state is there from the beginning, and not from the first step on.
    early: bool = False


TORCH: Mapping[type[Optimizer], TorchPeer] = {
    SGD: TorchPeer("SGD", counts=False),
    Momentum: TorchPeer(
        "SGD",
        state={"velocity": ("momentum_buffer", "lr")},
        fixed={"dampening": (0, "SGD"), "nesterov": (False, "SGD")},
        counts=False,
    ),
    Adagrad: TorchPeer("Adagrad", early=True),
    RMSprop: TorchPeer("RMSprop"),
    Adadelta: TorchPeer("Adadelta"),
    Rprop: TorchPeer("Rprop"),
    Adam: TorchPeer("Adam", fixed={"decoupled_weight_decay": (False, "AdamW")}),
    AdamW: TorchPeer("AdamW", fixed={"decoupled_weight_decay": (True, "Adam")}),
    NAdam: TorchPeer("NAdam"),
    RAdam: TorchPeer("RAdam"),
    Adamax: TorchPeer("Adamax"),
}

#: Hyperparameters that older versions of torch do not save: they had not been invented.
LATE = {"maximize": False, "decoupled_weight_decay": False}


def torch_hyperparameters(cls: type[Optimizer]) -> set[str]:
    """Return the names of the hyperparameters of torch's class, apart from how it computes."""
    return {*cls.defaults, *TORCH[cls].fixed, "maximize"}


def torch_factor(peer: TorchPeer, name: str, leaf: Leaf, values: Mapping[str, Any]) -> float:
    """Return what a state of torch must be multiplied by, or raise a ValueError."""
    theirs, by = peer.state[name]
    factor = values[by]
    if callable(factor) or factor == 0.0:
        what = "a schedule" if callable(factor) else "0"
        raise ValueError(
            f"{by} of {leaf.place} must be a number above 0, got {what}: {name} is {theirs} times {by}; "
            f"fastopt.SGD has the same method with torch's state"
        )
    return float(factor) * leaf.group.lr_scale


@dataclass(frozen=True)
class OptaxPeer:
    """The state in an optax chain that belongs to a class's method."""

    #: fastopt's names of the arrays, and optax's.
    fields: Mapping[str, str]
    #: What optax calls the state.
    state: str = "ScaleByAdamState"
    #: The hyperparameter that optax's ``eps_root`` must be equal to; None: it must be zero.
    eps_root: str | None = None


_MOMENTS = {"exp_avg": "mu", "exp_avg_sq": "nu"}
_ADAM = OptaxPeer({**_MOMENTS, "max_exp_avg_sq": "nu_max"})

OPTAX: Mapping[type[Optimizer], OptaxPeer] = {
    Adam: _ADAM,
    AdamW: _ADAM,
    NAdam: OptaxPeer(_MOMENTS),
    RAdam: OptaxPeer(_MOMENTS),
    Yogi: OptaxPeer(_MOMENTS),
    LAMB: OptaxPeer(_MOMENTS),
    ADOPT: OptaxPeer(_MOMENTS),
    Adamax: OptaxPeer({"exp_avg": "mu", "exp_inf": "nu"}),
    AdaBelief: OptaxPeer({"exp_avg": "mu", "exp_avg_var": "nu"}, "ScaleByBeliefState", eps_root="eps"),
    Lion: OptaxPeer({"exp_avg": "mu"}, "ScaleByLionState"),
    AdEMAMix: OptaxPeer(
        {"exp_avg_fast": "m1", "exp_avg_slow": "m2", "exp_avg_sq": "nu"}, "ScaleByAdemamixState"
    ),
}
#: optax has another state for AMSGrad.
AMSGRAD = "ScaleByAmsgradState"

#: optax's names of hyperparameters, where it keeps them: fastopt's, and the place in a tuple of them.
OPTAX_HYPERPARAMETERS: Mapping[str, tuple[str, int | None]] = {
    "learning_rate": ("lr", None),
    "b1": ("betas", 0),
    "b2": ("betas", 1),
    "b3": ("betas", 2),
    "eps": ("eps", None),
    "alpha": ("alpha", None),
    "weight_decay": ("weight_decay", None),
}
