"""A parameter group at work: its leaves, the rules that update them, and their state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastopt.engine import MatrixRule, Rule
from fastopt.engine.device import wait
from fastopt.engine.storage import Format, allocate, native
from fastopt.foreign import as_array
from fastopt.formats import REST, Form
from fastopt.hyperparameters import ParamGroup
from fastopt.leaf import Array, Leaf, check_updatable
from fastopt.overrides import lay_over
from fastopt.packing import Pack, check_array
from fastopt.tree import Tree


class Group:
    """A parameter group, and its leaves with their rules and their state.

    Parameters
    ----------
    mapping : ParamGroup
        The group as the user sees it.
    name : str
        How errors name its parameters.

    Attributes
    ----------
    tree : Tree
        The structure of its parameters.
    given : list
        Its parameters, as the user gave them.
    arrays : list of ndarray, or of DeviceArray
        Its parameters; views of those that are arrays of other libraries.
    own : sequence of mapping
        What overrides set for each of them.
    leaves, trained : list of Leaf
        Its leaves, and those of them that are not frozen. There are none before :meth:`make_leaves`.

    Raises
    ------
    TypeError
        If one of its parameters is no array of a dtype that is known, or neither the CPU nor CUDA reach it.
    ValueError
        If one of them is on a CUDA device and not contiguous.
    """

    def __init__(self, mapping: ParamGroup, name: str) -> None:
        self.mapping, self._name = mapping, name
        params = mapping["params"]
        packed = isinstance(params, Pack)
        self.tree = Tree(params.params if packed else params)
        self.given = self.tree.leaves(params.params if packed else params, name)
        places = [name + way for way in self.tree.names]
        self.arrays: list[Array] = list(map(as_array, self.given, places))
        self._grads = self.tree.leaves(params.grads, name) if packed else [None] * len(self.arrays)
        for array, place in zip(self.arrays, places, strict=True):
            check_array(array, place, "halves")
        self.own: Sequence[Mapping[str, Any]] = []
        self.leaves: list[Leaf] = []
        self.trained: list[Leaf] = []

    def make_leaves(self, own: Sequence[Mapping[str, Any]]) -> None:
        """Make the leaves, with what overrides set for each.

        Raises
        ------
        ValueError
            If an array that is not frozen cannot be updated in place.
        """
        self.own = own
        self.mapping.set_overrides(
            {path: each for path, each in zip(self.tree.paths, own, strict=True) if each}
        )
        settings = lay_over(self.mapping, own)
        self.leaves = [
            Leaf(self._name + way, array, grad, group, "frozen" in each)
            for way, array, grad, group, each in zip(
                self.tree.names, self.arrays, self._grads, settings, own, strict=True
            )
        ]
        self.trained = [leaf for leaf in self.leaves if not leaf.frozen]
        for leaf, given in zip(self.leaves, self.given, strict=True):
            if not leaf.frozen:
                check_updatable(leaf.array, leaf.place, given)

    def adopt(
        self,
        rules: Sequence[Rule | MatrixRule],
        forms: Sequence[Form],
        fills: Sequence[Mapping[str, float | str]],
    ) -> None:
        """Take a rule for each leaf. State that the rule before it had under the same names is kept.

        Parameters
        ----------
        rules : sequence of Rule
            The rules of those that are not frozen.
        forms : sequence of Form
            How their state is stored, and what is kept of parameters of half precision.
        fills : sequence of mapping of str to float or "params"
            What their new state starts with, where that is not zero.
        """
        new: dict[tuple[str, Format], list[tuple[Leaf, Array | float | str]]] = {}
        kept = dict(REST.values())
        for leaf, rule, own, fill in zip(self.trained, rules, forms, fills, strict=True):
            moved = leaf.adopt(rule, own, fill)
            for name in leaf.buffer_names:
                if name not in leaf.state:
                    form = leaf.formats.get(name) or kept.get(name) or native(leaf.dtype)
                    new.setdefault((name, form), []).append((leaf, moved.get(name, fill.get(name, 0.0))))
        for (name, form), leaves in new.items():
            if form.block > 1:  # each leaf's blocks are its own
                for leaf, value in leaves:
                    leaf.take(name, allocate(form, leaf.flat.size, like=leaf.flat), value)
                continue
            # One buffer for all: what lies together in each buffer is updated as one segment.
            size = sum(leaf.flat.size for leaf, _ in leaves)
            buffer = allocate(form, size, like=leaves[0][0].flat)
            end = 0
            for leaf, value in leaves:
                start, end = end, end + leaf.flat.size
                leaf.take(name, buffer[start:end], value)
        for leaf in self.trained:
            leaf.state = {name: leaf.state[name] for name in leaf.buffer_names}
        if new and self.trained[0].on_device:
            wait()  # steps may be taken on other streams

    @property
    def state_names(self) -> list[str]:
        """The names of all state that any of the leaves has."""
        return list(dict.fromkeys(name for leaf in self.leaves for name in leaf.state_names))

    @property
    def nbytes(self) -> int:
        """How many bytes the state takes."""
        return sum(
            each.nbytes for leaf in self.leaves for each in (*leaf.state.values(), *leaf.extra.values())
        )

    def state(self) -> dict[str, Any]:
        """Return the state, as trees like the parameters'; None where a leaf has none.

        The arrays are views, or copies of what is not stored in the array's own precision.
        """
        values = [leaf.values() for leaf in self.leaves]
        return {name: self.tree.build([each.get(name) for each in values]) for name in self.state_names}
