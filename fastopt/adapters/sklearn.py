"""scikit-learn's multi-layer perceptrons, trained by any optimizer of fastopt.

What is scikit-learn's own here, and not public there, is listed in ``RELIES_ON`` and looked at on import.
Versions from 1.4 on have it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.optimizer import Optimizer

try:
    import sklearn
    from sklearn import neural_network
    from sklearn.neural_network._base import DERIVATIVES, LOSS_FUNCTIONS
    from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron

    from fastopt.adapters._sklearn_driver import Driver
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'fastopt.adapters.sklearn needs scikit-learn >= 1.4 ({error}): pip install "fastopt[sklearn]"'
    ) from None

__all__ = ["MLPClassifier", "MLPRegressor"]

#: The methods of scikit-learn's perceptrons that are extended here, with the arguments that are looked at.
RELIES_ON: Mapping[str, tuple[str, ...]] = {
    "_validate_params": (),
    "_fit_stochastic": ("incremental",),
    "_backprop": ("X", "y", "activations", "deltas", "coef_grads", "intercept_grads"),
    "_forward_pass": ("activations",),
    "_update_no_improvement_count": (),
}


def check_host(base: type, version: str) -> None:
    """Raise an ImportError unless the methods of ``RELIES_ON`` are there, and take what they took."""
    for name, wanted in RELIES_ON.items():
        method = getattr(base, name, None)
        found = "nothing" if method is None else ", ".join(inspect.signature(method).parameters)
        if method is None or [each for each in found.split(", ") if each in wanted] != list(wanted):
            raise ImportError(
                f"fastopt.adapters.sklearn does not know scikit-learn {version}: the arguments of "
                f"{base.__name__}.{name} should include {', '.join(wanted) or 'self'}; they are {found}"
            )


check_host(BaseMultilayerPerceptron, sklearn.__version__)


class Trained(BaseMultilayerPerceptron):  # type: ignore[misc]
    """What both models share: the places where scikit-learn's training is extended."""

    optimizer: Any
    optimizer_params: Any

    @property
    def optimizer_(self) -> Optimizer:
        """The optimizer at work, over the arrays of the model: its state, its averages, its checkpoints."""
        if not hasattr(self, "coefs_") or not hasattr(self, "_driver"):
            raise AttributeError(
                f"this {type(self).__name__} has no optimizer_ before it is trained by solver='sgd' or 'adam'"
            )
        return self._driver.attach(self)

    @property
    def _optimizer(self) -> Driver:
        return self._driver

    @_optimizer.setter
    def _optimizer(self, made: Any) -> None:
        """Leave out scikit-learn's own, which it makes in each fit: there is a driver already."""

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.solver != "lbfgs":
            Driver(self).try_with(1 + np.size(self.hidden_layer_sizes))
        elif self.optimizer is not None or self.optimizer_params is not None:
            raise ValueError("optimizer and optimizer_params must be None with solver='lbfgs'")

    def _fit_stochastic(self, *args: Any, **kwargs: Any) -> None:
        extended = super()._fit_stochastic
        incremental = inspect.signature(extended).bind(*args, **kwargs).arguments["incremental"]
        if not (incremental and hasattr(self, "_driver")):
            self._driver = Driver(self)
        self._driver.attach(self)
        self._driver.show_average(False)
        extended(*args, **kwargs)
        self._driver.show_average(True)

    def _backprop(self, X: Any, y: Any, *given: Any) -> Any:
        if self.solver == "lbfgs":
            return super()._backprop(X, y, *given)
        *weights, activations, _, _, _ = given
        with self._driver.looking_ahead():
            loss = self._gradients(X.shape[0], y, activations, *weights)
        return loss, self._driver.coef_grads, self._driver.intercept_grads

    def _gradients(self, samples: Any, y: Any, activations: list[Any], weight: Any = None) -> Any:
        """Return the loss, and write the gradients where the optimizer looks for them."""
        driver, weights = self._driver, () if weight is None else (weight,)
        driver.begin(self.alpha, samples if weight is None else weight.sum())
        activations = self._forward_pass(activations)
        binary = self.loss == "log_loss" and self.out_activation_ == "logistic"
        loss = LOSS_FUNCTIONS["binary_log_loss" if binary else self.loss](y, activations[-1], *weights)
        squares = sum(np.vdot(coef, coef) for coef in self.coefs_)
        delta = activations[-1] - y  # of the loss that belongs to the output's activation: scikit-learn's are
        if weight is not None:
            delta *= weight.reshape(-1, 1)
        for layer in reversed(range(len(self.coefs_))):
            driver.gradient(layer, activations[layer], delta)
            if layer > 0:
                delta = delta @ self.coefs_[layer].T
                if self.activation == "relu":  # the host sets single elements: many times slower
                    delta *= activations[layer] != 0
                else:
                    DERIVATIVES[self.activation](activations[layer], delta)
        return loss + 0.5 * driver.decay * squares

    def _update_no_improvement_count(self, *args: Any, **kwargs: Any) -> None:
        self._driver.show_average(self.early_stopping)
        super()._update_no_improvement_count(*args, **kwargs)
        self._driver.show_average(False)


def _with_optimizer(stock: Any) -> inspect.Signature:
    """Return the signature of scikit-learn's ``__init__``, which differs by version, with two arguments more.

    scikit-learn takes the names of the parameters from it.
    """
    signature = inspect.signature(stock.__init__)
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in ("optimizer", "optimizer_params")
    ]
    return signature.replace(parameters=[*signature.parameters.values(), *own])


