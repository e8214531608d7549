"""Adamax."""

from __future__ import annotations

from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adamax(p, g, exp_avg, exp_inf, step_size, beta1, one_minus_beta1, beta2, eps, weight_decay):
    g = g + weight_decay * p
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_inf = max(beta2 * exp_inf, abs(g) + eps)
    return p - step_size * exp_avg / exp_inf, exp_avg, exp_inf


def scalars(step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    return lr / (1.0 - beta1**step), beta1, 1.0 - beta1, beta2, eps, weight_decay


class Adamax(Optimizer):
    r"""Adamax: Adam that divides by the largest recent gradient, not by their mean square.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        u_t &= \max(\beta_2 u_{t-1}, |g_t| + \epsilon) \\
        p_t &= p_{t-1} - \frac{\eta}{1 - \beta_1^t} \frac{m_t}{u_t}

    Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: the greatest step, but for :math:`\beta_1 > \beta_2`.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, in the maximum.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Adam : The same with a mean square.

    Notes
    -----
    For sparse gradients, as of embeddings, and for float32 gradients beyond 1e19: nothing is squared, so
    nothing overflows. State: ``exp_avg`` (:math:`m`), ``exp_inf`` (:math:`u`). As in torch, whose
    :math:`\epsilon` is in the maximum, and therefore in the state; optax adds it there too, Keras adds it
    to the maximum, and the paper has none. With ``eps=0`` a parameter that has never had a gradient becomes
    NaN, as in torch. The decay is coupled only, as in torch.

    References
    ----------
    Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv:1412.6980, 2014 (section 7.1).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(2)
    >>> opt = fastopt.Adamax(w, lr=0.5)
    >>> opt.step(np.array([1e30, -1e-3]))  # the first step is lr, whatever the gradient's size
    >>> w.round(4)
    array([-0.5,  0.5])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)

    rule = Rule(adamax, ("exp_avg", "exp_inf"), scalars, decay="coupled", squares=("exp_inf",))
