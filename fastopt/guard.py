"""What is done with the gradients of a step as a whole: they are clipped, or the step is left out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.checkpoint import expect_keys
from fastopt.hyperparameters import check_value
from fastopt.options import StepOptions

#: Outliers are told from the norms of so many steps, once there are half as many; OLMo's numbers.
WINDOW = 128
#: What torch.nn.utils.clip_grad_norm_ adds to the norm that it divides by.
EPS = 1e-6


class Guard:
    """Looks at the norm of the gradients before each step.

    Parameters
    ----------
    options : StepOptions
        What it is to do.

    Attributes
    ----------
    grad_norm : float or None
        The norm of the latest step's gradients: unscaled, before they were clipped. None where it was not
        asked for.
    nonfinite, outliers : int
        How many steps were left out because a gradient was not finite, or the norm was too large.
    in_a_row : int
        How many of the latest steps were left out.
    norms : deque of float
        The latest norms, from which outliers are told.
    """

    def __init__(self, options: StepOptions) -> None:
        self._options = options
        self.grad_norm: float | None = None
        self.nonfinite = self.outliers = self.in_a_row = 0
        self.norms: deque[float] = deque(maxlen=WINDOW)

    def factor(self, norms: NDArray[np.float64], norm: float, count: int) -> float | NDArray[np.float64]:
        """Return what the gradients are to be multiplied by: all of them, or those of each tensor.

        Parameters
        ----------
        norms : ndarray of float64
            The norm of each tensor's gradient.
        norm : float
            That of all.
        count : int
            Number of steps already taken: that schedules are asked for.

        Raises
        ------
        TypeError, ValueError
            If a schedule returns a value that is out of range.
        """
        greatest = self.limit(count)
        if self._options.clips_apart:  # each tensor has a row of scalars, which must be filled
            factors: NDArray[np.float64] = np.ones_like(norms)
            return factors if greatest is None else np.minimum(1.0, greatest / (norms + EPS))
        if greatest is None:
            return 1.0
        factor = greatest / (norm + EPS)
        return 1.0 if factor >= 1.0 else factor  # of a NaN, NaN: as in torch

    def limit(self, count: int) -> float | None:
        """Return the greatest norm of a step; None if it may be any."""
        greatest: Any = self._options.max_grad_norm
        if callable(greatest):
            greatest = check_value("max_grad_norm", greatest(count), 1.0, schedule=False)
        return None if greatest is None or greatest == math.inf else float(greatest)

    def refuses(self, norm: float) -> bool:
        """Take note of the norm of all gradients of a step; return whether the step is to be left out."""
        options, finite = self._options, math.isfinite(norm)
        self.grad_norm = norm
        bad = not finite and (options.skip_nonfinite or options.grad_scaler is not None)
        if options.grad_scaler is not None:
            options.grad_scaler.update(finite)
        far = False
        if finite and options.skip_outliers is not None:
            far = self._is_outlier(norm, options.skip_outliers)
            self.norms.append(norm)
        self.nonfinite += bad
        self.outliers += far
        self.in_a_row = self.in_a_row + 1 if bad or far else 0
        return bad or far

    def _is_outlier(self, norm: float, z: float) -> bool:
        if len(self.norms) < WINDOW // 2:
            return False
        before = np.array(self.norms)
        mean = float(before.mean())
        # Where all norms are equal, what is left of the deviation is rounding.
        return norm > mean + max(z * float(before.std(ddof=1)), 1e-6 * mean)

    def complain(self) -> None:
        """Raise an error if more steps in a row were left out than the options allow."""
        most = self._options.max_skips
        if most is not None and self.in_a_row > most:
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row were left out, more than max_skips={most}: the gradients "
                f"were not finite, or outliers; the norm of the latest is {self.grad_norm}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, the norms that outliers are told from, and the state of the scaler."""
        return {
            "nonfinite": self.nonfinite,
            "outliers": self.outliers,
            "in_a_row": self.in_a_row,
            "norms": np.array(self.norms),
            **{name: None if own is None else own.state_dict() for name, own in self._holders().items()},
        }

    def _holders(self) -> dict[str, Any]:
        """Return those of the options that have state; None for the others."""
        limit = self._options.max_grad_norm
        return {
            "grad_scaler": self._options.grad_scaler,
            "max_grad_norm": limit if hasattr(limit, "state_dict") else None,
        }

    def check_state(self, saved: Any, what: str) -> None:
        """Raise a ValueError unless :meth:`load_state_dict` can take what was saved."""
        expect_keys(saved, ("nonfinite", "outliers", "in_a_row", "norms", *self._holders()), what)
        if saved["grad_scaler"] is not None:
            expect_keys(saved["grad_scaler"], ("scale", "good_steps"), f"{what}['grad_scaler']")

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.nonfinite, self.outliers, self.in_a_row = (
            int(saved[name]) for name in ("nonfinite", "outliers", "in_a_row")
        )
        self.norms = deque(np.asarray(saved["norms"], np.float64).tolist(), WINDOW)
        for name, own in self._holders().items():
            if own is not None and saved[name] is not None:
                own.load_state_dict(saved[name])


def combined(norms: NDArray[np.float64]) -> float:
    """Return the norm of all tensors together from the norm of each."""
    norm = math.hypot(*norms.tolist())  # without overflow, always in one order
    return math.nan if norm == math.inf and np.isnan(norms).any() else norm
