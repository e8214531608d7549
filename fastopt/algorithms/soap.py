"""SOAP: Adam in the eigenvectors of Shampoo's preconditioner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np

from fastopt.engine import MatrixRule, Measure, Rule
from fastopt.engine.matrix import divide, flush
from fastopt.optimizer import Optimizer, Options

# Arrays that are not rotated.


def adam(
    p, g, exp_avg, exp_avg_sq, used, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, decay
):  # fmt: skip
    g = used * g
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    step = step_size * (exp_avg / (math.sqrt(exp_avg_sq) + eps))
    return p - (step + decay * (p - step)), exp_avg, exp_avg_sq


def rate(step, lr, betas, correct_bias):
    """Return the step size. The first gradient does not count."""
    beta1, beta2 = betas
    count = max(step - 1.0, 1.0)
    return lr * math.sqrt(1.0 - beta2**count) / (1.0 - beta1**count) if correct_bias else lr


def adam_scalars(step, lr, betas, eps, weight_decay, correct_bias):
    beta1, beta2 = betas
    used, step_size = 1.0 if step > 1 else 0.0, rate(step, lr, betas, correct_bias)
    return used, step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, used * lr * weight_decay


def measure(p, g, exp_avg, exp_avg_sq, used, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    g = used * g
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    return exp_avg, exp_avg_sq, exp_avg / (math.sqrt(exp_avg_sq) + eps)


def measure_scalars(step, betas, eps):
    beta1, beta2 = betas
    return 1.0 if step > 1 else 0.0, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps


def normalized(p, g, exp_avg, exp_avg_sq, step_size, eps, decay):
    step = step_size * (exp_avg / (math.sqrt(exp_avg_sq) + eps))
    return p - (step + decay * (p - step))


def normalized_scalars(step, size, update_sq, lr, betas, eps, weight_decay, correct_bias):
    used, step_size = 1.0 if step > 1 else 0.0, rate(step, lr, betas, correct_bias)
    return step_size / (1e-30 + math.sqrt(update_sq / size)), eps, used * lr * weight_decay


# Matrices.


def direction(p, g, exp_avg, exp_avg_sq, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    return exp_avg / (math.sqrt(exp_avg_sq) + eps), exp_avg, exp_avg_sq


def move(p, g, step_size, decay):
    step = step_size * g
    return p - (step + decay * (p - step))


DIRECTION, MOVE = Rule(direction, ("exp_avg", "exp_avg_sq")), Rule(move)


def soap(
    p, g, state, workspace, turn, share, normalize, used, step_size, beta1, one_minus_beta1, beta2,
    one_minus_beta2, eps, decay,
):  # fmt: skip
    """Update a matrix ``p``, then the factors and, if it is time, their eigenvectors."""
    if used:
        left, right = basis_of(state, "left"), basis_of(state, "right")
        half, whole, found = (workspace.like(name, g) for name in ("half", "whole", "found"))
        rotated = product(None if left is None else left.T, g, right, half, whole)
        moments = state["exp_avg"], state["exp_avg_sq"]
        shares = beta1, one_minus_beta1, beta2, one_minus_beta2, eps
        workspace.apply(DIRECTION, found, rotated, moments, shares)
        step = product(left, found, None if right is None else right.T, half, whole)
        if normalize:
            divide(step, 1e-30 + workspace.norm(step) / math.sqrt(step.size))
        workspace.apply(MOVE, p, step, scalars=(step_size, decay))
    for side, array in (("left", g), ("right", g.T)):
        factor = state.get(f"GG_{side}")
        if factor is not None:
            outer = workspace.take("outer", factor.shape, factor.dtype)
            workspace.blend(factor, np.matmul(array, array.T, out=outer), share)
            if not used:
                state[f"Q_{side}"][...] = eigenvectors(factor)
            elif turn:
                turn_basis(state, side)


def basis_of(state, side):
    """Return the basis of a side, or None if it is not rotated."""
    basis = state.get(f"Q_{side}")
    if basis is not None and not basis[0].any():  # it has not been rotated so far: max_precond_dim was less
        np.fill_diagonal(basis, 1.0)
    return basis


def product(left, x, right, first, second):
    """Return ``left @ x @ right``, in one of two scratch arrays. None is the identity; not both are None."""
    if left is not None:
        x = np.matmul(left, x, out=first)
    return x if right is None else np.matmul(x, right, out=second)


def eigenvectors(factor):
    """Return the eigenvectors, those of the largest eigenvalues first, the largest number of each positive.

    LAPACK finds none where there is NaN or infinity: there they are NaN.
    """
    try:
        basis = np.linalg.eigh(factor)[1][:, ::-1]
    except np.linalg.LinAlgError:
        basis = np.eye(len(factor), dtype=factor.dtype) + 0.0 * factor
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    basis = np.where(largest < 0.0, -basis, basis)
    flush(basis)
    return basis


def turn_basis(state, side):
    """Move a basis towards the eigenvectors of its factor, by a power iteration, and the moments with it."""
    factor, basis = state[f"GG_{side}"], state[f"Q_{side}"]
    power = factor @ basis
    order = np.argsort(-np.einsum("ij,ij->j", basis, power), kind="stable")
    new, triangle = np.linalg.qr(power[:, order])
    new = np.where(np.diag(triangle) < 0.0, -new, new)
    flush(new)
    turned = basis.T @ new
    exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
    if side == "left":
        exp_avg[...], exp_avg_sq[...] = turned.T @ exp_avg, exp_avg_sq[order]
    else:
        exp_avg[...], exp_avg_sq[...] = exp_avg @ turned, exp_avg_sq[:, order]
    flush(exp_avg)
    basis[...] = new


def scalars(
    step, shape, lr, betas, shampoo_beta, eps, weight_decay, precondition_frequency, normalize_grads,
    correct_bias
):  # fmt: skip
    turn = (step - 1) % precondition_frequency == 0
    share = 1.0 - (shampoo_beta if shampoo_beta >= 0.0 else betas[1])
    rest = adam_scalars(step, lr, betas, eps, weight_decay, correct_bias)
    return turn, share, normalize_grads, *rest


def factors_left(shape):
    return {"GG_left": (shape[0],) * 2, "Q_left": (shape[0],) * 2}


def factors_right(shape):
    return {"GG_right": (shape[1],) * 2, "Q_right": (shape[1],) * 2}


def factors(shape):
    return {**factors_left(shape), **factors_right(shape)}


class SOAP(Optimizer):
    r"""SOAP: Adam in the eigenvectors of Shampoo's preconditioner, which are brought up to date now and then.

    .. math::
        L_t &= \beta_s L_{t-1} + (1 - \beta_s) G_t G_t^T, \qquad
        R_t = \beta_s R_{t-1} + (1 - \beta_s) G_t^T G_t \\
        G'_t &= Q_L^T G_t Q_R, \qquad
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) G'_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) G'^2_t \\
        P_t &= (1 - \eta \lambda) \left( P_{t-1} - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}\,
        Q_L \frac{m_t}{\sqrt{v_t} + \epsilon} Q_R^T \right)

    :math:`Q_L` and :math:`Q_R` are the eigenvectors of :math:`L` and :math:`R`: found at the first gradient,
    and every :math:`f` steps those of :math:`L Q_L` and :math:`R Q_R` made orthonormal, in the order of their
    eigenvalues. :math:`v` is then permuted alike, and :math:`m` rotated. The first gradient only starts
    :math:`L` and :math:`R`: it is no step, and does not count as :math:`t`. Arrays that have not two axes are
    not rotated, nor are sides longer than ``max_precond_dim``.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    shampoo_beta : float or schedule
        :math:`\beta_s` in [0, 1); if negative, it is :math:`\beta_2`.
    eps : float or schedule
        :math:`\epsilon \ge 0`, outside the root.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    precondition_frequency : int or schedule
        :math:`f \ge 1`.
    max_precond_dim : int
        The longest side that is rotated.
    normalize_grads : bool
        Divide each array's step by its root mean square. The authors found it good for :math:`f` about 100.
    correct_bias : bool
        Correct the bias of the moments, as above.
    **options
        ``maximize``, ``threads`` and others: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Muon : Cheaper, with less state.

    Notes
    -----
    For matrices of moderate size, where fewer steps are worth more time in each. State: ``exp_avg``
    (:math:`m`) and ``exp_avg_sq`` (:math:`v`), both of the rotated gradient; of matrices also ``GG_left``
    (:math:`L`), ``Q_left``, ``GG_right`` (:math:`R`) and ``Q_right``. The time goes into 6 matrix products a
    step, by NumPy's BLAS, and every :math:`f` steps into 3 more and a QR decomposition for each side. Scratch
    memory is four times the largest matrix, and its larger factor. As in the author's code: the first
    gradient is no step, :math:`\epsilon` is not corrected for bias, and the decay comes after the step.
    There, too, arrays of more than two axes are rotated along each, which can be merged, and
    ``precondition_1d`` rotates vectors. The paper keeps :math:`m` unrotated, which is the same but for
    rounding. LAPACK leaves the signs of the columns of :math:`Q` open; here they are fixed, and the
    parameters do not depend on them. NaN, infinity, and float32 gradients whose squares overflow (beyond
    about 1e19) make all of their matrix NaN, at the latest when the eigenvectors are brought up to date. A
    result is the same, bit for bit, for any number of ``threads``; it depends on the BLAS and LAPACK, on the
    number of their own threads, and on whether a matrix is in C or Fortran order. Eigenvectors of nearly
    equal eigenvalues are hardly determined: then another rounding can make another step.

    References
    ----------
    Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, arXiv:2409.11321, 2024.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    >>> w = np.zeros((2, 2))
    >>> opt = fastopt.SOAP(w, lr=0.1)
    >>> for _ in range(2):
    ...     opt.step(turn @ np.diag([100.0, 0.01]) @ turn.T)
    >>> np.diag(turn.T @ w @ turn).round(3)  # whatever the size of the gradient in each direction
    array([-0.1, -0.1])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 3e-3,
        betas: Any = (0.95, 0.95),
        shampoo_beta: Any = -1.0,
        eps: Any = 1e-8,
        weight_decay: Any = 1e-2,
        precondition_frequency: Any = 10,
        max_precond_dim: int = 10000,
        normalize_grads: bool = False,
        correct_bias: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            shampoo_beta=shampoo_beta,
            eps=eps,
            weight_decay=weight_decay,
            precondition_frequency=precondition_frequency,
            max_precond_dim=max_precond_dim,
            normalize_grads=normalize_grads,
            correct_bias=correct_bias,
            **options,
        )

    moments = "exp_avg", "exp_avg_sq"
    plain = Rule(adam, moments, adam_scalars, squares=("exp_avg_sq",))
    with_norm = Rule(
        normalized,
        moments,
        normalized_scalars,
        measure=Measure(measure, ("square",), measure_scalars, writes=moments),
        writes=(),
        squares=("exp_avg_sq",),
    )
    #: By whether the left and the right side is rotated.
    of_matrices: Mapping[tuple[bool, bool], MatrixRule] = {
        (True, True): MatrixRule(soap, moments, scalars, factors),
        (True, False): MatrixRule(soap, moments, scalars, factors_left),
        (False, True): MatrixRule(soap, moments, scalars, factors_right),
    }

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Any:
        return cls.rule_for(group, (1, 1))

    @classmethod
    def rule_for(cls, group: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
        rotated = tuple(side <= group["max_precond_dim"] for side in shape)
        if rotated in cls.of_matrices and 0 not in shape:
            return cls.of_matrices[rotated]
        return cls.with_norm if group["normalize_grads"] else cls.plain
