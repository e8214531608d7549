"""Optimizers of one flat vector, in the shape that evolution strategies use: ``update(globalg) -> ratio``.

The shape is that of ``es_distributed/optimizers.py`` in OpenAI's evolution-strategies-starter, which many
programs have taken over. :class:`Flat` gives it to any algorithm. :class:`Adam` and :class:`SGD` are that
file's own, with its arguments and its conventions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Unpack, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastopt.engine import Rule
from fastopt.foreign import as_numpy
from fastopt.optimizer import Optimizer, Options
from fastopt.packing import check_array

__all__ = ["SGD", "Adam", "Flat"]

Array = NDArray[np.floating]


@runtime_checkable
class Policy(Protocol):
    """What holds its parameters as one vector, and takes others."""

    def get_trainable_flat(self) -> Any:
        """Return the parameters, as an array with one axis."""

    def set_trainable_flat(self, theta: Any, /) -> Any:
        """Take other parameters."""


class Flat:
    r"""One vector of parameters, and what updates it.

    Parameters
    ----------
    algorithm : type
        A class of optimizers, such as ``fastopt.Adam``.
    theta : array of shape (n,), or a policy
        The parameters: float32 or float64, updated in place. Or an object with ``get_trainable_flat()`` and
        ``set_trainable_flat(theta)``: each update takes the parameters from it, and gives it the new ones.
    **settings
        The optimizer's: ``lr``, and so on.

    Attributes
    ----------
    optimizer : fastopt.Optimizer
        What updates ``theta``: for its ``param_groups``, its ``state_dict()``, its averages.
    theta : ndarray of shape (n,)
        The parameters: the array that was given, or that the policy is given.

    Raises
    ------
    TypeError, ValueError
        If ``theta`` is no such array, or the optimizer refuses its settings.

    Examples
    --------
    An evolution strategy with antithetic samples, on a function that is not differentiated:

    >>> import numpy as np, fastopt
    >>> from fastopt.adapters.flat import Flat
    >>> def loss(theta):
    ...     return np.abs(theta - 3.0).sum(axis=-1)
    >>> theta, rng = np.zeros(5), np.random.default_rng(0)
    >>> optimizer = Flat(fastopt.Adam, theta, lr=0.1)
    >>> for _ in range(100):
    ...     noise = rng.standard_normal((20, 5))
    ...     difference = loss(theta + 0.1 * noise) - loss(theta - 0.1 * noise)
    ...     ratio = optimizer.update(difference @ noise / (2 * 0.1 * 20))
    >>> bool(loss(theta) < 0.5), bool(0 < ratio < 0.05)
    (True, True)
    """

    def __init__(self, algorithm: type[Optimizer], theta: Any, **settings: Any) -> None:
        if not (isinstance(algorithm, type) and issubclass(algorithm, Optimizer)):
            raise TypeError(f"algorithm must be a class of fastopt's optimizers, got {algorithm!r}")
        self._policy = theta if isinstance(theta, Policy) else None
        if self._policy is not None:
            theta = np.array(self._policy.get_trainable_flat())
        array = as_numpy(theta, "theta")
        check_array(array, "theta")
        if array.ndim != 1:
            raise ValueError(f"theta must have one axis, got the shape {array.shape}")
        self.theta: Array = array
        self.optimizer = algorithm(array, **settings)
        self._before = np.empty_like(array)

    @property
    def t(self) -> int:
        """Number of updates."""
        return self.optimizer.step_count

    def update(self, globalg: ArrayLike) -> float:
        """Update the parameters by a gradient, downhill.

        Parameters
        ----------
        globalg : array of shape (n,)
            The gradient of what shall become small: of a return, its negative. In the parameters' dtype it
            is read where it is; of another, it is converted.

        Returns
        -------
        float
            The length of the step, by that of the parameters before it. If those are all zero, infinity.

        Raises
        ------
        TypeError, ValueError
            If the gradient has another shape.
        """
        if self._policy is not None:
            given = np.asarray(self._policy.get_trainable_flat())
            if given.shape != self.theta.shape:
                raise ValueError(
                    f"the policy's parameters must keep their shape {self.theta.shape}, got {given.shape}"
                )
            np.copyto(self.theta, given)
        grad = np.asarray(as_numpy(globalg, "globalg"), self.theta.dtype)
        if grad.shape != self.theta.shape:
            raise ValueError(f"globalg must have the parameters' shape {self.theta.shape}, got {grad.shape}")
        np.copyto(self._before, self.theta)
        length = float(np.linalg.norm(self._before))
        self.optimizer.step(grad)
        moved = float(np.linalg.norm(np.subtract(self.theta, self._before, out=self._before)))
        if self._policy is not None:
            self._policy.set_trainable_flat(self.theta.copy())
        if length == 0.0:
            return math.inf if moved else 0.0
        return moved / length


def flat_adam(
    p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any,
    step_size: Any, beta1: Any, one_minus_beta1: Any, beta2: Any, one_minus_beta2: Any, epsilon: Any,
) -> Any:  # fmt: skip
    """Return what Adam makes of a parameter, with epsilon beside the root that is not corrected."""
    exp_avg = beta1 * exp_avg + one_minus_beta1 * g
    exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * (g * g)
    return p - step_size * exp_avg / (math.sqrt(exp_avg_sq) + epsilon), exp_avg, exp_avg_sq


def flat_sgd(p: Any, g: Any, velocity: Any, lr: Any, momentum: Any, rest: Any) -> Any:
    """Return what damped momentum makes of a parameter."""
    velocity = momentum * velocity + rest * g
    return p - lr * velocity, velocity


def adam_scalars(step: Any, lr: Any, beta1: Any, beta2: Any, epsilon: Any) -> Any:
    """Return the scalars of a step of Adam."""
    step_size = lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, epsilon


def sgd_scalars(step: Any, lr: Any, momentum: Any) -> Any:
    """Return the scalars of a step of damped momentum."""
    return lr, momentum, 1.0 - momentum


class _Adam(Optimizer):
    rule = Rule(flat_adam, ("exp_avg", "exp_avg_sq"), adam_scalars, decay="none")
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


class _SGD(Optimizer):
    rule = Rule(flat_sgd, ("velocity",), sgd_scalars, decay="none")
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-2, "momentum": 0.9}


class _Starter(Flat):
    @property
    def stepsize(self) -> Any:
        """The learning rate, or the schedule of it."""
        return self.optimizer.param_groups[0]["lr"]

    @stepsize.setter
    def stepsize(self, stepsize: Any) -> None:
        self.optimizer.param_groups[0]["lr"] = stepsize


class Adam(_Starter):
    r"""The Adam of evolution-strategies-starter; see :class:`Flat`, also for the attributes.

    .. math::
        \theta_t = \theta_{t-1}
        - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m_t}{\sqrt{v_t} + \epsilon}

    Parameters
    ----------
    pi : array of shape (n,), or a policy
        The parameters; see :class:`Flat`.
    stepsize : float or schedule
        Learning rate :math:`\eta`. It can be set at any time: ``optimizer.stepsize = 1e-3``.
    beta1, beta2 : float or schedule
        In [0, 1).
    epsilon : float or schedule
        :math:`\epsilon`, beside the root that is not corrected for its start at zero: the paper's
        :math:`\hat\epsilon`. fastopt.Adam has it beside the corrected one.
    **options
        See :class:`fastopt.Optimizer`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastopt.adapters.flat import Adam
    >>> theta = np.ones(4, np.float32)
    >>> round(Adam(theta, stepsize=0.25).update(np.full(4, 3.0)), 4)
    0.25
    >>> theta
    array([0.75, 0.75, 0.75, 0.75], dtype=float32)
    """

    def __init__(
        self,
        pi: Any,
        stepsize: Any,
        beta1: Any = 0.9,
        beta2: Any = 0.999,
        epsilon: Any = 1e-08,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(_Adam, pi, lr=stepsize, beta1=beta1, beta2=beta2, epsilon=epsilon, **options)


class SGD(_Starter):
    r"""The gradient descent of evolution-strategies-starter; see :class:`Flat`, also for the attributes.

    .. math::
        v_t = \mu v_{t-1} + (1 - \mu) g_t, \qquad \theta_t = \theta_{t-1} - \eta v_t

    Parameters
    ----------
    pi : array of shape (n,), or a policy
        The parameters; see :class:`Flat`.
    stepsize : float or schedule
        Learning rate :math:`\eta`. It can be set at any time.
    momentum : float or schedule
        :math:`\mu`. The velocity starts at zero, and is damped from the first step on; that of fastopt.SGD
        starts as the first gradient.
    **options
        See :class:`fastopt.Optimizer`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastopt.adapters.flat import SGD
    >>> theta = np.ones(4)
    >>> ratio = SGD(theta, stepsize=0.5).update(np.full(4, 2.0))
    >>> theta.round(4), round(ratio, 4)
    (array([0.9, 0.9, 0.9, 0.9]), 0.1)
    """

    def __init__(self, pi: Any, stepsize: Any, momentum: Any = 0.9, **options: Unpack[Options]) -> None:
        super().__init__(_SGD, pi, lr=stepsize, momentum=momentum, **options)
