"""Adam-atan2."""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options

# Numbers that float32 holds exactly: beside float32 they promote nothing, beside float64 they are as good.
ZERO, ONE = np.float32(0), np.float32(1)
TURN, NEAR = np.float32(0.578125), np.float32(0.26953125)  # about the tangents of 30 and of 15 degrees
RIGHT_ANGLE, TURNED_BY = math.pi / 2, math.atan(TURN)
#: A polynomial in u * u, for (1 - atan(u) / u) / (u * u) where abs(u) <= NEAR, within 1e-15: Chebyshev's
#: interpolation. Seven terms of Taylor's series would leave 1e-10.
TERMS = (
    0.33333333333333235, -0.19999999999827694, 0.14285714235875332, -0.11111105605841116,
    0.09090609432661447, -0.07683400708979249, 0.06518407779023382, -0.04563071025000879,
)  # fmt: skip


def arctangent(y, x, right_angle, turned_by, c0, c1, c2, c3, c4, c5, c6, c7):
    """Return ``atan2(y, x)`` of numbers >= 0, within 3 eps of itself; NaN where both are infinite.

    The library's is a call for each number. This is arithmetic, and the same for each: the angle is at
    most 45 degrees after a reflection, at most 15 after a turn. There it is a polynomial.
    """
    low = x if y > x else y
    high = y if y > x else x
    far = low > NEAR * high
    rise = low - TURN * high if far else low
    run = high + TURN * low if far else high
    u = rise / (ONE if run == ZERO else run)
    z = u * u
    polynomial = ((((((c7 * z + c6) * z + c5) * z + c4) * z + c3) * z + c2) * z + c1) * z + c0
    angle = u - u * (z * polynomial)
    angle = turned_by + angle if far else angle
    return right_angle - angle if y > x else angle


def adam_atan2(
    p, g, exp_avg, exp_avg_sq,
    step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, balance, decay,
    right_angle, turned_by, c0, c1, c2, c3, c4, c5, c6, c7,
):  # fmt: skip
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    angle = arctangent(
        abs(exp_avg), math.sqrt(exp_avg_sq) * balance,
        right_angle, turned_by, c0, c1, c2, c3, c4, c5, c6, c7,
    )  # fmt: skip
    p = p - (decay * p + math.copysign(step_size * angle, exp_avg))
    return p, exp_avg, exp_avg_sq


def scalars(step, lr, betas, weight_decay, a, b):
    beta1, beta2 = betas
    balance = b * (1.0 - beta1**step) / math.sqrt(1.0 - beta2**step)  # both corrections, on one side
    return (
        lr * a, beta1, 1.0 - beta1, beta2, 1.0 - beta2, balance, lr * weight_decay,
        RIGHT_ANGLE, TURNED_BY, *TERMS,
    )  # fmt: skip


class AdamAtan2(Optimizer):
    r"""Adam-atan2: Adam with an arctangent in the place of the division, and without :math:`\epsilon`.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        p_t &= (1 - \eta \lambda)\, p_{t-1} - \eta a \operatorname{atan2}(\hat m_t, b \sqrt{\hat v_t})

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    a : float or schedule
        :math:`a \ge 0`. With 1.27, about :math:`4 / \pi`, a step is :math:`\eta` where Adam's is.
    b : float or schedule
        :math:`b \ge 0`: how long the arctangent follows the ratio. With a large one, and :math:`a = b`,
        the steps are Adam's.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : The same with a division.

    Notes
    -----
    For models whose gradients become as small as Adam's :math:`\epsilon`, as they do with width: the steps
    do not change when all gradients are multiplied by a number, and are never longer than
    :math:`\eta a \pi / 2`. State: ``exp_avg`` (:math:`m`), ``exp_avg_sq`` (:math:`v`). As in the paper and
    in the package adam-atan2-pytorch, whose :math:`a` and :math:`b` are the defaults; its ``lr=1e-4`` and
    ``betas=(0.9, 0.99)`` are not: they are Adam's here. The package adam-atan2 has :math:`a = b = 1` and
    ``weight_decay=0.01``, and corrects the bias of :math:`m` outside of the arctangent. Without gradients
    the step is zero, as atan2(0, 0) is. An infinite gradient makes the parameter NaN, as with Adam; atan2 of
    two infinities would be :math:`\pi / 4`, and the damage would not be seen. The decay is added to the step
    before both are taken from the parameter; see AdamW.

    References
    ----------
    Everett et al., Scaling Exponents Across Parameterizations and Optimizers, arXiv:2407.05872, 2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(3)
    >>> opt = fastopt.AdamAtan2(w, lr=0.1)
    >>> opt.step(np.array([1e-100, -1.0, 0.0]))  # no gradient is too small
    >>> w.round(2)
    array([-0.1,  0.1,  0. ])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        weight_decay: Any = 0.0,
        a: Any = 1.27,
        b: Any = 1.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay, a=a, b=b, **options)

    rule = Rule(adam_atan2, ("exp_avg", "exp_avg_sq"), scalars, decay="decoupled", squares=("exp_avg_sq",))
