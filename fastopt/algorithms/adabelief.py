"""AdaBelief."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adabelief(
    p, g, exp_avg, exp_avg_var,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, correction, eps, decay,
):  # fmt: skip
    surprise = beta1 * (g - exp_avg)  # what g - exp_avg is after the next line, without its cancellation
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_var = beta2 * exp_avg_var + one_minus_beta2 * (surprise * surprise) + eps
    p = p - (decay * p + step_size * exp_avg / (math.sqrt(exp_avg_var) * correction + eps))
    return p, exp_avg, exp_avg_var


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    step_size = lr / (1.0 - beta1**step)
    correction = 1.0 / math.sqrt(1.0 - beta2**step)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction, eps, lr * weight_decay


class AdaBelief(Optimizer):
    r"""AdaBelief: Adam that divides by how far the gradient is from what the momentum foretold.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        s_t &= \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \epsilon \\
        \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat s_t = s_t / (1 - \beta_2^t) \\
        p_t &= (1 - \eta \lambda)\, p_{t-1} - \eta\, \hat m_t / (\sqrt{\hat s_t} + \epsilon)

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, in the variance and again outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same with the gradient's size in the place of its deviation.

    Notes
    -----
    For convolutional networks and GANs, and where gradients change little from step to step: there it
    takes larger steps than Adam. State: ``exp_avg`` (:math:`m`), ``exp_avg_var`` (:math:`s`, with its
    :math:`\epsilon`). As in the paper and in optax with ``eps_root=eps``. :math:`\epsilon` is added to the
    state at every step, so that :math:`s` never falls below it. The default is that of optax and of the
    authors' package, for transformers and GANs; the paper has 1e-8, which they advise for convolutional
    networks. Their package rectifies by default as RAdam does; optax and the paper do not. optax has no
    weight decay; the package has this one. The deviation is computed as :math:`\beta_1 (g_t - m_{t-1})`,
    which is the same and loses no digits to cancellation where :math:`\beta_1` is small. The decay is added
    to the step before both are taken from the parameter; see AdamW.

    References
    ----------
    Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris and Duncan, AdaBelief Optimizer: Adapting Stepsizes
    by the Belief in Observed Gradients, arXiv:2010.07468, 2020.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = {"adam": np.ones(1), "belief": np.ones(1)}
    >>> adam, belief = fastopt.Adam(w["adam"], lr=1e-3), fastopt.AdaBelief(w["belief"], lr=1e-3)
    >>> for _ in range(20):
    ...     adam.step(np.ones(1))
    ...     belief.step(np.ones(1))  # the gradient is always as foretold: the steps become longer
    >>> w["adam"].round(3), w["belief"].round(3)
    (array([0.98]), array([0.967]))
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-16,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)

    rule = Rule(adabelief, ("exp_avg", "exp_avg_var"), scalars, decay="decoupled", squares=("exp_avg_var",))
