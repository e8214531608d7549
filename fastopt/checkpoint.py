"""What an optimizer needs to go on elsewhere: collected from its groups, and fitted to others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.device import DeviceArray
from fastopt.engine.storage import FORMATS, stored_size
from fastopt.formats import plain_bits
from fastopt.group import Group
from fastopt.hyperparameters import CHOICES, check_value
from fastopt.tree import describe

VERSION = 2

#: Shape and dtype of each state that a leaf has, by name.
Layout = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]

#: What a part, which is of one group, has lists of, with an item a leaf. The first three say what fits.
_COLUMNS = ("names", "shapes", "dtypes", "steps", "own_schedules")
_KEYS = ("hyperparameters", "schedules", "state", *_COLUMNS)


def collect(
    algorithm: str, step_count: int, groups: Sequence[Group], options: Mapping[str, Any], params: bool
) -> dict[str, Any]:
    """Return a state dict: plain numbers, and copies of the arrays."""
    return {
        "version": VERSION,
        "algorithm": algorithm,
        "step_count": step_count,
        "param_groups": [_collect_group(group, params) for group in groups],
        "options": options,
    }


def _collect_group(group: Group, params: bool) -> dict[str, Any]:
    hyperparameters = {name: value for name, value in group.mapping.items() if name != "params"}
    part: dict[str, Any] = {
        "hyperparameters": {name: value for name, value in hyperparameters.items() if not callable(value)},
        "schedules": _memories(hyperparameters),
        "names": list(group.tree.names),
        "shapes": [leaf.shape for leaf in group.leaves],
        "dtypes": [leaf.array.dtype.name for leaf in group.leaves],
        "steps": [leaf.step for leaf in group.leaves],
        "own_schedules": [_memories(own) for own in group.own],
        "state": {
            name: [leaf.saved(name) if name in leaf.state_names else None for leaf in group.leaves]
            for name in group.state_names
        },
    }
    if params:
        part["params"] = [leaf.saved_params() for leaf in group.leaves]
    return part


def _remembers(value: Any) -> TypeGuard[Any]:
    """Tell whether a hyperparameter is a schedule that may have state of its own."""
    return callable(value) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _memories(hyperparameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the state of the schedules that have some."""
    states = {name: value.state_dict() for name, value in hyperparameters.items() if _remembers(value)}
    return {name: copy.deepcopy(dict(state)) for name, state in states.items() if state}


