"""Nesterov's accelerated gradient in its first form: the gradient is taken at the point ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from fastopt.engine import Batch, Rule, Segment
from fastopt.engine.memory import aligned_zeros
from fastopt.engine.plain import COPY
from fastopt.engine.storage import Storage, native
from fastopt.leaf import Leaf, numbered
from fastopt.optimizer import Optimizer, Options


def nag(p, g, velocity, lr, momentum, weight_decay):
    ahead = p - momentum * velocity
    velocity = momentum * velocity + lr * (g + weight_decay * ahead)
    return p - velocity, velocity


def move(p, g, velocity, momentum):
    return p - momentum * velocity


_MOVE = Rule(move, ("velocity",), writes=())


class _Glance:
    """Moves leaves to the point ahead and back, with a copy of them."""

    def __init__(self, leaves: list[Leaf], threads: int) -> None:
        self.settings, rows = numbered(leaves)
        self._staged = [leaf for leaf in leaves if leaf.staged]
        self._keep: list[Batch] = []
        self._move: list[Batch] = []
        self._restore: list[Batch] = []
        found = [(leaf, row) for leaf, row in zip(leaves, rows, strict=True) if leaf.flat.size]
        for dtype, form in {(leaf.dtype, leaf.formats.get("velocity")) for leaf, _ in found}:
            keep: list[Segment] = []
            ahead: list[Segment] = []
            restore: list[Segment] = []
            kind = dtype, form
            mine = [(leaf, row) for leaf, row in found if (leaf.dtype, leaf.formats.get("velocity")) == kind]
            kept = aligned_zeros(sum(leaf.flat.size for leaf, _ in mine), dtype, mine[0][0].flat)
            for leaf, row in mine:
                part, kept = kept[: leaf.flat.size], kept[leaf.flat.size :]
                keep.append((part, leaf.flat, [], 0))
                ahead.append((leaf.flat, leaf.flat, [leaf.state["velocity"]], row))  # it reads no gradient
                restore.append((leaf.flat, part, [], 0))
            self._keep.append(Batch(COPY, keep, 1, threads))
            own = native(dtype)
            storage = None if form is None else Storage(own, own, (form,))
            origins = [0] * len(ahead)  # nothing is rounded
            self._move.append(Batch(_MOVE, ahead, len(self.settings), threads, False, storage, origins))
            self._restore.append(Batch(COPY, restore, 1, threads))
        for batch in self._keep + self._restore:
            batch.set_scalars(0, 1.0, ())

    def move(self, gammas: list[tuple[float, ...]]) -> None:
        for leaf in self._staged:
            leaf.stage()
        for batch in self._move:
            for row, gamma in enumerate(gammas):
                batch.set_scalars(row, 1.0, gamma)
        for batch in self._keep + self._move:
            batch.run()
        for leaf in self._staged:
            leaf.unstage()

    def move_back(self) -> None:
        for batch in self._restore:
            batch.run()
        for leaf in self._staged:
            leaf.unstage()


class NAG(Optimizer):
    r"""Nesterov's accelerated gradient: momentum that looks where it is going.

    .. math::
        v_t = \gamma v_{t-1} + \eta \nabla f(p_{t-1} - \gamma v_{t-1}), \qquad p_t = p_{t-1} - v_t

    The gradient belongs to the point ahead, :math:`p_{t-1} - \gamma v_{t-1}`. Compute it inside
    ``with opt.lookahead():``, where the parameters are that point; then step. Weight decay
    :math:`\lambda` adds :math:`\lambda (p_{t-1} - \gamma v_{t-1})` to the gradient.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    momentum : float or schedule
        :math:`\gamma \ge 0`, the share of the velocity that is kept.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    SGD : With ``nesterov=True``, the form that needs no point ahead: at a constant learning rate the same
        iteration, written for the points :math:`p_t - \gamma v_t`.

    Notes
    -----
    For smooth convex losses, and wherever the gradient at the point ahead can be had. State: ``velocity``. A
    step without a look ahead would be nothing but Momentum's, so it is refused.

    References
    ----------
    Nesterov, A method for solving the convex programming problem with convergence rate O(1/k^2), 1983.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.NAG(w, lr=0.1)
    >>> for _ in range(100):
    ...     with opt.lookahead():
    ...         grad = 2 * w  # the gradient of sum(w**2), where w is now
    ...     opt.step(grad)
    >>> bool(abs(w).max() < 1e-3)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 0.01,
        momentum: Any = 0.9,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, **options)

    takes_halves = False  # the way to the point ahead and back would not be exact
    rule = Rule(nag, ("velocity",))

    _glance: _Glance | None = None
    _ahead = False
    _has_looked = False

    @contextmanager
    def lookahead(self) -> Iterator[Any]:
        """Move the parameters to the point ahead, for as long as the ``with`` block lasts.

        At its end, also by an exception, they are what they were, bit for bit.

        Yields
        ------
        The parameters that the optimizer was given; with groups, a list of them.

        Raises
        ------
        RuntimeError
            If the parameters are at the point ahead already.
        """
        self._require_parameters("lookahead() cannot be called")
        with self._on_stream():
            if self._glance is None:
                self._glance = _Glance(self._leaves(), self.max_threads)
            glance = self._glance
            gammas = [group.values_at(self._count, ("momentum",), None) for group in glance.settings]
            glance.move(gammas)
        self._ahead = True
        try:
            yield self._params()
            self._has_looked = True
        finally:
            with self._on_stream():
                glance.move_back()
            self._ahead = False

    def _require_parameters(self, what: str) -> None:
        super()._require_parameters(what)
        if self._ahead:
            raise RuntimeError(f"{what} inside lookahead(): leave the block first")

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "has_looked": self._has_looked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._has_looked = state["has_looked"]

    def _rearrange(self) -> None:
        super()._rearrange()
        self._glance = None  # it refers to the state's buffers, which may be replaced

    def step(self, grads: Any = None, *, lr: float | None = None, grad_scale: float = 1.0) -> None:
        """Update all parameters once, with gradients that were taken inside :meth:`lookahead`.

        See :meth:`fastopt.Optimizer.step`.

        Raises
        ------
        RuntimeError
            Inside ``lookahead()``, or if there has been none since the last step.
        """
        self._require_parameters("step() cannot be called")
        if not self._has_looked:
            raise RuntimeError(
                "NAG needs the gradient at the point ahead: compute it inside `with opt.lookahead():`, "
                "or use SGD(nesterov=True)"
            )
        super().step(grads, lr=lr, grad_scale=grad_scale)
        self._has_looked = False
