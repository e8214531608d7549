"""Hyperparameters: which values they may have, and the groups that hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np

from fastopt.background import Turn


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``.

    The ends may be left out, and all but whole numbers; infinity may be let in.
    """

    low: float = -math.inf
    high: float = math.inf
    below: bool = False
    whole: bool = False
    above: bool = False
    infinite: bool = False

    def __str__(self) -> str:
        if self.low == -math.inf:
            return "a finite number" if self.high == math.inf else f"a finite number <= {self.high:g}"
        if self.high == math.inf:
            kind = "whole " if self.whole else "" if self.infinite else "finite "
            return f"a {kind}number {'>' if self.above else '>='} {self.low:g}"
        return f"a number in [{self.low:g}, {self.high:g}{')' if self.below else ']'}"

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value):
            return self.infinite and value == math.inf
        if value < self.low or (self.above and value == self.low) or (self.whole and value != int(value)):
            return False
        return value < self.high if self.below else value <= self.high


_ANY, _NOT_NEGATIVE, _SHARE, _FRACTION = Range(), Range(0), Range(0, 1), Range(0, 1, below=True)
_WHOLE, _POSITIVE = Range(0, whole=True), Range(0, above=True)

#: What the usual names allow; torch.optim's limits. Other names take any finite number.
RANGES: Mapping[str, Range] = {
    "lr": _NOT_NEGATIVE,
    "lr_scale": _NOT_NEGATIVE,
    "lr_decay": _NOT_NEGATIVE,
    "momentum": _NOT_NEGATIVE,
    "dampening": _ANY,
    "weight_decay": _NOT_NEGATIVE,
    "betas": _FRACTION,
    "ns_steps": _WHOLE,
    "shampoo_beta": Range(-1, 1, below=True),
    "precondition_frequency": Range(1, whole=True),
    "max_precond_dim": _WHOLE,
    "beta2_decay": Range(high=0),
    "d": Range(1),
    "adamw_lr_ratio": _NOT_NEGATIVE,
    "adamw_eps": _NOT_NEGATIVE,
    "alpha": _NOT_NEGATIVE,
    "rho": _SHARE,
    "eps": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
    "corrected_weight_decay": _NOT_NEGATIVE,
    "ema_decay": _SHARE,
    "swa_start": _WHOLE,
    "swa_every": Range(1, whole=True),
    "lookahead_steps": _WHOLE,
    "lookahead_alpha": _SHARE,
    "momentum_decay": _NOT_NEGATIVE,
    "a": _NOT_NEGATIVE,
    "b": _NOT_NEGATIVE,
    "beta": _NOT_NEGATIVE,
    "l1": _NOT_NEGATIVE,
    "l2": _NOT_NEGATIVE,
    "lambd": _NOT_NEGATIVE,
    "t0": _NOT_NEGATIVE,
    "etas": _NOT_NEGATIVE,
    "step_sizes": _NOT_NEGATIVE,
    "alpha_warmup": _NOT_NEGATIVE,
    "beta3_warmup": _NOT_NEGATIVE,
    "trust_coefficient": _NOT_NEGATIVE,
    "gamma": _NOT_NEGATIVE,
    "tolerance_grad": _NOT_NEGATIVE,
    "tolerance_change": _NOT_NEGATIVE,
    "d0": _POSITIVE,
    "d_coef": _NOT_NEGATIVE,
    "growth_rate": Range(1, infinite=True),
    "reps_rel": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_lr_power": _NOT_NEGATIVE,
    "max_grad_value": _POSITIVE,
    "max_grad_norm": Range(0, infinite=True),
    "skip_outliers": _POSITIVE,
    "grad_scale": Range(1e-37, 1e37),
    "init_scale": Range(1e-37, 1e37),
    "growth_factor": Range(1, above=True),
    "backoff_factor": _FRACTION,
    "growth_interval": Range(1, whole=True),
}

#: What is one of some words, or None.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "state_dtype": ("float32", "bfloat16", "float8"),
    "master_weights": ("float32", "split"),
}

