"""What the memory can do: passes with next to no arithmetic, run by the engine as the algorithms are.

``copy`` and ``triad`` are those of the STREAM benchmark. The others are shaped like updates: they read all
of their buffers, and write all but the gradients, or fewer. What they add is multiplied by a zero that the
compiler does not know of, so the values stay as they are: they can go over an optimizer's own memory.

What is counted is what the program reads and writes, each number once. ``copy`` and ``triad`` write memory
that they do not read; most processors read it all the same, before they write it (write-allocate), and
move 1.5 and 1.33 times as much as is counted. Updates write only what they have read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt import machine
from fastopt.engine import Batch, Rule
from fastopt.engine.memory import aligned_zeros

Array = NDArray[np.floating]


def copy(p: Any, g: Any) -> Any:
    """Read one, write one."""
    return g


def triad(p: Any, g: Any, other: Any, factor: Any) -> Any:
    """Read two, write one."""
    return g + factor * other


def two(p: Any, g: Any, zero: Any) -> Any:
    """Read two, write one of them."""
    return p + zero * g


def three(p: Any, g: Any, a: Any, zero: Any) -> Any:
    """Read three, write two of them."""
    return p + zero * g, a + zero * g


def four(p: Any, g: Any, a: Any, b: Any, zero: Any) -> Any:
    """Read four, write three of them."""
    return p + zero * g, a + zero * g, b + zero * g


def four_of_which_two(p: Any, g: Any, a: Any, b: Any, zero: Any) -> Any:
    """Read four, write two of them."""
    return p + zero * (g + b), a + zero * g


def five(p: Any, g: Any, a: Any, b: Any, c: Any, zero: Any) -> Any:
    """Read five, write four of them."""
    return p + zero * g, a + zero * g, b + zero * g, c + zero * g


def six(p: Any, g: Any, a: Any, b: Any, c: Any, d: Any, zero: Any) -> Any:
    """Read six, write five of them."""
    return p + zero * g, a + zero * g, b + zero * g, c + zero * g, d + zero * g


COPY, TRIAD = Rule(copy), Rule(triad, state=("other",), writes=())

#: Streams that are shaped like updates, by how many buffers they read and write.
UPDATES = {
    (2, 1): Rule(two),
    (3, 2): Rule(three, ("a",)),
    (4, 3): Rule(four, ("a", "b")),
    (4, 2): Rule(four_of_which_two, ("a", "b"), writes=("a",)),
    (5, 4): Rule(five, ("a", "b", "c")),
    (6, 5): Rule(six, ("a", "b", "c", "d")),
}

#: Those that the machine is described by, with how many buffers each goes over.
STREAMS = {"copy": (COPY, 2), "triad": (TRIAD, 3), "update": (UPDATES[4, 3], 4)}


#: A launch goes over this much, many times over what is smaller: the limit is the memory's, not the call's.
_LEAST = 2 << 20


class Stream:
    """A stream over buffers of one size; of small ones, many passes in one launch.

    Parameters
    ----------
    rule : Rule
        The stream's rule.
    buffers : sequence of ndarray
        Flat arrays of one size and dtype, as many as the rule goes over: in the place of the parameters, of
        the gradients, and of the state.
    threads : int
        The most threads.

    Attributes
    ----------
    bytes : int
        How many bytes a run reads and writes.
    threads : int
        How many threads it uses.
    """

    def __init__(self, rule: Rule, buffers: Sequence[Array], threads: int) -> None:
        p, g, *state = buffers
        passes = max(1, _LEAST // (len(buffers) * p.nbytes))
        batch = Batch(rule, [(p, g, state, 0)] * passes, 1, threads if passes == 1 else 1)
        batch.set_scalars(0, 1.0, (0.0,) * rule.n_scalars)
        self.run, self.threads, self.bytes = batch.run, batch.threads, passes * rule.traffic * p.nbytes


def like_update(buffers: Sequence[Array], traffic: int, threads: int) -> Stream:
    """Return the stream that is shaped like an update of ``traffic`` numbers a parameter, over its buffers.

    Where an algorithm goes over its buffers more than once, it is the one that writes all but the gradients.
    """
    reads = len(buffers)
    rule = UPDATES.get((reads, traffic - reads)) or UPDATES[reads, reads - 1]
    return Stream(rule, buffers, threads)


class Level(NamedTuple):
    """A memory that streams can stay in, and how many bytes they go over there."""

    name: str
    size: int


def levels(room: int) -> list[Level]:
    """Return the caches and the memory, with how much to go over: half of each cache, and much more.

    Parameters
    ----------
    room : int
        How many bytes may be taken.
    """
    caches = [cache for cache in machine.caches() if cache.kind != "instruction"]
    found = [Level(f"L{cache.level}", cache.size // 2) for cache in caches]
    last = max((2 * level.size for level in found), default=32 << 20)
    return [*found, Level("memory", min(max(4 * last, 256 << 20), room))]


def make(name: str, size: int, threads: int) -> Stream:
    """Return a stream over about ``size`` bytes of new memory, in float32."""
    rule, count = STREAMS[name]
    buffers = [aligned_zeros(max(1, size // count // 4), np.float32) for _ in range(count)]
    for number, buffer in enumerate(buffers):
        buffer[:] = 1.0 + number  # pages that were never written are all one
    return Stream(rule, buffers, threads)
