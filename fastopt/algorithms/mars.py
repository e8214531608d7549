"""MARS: AdamW of gradients that are corrected by how they change, so that they vary less."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Measure, Rule
from fastopt.optimizer import Optimizer, Options


def measure(p, g, exp_avg, exp_avg_sq, last_grad, correction):
    return g + correction * (g - last_grad)


def measure_scalars(step, betas, gamma):
    beta1, _ = betas
    return (0.0 if step == 1 else gamma * beta1 / (1.0 - beta1),)


def mars(
    p, g, exp_avg, exp_avg_sq, last_grad,
    correction, clip, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction2, eps, decay,
):  # fmt: skip
    corrected = clip * (g + correction * (g - last_grad))
    exp_avg = beta1 * exp_avg + one_minus_beta1 * corrected
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (corrected * corrected)
    p = p - (step_size * exp_avg / (math.sqrt(exp_avg_sq) * correction2 + eps) + decay * p)
    return p, exp_avg, exp_avg_sq, g


def scalars(step, size, corrected_sq, lr, betas, eps, weight_decay, gamma):
    beta1, beta2 = betas
    correction = 0.0 if step == 1 else gamma * beta1 / (1.0 - beta1)
    norm = math.sqrt(corrected_sq)
    clip = 1.0 / norm if norm > 1.0 else 1.0  # of NaN, 1: it shall stay where it is
    step_size, correction2 = lr / (1.0 - beta1**step), 1.0 / math.sqrt(1.0 - beta2**step)
    decay = lr * weight_decay
    return correction, clip, step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction2, eps, decay


class MARS(Optimizer):
    r"""MARS: AdamW of gradients that are corrected by how they change, so that they vary less.

    .. math::
        c_t &= g_t + \gamma \frac{\beta_1}{1 - \beta_1} (g_t - g_{t-1}), \qquad
        \tilde c_t = c_t / \max(1, \lVert c_t \rVert) \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \tilde c_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) \tilde c_t^2 \\
        p_t &= (1 - \eta \lambda)\, p_{t-1}
        - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`c_1 = g_1`. The norm is that of each array.

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
    gamma : float or schedule
        :math:`\gamma \ge 0`, how much of the correction is made.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same without correction and clipping.

    Notes
    -----
    For large language models, in the place of AdamW, where one more buffer is there to spare. State:
    ``exp_avg`` (:math:`m`), ``exp_avg_sq`` (:math:`v`), ``last_grad`` (:math:`g_{t-1}`). Two passes: the
    first measures, 8 bytes a float32 parameter, the second updates, 36. This is MARS-AdamW in the
    approximate version: the paper's exact one takes :math:`g_{t-1}` anew, at the old parameters with the new
    batch. The first step has no correction, as in timm; in the authors' code :math:`g_0 = 0`, so that
    :math:`c_1` is :math:`1 + \gamma \beta_1 / (1 - \beta_1)` times as large before it is clipped (1.475 by
    default). That code updates only matrices so, and all else by AdamW with ``lr=3e-3, betas=(0.9,
    0.95), weight_decay=0.1``, unless ``optimize_1d=True``. timm has ``betas=(0.9, 0.99)``.
    The decay is added to the step before both are taken from the parameter; see :class:`fastopt.AdamW`.

    References
    ----------
    Yuan et al., MARS: Unleashing the Power of Variance Reduction for Training Large Models, arXiv:2411.10438,
    2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(2)
    >>> opt = fastopt.MARS(w, lr=0.1)
    >>> for grad in (np.array([3.0, 4.0]), np.array([300.0, 400.0])):  # both count with norm 1
    ...     opt.step(grad)
    >>> w.round(4)
    array([-0.2, -0.2])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 3e-3,
        betas: Any = (0.95, 0.99),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        gamma: Any = 0.025,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, gamma=gamma, **options
        )

    rule = Rule(
        mars,
        ("exp_avg", "exp_avg_sq", "last_grad"),
        scalars,
        measure=Measure(measure, ("square",), measure_scalars),
        squares=("exp_avg_sq",),
    )