class MLPClassifier(Trained, neural_network.MLPClassifier):  # type: ignore[misc]
    """scikit-learn's MLPClassifier, trained by any optimizer of fastopt.

    All else is as in :class:`sklearn.neural_network.MLPClassifier`: what it takes, what it returns, what it
    draws from its ``random_state``.

    Parameters
    ----------
    *args, **params
        scikit-learn's, in its order and with its defaults.
    optimizer : str, class, functools.partial or fastopt.Optimizer, optional
        An optimizer of fastopt: its name, such as ``"AdamW"``; its class, one's own too; a partial of the
        class with some of its arguments; or an instance, whose class, hyperparameters and options are taken,
        and which is not changed. By default what ``solver`` names. The solver's Adam and SGD compute what
        scikit-learn's do, up to rounding, and have its parameters.
    optimizer_params : dict, optional
        Further arguments of the optimizer, also with the solver's: ``{"weight_decay": 0.1}``. They win over
        those of a partial or an instance, and over scikit-learn's.

    Attributes
    ----------
    optimizer_ : fastopt.Optimizer
        The optimizer at work, for what it knows: ``state``, ``averages()``, ``grad_norm``, ``save()``. Its
        arrays are ``coefs_`` and ``intercepts_``. Reading it makes them so where they were replaced.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, before anything is set, if there is no such optimizer, or if it does not take such
        arguments. LBFGS, Sophia and SparseAdam need what scikit-learn's loop does not have, and are refused.

    See Also
    --------
    fastopt.Optimizer : The options that every optimizer takes.

    Notes
    -----
    With an ``optimizer``:

    - Its ``lr`` is ``learning_rate_init``, unless it is given one. So give those that find their rate
      themselves, and whose ``lr`` is a factor, ``optimizer_params={"lr": 1.0}``: Adadelta, DoG, Prodigy,
      DAdaptAdam. ``learning_rate`` and ``power_t`` let it fall, as they do with ``solver="sgd"``.
    - Its other defaults are fastopt's. ``beta_1``, ``beta_2`` and ``epsilon`` count for Adam alone, where
      epsilon is added before the bias correction, as in scikit-learn, unless Adam is given an ``eps``.
      ``momentum`` and ``nesterovs_momentum`` count for ``solver="sgd"`` alone, whose velocity contains the
      learning rate; :class:`fastopt.SGD` is torch's.
    - ``alpha`` is the L2 penalty that scikit-learn adds to loss and gradients, divided by the number of
      samples, and that leaves out the intercepts. It stays. A ``weight_decay`` comes on top, and is for all
      arrays unless ``optimizer_params`` has ``"no_decay": "intercepts.*"``.
    - The arrays are named ``coefs.0``, ``intercepts.0`` and so on, for patterns such as this one.

    Gradients are computed in the model's precision and written where the optimizer reads them. Those
    of NAG are taken at the point ahead. After training, and when early stopping computes its scores,
    Schedule-Free methods show their average. To predict with averages such as ``ema_decay``'s, use ``with
    model.optimizer_.averaged_parameters()``.

    A fit anew, with ``warm_start`` too, makes a new optimizer; ``partial_fit`` goes on with the one that is
    there, also after pickling. Parameters that are changed in between count from the next fit on.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from fastopt.adapters.sklearn import MLPClassifier
    >>> images, labels = load_digits(return_X_y=True)
    >>> model = MLPClassifier((16,), optimizer="Lion", max_iter=30, tol=0.1, random_state=0)
    >>> search = GridSearchCV(model, {"optimizer_params": [{"lr": 1e-9}, {"lr": 1e-3}]}, cv=2)
    >>> search.fit(images / 16, labels).best_params_
    {'optimizer_params': {'lr': 0.001}}
    >>> type(search.best_estimator_.optimizer_)
    <class 'fastopt.algorithms.lion.Lion'>
    """

    def __init__(
        self, *args: Any, optimizer: Any = None, optimizer_params: Any = None, **params: Any
    ) -> None:
        super().__init__(*args, **params)
        self.optimizer, self.optimizer_params = optimizer, optimizer_params

    __init__.__signature__ = _with_optimizer(neural_network.MLPClassifier)  # type: ignore[attr-defined]


class MLPRegressor(Trained, neural_network.MLPRegressor):  # type: ignore[misc]
    """scikit-learn's MLPRegressor, trained by any optimizer of fastopt.

    All else is as in :class:`sklearn.neural_network.MLPRegressor`. See :class:`MLPClassifier` for the two
    parameters that are added, for ``optimizer_``, and for what holds with them.

    Parameters
    ----------
    *args, **params
        scikit-learn's, in its order and with its defaults.
    optimizer : str, class, functools.partial or fastopt.Optimizer, optional
        An optimizer of fastopt. By default what ``solver`` names.
    optimizer_params : dict, optional
        Further arguments of the optimizer.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from fastopt.adapters.sklearn import MLPRegressor
    >>> X, y = map(scale, load_diabetes(return_X_y=True))
    >>> model = MLPRegressor(hidden_layer_sizes=16, optimizer="AdamW", tol=0.01, random_state=0)
    >>> model.set_params(optimizer_params={"lr": 0.01}).fit(X, y).score(X, y) > 0.5
    True
    """

    def __init__(
        self, *args: Any, optimizer: Any = None, optimizer_params: Any = None, **params: Any
    ) -> None:
        super().__init__(*args, **params)
        self.optimizer, self.optimizer_params = optimizer, optimizer_params

    __init__.__signature__ = _with_optimizer(neural_network.MLPRegressor)  # type: ignore[attr-defined]
