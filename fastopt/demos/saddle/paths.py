"""The methods, their paths, and how many steps they take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastopt import NAG, SGD, Adadelta, Adagrad, Adam, Momentum, Optimizer, RMSprop, pack
from fastopt.demos.methods import Method, gradient_point, settled
from fastopt.demos.saddle.surfaces import Array, Surface


class Contestant(NamedTuple):
    """A method, with a learning rate for each surface.

    On the saddle all have the same rate, but for Adadelta, whose rate is a factor, by default 1.
    """

    on_saddle: Method
    in_valley: Method


def _contestant(
    label: str, optimizer: type[Optimizer], saddle_lr: float, valley_lr: float, **others: float
) -> Contestant:
    saddle, valley = {"lr": saddle_lr, **others}, {"lr": valley_lr, **others}
    return Contestant(Method(label, optimizer, saddle), Method(label, optimizer, valley))


CONTESTANTS = (
    _contestant("SGD", SGD, 0.05, 0.01),
    _contestant("Momentum", Momentum, 0.05, 0.002, momentum=0.9),
    _contestant("NAG", NAG, 0.05, 0.002, momentum=0.9),
    _contestant("Adagrad", Adagrad, 0.05, 0.5),
    _contestant("Adadelta", Adadelta, 1.0, 1.0),
    _contestant("RMSprop", RMSprop, 0.05, 0.02, alpha=0.9),
    _contestant("Adam", Adam, 0.05, 0.1),
)


def follow(method: Method, surface: Surface, start: tuple[float, float], steps: int) -> Array:
    """Return the points that a method visits, the start first: shape (steps + 1, 2)."""
    point = pack(np.array(start))
    optimizer = method.make(point)
    path = np.empty((steps + 1, 2))
    path[0] = start
    for step in range(1, steps + 1):
        with gradient_point(optimizer):
            point.grads[:] = surface.gradient(*point.params)
        optimizer.step()
        path[step] = point.params
    return path


def steps_to_leave(path: Array, border: float = 1.0) -> int | None:
    """Return the step that first is beyond the border, at either side of the ridge; None if none is."""
    outside = np.flatnonzero(np.abs(path[:, 1]) > border)
    return int(outside[0]) if len(outside) else None


def distances(path: Array, surface: Surface) -> Array:
    """Return how far each point is from the nearest minimum."""
    offsets = path[:, None, :] - np.array(surface.minima)
    nearest: Array = np.hypot(offsets[..., 0], offsets[..., 1]).min(axis=1)
    return nearest


def steps_to_settle(path: Array, surface: Surface, radius: float = 0.1) -> int | None:
    """Return the step from which on a path stays within ``radius`` of a minimum; None if it does not."""
    return settled(distances(path, surface), radius)
