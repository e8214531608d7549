"""Adagrad."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adagrad(p, g, sum, lr, eps, weight_decay):
    g = g + weight_decay * p
    sum = sum + g * g
    return p - lr * g / (math.sqrt(sum) + eps), sum


def scalars(step, lr, lr_decay, eps, weight_decay):
    return lr / (1.0 + (step - 1) * lr_decay), eps, weight_decay


class Adagrad(Optimizer):
    r"""Adagrad: a learning rate for each parameter, smaller the more gradient it has seen.

    .. math::
        s_t = s_{t-1} + g_t^2, \qquad
        p_t = p_{t-1} - \frac{\eta}{1 + (t - 1)\,\eta_d} \frac{g_t}{\sqrt{s_t} + \epsilon}

    Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    lr_decay : float or schedule
        :math:`\eta_d \ge 0`.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    initial_accumulator_value : float
        :math:`s_0 \ge 0`.
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    Notes
    -----
    For sparse features, such as words and clicks: rare ones keep a large step. State: ``sum``. As in torch,
    and as in the paper but for its :math:`\epsilon` inside the root (also in the texts, with 1e-8). optax
    starts the sum at 0.1 and has 1e-7 inside the root; Keras starts it at 0.1. Without weight decay,
    gradients may be :class:`fastopt.Rows`.

    References
    ----------
    Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization, JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.Adagrad(w, lr=0.5)
    >>> opt.step(np.array([100.0, 1e-4]))  # the first step is lr, whatever the gradient's size
    >>> w.round(4)
    array([ 0.5, -2.5])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lr_decay: Any = 0.0,
        weight_decay: Any = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Any = 1e-10,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            **options,
        )

    rule = Rule(adagrad, ("sum",), scalars, decay="coupled", squares=("sum",))
    rows_without = ("weight_decay",)

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float]:
        return {"sum": group["initial_accumulator_value"]}
