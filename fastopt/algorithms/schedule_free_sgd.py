"""ScheduleFreeSGD: gradient descent with an average in the place of momentum and of a schedule."""

from __future__ import annotations

from typing import Any, Unpack

from fastopt.algorithms._schedule_free import CARRY, ScheduleFree, average
from fastopt.engine import Rule
from fastopt.optimizer import Options


def schedule_free_sgd(p, g, z, lr, pull, push, weight_decay):
    g = g + weight_decay * p
    return p + (pull * (z - p) - push * g), z - lr * g


def scalars(
    step, weight_sum, lr_max, beta, lr, momentum, weight_decay, warmup_steps, r, weight_lr_power
):  # fmt: skip
    carry, lr, pull, push = average(
        step, weight_sum, lr_max, beta, lr, momentum, warmup_steps, r, weight_lr_power
    )
    return carry, (lr, pull, push, weight_decay)


class ScheduleFreeSGD(ScheduleFree):
    r"""Schedule-Free SGD: gradient descent with an average in the place of momentum and of a schedule.

    .. math::
        y_t &= (1 - \beta) z_t + \beta x_t \\
        z_{t+1} &= z_t - \eta_t (\nabla f(y_t) + \lambda y_t) \\
        x_{t+1} &= (1 - c_t) x_t + c_t z_{t+1}, \qquad
        c_t = w_t / \textstyle\sum_{i \le t} w_i, \qquad
        w_t = t^r \bigl(\max_{i \le t} \eta_i\bigr)^k

    While training the parameters are :math:`y`, where the gradients are to be taken. Call :meth:`eval` to
    have them be :math:`x`, the average, which is the result, and :meth:`train` to go on.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: ten times that of SGD with a schedule, or more.
    momentum : float or schedule
        :math:`\beta` in (0, 1): how near to the average the gradients are taken. At 0 there is no average.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    warmup_steps : float
        Steps in which the learning rate rises to :math:`\eta`, in equal parts.
    r : float or schedule
        :math:`r`: how much more late steps weigh in the average than early ones.
    weight_lr_power : float or schedule
        :math:`k \ge 0`: how much less steps of a smaller learning rate weigh.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    ScheduleFreeAdamW : The same for AdamW.

    Notes
    -----
    For training whose end is not known beforehand, and without a schedule to choose. State: ``z``, which
    starts as a copy of the parameters, and three numbers an array: ``weight_sum``, ``lr_max`` and ``beta``,
    the one that :math:`y` was made with. As in the authors' package schedulefree, whose SGDScheduleFree
    begins outside of training: it wants a ``train()`` first. It weighs all arrays of a group alike, here
    each has a count of its own steps; and where :math:`\beta` changes, it takes :math:`y` for made with the
    new one. optax's ``schedule_free_sgd`` has no :math:`r`, starts its warm-up at 0, and computes :math:`x`
    at each step. The :math:`x` of ``eval()`` is :math:`z + (y - z) / \beta`. It is rounded, and so is the
    :math:`y` that ``train()`` comes back to: by no more than 4 eps of the larger of :math:`x` and
    :math:`z`, mostly less than one. Without ``eval()`` nothing is lost. ``z`` is in float32 whatever
    ``state_dtype`` is: it is where the parameters go.

    References
    ----------
    Defazio et al., The Road Less Scheduled, arXiv:2405.15682, 2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.ScheduleFreeSGD(w, lr=1.0)
    >>> rng = np.random.default_rng(0)
    >>> for _ in range(1000):
    ...     opt.step(w + rng.standard_normal(2))  # of sum(w**2) / 2, with noise
    >>> opt.eval()
    >>> bool(abs(w).max() < 0.2)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        momentum: Any = 0.9,
        weight_decay: Any = 0.0,
        warmup_steps: Any = 0.0,
        r: Any = 0.0,
        weight_lr_power: Any = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            r=r,
            weight_lr_power=weight_lr_power,
            **options,
        )

    rule = Rule(schedule_free_sgd, ("z",), scalars, carry=CARRY, exact=("z",))
