"""Sophia: a clipped step, scaled by an estimate of the curvature."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from fastopt.engine import Batch, Rule, Segment
from fastopt.gradients import GivenGradients, stage
from fastopt.leaf import numbered
from fastopt.optimizer import Optimizer, Options


def sophia(p, g, exp_avg, hessian, lr, beta1, one_minus_beta1, rho, eps, decay):
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    clipped = min(max(lr * exp_avg / max(rho * hessian, eps), -lr), lr)
    return p - (decay * p + clipped), exp_avg


def scalars(step, lr, betas, rho, eps, weight_decay):
    beta1, _ = betas
    return lr, beta1, 1.0 - beta1, rho, eps, lr * weight_decay


def average(p, g, beta2, one_minus_beta2, tiny, zero):
    """Take in an estimate ``g``; the Hessian is in the place of the parameter."""
    p = beta2 * p + one_minus_beta2 * g
    return zero if abs(p) < tiny else p  # as the engine does with state


_AVERAGE = Rule(average)


class Sophia(Optimizer):
    r"""Sophia: momentum divided by an estimate of the Hessian's diagonal, no step larger than the rate.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        p_t &= (1 - \eta \lambda)\, p_{t-1}
               - \eta \operatorname{clip}\left(\frac{m_t}{\max(\rho\, h, \epsilon)},\; 1\right)

    The trainer gives an estimate :math:`\hat h` of the diagonal now and then, such as after every tenth step,
    to :meth:`update_hessian`, which makes :math:`h \leftarrow \beta_2 h + (1 - \beta_2) \hat h`.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update in place; see :class:`fastopt.Optimizer`, also for the errors.
    lr : float or schedule
        Learning rate :math:`\eta \ge 0`: the largest step.
    betas : pair of float, or schedule of such
        :math:`\beta_1, \beta_2` in [0, 1).
    rho : float or schedule
        :math:`\rho` in [0, 1]. The smaller, the more steps are clipped; 50 to 90 % of them are to be.
    eps : float or schedule
        :math:`\epsilon \ge 0`, the least divisor.
    weight_decay : float or schedule
        :math:`\lambda \ge 0`, decoupled.
    **options
        ``maximize``, ``threads``: see :class:`fastopt.Optimizer`.

    See Also
    --------
    Lion : What comes close to it where all steps are clipped, as they are before the first estimate.

    Notes
    -----
    When Hessians are to be had, as in the training of language models. State: ``exp_avg`` (:math:`m`),
    ``hessian`` (:math:`h`). For :math:`\hat h`, the paper has :math:`B\, \hat g^2` (Sophia-G), with the
    gradient :math:`\hat g` of a batch of :math:`B` whose labels are drawn from the model, or :math:`u\, (H
    u)` with random :math:`u` (Sophia-H). As in the paper, where :math:`\rho` is called :math:`\gamma`. The
    authors' code keeps the average of :math:`\hat g^2`, multiplies it by :math:`B` (``bs``) in the step,
    and has :math:`\rho h + 10^{-15}` in the place of the maximum. optax corrects the bias of :math:`m`,
    asks for an estimate itself after the first step and every tenth from there, and has ``gamma=0.01``,
    ``eps=1e-8``, ``weight_decay=1e-4``. With ``maximize``, :math:`\hat h` is to be that of the negated
    objective. The decay is added to the step before both are taken from the parameter; see
    :class:`fastopt.AdamW`. ``hessian`` is in float32 whatever ``state_dtype`` is: :meth:`update_hessian`
    updates it by itself.

    References
    ----------
    Liu, Li, Hall, Liang and Ma, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training, arXiv:2305.14342, 2023.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> curvature = np.array([1.0, 1e4])
    >>> w = np.ones(2)
    >>> opt = fastopt.Sophia(w, lr=0.1, rho=1.0, betas=(0.0, 0.0), weight_decay=0.0)
    >>> for _ in range(50):
    ...     opt.update_hessian(curvature)
    ...     opt.step(curvature * w)  # the gradient of sum(curvature * w**2) / 2
    >>> w.round(3)
    array([0.005, 0.005])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-4,
        betas: Any = (0.965, 0.99),
        rho: Any = 0.04,
        eps: Any = 1e-12,
        weight_decay: Any = 0.1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, rho=rho, eps=eps, weight_decay=weight_decay, **options)

    rule = Rule(
        sophia, ("exp_avg", "hessian"), scalars, writes=("exp_avg",), decay="decoupled", exact=("hessian",)
    )

    def update_hessian(self, hessians: Any) -> None:
        """Take in estimates of the Hessian's diagonal, for the steps to come.

        Parameters
        ----------
        hessians : array, or tree of arrays in the structure of the parameters
            The estimates, with the parameters' shapes and dtypes. None in the place of an array leaves its
            average as it is. With groups, a list of one tree a group.

        Raises
        ------
        TypeError, ValueError
            If the estimates do not fit the parameters, or a schedule's value is out of range. Nothing is
            written then.
        """
        self._turn.wait()
        with self._on_stream():
            self._update_hessian(hessians)

    def _update_hessian(self, hessians: Any) -> None:
        leaves = self._leaves()
        settings, rows = numbered(leaves)
        found = GivenGradients(leaves)
        found.take(self._leaves_of(hessians, "hessians"), lambda: self._places("hessians"))
        betas = [group.values_at(self._count, ("betas",), None)[0] for group in settings]
        stage(found.copies)
        given = [
            (leaves[i], rows[i], place)
            for i, place in zip(found.present, found.addresses, strict=True)
            if leaves[i].flat.size
        ]
        for dtype in {leaf.dtype for leaf, _, _ in given}:
            mine = [each for each in given if each[0].dtype == dtype]
            segments: list[Segment] = [(leaf.state["hessian"], None, [], row) for leaf, row, _ in mine]
            batch = Batch(_AVERAGE, segments, len(betas), self.max_threads)
            batch.set_gradients(np.array([place for _, _, place in mine], np.int64))
            tiny = float(np.finfo(dtype).smallest_normal)
            for row, (_, beta2) in enumerate(betas):
                batch.set_scalars(row, 1.0, (beta2, 1.0 - beta2, tiny, 0.0))
            batch.run()
