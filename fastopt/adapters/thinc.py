"""thinc's optimizers, with fastopt's fused update: ``fastopt.adapters.thinc.Adam(0.001)``.

Each has the signature, the defaults and the conventions of the one of that name in
:mod:`thinc.optimizers`, and is a :class:`thinc.optimizers.Optimizer`: models, training loops and schedules
take it as they take that one. Configurations do by the names ``fastopt.Adam.v1``, ``fastopt.RAdam.v1`` and
``fastopt.SGD.v1``, once this module has been imported. For thinc 8 and 9.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.adapters._thinc_rules import RULES, adam_scalars, radam_scalars
from fastopt.engine import Batch, Rule, available_threads
from fastopt.engine.memory import aligned_zeros
from fastopt.foreign import as_numpy
from fastopt.leaf import check_updatable
from fastopt.tree import describe

try:  # as Any: types would be known only where thinc is installed
    host: Any = importlib.import_module("thinc.optimizers")
    registry: Any = importlib.import_module("thinc.config").registry
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "thinc":  # thinc is there, and lacks something itself
        raise
    raise ModuleNotFoundError(
        'fastopt.adapters.thinc needs thinc, which is missing: pip install "fastopt[thinc]"', name="thinc"
    ) from error

__all__ = ["SGD", "Adam", "Optimizer", "RAdam"]

Array = NDArray[np.float32]


class _Launch:
    """The update of one parameter: the arrays that it goes over, and the batch that does.

    What is not in C order is copied, to staging arrays and back.
    """

    def __init__(self, weights: Array, gradient: Array, state: Sequence[Array], rule: Rule) -> None:
        self.weights, self.gradient, self.state, self.rule = weights, gradient, state, rule
        self._weights, self._gradient = np.ascontiguousarray(weights), np.ascontiguousarray(gradient)
        segment = self._weights.reshape(-1), self._gradient.reshape(-1), [a.reshape(-1) for a in state], 0
        self._batch = Batch(rule, [segment], 1, available_threads(), clears=True)

    def fits(self, weights: Array, gradient: Array, state: Sequence[Array], rule: Rule) -> bool:
        """Tell whether it updates these very arrays."""
        return (
            self.weights is weights
            and self.gradient is gradient
            and self.rule is rule
            and all(map(operator.is_, self.state, state))
        )

    def run(self, factor: float, scalars: Sequence[float]) -> None:
        """Update the weights by the gradient, times a factor, and set it to zero."""
        self._batch.set_scalars(0, factor, scalars)
        if self._weights is not self.weights:
            np.copyto(self._weights, self.weights)
        if self._gradient is not self.gradient:
            np.copyto(self._gradient, self.gradient)
            self.gradient.fill(0)
        self._batch.run()
        if self._weights is not self.weights:
            np.copyto(self.weights, self._weights)


class Optimizer(host.Optimizer):  # type: ignore[misc]
    r"""A :class:`thinc.optimizers.Optimizer` that updates each parameter in one fused pass, in place.

    The pass does what thinc does in several: the moments, the step, the decay, the average, and the gradient
    that is set to zero.

    Parameters
    ----------
    learn_rate : float, list, generator or thinc.schedules.Schedule
        Learning rate :math:`\eta`.
    L2 : float or schedule
        :math:`\lambda`. With ``L2_is_weight_decay``, :math:`p \leftarrow p - \eta \lambda p` follows each
        step; without, :math:`\lambda p` is added to the gradient before it is clipped.
    beta1, beta2, eps : float or schedule
        As in Adam. With a ``beta1`` or ``beta2`` of 0 there are no moments: plain gradient descent.
    grad_clip : float or schedule
        Each gradient of a greater norm is multiplied by ``grad_clip / norm``. 0 clips nothing.
    use_averages : bool
        Whether to keep averages of the parameters.
    use_radam : bool
        Rectify the steps, as RAdam does.
    L2_is_weight_decay : bool
        See ``L2``.

    Attributes
    ----------
    averages : dict of tuple to ndarray, or None
        The averages by key, for ``model.use_params(optimizer.averages)``.
    mom1, mom2, nr_update : dict
        The moments, as 1-D arrays, and the number of updates, by key.

    See Also
    --------
    Adam, RAdam, SGD : With the defaults of each.

    Notes
    -----
    thinc's conventions are not those of :mod:`fastopt`'s own classes. :math:`\epsilon` is added to the root
    before the bias is corrected (the paper's :math:`\hat\epsilon`). The decay takes its share of the weights
    after the step. An average starts at zero; of the :math:`t`-th weights it takes the share
    :math:`\max(9 / (10 + t), 10^{-4})`. RAdam counts its updates from 2, rectifies from a length of 5
    on, and its steps disregard ``lr_scale``.

    Weights are float32 arrays on the CPU. What comes back is the very arrays that were given.

    Examples
    --------
    >>> import numpy as np
    >>> from fastopt.adapters.thinc import Adam
    >>> optimizer = Adam(0.1)
    >>> weights, gradient = np.zeros(2, np.float32), np.array([3.0, -4.0], np.float32)
    >>> updated, cleared = optimizer((0, "W"), weights, gradient)
    >>> updated is weights, weights.round(4), gradient
    (True, array([-0.1,  0.1], dtype=float32), array([0., 0.], dtype=float32))
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._launches: dict[Hashable, _Launch] = {}

    def __call__(
        self, key: tuple[int, str], weights: Array, gradient: Array, *, lr_scale: float = 1.0
    ) -> tuple[Array, Array]:
        """Update weights in place, and set their gradient to zero.

        Parameters
        ----------
        key : tuple
            What the parameter is known by, such as its node's number and its name.
        weights, gradient : ndarray of float32
            Of one shape.
        lr_scale : float
            Multiplies the learning rate.

        Returns
        -------
        tuple of ndarray
            ``weights`` and ``gradient``.

        Raises
        ------
        TypeError, ValueError
            If one is no array of float32 in the CPU's memory, the shapes differ, or it cannot be written to.
            Nothing is written then.
        """
        if len(gradient) < 1:
            return weights, gradient
        known = self._launches.get(key)
        if known is None or known.weights is not weights or known.gradient is not gradient:
            _check(weights, gradient, key)
        learn_rate, l2 = self._value("learn_rate", key), self._value("L2", key)
        beta1, beta2 = self._value("b1", key), self._value("b2", key)
        eps, threshold = self._value("eps", key), self._value("grad_clip", key)
        moments = self.use_radam or (beta1 > 0.0 and beta2 > 0.0)
        if beta2 > 0.0 and not moments:
            raise NotImplementedError(f"thinc has no update for beta1={beta1} and beta2={beta2}")
        self.nr_update[key] += 1
        step = self.nr_update[key]
        scalars: tuple[float, ...] = (lr_scale * learn_rate,)
        if self.use_radam:
            scalars = radam_scalars(step + 1, learn_rate, beta1, beta2, eps)
        elif moments:
            scalars = adam_scalars(step, lr_scale * learn_rate, beta1, beta2, eps)
        scalars = *scalars, lr_scale * learn_rate * l2 if self.L2_is_weight_decay else 0.0
        if self.averages is not None:
            scalars = *scalars, 1.0 - min((1.0 + step) / (10.0 + step), 0.9999)
        if weights.size:
            launch = self._launch(key, weights, gradient, moments)
            if l2 != 0 and not self.L2_is_weight_decay:
                gradient += l2 * weights
            launch.run(_clipping(gradient, threshold), scalars)
        return weights, gradient

    def _launch(self, key: tuple[int, str], weights: Array, gradient: Array, moments: bool) -> _Launch:
        """Return what updates the arrays of a key."""
        state: list[Array] = []
        for wanted, kept, shape in (
            (moments, self.mom1, weights.size),
            (moments, self.mom2, weights.size),
            (self.averages is not None, self.averages, weights.shape),
        ):
            if wanted:
                if key not in kept:
                    kept[key] = aligned_zeros(weights.size, np.float32).reshape(shape)
                state.append(kept[key])
        rule = RULES[moments, self.averages is not None]
        launch = self._launches.get(key)
        if launch is None or not launch.fits(weights, gradient, state, rule):
            launch = self._launches[key] = _Launch(weights, gradient, state, rule)
        return launch

    def _value(self, name: str, key: tuple[int, str]) -> Any:
        """Return the value of a setting now. In thinc 8 it is there; in thinc 9 it is a schedule's."""
        value = getattr(self, name)
        return value(self.step, key=key, last_score=self.last_score) if callable(value) else value

    def __getstate__(self) -> dict[str, Any]:
        # The launches hold addresses: they are made anew.
        return {name: getattr(self, name) for name in host.Optimizer.__slots__ if hasattr(self, name)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._launches = {}


def _clipping(gradient: Array, threshold: float) -> float:
    """Return the factor that clips a gradient by its norm."""
    if not threshold:
        return 1.0
    norm = float(np.linalg.norm(gradient))
    return threshold / norm if norm >= threshold else 1.0


def _check(weights: Any, gradient: Any, key: Any) -> None:
    """Raise an error unless the arrays can be updated."""
    for array, what in ((weights, "weights"), (gradient, "gradient")):
        place = f"{what} of {key!r}"
        as_numpy(array, place)  # it has words for arrays that are elsewhere
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else describe(array)
            raise TypeError(f"{place} must be a NumPy array of float32, got {got}")
        check_updatable(array, place, array)
    if gradient.shape != weights.shape:
        raise ValueError(
            f"gradient of {key!r} must have the shape of its weights, {weights.shape}; got {gradient.shape}"
        )


def Adam(
    learn_rate: Any = 1e-3,
    *,
    L2: Any = 0.0,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    eps: Any = 1e-8,
    grad_clip: Any = 1.0,
    L2_is_weight_decay: bool = True,
    use_averages: bool = True,
) -> Optimizer:
    """Return an :class:`Optimizer` with the defaults of :func:`thinc.optimizers.Adam`."""
    return Optimizer(
        learn_rate,
        L2=L2,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        grad_clip=grad_clip,
        L2_is_weight_decay=L2_is_weight_decay,
        use_averages=use_averages,
    )


def RAdam(
    learn_rate: Any = 1e-3,
    *,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    eps: Any = 1e-8,
    L2: Any = 0.0,
    L2_is_weight_decay: bool = True,
    grad_clip: Any = 1.0,
    use_averages: bool = True,
) -> Optimizer:
    """Return an :class:`Optimizer` with the defaults of :func:`thinc.optimizers.RAdam`."""
    return Optimizer(
        learn_rate,
        L2=L2,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        grad_clip=grad_clip,
        L2_is_weight_decay=L2_is_weight_decay,
        use_averages=use_averages,
        use_radam=True,
    )


def SGD(
    learn_rate: Any,
    *,
    L2: Any = 0.0,
    grad_clip: Any = 1.0,
    L2_is_weight_decay: bool = True,
    use_averages: bool = True,
) -> Optimizer:
    """Return an :class:`Optimizer` with the defaults of :func:`thinc.optimizers.SGD`: without moments."""
    return Optimizer(
        learn_rate,
        L2=L2,
        beta1=0.0,
        beta2=0.0,
        grad_clip=grad_clip,
        L2_is_weight_decay=L2_is_weight_decay,
        use_averages=use_averages,
    )


for _function in (Adam, RAdam, SGD):
    registry.optimizers(f"fastopt.{_function.__name__}.v1", func=_function)
