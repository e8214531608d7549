"""The strategy: random directions, tried both ways, and the better they do the more they count."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastopt.adapters.flat import Flat
from fastopt.demos.evolution.pole import SIZE, balance, starts
from fastopt.demos.methods import Method

Array = NDArray[np.floating]

#: Directions a generation, how far they are followed, and how strongly the parameters are drawn to zero.
PAIRS, DISTANCE, L2 = 32, 0.1, 0.005

#: Episodes by which a generation's policy is judged.
EPISODES = 32


class Course(NamedTuple):
    """How an evolution went.

    Attributes
    ----------
    lasted : ndarray of shape (generations + 1,)
        The mean number of pushes that the pole stays up, before the first generation and after each.
    ratios : ndarray of shape (generations,)
        What the updates returned.
    theta : ndarray of shape (SIZE,)
        The policy at the end.
    """

    lasted: Array
    ratios: Array
    theta: Array


def centred_ranks(values: ArrayLike) -> Array:
    """Return the values' ranks, from -0.5 to 0.5; equal values share the mean of theirs.

    So an outlier counts no more than the best.

    Examples
    --------
    >>> centred_ranks([10, 500, 20, 10, 30]).tolist()
    [-0.375, 0.5, 0.0, -0.375, 0.25]
    """
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = ((2 * last - counts - 1) / 2)[which.ravel()]
    return ranks / (len(ranks) - 1) - 0.5


def evolve(method: Method, generations: int, seed: int) -> Course:
    """Evolve a policy, after Salimans et al., Evolution Strategies as a Scalable Alternative, 2017.

    Parameters
    ----------
    method : Method
        What turns the estimates of the gradient into steps.
    generations : int
        How many steps.
    seed : int
        Of the first policy, the directions and the starts.
    """
    rng = np.random.default_rng(seed)
    theta = 0.1 * rng.standard_normal(SIZE)
    judged = starts(rng, EPISODES)
    optimizer = Flat(method.optimizer, theta, **method.settings)
    lasted, ratios = [_mean(theta, judged)], []
    for _ in range(generations):
        noise = rng.standard_normal((PAIRS, SIZE))
        start = starts(rng, PAIRS)
        both = np.concatenate((theta + DISTANCE * noise, theta - DISTANCE * noise))
        ahead, behind = np.split(centred_ranks(balance(both, np.concatenate((start, start)))), 2)
        uphill = (ahead - behind) @ noise / (2 * PAIRS * DISTANCE)
        ratios.append(optimizer.update(L2 * theta - uphill))
        lasted.append(_mean(theta, judged))
    return Course(np.array(lasted), np.array(ratios), theta)


def _mean(theta: Array, judged: Array) -> float:
    return float(balance(np.broadcast_to(theta, (len(judged), SIZE)), judged).mean())
