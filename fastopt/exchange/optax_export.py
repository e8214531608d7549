"""State of fastopt's optimizers, for optax."""

from __future__ import annotations

import importlib
import math
from typing import Any, TypeVar

import numpy as np

from fastopt.exchange.holdings import Part, groups_of, parts_of, peer_of, rule_of
from fastopt.exchange.optax_method import carried, check_injected, check_method, state_of
from fastopt.exchange.optax_state import Parameters, walk
from fastopt.exchange.peers import OPTAX, OPTAX_HYPERPARAMETERS, OptaxPeer
from fastopt.exchange.values import check_fits, plain
from fastopt.optimizer import Optimizer
from fastopt.tree import plural

_State = TypeVar("_State")


def to_optax(opt: Optimizer, like: _State) -> _State:
    """Return a state for an optax transformation that has the method of ``opt``.

    The run goes on there where it was here, to within rounding, with parameters that are copies of those of
    ``opt``.

    Parameters
    ----------
    opt : Optimizer
        Its arrays are copied.
    like : tuple, nested
        A state of the transformation, from its ``init``: the state of the method may be in a chain and
        in whatever :func:`from_optax` takes. It is not changed.

    Returns
    -------
    tuple, nested
        ``like``, with the arrays and the step counts of ``opt``. In ``optax.inject_hyperparams``, the
        hyperparameters are those of ``opt``, except schedules.

    Raises
    ------
    TypeError
        If the class of ``opt`` has no counterpart, or ``like`` is of another kind.
    ValueError
        If ``like`` is of another method, or does not fit the parameters, or ``opt`` does what optax
        cannot go on with: optax has one step count for all arrays of a state.

    See Also
    --------
    from_optax : The way back, with the methods that are the same.

    Notes
    -----
    State is exchanged bit for bit: :func:`from_optax` of the result is that of ``opt``.

    Examples
    --------
    >>> import collections, numpy as np, fastopt
    >>> from fastopt.exchange import to_optax
    >>> ScaleByLionState = collections.namedtuple("ScaleByLionState", "count mu")  # as optax has it
    >>> opt = fastopt.Lion({"w": np.zeros(2)})
    >>> opt.step({"w": np.array([100.0, -100.0])})
    >>> like = (ScaleByLionState(np.int32(0), {"w": np.zeros(2)}), ())
    >>> to_optax(opt, like)[0].mu["w"].round(6)
    array([ 1., -1.])
    """
    peer = peer_of(opt, OPTAX, "optax")
    writer = _Writer(opt, peer)
    made: _State = walk(like, "like", peer, writer)
    if not writer.placed:
        raise ValueError(f"like must hold a {peer.state}, which is what {type(opt).__name__} goes on as")
    writer.check_complete()
    return made


