"""One array of parameters: how its values lie in memory, and its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import MatrixRule, Rule, device
from fastopt.engine.device import ARRAYS, ELSEWHERE, HERE, DeviceArray, copyto
from fastopt.engine.memory import aligned_zeros, self_overlapping
from fastopt.engine.storage import FORMATS, Format, Storage, decode, encode, native
from fastopt.foreign import as_array
from fastopt.formats import REST, Form, format_of, is_half, plain_bits
from fastopt.hyperparameters import Settings

Array = NDArray[np.floating]


class Leaf:
    """An array that an optimizer updates in place.

    The engine works on flat, contiguous memory. An array in C or Fortran order is that already. Any
    other is copied to a staging buffer before each step and back after it: correct, for two more passes.
    One on a CUDA device is contiguous, and its state is there too.

    Attributes
    ----------
    place : str
        Where it is, such as ``"params['layer1']['w']"``.
    array : ndarray or DeviceArray
        The user's array.
    on_device : bool
        Whether it is on a CUDA device.
    grad : ndarray or None
        Where its gradients are, in a pack.
    dtype : dtype
        What it is computed in: that of the array, or float32 if that is half precision.
    half : Format or None
        How its parameters are stored, if that is half precision.
    rest : {None, "master", "split"}
        What is kept of those beside them; see :class:`fastopt.engine.storage.Storage`.
    group : Settings
        The hyperparameters that hold for it: its group's, or what overrides make of them.
    frozen : bool
        Whether it is never updated. Then it has no rule and no state.
    flat : ndarray of shape (size,)
        Its values as the engine updates them: its own memory, or the staging buffer.
    rule : Rule or MatrixRule
        What updates it.
    state : dict of str to ndarray
        Its part of the state buffers, flat, as they are stored.
    formats : dict of str to Format
        How that state is stored which is not in the array's own precision.
    origin : int
        The place of its first element among all elements of the optimizer: it decides the random bits of its
        stochastic rounding.
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
        self.shape = array.shape
        self.half = format_of(array.dtype) if is_half(array.dtype) else None
        self.dtype = array.dtype if self.half is None else np.dtype(np.float32)
        self.rest: str | None = None
        self.on_device = isinstance(array, DeviceArray)
        plain = plain_bits(array if self.on_device else np.asarray(array))  # a memory map, a matrix
        self.staged = not (plain.flags.forc and plain.flags.aligned)
        self.order = "F" if not self.staged and not plain.flags.c_contiguous else "C"
        self.flat: Array
        if self.staged:
            self.flat = aligned_zeros(plain.size, plain.dtype)
        else:
            self.flat = plain.reshape(-1, order="F" if self.order == "F" else "C")
        self.rule: Rule | MatrixRule
        self.state: dict[str, NDArray[Any]] = {}
        self.formats: Mapping[str, Format] = {}
        self.origin = 0
        self.extra: dict[str, Array] = {}
        self._copies: set[str] = set()  # state that starts as a copy of the parameters
        self.step = 0
        self._grad_staging: Array | None = None

    def shaped(self, flat: Array) -> Array:
        """Return a view of a buffer like ``flat``, in the array's shape."""
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")

    def adopt(self, rule: Rule | MatrixRule, form: Form, fill: Mapping[str, float | str]) -> dict[str, Array]:
        """Take a rule, how all is stored, and the state that has not the array's size.

        State of the same names is kept. What is to be stored in another form is returned, and given up.
        """
        formats, self.rest = form
        moved = {
            name: self.read(name)
            for name in self.state.keys() & {*rule.state}
            if self.formats.get(name) != formats.get(name)
        }
        for name in moved:
            del self.state[name]
        self.rule, self.formats = rule, formats
        kept, self.extra = self.extra, {}
        # What is measured of each array apart is carried where it is measured.
        there = self.on_device and rule.measure is not None and rule.measure.over != "all"
        for name, (shape, dtype) in rule.extra_state(self.shape, self.dtype).items():
            values: Any = kept.get(name)
            if values is None or values.shape != shape:
                values = np.full(shape, fill.get(name, 0.0), dtype)
            if there != isinstance(values, DeviceArray):
                values = device.asarray(values) if there else values.copy_to_host()
            self.extra[name] = values
        return moved

    def storage(self, grad: Format | None) -> Storage | None:
        """Return how the engine is to read and write its buffers; None if all have its own precision.

        Parameters
        ----------
        grad : Format, optional
            Of the gradient, where it is not in that precision.
        """
        if grad is None and not self.formats and self.half is None:
            return None
        own = native(self.dtype)
        state = tuple(self.formats.get(name, own) for name in self.rule.state)
        return Storage(self.half or own, grad or own, state, self.rest)

    @property
    def buffer_names(self) -> tuple[str, ...]:
        """The names of its buffers as the engine takes them: the state of its rule, then the rest."""
        return self.rule.state if self.rest is None else (*self.rule.state, REST[self.rest][0])

    def take(self, name: str, buffer: NDArray[Any], fill: Array | float | str) -> None:
        """Take a state buffer of zeros, and fill it: with values, with a number, or with the "params"."""
        self.state[name] = buffer
        if isinstance(fill, str):
            self._copies.add(name)
            self._copy_to(name)
        elif isinstance(fill, ARRAYS):
            self.write(name, fill)
        elif fill != 0.0:
            self.write(name, np.broadcast_to(fill, self.shape))

    def read(self, name: str) -> Array:
        """Return state in its shape: a view, or of what is stored otherwise a copy, which is read-only."""
        buffer, form = self.state[name], self.formats.get(name)
        if form is None:
            return self.shaped(buffer)
        values = self.shaped(decode(form, buffer, self.flat.size))
        values.flags.writeable = False
        return values

    def write(self, name: str, values: Any) -> None:
        """Set state to values in the array's shape, rounded to the nearest that can be stored."""
        buffer, form = self.state[name], self.formats.get(name)
        if form is None:
            copyto(self.shaped(buffer), values)
        else:
            encode(form, self.flattened(values), buffer)

    def saved(self, name: str) -> Any:
        """Return a copy of state for a checkpoint: an array in its shape, or what is stored, as a dict."""
        form = self.formats.get(name)
        if form is None:
            return np.array(self.extra[name] if name in self.extra else self.read(name), order="C")
        return {"format": form.name, "order": self.order, "stored": np.array(self.state[name])}

    def load(self, name: str, saved: Any) -> None:
        """Take over what :meth:`saved` returned, of this format or another."""
        form, packed = self.formats.get(name), isinstance(saved, Mapping)
        alike = packed and form is not None and form.name == saved["format"]
        if alike and (self.order == saved["order"] or len(self.shape) < 2):
            copyto(self.state[name], saved["stored"])
        elif name in self.extra:
            own = self.extra[name]
            copyto(own, unpacked(saved, own.shape) if packed else saved)
        else:
            self.write(name, unpacked(saved, self.shape) if packed else saved)

    def saved_params(self) -> Any:
        """Return a copy of the parameters for a checkpoint: an array, or the bits of bfloat16."""
        array = np.array(self.array, order="C")
        if self.half is None or array.dtype == np.float16:
            return array
        return {"format": self.half.name, "order": "C", "stored": plain_bits(array).reshape(-1)}

    def load_params(self, saved: Any) -> None:
        """Take over what :meth:`saved_params` returned."""
        if isinstance(saved, Mapping):
            copyto(plain_bits(self.array), saved["stored"].reshape(self.shape))
        else:
            copyto(self.array, saved)

    def flattened(self, values: Any) -> Any:
        """Return values in the array's shape as a flat array, in the order in which it lies in memory.

        They are where the array is.
        """
        order: Any = self.order
        if isinstance(values, DeviceArray):
            if self.on_device and (values.dtype, values.order) == (self.dtype, order):
                return values.reshape(-1, order)
            values = values.copy_to_host()
        flat = np.ascontiguousarray(values.reshape(-1, order=order), self.dtype)
        return device.asarray(flat) if self.on_device else flat

    def layout(self, rule: Rule | MatrixRule) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return the shape and dtype of all state that a rule has for this array."""
        own: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
        own = dict.fromkeys(rule.state, (self.shape, self.dtype))
        if self.rest is not None:
            name, form = REST[self.rest]
            own[name] = self.shape, form.dtype
        return {**own, **rule.extra_state(self.shape, self.dtype)}

    def begin(self) -> None:
        """Copy parameters that may have been set since the state was made; before the first update."""
        for name in self._copies & self.state.keys():
            self._copy_to(name)

    def _copy_to(self, name: str) -> None:
        if self.on_device and self.half is not None:
            copyto(self.state[name], decode(self.half, self.flat, self.flat.size))
        else:
            copyto(self.shaped(self.state[name]), self.array)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of all its state."""
        return (*self.state, *self.extra)

    def values(self) -> dict[str, Array]:
        """Return all state, by name, in its shape; see :meth:`read`."""
        return {**{name: self.read(name) for name in self.state}, **self.extra}

    def stage(self) -> None:
        """Copy the array to the staging buffer."""
        np.copyto(self.shaped(self.flat), plain_bits(self.array))

    def unstage(self) -> None:
        """Copy the staging buffer back to the array."""
        np.copyto(plain_bits(self.array), self.shaped(self.flat))

    def check_grad(self, grad: Any, place: str, halves: bool = False) -> Array:
        """Return a gradient as an array that fits, or raise an error that names ``place``.

        With ``halves``, it may be of float16 or bfloat16 if the parameter is computed in float32.
        """
        if isinstance(grad, np.generic):  # what the sum of an array is
            grad = np.asarray(grad)
        array: Any = as_array(grad, place)
        if not isinstance(array, ARRAYS):
            raise TypeError(
                f"{place} must be an array of {self.dtype}, or None where there is no gradient; "
                f"got {type(grad).__name__}"
            )
        if isinstance(array, DeviceArray) != self.on_device:
            where = (ELSEWHERE, HERE) if self.on_device else (HERE, ELSEWHERE)
            raise TypeError(f"{place} is {where[0]}, its parameter {self.place} {where[1]}")
        if array.dtype != self.dtype and not (halves and self.dtype == np.float32 and is_half(array.dtype)):
            wanted = f"{self.dtype}, like its parameter"
            if self.half is not None:
                wanted = "float32, or half precision"
            raise TypeError(f"{place} must be of {wanted}; got {array.dtype}")
        if array.shape != self.shape:
            raise ValueError(f"{place} must have its parameter's shape {self.shape}, got {array.shape}")
        return array  # type: ignore[return-value]

    def readable(self, grad: Array) -> bool:
        """Tell whether the engine can read a gradient where it is: aligned, in the leaf's order."""
        flags = grad.flags
        return flags.aligned and (flags.f_contiguous if self.order == "F" else flags.c_contiguous)

    def grad_staging(self) -> Array:
        """Return the buffer to which a gradient is copied that the engine cannot read."""
        if self._grad_staging is None:
            self._grad_staging = aligned_zeros(self.flat.size, self.dtype, self.flat)
        return self._grad_staging


