"""Settings of single arrays, which are chosen by their names or by functions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from fastopt.hyperparameters import ParamGroup, Settings, check_value
from fastopt.leaf import Array

#: The options that choose arrays, in the order in which they count: the last has the last word.
OPTIONS = ("no_decay", "frozen", "overrides")
#: What an array can be given beside hyperparameters.
_MORE: Mapping[str, Any] = {"lr_scale": 1.0, "frozen": False}
#: What the short options set.
_SHORT: Mapping[str, Mapping[str, Any]] = {"no_decay": {"weight_decay": 0.0}, "frozen": {"frozen": True}}
#: The most names that an error lists.
_LISTED = 40

Predicate = Callable[[str, Array], bool]


class Overrides:
    """What an optimizer, or a group, is told about single arrays.

    Parameters
    ----------
    given : mapping
        The options that it was given, those of ``OPTIONS`` among them; others are left alone.
    place : str
        How errors name the group; empty for the optimizer.
    algorithm : str
        The algorithm's name, for errors.
    defaults : mapping
        Its hyperparameters, and the kind of each by example.

    Raises
    ------
    TypeError, ValueError
        If an option is of another kind, or a hyperparameter is unknown or out of range.
    """

    def __init__(
        self, given: Mapping[str, Any], place: str, algorithm: str, defaults: Mapping[str, Any]
    ) -> None:
        #: Where each stands, whom it concerns, what it sets.
        self._entries: list[tuple[str, list[str | Predicate], dict[str, Any]]] = []
        #: An entry whose functions are lost.
        self._lost: str | None = None
        for option in OPTIONS:
            chosen, where = given.get(option), f"{place}[{option!r}]" if place else option
            if chosen is None:
                continue
            if option == "overrides":
                self._entries += _entries(chosen, where, defaults)
                continue
            if option == "no_decay" and "weight_decay" not in defaults:
                raise ValueError(f"{where} sets weight_decay to 0, which {algorithm} does not have")
            self._entries.append((where, _parts(chosen, where), dict(_SHORT[option])))

    def own_of(self, path: str, array: Array) -> dict[str, Any]:
        """Return the settings of an array of that name.

        Raises
        ------
        TypeError
            If a function returns something else than a bool.
        ValueError
            If the functions were lost in a pickle.
        """
        if self._lost is not None:
            raise ValueError(
                f"{self._lost} has a function, and this optimizer comes from a pickle, which holds no "
                f"functions: it cannot tell what holds for another group"
            )
        own: dict[str, Any] = {}
        for place, matchers, settings in self._entries:
            # All are asked: a function that returns no bool shall not hide behind a pattern that fits.
            if any([_fits(matcher, path, array, place) for matcher in matchers]):  # noqa: C419
                own.update(settings)
        return own

    def check_matched(self, paths: Sequence[str]) -> None:
        """Raise a ValueError if a pattern fits none of the names."""
        for place, matchers, _ in self._entries:
            for pattern in matchers:
                if isinstance(pattern, str) and not any(fnmatchcase(path, pattern) for path in paths):
                    raise ValueError(f"{place}: no array has a name like {pattern!r}; {_list(paths)}")

    def __getstate__(self) -> dict[str, Any]:
        entries = [
            (place, [matcher for matcher in matchers if isinstance(matcher, str)], settings)
            for place, matchers, settings in self._entries
        ]
        whole = zip(self._entries, entries, strict=True)
        lost = [place for (place, before, _), (_, after, _) in whole if len(after) < len(before)]
        return {"_entries": entries, "_lost": self._lost or (lost[0] if lost else None)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Overrides:
        twin = Overrides.__new__(Overrides)
        twin._lost = self._lost
        twin._entries = copy.deepcopy(self._entries, memo)  # copies of functions are the functions
        return twin


class _Laid(dict[str, Any]):
    """A dict that has, for what it lacks, another one's value: a fast collections.ChainMap."""

    def __init__(self, own: Mapping[str, Any], below: Mapping[str, Any]) -> None:
        super().__init__(own)
        self._below = below

    def __missing__(self, name: str) -> Any:
        return self._below[name]


