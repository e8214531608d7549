"""One array of parameters: how its values lie in memory, and its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import MatrixRule, Rule
from fastopt.engine.memory import aligned_zeros, self_overlapping
from fastopt.foreign import as_numpy
from fastopt.hyperparameters import Settings

Array = NDArray[np.floating]


class Leaf:
    """An array that an optimizer updates in place.

    The engine works on flat, contiguous memory. An array in C or Fortran order is that already. Any
    other is copied to a staging buffer before each step and back after it: correct, for two more passes.

    Attributes
    ----------
    place : str
        Where it is, such as ``"params['layer1']['w']"``.
    array : ndarray
        The user's array.
    grad : ndarray or None
        Where its gradients are, in a pack.
    group : Settings
        The hyperparameters that hold for it: its group's, or what overrides make of them.
    frozen : bool
        Whether it is never updated. Then it has no rule and no state.
    flat : ndarray of shape (size,)
        Its values as the engine updates them: its own memory, or the staging buffer.
    rule : Rule or MatrixRule
        What updates it.
    state : dict of str to ndarray of shape (size,)
        Its part of the state buffers.
    extra : dict of str to ndarray
        State that has not the array's size, such as what its rule carries.
    step : int
        Number of updates, as of the last time that the leaves were arranged.
    """

    def __init__(
        self, place: str, array: Array, grad: Array | None, group: Settings, frozen: bool = False
    ) -> None:
        self.place, self.array, self.grad = place, array, grad
        self.group, self.frozen = group, frozen
        self.shape, self.dtype = array.shape, array.dtype
        plain = np.asarray(array)  # a memory map, a matrix
        self.staged = not (plain.flags.forc and plain.flags.aligned)
        self.order = "F" if not self.staged and not plain.flags.c_contiguous else "C"
        self.flat: Array
        if self.staged:
            self.flat = aligned_zeros(plain.size, plain.dtype)
        else:
            self.flat = plain.reshape(-1, order="F" if self.order == "F" else "C")
        self.rule: Rule | MatrixRule
        self.state: dict[str, Array] = {}
        self.extra: dict[str, Array] = {}
        self._copies: set[str] = set()  # state that starts as a copy of the parameters
        self.step = 0
        self._grad_staging: Array | None = None

    def shaped(self, flat: Array) -> Array:
        """Return a view of a buffer like ``flat``, in the array's shape."""
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")

    def adopt(self, rule: Rule | MatrixRule, fill: Mapping[str, float | str]) -> None:
        """Take a rule, and the state that has not the array's size. State of the same names is kept."""
        self.rule = rule
        kept, self.extra = self.extra, {}
        for name, (shape, dtype) in rule.extra_state(self.shape, self.dtype).items():
            if name in kept and kept[name].shape == shape:
                self.extra[name] = kept[name]
            else:
                self.extra[name] = np.full(shape, fill.get(name, 0.0), dtype)

    def take(self, name: str, buffer: Array, fill: float | str) -> None:
        """Take a state buffer, and fill it: with a number, or with the "params"."""
        self.state[name] = buffer
        if fill == "params":
            self._copies.add(name)
            self._copy_to(name)
        elif fill != 0.0:
            buffer.fill(fill)

    def layout(self, rule: Rule | MatrixRule) -> dict[str, tuple[tuple[int, ...], np.dtype[np.floating]]]:
        """Return the shape and dtype of all state that a rule has for this array."""
        own = dict.fromkeys(rule.state, (self.shape, self.dtype))
        return {**own, **rule.extra_state(self.shape, self.dtype)}

    def begin(self) -> None:
        """Copy parameters that may have been set since the state was made; before the first update."""
        for name in self._copies & self.state.keys():
            self._copy_to(name)

    def _copy_to(self, name: str) -> None:
        np.copyto(self.shaped(self.state[name]), self.array)

    def values(self) -> dict[str, Array]:
        """Return all state, by name, in its shape."""
        return {**{name: self.shaped(buffer) for name, buffer in self.state.items()}, **self.extra}

    def stage(self) -> None:
        """Copy the array to the staging buffer."""
        np.copyto(self.shaped(self.flat), self.array)

    def unstage(self) -> None:
        """Copy the staging buffer back to the array."""
        np.copyto(self.array, self.shaped(self.flat))

    def check_grad(self, grad: Any, place: str) -> Array:
        """Return a gradient as an array that fits, or raise an error that names ``place``."""
        if isinstance(grad, np.generic):  # what the sum of an array is
            grad = np.asarray(grad)
        grad = as_numpy(grad, place)
        if not isinstance(grad, np.ndarray):
            raise TypeError(
                f"{place} must be an array of {self.dtype}, or None where there is no gradient; "
                f"got {type(grad).__name__}"
            )
        if grad.dtype != self.dtype:
            raise TypeError(f"{place} must be of {self.dtype}, like its parameter; got {grad.dtype}")
        if grad.shape != self.shape:
            raise ValueError(f"{place} must have its parameter's shape {self.shape}, got {grad.shape}")
        return grad

    def readable(self, grad: Array) -> bool:
        """Tell whether the engine can read a gradient where it is: aligned, in the leaf's order."""
        flags = grad.flags
        return flags.aligned and (flags.f_contiguous if self.order == "F" else flags.c_contiguous)

    def grad_staging(self) -> Array:
        """Return the buffer to which a gradient is copied that the engine cannot read."""
        if self._grad_staging is None:
            self._grad_staging = aligned_zeros(self.flat.size, self.dtype)
        return self._grad_staging


def numbered(leaves: Sequence[Leaf]) -> tuple[list[Settings], list[int]]:
    """Return the settings that hold for leaves, each once, and for each leaf the number of its own."""
    found = {id(leaf.group): leaf.group for leaf in leaves}
    numbers = {key: number for number, key in enumerate(found)}
    return list(found.values()), [numbers[id(leaf.group)] for leaf in leaves]


def check_updatable(array: Array, place: str, given: Any) -> None:
    """Raise an error that names ``place`` unless ``array``, a view of what was given, can be updated."""
    if not array.flags.writeable:
        if isinstance(given, np.ndarray):
            raise ValueError(f"{place} must be writeable, got a read-only array")
        raise ValueError(
            f"{place} must be writeable, got a read-only {type(given).__name__}: let NumPy have a copy, "
            f"np.array(x), update that, and convert it back where it is used"
        )
    if self_overlapping(array):
        raise ValueError(
            f"{place} must hold each element once, got an array whose elements share memory "
            f"(shape {array.shape}, strides {array.strides})"
        )
