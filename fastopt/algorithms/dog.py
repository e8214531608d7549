"""DoG: gradient descent whose learning rate is the distance travelled over the gradients met."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import Measure, Rule
from fastopt.optimizer import Optimizer, Options


def measure(p, g, p0, weight_decay):
    return g + weight_decay * p, p - p0, p0


def dog(p, g, p0, rate, weight_decay):
    return p - rate * (g + weight_decay * p)


def scalars(step, size, grad_sq, distance_sq, start_sq, rbar, G, reps_rel, lr, weight_decay, eps):
    distance = math.sqrt(distance_sq)
    rbar = reps_rel * (1.0 + math.sqrt(start_sq)) if rbar == 0.0 else rbar  # 0: the first step
    rbar = distance if distance > rbar else rbar
    G = G + grad_sq
    root = math.sqrt(G + eps)
    rate = 0.0 if root == 0.0 else lr * rbar / root
    return (rbar, G), (rate, weight_decay)


class DoG(Optimizer):
    r"""DoG, distance over gradients: gradient descent that needs no learning rate.

    .. math::
        \bar r_t &= \max\bigl(r_\epsilon (1 + \lVert p_0 \rVert),\;
        \lVert p_1 - p_0 \rVert, \ldots, \lVert p_{t-1} - p_0 \rVert\bigr) \\
        G_t &= G_{t-1} + \lVert g_t \rVert^2 \\
        p_t &= p_{t-1} - \eta \frac{\bar r_t}{\sqrt{G_t + \epsilon}}\, g_t

    The norms are those of all arrays together. Weight decay :math:`\lambda` adds :math:`\lambda p_{t-1}` to
    :math:`g_t` first.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    reps_rel : float or schedule
        :math:`r_\epsilon \ge 0`: the length of the first step, as a share of 1 plus the parameters' norm. It
        counts in that step alone. The authors advise 1e-4 with batch normalization. At 0 nothing ever moves.
    lr : float or schedule
        :math:`\eta \ge 0`, a factor that is best left at 1.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, coupled (an L2 penalty).
    eps : float or schedule
        :math:`\epsilon \ge 0`, inside the root.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Prodigy, DAdaptAdam : The same idea for Adam.

    Notes
    -----
    For fine-tuning, and where there is no time to look for a learning rate. The steps do not die out: the
    authors take an average of the parameters, such as a polynomial-decay average, in the place of the last
    ones. State: ``p0``, the parameters at their first step, and two numbers for the whole optimizer,
    ``rbar`` (:math:`\bar r`) and ``G``. Two passes: the first measures, 12 bytes a float32 parameter, the
    second moves the parameters, 12. As in optax's ``dog`` with its "heuristic" start. The authors' code has
    :math:`\bar r` and :math:`G` for each parameter group, here they are those of all groups; it adds
    :math:`\epsilon` to :math:`G`, and takes a length of the first step by itself, ``init_eta``. Its
    layer-wise form, L-DoG, is not there. An array without a gradient does not count in that step. ``p0`` is
    in float32 whatever ``state_dtype`` is: what counts is the small distance from it.

    References
    ----------
    Ivgi, Hinder and Carmon, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule,
    arXiv:2302.12022, 2023.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> for scale in (1e-3, 1.0, 1e3):  # of the loss: it makes no difference
    ...     w = np.array([1.0, -2.0])
    ...     opt = fastopt.DoG(w, reps_rel=1e-3, eps=0.0)
    ...     for _ in range(200):
    ...         opt.step(2 * scale * w)  # the gradient of scale * sum(w**2)
    ...     print(w.round(4) + 0.0)
    [0. 0.]
    [0. 0.]
    [0. 0.]
    """

    def __init__(
        self,
        params: Any,
        reps_rel: Any = 1e-6,
        lr: Any = 1.0,
        weight_decay: Any = 0.0,
        eps: Any = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, reps_rel=reps_rel, lr=lr, weight_decay=weight_decay, eps=eps, **options)

    rule = Rule(
        dog,
        ("p0",),
        scalars,
        carry=("rbar", "G"),
        measure=Measure(measure, ("square", "square", "square"), over="all"),
        writes=(),
        exact=("p0",),
    )

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float | str]:
        return {"p0": "params"}
