"""Adafactor: a second moment that is kept as the sums of its rows and columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from fastopt.engine import MatrixRule, Measure, Rule
from fastopt.engine.tiles import Scaling
from fastopt.optimizer import Optimizer, Options


def measure(p, g, variance, keep, share, eps1):
    variance = keep * variance + share * (g * g)
    return variance, p, g / max(math.sqrt(variance), eps1)


def measure_scalars(step, beta2_decay, eps):
    eps1, _ = eps
    share = step**beta2_decay
    return 1.0 - share, share, eps1


def adafactor(p, g, variance, step_size, eps1, decay):
    return p - (decay * p + step_size * (g / max(math.sqrt(variance), eps1)))


def scalars(step, size, param_sq, update_sq, lr, eps, d, weight_decay):
    eps1, eps2 = eps
    rate = min(lr, 1.0 / math.sqrt(step)) * max(eps2, math.sqrt(param_sq / size))
    return rate / max(1.0, math.sqrt(update_sq / size) / d), eps1, lr * weight_decay


def move(p, g, step_size, decay):
    return p - (decay * p + step_size * g)


MOVE = Rule(move)


def average(variance, mean, keep, share):
    return keep * variance + share * mean


def row_factor(variance, mean, eps1):
    return math.sqrt((eps1 if mean < eps1 else mean) / variance)


def column_factor(variance, eps1):
    return math.sqrt(1.0 / variance)


FACTORED = Scaling(average, row_factor, column_factor, MOVE)


def factored(p, g, state, workspace, rate, share, eps, d, decay):
    """Update an array ``p`` of two or more axes."""
    eps1, eps2 = eps
    largest = 1.0 / eps1 if eps1 else math.inf
    norm, update_norm = g.average(state["row_var"], state["col_var"], (1.0 - share, share), (eps1,), largest)
    root = math.sqrt(p.size)
    step_size = rate * max(eps2, norm / root) / max(1.0, update_norm / (root * d))
    g.apply((step_size, decay))


def factored_scalars(step, shape, lr, beta2_decay, eps, d, weight_decay):
    return min(lr, 1.0 / math.sqrt(step)), step**beta2_decay, eps, d, lr * weight_decay


def factors(shape):
    return {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}


class Adafactor(Optimizer):
    r"""Adafactor: a second moment that is kept as the averages of its rows and columns, and clipped steps.

    .. math::
        \beta_t &= 1 - t^\tau, \qquad
        \alpha_t = \min(\eta, 1 / \sqrt t)\, \max(\epsilon_2, \mathrm{RMS}(P_{t-1})) \\
        R_t &= \beta_t R_{t-1} + (1 - \beta_t)\, \mathrm{mean}_{columns}(G_t^2), \qquad
        C_t = \beta_t C_{t-1} + (1 - \beta_t)\, \mathrm{mean}_{rows}(G_t^2) \\
        V_t &= R_t C_t / \max(\mathrm{mean}(R_t), \epsilon_1), \qquad
        U_t = G_t / \max(\sqrt{V_t}, \epsilon_1) \\
        P_t &= (1 - \eta \lambda) P_{t-1} - \alpha_t U_t / \max(1, \mathrm{RMS}(U_t) / d)

    :math:`R` and :math:`C` are over the last two axes of arrays of two or more. Of other arrays :math:`V_t`
    is kept itself, as the average of :math:`G_t^2`. The root mean squares, RMS, are those of each array.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        :math:`\eta \ge 0`, the greatest step as a share of the parameters' root mean square.
    beta2_decay : float or schedule
        :math:`\tau \le 0`: how fast the share of new squares falls.
    eps : pair of float, or schedule of such
        :math:`\epsilon_1 \ge 0`, the least root of a second moment, and :math:`\epsilon_2 \ge 0`, the least
        root mean square of parameters that counts.
    d : float or schedule
        :math:`d \ge 1`, the greatest root mean square of a step before it is scaled.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    **options
        ``maximize``, ``threads`` and others: see :class:`fastopt.Optimizer`.

    Notes
    -----
    For models that leave no memory for state: that of a matrix is a row and a column. State: ``row_var``
    (:math:`R`) and ``col_var`` (:math:`C`); ``variance`` (:math:`V`) of arrays of one axis or none, and of
    empty ones. ``Adafactor.kernel`` is that of arrays of one axis. As in torch, but for :math:`\epsilon_1`:
    torch's default, None, is the machine epsilon of the parameters' dtype; here it is float32's for both, and
    ``eps=(2**-52, 1e-3)`` gives torch's for float64. In torch :math:`R C` overflows for float32 gradients
    beyond about 4e9, and the step is lost; here :math:`R` is divided first. The paper has 0.01 in the place
    of :math:`\eta`, adds :math:`\epsilon_1` = 1e-30 to :math:`G^2` instead, and can keep a momentum; optax
    factors only arrays with two axes of 128 or more, by default. Vectors: two passes, 16 bytes a float32
    parameter for the first, 16 for the second. Matrices: three passes, of 8, 4 and 12 bytes, and no scratch
    memory of their size. Rows of a few elements in C order (columns in Fortran's), and stacks of matrices in
    Fortran order, take several times as long. A result is the same, bit for bit, for any number of
    ``threads``; sums go by the order of memory, C or Fortran.

    References
    ----------
    Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, arXiv:1804.04235, 2018.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.full((300, 200), 2.0)
    >>> opt = fastopt.Adafactor(w, lr=0.01)
    >>> opt.step(np.full((300, 200), 1e-3))  # whatever its size, the step is a hundredth
    >>> float(w[0, 0].round(6)), [array.size for array in opt.state[0].values()]
    (1.98, [300, 200])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        beta2_decay: Any = -0.8,
        eps: Any = (2.0**-23, 1e-3),
        d: Any = 1.0,
        weight_decay: Any = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params, lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay, **options
        )

    of_vectors = Rule(
        adafactor,
        ("variance",),
        scalars,
        measure=Measure(measure, ("square", "square"), measure_scalars, writes=("variance",)),
        writes=(),
        squares=("variance",),
    )
    of_matrices = MatrixRule(factored, (), factored_scalars, factors, scaling=FACTORED)

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        return cls.of_vectors

    @classmethod
    def rule_for(cls, group: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
        return cls.of_matrices if len(shape) > 1 and 0 not in shape else cls.of_vectors
