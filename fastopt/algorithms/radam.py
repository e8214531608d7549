"""RAdam: Adam with a rectified start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def radam(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, highest, added, weight_decay,
):  # fmt: skip
    g = g + weight_decay * p
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    p = p - step_size * exp_avg / (min(math.sqrt(exp_avg_sq), highest) + added)
    return p, exp_avg, exp_avg_sq


def radam_decoupled(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, highest, added, decay,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    p = p - (decay * p + step_size * exp_avg / (min(math.sqrt(exp_avg_sq), highest) + added))
    return p, exp_avg, exp_avg_sq


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    step_size = lr / (1.0 - beta1**step)
    share = 1.0 - beta2**step
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * step * (1.0 - share) / share
    # At first the step is not divided: the root is cut to 0, and 1 is added. (Times 0, an Inf would be NaN.)
    highest, added = 0.0, 1.0
    if length > 5.0:
        rest = (longest - 4.0) * (longest - 2.0) * length
        step_size *= math.sqrt(share * (length - 4.0) * (length - 2.0) * longest / rest)
        highest, added = math.inf, eps
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, highest, added, weight_decay


def decoupled_scalars(step, lr, betas, eps, weight_decay):
    return scalars(step, lr, betas, eps, lr * weight_decay)


class RAdam(Optimizer):
    r"""RAdam: Adam that waits for its estimate of the squares, and then grows into it.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad \hat m_t = m_t / (1 - \beta_1^t) \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \rho_\infty &= \frac{2}{1 - \beta_2} - 1, \qquad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t} \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2)\,\rho_\infty}
        {(\rho_\infty - 4)(\rho_\infty - 2)\,\rho_t}} \\
        p_t &= p_{t-1} - \eta\, \hat m_t \begin{cases}
        r_t \sqrt{1 - \beta_2^t} / (\sqrt{v_t} + \epsilon) & \text{if } \rho_t > 5 \\ 1 & \text{else}
        \end{cases}

    Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first; decoupled, it takes
    :math:`\eta \lambda p_{t-1}` from the parameter instead.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`.
    decoupled_weight_decay : bool
        Decouple the weight decay, as AdamW does.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same without rectification; it often wants a warm-up of the learning rate.

    Notes
    -----
    When Adam diverges in its first steps, and no warm-up shall be tuned. State: ``exp_avg`` (:math:`m`),
    ``exp_avg_sq`` (:math:`v`). As in torch, whose :math:`\epsilon` is added before the bias of :math:`v` is
    corrected; optax corrects first, and the paper has no :math:`\epsilon`. The paper rectifies from
    :math:`\rho_t > 4`, torch from 5, optax and the authors' code from 5 included. With the default betas the
    first five steps are plain momentum, of the gradient's size. The decay is added to the step before
    both are taken from the parameter; see AdamW.

    References
    ----------
    Liu, Jiang, He, Chen, Liu, Gao and Han, On the Variance of the Adaptive Learning Rate and Beyond,
    arXiv:1908.03265, 2019.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(1)
    >>> opt = fastopt.RAdam(w, lr=1.0)
    >>> for _ in range(6):
    ...     opt.step(np.full(1, 100.0))
    ...     print(w.round(3))  # five steps of the gradient's size, and one of a rectified one
    [-100.]
    [-200.]
    [-300.]
    [-400.]
    [-500.]
    [-500.026]
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            **options,
        )

    coupled = Rule(radam, ("exp_avg", "exp_avg_sq"), scalars, decay="coupled", squares=("exp_avg_sq",))
    decoupled = Rule(
        radam_decoupled,
        ("exp_avg", "exp_avg_sq"),
        decoupled_scalars,
        decay="decoupled",
        squares=("exp_avg_sq",),
    )

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        return cls.decoupled if group["decoupled_weight_decay"] else cls.coupled
