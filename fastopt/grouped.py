"""The parameter groups of an optimizer: how they are made, added to, and changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastopt.algorithm import Algorithm
from fastopt.arrangement import Arrangement
from fastopt.background import Turn
from fastopt.engine import MatrixRule, Rule, available_threads
from fastopt.engine.device import HERE, is_foreign, on_stream, require, stream_of
from fastopt.formats import PLAIN, REST, RESTS, Form, check_formats, check_half, is_half, state_formats
from fastopt.gradients import GivenGradients
from fastopt.group import Group
from fastopt.hyperparameters import ParamGroup
from fastopt.leaf import Leaf, numbered
from fastopt.options import StepOptions
from fastopt.overrides import OPTIONS, Overrides, resolve
from fastopt.packing import check_no_overlap, check_one_place
from fastopt.tree import describe, leaves_in, plural


class Grouped(Algorithm):
    """An optimizer's parameters, in groups."""

    def _begin(self, defaults: dict[str, Any], options: StepOptions, sole: bool) -> None:
        self._chosen_defaults, self._options, self._sole = defaults, options, sole
        self._groups: list[Group] = []
        self._any_frozen = False
        self._on_device = False
        self._overrides = Overrides(vars(options), "", type(self).__name__, self._known_defaults())
        # How many steps schedules are told of, and how many of those were left out after all: where only a
        # device knows which, the host counts on.
        self._count = self._skipped = 0
        self._arrangement: Arrangement | None = None
        self._given: GivenGradients | None = None
        self._turn = Turn()

    @property
    def max_threads(self) -> int:
        """The most threads that a step uses."""
        return available_threads() if self._options.threads is None else self._options.threads

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
            "params", and those hyperparameters that differ from the optimizer's. "no_decay", "frozen" and
            "overrides" are for the arrays of this group, and count after those of the optimizer, which hold
            for it too.

        Raises
        ------
        TypeError, ValueError
            As at construction, and if an array is in a group already. Nothing is added then.
        """
        if not is_group(group):
            raise TypeError(f"a parameter group must be a dict with a key 'params', got {group!r}")
        self._add(group)
        self._sole = False

    def _add_all(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Add the groups that the optimizer is made with."""
        for group in groups:
            self._add(group)
        self._overrides.check_matched([path for group in self._groups for path in group.tree.paths])

    def _add(self, group: Mapping[str, Any]) -> None:
        place, known = f"params[{len(self._groups)}]", self._known_defaults()
        overrides = Overrides(group, place, type(self).__name__, known)
        values = {key: value for key, value in group.items() if key != "params" and key not in OPTIONS}
        added = self._new(group["params"], values)
        own = resolve((self._overrides, overrides), added.tree.paths, added.arrays)
        overrides.check_matched(added.tree.paths)
        self._join(added, own)

    def _new(self, params: Any, values: Mapping[str, Any]) -> Group:
        name = "params" if self._sole and not self._groups else f"params[{len(self._groups)}]['params']"
        mapping = ParamGroup(params, {**self._chosen_defaults, **values}, self._known_defaults())
        mapping.turn = self._turn
        return Group(mapping, name)

    def _join(self, added: Group, own: Sequence[Mapping[str, Any]]) -> None:
        """Add a group, with what overrides set for each of its arrays."""
        added.make_leaves(own)
        self._check_halves(added)
        leaves = [leaf for group in (*self._groups, added) for leaf in group.leaves]
        check_one_place([leaf.array for leaf in leaves], [leaf.place for leaf in leaves])
        on_device = any(leaf.on_device for leaf in leaves)
        if on_device and (self.rows_only or not self.takes_device):
            raise TypeError(f"{type(self).__name__} cannot update {leaves[0].place}, which is {HERE}")
        if on_device:
            require()
        check_no_overlap([leaf.array for leaf in leaves], [leaf.place for leaf in leaves])
        end = 0
        for leaf in leaves:
            leaf.origin, end = end, end + leaf.flat.size
        self._take_note(added)
        self._groups.append(added)
        self._on_device = on_device
        self._any_frozen |= len(added.trained) < len(added.leaves)

    def _check_halves(self, added: Group) -> None:
        """Raise a TypeError if an array of half precision is in a group where it cannot be."""
        steps = self._options.accumulate
        for leaf in added.trained:
            in_pack = [] if leaf.grad is None else [leaf.grad.dtype]
            for dtype in filter(is_half, (leaf.array.dtype, *in_pack)):
                if not self.takes_halves:
                    name = type(self).__name__
                    raise TypeError(
                        f"{leaf.place} and its gradient must be of float32 or float64 for {name}, got {dtype}"
                    )
            if steps > 1 and any(map(is_half, in_pack)):
                raise TypeError(
                    f"the gradients of a pack must be of float32 for accumulate={steps}, which adds up in "
                    f"them; got {in_pack[0]}"
                )

    def _leaves(self) -> list[Leaf]:
        """Return the leaves that are updated: all but those that are frozen."""
        return [leaf for group in self._groups for leaf in group.trained]

    def _all_leaves(self) -> list[Leaf]:
        """Return all leaves, the frozen ones too."""
        return [leaf for group in self._groups for leaf in group.leaves]

    def _leaves_of(self, trees: Any, name: str) -> list[Any]:
        """Return what is given for each leaf that is updated, such as its gradient.

        Raises
        ------
        TypeError, ValueError
            If the structure differs from the parameters'; the message starts at ``name``.
        """
        if self._sole:
            given = self._groups[0].tree.leaves(trees, name)
        elif isinstance(trees, list | tuple) and len(trees) == len(self._groups):
            given = []
            for i, (group, tree) in enumerate(zip(self._groups, trees, strict=True)):
                given += group.tree.leaves(tree, f"{name}[{i}]")
        else:
            raise TypeError(
                f"{name} must be a list of {len(self._groups)} trees, one a parameter group; "
                f"got {describe(trees)}"
            )
        if not self._any_frozen:
            return given
        leaves = self._all_leaves()
        return [each for each, leaf in zip(given, leaves, strict=True) if not leaf.frozen]

    def _places(self, name: str) -> list[str]:
        """Return where what is given for each leaf that is updated is, as errors shall name it."""
        return [
            f"{name}{way}" if self._sole else f"{name}[{i}]{way}"
            for i, group in enumerate(self._groups)
            for way, leaf in zip(group.tree.names, group.leaves, strict=True)
            if not leaf.frozen
        ]

    def _params(self) -> Any:
        """Return what the optimizer was given to update; with groups, a list."""
        given = [group.mapping["params"] for group in self._groups]
        return given[0] if self._sole else given

    def _stream(self, grads: Any = None) -> int:
        """Return the stream on which the user works with gradients, or else with the parameters."""
        params = itertools.chain.from_iterable(group.given for group in self._groups)
        # One of each tells: to ask a thousand arrays would take longer than the step.
        asked = [next(filter(is_foreign, arrays), None) for arrays in (leaves_in(grads), params)]
        return stream_of(asked)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Do what is done on a device on the stream on which the user works with the parameters."""
        if self._on_device:
            with on_stream(self._stream()):
                yield
        else:
            yield

    def _rearrange(self) -> None:
        """Have the next step arrange the leaves anew."""
        self._settle()
        self._arrangement = self._given = None

    def _settle(self) -> None:
        self._turn.wait()
        if self._arrangement is not None:
            with self._on_stream():
                self._arrangement.settle()

    def _take_notes(self) -> None:
        """Act on changed hyperparameters of any group."""
        for group in self._groups:
            if group.mapping.changed:
                self._take_note(group)

    def _take_note(self, group: Group) -> None:
        """Act on changed hyperparameters: they may ask for other rules."""
        settings, numbers = numbered(group.trained)
        kinds = [(number, leaf.shape) for number, leaf in zip(numbers, group.trained, strict=True)]
        rule_of = {kind: self._rule_of(settings[kind[0]], kind[1]) for kind in dict.fromkeys(kinds)}
        rules = [rule_of[kind] for kind in kinds]
        copies = dict.fromkeys(("ema", "slow", REST["master"][0]), "params")
        starts = [{**self.initial_state(each), **copies} for each in settings]
        fills = [starts[number] for number in numbers]
        forms = [
            self._form_of(leaf, rule, fill)
            for leaf, rule, fill in zip(group.trained, rules, fills, strict=True)
        ]
        group.mapping.changed = False
        present = [(getattr(leaf, "rule", None), (leaf.formats, leaf.rest)) for leaf in group.trained]
        if list(zip(rules, forms, strict=True)) != present:
            self._rearrange()
            group.adopt(rules, forms, fills)

    def _form_of(self, leaf: Leaf, rule: Rule | MatrixRule, fill: Mapping[str, float | str]) -> Form:
        """Return how all of a leaf is to be stored, or raise an error that names it."""
        rest, name = None, type(self).__name__
        if leaf.on_device and isinstance(rule, MatrixRule):
            raise TypeError(f"{name} updates {leaf.place} as a whole, in NumPy: it cannot be {HERE}")
        if leaf.half is not None or (leaf.grad is not None and is_half(leaf.grad.dtype)):
            check_half(rule, leaf.group, leaf.array, leaf.place, name)
            rest = RESTS[leaf.group["master_weights"]] if leaf.half is not None else None
        if leaf.group["state_dtype"] is None:
            return PLAIN if rest is None else ({}, rest)
        check_formats(rule, fill, leaf.group, leaf.dtype, leaf.place, name, self.rows_only)
        return state_formats(rule, fill, leaf.group, leaf.array.size), rest

    def __repr__(self) -> str:
        lines = []
        for group in self._groups:
            values = ", ".join(
                f"{k}={v!r}"
                for k, v in group.mapping.items()
                if k != "params" and (k in self.defaults or v != group.mapping.defaults[k])
            )
            size = sum(leaf.array.size for leaf in group.leaves)
            lines.append(f"{values}: {plural(size, 'parameter')} in {plural(len(group.leaves), 'array')}")
            counts = {
                "frozen": len(group.leaves) - len(group.trained),
                "with overrides": sum(map(bool, group.own)) - len(group.leaves) + len(group.trained),
            }
            special = ", ".join(f"{number} {kind}" for kind, number in counts.items() if number)
            lines[-1] += f" ({special})" if special else ""
        inside = lines[0] if len(lines) == 1 else "".join(f"\n    {line}" for line in lines) + "\n"
        return f"<{type(self).__name__}({inside}), {plural(self._count - self._skipped, 'step')} taken>"


def is_group(item: Any) -> bool:
    """Tell whether ``item`` describes a parameter group."""
    return isinstance(item, Mapping) and "params" in item
