"""Dot products of long vectors, added up in one order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.batch import Measurement
from fastopt.engine.plain import PRODUCTS


def dot(x: NDArray[np.floating], y: NDArray[np.floating], max_threads: int = 1) -> float:
    """Return the sum of the products of two vectors' elements, multiplied and added in double.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Contiguous, of one dtype, float32 or float64.
    max_threads : int
        The most threads that it may use. The result does not depend on it.

    Examples
    --------
    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    if not x.size:
        return 0.0
    measurement = Measurement(PRODUCTS, [(x, y, [], 0)], 1, max_threads)
    measurement.set_scalars(0, 1.0, ())
    measurement.run()
    (total,) = measurement.totals()
    return total
