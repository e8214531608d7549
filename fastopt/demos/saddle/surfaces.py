"""The two surfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """A function of two variables, and how to look at it.

    Attributes
    ----------
    title : str
        What it shows.
    value : callable
        The function, of x and y, numbers or arrays.
    gradient : callable
        Its derivatives by x and by y.
    start : pair of float
        Where the paths of the picture start.
    minima : tuple of pairs of float
        Where it is least.
    x_limits, y_limits : pair of float
        The part that the picture shows.
    border : float, optional
        The y beyond which a path has left, on either side.
    """

    title: str
    value: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any], tuple[Any, Any]]
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    border: float | None = None


def _saddle(x: Any, y: Any) -> Any:
    return x**2 - y**2 + y**4 / 4


def _saddle_gradient(x: Any, y: Any) -> tuple[Any, Any]:
    return 2 * x, y**3 - 2 * y


def _beale(x: Any, y: Any) -> Any:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _beale_gradient(x: Any, y: Any) -> tuple[Any, Any]:
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    by_x = 2 * a * (y - 1) + 2 * b * (y**2 - 1) + 2 * c * (y**3 - 1)
    by_y = 2 * a * x + 4 * b * x * y + 6 * c * x * y**2
    return by_x, by_y


#: A saddle at the origin that falls to both sides, to a minimum at either. The path starts
#: almost on the ridge y = 0, where the slope to the sides is almost nothing.
SADDLE = Surface(
    title="Out of a saddle",
    value=_saddle,
    gradient=_saddle_gradient,
    start=(-1.0, 1e-4),
    minima=((0.0, 2**0.5), (0.0, -(2**0.5))),
    x_limits=(-1.2, 1.2),
    y_limits=(-0.4, 2.0),
    border=1.0,
)

#: Beale's function: steep walls, and a valley with almost no slope that leads to the minimum.
VALLEY = Surface(
    title="Along a narrow valley",
    value=_beale,
    gradient=_beale_gradient,
    start=(1.0, 1.5),
    minima=((3.0, 0.5),),
    x_limits=(0.0, 3.4),
    y_limits=(-1.6, 1.8),
)
