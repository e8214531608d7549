"""LAMB: Adam whose step is, in each tensor, as long as the tensor's own norm times the learning rate."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Measure, Rule
from fastopt.optimizer import Optimizer, Options


def measure(
    p, g, exp_avg, exp_avg_sq,
    beta1, one_minus_beta1, beta2, one_minus_beta2, correction1, correction2, eps, weight_decay,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    update = correction1 * exp_avg / (math.sqrt(exp_avg_sq) * correction2 + eps) + weight_decay * p
    return exp_avg, exp_avg_sq, p, update


def measure_scalars(step, betas, eps, weight_decay):
    beta1, beta2 = betas
    correction1, correction2 = 1.0 / (1.0 - beta1**step), 1.0 / math.sqrt(1.0 - beta2**step)
    return beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction1, correction2, eps, weight_decay


def lamb(p, g, exp_avg, exp_avg_sq, step_size, correction2, eps, decay):
    return p - (step_size * exp_avg / (math.sqrt(exp_avg_sq) * correction2 + eps) + decay * p)


def scalars(step, size, param_sq, update_sq, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    correction1, correction2 = 1.0 / (1.0 - beta1**step), 1.0 / math.sqrt(1.0 - beta2**step)
    trust = 1.0 if param_sq == 0.0 or update_sq == 0.0 else math.sqrt(param_sq) / math.sqrt(update_sq)
    return lr * trust * correction1, correction2, eps, lr * trust * weight_decay


class LAMB(Optimizer):
    r"""LAMB: Adam whose step is, in each tensor, as long as the tensor's norm times the learning rate.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        u_t &= \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda p_{t-1} \\
        p_t &= p_{t-1} - \eta \frac{\lVert p_{t-1} \rVert}{\lVert u_t \rVert} u_t

    The norms are those of each array. Where one of them is zero, their ratio counts as 1.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: the relative size of a tensor's step.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, part of the update whose norm is taken.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    LARS : The same for gradient descent with momentum.

    Notes
    -----
    For very large batches, where one learning rate does not fit all layers. State: ``exp_avg``
    (:math:`m`), ``exp_avg_sq`` (:math:`v`). Two passes: the first updates the state and measures, 24
    bytes a float32 parameter, the second moves the parameters, 16. As in optax. The paper's function of
    the norm, :math:`\phi`, is the identity here; its first version and NVIDIA's code clip the gradient's
    global norm first.

    References
    ----------
    You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, arXiv:1904.00962,
    2019.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = [np.full(4, 2.0), np.full(4, 0.02)]
    >>> opt = fastopt.LAMB(w, lr=0.1)
    >>> opt.step([np.ones(4), np.ones(4)])
    >>> w[0].round(3), w[1].round(5)  # each by a tenth
    (array([1.8, 1.8, 1.8, 1.8]), array([0.018, 0.018, 0.018, 0.018]))
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-6,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)

    rule = Rule(
        lamb,
        ("exp_avg", "exp_avg_sq"),
        scalars,
        measure=Measure(measure, ("square", "square"), measure_scalars, writes=("exp_avg", "exp_avg_sq")),
        writes=(),
        squares=("exp_avg_sq",),
    )
