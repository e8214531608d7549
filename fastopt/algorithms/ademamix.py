"""AdEMAMix: Adam with a second, slower momentum."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def ademamix(
    p, g, exp_avg_fast, exp_avg_slow, exp_avg_sq,
    fast_size, slow_size, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, one_minus_beta3,
    correction, eps, decay,
):  # fmt: skip
    exp_avg_fast = beta1 * exp_avg_fast + one_minus_beta1 * g
    exp_avg_slow = beta3 * exp_avg_slow + one_minus_beta3 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    mixed = fast_size * exp_avg_fast + slow_size * exp_avg_slow
    p = p - (decay * p + mixed / (math.sqrt(exp_avg_sq) * correction + eps))
    return p, exp_avg_fast, exp_avg_slow, exp_avg_sq


def scalars(step, lr, betas, alpha, beta3_warmup, alpha_warmup, eps, weight_decay):
    beta1, beta2, beta3 = betas
    fast_size = lr / (1.0 - beta1**step)
    slow_size = lr * alpha * step / max(step, alpha_warmup)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    if step < beta3_warmup:  # the average's memory, in steps, grows from that of beta1
        share = step / beta3_warmup
        start = -1.0 / math.log(beta1) if beta1 > 0.0 else 0.0
        end = -1.0 / math.log(beta3) if beta3 > 0.0 else 0.0
        memory = (1.0 - share) * start + share * end
        beta3 = math.exp(-1.0 / memory) if memory > 0.0 else 0.0
    return (
        fast_size, slow_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, beta3, 1.0 - beta3,
        correction, eps, lr * weight_decay,
    )  # fmt: skip


class AdEMAMix(Optimizer):
    r"""AdEMAMix: AdamW with a second momentum that remembers gradients ten thousands of steps old.

    .. math::
        m_{1,t} &= \beta_1 m_{1,t-1} + (1 - \beta_1) g_t, \qquad \hat m_{1,t} = m_{1,t} / (1 - \beta_1^t) \\
        m_{2,t} &= \beta_{3,t}\, m_{2,t-1} + (1 - \beta_{3,t}) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        p_t &= (1 - \eta \lambda)\, p_{t-1}
               - \eta\, (\hat m_{1,t} + \alpha_t m_{2,t}) / (\sqrt{\hat v_t} + \epsilon)

    During their warm-ups, :math:`\alpha_t` grows linearly from 0 to :math:`\alpha`, and the
    half-life of :math:`\beta_{3,t}` linearly from that of :math:`\beta_1` to that of :math:`\beta_3`.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    betas : three of float, or schedule of such
        :math:`\beta_1, \beta_2, \beta_3` in [0, 1): of the fast average, the squares, the slow average.
    alpha : float or schedule
        :math:`\alpha \ge 0`, the weight of the slow average. The paper takes 4 to 10.
    beta3_warmup, alpha_warmup : float or schedule
        Numbers of steps. At 0 there is no warm-up. The paper takes all steps of the training for both.
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same with ``alpha=0``.

    Notes
    -----
    For long trainings of transformers, where old gradients are still of use. State: ``exp_avg_fast``
    (:math:`m_1`), ``exp_avg_slow`` (:math:`m_2`), ``exp_avg_sq`` (:math:`v`). As in the paper and in its
    authors' code for torch, whose default is ``alpha=2``; their code for optax has 5. In that code's warm-up,
    :math:`\beta` is taken 1e-8 larger. optax's own has schedules in place of the warm-ups; they
    count from 0, not from 1. The decay is added to the step before both are taken from the parameter;
    see :class:`fastopt.AdamW`.

    References
    ----------
    Pagliardini, Ablin and Grangier, The AdEMAMix Optimizer: Better, Faster, Older, arXiv:2409.03137, 2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> steps = 2000
    >>> opt = fastopt.AdEMAMix(
    ...     w, lr=0.01, betas=(0.9, 0.99, 0.999), beta3_warmup=steps, alpha_warmup=steps
    ... )
    >>> for _ in range(steps):
    ...     opt.step(2 * w)  # the gradient of sum(w**2)
    >>> bool(abs(w).max() < 0.01)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999, 0.9999),
        alpha: Any = 5.0,
        beta3_warmup: Any = 0.0,
        alpha_warmup: Any = 0.0,
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            alpha=alpha,
            beta3_warmup=beta3_warmup,
            alpha_warmup=alpha_warmup,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )

    rule = Rule(
        ademamix,
        ("exp_avg_fast", "exp_avg_slow", "exp_avg_sq"),
        scalars,
        decay="decoupled",
        squares=("exp_avg_sq",),
    )
