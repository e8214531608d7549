"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def nadam(
    p, g, exp_avg, exp_avg_sq,
    gradient_step, momentum_step, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps,
    weight_decay,
):  # fmt: skip
    g = g + weight_decay * p
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    step = gradient_step * g + momentum_step * exp_avg
    return p - step / (math.sqrt(exp_avg_sq) * correction + eps), exp_avg, exp_avg_sq


def nadam_decoupled(
    p, g, exp_avg, exp_avg_sq,
    gradient_step, momentum_step, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, decay,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    step = gradient_step * g + momentum_step * exp_avg
    p = p - (decay * p + step / (math.sqrt(exp_avg_sq) * correction + eps))
    return p, exp_avg, exp_avg_sq


def scalars(step, mu_product, lr, betas, eps, weight_decay, momentum_decay):
    beta1, beta2 = betas
    mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * momentum_decay))
    mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1.0) * momentum_decay))
    mu_product = mu_product * mu
    gradient_step = lr * (1.0 - mu) / (1.0 - mu_product)
    momentum_step = lr * mu_next / (1.0 - mu_product * mu_next)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    kept = mu_product if mu_product > 1e-30 else 0.0  # it counts no more, and would become subnormal
    return (kept,), (
        gradient_step, momentum_step, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction, eps, weight_decay,
    )  # fmt: skip


def decoupled_scalars(step, mu_product, lr, betas, eps, weight_decay, momentum_decay):
    return scalars(step, mu_product, lr, betas, eps, lr * weight_decay, momentum_decay)


class NAdam(Optimizer):
    r"""NAdam: Adam whose momentum looks ahead, as Nesterov's does, and grows from one half.

    .. math::
        \mu_t &= \beta_1 \left(1 - \tfrac{1}{2}\, 0.96^{t \psi}\right) \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        \hat m_t &= \frac{\mu_{t+1} m_t}{1 - \prod_{i=1}^{t+1} \mu_i}
        + \frac{(1 - \mu_t) g_t}{1 - \prod_{i=1}^{t} \mu_i} \\
        p_t &= p_{t-1} - \eta\, \hat m_t / (\sqrt{\hat v_t} + \epsilon)

    Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first; decoupled, it takes
    :math:`\eta \lambda p_{t-1}` from the parameter instead.

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
        :math:`\lambda \ge 0`.
    momentum_decay : float or schedule
        :math:`\psi \ge 0`: how quickly :math:`\mu_t` grows from :math:`\beta_1 / 2` to :math:`\beta_1`.
    decoupled_weight_decay : bool
        Decouple the weight decay, as AdamW does.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Adam : The same without the look ahead.

    Notes
    -----
    When Adam is slow along ravines and Nesterov's momentum helps. State: ``exp_avg`` (:math:`m`),
    ``exp_avg_sq`` (:math:`v`), and for each array ``mu_product``, the product of the :math:`\mu_i`. As in
    torch, but for that product: torch keeps it in float32; here it is in double, and zero once it is below
    1e-30 and counts no more. As there and in Keras, :math:`\mu_t` is in the step alone, and :math:`\beta_1`
    in the average. optax has no schedule, :math:`\mu_t = \beta_1`, as here with a large ``momentum_decay``.
    The decay is added to the step before both are taken from the parameter; see AdamW.

    References
    ----------
    Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop, 2016.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(1)
    >>> opt = fastopt.NAdam(w, lr=1.0, momentum_decay=1e6)  # mu is 0.9 from the first step on
    >>> opt.step(np.array([100.0]))
    >>> w.round(4)  # 0.9 * 0.1 / (1 - 0.9**2) + 0.1 / (1 - 0.9)
    array([-1.4737])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        momentum_decay: Any = 4e-3,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            **options,
        )

    coupled = Rule(
        nadam, ("exp_avg", "exp_avg_sq"), scalars, ("mu_product",), decay="coupled", squares=("exp_avg_sq",)
    )
    decoupled = Rule(
        nadam_decoupled,
        ("exp_avg", "exp_avg_sq"),
        decoupled_scalars,
        ("mu_product",),
        decay="decoupled",
        squares=("exp_avg_sq",),
    )

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        return cls.decoupled if group["decoupled_weight_decay"] else cls.coupled

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float | str]:
        return {"mu_product": 1.0}
