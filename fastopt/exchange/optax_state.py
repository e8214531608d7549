"""States of optax: where in a nest of them the arrays are, and what else is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from fastopt.exchange.holdings import groups_of
from fastopt.exchange.peers import AMSGRAD, OptaxPeer
from fastopt.exchange.values import count
from fastopt.leaf import Leaf
from fastopt.optimizer import Optimizer
from fastopt.packing import Pack
from fastopt.tree import Tree, describe

#: The states that may stand around that of the method, and where in them others are. What is not here
#: changes the updates in a way of its own.
_AROUND: Mapping[str, tuple[str, ...]] = {
    "EmptyState": (),
    "ZeroNansState": (),
    "MaskedState": ("inner_state",),
    "PartitionState": ("inner_states",),
    "ApplyIfFiniteState": ("inner_state",),
    "MultiStepsState": ("inner_opt_state",),
    "InjectHyperparamsState": ("inner_state",),
    "InjectStatefulHyperparamsState": ("hyperparams_states", "inner_state"),
    "ScaleByScheduleState": (),
    "WeightDecaySchedule": (),
    "WrappedScheduleState": (),
}
#: Those that count the steps for a schedule.
_SCHEDULES = {"ScaleByScheduleState", "WeightDecaySchedule", "WrappedScheduleState"}


class Visitor(Protocol):
    """What is done with the states that are found; each method returns what replaces them."""

    def method(self, node: Any, place: str) -> Any:
        """Treat the state of the method itself."""

    def counter(self, node: Any, field: str, place: str) -> Any:
        """Treat a state that counts the steps of the optimizer."""

    def injected(self, node: Any, place: str) -> Any:
        """Treat hyperparameters, after what is inside them."""


def walk(node: Any, place: str, peer: OptaxPeer, visitor: Visitor) -> Any:
    """Visit the states in a nest of them.

    Raises
    ------
    TypeError, ValueError
        If there is one that fastopt has nothing for, or it is in the middle of something.
    """
    if isinstance(node, Mapping):
        inner = {key: walk(child, f"{place}[{key!r}]", peer, visitor) for key, child in node.items()}
        return inner if type(node) is dict else type(node)(inner)  # type: ignore[call-arg]
    if not hasattr(node, "_fields"):
        if not isinstance(node, list | tuple):
            raise TypeError(
                f"{place} must be a state of optax, or a tuple or dict of such; got {describe(node)}"
            )
        return type(node)([walk(child, f"{place}[{i}]", peer, visitor) for i, child in enumerate(node)])
    name = type(node).__name__
    if name in (peer.state, AMSGRAD):
        return visitor.method(node, place)
    if name not in _AROUND:
        raise ValueError(
            f"{place} is {describe(node)}, which fastopt has nothing for; to go on without it, give "
            f"the {peer.state} alone"
        )
    if name == "MultiStepsState":
        done = count(node.mini_step, f"{place}.mini_step")
        if done:
            raise ValueError(f"{place} is in the middle of an accumulation: mini_step must be 0, got {done}")
        node = visitor.counter(node, "gradient_step", place)
    if name in _SCHEDULES:
        return visitor.counter(node, "count", place)
    inner = {field: walk(getattr(node, field), f"{place}.{field}", peer, visitor) for field in _AROUND[name]}
    node = node._replace(**inner)
    return visitor.injected(node, place) if hasattr(node, "hyperparams") else node


class Parameters:
    """The parameters of an optimizer as the tree that optax has: with groups, a list of one tree a group."""

    def __init__(self, opt: Optimizer) -> None:
        given = [params.params if isinstance(params, Pack) else params for params in _params_of(opt)]
        self._example = given[0] if opt._sole else given
        self._tree = Tree(self._example)
        self.leaves: list[Leaf] = [leaf for group in groups_of(opt) for leaf in group.leaves]
        #: The number of each leaf's group.
        self.groups = [i for i, group in enumerate(groups_of(opt)) for _ in group.leaves]

    def columns(self, tree: Any, place: str) -> list[Any]:
        """Return optax's array for each leaf, None where it is masked.

        Raises
        ------
        TypeError, ValueError
            If the tree is not like that of the parameters.
        """
        return self._tree.leaves(_unmasked(tree, self._example), place)

    def places(self, place: str) -> list[str]:
        """Return how errors name the arrays of a tree at ``place``."""
        return [place + name for name in self._tree.names]

    def replaced(self, tree: Any, arrays: Iterable[Any]) -> Any:
        """Return a tree like optax's, with other arrays where it is not masked."""
        return _replaced(tree, self._tree.build(list(arrays)))


def _params_of(opt: Optimizer) -> list[Any]:
    return [group["params"] for group in opt.param_groups]


def _is_masked(node: Any) -> bool:
    return type(node).__name__ == "MaskedNode"


def _unmasked(tree: Any, example: Any) -> Any:
    """Return the tree with None for each leaf that is masked, or that is below something that is."""
    if isinstance(example, Mapping):
        if _is_masked(tree):
            return {key: _unmasked(tree, child) for key, child in example.items()}
        if isinstance(tree, Mapping) and tree.keys() == example.keys():
            return {key: _unmasked(tree[key], child) for key, child in example.items()}
    elif isinstance(example, list | tuple):
        if _is_masked(tree):
            return [_unmasked(tree, child) for child in example]
        if isinstance(tree, list | tuple) and len(tree) == len(example):
            return [_unmasked(child, own) for child, own in zip(tree, example, strict=True)]
    elif _is_masked(tree):
        return None
    return tree


def _replaced(tree: Any, arrays: Any) -> Any:
    if _is_masked(tree):
        return tree
    if isinstance(tree, Mapping):
        inner = {key: _replaced(child, arrays[key]) for key, child in tree.items()}
        return inner if type(tree) is dict else type(tree)(inner)  # type: ignore[call-arg]
    if isinstance(tree, list | tuple):
        children = [_replaced(child, own) for child, own in zip(tree, arrays, strict=True)]
        return type(tree)._make(children) if hasattr(tree, "_make") else type(tree)(children)
    return arrays