#: What cannot be a schedule: it counts when the state is made, or how often something is done.
UNSCHEDULED = frozenset(
    {
        "initial_accumulator_value",
        "d0",
        "lookahead_steps",
        "max_precond_dim",
        "lr_scale",
        "swa_start",
        "swa_every",
    }
)


def check_value(name: str, value: Any, default: Any, *, schedule: bool = True) -> Any:
    """Return a hyperparameter's value in plain Python numbers, or raise an error that names it.

    Parameters
    ----------
    name : str
        The name, as the error shall have it.
    value : number, tuple of numbers, bool, str, callable, or None
        What was given.
    default : number, tuple of numbers, bool, or None
        The default, whose kind the value must have: with None, a number or None.
    schedule : bool
        Whether a callable is accepted.

    Raises
    ------
    TypeError
        If it is of another kind.
    ValueError
        If it is out of range.

    Examples
    --------
    >>> check_value("lr", np.float32(0.5), 1e-3)
    0.5
    >>> check_value("lr", -1, 1e-3)
    Traceback (most recent call last):
    ValueError: lr must be a finite number >= 0, or a schedule of such; got -1
    """
    if name in CHOICES:
        if value is not None and (not isinstance(value, str) or value not in CHOICES[name]):
            kind = ValueError if isinstance(value, str) else TypeError
            raise kind(f"{name} must be {', '.join(map(repr, CHOICES[name]))}, or None; got {value!r}")
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}")
        return bool(value)
    schedule = schedule and name not in UNSCHEDULED
    if (callable(value) and schedule) or (value is None and default is None):
        return value
    allowed = RANGES.get(name, _ANY)
    wanted = f"{name} must be {allowed}"
    if isinstance(default, tuple):
        wanted = f"{name} must be {len(default)} values, each {allowed}"
    wanted += ", or a schedule of such" * schedule + ", or None" * (default is None) + "; got "
    if isinstance(default, tuple):
        if not isinstance(value, tuple | list) or len(value) != len(default):
            raise TypeError(f"{wanted}{value!r}")
        numbers = tuple(as_number(item) for item in value)
        if None in numbers:
            raise TypeError(f"{wanted}{value!r}")
        if not all(number in allowed for number in numbers if number is not None):
            raise ValueError(f"{wanted}{value!r}")
        return numbers
    number = as_number(value)
    if number is None:
        raise TypeError(f"{wanted}{value!r}")
    if number not in allowed:
        raise ValueError(f"{wanted}{value!r}")
    return number


def as_number(value: Any) -> float | None:
    """Return a real number as a float, and None for anything else, booleans included."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return None
    return float(value)


class Settings(Mapping[str, Any]):
    """Hyperparameters that hold for some leaves: those of their group, or what overrides make of them.

    Attributes
    ----------
    defaults : mapping
        The kind of each hyperparameter, by example.
    own : mapping
        Those that are overridden.
    lr_scale : float
        What the learning rate is multiplied by.
    """

    defaults: Mapping[str, Any]
    own: Mapping[str, Any] = MappingProxyType({})
    lr_scale = 1.0
    _values: Mapping[str, Any]
    #: What needs no second look: to be emptied when a value changes.
    _constants: dict[tuple[str, ...], tuple[Any, ...]]

    @property
    def maximize(self) -> bool:
        """Whether to ascend."""
        return bool(self._values["maximize"])

    def values_at(self, count: int, names: tuple[str, ...], lr: float | None) -> tuple[Any, ...]:
        """Return hyperparameters as plain numbers: of schedules, the value after ``count`` steps.

        Parameters
        ----------
        count : int
            Number of steps already taken.
        names : tuple of str
            Which hyperparameters.
        lr : float or None
            A value in place of their own ``lr``.
        """
        if lr is None and names in self._constants:
            return self._constants[names]
        values = []
        constant = lr is None
        for name in names:
            value = lr if name == "lr" and lr is not None else self._values[name]
            if callable(value):
                value, constant = self._scheduled(name, value, count), False
            if name == "lr" and self.lr_scale != 1.0:
                value = check_value("lr", value * self.lr_scale, 0.0, schedule=False)
            elif name == "weight_decay" and self._values["corrected_weight_decay"] != 0.0:
                value *= self._corrected(count, lr)
                constant = False
            values.append(value)
        if constant:
            self._constants[names] = tuple(values)
        return tuple(values)

    def _corrected(self, count: int, lr: float | None) -> float:
        """Return the factor on the weight decay that makes it fall with the square of the learning rate."""
        names = "lr", "corrected_weight_decay"
        values = self._values["lr"] if lr is None else lr, self._values["corrected_weight_decay"]
        rate, greatest = (
            self._scheduled(name, value, count) if callable(value) else value
            for name, value in zip(names, values, strict=True)
        )
        return float(rate / greatest)  # of the schedule: lr_scale has no part in it

    def _scheduled(self, name: str, schedule: Callable[[int], Any], count: int) -> Any:
        return check_value(name, schedule(count), self.defaults[name] or 0.0, schedule=False)  # not None

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what they would be if the group had other values."""
        return {**self, **values, **self.own}


