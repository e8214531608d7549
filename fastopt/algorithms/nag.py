"""Nesterov's accelerated gradient in its first form: the gradient is taken at the point ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

import numpy as np

from fastopt.algorithms.momentum import momentum
from fastopt.engine import Rule
from fastopt.leaf import Array
from fastopt.optimizer import Optimizer, Options


class NAG(Optimizer):
    r"""Nesterov's accelerated gradient: momentum that looks where it is going.

    .. math::
        v_t = \gamma v_{t-1} + \eta \nabla f(p_{t-1} - \gamma v_{t-1}), \qquad p_t = p_{t-1} - v_t

    The gradient belongs to the point ahead, :math:`p_{t-1} - \gamma v_{t-1}`. Compute it inside
    ``with opt.lookahead():``, where the parameters are that point; then step. Weight decay
    :math:`\lambda` adds :math:`\lambda p_{t-1}` to the gradient.

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
    State: ``velocity``. The update itself is Momentum's. A step without a look ahead would be nothing but
    that, so it is refused.

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

    rule = Rule(momentum, ("velocity",))

    _saved: list[Array] | None = None
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
        if self._ahead:
            raise RuntimeError("lookahead() cannot be used inside lookahead()")
        leaves = self._leaves()
        if self._saved is None or len(self._saved) != len(leaves):
            self._saved = [np.empty_like(leaf.array) for leaf in leaves]
        saved = iter(self._saved)
        moves = []
        for group in self._groups:
            (gamma,) = group.mapping.values_at(self.step_count, ("momentum",), None)
            moves += [(leaf, gamma, next(saved)) for leaf in group.leaves]
        self._ahead = True
        for leaf, gamma, kept in moves:
            np.copyto(kept, leaf.array)
            np.multiply(leaf.shaped(leaf.state["velocity"]), -gamma, out=leaf.array)
            np.add(leaf.array, kept, out=leaf.array)
        try:
            yield self._params()
            self._has_looked = True
        finally:
            for leaf, _, kept in moves:
                np.copyto(leaf.array, kept)
            self._ahead = False

    def step(self, grads: Any = None, *, lr: float | None = None, grad_scale: float = 1.0) -> None:
        """Update all parameters once, with gradients that were taken inside :meth:`lookahead`.

        See :meth:`fastopt.Optimizer.step`.

        Raises
        ------
        RuntimeError
            Inside ``lookahead()``, or if there has been none since the last step.
        """
        if self._ahead:
            raise RuntimeError("step() cannot be called inside lookahead(): leave the block first")
        if not self._has_looked:
            raise RuntimeError(
                "NAG needs the gradient at the point ahead: compute it inside `with opt.lookahead():`, "
                "or use SGD(nesterov=True)"
            )
        super().step(grads, lr=lr, grad_scale=grad_scale)
        self._has_looked = False