def fit(saved: Mapping[str, Any], algorithm: str, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return the parts of a state dict in the order of an optimizer's groups, and of the leaves in each.

    Each is under the name that errors shall give it.

    Groups that have been reordered are known by the names of their parameters, and so are parameters within
    their group. A parameter does not move to another group: other hyperparameters hold there.

    Raises
    ------
    ValueError
        If they are not of the same parameters; the message says in what they differ.
    """
    expect_keys(saved, ("version",), "state_dict")
    _expect(saved["version"], VERSION, "version")
    expect_keys(saved, ("algorithm", "step_count", "param_groups", "options"), "state_dict")
    _expect(saved["algorithm"], algorithm, "algorithm")
    _expect_count(saved["step_count"], "step_count")
    parts = saved["param_groups"]
    _expect_kind(parts, list, "param_groups")
    _expect(len(parts), len(groups), "number of parameter groups")
    for i, part in enumerate(parts):
        expect_keys(part, _KEYS, f"param_groups[{i}]")
        for key in _KEYS:
            kind = Mapping if key in ("hyperparameters", "schedules", "state") else list
            _expect_kind(part[key], kind, f"param_groups[{i}][{key!r}]")
    numbers = _group_order([part["names"] for part in parts], [group.tree.names for group in groups])
    fitted = {}
    for group, number in zip(groups, numbers, strict=True):
        part, place = parts[number], f"param_groups[{number}]"
        for key, column in _columns(part).items():
            _expect_kind(column, list, f"{place}{key}")
            _expect(len(column), len(group.leaves), f"{place}{key}: number of items")
        part = _reordered(part, group.tree.names)
        for i, leaf in enumerate(group.leaves):
            _expect(part["shapes"][i], leaf.shape, f"{place}: shape of {leaf.place}")
            _expect(part["dtypes"][i], leaf.array.dtype.name, f"{place}: dtype of {leaf.place}")
            _expect_count(part["steps"][i], f"{place}: number of steps of {leaf.place}")
            _expect_kind(part["own_schedules"][i], Mapping, f"{place}['own_schedules'] of {leaf.place}")
        fitted[place] = part
    return fitted


def _group_order(saved: list[list[str]], own: Sequence[list[str]]) -> list[int]:
    """Return which saved group is the one of each of an optimizer's."""
    had, wanted = ([tuple(sorted(map(str, names))) for names in each] for each in (saved, own))
    if had == wanted:
        return list(range(len(own)))
    if sorted(had) == sorted(wanted) and len(set(had)) == len(had):
        return [had.index(names) for names in wanted]
    for i, (there, here) in enumerate(zip(had, wanted, strict=True)):
        missing, unknown = (sorted(set(a) - set(b)) for a, b in ((here, there), (there, here)))
        found = [f"only the optimizer has {_listed(missing)}"] if missing else []
        found += [f"only the state_dict has {_listed(unknown)}"] if unknown else []
        elsewhere = [j for j, names in enumerate(had) if missing and set(missing) <= set(names)]
        if elsewhere:
            found.append(f"param_groups[{elsewhere[0]}] of the state_dict has what is missing")
        if found:
            differing = "; ".join(found)
            raise ValueError(f"state_dict does not fit: parameters of param_groups[{i}] differ: {differing}")
    raise ValueError("state_dict does not fit: the groups are in another order, and two have the same names")


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(f"params{name}" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _columns(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return all lists of a part that have an item a leaf, by their place in it."""
    columns = {f"[{key!r}]": part[key] for key in (*_COLUMNS, "params") if key in part}
    return columns | {f"['state'][{name!r}]": column for name, column in part["state"].items()}


def order_of(part: Mapping[str, Any], names: Sequence[str]) -> list[int] | None:
    """Return where in a part each of the named leaves is, or None if they are in its order."""
    if part["names"] == list(names):
        return None
    if len(set(names)) < len(names):
        raise ValueError("state_dict does not fit: parameters in another order need names that differ")
    places = {name: i for i, name in enumerate(part["names"])}
    return [places[name] for name in names]


def _reordered(part: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    order = order_of(part, names)
    if order is None:
        return dict(part)
    moved = {key: [part[key][i] for i in order] for key in (*_COLUMNS, "params") if key in part}
    state = {name: [column[i] for i in order] for name, column in part["state"].items()}
    return {**part, **moved, "state": state}


def loadable(group: Group, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved hyperparameters that a group takes over: those for which it has no schedule.

    Raises
    ------
    ValueError
        If one is unknown, or its value is not allowed.
    """
    defaults = group.mapping.defaults
    for name in part["hyperparameters"]:
        if name not in defaults:
            raise ValueError(f"state_dict does not fit: unknown hyperparameter {name!r}")
    values = part["hyperparameters"]
    return {
        name: check_value(name, value, defaults[name])
        for name, value in values.items()
        if not callable(group.mapping[name]) and name not in CHOICES  # how it stores is this optimizer's
    }


def check(group: Group, part: Mapping[str, Any], layouts: Sequence[Layout], place: str) -> None:
    """Raise a ValueError that says in what a part does not fit the state and the schedules of its group."""
    for _, name, schedule in _schedules(group, part):
        if not _remembers(schedule):
            raise ValueError(
                f"state_dict does not fit: {place} has the state of a schedule for {name}, which must be a "
                f"schedule with load_state_dict() here too; got {schedule!r}"
            )
    names = {name for layout in layouts for name in layout}
    _expect(sorted(part["state"]), sorted(names), f"{place}: names of the state")
    for name, arrays in part["state"].items():
        for leaf, layout, array in zip(group.leaves, layouts, arrays, strict=True):
            what = f"{place}['state'][{name!r}] of {leaf.place}"
            if isinstance(array, Mapping):
                _expect_stored(array, layout.get(name), what)
            else:
                _expect_array(array, layout.get(name), what)
    for leaf, array in zip(group.leaves, part.get("params", group.arrays), strict=True):
        what = f"{place}['params'] of {leaf.place}"
        if isinstance(array, Mapping):
            _expect(array.get("format"), leaf.array.dtype.name, f"{what}: format")
            _expect_stored(array, (leaf.shape, leaf.dtype), what)
            array = array["stored"].reshape(leaf.shape)
        else:
            _expect_array(array, (leaf.shape, leaf.array.dtype), what)
        same = leaf.array.flags.writeable or np.array_equal(
            plain_bits(leaf.array), plain_bits(array), equal_nan=array.dtype.kind == "f"
        )
        if not same:
            raise ValueError(f"state_dict does not fit: {what} differs, and {leaf.place} is read-only")


def load_schedules(groups: Sequence[Group], parts: Sequence[Mapping[str, Any]]) -> None:
    """Give schedules the state that they had; if one of them refuses it, none has changed."""
    undo: list[Callable[[], None]] = []
    try:
        for group, part in zip(groups, parts, strict=True):
            for state, _, schedule in _schedules(group, part):
                undo.append(partial(schedule.load_state_dict, copy.deepcopy(schedule.state_dict())))
                schedule.load_state_dict(copy.deepcopy(state))
    except BaseException:
        for back in reversed(undo):
            back()
        raise


def _schedules(group: Group, part: Mapping[str, Any]) -> list[tuple[Any, str, Any]]:
    """Return the saved state of each schedule, its name, and what a group has in its place."""
    found = [(state, name, group.mapping.get(name)) for name, state in part["schedules"].items()]
    for own, states, leaf in zip(group.own, part["own_schedules"], group.leaves, strict=True):
        found += [(state, f"{name} of {leaf.place}", own.get(name)) for name, state in states.items()]
    return found


def elements(part: Mapping[str, Any], names: Sequence[str]) -> NDArray[np.intp] | slice:
    """Return where, in a vector of all parameters of a part, those of the named leaves are, in turn."""
    order = order_of(part, names)
    if order is None:
        return slice(None)
    sizes = [int(np.prod(shape, dtype=np.intp)) for shape in part["shapes"]]
    ends = np.cumsum(sizes, dtype=np.intp)
    return np.concatenate([np.arange(ends[i] - sizes[i], ends[i]) for i in order])


def expect_keys(mapping: Any, keys: Collection[str], what: str) -> None:
    """Raise a ValueError if a part of a state dict, as which errors name it, lacks one of its keys."""
    for key in keys:
        if not isinstance(mapping, Mapping) or key not in mapping:
            raise ValueError(f"state_dict must be what state_dict() returned; {what} has no {key!r}")


def _expect(got: Any, expected: Any, what: str) -> None:
    if got != expected:
        raise ValueError(f"state_dict does not fit: {what} must be {expected}, got {got}")


def _expect_kind(got: Any, kind: type, what: str) -> None:
    if not isinstance(got, kind):
        raise ValueError(f"state_dict must be what state_dict() returned; {what} is {describe(got)}")


def _expect_count(got: Any, what: str) -> None:
    if isinstance(got, bool) or not isinstance(got, int | np.integer) or got < 0:
        raise ValueError(f"state_dict does not fit: {what} must be a whole number >= 0, got {got!r}")


def _expect_stored(
    got: Mapping[str, Any], layout: tuple[tuple[int, ...], np.dtype[Any]] | None, what: str
) -> None:
    expect_keys(got, ("format", "order", "stored"), what)
    form = FORMATS.get(got["format"])
    if form is None:
        raise ValueError(
            f"state_dict does not fit: {what}: format must be one of {', '.join(FORMATS)}, "
            f"got {got['format']!r}"
        )
    if got["order"] not in ("C", "F"):
        raise ValueError(f"state_dict does not fit: {what}: order must be 'C' or 'F', got {got['order']!r}")
    if layout is None:
        raise ValueError(f"state_dict does not fit: {what} must be None, got {describe(got)}")
    size = stored_size(form, int(np.prod(layout[0], dtype=np.intp)))
    _expect_array(got["stored"], ((size,), form.dtype), f"{what}: stored")


def _expect_array(got: Any, layout: tuple[tuple[int, ...], np.dtype[Any]] | None, what: str) -> None:
    if layout is None or not isinstance(got, np.ndarray | np.generic | DeviceArray):
        if layout is not None or got is not None:
            wanted = "None" if layout is None else "an array"
            raise ValueError(f"state_dict does not fit: {what} must be {wanted}, got {describe(got)}")
        return
    _expect(got.shape, layout[0], f"{what}: shape")
    _expect(got.dtype, layout[1], f"{what}: dtype")
