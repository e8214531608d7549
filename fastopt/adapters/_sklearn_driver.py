"""What stands in the place of scikit-learn's own optimizers: one of fastopt, with its gradients."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer

from fastopt import algorithms
from fastopt.algorithms._schedule_free import ScheduleFree
from fastopt.engine import Batch, Rule
from fastopt.optimizer import Optimizer
from fastopt.overrides import OPTIONS
from fastopt.packing import Pack, pack
from fastopt.tree import describe

#: Algorithms that need what scikit-learn's loop does not have.
_REFUSED: Mapping[type[Optimizer], str] = {
    algorithms.LBFGS: "it evaluates the loss several times in a step; use solver='lbfgs'",
    algorithms.Sophia: "it needs estimates of the Hessian",
    algorithms.SparseAdam: "it takes gradients of rows only; use 'Adam'",
}


def penalized(p, g, alpha, samples):  # type: ignore[no-untyped-def]  # the gradient, with the weight in g
    return (p + alpha * g) / samples


def sgd(p, g, velocity, lr, momentum, weight_decay):  # type: ignore[no-untyped-def]
    velocity = momentum * velocity - lr * (g + weight_decay * p)
    return p + velocity, velocity


def sgd_nesterov(p, g, velocity, lr, momentum, weight_decay):  # type: ignore[no-untyped-def]
    g = g + weight_decay * p
    velocity = momentum * velocity - lr * g
    return p + (momentum * velocity - lr * g), velocity


_PENALIZED = Rule(penalized)


class SolverSGD(Optimizer):
    """scikit-learn's ``solver="sgd"``: the velocity contains the learning rate, Nesterov's too.

    So a learning rate that falls acts on new gradients alone. :class:`fastopt.SGD` is torch's.
    """

    plain = Rule(sgd, ("velocity",), decay="coupled")
    with_nesterov = Rule(sgd_nesterov, ("velocity",), decay="coupled")
    defaults: ClassVar[Mapping[str, Any]] = {
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "nesterov": True,
    }

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule, by whether the momentum is Nesterov's."""
        return cls.with_nesterov if group["nesterov"] else cls.plain


@dataclass(frozen=True)
class SolverEps:
    r"""The eps of :class:`fastopt.Adam` that is scikit-learn's epsilon, as a schedule.

    scikit-learn adds it before the bias correction, as the paper's :math:`\hat\epsilon`.
    """

    epsilon: float
    beta_2: float

    def __call__(self, count: int) -> float:
        """Return the eps of the step after ``count`` steps."""
        return self.epsilon / math.sqrt(1.0 - self.beta_2 ** (count + 1))


def specification(model: Any) -> tuple[type[Optimizer], dict[str, Any]]:
    """Return the class of a model's optimizer, and what it is made with.

    Raises
    ------
    TypeError, ValueError
        If ``optimizer`` or ``optimizer_params`` is nothing that there is.
    """
    chosen, own = model.optimizer, model.optimizer_params
    given: Mapping[str, Any] = {}
    cls: Any = chosen
    if chosen is None:
        cls = SolverSGD if model.solver == "sgd" else algorithms.Adam
    elif isinstance(chosen, str):
        if chosen not in algorithms.__all__:
            raise ValueError(
                f"optimizer must be one of {', '.join(algorithms.__all__)}, if it is a name; got {chosen!r}"
            )
        cls = getattr(algorithms, chosen)
    elif isinstance(chosen, functools.partial):
        cls, given = chosen.func, chosen.keywords
        if chosen.args:
            raise TypeError("optimizer must have keyword arguments only, if it is a functools.partial")
    elif isinstance(chosen, Optimizer):
        cls, given = type(chosen), _settings_of(chosen)
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
        raise TypeError(
            "optimizer must be a fastopt optimizer: its name, its class, a functools.partial of its class, "
            "or an instance, whose settings are taken; or None, for that of the solver. "
            f"Got {cls.__name__ if isinstance(cls, type) else describe(cls)}"
        )
    for refused, reason in _REFUSED.items():
        if issubclass(cls, refused):
            raise ValueError(f"optimizer cannot be {cls.__name__}: {reason}")
    if own is not None and not isinstance(own, Mapping):
        raise TypeError(f"optimizer_params must be a dict of the optimizer's arguments; got {describe(own)}")
    settings = {**given, **(own or {})}
    for name in ("params", "grad_scaler"):
        if settings.get(name) is not None:
            why = "the arrays are the model's" if name == "params" else "its gradients are not scaled"
            raise ValueError(f"optimizer_params cannot have {name!r}: {why}")
    host: dict[str, Any] = {"lr": model.learning_rate_init} if "lr" in cls.defaults else {}
    if cls is SolverSGD:
        host |= {"momentum": model.momentum, "nesterov": bool(model.nesterovs_momentum)}
    if cls is algorithms.Adam:
        betas = settings.get("betas", (model.beta_1, model.beta_2))
        host["betas"] = betas
        if isinstance(betas, tuple | list) and len(betas) == 2:
            host["eps"] = SolverEps(model.epsilon, betas[1])
    return cls, {**host, **settings}


