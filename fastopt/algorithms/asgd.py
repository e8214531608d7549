"""ASGD: gradient descent with an average of the parameters."""

from __future__ import annotations

from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def asgd(p, g, ax, eta, mu, keep, decay, weight_decay):
    p = p - (decay * p + eta * (g + weight_decay * p))
    ax = keep * ax
    return p, ax + mu * (p - ax)


def scalars(step, lr, lambd, alpha, t0, weight_decay):
    eta = lr / (1.0 + lambd * lr * (step - 1)) ** alpha
    mu = 1.0 / max(1.0, step - 1 - t0)
    keep = 0.0 if mu == 1.0 else 1.0  # so that the average is the parameter itself, to the bit
    return eta, mu, keep, lambd * eta, weight_decay


class ASGD(Optimizer):
    r"""Averaged gradient descent: steps that shrink slowly, and an average of the points they visit.

    .. math::
        \eta_t &= \eta\, (1 + \lambda_d\, \eta\, (t - 1))^{-\alpha} \\
        p_t &= (1 - \lambda_d\, \eta_t)\, p_{t-1} - \eta_t\, (g_t + \lambda p_{t-1}) \\
        a_t &= a_{t-1} + \mu_t\, (p_t - a_{t-1}), \qquad \mu_t = 1 / \max(1, t - 1 - t_0)

    The average :math:`a` is ``opt.state[0]["ax"]``. It is the parameter itself until step :math:`t_0 + 2`.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0` of the first step.
    lambd : float or schedule
        :math:`\lambda_d \ge 0`, decoupled decay, and the rate at which the steps shrink.
    alpha : float or schedule
        :math:`\alpha \ge 0`, the power with which the steps shrink.
    t0 : float or schedule
        :math:`t_0 \ge 0`, the number of steps before the average starts. The default is that it does not.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    Notes
    -----
    When gradients are noisy and the problem is convex, or nearly so: then the average converges at the best
    rate. State: ``ax`` (:math:`a`). As in torch, which also keeps :math:`\eta_t` and :math:`\mu_t`,
    in float32. It computes them a step ahead: there, a change of ``lr`` counts from the step after
    the next. The paper has neither decay. The decay is added to the step before both are taken from the
    parameter; see :class:`fastopt.AdamW`. ``ax`` is in float32 whatever ``state_dtype`` is: its changes
    become too small for less.

    References
    ----------
    Polyak and Juditsky, Acceleration of stochastic approximation by averaging, SIAM Journal on Control and
    Optimization 30, 1992. Bottou, Stochastic Gradient Descent Tricks, 2012 (:math:`\eta_t`).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.ones(1)
    >>> opt = fastopt.ASGD(w, lr=0.1, t0=0)
    >>> rng = np.random.default_rng(0)
    >>> for _ in range(3000):
    ...     opt.step(w + rng.standard_normal(1))  # the minimum is at 0
    >>> bool(abs(w) > 0.05), bool(abs(opt.state[0]["ax"]) < 0.05)
    (True, True)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lambd: Any = 1e-4,
        alpha: Any = 0.75,
        t0: Any = 1e6,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, **options)

    rule = Rule(asgd, ("ax",), scalars, exact=("ax",))
