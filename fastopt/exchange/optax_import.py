"""States of optax, for fastopt's optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.exchange.holdings import Part, fresh, groups_of, merged, peer_of, rule_of
from fastopt.exchange.optax_method import carried, check_injected, check_method, state_of
from fastopt.exchange.optax_state import Parameters, walk
from fastopt.exchange.peers import OPTAX, OPTAX_HYPERPARAMETERS, OptaxPeer
from fastopt.exchange.values import array_for, count, plain
from fastopt.leaf import Array, Leaf
from fastopt.optimizer import Optimizer


def from_optax(state: Any, opt: Optimizer) -> dict[str, Any]:
    r"""Return a state dict for an optimizer, from the state of an optax transformation.

    ``opt.load_state_dict(from_optax(state, opt))``, and the run goes on where optax's was, to within
    rounding. optax keeps no hyperparameters in its state: ``opt`` must have been made with the same. Only
    what ``optax.inject_hyperparams`` keeps is taken over, except schedules, and where ``opt`` has some.

    Parameters
    ----------
    state : tuple, nested
        What ``init`` or ``update`` returned. The state of the method may be in a chain, with clipping,
        weight decay and schedules beside it, and in ``masked``, ``partition``, ``apply_if_finite``,
        ``inject_hyperparams`` and ``MultiSteps``. Arrays may be jax's or NumPy's, and are copied.
    opt : Optimizer
        Of parameters in the structure of optax's; with groups, those are a list of one tree a group. The keys
        of dicts may be in any order.

    Returns
    -------
    dict
        For ``opt.load_state_dict``. Arrays that are masked everywhere have not been updated yet: give no
        gradients for them. State that optax does not have, such as averages of the parameters, is that of
        ``opt``.

    Raises
    ------
    TypeError
        If the class of ``opt`` has no counterpart, or something is of another kind.
    ValueError
        If the state is of another method, or does not fit ``opt``, or there is a transformation in the chain
        that fastopt has nothing for; the message says where.

    See Also
    --------
    to_optax : The way back.

    Notes
    -----
    The same methods are, with ``eps_root=0`` in optax where nothing else is said:

    ================  ==================================================================
    ``Adam``          ``adam``, and ``amsgrad`` with ``amsgrad=True``. Weight decay:
                      ``add_decayed_weights`` before it in the chain
    ``AdamW``         ``adamw``
    ``NAdam``         ``nadam`` with ``momentum_decay=1e6``; ``nadamw`` with
                      ``decoupled_weight_decay=True`` too
    ``RAdam``         ``radam`` with ``eps=0``, or with a schedule of ``eps``
    ``Adamax``        ``adamax``
    ``AdaBelief``     ``adabelief`` with ``eps_root=eps``
    ``Yogi``          ``yogi``
    ``Lion``          ``lion``
    ``LAMB``          ``lamb``
    ``ADOPT``         ``contrib.adopt``
    ``AdEMAMix``      ``contrib.ademamix``
    ================  ==================================================================

    optax's AMSGrad takes the maximum after the bias correction, and its RAdam adds ``eps`` after it. Once
    :math:`\beta_2^t` is below the dtype's eps there is nothing to correct, and they agree with those here;
    before that, AMSGrad is refused. RAdam agrees with ``eps=lambda count: eps * math.sqrt(1 - beta2 **
    (count + 1))`` from the first step on.

    Examples
    --------
    >>> import collections, numpy as np, fastopt
    >>> from fastopt.exchange import from_optax
    >>> ScaleByLionState = collections.namedtuple("ScaleByLionState", "count mu")  # as optax has it
    >>> state = (ScaleByLionState(np.int32(7), {"w": np.array([1.0, -1.0])}), ())
    >>> opt = fastopt.Lion({"w": np.zeros(2)}, lr=0.5)
    >>> opt.load_state_dict(from_optax(state, opt))
    >>> opt
    <Lion(lr=0.5, betas=(0.9, 0.99), weight_decay=0.0: 2 parameters in 1 array), 7 steps taken>
    """
    peer = peer_of(opt, OPTAX, "optax")
    reader = _Reader(opt, peer)
    walk(state, "state", peer, reader)
    if not reader.found:
        raise ValueError(f"state must hold a {peer.state}, which is what {type(opt).__name__} goes on from")
    parts = reader.parts()
    steps = {part.step for found in parts for part in found}
    counts = reader.counts or {max(steps, default=0)}
    if len(counts) > 1:
        raise ValueError(f"the schedules of state must be at one step, got {sorted(counts)}")
    return merged(opt, reader.hyperparameters, parts, counts.pop())


class _Reader:
    """Finds the arrays, the schedules' counts and the hyperparameters. See Visitor."""

    def __init__(self, opt: Optimizer, peer: OptaxPeer) -> None:
        self._opt, self._peer = opt, peer
        self._parameters = Parameters(opt)
        self._taken: dict[tuple[int, str], Any] = {}
        #: For each leaf: the state that it is in, where that is, and its arrays by optax's names.
        self.found: dict[int, tuple[Any, str, dict[str, Any]]] = {}
        self.counts: set[int] = set()
        self.hyperparameters: list[dict[str, Any]] = [{} for _ in groups_of(opt)]

    def method(self, node: Any, place: str) -> Any:
        fields = [field for field in self._peer.fields.values() if hasattr(node, field)]
        columns = {
            field: self._parameters.columns(getattr(node, field), f"{place}.{field}") for field in fields
        }
        for number, leaf in enumerate(self._parameters.leaves):
            given = {field: column[number] for field, column in columns.items()}
            if all(array is None for array in given.values()):
                continue
            if number in self.found:
                raise ValueError(f"{leaf.place} has state in {self.found[number][1]} and in {place}")
            self.found[number] = node, place, given
        return node

    def counter(self, node: Any, field: str, place: str) -> Any:
        if field == "count":  # not the updates of MultiSteps, of which some may have been left out
            self.counts.add(count(node.count, f"{place}.count"))
        return node

    def injected(self, node: Any, place: str) -> Any:
        where = f"{place}.hyperparams"
        given = {name: plain(value, f"{where}[{name!r}]") for name, value in node.hyperparams.items()}
        scheduled = getattr(node, "hyperparams_states", {})
        inside = [number for number, (_, at, _) in self.found.items() if at.startswith(f"{place}.")]
        for number in inside:
            check_injected(self._opt, self._peer, self._parameters.leaves[number], given, where)
        for i in {self._parameters.groups[number] for number in inside}:
            for name in given.keys() - scheduled.keys():
                self._take(i, name, given[name], where)
        return node

    def _take(self, i: int, theirs: str, value: Any, where: str) -> None:
        """Take over a hyperparameter of a group, unless it is a schedule there."""
        name, at = OPTAX_HYPERPARAMETERS.get(theirs, ("", None))
        own = groups_of(self._opt)[i].mapping
        if name not in self._opt.defaults or callable(own[name]):
            return
        before = self._taken.setdefault((i, theirs), value)
        if before != value:
            raise ValueError(
                f"{where}[{theirs!r}] must be the same for all parameters of a group of opt, "
                f"got {before!r} and {value!r}"
            )
        if at is not None:
            numbers = list(self.hyperparameters[i].get(name, own[name]))
            numbers[at] = value
            value = tuple(numbers)
        self.hyperparameters[i][name] = value

    def parts(self) -> list[list[Part]]:
        """Return what was found as the state of each leaf of each group."""
        made: list[list[Part]] = [[] for _ in groups_of(self._opt)]
        for number, (leaf, i) in enumerate(
            zip(self._parameters.leaves, self._parameters.groups, strict=True)
        ):
            values = self.hyperparameters[i]
            if leaf.frozen or number not in self.found:
                made[i].append(fresh(self._opt, values, leaf))
            else:
                made[i].append(self._part(number, leaf, values))
        return made

    def _part(self, number: int, leaf: Leaf, values: Mapping[str, Any]) -> Part:
        node, place, given = self.found[number]
        rule, all_values = rule_of(self._opt, values, leaf), leaf.group.with_values(values)
        wanted = state_of(self._peer, rule)
        if type(node).__name__ != wanted:
            raise ValueError(
                f"{place} must be a {wanted}, as {leaf.place} has it in opt; got a {type(node).__name__}"
            )
        steps = {
            field: count(getattr(node, field), f"{place}.{field}")
            for field in node._fields
            if field.startswith("count")
        }
        if len(set(steps.values())) > 1:
            raise ValueError(f"the counts of {place} must be equal, got {steps}")
        step = steps["count"]
        check_method(self._opt, all_values, leaf, step)
        found: dict[str, Array] = {}
        for name in rule.state:
            field = self._peer.fields[name]
            found[name] = array_for(leaf, given[field], self._parameters.places(f"{place}.{field}")[number])
        for name in rule.carry:
            found[name] = np.array(carried(all_values, step), np.float64)
        return Part(step, found)
