"""NumPy: as an author who cares writes it, and as most people do."""

from __future__ import annotations

import numpy as np
import plain_numpy
from contest import KEPT, MAX_NORM, Contestant, Task, refilled, refuse
from workloads import Array, Arrays


def in_place(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """All parameters in one buffer, whose views are the arrays; nothing is allocated in a step."""
    refuse(task, list(plain_numpy.STEPS))
    p, g = (np.concatenate([array.reshape(-1) for array in arrays]) for arrays in (params, grads))
    update = plain_numpy.STEPS[task.algorithm](p, **task.settings)
    average, scratch = (p.copy(), np.empty_like(p)) if task.averages else (p, p)

    def step() -> None:
        if task.clips:
            norm = float(np.dot(g, g)) ** 0.5
            np.multiply(g, min(1.0, MAX_NORM / (norm + 1e-6)), out=g)
        update(g)
        if task.averages:
            np.subtract(p, average, out=scratch)
            np.multiply(scratch, 1 - KEPT, out=scratch)
            np.add(average, scratch, out=average)
        if task.zeroes:
            g.fill(0)

    def write(given: Arrays) -> None:
        for own, array in zip(_views(g, params), given, strict=True):
            own[...] = array

    again = refilled(step, write, grads) if task.zeroes else step
    found = _views(p, params), _views(average, params) if task.averages else []
    return Contestant(again, write, lambda: found, lambda: [g])


def textbook(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """Array by array, by the paper's expressions."""
    refuse(task, list(plain_numpy.TEXTBOOK), ("update", "clip", "clip + EMA"))
    own, given = [array.copy() for array in params], [array.copy() for array in grads]
    make = plain_numpy.TEXTBOOK[task.algorithm]
    updates = [make(array, **task.settings) for array in own]
    averages = [array.copy() for array in own] if task.averages else []

    def step() -> None:
        grads = given
        if task.clips:
            norm = np.sqrt(sum(np.sum(g**2) for g in grads))
            grads = [g * min(np.float32(1.0), MAX_NORM / (norm + 1e-6)) for g in grads]
        for update, g in zip(updates, grads, strict=True):
            update(g)
        if task.averages:
            averages[:] = [KEPT * a + (1 - KEPT) * p for a, p in zip(averages, own, strict=True)]

    def write(new: Arrays) -> None:
        for to, array in zip(given, new, strict=True):
            to[...] = array

    return Contestant(step, write, lambda: (own, averages))


def _views(buffer: Array, like: Arrays) -> list[Array]:
    ends = np.cumsum([array.size for array in like])
    return [part.reshape(array.shape) for part, array in zip(np.split(buffer, ends[:-1]), like, strict=True)]
