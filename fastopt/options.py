"""The options that every optimizer takes beside its hyperparameters, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypedDict

import numpy as np


class Options(TypedDict, total=False):
    """The keyword-only options that every optimizer takes; see :class:`fastopt.Optimizer`."""

    maximize: bool
    threads: int | None
    cautious: bool
    cautious_weight_decay: bool
    corrected_weight_decay: Any
    ema_decay: Any
    lookahead_steps: float
    lookahead_alpha: Any


@dataclass
class StepOptions:
    """The options of an optimizer that hold for all of its groups. See :class:`fastopt.Optimizer`."""

    threads: int | None = None

    names: ClassVar[frozenset[str]]

    def __post_init__(self) -> None:
        if self.threads is not None:
            _check_whole("threads", self.threads)


StepOptions.names = frozenset(field.name for field in fields(StepOptions))


def _check_whole(name: str, value: Any) -> None:
    wanted = f"{name} must be a whole number >= 1, or None; got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(wanted)
    if value < 1:
        raise ValueError(wanted)