class _Writer:
    """Puts in arrays, counts and hyperparameters. See Visitor."""

    def __init__(self, opt: Optimizer, peer: OptaxPeer) -> None:
        self._opt, self._peer = opt, peer
        self._parameters = Parameters(opt)
        self._step_count, parts = parts_of(opt)
        self._parts: list[Part] = [part for found in parts for part in found]
        #: Where the state of each leaf is.
        self.placed: dict[int, str] = {}

    def method(self, node: Any, place: str) -> Any:
        steps: dict[int, str] = {}
        fields = {name: field for name, field in self._peer.fields.items() if hasattr(node, field)}
        columns = {
            name: self._parameters.columns(getattr(node, field), f"{place}.{field}")
            for name, field in fields.items()
        }
        for number, (leaf, part) in enumerate(zip(self._parameters.leaves, self._parts, strict=True)):
            given = {name: column[number] for name, column in columns.items()}
            if leaf.frozen or all(array is None for array in given.values()):
                continue
            self._check(number, node, place)
            for name, field in fields.items():
                check_fits(leaf, given[name], self._parameters.places(f"{place}.{field}")[number])
            self.placed[number] = place
            steps.setdefault(part.step, leaf.place)
        if len(steps) > 1:
            listed = ", ".join(f"{where} has had {plural(step, 'update')}" for step, where in steps.items())
            raise ValueError(f"{place} has one count of updates for all of its arrays, but {listed}")
        step = next(iter(steps), self._step_count)
        new = {
            field: _like(step, getattr(node, field)) for field in node._fields if field.startswith("count")
        }
        for name, field in fields.items():
            arrays = [
                _like(part.state[name], old) if number in self.placed and old is not None else old
                for number, (part, old) in enumerate(zip(self._parts, columns[name], strict=True))
            ]
            new[field] = self._parameters.replaced(getattr(node, field), arrays)
        return node._replace(**new)

    def _check(self, number: int, node: Any, place: str) -> None:
        """Raise a ValueError if a state is not that of a leaf's method, or there are two."""
        leaf, part = self._parameters.leaves[number], self._parts[number]
        rule = rule_of(self._opt, {}, leaf)
        wanted = state_of(self._peer, rule)
        if type(node).__name__ != wanted:
            raise ValueError(
                f"{place} must be a {wanted}, as {leaf.place} has it in opt; got a {type(node).__name__}"
            )
        if number in self.placed:
            raise ValueError(f"{leaf.place} has state in {self.placed[number]} and in {place}")
        check_method(self._opt, leaf.group, leaf, part.step)
        for name in rule.carry:
            value, expected = float(part.state[name]), carried(leaf.group, part.step)
            if not math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-29):
                raise ValueError(
                    f"{leaf.place}: {name} is {value!r}, and would be {expected!r} if beta1 and "
                    f"momentum_decay had always been what they are, which optax takes for granted"
                )

    def counter(self, node: Any, field: str, place: str) -> Any:
        return node._replace(**{field: _like(self._step_count, getattr(node, field))})

    def injected(self, node: Any, place: str) -> Any:
        inside = [number for number, at in self.placed.items() if at.startswith(f"{place}.")]
        groups = [
            groups_of(self._opt)[i].mapping for i in {self._parameters.groups[number] for number in inside}
        ]
        new = dict(node.hyperparams)
        for theirs in new.keys() - getattr(node, "hyperparams_states", {}).keys():
            name, at = OPTAX_HYPERPARAMETERS.get(theirs, ("", None))
            if name not in self._opt.defaults:
                continue
            values = [
                group[name] if at is None or callable(group[name]) else group[name][at] for group in groups
            ]
            if any(value != values[0] for value in values):
                raise ValueError(
                    f"{place}.hyperparams[{theirs!r}] is one for all parameters inside, got {name}="
                    f"{' and '.join(map(repr, values))} of the groups of opt"
                )
            if values and not callable(values[0]):
                new[theirs] = _like(values[0], new[theirs])
        given = {name: plain(value, f"{place}.hyperparams[{name!r}]") for name, value in new.items()}
        for number in inside:
            leaf = self._parameters.leaves[number]
            check_injected(self._opt, self._peer, leaf, given, f"{place}.hyperparams")
        return node._replace(hyperparams=new, count=_like(self._step_count, node.count))

    def check_complete(self) -> None:
        """Raise a ValueError if there is no place for the state of a leaf that has been updated."""
        for number, (leaf, part) in enumerate(zip(self._parameters.leaves, self._parts, strict=True)):
            if part.step and not leaf.frozen and number not in self.placed:
                raise ValueError(
                    f"like has no state for {leaf.place}, which has had {plural(part.step, 'update')}"
                )


def _like(value: Any, old: Any) -> Any:
    """Return an array or a number as one of the library and the dtype of another."""
    if not hasattr(old, "dtype"):
        return value
    made = np.asarray(value, old.dtype)
    if isinstance(old, np.ndarray):
        return made
    if isinstance(old, np.generic):
        return made[()]
    return importlib.import_module("jax.numpy").asarray(made)
