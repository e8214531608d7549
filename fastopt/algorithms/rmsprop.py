"""RMSprop, plain, centered and with momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def rmsprop(p, g, square_avg, lr, alpha, one_minus_alpha, eps, weight_decay):
    g = g + weight_decay * p
    square_avg = alpha * square_avg + one_minus_alpha * (g * g)
    return p - lr * g / (math.sqrt(square_avg) + eps), square_avg


def rmsprop_momentum(
    p, g, square_avg, momentum_buffer, lr, momentum, alpha, one_minus_alpha, eps, weight_decay
):
    g = g + weight_decay * p
    square_avg = alpha * square_avg + one_minus_alpha * (g * g)
    momentum_buffer = momentum * momentum_buffer + g / (math.sqrt(square_avg) + eps)
    return p - lr * momentum_buffer, square_avg, momentum_buffer


def rmsprop_centered(p, g, square_avg, grad_avg, lr, alpha, one_minus_alpha, eps, weight_decay):
    g = g + weight_decay * p
    square_avg = alpha * square_avg + one_minus_alpha * (g * g)
    grad_avg = alpha * grad_avg + one_minus_alpha * g
    variance = abs(square_avg - grad_avg * grad_avg)  # rounding can make it negative
    return p - lr * g / (math.sqrt(variance) + eps), square_avg, grad_avg


def rmsprop_centered_momentum(
    p, g, square_avg, grad_avg, momentum_buffer,
    lr, momentum, alpha, one_minus_alpha, eps, weight_decay,
):  # fmt: skip
    g = g + weight_decay * p
    square_avg = alpha * square_avg + one_minus_alpha * (g * g)
    grad_avg = alpha * grad_avg + one_minus_alpha * g
    variance = abs(square_avg - grad_avg * grad_avg)  # rounding can make it negative
    momentum_buffer = momentum * momentum_buffer + g / (math.sqrt(variance) + eps)
    return p - lr * momentum_buffer, square_avg, grad_avg, momentum_buffer


def scalars(step, lr, alpha, eps, weight_decay):
    return lr, alpha, 1.0 - alpha, eps, weight_decay


def momentum_scalars(step, lr, alpha, eps, weight_decay, momentum):
    return lr, momentum, alpha, 1.0 - alpha, eps, weight_decay


class RMSprop(Optimizer):
    r"""RMSprop: Adagrad with a running average of the squares, so that the steps do not die out.

    .. math::
        v_t &= \alpha v_{t-1} + (1 - \alpha) g_t^2 \\
        p_t &= p_{t-1} - \eta \frac{g_t}{\sqrt{v_t} + \epsilon}

    Centered, :math:`v_t` in the root is reduced by the square of the gradient's running average. With a
    momentum :math:`\mu`, the fraction is gathered in
    :math:`b_t = \mu b_{t-1} + g_t / (\sqrt{v_t} + \epsilon)`, and the step is :math:`\eta b_t`. Weight
    decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to :math:`g_t` first.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    alpha : float or schedule
        :math:`\alpha \ge 0`, below 1: the share of the averages that is kept.
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    momentum : float or schedule
        :math:`\mu \ge 0`. At 0 there is no momentum, and no state for it.
    centered : bool
        Divide by an estimate of the standard deviation.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    Notes
    -----
    For noisy or shifting targets, as in reinforcement learning and recurrent networks. State: ``square_avg``;
    ``grad_avg`` if centered; ``momentum_buffer`` with momentum. As in torch, except that a variance which
    rounding makes negative counts by its size, where torch gives NaN. Centered, a float32 gradient beyond
    about 1e19 overflows both squares and gives NaN. The lecture, and the texts, have ``alpha=0.9``; optax and
    TensorFlow's old optimizer have :math:`\epsilon` inside the root. In the plain form without weight decay,
    gradients may be :class:`fastopt.Rows`: the averages of the other rows do not decay then. If centered,
    both averages are in float32 whatever ``state_dtype`` is: the variance is a small difference of them.

    References
    ----------
    Hinton, Neural Networks for Machine Learning, lecture 6e, 2012. Graves, Generating Sequences With
    Recurrent Neural Networks, arXiv:1308.0850, 2013 (centered).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.RMSprop(w, lr=0.01, momentum=0.5)
    >>> for _ in range(500):
    ...     opt.step(2 * w)  # the gradient of sum(w**2)
    >>> bool(abs(w).max() < 0.02)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: Any = 0.99,
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        momentum: Any = 0.0,
        centered: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            **options,
        )

    plain = Rule(rmsprop, ("square_avg",), scalars, decay="coupled", squares=("square_avg",))
    with_momentum = Rule(
        rmsprop_momentum,
        ("square_avg", "momentum_buffer"),
        momentum_scalars,
        decay="coupled",
        squares=("square_avg",),
    )
    # Their variance is a difference: rounded further, it could be next to nothing where it is not.
    with_center = Rule(
        rmsprop_centered,
        ("square_avg", "grad_avg"),
        scalars,
        decay="coupled",
        exact=("square_avg", "grad_avg"),
    )
    with_both = Rule(
        rmsprop_centered_momentum,
        ("square_avg", "grad_avg", "momentum_buffer"),
        momentum_scalars,
        decay="coupled",
        exact=("square_avg", "grad_avg"),
    )
    rows_without = ("weight_decay", "momentum", "centered")

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        if group["centered"]:
            return cls.with_center if group["momentum"] == 0.0 else cls.with_both
        return cls.plain if group["momentum"] == 0.0 else cls.with_momentum
