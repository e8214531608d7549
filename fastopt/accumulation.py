"""Gradients of several steps, added up for one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastopt.checkpoint import expect_keys
from fastopt.engine import Batch
from fastopt.engine.device import copyto
from fastopt.engine.memory import aligned_zeros, shares_memory
from fastopt.engine.plain import ADD, COPY
from fastopt.gradients import GivenGradients, gradients_for, stage
from fastopt.leaf import Array, Leaf
from fastopt.rows import Rows


class Accumulator:
    """Adds up the gradients that are given to several steps.

    The sums of a pack are kept in its gradients, those of other arrays in buffers of their own. The gradients
    of a pack that are not given are sums already: whoever computes them adds to them.

    Parameters
    ----------
    steps : int
        How many steps' gradients are added up.
    clears : bool
        Whether gradients that are given are set to zero once they are added.

    Attributes
    ----------
    count : int
        Of how many steps the sums are.
    """

    def __init__(self, steps: int, clears: bool) -> None:
        self._steps, self._clears = steps, clears
        self._leaves: list[Leaf] = []
        self._found: GivenGradients | None = None
        self._batches: dict[tuple[tuple[int, bool], ...], list[tuple[list[int], Batch]]] = {}
        self._buffers: dict[Leaf, Array] = {}
        self.restart()

    def restart(self) -> None:
        """Forget the sums, once they have been used."""
        self.count = 0
        self._begun: set[Leaf] = set()
        self._given: bool | None = None
        self._scale = 1.0

    def take(
        self,
        leaves: list[Leaf],
        given: list[Any] | None,
        scale: float,
        places: Callable[[], Sequence[str]],
        threads: int,
    ) -> bool:
        """Add the gradients of a step; return whether those of all steps are there now.

        Parameters
        ----------
        leaves : list of Leaf
            What is updated.
        given : list, optional
            A gradient, or None, for each leaf. By default the pack's gradients are sums.
        scale : float
            What they have been multiplied by.
        places : callable
            Returns how errors name the gradient of each leaf.
        threads : int
            The most threads that adding up may use.

        Raises
        ------
        TypeError, ValueError
            If they do not fit, or are not given as those of the steps before.
        """
        if self.count == self._steps:  # the update that was to use them failed
            self.restart()
        if self.count and (given is not None) != self._given:
            raise ValueError(
                f"the gradients of all accumulate={self._steps} steps must be given to step(), or of none"
            )
        if self.count and scale != self._scale:
            raise ValueError(
                f"grad_scale must be the same for all accumulate={self._steps} steps: it was {self._scale}, "
                f"got {scale}"
            )
        if given is not None:
            self._add(leaves, given, places, threads)
        self._given, self._scale = given is not None, scale
        self.count += 1
        return self.count == self._steps

    def sums(self, leaves: Sequence[Leaf]) -> list[Array | None] | None:
        """Return the sum of each leaf's gradients, None where it had none; None if they are the pack's."""
        if not self._given:
            return None
        return [self._sum(leaf) if leaf in self._begun else None for leaf in leaves]

    def _sum(self, leaf: Leaf) -> Array:
        if leaf.grad is not None:
            return leaf.grad
        if leaf not in self._buffers:
            self._buffers[leaf] = leaf.shaped(aligned_zeros(leaf.flat.size, leaf.dtype, leaf.flat))
        return self._buffers[leaf]

    def _add(
        self, leaves: list[Leaf], given: list[Any], places: Callable[[], Sequence[str]], threads: int
    ) -> None:
        for i, grad in enumerate(given):
            if isinstance(grad, Rows):
                raise TypeError(f"{places()[i]} cannot be Rows: they are not added up, with accumulate > 1")
        if self._found is None or leaves != self._leaves:
            self._found, self._leaves, self._batches = gradients_for(leaves, self._clears), leaves, {}
        found = self._found
        found.take(given, places)
        self._check_apart(leaves, given, places)
        stage(found.copies)
        key = tuple((i, leaves[i] in self._begun) for i in found.present)
        if key not in self._batches:
            self._batches[key] = self._prepare(key, threads)
        for positions, batch in self._batches[key]:
            batch.set_gradients(found.addresses[positions])
            batch.run()
        if self._clears:
            for _, grad in found.copies:
                grad.fill(0)
        self._begun.update(leaves[i] for i in found.present)

    def _prepare(self, key: tuple[tuple[int, bool], ...], threads: int) -> list[tuple[list[int], Batch]]:
        """Return the passes that add to the sums that are begun, and begin the others."""
        parts: dict[Any, list[tuple[int, Leaf]]] = {}
        for position, (number, begun) in enumerate(key):
            leaf = self._leaves[number]
            if leaf.flat.size:
                parts.setdefault((begun, leaf.dtype), []).append((position, leaf))
        prepared = []
        for (begun, _), members in parts.items():
            segments = [
                (self._sum(leaf).reshape(-1, order="F" if leaf.order == "F" else "C"), None, (), 0)
                for _, leaf in members
            ]
            batch = Batch(ADD if begun else COPY, segments, 1, threads, self._clears)
            batch.set_scalars(0, 1.0, ())
            prepared.append(([position for position, _ in members], batch))
        return prepared

    def _check_apart(self, leaves: list[Leaf], given: list[Any], places: Callable[[], Sequence[str]]) -> None:
        """Raise an error if a gradient that is given is its own sum."""
        for i, (leaf, grad) in enumerate(zip(leaves, given, strict=True)):
            if grad is not None and leaf.grad is not None and shares_memory(grad, leaf.grad):
                raise ValueError(
                    f"{places()[i]} is the pack's gradient, in which the sum is kept: add to it, and call "
                    f"step() without gradients"
                )

    def state_dict(self, leaves: Sequence[Leaf]) -> dict[str, Any]:
        """Return the sums by the places of their leaves, and of how many steps they are."""
        sums = {
            leaf.place: np.array(self._sum(leaf), order="C")
            for leaf in leaves
            if self.count and (leaf in self._begun or not self._given)
        }
        return {"count": self.count, "scale": self._scale, "given": self._given, "sums": sums}

    def check_state(self, leaves: Sequence[Leaf], saved: Any, what: str) -> None:
        """Raise a ValueError unless :meth:`load_state_dict` can take what was saved."""
        expect_keys(saved, ("count", "scale", "given", "sums"), what)
        if saved["count"] and saved["count"] >= self._steps:
            raise ValueError(
                f"state_dict does not fit: the gradients of {saved['count']} steps are added up in it, and "
                f"accumulate is {self._steps}"
            )
        known = {leaf.place: leaf for leaf in leaves}
        for place, array in saved["sums"].items():
            leaf = known.get(place)
            if leaf is None or (np.shape(array), array.dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(
                    f"state_dict does not fit: it has gradients added up for {place}, unlike here"
                )

    def load_state_dict(self, leaves: Sequence[Leaf], saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.restart()
        self.count, self._scale, self._given = int(saved["count"]), saved["scale"], saved["given"]
        for leaf in leaves:
            if leaf.place in saved["sums"]:
                copyto(self._sum(leaf), saved["sums"][leaf.place])
                self._begun.add(leaf)