def _settings_of(optimizer: Optimizer) -> dict[str, Any]:
    if len(optimizer.param_groups) > 1 or optimizer.param_groups[0].overrides:
        raise ValueError(
            "optimizer must have one parameter group and no settings of single arrays, if it is an "
            "instance: the arrays will be the model's. Give such settings in optimizer_params"
        )
    options = {name: value for name, value in vars(optimizer._options).items() if name not in OPTIONS}
    (group,) = optimizer.param_groups
    return {**options, **{name: value for name, value in group.items() if name != "params"}}


class Driver(SGDOptimizer):  # type: ignore[misc]
    """An optimizer of fastopt in the place of scikit-learn's, whose schedules of the learning rate it has.

    A pickle of it holds no parameters: they are the model's, to which it has to be attached.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        What it is made for.
    """

    def __init__(self, model: Any) -> None:
        self._cls, self._settings = specification(model)
        rate = self._settings.get("lr")
        fixed = isinstance(rate, Real)
        schedules = model.optimizer is not None or model.solver == "sgd"  # scikit-learn's Adam has none
        schedule = model.learning_rate if schedules else "constant"
        if schedule != "constant" and not fixed:
            raise ValueError(
                "learning_rate must be 'constant' where the optimizer's lr is a schedule, or where it has "
                f"none; got {schedule!r}"
            )
        super().__init__([], rate if fixed else 0.0, schedule, power_t=model.power_t)
        self._fuses = self._can_fuse()
        self._samples, self.decay = 1.0, 0.0
        self._saved: dict[str, Any] | None = None
        self._opt: Optimizer | None = None

    def _can_fuse(self) -> bool:
        """Tell whether the step can add the L2 penalty, as coupled weight decay: nothing is in between."""
        defaults = self._cls.defaults
        if not self._settings.keys() <= (defaults.keys() | {"threads"}) - {"weight_decay"}:
            return False
        rule = self._cls.choose_rule({**defaults, **self._settings})
        return getattr(rule, "decay", None) == "coupled" and defaults.get("weight_decay") == 0.0

    def try_with(self, layers: int) -> None:
        """Raise the errors of the optimizer's arguments, by making it for a tiny model of as many layers."""
        tiny = {"coefs": list(np.zeros((layers, 1, 1))), "intercepts": list(np.zeros((layers, 1)))}
        self._make(pack(tiny, np.float32))  # whose state can have any form

    def _make(self, params: Pack) -> Optimizer:
        settings = copy.deepcopy(self._settings)  # schedules may have state
        if self._fuses:
            settings["overrides"] = {"coefs.*": {"weight_decay": self._decay_at}}
        return self._cls(params, **settings)

    def _decay_at(self, count: int) -> float:
        return self.decay

    def attach(self, model: Any) -> Optimizer:
        """Have the model's parameters be views of one pack; return its optimizer.

        The model's arrays may have been replaced: by early stopping, by unpickling, or by the user.

        Raises
        ------
        ValueError
            If their shapes are others than before.
        """
        given = {"coefs": model.coefs_, "intercepts": model.intercepts_}
        if self._opt is None:
            self._pack = pack(given, dtype=model.coefs_[0].dtype)
            self._opt = self._make(self._pack)
            if self._saved is not None:
                self._opt.load_state_dict(self._saved)
            self._sums = self._opt._options.accumulate > 1  # then the gradients of a step are not the pack's
            grads = pack(given).params if self._sums else self._pack.grads
            self.coef_grads, self.intercept_grads = grads["coefs"], grads["intercepts"]
            pairs = [] if self._fuses else zip(self.coef_grads, self._pack.params["coefs"], strict=True)
            self._penalties = [
                Batch(_PENALIZED, [(grad.reshape(-1), coef.reshape(-1), [], 0)], 1, self._opt.max_threads)
                for grad, coef in pairs
            ]
        for name, views in self._pack.params.items():
            arrays = given[name]
            if [array.shape for array in arrays] != [view.shape for view in views]:
                raise ValueError(
                    f"{name}_ has other shapes than when the training began; call fit() without warm_start"
                )
            for view, array in zip(views, arrays, strict=True):
                if array is not view:
                    view[...] = array
            setattr(model, f"{name}_", list(views))
        return self._opt

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, once this is attached."""
        assert self._opt is not None
        return self._opt

    def begin(self, alpha: float, samples: Any) -> None:
        """Take note of the weight of the L2 penalty, and of what the gradients to come are divided by."""
        self._samples, self.decay = samples, alpha / samples
        for penalty in self._penalties:
            penalty.set_scalars(0, 1.0, (alpha, samples))

    def gradient(self, layer: int, activation: Any, delta: Any) -> None:
        """Write the gradients of a layer, but for what the step does itself."""
        coef_grad, intercept_grad = self.coef_grads[layer], self.intercept_grads[layer]
        if isinstance(activation, np.ndarray):
            np.matmul(activation.T, delta, out=coef_grad)
        else:
            coef_grad[...] = activation.T @ delta  # sparse
        np.sum(delta, axis=0, out=intercept_grad)
        if not self._fuses:
            self._penalties[layer].run()
            intercept_grad /= self._samples

    def update_params(self, params: Any, grads: list[Any]) -> None:
        """Take a step: what scikit-learn calls after each batch.

        Raises
        ------
        RuntimeError
            If the gradients are not those that were written for it.
        """
        if grads[0] is not self.coef_grads[0]:
            raise RuntimeError("the gradients must be those that _backprop() of this model returned")
        if self._sums:
            self.optimizer.step({"coefs": self.coef_grads, "intercepts": self.intercept_grads})
        else:
            self.optimizer.step(grad_scale=self._samples if self._fuses else 1.0)

    def iteration_ends(self, time_step: int) -> None:
        """Let the learning rate fall, if it does so at the end of an epoch."""
        super().iteration_ends(time_step)
        self._set_rate()

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        """Return whether to stop; otherwise the learning rate has been divided."""
        stops = bool(super().trigger_stopping(msg, verbose))
        self._set_rate()
        return stops

    def _set_rate(self) -> None:
        if self.lr_schedule != "constant":
            self.optimizer.param_groups[0]["lr"] = self.learning_rate

    def looking_ahead(self) -> Any:
        """Return the context in which the gradients are taken."""
        opt = self.optimizer
        return opt.lookahead() if isinstance(opt, algorithms.NAG) else nullcontext()

    def show_average(self, shown: bool) -> None:
        """Have the parameters of Schedule-Free methods be their average, or be where gradients are taken."""
        if isinstance(self.optimizer, ScheduleFree):
            (self.optimizer.eval if shown else self.optimizer.train)()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in _ATTACHED}
        return {**kept, "_opt": None, "_saved": self._opt.state_dict() if self._opt else self._saved}


_ATTACHED = frozenset({"_pack", "_sums", "_penalties", "coef_grads", "intercept_grads"})
