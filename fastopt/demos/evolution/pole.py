"""The task: a cart with a pole on it, pushed left or right so that the pole stays up. Many at a time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

#: Units of the policy's network: the cart's place and speed, the pole's angle and its speed; a hidden layer.
INPUTS, HIDDEN = 4, 8

#: How many numbers a policy is.
SIZE = (INPUTS + 1) * HIDDEN + HIDDEN + 1

#: The task of Barto, Sutton and Anderson (1983), with the usual numbers: gravity, masses of cart and pole,
#: half of the pole's length, the push, seconds between two pushes.
GRAVITY, CART, POLE, LENGTH, PUSH, TICK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02

#: An episode ends where the cart leaves the track or the pole leans further than this, or after so many
#: pushes.
TRACK, LEAN, LONGEST = 2.4, math.radians(12.0), 500

#: From how many pushes on the task counts as solved.
SOLVED = 475


def pushes(policies: Array, states: Array) -> Array:
    """Return the push of each policy, a row of ``policies``, in its state, a row of ``states``.

    The sign alone of the network's output counts: there is nothing to differentiate.
    """
    first = INPUTS * HIDDEN
    weights = policies[:, :first].reshape(-1, INPUTS, HIDDEN)
    biases, second, bias = np.split(policies[:, first:], [HIDDEN, 2 * HIDDEN], axis=1)
    hidden = np.tanh(np.einsum("pi,pih->ph", states, weights) + biases)
    output = np.einsum("ph,ph->p", hidden, second) + bias[:, 0]
    return np.where(output > 0.0, PUSH, -PUSH)


def moved(states: Array, forces: Array) -> Array:
    """Return the states one tick later, by Euler's method."""
    place, speed, angle, turning = states.T
    sine, cosine, total = np.sin(angle), np.cos(angle), CART + POLE
    pushed = (forces + POLE * LENGTH * turning**2 * sine) / total
    turn = (GRAVITY * sine - cosine * pushed) / (LENGTH * (4.0 / 3.0 - POLE * cosine**2 / total))
    gain = pushed - POLE * LENGTH * turn * cosine / total
    return np.stack(
        (place + TICK * speed, speed + TICK * gain, angle + TICK * turning, turning + TICK * turn), 1
    )


def upright(states: Array) -> NDArray[np.bool_]:
    """Tell for which states the episode goes on."""
    result: NDArray[np.bool_] = (abs(states[:, 0]) <= TRACK) & (abs(states[:, 2]) <= LEAN)
    return result


def starts(rng: np.random.Generator, count: int) -> Array:
    """Return states to start from: nearly at rest, nearly upright."""
    return rng.uniform(-0.05, 0.05, (count, INPUTS))


def balance(policies: Array, states: Array) -> NDArray[np.int64]:
    """Return how many pushes each policy keeps its pole up, from its own start.

    Parameters
    ----------
    policies : ndarray of shape (n, SIZE)
        A policy a row.
    states : ndarray of shape (n, 4)
        Where each starts.
    """
    lasted = np.zeros(len(policies), np.int64)
    left = np.arange(len(policies))
    for _ in range(LONGEST):
        states = moved(states, pushes(policies, states))
        lasted[left] += 1
        on = upright(states)
        if not on.all():
            left, states, policies = left[on], states[on], policies[on]
            if not len(left):
                break
    return lasted


def recorded(policy: Array, start: Array) -> Array:
    """Return the states of one episode, the start among them."""
    states = [start]
    while len(states) <= LONGEST and upright(states[-1][None])[0]:
        states.append(moved(states[-1][None], pushes(policy[None], states[-1][None]))[0])
    return np.array(states)
