"""What every algorithm shares: groups, hyperparameters, the step, state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastopt.arrangement import Arrangement
from fastopt.engine import available_threads
from fastopt.gradients import GivenGradients
from fastopt.grouped import is_group
from fastopt.hyperparameters import check_value
from fastopt.options import Options, StepOptions
from fastopt.packing import Pack
from fastopt.stateful import Stateful
from fastopt.tree import describe, plural

__all__ = ["Optimizer", "Options"]


class Optimizer(Stateful):
    r"""Updates parameters in place. The base of all algorithms, and of a user's own.

    A subclass states its rule and its defaults; see the example.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update, always in place. A tree is a dict, list or tuple of float32 or float64 arrays,
        nested. A list of dicts with a key "params" makes groups, each with hyperparameters of its own.
    threads : int, optional
        The most threads that a step may use. By default all CPUs that the process may use
        (``FASTOPT_NUM_THREADS`` sets another number). Steps that fit into the cache use one.
        The result is the same, bit for bit, for any number.
    maximize : bool
        Ascend instead of descend.
    cautious : bool
        Leave out the steps of those elements whose step and gradient disagree in sign, and enlarge the
        others of their array by the share that is left, at most a thousandfold [1]_.
    cautious_weight_decay : bool
        Let the decoupled weight decay act only where step and decay have one sign [2]_.
    corrected_weight_decay : float or schedule
        The greatest learning rate of the schedule, :math:`\eta_{max}`: the weight decay is multiplied by
        :math:`\eta_t / \eta_{max}` (AdamC, for layers that are followed by a normalization) [3]_. 0 for none.
    ema_decay : float or schedule
        Keep an exponential average of the parameters in the state ``ema``: its share that is kept at each
        step. It starts with the parameters. 0 for none.
    lookahead_steps : int
        Lookahead [4]_: after so many steps of an array, its slow copy, the state ``slow``, moves towards the
        parameters, and they are set back to it. 0 for none.
    lookahead_alpha : float or schedule
        How far the slow copy moves, from 0 to 1.
    **hyperparameters
        Numbers, or schedules: functions of the number of steps already taken.

    Raises
    ------
    TypeError, ValueError
        If an array is not float32 or float64, is read-only, shares memory with another, or a
        hyperparameter is of another kind or out of range, or the algorithm cannot be modified as asked.
        The message names it.

    References
    ----------
    .. [1] Liang et al., Cautious Optimizers: Improving Training with One Line of Code, arXiv:2411.16085,
       2024.
    .. [2] Chen et al., Cautious Weight Decay, arXiv:2510.12402, 2025.
    .. [3] Defazio, Why Gradients Rapidly Increase Near the End of Training, arXiv:2506.02285, 2025.
    .. [4] Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, arXiv:1907.08610, 2019.

    Examples
    --------
    An optimizer of one's own. Numbers come in as arguments: a literal would be a double.

    >>> import math, numpy as np, fastopt
    >>> def signum(p, g, momentum_buffer, lr, momentum):
    ...     momentum_buffer = momentum * momentum_buffer + g
    ...     return p - math.copysign(lr, momentum_buffer), momentum_buffer
    >>> class Signum(fastopt.Optimizer):
    ...     rule = fastopt.Rule(signum, state=("momentum_buffer",))
    ...     defaults = {"lr": 1e-3, "momentum": 0.9}
    >>> w = np.ones(3, np.float32)
    >>> opt = Signum(w, lr=0.5)
    >>> opt.step(np.array([4, -1, 2], np.float32))
    >>> w
    array([0.5, 1.5, 0.5], dtype=float32)
    """

    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, params: Any, **options: Any) -> None:
        known = self._known_defaults()
        for name in options.keys() - known.keys() - StepOptions.names:
            raise TypeError(
                f"{type(self).__name__} has no hyperparameter {name!r}; it has {', '.join(known)}"
            )
        step_options = StepOptions(**{name: options.pop(name) for name in StepOptions.names & options.keys()})
        chosen = {
            name: check_value(name, options.get(name, default), default) for name, default in known.items()
        }
        several = isinstance(params, list | tuple) and len(params) > 0 and all(map(is_group, params))
        self._begin(chosen, step_options, sole=not several)
        for group in params if several else [{"params": params}]:
            self._add(group)

    @property
    def max_threads(self) -> int:
        """The most threads that a step uses."""
        return available_threads() if self._options.threads is None else self._options.threads

    @property
    def step_count(self) -> int:
        """Number of steps taken."""
        return self._count

    def step(self, grads: Any = None, *, lr: float | None = None, grad_scale: float = 1.0) -> None:
        """Update all parameters once, in place.

        Parameters
        ----------
        grads : array, or tree of arrays in the structure of the parameters, optional
            The gradients, with the parameters' shapes and dtypes. None in the place of an array means that
            there is no gradient: its parameter and state stay as they are. :class:`fastopt.Rows` in its
            place are gradients of some rows only. With groups, a list of one tree a group. By default the
            gradients of the pack.
        lr : float, optional
            Learning rate of this step, in place of those of the groups.
        grad_scale : float
            What the gradients have been multiplied by (loss scaling), from 1e-37 to 1e37; they are divided
            by it.

        Raises
        ------
        TypeError, ValueError
            If the gradients do not fit the parameters, or an argument, or the value of
            a schedule, is out of range. Nothing is written then.
        """
        for group in self._groups:
            if group.mapping.changed:
                self._take_note(group)
        if grads is None:
            arrangement = self._arrangement
            if arrangement is None or arrangement.present is not None:
                arrangement = self._arrange_own()
            copies, given = _NOTHING, _NOTHING
        else:
            given = self._leaves_of(grads)  # held until the end: what follows knows only addresses
            arrangement, copies = self._arrange_given(given)
        multiplier = 1.0 if grad_scale == 1.0 else 1.0 / _check_grad_scale(grad_scale)
        if lr is not None:
            if "lr" not in self.defaults:
                raise TypeError(f"{type(self).__name__} has no lr")
            lr = check_value("lr", lr, 0.0, schedule=False)
        try:
            arrangement.set_scalars(self._count, multiplier, lr)
        except OverflowError:
            raise ValueError(
                f"{type(self).__name__}: a scalar of this step is too large for the dtype of the "
                f"parameters, with {self.param_groups}, lr={lr}, grad_scale={grad_scale}"
            ) from None
        for staging, grad in copies:
            np.copyto(staging, grad)
        arrangement.run()
        self._count += 1

    def _arrange_own(self) -> Arrangement:
        """Arrange the leaves for the gradients that their packs hold."""
        for leaf in self._leaves():
            if leaf.grad is None:
                raise TypeError(
                    f"step() needs gradients: {leaf.place} is not in a pack. "
                    f"Call step(grads), or give {type(self).__name__} a fastopt.pack(...)"
                )
        return self._arrange(None)

    def _leaves_of(self, grads: Any) -> list[Any]:
        """Return the gradients of all leaves, in their order."""
        if self._sole:
            return self._groups[0].tree.leaves(grads, "grads")
        if not isinstance(grads, list | tuple) or len(grads) != len(self._groups):
            raise TypeError(
                f"grads must be a list of {len(self._groups)} trees, one a parameter group; "
                f"got {describe(grads)}"
            )
        given = []
        for i, (group, tree) in enumerate(zip(self._groups, grads, strict=True)):
            given += group.tree.leaves(tree, f"grads[{i}]")
        return given

    def _arrange_given(self, given: list[Any]) -> tuple[Arrangement, list[Any]]:
        """Arrange the leaves for gradients that are given, and say which must be copied first."""
        if self._given is None:
            self._given = GivenGradients(self._leaves())
        found = self._given
        moved = found.take(given, self._grad_places, allow_rows=True)
        if found.sparse:
            self._check_rows(found.sparse)
        arrangement = self._arrangement
        if arrangement is None or (arrangement.present, arrangement.sparse) != (found.present, found.sparse):
            arrangement = self._arrange(found.present, found.sparse)
            moved = True
        if moved:
            arrangement.set_gradients(found.addresses, found.touched)
            found.touched = {}
        return arrangement, found.copies

    def _arrange(self, present: list[int] | None, sparse: Sequence[int] = ()) -> Arrangement:
        if self.rows_only:
            for i in range(len(self._leaves())) if present is None else present:
                if i not in sparse:
                    place = self._grad_places()[i]
                    raise TypeError(f"{place} must be Rows: {type(self).__name__} takes no arrays")
        self._settle()
        groups = [(group.mapping, group.leaves) for group in self._groups]
        self._arrangement = Arrangement(groups, present, self.max_threads, sparse)
        return self._arrangement

    def _check_rows(self, sparse: Sequence[int]) -> None:
        """Raise an error unless the leaves of these numbers can be given rows."""
        owners = [(group.mapping, leaf.rule) for group in self._groups for leaf in group.leaves]
        places = self._grad_places()
        for number in sparse:
            self.check_rows(*owners[number], places[number])

    def _grad_places(self) -> list[str]:
        """Return the place of each gradient, as errors shall name it."""
        return [
            f"grads{name}" if self._sole else f"grads[{i}]{name}"
            for i, group in enumerate(self._groups)
            for name in group.tree.names
        ]

    def zero_grad(self) -> None:
        """Set the gradients of the pack to zero.

        Raises
        ------
        TypeError
            If a group is not a pack: the gradients given to :meth:`step` belong to the caller.
        """
        for group in self._groups:
            if not isinstance(group.mapping["params"], Pack):
                raise TypeError("zero_grad() needs a pack: gradients given to step() are the caller's")
        for group in self._groups:
            group.mapping["params"].zero_grad()

    # --- state

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
        inside = lines[0] if len(lines) == 1 else "".join(f"\n    {line}" for line in lines) + "\n"
        return f"<{type(self).__name__}({inside}), {plural(self._count, 'step')} taken>"


_NOTHING: list[Any] = []


def _check_grad_scale(grad_scale: Any) -> float:
    value = check_value("grad_scale", grad_scale, 1.0, schedule=False)
    if not 1e-37 <= value <= 1e37:  # so that its inverse is a normal float32
        raise ValueError(f"grad_scale must be a number in [1e-37, 1e37]; got {grad_scale!r}")
    return float(value)
