"""DAdaptAdam: Adam whose learning rate is an estimate of the distance to the solution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Measure, Rule
from fastopt.optimizer import Optimizer, Options


def measure(
    p, g, exp_avg, exp_avg_sq, s,
    rate, beta1, avg_rate, beta2, one_minus_beta2, root_beta2, s_rate, eps, l2,
):  # fmt: skip
    g = g + l2 * p
    weighted = rate * g
    direction = s / (math.sqrt(exp_avg_sq) + eps)
    exp_avg = beta1 * exp_avg + avg_rate * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    s = root_beta2 * s + s_rate * g
    return exp_avg, exp_avg_sq, s, weighted, direction, s


def measure_scalars(
    step, d, numerator_weighted,
    lr, betas, eps, weight_decay, decouple, use_bias_correction,
):  # fmt: skip
    beta1, beta2 = betas
    root = math.sqrt(beta2)
    correction = math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step) if use_bias_correction else 1.0
    rate = d * lr * correction
    avg_rate, s_rate = (1.0 - beta1) * rate, (1.0 - root) * rate
    return rate, beta1, avg_rate, beta2, 1.0 - beta2, root, s_rate, eps, 0.0 if decouple else weight_decay


def dadaptadam(p, g, exp_avg, exp_avg_sq, s, eps, decay):
    return p - (exp_avg / (math.sqrt(exp_avg_sq) + eps) + decay * p)


def scalars(
    step, size, numerator, s_l1, d, numerator_weighted,
    lr, betas, eps, weight_decay, decouple, use_bias_correction, growth_rate,
):  # fmt: skip
    beta1, beta2 = betas
    root = math.sqrt(beta2)
    correction = math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step) if use_bias_correction else 1.0
    decay = d * lr * correction * weight_decay if decouple else 0.0
    numerator_weighted = root * numerator_weighted + (1.0 - root) * numerator
    d_hat = numerator_weighted / ((1.0 - root) * s_l1) if s_l1 > 0.0 else 0.0
    limited = min(d_hat, growth_rate * d)
    return (max(d, limited), numerator_weighted), (eps, decay)


class DAdaptAdam(Optimizer):
    r"""DAdaptAdam: Adam whose learning rate is an estimate of the distance to the solution.

    .. math::
        r_t &= \eta\, d_t \sqrt{1 - \beta_2^t} / (1 - \beta_1^t) \\
        n_t &= \sqrt{\beta_2}\, n_{t-1} + (1 - \sqrt{\beta_2})\, r_t
        \langle g_t, s_{t-1} / (\sqrt{v_{t-1}} + \epsilon) \rangle \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) r_t g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        s_t &= \sqrt{\beta_2}\, s_{t-1} + (1 - \sqrt{\beta_2})\, r_t g_t \\
        p_t &= p_{t-1} - m_t / (\sqrt{v_t} + \epsilon) \\
        d_{t+1} &= \max\bigl(d_t, \min(\gamma d_t,\; n_t / ((1 - \sqrt{\beta_2}) \lVert s_t \rVert_1))\bigr)

    The product and the norm are those of all arrays together. The factor of the betas in :math:`r_t` is 1
    without bias correction. Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first;
    decoupled, it takes :math:`r_t \lambda p_{t-1}` from the parameters.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        :math:`\eta \ge 0`, a factor of the estimate: 1, or a schedule that begins and ends below 1.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    decouple : bool
        Decouple the weight decay.
    use_bias_correction : bool
        Use Adam's bias correction.
    d0 : float
        :math:`d_1 > 0`, well below the distance to the solution.
    growth_rate : float or schedule
        :math:`\gamma \ge 1`: the most that the estimate grows by in a step. Infinite, or 1.02 for a kind of
        warm-up.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Prodigy : Its successor, which weighs the late gradients more.

    Notes
    -----
    For Adam without a learning rate to look for, with less state than its successor, Prodigy. State:
    ``exp_avg`` (:math:`m`), ``exp_avg_sq`` (:math:`v`), ``s``, and two numbers for the whole optimizer:
    ``d``, which starts at :math:`d_1`, and ``numerator_weighted`` (:math:`n`). Two passes: the first
    updates the state and measures, 32 bytes a float32 parameter, the second moves the parameters, 16. As in
    the authors' package dadaptation, without its ``layer_scale``. While all gradients are zero it skips the
    steps, and so the decay; optax's ``dadapt_adamw`` gives NaN; here the estimate stays. optax always
    corrects the bias, decouples the decay, and has no :math:`\gamma`. The groups share one estimate: give
    them the same :math:`\beta_2` and :math:`\gamma`, and one learning rate, or 0 where nothing shall move.
    The package refuses others; here they are left to you. The learning rate is inside :math:`m`: where it
    is set to 0, the parameters come to rest within some steps, while in the package they go on. An array
    without a gradient does not count in that step. ``s`` is in float32 whatever ``state_dtype`` is: noise in
    it would look like distance.

    References
    ----------
    Defazio and Mishchenko, Learning-Rate-Free Learning by D-Adaptation, arXiv:2301.07733, 2023.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> for distance in (0.01, 1.0, 1000.0):  # to the solution
    ...     w = np.array([distance, -distance])
    ...     opt = fastopt.DAdaptAdam(w)
    ...     for _ in range(300):
    ...         opt.step(2 * w)  # the gradient of sum(w**2)
    ...     print((w / distance).round(4) + 0.0, 1 < opt.state[0]["d"] / distance < 5)
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
        decouple: bool = False,
        use_bias_correction: bool = False,
        d0: float = 1e-6,
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
            d0=d0,
            growth_rate=growth_rate,
            **options,
        )

    rule = Rule(
        dadaptadam,
        ("exp_avg", "exp_avg_sq", "s"),
        scalars,
        carry=("d", "numerator_weighted"),
        measure=Measure(
            measure,
            ("product", "abs"),
            measure_scalars,
            writes=("exp_avg", "exp_avg_sq", "s"),
            over="all",
        ),
        writes=(),
        squares=("exp_avg_sq",),
        exact=("s",),
    )

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float | str]:
        return {"d": group["d0"]}
