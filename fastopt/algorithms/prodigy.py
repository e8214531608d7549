"""Prodigy: Adam that finds its learning rate from estimates of the distance to the solution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Measure, Rule
from fastopt.optimizer import Optimizer, Options


def measure(
    p, g, exp_avg, exp_avg_sq, s, p0,
    beta1, avg_rate, beta2, sq_rate, beta3, weight, s_weight, l2,
):  # fmt: skip
    g = g + l2 * p
    exp_avg = beta1 * exp_avg + avg_rate * g
    exp_avg_sq = beta2 * exp_avg_sq + sq_rate * (g * g)
    s = beta3 * s + s_weight * g
    return exp_avg, exp_avg_sq, s, weight * g, p0 - p, s


def measure_scalars(
    step, d, d_max, d_numerator,
    lr, betas, weight_decay, decouple, use_bias_correction, safeguard_warmup, d0,
):  # fmt: skip
    beta1, beta2 = betas
    correction = math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step) if use_bias_correction else 1.0
    weight = d / d0 * d * lr * correction
    s_weight = d / d0 * d if safeguard_warmup and lr > 0.0 else weight
    l2 = 0.0 if decouple else weight_decay
    return beta1, (1.0 - beta1) * d, beta2, (1.0 - beta2) * d * d, math.sqrt(beta2), weight, s_weight, l2


def prodigy(p, g, exp_avg, exp_avg_sq, s, p0, rate, eps, decay):
    return p - (rate * exp_avg / (math.sqrt(exp_avg_sq) + eps) + decay * p)


def scalars(
    step, size, numerator, s_l1, d, d_max, d_numerator,
    lr, betas, eps, weight_decay, decouple, use_bias_correction, d0, d_coef, growth_rate,
):  # fmt: skip
    beta1, beta2 = betas
    correction = math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step) if use_bias_correction else 1.0
    rate = d * lr * correction
    d_numerator = math.sqrt(beta2) * d_numerator + numerator
    d_hat = d_coef * d_numerator / s_l1 if s_l1 > 0.0 else 0.0
    d = max(d, d_hat) if d == d0 else d  # the first estimate may be as large as it is
    d_max = max(d_max, d_hat)
    d = min(d_max, growth_rate * d)
    return (d, d_max, d_numerator), (rate, d * eps, rate * weight_decay if decouple else 0.0)


class Prodigy(Optimizer):
    r"""Prodigy: Adam that finds its learning rate from estimates of the distance to the solution.

    .. math::
        r_t &= \eta\, d_t \sqrt{1 - \beta_2^t} / (1 - \beta_1^t), \qquad w_t = r_t d_t / d_1 \\
        n_t &= \sqrt{\beta_2}\, n_{t-1} + w_t \langle g_t, p_0 - p_{t-1} \rangle, \qquad
        s_t = \sqrt{\beta_2}\, s_{t-1} + w_t g_t \\
        \hat d_t &= c\, n_t / \lVert s_t \rVert_1, \qquad
        d_{t+1} = \min\bigl(\gamma d_t, \max(d_1, \hat d_1, \ldots, \hat d_t)\bigr) \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) d_t g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) d_t^2 g_t^2 \\
        p_t &= p_{t-1} - r_t (m_t / (\sqrt{v_t} + d_{t+1} \epsilon) + \lambda p_{t-1})

    The product and the norm are those of all arrays together. The factor of the betas in :math:`r_t` is 1
    without bias correction. Until an estimate exceeds :math:`d_1`, :math:`\gamma` counts as infinite.
    Coupled, the weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` instead.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        :math:`\eta \ge 0`, a factor of the estimate: 1, or a schedule that ends below 1, such as a cosine.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`.
    decouple : bool
        Decouple the weight decay from the gradients.
    use_bias_correction : bool
        Use Adam's bias correction.
    safeguard_warmup : bool
        Leave the learning rate out of :math:`s`: for a warm-up, which would make the estimates too large.
    d0 : float
        :math:`d_1 > 0`, well below the distance to the solution.
    d_coef : float or schedule
        :math:`c \ge 0`, by which the estimates are multiplied. 0.5 or 2 is the way to tune the method.
    growth_rate : float or schedule
        :math:`\gamma \ge 1`: the most that the estimate grows by in a step. Infinite, or 1.02 for a kind of
        warm-up.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    DAdaptAdam : Its predecessor, with one buffer less.
    DoG : Gradient descent without a learning rate.

    Notes
    -----
    For Adam without a learning rate to look for. State: ``exp_avg`` (:math:`m`), ``exp_avg_sq``
    (:math:`v`), ``s``, ``p0``, the parameters at their first step, and three numbers for the whole
    optimizer: ``d`` and ``d_max``, the greatest estimate, which start at :math:`d_1`, and ``d_numerator``
    (:math:`n`). Two passes: the first updates the state and measures, 36 bytes a float32 parameter, the
    second moves the parameters, 16. As in the authors' package prodigyopt, with its ``beta3`` always
    :math:`\sqrt{\beta_2}`, and without its ``slice_p``. With :math:`\beta_1 = 0` it multiplies the gradient
    by the new estimate. While all gradients are zero it skips the steps, and so the decay; optax's
    ``prodigy`` gives NaN; here the estimate stays. optax always corrects the bias, decouples the decay, and
    has no :math:`\gamma`. The groups share one estimate: give them the same :math:`\beta_2`, :math:`c` and
    :math:`\gamma`, and one learning rate, or 0 where nothing shall move. prodigyopt refuses others; here
    they are left to you, and each group's counts in its own terms. An array without a gradient does not
    count in that step. In float32, :math:`p_0 - p` has few digits while the steps are tiny. ``s`` and ``p0``
    are in float32 whatever ``state_dtype`` is: noise in them would look like distance.

    References
    ----------
    Mishchenko and Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, arXiv:2306.06101, 2023.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> for distance in (0.01, 1.0, 1000.0):  # to the solution
    ...     w = np.array([distance, -distance])
    ...     opt = fastopt.Prodigy(w)
    ...     for _ in range(300):
    ...         opt.step(2 * w)  # the gradient of sum(w**2)
    ...     print((w / distance).round(4) + 0.0, 0.2 < opt.state[0]["d"] / distance < 1)
    [0. 0.] True
    [0. 0.] True
    [0. 0.] True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: Any = 1.0,
        growth_rate: Any = math.inf,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decouple=decouple,
            use_bias_correction=use_bias_correction,
            safeguard_warmup=safeguard_warmup,
            d0=d0,
            d_coef=d_coef,
            growth_rate=growth_rate,
            **options,
        )

    rule = Rule(
        prodigy,
        ("exp_avg", "exp_avg_sq", "s", "p0"),
        scalars,
        carry=("d", "d_max", "d_numerator"),
        measure=Measure(
            measure,
            ("product", "abs"),
            measure_scalars,
            writes=("exp_avg", "exp_avg_sq", "s"),
            over="all",
        ),
        writes=(),
        squares=("exp_avg_sq",),
        exact=("s", "p0"),
    )

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float | str]:
        return {"p0": "params", "d": group["d0"], "d_max": group["d0"]}
