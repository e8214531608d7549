"""ADOPT: Adam that converges with any beta2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def adopt(
    p, g, exp_avg, exp_avg_sq,
    lr, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, clip, weight_decay,
):  # fmt: skip
    g = g + weight_decay * p
    scaled = min(max(g / max(math.sqrt(exp_avg_sq), eps), -clip), clip)
    exp_avg = beta1 * exp_avg + one_minus_beta1 * scaled
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    return p - lr * exp_avg, exp_avg, exp_avg_sq


def adopt_decoupled(
    p, g, exp_avg, exp_avg_sq,
    lr, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, clip, decay,
):  # fmt: skip
    scaled = min(max(g / max(math.sqrt(exp_avg_sq), eps), -clip), clip)
    exp_avg = beta1 * exp_avg + one_minus_beta1 * scaled
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    return p - (decay * p + lr * exp_avg), exp_avg, exp_avg_sq


def scalars(step, lr, betas, eps, weight_decay, use_clipping, decouple):
    beta1, beta2 = betas
    # 0 in the first step: its gradient is the second moment's start, and its quotient, which is
    # never 0 / 0, is clipped to 0.
    begun = min(step - 1.0, 1.0)
    clip = (step - 1.0) ** 0.25 if use_clipping or step == 1 else math.inf
    decay = begun * lr * weight_decay if decouple else weight_decay
    return (
        lr, beta1, 1.0 - beta1, beta2, 1.0 - begun * beta2, max(eps, 1.0 - begun), clip, decay,
    )  # fmt: skip


class ADOPT(Optimizer):
    r"""ADOPT: Adam whose gradient is divided by the second moment of those before it, then averaged.

    .. math::
        n_t &= \operatorname{clip}\left(\frac{g_t}{\max(\sqrt{v_{t-1}}, \epsilon)},\; (t - 1)^{1/4}\right) \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) n_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        p_t &= p_{t-1} - \eta\, m_t

    for :math:`t \ge 2`. The first step does nothing but :math:`v_1 = g_1^2`.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, the least divisor.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`. Coupled: it adds :math:`\lambda p_{t-1}` to :math:`g_t` first.
    decouple : bool
        Take :math:`\eta \lambda p_{t-1}` from the parameter instead.
    use_clipping : bool
        Clip, as in the paper's later versions.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Adam, AdamW : Where the gradient is also in the second moment that divides it.

    Notes
    -----
    When Adam is unstable, or a large :math:`\beta_2` is not enough for it to converge. State: ``exp_avg``
    (:math:`m`), ``exp_avg_sq`` (:math:`v`). As in the paper's third version and in the authors' code, whose
    ``clip_lambda`` can be another power of :math:`t - 1`; its first version had no clipping, and
    :math:`m_2 = n_2`. optax is the same, without weight decay. The first step does not decay either.
    Unclipped, a gradient that is much larger than the first one can move a parameter far. The decay
    is added to the step before both are taken from the parameter; see :class:`fastopt.AdamW`.

    References
    ----------
    Taniguchi et al., ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate,
    arXiv:2411.02853, 2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.ones(2)
    >>> opt = fastopt.ADOPT(w, lr=0.5, betas=(0.0, 0.9999))
    >>> opt.step(np.array([100.0, -1e-3]))  # measures
    >>> opt.step(np.array([50.0, -1e-3]))  # moves
    >>> w.round(4)
    array([0.75, 1.5 ])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.9999),
        eps: Any = 1e-6,
        weight_decay: Any = 0.0,
        decouple: bool = False,
        use_clipping: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decouple=decouple,
            use_clipping=use_clipping,
            **options,
        )

    coupled = Rule(adopt, ("exp_avg", "exp_avg_sq"), scalars, decay="coupled", squares=("exp_avg_sq",))
    decoupled = Rule(
        adopt_decoupled, ("exp_avg", "exp_avg_sq"), scalars, decay="decoupled", squares=("exp_avg_sq",)
    )

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        return cls.decoupled if group["decouple"] else cls.coupled
