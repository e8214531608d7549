"""SparseAdam: Adam for some rows of a table at a time."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.algorithms.adam import adam
from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def scalars(step, lr, betas, eps):
    beta1, beta2 = betas
    step_size = lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0, eps, 0.0


class SparseAdam(Optimizer):
    r"""SparseAdam: Adam for tables of which each step has gradients of a few rows.

    For the rows :math:`i` that are given, and no others:

    .. math::
        m_t^i &= \beta_1 m_{t-1}^i + (1 - \beta_1) g_t^i \\
        v_t^i &= \beta_2 v_{t-1}^i + (1 - \beta_2) (g_t^i)^2 \\
        p_t^i &= p_{t-1}^i
            - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m_t^i}{\sqrt{v_t^i} + \epsilon}

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: about the size of a step.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root, before the bias correction.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`. No modifiers but ``max_grad_value``.

    See Also
    --------
    fastopt.Rows : How the gradients are given.
    Adam : For whole arrays. SparseAdam raises a TypeError where it is given one.

    Notes
    -----
    For embedding tables. State: ``exp_avg`` (:math:`m`), ``exp_avg_sq`` (:math:`v`). As in torch: :math:`t`
    counts the steps of the table, with no rows too, not those of a row; the averages of rows that are not
    given do not decay, and their momentum does not move them; and :math:`\epsilon` is not divided by
    :math:`\sqrt{1 - \beta_2^t}`, as it is, in effect, in Adam: it is the :math:`\hat\epsilon` of Adam's
    paper. TensorFlow Addons' LazyAdam is the same; TensorFlow's Adam decays, and moves, all rows.

    References
    ----------
    Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv:1412.6980, 2014.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> table = np.zeros((1000, 2))
    >>> opt = fastopt.SparseAdam(table, lr=0.1)
    >>> opt.step(fastopt.Rows([7, 3, 7], np.array([[1.0, 2.0], [-5.0, 5.0], [1.0, -1.0]])))
    >>> table[[3, 7]].round(4)
    array([[ 0.1, -0.1],
           [-0.1, -0.1]])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, **options)

    rule = Rule(adam, ("exp_avg", "exp_avg_sq"), scalars, squares=("exp_avg_sq",))
    rows_without = ()
    rows_only = True
