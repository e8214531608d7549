"""The points, the loop that fits a line to them, and the answer in closed form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastopt
from fastopt.demos.methods import Method, gradient_point

Array = NDArray[np.floating]


class Points(NamedTuple):
    """Points near a line."""

    x: Array
    y: Array


class Fit(NamedTuple):
    """A fit's course.

    Attributes
    ----------
    path : ndarray of shape (epochs + 1, 2)
        Slope and intercept, before the first epoch and after each.
    losses : ndarray of shape (epochs + 1,)
        Mean squared error there.
    """

    path: Array
    losses: Array


def make_points(seed: int, count: int = 100) -> Points:
    """Return points near y = 2.5 x, with normal noise of standard deviation 0.5."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(count)
    return Points(x, 2.5 * x + 0.5 * rng.standard_normal(count))


def mean_squared_error(points: Points, slope: float, intercept: float) -> float:
    """Return the loss of a line."""
    return float(np.square(slope * points.x + intercept - points.y).mean())


def least_squares(points: Points) -> tuple[float, float]:
    """Return the slope and the intercept with the least loss."""
    design = np.stack([points.x, np.ones_like(points.x)], axis=1)
    slope, intercept = np.linalg.lstsq(design, points.y, rcond=None)[0]
    return float(slope), float(intercept)


def fit(method: Method, points: Points, epochs: int, dtype: DTypeLike = np.float64) -> Fit:
    """Fit a line, from slope and intercept zero, with all points at each step.

    Parameters
    ----------
    method : Method
        What to fit it with.
    points : Points
        What to fit it to.
    epochs : int
        Number of steps.
    dtype : float32 or float64
        Of the computation.
    """
    x, y = points.x.astype(dtype), points.y.astype(dtype)
    pack = fastopt.pack({"slope": np.zeros(()), "intercept": np.zeros(())}, dtype=dtype)
    slope, intercept = pack.params["slope"], pack.params["intercept"]
    optimizer = method.make(pack)
    path = np.zeros((epochs + 1, 2), dtype)
    for epoch in range(1, epochs + 1):
        with gradient_point(optimizer):
            error = slope * x + intercept - y
            pack.grads["slope"][...] = 2.0 * (error * x).mean()
            pack.grads["intercept"][...] = 2.0 * error.mean()
        optimizer.step()
        path[epoch] = slope, intercept
    losses = np.array([mean_squared_error(points, *line) for line in path.tolist()])
    return Fit(path, losses)
