"""L-BFGS: the full gradient, a memory of the curvature, and a line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, NoReturn, Unpack

import numpy as np

from fastopt.algorithms._line import Work
from fastopt.algorithms._vector import Flat, Sum, largest
from fastopt.algorithms._wolfe import Point, strong_wolfe
from fastopt.checkpoint import elements
from fastopt.group import Group
from fastopt.hyperparameters import check_value
from fastopt.leaf import Leaf
from fastopt.optimizer import Optimizer, Options
from fastopt.options import StepOptions
from fastopt.overrides import OPTIONS
from fastopt.tree import describe

#: The most evaluations of one search. A search that needs more has met rounding errors, or a wrong gradient.
MOST_TRIALS = 25
#: Without a line search, pairs whose dot product is not above this are left out; torch's number.
LEAST_CURVATURE = 1e-10


class LBFGS(Optimizer):
    r"""L-BFGS: Newton's method, with a Hessian that is estimated from the latest steps.

    .. math::
        p_{t+1} = p_t - \alpha_t H_t \nabla f(p_t)

    :math:`H_t` approximates the inverse Hessian. It is never formed: two loops over the latest moves
    :math:`s_i = p_{i+1} - p_i` and the gradient's changes :math:`y_i = \nabla f(p_{i+1}) - \nabla f(p_i)`
    multiply it with the gradient. The length :math:`\alpha_t` is ``lr``; or a search along the line, from
    ``lr`` on, finds one that satisfies the strong Wolfe conditions (:math:`c_1 = 10^{-4}, c_2 = 0.9`).

    Each :meth:`step` makes up to ``max_iter`` such moves.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of one dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors. All arrays must
        have one dtype, and there is one parameter group only.
    lr : float or schedule
        Length of a move, or the first one that its line search tries. A move along the gradient, such as the
        first of all, takes ``lr * min(1, 1 / sum(abs(gradient)))``.
    max_iter : int
        The most moves of a step.
    max_eval : int, optional
        The most evaluations of a step: no move begins after as many. By default ``max_iter * 5 // 4``; that
        leaves the line search of ``max_iter=1`` a single trial, so give more there.
    tolerance_grad : float or schedule
        A step ends where no element of the gradient is larger.
    tolerance_change : float or schedule
        A step ends when no parameter changes by more, when the loss changes by less, or when the slope of the
        line is not steeper.
    history_size : int
        How many moves are remembered. Each takes twice the memory of the parameters, once it is made.
    line_search_fn : {None, "strong_wolfe"}
        How to find the length of a move. Without a line search, ``lr`` must suit the problem.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`. The other options are refused.

    Notes
    -----
    For smooth losses whose gradient is exact, over all the data: there it takes far fewer evaluations than
    methods of fixed steps. Not for minibatches.

    State: ``old_stps`` (:math:`s`), ``old_dirs`` (:math:`y`), ``ro`` (:math:`1 / s^T y`), ``H_diag`` (the
    number that stands for :math:`H` between the two loops), ``d`` and ``t`` (direction and length of the
    latest move), ``prev_flat_grad``, ``n_iter`` and ``func_evals`` (counts), ``fresh`` (whether the next
    move is along the gradient). The vectors hold all arrays one after the other, each in C order. The
    numbers ``max_iter``, ``max_eval`` and ``history_size``, and ``line_search_fn``, are attributes of the
    optimizer, and not in its parameter group.

    As in torch: the line search interpolates cubically, and may take one evaluation more than
    ``max_eval``; each step evaluates its start again; without a line search, pairs whose product
    :math:`s^T y` is at most 1e-10 are left out, and a step leaves its last point to the next one to
    evaluate. Other than in torch: with a line search, only those pairs are left out whose product is zero
    but for rounding (torch's number, near a minimum, is above all of them, and the evaluations become
    several times as many); dot products are accumulated in double; a missing gradient is an error, not
    zero; the bracket of the line search keeps an end that falls enough, as Nocedal and Wright's does; a
    line search has at most 25 trials; one that runs out of evaluations ends at the lowest of its points,
    where torch compares the last with the start; and one that finds none makes the optimizer forget its
    pairs and try the gradient's direction, where torch stays for ever. ``step`` takes no ``grad_scale``.

    SciPy's L-BFGS-B remembers 10 moves, begins with one of Euclidean length 1, searches as Moré and
    Thuente do with :math:`c_1 = 10^{-3}`, and compares the change of the loss with the loss's size. It
    takes bounds.

    No parameter becomes infinite or NaN. The line search goes back from a point whose loss or gradient is
    not finite, at first tenfold. Without a line search, the step goes back to where that move began and
    ends, and the pairs are forgotten. Where the start of a step is such a point, the step does nothing.

    When the closure raises an exception, the parameters are those of the last point that was accepted:
    the moves that the step has made before are kept, and the next step goes on from there.

    References
    ----------
    Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Mathematical Programming
    45, 1989. Nocedal and Wright, Numerical Optimization, second edition, 2006: algorithms 3.5, 3.6, 7.4, 7.5.

    Examples
    --------
    Rosenbrock's valley. The closure computes the loss, and its gradient, where the parameters are now.

    >>> import numpy as np, fastopt
    >>> w = np.array([-1.2, 1.0])
    >>> def closure():
    ...     x, y = w
    ...     loss = (1 - x) ** 2 + 100 * (y - x * x) ** 2
    ...     return loss, np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])
    >>> opt = fastopt.LBFGS(w, max_iter=100, line_search_fn="strong_wolfe")
    >>> round(opt.step(closure), 1)  # the loss at the start
    24.2
    >>> w.round(4)
    array([1., 1.])
    """

    rule = Sum.rule
    takes_halves = False
    takes_device = False
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1.0, "tolerance_grad": 1e-7, "tolerance_change": 1e-9}

    max_iter: int
    max_eval: int
    history_size: int
    line_search_fn: str | None
    _fresh: bool
    _t: float

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: Any = 1e-7,
        tolerance_change: Any = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        given = max_iter, max_eval, history_size, line_search_fn
        vars(self).update(_check_settings(dict(zip(_SETTINGS, given, strict=True))))
        super().__init__(
            params, lr=lr, tolerance_grad=tolerance_grad, tolerance_change=tolerance_change, **options
        )

    def _begin(self, defaults: dict[str, Any], options: StepOptions, sole: bool) -> None:
        _check_no_overrides(vars(options))
        for field in fields(options):
            if field.name not in ("threads", *OPTIONS) and getattr(options, field.name) != field.default:
                raise ValueError(
                    f"LBFGS takes no {field.name}: a line search needs the gradients as they are"
                )
        super()._begin(defaults, options, sole)
        self._made: Work | None = None
        self._n_iter = self._func_evals = 0
        self._forget()

    def _add(self, group: Mapping[str, Any]) -> None:
        if self._groups:
            raise ValueError(
                "LBFGS takes one parameter group, got another: its steps are those of all parameters together"
            )
        _check_no_overrides(group)
        super()._add(group)
        leaves = self._leaves()
        for leaf in leaves:
            if leaf.dtype != leaves[0].dtype:
                raise ValueError(
                    f"LBFGS works on one vector, so all parameters must have one dtype: {leaves[0].place} "
                    f"is {leaves[0].dtype} and {leaf.place} is {leaf.dtype}; fastopt.pack(params, dtype) "
                    f"converts"
                )

    def _take_note(self, group: Group) -> None:
        known = {*self.defaults, "maximize"}
        for name, default in group.mapping.defaults.items():
            if name not in known and group.mapping[name] != default:
                raise ValueError(f"LBFGS takes no {name}: its update is not one element's at a time")
        super()._take_note(group)

    @classmethod
    def kernel(cls, **hyperparameters: Any) -> NoReturn:
        raise TypeError(f"{cls.__name__} has no kernel: its update is not one element's at a time")

    # --- the step

    def step(  # type: ignore[override]
        self, closure: Callable[[], Any] | None = None, *, lr: float | None = None
    ) -> float:
        """Make up to ``max_iter`` moves.

        Parameters
        ----------
        closure : callable
            A function without arguments that computes the loss and its gradients where the parameters are
            now. It returns ``(loss, grads)``, with gradients in the structure of the parameters; or, if
            those are a pack, it writes the gradients to the pack's and returns the loss. It is
            called several times.
        lr : float, optional
            Learning rate of this step, in place of that of the group.

        Returns
        -------
        float
            The loss at the start of the step.

        Raises
        ------
        TypeError, ValueError
            If ``closure`` is none, or what it returns does not fit. The parameters are then those of the last
            accepted point, as with any exception of the closure's.
        """
        if not callable(closure):
            raise TypeError(
                f"LBFGS.step() needs a closure, a function that computes the loss and its gradients, because "
                f"it evaluates them at several points; got {describe(closure)}"
            )
        if lr is not None:
            lr = check_value("lr", lr, 0.0, schedule=False)
        group, work = self.param_groups[0], self._work
        if group.changed:
            self._take_note(self._groups[0])
        rate, tolerance_grad, tolerance_change = group.values_at(self._count, tuple(self.defaults), lr)
        if work.sign != self._sign():
            self._forget()
            work.sign = self._sign()
        before = self._func_evals
        work.flat.gather()
        first = self._evaluate(closure)
        loss, usable = work.sign * first, math.isfinite(first) and largest(work.trial) < math.inf
        work.keep()
        iterations = self.max_iter if usable and largest(work.grad) > tolerance_grad and rate > 0.0 else 0
        moved = False
        for left in reversed(range(iterations)):
            self._n_iter += 1
            here = Point(0.0, loss, self._aim())
            if not here.slope <= -tolerance_change or here.slope == 0.0:
                break
            t = rate * work.first_length() if self._fresh else rate
            work.depart()
            try:
                if self.line_search_fn is None:
                    there = self._leap(closure, here, t, blindly=left == 0)
                else:
                    most = self.max_eval - (self._func_evals - before) + 1
                    narrowest = tolerance_change / work.longest
                    there = self._search(closure, here, t, min(most, MOST_TRIALS), narrowest)
            except BaseException:
                work.move(0.0)
                raise
            spent = self._func_evals - before >= self.max_eval
            if there.t == 0.0:
                searched = self.line_search_fn is not None
                again = searched and not spent and len(work.pairs) > 0
                if not (searched and spent and moved):  # else the search was only cut short
                    self._forget()
                if again:
                    continue
                break
            moved = True
            self._t, self._fresh = there.t, False
            if spent or left == 0 or largest(work.grad) <= tolerance_grad:
                break
            if there.t * work.longest <= tolerance_change or abs(there.loss - loss) < tolerance_change:
                break
            loss = there.loss
        self._count += 1
        return first

    @property
    def _work(self) -> Work:
        if self._made is None:
            flat = Flat(self._groups[0], "grads" if self._sole else "grads[0]")
            self._made = Work(flat, self._sign(), self.history_size, self.max_threads)
        return self._made

    def _sign(self) -> float:
        return -1.0 if self.param_groups[0].maximize else 1.0

    def _evaluate(self, closure: Callable[[], Any]) -> float:
        """Return the loss where the parameters are, and take note of its gradient."""
        result = closure()
        loss, grads = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        given = None if grads is None else self._leaves_of(grads, "grads")
        self._work.trial = self._work.flat.gradient(given)
        self._func_evals += 1
        return _number(loss)

    def _aim(self) -> float:
        """Remember the latest move, and set the direction of the next; return the slope along it."""
        work, t = self._work, self._t
        self._t = 0.0  # from here on there is no latest move: whatever interrupts this, no pair is made of it
        if not self._fresh:
            with np.errstate(over="ignore"):
                change = np.subtract(work.grad, work.previous, out=work.previous)
                step = np.multiply(work.direction, t, out=work.direction)
            work.pairs.add(step, change, LEAST_CURVATURE if self.line_search_fn is None else 0.0)
        work.pairs.aim(work.grad)
        np.copyto(work.previous, work.grad)
        slope = work.slope()
        if not -math.inf < slope < 0.0 and len(work.pairs):
            self._forget()
            work.pairs.aim(work.grad)
            slope = work.slope()
        return slope

    def _forget(self) -> None:
        """Begin anew: with the gradient's direction, and a short move."""
        self._t, self._fresh = 0.0, True
        if self._made is not None:
            self._made.pairs.clear()

    def _leap(self, closure: Callable[[], Any], here: Point, t: float, *, blindly: bool) -> Point:
        """Move by a given length; return where that is, or ``here`` where the loss there is not finite."""
        work = self._work
        if not work.move(t):
            return here
        if blindly:
            return Point(t, here.loss, here.slope)
        loss = work.sign * self._evaluate(closure)
        if math.isfinite(loss) and largest(work.trial) < math.inf:
            work.keep()
            return Point(t, loss, here.slope)
        work.move(0.0)
        return here

    def _search(
        self, closure: Callable[[], Any], here: Point, t: float, most: int, narrowest: float
    ) -> Point:
        """Move by a length that the line search finds; return where that is, at worst ``here``."""
        work = self._work

        def evaluate(t: float) -> Point:
            if not work.move(t):
                return Point(t, math.nan, math.nan)
            loss = work.sign * self._evaluate(closure)
            return Point(t, loss, work.trial_slope())

        there = strong_wolfe(evaluate, work.keep, here, t, evaluations=most, narrowest=narrowest)
        work.move(there.t)
        return there

    def step_async(self, *args: Any, **options: Any) -> NoReturn:
        raise TypeError("LBFGS cannot step while Python goes on: its closure is Python")

    # --- state

    @property
    def state(self) -> list[dict[str, Any]]:
        """The state of the one group, under torch's names: numbers, and copies of the vectors."""
        work = self._work
        return [
            {
                "n_iter": self._n_iter,
                "func_evals": self._func_evals,
                "fresh": self._fresh,
                "t": self._t,
                "d": work.direction.copy(),
                "prev_flat_grad": work.previous.copy(),
                **work.pairs.copies(),
            }
        ]

    def state_dict(self, params: bool = False) -> dict[str, Any]:
        for leaf in self._leaves():
            leaf.step = self._count
        settings = {name: vars(self)[name] for name in _SETTINGS}
        return {**super().state_dict(params), "settings": settings, "memory": self.state[0]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        if isinstance(state_dict, Mapping) and state_dict.get("algorithm") == type(self).__name__:
            _check_saved(state_dict, self._leaves())
        super().load_state_dict(state_dict)
        vars(self).update(state_dict["settings"])
        self._made = None
        work, memory = self._work, state_dict["memory"]
        self._n_iter, self._func_evals = memory["n_iter"], memory["func_evals"]
        self._fresh, self._t = memory["fresh"], memory["t"]
        own = elements(state_dict["param_groups"][0], self._groups[0].tree.names)
        np.copyto(work.direction, memory["d"][own])
        np.copyto(work.previous, memory["prev_flat_grad"][own])
        for there, gap, ro in zip(memory["old_stps"], memory["old_dirs"], memory["ro"], strict=True):
            work.pairs.put(there[own], gap[own], ro)
        work.pairs.scale = memory["H_diag"]


_SETTINGS = ("max_iter", "max_eval", "history_size", "line_search_fn")
_MEMORY = (
    "n_iter", "func_evals", "fresh", "t", "d", "prev_flat_grad", "old_stps", "old_dirs", "ro", "H_diag",
)  # fmt: skip


def _check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, or raise an error that names the one that is wrong."""
    checked = dict(settings)
    if checked["max_eval"] is None:
        checked["max_eval"] = max(1, _whole("max_iter", checked["max_iter"]) * 5 // 4)
    for name in ("max_iter", "max_eval", "history_size"):
        checked[name] = _whole(name, checked[name])
    if checked["line_search_fn"] not in (None, "strong_wolfe"):
        raise ValueError(f"line_search_fn must be 'strong_wolfe' or None, got {checked['line_search_fn']!r}")
    return checked


def _whole(name: str, value: Any) -> int:
    message = f"{name} must be a whole number >= 1, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(message)
    if value < 1:
        raise ValueError(message)
    return int(value)


def _number(loss: Any) -> float:
    """Return a loss as a float: that of a number, or of an array or a tensor that holds one."""
    if isinstance(loss, np.ndarray) and loss.size == 1:
        loss = loss.item()
    if not isinstance(loss, str | bytes | complex):
        try:
            return float(loss)
        except (TypeError, ValueError):
            pass
    raise TypeError(f"the closure must return the loss, a number, or (loss, grads); got {describe(loss)}")


def _check_no_overrides(given: Mapping[str, Any]) -> None:
    for name in OPTIONS:
        if given.get(name) is not None:
            raise ValueError(f"LBFGS takes no {name}: each of its moves is that of all parameters together")


def _check_saved(saved: Mapping[str, Any], leaves: list[Leaf]) -> None:
    """Raise a ValueError that says in what the vectors of a state dict do not fit the parameters."""
    for part, names in (("settings", _SETTINGS), ("memory", _MEMORY)):
        for name in names:
            if not isinstance(saved.get(part), Mapping) or name not in saved[part]:
                raise ValueError(
                    f"state_dict must be what state_dict() returned; state_dict[{part!r}] has no {name!r}"
                )
    _check_settings(saved["settings"])
    memory, pairs = saved["memory"], len(saved["memory"]["ro"])
    size, dtype = sum(leaf.array.size for leaf in leaves), leaves[0].dtype if leaves else np.dtype(float)
    shapes: dict[str, tuple[int, ...]] = {"d": (size,), "prev_flat_grad": (size,)}
    shapes |= {"old_stps": (pairs, size), "old_dirs": (pairs, size)}
    for name, shape in shapes.items():
        array = np.asarray(memory[name])
        for what, got, want in (("shape", array.shape, shape), ("dtype", array.dtype, dtype)):
            if got != want:
                raise ValueError(
                    f"state_dict does not fit: {what} of memory[{name!r}] must be {want}, got {got}"
                )
    if pairs > saved["settings"]["history_size"]:
        raise ValueError(f"state_dict does not fit: it has {pairs} pairs, more than its history_size")