class Overlay(Settings):
    """The settings of a group, with others in the place of some: those of arrays that have these overrides.

    Parameters
    ----------
    group : ParamGroup
        The group. What is set there later holds here too, where it is not overridden.
    own : mapping
        Hyperparameters, and ``lr_scale``.
    """

    def __init__(self, group: ParamGroup, own: Mapping[str, Any]) -> None:
        self._group, self.defaults = group, group.defaults
        self.own = {name: value for name, value in own.items() if name not in _MORE}
        self.lr_scale = own.get("lr_scale", 1.0)
        self._values = _Laid(self.own, group._values)
        self._constants = group.new_cache()

    def __getitem__(self, name: str) -> Any:
        return self._group[name] if name == "params" else self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __len__(self) -> int:
        return len(self._group)


def resolve(
    sources: Sequence[Overrides], paths: Sequence[str], arrays: Sequence[Array]
) -> list[dict[str, Any]]:
    """Return the settings that each array has of its own: of several sources, the later ones win."""
    resolved = []
    for path, array in zip(paths, arrays, strict=True):
        own: dict[str, Any] = {}
        for source in sources:
            own.update(source.own_of(path, array))
        if own.pop("frozen", False):
            own = {"frozen": True}  # nothing else matters
        resolved.append(own)
    return resolved


def lay_over(group: ParamGroup, own: Sequence[Mapping[str, Any]]) -> list[Settings]:
    """Return the settings that hold for each array. Arrays whose own settings are equal share them."""
    made: list[tuple[Mapping[str, Any], Settings]] = [({}, group), ({"frozen": True}, group)]
    found = []
    for each in own:
        settings = next((settings for known, settings in made if known == each), None)
        if settings is None:
            settings = Overlay(group, each)
            made.append((each, settings))
        found.append(settings)
    return found


def _entries(
    overrides: Any, place: str, defaults: Mapping[str, Any]
) -> list[tuple[str, list[str | Predicate], dict[str, Any]]]:
    if not isinstance(overrides, Mapping):
        raise TypeError(
            f"{place} must be a dict of dicts: of hyperparameters, by patterns of names or functions "
            f"(name, array) -> bool; got {overrides!r}"
        )
    places = [f"{place}[{_spelled(matcher)}]" for matcher in overrides]
    return [
        (where, _parts(matcher, where), _checked(settings, where, defaults))
        for where, (matcher, settings) in zip(places, overrides.items(), strict=True)
    ]


def _parts(matcher: Any, place: str) -> list[str | Predicate]:
    """Return a matcher's patterns and functions."""
    if isinstance(matcher, str) or callable(matcher):
        return [matcher]
    if not isinstance(matcher, list | tuple):
        raise TypeError(
            f"{place} must be a pattern of names, such as 'head.*' or '*', a function (name, array) -> bool, "
            f"or a list of those; got {matcher!r}"
        )
    return [part for each in matcher for part in _parts(each, place)]


def _spelled(matcher: Any) -> str:
    """Return a matcher as errors shall name it."""
    if isinstance(matcher, tuple):
        return f"({', '.join(map(_spelled, matcher))})"
    return repr(matcher) if isinstance(matcher, str) else getattr(matcher, "__name__", repr(matcher))


def _checked(settings: Any, place: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry's settings in plain numbers."""
    if not isinstance(settings, Mapping):
        raise TypeError(f"{place} must be a dict of hyperparameters, lr_scale or frozen; got {settings!r}")
    kinds = {**defaults, **_MORE}
    if "lr" not in defaults:
        del kinds["lr_scale"]
    checked = {}
    for name, value in settings.items():
        if name not in kinds:
            raise ValueError(f"unknown hyperparameter {name!r} in {place}; known are {', '.join(kinds)}")
        try:
            checked[name] = check_value(name, value, kinds[name])
        except (TypeError, ValueError) as error:
            raise type(error)(f"{place}: {error}") from None
    return checked


def _fits(matcher: str | Predicate, path: str, array: Array, place: str) -> bool:
    if isinstance(matcher, str):
        return fnmatchcase(path, matcher)
    answer = matcher(path, array)
    if not isinstance(answer, bool | np.bool_):
        raise TypeError(
            f"{place}: a function that chooses arrays must return True or False; for {path!r} "
            f"{_spelled(matcher)} returned {answer!r}"
        )
    return bool(answer)


def _list(paths: Sequence[str]) -> str:
    """Return the names that there are, for an error's text."""
    names = [repr(path) for path in dict.fromkeys(paths)]
    if not names:
        return "there are no arrays"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"the names are {', '.join(names[:_LISTED])}{more}"
