"""Rprop: resilient backpropagation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Rule
from fastopt.optimizer import Optimizer, Options


def rprop(p, g, prev, step_size, first, eta_minus, eta_plus, smallest, largest, one, zero):
    agree = g * prev
    change = eta_plus if agree > zero else eta_minus if agree < zero else one
    step_size = min(max(max(step_size, first) * change, smallest), largest)
    g = zero if agree < zero else g
    # The last branch is 0 or NaN, and stays that.
    return p - (math.copysign(step_size, g) if abs(g) > zero else g), g, step_size


def scalars(step, lr, etas, step_sizes):
    eta_minus, eta_plus = etas
    smallest, largest = step_sizes
    first = lr if step == 1 else 0.0
    return first, eta_minus, eta_plus, smallest, largest, 1.0, 0.0


class Rprop(Optimizer):
    r"""Rprop: each parameter has a step size of its own, which only the gradient's sign changes.

    .. math::
        \Delta_t &= \begin{cases}
            \min(\eta_+ \Delta_{t-1}, \Delta_{\max}) & \text{where } g_t\, g_{t-1} > 0 \\
            \max(\eta_- \Delta_{t-1}, \Delta_{\min}) & \text{where } g_t\, g_{t-1} < 0;
                \text{ there } g_t \leftarrow 0 \\
            \Delta_{t-1} & \text{elsewhere}
        \end{cases} \\
        p_t &= p_{t-1} - \Delta_t \operatorname{sign}(g_t)

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        :math:`\Delta_0 \ge 0`. It counts in the first step alone.
    etas : pair of float, or schedule of such
        :math:`\eta_-` in (0, 1) and :math:`\eta_+ > 1`.
    step_sizes : pair of float, or schedule of such
        :math:`\Delta_{\min}` and :math:`\Delta_{\max}`, not negative.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    Notes
    -----
    For the full batch of a problem without noise: with small batches, signs change at random. State: ``prev``
    (:math:`g_{t-1}`, 0 after a change of sign), ``step_size`` (:math:`\Delta`). As in torch, also
    where a product of tiny gradients rounds to 0, and in that a parameter waits for a step when its gradient
    has changed sign (iRprop-): the paper takes it back to where it was. A NaN gradient leaves the step
    size as it is; in torch it becomes NaN too. The paper starts with 0.1.

    References
    ----------
    Riedmiller and Braun, A direct adaptive method for faster backpropagation learning: the RPROP algorithm,
    IEEE International Conference on Neural Networks, 1993. Igel and Hüsken, Improving the Rprop Learning
    Algorithm, 2000 (iRprop-).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.Rprop(w, lr=0.1)
    >>> for _ in range(60):
    ...     opt.step(np.array([2.0, 2e6]) * w)  # the scale of a parameter makes no difference
    >>> bool(abs(w).max() < 1e-4)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        etas: Any = (0.5, 1.2),
        step_sizes: Any = (1e-6, 50.0),
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, etas=etas, step_sizes=step_sizes, **options)

    rule = Rule(rprop, ("prev", "step_size"), scalars, decay="none", squares=("step_size",))

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        etas = group["etas"]
        if not callable(etas) and not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"etas must be a number in (0, 1) and one above 1; got {etas}")
        return cls.rule
