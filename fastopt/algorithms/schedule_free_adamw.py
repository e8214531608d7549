"""ScheduleFreeAdamW: AdamW with an average in the place of momentum and of a schedule."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.algorithms._schedule_free import CARRY, ScheduleFree, average
from fastopt.engine import Rule
from fastopt.optimizer import Options


def schedule_free_adamw(
    p, g, z, exp_avg_sq, lr, pull, push, beta2, one_minus_beta2, correction, eps, weight_decay
):
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    update = g / (math.sqrt(exp_avg_sq) * correction + eps) + weight_decay * p
    return p + (pull * (z - p) - push * update), z - lr * update, exp_avg_sq


def scalars(
    step, weight_sum, lr_max, beta,
    lr, betas, eps, weight_decay, warmup_steps, r, weight_lr_power,
):  # fmt: skip
    beta1, beta2 = betas
    carry, lr, pull, push = average(
        step, weight_sum, lr_max, beta, lr, beta1, warmup_steps, r, weight_lr_power
    )
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    return carry, (lr, pull, push, beta2, 1.0 - beta2, correction, eps, weight_decay)


class ScheduleFreeAdamW(ScheduleFree):
    r"""Schedule-Free AdamW: AdamW with an average in the place of momentum and of a schedule.

    .. math::
        y_t &= (1 - \beta_1) z_t + \beta_1 x_t, \qquad g_t = \nabla f(y_t) \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        z_{t+1} &= z_t - \eta_t \bigl(g_t / (\sqrt{\hat v_t} + \epsilon) + \lambda y_t\bigr) \\
        x_{t+1} &= (1 - c_t) x_t + c_t z_{t+1}, \qquad
        c_t = w_t / \textstyle\sum_{i \le t} w_i, \qquad
        w_t = t^r \bigl(\max_{i \le t} \eta_i\bigr)^k

    While training the parameters are :math:`y`, where the gradients are to be taken. Call :meth:`eval` to
    have them be :math:`x`, the average, which is the result, and :meth:`train` to go on.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: that of AdamW with a schedule, or up to ten times of it.
    betas : pair of float, or schedule of such
        :math:`\beta_1` in (0, 1): how near to the average the gradients are taken; at 0 there is no average.
        :math:`\beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled, at :math:`y`.
    warmup_steps : float
        Steps in which the learning rate rises to :math:`\eta`, in equal parts. The authors advise a warm-up.
    r : float or schedule
        :math:`r`: how much more late steps weigh in the average than early ones.
    weight_lr_power : float or schedule
        :math:`k \ge 0`: how much less steps of a smaller learning rate weigh.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    ScheduleFreeSGD : The same for gradient descent.

    Notes
    -----
    For training whose end is not known beforehand, and without a schedule to choose. State: ``z``, which
    starts as a copy of the parameters, ``exp_avg_sq`` (:math:`v`), and three numbers an array:
    ``weight_sum``, ``lr_max`` and ``beta``, the one that :math:`y` was made with. As in the authors'
    package schedulefree, whose AdamWScheduleFree begins outside of training: it wants a ``train()`` first.
    It weighs all arrays of a group alike, here each has a count of its own steps; and where :math:`\beta_1`
    changes, it takes :math:`y` for made with the new one. optax's ``schedule_free_adamw`` has no :math:`r`,
    starts its warm-up at 0, and computes :math:`x` at each step. The :math:`x` of ``eval()`` is :math:`z +
    (y - z) / \beta_1`. It is rounded, and so is the :math:`y` that ``train()`` comes back to: by no more
    than 4 eps of the larger of :math:`x` and :math:`z`, mostly less than one. Without ``eval()`` nothing is
    lost. ``z`` is in float32 whatever ``state_dtype`` is: it is where the parameters go.

    References
    ----------
    Defazio et al., The Road Less Scheduled, arXiv:2405.15682, 2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.ScheduleFreeAdamW(w, lr=0.1, warmup_steps=10)
    >>> rng = np.random.default_rng(0)
    >>> for _ in range(1000):
    ...     opt.step(w + rng.standard_normal(2))  # of sum(w**2) / 2, with noise
    >>> opt.eval()
    >>> bool(abs(w).max() < 0.2)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 2.5e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        warmup_steps: Any = 0.0,
        r: Any = 0.0,
        weight_lr_power: Any = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            r=r,
            weight_lr_power=weight_lr_power,
            **options,
        )

    rule = Rule(
        schedule_free_adamw, ("z", "exp_avg_sq"), scalars, CARRY, squares=("exp_avg_sq",), exact=("z",)
    )
