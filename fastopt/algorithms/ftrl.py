"""FTRL-Proximal: follow the regularized leader."""

from __future__ import annotations

import math
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def ftrl(p, g, z, n, lr, beta, l1, l2, zero):
    before = math.sqrt(n)
    n = n + g * g
    root = math.sqrt(n)
    # Before its first gradient, a parameter's z is the one that belongs to its value.
    own = p * (beta + l2) + (math.copysign(l1, p) if abs(p) > zero else p)
    z = (z if before > zero else -own) + (lr * g - (root - before) * p)
    p = p if root == zero else (min(max(z, -l1), l1) - z) / (root + beta + l2)
    return p, z, n


def scalars(step, lr, beta, l1, l2):
    return lr, beta, lr * l1, lr * l2, 0.0


class FTRL(Optimizer):
    r"""FTRL-Proximal: Adagrad that sets parameters to exactly zero.

    .. math::
        n_t &= n_{t-1} + g_t^2 \\
        z_t &= z_{t-1} + \eta\, g_t - (\sqrt{n_t} - \sqrt{n_{t-1}})\, p_{t-1} \\
        p_t &= \begin{cases}
            0 & \text{where } |z_t| \le \eta \lambda_1 \\
            -\dfrac{z_t - \eta \lambda_1 \operatorname{sign}(z_t)}{\beta + \sqrt{n_t} + \eta \lambda_2}
            & \text{elsewhere}
        \end{cases}

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`, the paper's :math:`\alpha`.
    beta : float or schedule
        :math:`\beta \ge 0`: the larger, the smaller the first steps.
    l1 : float or schedule
        :math:`\lambda_1 \ge 0`. The larger, the more zeros.
    l2 : float or schedule
        :math:`\lambda_2 \ge 0`.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Adagrad : The same steps, without ``l1`` and ``l2``, with :math:`\beta` for :math:`\epsilon`.

    Notes
    -----
    For linear models of sparse data, such as clicks, that shall be sparse themselves. State: ``z``
    (:math:`\eta` times the paper's), ``n``. As in the paper at a constant ``lr``. There, a change of it
    would scale all parameters at once; here it counts for the gradients to come and for the penalties. The
    paper starts from 0. Here, other start values are kept: :math:`z` starts where it belongs to them
    (:math:`p_0` solves the last equation), and without any gradient a parameter stays as it is. In Keras and
    TensorFlow, :math:`z` starts at 0 and :math:`n` at 0.1, so that the first step takes the parameters close
    to 0; they have :math:`2 \lambda_2` in the place of :math:`\lambda_2`, and :math:`\beta = 0`. The
    power of :math:`n` that they call ``learning_rate_power`` is the paper's, -0.5. The paper gives no rate.
    Gradients may be :class:`fastopt.Rows`. ``z`` and ``n`` are in float32 whatever ``state_dtype`` is: the
    parameters are made of them anew in each step.

    References
    ----------
    McMahan et al., Ad Click Prediction: a View from the Trenches, KDD, 2013.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(2)
    >>> opt = fastopt.FTRL(w, lr=0.5, l1=2.0)
    >>> for _ in range(100):
    ...     opt.step(w - np.array([1.0, 0.01]))  # too little of a gradient for the second
    >>> w.round(1)
    array([1., 0.])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 0.1,
        beta: Any = 1.0,
        l1: Any = 0.0,
        l2: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, beta=beta, l1=l1, l2=l2, **options)

    rule = Rule(ftrl, ("z", "n"), scalars, exact=("z", "n"))
    rows_without = ()