class ParamGroup(Settings, MutableMapping[str, Any]):
    """Parameters with hyperparameters of their own, as a mapping.

    ``group["lr"] = 1e-4`` takes effect at the next step, on all arrays that do not override it. Values are
    checked when they are set. The keys are fixed: the hyperparameters of the optimizer, and "params", which
    cannot be set.

    Parameters
    ----------
    params : array, tree of arrays, or Pack
        The parameters.
    values : mapping
        Hyperparameters.
    defaults : mapping
        Those that are missing in ``values``, and the kind of each.
    """

    def __init__(self, params: Any, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._params = params
        self.defaults = defaults
        self._values: dict[str, Any] = {}
        self._overrides: dict[str, dict[str, Any]] = {}
        self._caches: list[dict[tuple[str, ...], tuple[Any, ...]]] = []
        self._constants = self.new_cache()
        #: Set by the optimizer: a change waits for a step that is under way.
        self.turn: Turn | None = None
        #: Set by the optimizer, when it has taken note of a change.
        self.changed = True
        for name in values:
            self._check_name(name)
        for name, default in defaults.items():
            self[name] = values.get(name, default)

    @property
    def overrides(self) -> dict[str, dict[str, Any]]:
        """What is set for single arrays of the group, by name: a copy.

        It was settled when the group was added, and cannot be changed.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> params = {"w": np.ones((2, 2)), "b": np.ones(2)}
        >>> opt = fastopt.AdamW(params, no_decay="b", overrides={"*": {"lr_scale": 0.1}})
        >>> opt.param_groups[0].overrides
        {'w': {'lr_scale': 0.1}, 'b': {'weight_decay': 0.0, 'lr_scale': 0.1}}
        """
        return {name: dict(own) for name, own in self._overrides.items()}

    def set_overrides(self, overrides: Mapping[str, Mapping[str, Any]]) -> None:
        """Take what overrides have set, to show it."""
        self._overrides = {name: dict(own) for name, own in overrides.items()}

    def new_cache(self) -> dict[tuple[str, ...], tuple[Any, ...]]:
        """Return a dict that is emptied whenever a hyperparameter is set."""
        self._caches.append({})
        return self._caches[-1]

    def _check_name(self, name: str) -> None:
        if name not in self.defaults:
            known = ", ".join(self.defaults)
            raise ValueError(f"unknown hyperparameter {name!r} of a parameter group; known are {known}")

    def __getitem__(self, name: str) -> Any:
        return self._params if name == "params" else self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "params":
            raise ValueError("the params of a group cannot be replaced; add_param_group adds some")
        self._check_name(name)
        if self.turn is not None:
            self.turn.wait()
        self._values[name] = check_value(name, value, self.defaults[name])
        for cache in self._caches:
            cache.clear()
        self.changed = True

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name!r} cannot be taken out of a parameter group")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self._values

    def __len__(self) -> int:
        return 1 + len(self._values)

    def __repr__(self) -> str:
        return f"ParamGroup({', '.join(f'{k}={v!r}' for k, v in self._values.items())})"
