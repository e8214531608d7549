"""Grams."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def grams(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, decay,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    size = step_size * exp_avg / (math.sqrt(exp_avg_sq) * correction + eps)
    p = p - (decay * p + (math.copysign(size, g) if g else g))  # the sign of 0 is 0
    return p, exp_avg, exp_avg_sq


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    step_size = lr / (1.0 - beta1**step)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction, eps, lr * weight_decay


class Grams(Optimizer):
    r"""Grams: steps of Adam's size in the direction of the gradient at hand.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        p_t &= (1 - \eta \lambda)\, p_{t-1}
        - \eta\, \operatorname{sign}(g_t) \frac{|\hat m_t|}{\sqrt{\hat v_t} + \epsilon}

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: about the size of a step.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same where momentum and gradient agree.

    Notes
    -----
    For pre-training and fine-tuning where AdamW overshoots: no parameter moves uphill along its own gradient,
    and one without a gradient stays where it is. State: ``exp_avg`` (:math:`m`), ``exp_avg_sq`` (:math:`v`).
    As in the paper; the default of :math:`\epsilon` is that of the authors' code, which adds it before the
    bias of :math:`v` is corrected. The momentum gives the size alone: its own sign is not used. The decay is
    added to the step before both are taken from the parameter; see AdamW.

    References
    ----------
    Cao, Li and Song, Grams: Gradient Descent with Adaptive Momentum Scaling, arXiv:2412.17107, 2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(2)
    >>> opt = fastopt.Grams(w, lr=0.5)
    >>> opt.step(np.array([1.0, 1.0]))
    >>> opt.step(np.array([-0.1, 0.0]))  # the first turns back, the second stays; Adam would go on
    >>> w.round(2)
    array([-0.2, -0.5])
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

    rule = Rule(grams, ("exp_avg", "exp_avg_sq"), scalars, decay="decoupled", squares=("exp_avg_sq",))
