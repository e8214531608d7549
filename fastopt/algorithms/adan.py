"""Adan: Adam with the change of the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adan(
    p, g, exp_avg, exp_avg_sq, exp_avg_diff, neg_pre_grad,
    step_size, diff_size, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, one_minus_beta3,
    seen, correction, eps, shrink,
):  # fmt: skip
    diff = seen * (g + neg_pre_grad)
    ahead = g + beta2 * diff
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_diff = beta2 * exp_avg_diff + one_minus_beta2 * diff
    exp_avg_sq = beta3 * exp_avg_sq + one_minus_beta3 * (ahead * ahead)
    change = (step_size * exp_avg + diff_size * exp_avg_diff) / (math.sqrt(exp_avg_sq) * correction + eps)
    return p - (change + shrink * (p - change)), exp_avg, exp_avg_sq, exp_avg_diff, -g


def adan_no_prox(
    p, g, exp_avg, exp_avg_sq, exp_avg_diff, neg_pre_grad,
    step_size, diff_size, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, one_minus_beta3,
    seen, correction, eps, decay,
):  # fmt: skip
    diff = seen * (g + neg_pre_grad)
    ahead = g + beta2 * diff
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_diff = beta2 * exp_avg_diff + one_minus_beta2 * diff
    exp_avg_sq = beta3 * exp_avg_sq + one_minus_beta3 * (ahead * ahead)
    change = (step_size * exp_avg + diff_size * exp_avg_diff) / (math.sqrt(exp_avg_sq) * correction + eps)
    return p - (decay * p + change), exp_avg, exp_avg_sq, exp_avg_diff, -g


def scalars(step, lr, betas, eps, weight_decay, no_prox):
    beta1, beta2, beta3 = betas
    step_size = lr / (1.0 - beta1**step)
    diff_size = lr * beta2 / (1.0 - beta2**step)
    seen = min(step - 1.0, 1.0)  # 0 in the first step: there is no gradient before it
    correction = 1.0 / math.sqrt(1.0 - beta3**step)
    decay = lr * weight_decay
    return (
        step_size, diff_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, beta3, 1.0 - beta3,
        seen, correction, eps, decay if no_prox else decay / (1.0 + decay),
    )  # fmt: skip


class Adan(Optimizer):
    r"""Adan: Adam with Nesterov's look ahead, made from the change of the gradient.

    .. math::
        d_t &= g_t - g_{t-1}, \qquad d_1 = 0 \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) d_t \\
        n_t &= \beta_3 n_{t-1} + (1 - \beta_3) (g_t + \beta_2 d_t)^2 \\
        u_t &= (\hat m_t + \beta_2 \hat v_t) / (\sqrt{\hat n_t} + \epsilon) \\
        p_t &= (p_{t-1} - \eta\, u_t) / (1 + \eta \lambda)

    A hat is the bias correction, division by :math:`1 - \beta^t`. With ``no_prox``, the last line is
    :math:`p_t = (1 - \eta \lambda)\, p_{t-1} - \eta\, u_t`.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`. The paper takes five to ten times AdamW's.
    betas : three of float, or schedule of such
        :math:`\beta_1, \beta_2, \beta_3` in [0, 1), the shares of the averages that are kept.
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled. The authors take 0.02.
    no_prox : bool
        Decay as AdamW does, not as the paper's proximal step does.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    Notes
    -----
    For vision models and large batches, with large learning rates. State: ``exp_avg`` (:math:`m`),
    ``exp_avg_sq`` (:math:`n`), ``exp_avg_diff`` (:math:`v`), ``neg_pre_grad`` (:math:`-g_{t-1}`).
    As in the authors' code, but for its clipping of the gradient and its restarts. The paper writes
    :math:`\beta` for what is :math:`1 - \beta` here (0.02, 0.08, 0.01), and has no bias correction. optax
    multiplies :math:`d_t` and :math:`\hat v_t` by :math:`1 - \beta_2` in the place of :math:`\beta_2`, which
    the paper does not; it decays as with ``no_prox``, and has 1e-8 inside the root too. The decay
    is added to the step before both are taken from the parameter; see :class:`fastopt.AdamW`.

    References
    ----------
    Xie, Zhou, Li, Lin and Yan, Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
    Models, arXiv:2208.06677, 2022.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.ones(2)
    >>> opt = fastopt.Adan(w, lr=0.25)
    >>> opt.step(np.array([100.0, -1e-3]))  # the first step is lr, whatever the gradient's size
    >>> w.round(4)
    array([0.75, 1.25])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.98, 0.92, 0.99),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        no_prox: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            no_prox=no_prox,
            **options,
        )

    with_prox = Rule(
        adan, ("exp_avg", "exp_avg_sq", "exp_avg_diff", "neg_pre_grad"), scalars, squares=("exp_avg_sq",)
    )
    without_prox = Rule(
        adan_no_prox,
        ("exp_avg", "exp_avg_sq", "exp_avg_diff", "neg_pre_grad"),
        scalars,
        decay="decoupled",
        squares=("exp_avg_sq",),
    )

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        return cls.without_prox if group["no_prox"] else cls.with_prox
