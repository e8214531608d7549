"""Adam, with coupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adam(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, weight_decay,
):  # fmt: skip
    g = g + weight_decay * p
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    p = p - step_size * exp_avg / (math.sqrt(exp_avg_sq) * correction + eps)
    return p, exp_avg, exp_avg_sq


def adam_amsgrad(
    p, g, exp_avg, exp_avg_sq, max_exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, weight_decay,
):  # fmt: skip
    g = g + weight_decay * p
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    max_exp_avg_sq = max(exp_avg_sq, max_exp_avg_sq)
    p = p - step_size * exp_avg / (math.sqrt(max_exp_avg_sq) * correction + eps)
    return p, exp_avg, exp_avg_sq, max_exp_avg_sq


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    step_size = lr / (1.0 - beta1**step)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction, eps, weight_decay


class Adam(Optimizer):
    r"""Adam: momentum, divided by the running size of the gradient, both corrected for their start at zero.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        p_t &= p_{t-1} - \eta\, \hat m_t / (\sqrt{\hat v_t} + \epsilon)

    Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first. With AMSGrad,
    :math:`v_t` in the last line is the greatest so far.

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
        :math:`\lambda \ge 0`, coupled (an L2 penalty); see AdamW for the other kind.
    amsgrad : bool
        Use AMSGrad.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same with decoupled weight decay.

    Notes
    -----
    For most networks, when the weight decay is an L2 penalty or there is none. State: ``exp_avg``
    (:math:`m`), ``exp_avg_sq`` (:math:`v`), and ``max_exp_avg_sq`` with AMSGrad. As in torch and in the
    paper's algorithm 1. AMSGrad takes the maximum before the bias correction, as torch and Keras do; optax
    takes it after. TensorFlow's old optimizer has :math:`\epsilon` before the correction (the paper's
    :math:`\hat\epsilon`). The powers of :math:`\beta` are computed anew in double at each step, not
    multiplied up.

    References
    ----------
    Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv:1412.6980, 2014. Reddi, Kale and Kumar,
    On the Convergence of Adam and Beyond, arXiv:1904.09237, 2018 (AMSGrad).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.Adam(w, lr=0.1)
    >>> opt.step(np.array([100.0, -1e-3]))  # the first step is lr, whatever the gradient's size
    >>> w.round(4)
    array([ 0.9, -1.9])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            **options,
        )

    plain = Rule(adam, ("exp_avg", "exp_avg_sq"), scalars, decay="coupled", squares=("exp_avg_sq",))
    with_amsgrad = Rule(
        adam_amsgrad,
        ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        scalars,
        decay="coupled",
        squares=("exp_avg_sq", "max_exp_avg_sq"),
    )

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        return cls.with_amsgrad if group["amsgrad"] else cls.plain
