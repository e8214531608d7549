"""Muon: momentum whose matrices are made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from fastopt.algorithms.adamw import adamw
from fastopt.algorithms.adamw import scalars as scalars_of_adamw
from fastopt.engine import MatrixRule, Rule
from fastopt.engine.matrix import divide
from fastopt.optimizer import Optimizer, Options


def gather(p, g, momentum_buffer, momentum, rest):
    momentum_buffer = momentum * momentum_buffer + rest * g
    return momentum_buffer, momentum_buffer


def gather_nesterov(p, g, momentum_buffer, momentum, rest):
    momentum_buffer = momentum * momentum_buffer + rest * g
    return momentum * momentum_buffer + rest * g, momentum_buffer


def move(p, g, step_size, decay):
    return p - (decay * p + step_size * g)


MOVE = Rule(move)


def orthogonalize(x, workspace, coefficients, steps, eps):
    """Return about the nearest matrix with orthonormal rows or columns (Newton and Schulz); ``x`` is lost."""
    rows, columns = x.shape
    spare, small = workspace.like("spare", x), (min(rows, columns),) * 2
    gram, square = (workspace.take(name, small, x.dtype) for name in ("gram", "square"))
    a, b, c = coefficients
    divide(x, max(workspace.norm(x), eps, 1e-307))  # no 0 / 0
    for _ in range(steps):
        if rows > columns:
            np.matmul(x.T, x, out=gram)
        else:
            np.matmul(x, x.T, out=gram)
        np.matmul(gram, gram.T, out=square)  # symmetric, which halves the work
        gram *= b
        square *= c
        gram += square
        gram.reshape(-1)[:: len(gram) + 1] += a
        if rows > columns:
            np.matmul(x, gram, out=spare)
        else:
            np.matmul(gram, x, out=spare)
        x, spare = spare, x
    return x


def muon(p, g, state, workspace, step_size, decay, coefficients, steps, eps):
    """Update a matrix ``p`` along the matrix nearest to what is gathered."""
    direction = orthogonalize(g, workspace, coefficients, steps, eps)
    workspace.apply(MOVE, p, direction, scalars=(step_size, decay))


def scalars(step, shape, lr, weight_decay, momentum, ns_coefficients, eps, ns_steps, match_rms_adamw):
    rows, columns = shape
    scale = 0.2 * math.sqrt(max(shape)) if match_rms_adamw else math.sqrt(max(1.0, rows / columns))
    return momentum, 1.0 - momentum, lr * scale, lr * weight_decay, ns_coefficients, int(ns_steps), eps


def adamw_scalars(step, lr, adamw_lr_ratio, betas, adamw_eps, weight_decay):
    return scalars_of_adamw(step, lr * adamw_lr_ratio, betas, adamw_eps, weight_decay)


class Muon(Optimizer):
    r"""Muon: momentum whose matrices are made orthogonal, so that all directions of a layer move alike.

    .. math::
        b_t &= \mu b_{t-1} + (1 - \mu) G_t \\
        O_t &= \mathrm{NewtonSchulz}(\mu b_t + (1 - \mu) G_t) \approx U V^T \\
        P_t &= (1 - \eta \lambda) P_{t-1} - \eta \sqrt{\max(1, r / c)}\, O_t

    for a matrix of :math:`r` rows and :math:`c` columns, where :math:`U \Sigma V^T` is the singular value
    decomposition of what is orthogonalized. Arrays that have not two axes, and all arrays of groups with
    ``use_muon=False``, are updated by AdamW.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors. Give embeddings and the
        last layer a group of their own, with ``use_muon=False``.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: the size of the step in each direction of a matrix.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled, of all arrays.
    momentum : float or schedule
        :math:`\mu \ge 0`, below 1 as a rule.
    nesterov : bool
        Look ahead, as above; otherwise :math:`b_t` itself is orthogonalized.
    ns_coefficients : three floats, or schedule of such
        :math:`a, b, c` of an iteration, which takes :math:`X` to :math:`(a + b X X^T + c (X X^T)^2) X`.
    eps : float or schedule
        The least norm that a matrix is divided by before the first iteration.
    ns_steps : int or schedule
        Number of iterations.
    match_rms_adamw : bool
        Multiply the learning rate of a matrix by :math:`0.2 \sqrt{\max(r, c)}` instead of
        :math:`\sqrt{\max(1, r/c)}`: then AdamW's learning rate and decay suit Muon as well (Moonlight).
    use_muon : bool
        Whether the matrices of a group are updated by Muon.
    adamw_lr_ratio : float or schedule
        AdamW's learning rate, as a share of ``lr``: it follows the same schedule.
    betas : pair of float, or schedule of such
        AdamW's :math:`\beta_1, \beta_2`.
    adamw_eps : float or schedule
        AdamW's :math:`\epsilon`.
    **options
        ``maximize``, ``threads`` and others: see :class:`fastopt.Optimizer`.

    See Also
    --------
    AdamW : What updates the other arrays.

    Notes
    -----
    For the hidden layers of transformers and perceptrons, where it needs fewer steps than AdamW. State:
    ``momentum_buffer`` (:math:`b`) of matrices; ``exp_avg`` and ``exp_avg_sq`` of other arrays. The time goes
    into 15 matrix products by NumPy's BLAS; scratch memory is up to four times the largest matrix. After five
    iterations the singular values are between about 0.7 and 1.2, but for those that were less than about a
    thousandth of the norm. As in torch, which takes matrices only, has a string ``adjust_lr_fn`` in the place
    of ``match_rms_adamw``, and iterates in bfloat16: here all is in the parameters' precision. torch's
    documentation has :math:`b_t = \mu b_{t-1} + G_t`; its code, and the author's, is as above. The author's
    code has ``lr=0.02``, no decay, for AdamW 3e-4 (here ``adamw_lr_ratio=0.015``) and an :math:`\epsilon` of
    1e-10, and flattens convolutions to matrices. optax corrects the bias of the momentum. A result is the
    same, bit for bit, for any number of ``threads``; it depends on the BLAS, on the number of the BLAS's own
    threads, and on whether a matrix is in C or Fortran order.

    References
    ----------
    Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024. Liu et al., Muon is Scalable
    for LLM Training, arXiv:2502.16982, 2025 (Moonlight).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w, b = np.zeros((3, 2)), np.zeros(2)
    >>> opt = fastopt.Muon([w, b], lr=0.1)
    >>> opt.step([np.array([[3.0, 0.0], [0.0, 0.01], [0.0, 0.0]]), np.ones(2)])
    >>> bool(abs(w[0, 0]) < 2 * abs(w[1, 1]))  # of gradients that differ 300 times
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        weight_decay: Any = 0.1,
        momentum: Any = 0.95,
        nesterov: bool = True,
        ns_coefficients: Any = (3.4445, -4.775, 2.0315),
        eps: Any = 1e-7,
        ns_steps: Any = 5,
        match_rms_adamw: bool = False,
        use_muon: bool = True,
        adamw_lr_ratio: Any = 1.0,
        betas: Any = (0.9, 0.95),
        adamw_eps: Any = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_coefficients=ns_coefficients,
            eps=eps,
            ns_steps=ns_steps,
            match_rms_adamw=match_rms_adamw,
            use_muon=use_muon,
            adamw_lr_ratio=adamw_lr_ratio,
            betas=betas,
            adamw_eps=adamw_eps,
            **options,
        )

    plain = MatrixRule(muon, ("momentum_buffer",), scalars, gather=Rule(gather, ("momentum_buffer",)))
    with_nesterov = replace(plain, gather=Rule(gather_nesterov, ("momentum_buffer",)))
    of_others = Rule(adamw, ("exp_avg", "exp_avg_sq"), adamw_scalars, squares=("exp_avg_sq",))

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Any:
        if not group["use_muon"]:
            return cls.of_others
        return cls.with_nesterov if group["nesterov"] else cls.plain

    @classmethod
    def rule_for(cls, group: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
        return cls.choose_rule(group) if len(shape) == 2 else cls.of_others
