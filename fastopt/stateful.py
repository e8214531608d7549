"""What an optimizer needs to go on elsewhere: its state, as dicts and in pickles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt import checkpoint
from fastopt.grouped import Grouped


class Stateful(Grouped):
    """An optimizer's state, and how it is taken out and put back."""

    @property
    def state(self) -> list[dict[str, Any]]:
        """The state of each group: by name, a tree of views in the structure of the parameters."""
        self._settle()
        return [group.state() for group in self._groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the step counts, the state and the hyperparameters, as plain numbers and arrays.

        The arrays are copies. Schedules are functions and are left out.
        """
        self._settle()
        return checkpoint.collect(type(self).__name__, self._count, self._groups)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, for parameters of the same structure.

        Where this optimizer has a schedule, it keeps it.

        Parameters
        ----------
        state_dict : dict
            From an optimizer of the same class. Its arrays are copied.

        Raises
        ------
        ValueError
            If it does not fit this optimizer; the message says in what. Nothing is changed then.
        """
        checkpoint.check(state_dict, type(self).__name__, self._groups, self._rule_of)
        self._rearrange()
        for group, saved in zip(self._groups, state_dict["param_groups"], strict=True):
            group.mapping.update(checkpoint.loadable(group, saved))
            self._take_note(group)
            for leaf, step in zip(group.leaves, saved["steps"], strict=True):
                leaf.step = step
            for i, leaf in enumerate(group.leaves):
                for name, own in leaf.values().items():
                    own[...] = saved["state"][name][i]
        self._count = state_dict["step_count"]

    def __getstate__(self) -> dict[str, Any]:
        return {
            "params": [group.mapping["params"] for group in self._groups],
            "hyperparameters": [
                {name: value for name, value in group.mapping.items() if name != "params"}
                for group in self._groups
            ],
            "defaults": self._chosen_defaults,
            "sole": self._sole,
            "options": self._options,
            "saved": self.state_dict(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The addresses in the tables are those of another process, or of other arrays.
        self._begin(state["defaults"], state["options"], state["sole"])
        for params, values in zip(state["params"], state["hyperparameters"], strict=True):
            self._add({"params": params, **values})
        self.load_state_dict(state["saved"])
