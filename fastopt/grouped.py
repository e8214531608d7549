"""The parameter groups of an optimizer: how they are made, added to, and changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.algorithm import Algorithm
from fastopt.arrangement import Arrangement
from fastopt.gradients import GivenGradients
from fastopt.group import Group
from fastopt.hyperparameters import ParamGroup
from fastopt.leaf import Leaf
from fastopt.options import StepOptions
from fastopt.packing import check_no_overlap


class Grouped(Algorithm):
    """An optimizer's parameters, in groups."""

    def _begin(self, defaults: dict[str, Any], options: StepOptions, sole: bool) -> None:
        self._chosen_defaults, self._options, self._sole = defaults, options, sole
        self._groups: list[Group] = []
        self._count = 0
        self._arrangement: Arrangement | None = None
        self._given: GivenGradients | None = None

    @property
    def param_groups(self) -> list[ParamGroup]:
        """The parameter groups: mappings whose hyperparameters can be set."""
        return [group.mapping for group in self._groups]

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters, with step counts of their own that start at zero.

        From then on :meth:`step` takes a list of gradients, one tree a group.

        Parameters
        ----------
        group : dict
            "params", and those hyperparameters that differ from the optimizer's.

        Raises
        ------
        TypeError, ValueError
            As at construction, and if an array is in a group already. Nothing is added then.
        """
        if not is_group(group):
            raise TypeError(f"a parameter group must be a dict with a key 'params', got {group!r}")
        self._add(group)
        self._sole = False

    def _add(self, group: Mapping[str, Any]) -> None:
        name = "params" if self._sole and not self._groups else f"params[{len(self._groups)}]['params']"
        values = {key: value for key, value in group.items() if key != "params"}
        mapping = ParamGroup(group["params"], {**self._chosen_defaults, **values}, self._known_defaults())
        added = Group(mapping, name)
        leaves = [*self._leaves(), *added.leaves]
        check_no_overlap([leaf.array for leaf in leaves], [leaf.place for leaf in leaves])
        self._take_note(added)
        self._groups.append(added)

    def _leaves(self) -> list[Leaf]:
        return [leaf for group in self._groups for leaf in group.leaves]

    def _params(self) -> Any:
        """Return what the optimizer was given to update; with groups, a list."""
        given = [group.mapping["params"] for group in self._groups]
        return given[0] if self._sole else given

    def _rearrange(self) -> None:
        """Have the next step arrange the leaves anew."""
        self._settle()
        self._arrangement = self._given = None

    def _settle(self) -> None:
        if self._arrangement is not None:
            self._arrangement.settle()

    def _take_note(self, group: Group) -> None:
        """Act on changed hyperparameters: they may ask for other rules."""
        rules = [self._rule_of(group.mapping, leaf.shape) for leaf in group.leaves]
        group.mapping.changed = False
        if rules != [getattr(leaf, "rule", None) for leaf in group.leaves]:
            self._rearrange()
            group.adopt(rules, {**self.initial_state(group.mapping), "ema": "params", "slow": "params"})


def is_group(item: Any) -> bool:
    """Tell whether ``item`` describes a parameter group."""
    return isinstance(item, Mapping) and "params" in item
