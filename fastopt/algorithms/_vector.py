"""All parameters as one vector, and the little linear algebra that is done with such vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastopt import engine
from fastopt.engine import Batch
from fastopt.engine.memory import address, aligned_zeros
from fastopt.engine.plain import ADD
from fastopt.group import Group
from fastopt.leaf import Array, Leaf
from fastopt.packing import Pack

#: Up to this size BLAS, which is called faster, adds up on one thread, and so always in the same order.
_SHORT = 4096


def dot(x: Array, y: Array, threads: int) -> float:
    """Return the dot product, accumulated in double, in an order that does not depend on the threads."""
    if x.size > _SHORT:
        return engine.dot(x, y, threads)
    with np.errstate(all="ignore"):
        return float(np.dot(x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)))


def largest(x: Array) -> float:
    """Return the largest size among the elements; NaN if one of them is NaN."""
    return max(float(x.max(initial=0.0)), -float(x.min(initial=0.0)))


def size_sum(x: Array, room: Array) -> float:
    """Return the sum of the elements' sizes, added in double; ``room`` is overwritten."""
    with np.errstate(over="ignore"):
        return float(np.abs(x, out=room).sum(dtype=np.float64))


class Sum:
    """A vector to which multiples of others are added.

    Parameters
    ----------
    vector : ndarray of shape (size,)
        The vector.
    threads : int
        The most threads to use.
    """

    rule = ADD  # the engine multiplies what is added by the length of the step

    def __init__(self, vector: Array, threads: int) -> None:
        self._batch = Batch(self.rule, [(vector, None, [], 0)], 1, threads) if vector.size else None

    def add(self, factor: float, other: Array) -> None:
        """Add a multiple of another vector, in one pass."""
        if self._batch is None:
            return
        self._batch.set_gradients(np.array([address(other)], np.int64))
        try:
            self._batch.set_scalars(0, factor, ())
        except OverflowError:  # too large for float32
            self._batch.set_scalars(0, math.copysign(math.inf, factor), ())
        self._batch.run()


class Flat:
    """The parameters of a group, and their gradients, as vectors.

    A pack is two vectors already, and so is a sole array in C order. Other arrays are copied: to the vector
    by ``gather``, and back by ``scatter``. In the vector they follow each other, each in C order.

    Parameters
    ----------
    group : Group
        The parameters, all of one dtype.
    grads : str
        How errors name its gradients.

    Attributes
    ----------
    params : ndarray of shape (size,)
        The parameters.
    """

    def __init__(self, group: Group, grads: str) -> None:
        given = group.mapping["params"]
        self._names = [grads + name for name in group.tree.names]
        self._leaves = group.leaves
        self._pack = given if isinstance(given, Pack) else None
        self._copied: list[tuple[Leaf, slice]] = []
        self._grads: Array | None = None
        self._size = sum(leaf.array.size for leaf in self._leaves)
        if self._pack is not None:
            self.params: Array = self._pack.flat
        elif self._is_sole_plain():
            self.params = self._leaves[0].flat
        else:
            self.params = self._new()
            self._copied = self._places()

    def _is_sole_plain(self) -> bool:
        return len(self._leaves) == 1 and self._leaves[0].order == "C" and not self._leaves[0].staged

    def _new(self) -> Array:
        return aligned_zeros(self._size, self._leaves[0].dtype if self._leaves else np.float64)

    def _places(self) -> list[tuple[Leaf, slice]]:
        end, places = 0, []
        for leaf in self._leaves:
            places.append((leaf, slice(end, end + leaf.array.size)))
            end += leaf.array.size
        return places

    def gather(self) -> None:
        """Copy the arrays to the vector, where they are not the same memory."""
        for leaf, place in self._copied:
            np.copyto(self.params[place].reshape(leaf.shape), leaf.array)

    def scatter(self) -> None:
        """Copy the vector back to the arrays."""
        for leaf, place in self._copied:
            np.copyto(leaf.array, self.params[place].reshape(leaf.shape))

    def gradient(self, given: list[Any] | None) -> Array:
        """Return the gradients as a vector, that of the pack if none are given.

        Raises
        ------
        TypeError, ValueError
            If there are none, or one of them is missing or does not fit.
        """
        if given is None:
            if self._pack is None:
                place = self._leaves[0].place if self._leaves else "params"
                raise TypeError(
                    f"the closure returned no gradients, and {place} is not in a pack: "
                    f"return (loss, grads), or give LBFGS a fastopt.pack(...)"
                )
            return self._pack.flat_grads
        fit = [self._fitting(*each) for each in zip(self._leaves, given, self._names, strict=True)]
        if self._is_sole_plain() and fit[0].flags.carray:
            return fit[0].reshape(-1)
        if self._grads is None:
            self._grads = self._new()
        for (leaf, part), grad in zip(self._places(), fit, strict=True):
            np.copyto(self._grads[part].reshape(leaf.shape), grad)
        return self._grads

    @staticmethod
    def _fitting(leaf: Leaf, grad: Any, name: str) -> Array:
        if grad is None:
            raise TypeError(
                f"{name} is None: LBFGS needs the gradients of all parameters, because each of its moves, "
                f"and all that it remembers of them, spans all. To freeze {leaf.place}, leave it out"
            )
        return leaf.check_grad(grad, name)
