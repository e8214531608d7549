"""Yogi."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def yogi(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, one_minus_beta2, correction, eps, decay,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    square = g * g
    change = one_minus_beta2 * square
    # In this order NaN comes through, and Inf in both stays Inf.
    held = exp_avg_sq if exp_avg_sq == square else exp_avg_sq - change
    exp_avg_sq = exp_avg_sq + change if exp_avg_sq < square else held
    p = p - (decay * p + step_size * exp_avg / (math.sqrt(exp_avg_sq) * correction + eps))
    return p, exp_avg, exp_avg_sq


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    step_size = lr / (1.0 - beta1**step)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    return step_size, beta1, 1.0 - beta1, 1.0 - beta2, correction, eps, lr * weight_decay


class Yogi(Optimizer):
    r"""Yogi: Adam whose estimate of the squares changes by steps of a bounded size, also downwards.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= v_{t-1} - (1 - \beta_2) \operatorname{sign}(v_{t-1} - g_t^2)\, g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        p_t &= (1 - \eta \lambda)\, p_{t-1} - \eta\, \hat m_t / (\sqrt{\hat v_t} + \epsilon)

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
        :math:`\lambda \ge 0`, decoupled.
    initial_accumulator_value : float
        :math:`v_0 \ge 0`.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same with an average of the squares.

    Notes
    -----
    When gradients are sparse or come in bursts, and Adam's steps grow too quickly after one: Adam forgets a
    large gradient at the rate :math:`1 - \beta_2`, Yogi by the squares of the small ones that follow.
    State: ``exp_avg`` (:math:`m`), ``exp_avg_sq`` (:math:`v`). The bias is corrected as in optax and
    in the ports to torch; the paper's algorithm has no correction, and TensorFlow's puts :math:`\epsilon`
    before it. Those three start :math:`m` too at ``initial_accumulator_value``, which moves parameters that
    have no gradient; here it starts at zero. Where :math:`v` and :math:`g^2` have both overflowed, :math:`v`
    stays infinite and the parameter stays where it is, as with Adam; optax gives NaN. The ports' decay is
    coupled; optax and the paper have none. Here it is added to the step before both are taken from the
    parameter; see AdamW.

    References
    ----------
    Zaheer, Reddi, Sachan, Kale and Kumar, Adaptive Methods for Nonconvex Optimization, NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(1)
    >>> opt = fastopt.Yogi(w, betas=(0.9, 0.9), initial_accumulator_value=4.0)
    >>> opt.step(np.ones(1))
    >>> opt.state[0]["exp_avg_sq"]  # less by a tenth of the square; Adam's would be 3.7
    array([3.9])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-3,
        weight_decay: Any = 0.0,
        initial_accumulator_value: float = 1e-6,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            **options,
        )

    rule = Rule(yogi, ("exp_avg", "exp_avg_sq"), scalars, decay="decoupled", squares=("exp_avg_sq",))

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float | str]:
        return {"exp_avg_sq": group["initial_accumulator_value"]}
