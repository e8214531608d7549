"""LaProp."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def laprop(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, decay,
):  # fmt: skip
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    exp_avg = beta1 * exp_avg + one_minus_beta1 * (g / (math.sqrt(exp_avg_sq) * correction + eps))
    return p - (decay * p + step_size * exp_avg), exp_avg, exp_avg_sq


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    step_size = lr / (1.0 - beta1**step)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction, eps, lr * weight_decay


class LaProp(Optimizer):
    r"""LaProp: Adam in the other order: the gradient is divided first, and then gathered.

    .. math::
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \frac{g_t}{\sqrt{\hat v_t} + \epsilon} \\
        p_t &= (1 - \eta \lambda)\, p_{t-1} - \eta\, m_t / (1 - \beta_1^t)

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1). Any pair is stable, also :math:`\beta_1 > \sqrt{\beta_2}`.
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : Gathers first, and then divides.

    Notes
    -----
    For noisy gradients and a short memory of their squares (:math:`\beta_2` of 0.5 or 0.9), where Adam
    diverges: each gradient is divided by an estimate that has seen it, so no step is longer than
    :math:`\eta / \sqrt{1 - \beta_2}`. State: ``exp_avg`` (:math:`m`, of divided gradients), ``exp_avg_sq``
    (:math:`v`). As in the paper; the defaults are those of the authors' code. That code gathers
    :math:`\eta` in :math:`m`, so that a change of the learning rate takes effect slowly, and takes
    :math:`\lambda p` without :math:`\eta` after the step; here both are as in AdamW. HeavyBall has
    :math:`\epsilon` as a lower bound of the root.

    References
    ----------
    Ziyin, Wang and Ueda, LaProp: Separating Momentum and Adaptivity in Adam, arXiv:2002.04839, 2020.

    Examples
    --------
    A single large gradient: Adam without a memory of squares runs away with it, LaProp does not.

    >>> import numpy as np, fastopt
    >>> w = {"adam": np.zeros(1), "laprop": np.zeros(1)}
    >>> adam = fastopt.Adam(w["adam"], lr=0.1, betas=(0.9, 0.1))
    >>> laprop = fastopt.LaProp(w["laprop"], lr=0.1, betas=(0.9, 0.1))
    >>> for gradient in [-1000.0] + 8 * [1.0]:
    ...     adam.step(np.full(1, gradient))
    ...     laprop.step(np.full(1, gradient))
    >>> w["adam"].round(2), w["laprop"].round(2)
    (array([29.09]), array([0.14]))
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 4e-4,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-15,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)

    rule = Rule(laprop, ("exp_avg", "exp_avg_sq"), scalars, decay="decoupled", squares=("exp_avg_sq",))
