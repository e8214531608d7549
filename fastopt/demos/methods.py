"""The methods that the demos compare, and what is special about using one of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt import NAG, Optimizer


@dataclass(frozen=True)
class Method:
    """An optimizer with its settings.

    Attributes
    ----------
    label : str
        The name in tables and pictures.
    optimizer : type
        A class of fastopt.
    settings : mapping
        Its hyperparameters; "lr" is one of them.
    """

    label: str
    optimizer: type[Optimizer]
    settings: Mapping[str, Any]

    @property
    def described(self) -> str:
        """The settings, as a table has them."""
        return ", ".join(f"{name} {value:g}" for name, value in self.settings.items())

    def make(self, params: Any) -> Optimizer:
        """Return an optimizer for ``params``."""
        return self.optimizer(params, **self.settings)


def gradient_point(optimizer: Optimizer) -> AbstractContextManager[Any]:
    """Return the context in which to compute the gradient of the next step.

    Nesterov's first form wants it at the point ahead; all others, where the parameters are.
    """
    return optimizer.lookahead() if isinstance(optimizer, NAG) else nullcontext()


def settled(values: NDArray[np.floating], bound: float) -> int | None:
    """Return the index from which on no value is above a bound; None if the last one is.

    Examples
    --------
    >>> settled(np.array([5.0, 1.0, 3.0, 1.0, 0.5]), 2.0)
    3
    """
    above = np.flatnonzero(values > bound)
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(values) else None