def unpacked(saved: Mapping[str, Any], shape: tuple[int, ...]) -> Array:
    """Return the values, in their shape, of state that :meth:`Leaf.saved` returned as it is stored."""
    size = int(np.prod(shape, dtype=np.intp))
    values: Array = decode(FORMATS[saved["format"]], saved["stored"], size)
    return values.reshape(shape, order="F" if saved["order"] == "F" else "C")


def numbered(leaves: Sequence[Leaf]) -> tuple[list[Settings], list[int]]:
    """Return the settings that hold for leaves, each once, and for each leaf the number of its own."""
    found = {id(leaf.group): leaf.group for leaf in leaves}
    numbers = {key: number for number, key in enumerate(found)}
    return list(found.values()), [numbers[id(leaf.group)] for leaf in leaves]


def check_updatable(array: Array, place: str, given: Any) -> None:
    """Raise an error that names ``place`` unless ``array``, a view of what was given, can be updated."""
    if not array.flags.writeable:
        if isinstance(given, ARRAYS):
            raise ValueError(f"{place} must be writeable, got a read-only array")
        if isinstance(array, DeviceArray):
            raise ValueError(f"{place} must be writeable, got a read-only {type(given).__name__} {HERE}")
        raise ValueError(
            f"{place} must be writeable, got a read-only {type(given).__name__}: let NumPy have a copy, "
            f"np.array(x), update that, and convert it back where it is used"
        )
    if self_overlapping(array):
        raise ValueError(
            f"{place} must hold each element once, got an array whose elements share memory "
            f"(shape {array.shape}, strides {array.strides})"
        )
