"""StableAdamW: AdamW that takes shorter steps where its second moment lags behind the gradient."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Measure, Rule
from fastopt.optimizer import Optimizer, Options


def measure(p, g, exp_avg, exp_avg_sq, kept2, share2, eps):
    root = math.sqrt(kept2 * exp_avg_sq + share2 * (g * g))
    return g / (eps if root < eps else root)


def measure_scalars(step, betas, eps):
    _, beta2 = betas
    share2 = (1.0 - beta2) / (1.0 - beta2**step)
    return 1.0 - share2, share2, eps


def stableadamw(p, g, exp_avg, exp_avg_sq, step_size, kept1, share1, kept2, share2, eps, decay):
    exp_avg = kept1 * exp_avg + share1 * g
    exp_avg_sq = kept2 * exp_avg_sq + share2 * (g * g)
    p = p - (step_size * exp_avg / (math.sqrt(exp_avg_sq) + eps) + decay * p)
    return p, exp_avg, exp_avg_sq


def scalars(step, size, ratio_sq, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    share1, share2 = (1.0 - beta1) / (1.0 - beta1**step), (1.0 - beta2) / (1.0 - beta2**step)
    rms = math.sqrt(ratio_sq / size)
    step_size = lr / rms if rms > 1.0 else lr  # of NaN, lr: it shall stay where it is
    return step_size, 1.0 - share1, share1, 1.0 - share2, share2, eps, step_size * weight_decay


class StableAdamW(Optimizer):
    r"""StableAdamW: AdamW that takes shorter steps where its second moment lags behind the gradient.

    .. math::
        m_t &= \hat\beta_1 m_{t-1} + (1 - \hat\beta_1) g_t, \qquad
        v_t = \hat\beta_2 v_{t-1} + (1 - \hat\beta_2) g_t^2, \qquad
        \hat\beta = \beta\, \frac{1 - \beta^{t-1}}{1 - \beta^t} \\
        \eta_t &= \eta / \max(1, \mathrm{RMS}_t), \qquad
        \mathrm{RMS}_t = \sqrt{\operatorname{mean}(g_t^2 / \max(v_t, \epsilon^2))} \\
        p_t &= (1 - \eta_t \lambda)\, p_{t-1} - \eta_t\, m_t / (\sqrt{v_t} + \epsilon)

    The mean is over each array.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: about the size of a step, at most.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same without the clipping.

    Notes
    -----
    For large models whose loss has spikes, in the place of clipping gradients. State: ``exp_avg``
    (:math:`m`), ``exp_avg_sq`` (:math:`v`); with the debiased :math:`\hat\beta` of the paper they are
    AdamW's after its bias correction. Two passes: the first measures, 8 bytes a float32 parameter,
    the second updates, 28. As in the paper's algorithm and in optimi, defaults included. The
    authors' code multiplies the decay by :math:`\eta`, not :math:`\eta_t`; its defaults are
    ``lr=2e-3`` and ``weight_decay=0.2``. A NaN or an infinity turns the clipping of its array off for the
    step, as in both. The decay is added to the step before both are taken from the parameter;
    see :class:`fastopt.AdamW`.

    References
    ----------
    Wortsman et al., Stable and low-precision training for large-scale vision-language models,
    arXiv:2304.13013, 2023.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w, v = np.zeros(1), np.zeros(1)
    >>> opt = fastopt.StableAdamW(w, lr=0.01)
    >>> adamw = fastopt.AdamW(v, lr=0.01, betas=(0.9, 0.99))
    >>> for grad in [1e-3] * 99 + [1.0]:  # at last, a gradient that nobody expected
    ...     before = w.copy(), v.copy()
    ...     opt.step(np.array([grad]))
    ...     adamw.step(np.array([grad]))
    >>> (before[0] - w).round(4), (before[1] - v).round(4)
    (array([0.001]), array([0.0079]))
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.99),
        eps: Any = 1e-6,
        weight_decay: Any = 1e-2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)

    rule = Rule(
        stableadamw,
        ("exp_avg", "exp_avg_sq"),
        scalars,
        measure=Measure(measure, ("square",), measure_scalars),
        squares=("exp_avg_sq",),
    )
