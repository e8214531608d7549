"""A parameter group at work: its leaves, the rule that updates them, and their state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.engine import Rule
from fastopt.engine.memory import aligned_zeros
from fastopt.hyperparameters import ParamGroup
from fastopt.leaf import Leaf, check_parameter
from fastopt.packing import Pack
from fastopt.tree import Tree


class Group:
    """A parameter group, its leaves, and the rule that updates them.

    Parameters
    ----------
    mapping : ParamGroup
        The group as the user sees it.
    name : str
        How errors name its parameters.

    Raises
    ------
    TypeError, ValueError
        If one of its arrays cannot be updated in place.
    """

    def __init__(self, mapping: ParamGroup, name: str) -> None:
        self.mapping = mapping
        self.rule: Rule | None = None
        params = mapping["params"]
        packed = isinstance(params, Pack)
        self.tree = Tree(params.params if packed else params)
        arrays = self.tree.leaves(params.params if packed else params, name)
        grads = self.tree.leaves(params.grads, name) if packed else [None] * len(arrays)
        self.leaves: list[Leaf] = []
        for array, grad, way in zip(arrays, grads, self.tree.names, strict=True):
            check_parameter(array, name + way)
            self.leaves.append(Leaf(name + way, array, grad))

    def adopt(self, rule: Rule, fill: Mapping[str, float]) -> None:
        """Take a rule. State that the rule before it had under the same names is kept.

        Parameters
        ----------
        rule : Rule
            The rule.
        fill : mapping of str to float
            What new state starts with, where that is not zero.
        """
        self.rule = rule
        for dtype in {leaf.dtype for leaf in self.leaves}:
            leaves = [leaf for leaf in self.leaves if leaf.dtype == dtype]
            for name in rule.state:
                if name in leaves[0].state:
                    continue
                # One buffer for all: what lies together in each buffer is updated as one segment.
                buffer = aligned_zeros(sum(leaf.flat.size for leaf in leaves), dtype)
                if fill.get(name, 0.0) != 0.0:
                    buffer.fill(fill[name])
                end = 0
                for leaf in leaves:
                    start, end = end, end + leaf.flat.size
                    leaf.state[name] = buffer[start:end]
        for leaf in self.leaves:
            leaf.state = {name: leaf.state[name] for name in rule.state}

    def state(self) -> dict[str, Any]:
        """Return the state, as trees of views in the structure of the parameters."""
        return {
            name: self.tree.build([leaf.shaped(leaf.state[name]) for leaf in self.leaves])
            for name in (self.rule.state if self.rule else ())
        }
