"""The options that every optimizer takes beside its hyperparameters, and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypedDict

import numpy as np

from fastopt.grad_scaler import GradScaler
from fastopt.hyperparameters import check_value
from fastopt.tree import describe

#: How many seeds there are.
SEEDS = 1 << 32


class Options(TypedDict, total=False):
    """The keyword-only options that every optimizer takes; see :class:`fastopt.Optimizer`."""

    maximize: bool
    no_decay: Any
    frozen: Any
    overrides: Any
    threads: int | None
    max_grad_value: Any
    cautious: bool
    cautious_weight_decay: bool
    corrected_weight_decay: Any
    ema_decay: Any
    ema_warmup: bool
    swa_start: float | None
    swa_every: float
    lookahead_steps: float
    lookahead_alpha: Any
    max_grad_norm: Any
    grad_norm_over: str
    skip_nonfinite: bool
    skip_outliers: float | None
    max_skips: int | None
    grad_scaler: GradScaler | None
    accumulate: int
    zero_grads: bool
    state_dtype: str | None
    master_weights: str | None
    seed: int


@dataclass
class StepOptions:
    """The options of an optimizer that hold for all of its groups. See :class:`fastopt.Optimizer`."""

    threads: int | None = None
    no_decay: Any = None
    frozen: Any = None
    overrides: Any = None
    max_grad_norm: Any = None
    grad_norm_over: str = "all"
    skip_nonfinite: bool = False
    skip_outliers: float | None = None
    max_skips: int | None = None
    grad_scaler: GradScaler | None = None
    accumulate: int = 1
    zero_grads: bool = False
    seed: int = 0

    names: ClassVar[frozenset[str]]

    def __post_init__(self) -> None:
        if self.threads is not None:
            _check_whole("threads", self.threads, "a whole number >= 1, or None", 1)
        if self.max_skips is not None:
            _check_whole("max_skips", self.max_skips, "a whole number >= 0, or None", 0)
        _check_whole("accumulate", self.accumulate, "a whole number >= 1", 1)
        _check_whole("seed", self.seed, f"a whole number from 0 to {SEEDS - 1}", 0, SEEDS)
        if self.max_grad_norm is not None:
            self.max_grad_norm = check_value("max_grad_norm", self.max_grad_norm, 1.0)
        if self.skip_outliers is not None:
            self.skip_outliers = check_value("skip_outliers", self.skip_outliers, 1.0, schedule=False)
        for name in ("skip_nonfinite", "zero_grads"):
            setattr(self, name, check_value(name, getattr(self, name), False))
        if self.grad_norm_over not in ("all", "tensor"):
            raise ValueError(f"grad_norm_over must be 'all' or 'tensor', got {self.grad_norm_over!r}")
        if self.grad_scaler is not None and not isinstance(self.grad_scaler, GradScaler):
            raise TypeError(
                f"grad_scaler must be a fastopt.GradScaler, or None; got {describe(self.grad_scaler)}"
            )
        if self.max_skips is not None and not self.may_skip:
            raise ValueError("max_skips needs skip_nonfinite, skip_outliers or a grad_scaler")

    @property
    def may_skip(self) -> bool:
        """Whether steps may be left out."""
        return self.skip_nonfinite or self.skip_outliers is not None or self.grad_scaler is not None

    @property
    def looks_at_norm(self) -> bool:
        """Whether the norm of the gradients is needed before the update."""
        return self.may_skip or self.max_grad_norm is not None

    @property
    def clips_apart(self) -> bool:
        """Whether each tensor's gradient is clipped by its own norm."""
        return self.max_grad_norm is not None and self.grad_norm_over == "tensor"


StepOptions.names = frozenset(field.name for field in fields(StepOptions))


def _check_whole(name: str, value: Any, wanted: str, least: int, below: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be {wanted}; got {value!r}")
    if not least <= value < below:
        raise ValueError(f"{name} must be {wanted}; got {value!r}")
