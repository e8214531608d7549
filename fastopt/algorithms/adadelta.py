"""Adadelta."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adadelta(p, g, square_avg, acc_delta, lr, rho, one_minus_rho, eps, weight_decay):
    g = g + weight_decay * p
    square_avg = rho * square_avg + one_minus_rho * (g * g)
    delta = math.sqrt((acc_delta + eps) / (square_avg + eps)) * g
    acc_delta = rho * acc_delta + one_minus_rho * (delta * delta)
    return p - lr * delta, square_avg, acc_delta


def scalars(step, lr, rho, eps, weight_decay):
    return lr, rho, 1.0 - rho, eps, weight_decay


class Adadelta(Optimizer):
    r"""Adadelta: steps in the units of the parameters, from running averages; no learning rate to set.

    .. math::
        v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
        \delta_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}}\, g_t \\
        u_t &= \rho u_{t-1} + (1 - \rho) \delta_t^2 \\
        p_t &= p_{t-1} - \eta \delta_t

    Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        A factor :math:`\eta \ge 0` on the step; 1 in the paper.
    rho : float or schedule
        :math:`\rho` in [0, 1], the share of the averages that is kept.
    eps : float or schedule
        :math:`\epsilon \ge 0`, inside the roots. It also sets the size of the first steps.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    Notes
    -----
    When there is no time to tune a learning rate, and a slow start does no harm. State: ``square_avg``
    (:math:`v`) and ``acc_delta`` (:math:`u`). As in torch and in the paper. Keras has ``lr=0.001`` and
    ``rho=0.95``.

    References
    ----------
    Zeiler, ADADELTA: An Adaptive Learning Rate Method, arXiv:1212.5701, 2012.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.Adadelta(w)
    >>> for _ in range(2000):
    ...     opt.step(2 * w)  # the gradient of sum(w**2)
    >>> bool(abs(w).max() < 0.01)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: Any = 0.9,
        eps: Any = 1e-6,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, **options)

    rule = Rule(
        adadelta, ("square_avg", "acc_delta"), scalars, decay="coupled", squares=("square_avg", "acc_delta")
    )
