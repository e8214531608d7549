"""The state of schedules that are made of others."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Composite(ABC):
    """A schedule made of others. Its state is that of those among them that have some."""

    @abstractmethod
    def _parts(self) -> Mapping[str, Any]:
        """Return the others, by the names that their state has here."""

    def state_dict(self) -> dict[str, float]:
        """Return the state of the parts as plain numbers; empty if none has any.

        See Also
        --------
        ReduceOnPlateau.state_dict : What has state.
        """
        return {
            f"{place}.{name}": value
            for place, part in self._stateful().items()
            for name, value in part.state_dict().items()
        }

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Take over what :meth:`state_dict` returned, for parts of the same kinds.

        Raises
        ------
        ValueError
            If it does not fit. Nothing is changed then.
        """
        parts = self._stateful()
        own: dict[str, dict[str, float]] = {place: {} for place in parts}
        for name, value in state_dict.items():
            place = next((place for place in parts if name.startswith(place + ".")), None)
            if place is None:
                raise ValueError(
                    f"state_dict must be what state_dict() returned; this {type(self).__name__} has no state "
                    f"{name!r}"
                )
            own[place][name.removeprefix(place + ".")] = value
        for place, part in parts.items():  # on copies first: an error in one leaves the others as they are
            copy.deepcopy(part).load_state_dict(own[place])
        for place, part in parts.items():
            part.load_state_dict(own[place])

    def _stateful(self) -> dict[str, Any]:
        return {place: part for place, part in self._parts().items() if hasattr(part, "state_dict")}
