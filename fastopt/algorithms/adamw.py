"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adamw(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, decay,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    p = p - (decay * p + step_size * exp_avg / (math.sqrt(exp_avg_sq) * correction + eps))
    return p, exp_avg, exp_avg_sq


def adamw_amsgrad(
    p, g, exp_avg, exp_avg_sq, max_exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, decay,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    max_exp_avg_sq = max(exp_avg_sq, max_exp_avg_sq)
    p = p - (decay * p + step_size * exp_avg / (math.sqrt(max_exp_avg_sq) * correction + eps))
    return p, exp_avg, exp_avg_sq, max_exp_avg_sq


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    step_size = lr / (1.0 - beta1**step)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction, eps, lr * weight_decay


class AdamW(Optimizer):
    r"""AdamW: Adam whose weight decay shrinks the parameters, not the gradients.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        p_t &= (1 - \eta \lambda)\, p_{t-1} - \eta\, \hat m_t / (\sqrt{\hat v_t} + \epsilon)

    With AMSGrad, :math:`v_t` in the last line is the greatest so far.

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
    amsgrad : bool
        Use AMSGrad.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Adam : The same with coupled weight decay.

    Notes
    -----
    For most networks, transformers first of all: the first method to try. State: ``exp_avg`` (:math:`m`),
    ``exp_avg_sq`` (:math:`v`), and ``max_exp_avg_sq`` with AMSGrad. As in torch: the decay is multiplied by
    the learning rate. The paper multiplies it by the schedule's factor alone; optax's default is
    ``weight_decay=1e-4``, Keras's 0.004. AMSGrad takes the maximum before the bias correction, as torch does.
    The decay is added to the step before both are taken from the parameter: torch multiplies by :math:`1 -
    \eta\lambda`, which float32 rounds to 1 where :math:`\eta\lambda` is below 3e-8 (:math:`2^{-25}`), and so
    loses the decay of fine-tuning.

    References
    ----------
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101, 2017.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> pack = fastopt.pack({"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)})
    >>> opt = fastopt.AdamW(pack, lr=0.1, weight_decay=0.0)
    >>> pack.grads["w"][:] = 3.0
    >>> opt.step()
    >>> pack.params["w"][0].round(4), pack.params["b"]
    (array([0.9, 0.9], dtype=float32), array([1., 1.], dtype=float32))
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 1e-2,
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

    plain = Rule(adamw, ("exp_avg", "exp_avg_sq"), scalars, decay="decoupled", squares=("exp_avg_sq",))
    with_amsgrad = Rule(
        adamw_amsgrad,
        ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        scalars,
        decay="decoupled",
        squares=("exp_avg_sq", "max_exp_avg_sq"),
    )

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        return cls.with_amsgrad if group["amsgrad"] else cls.plain
