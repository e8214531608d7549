"""Rules that treat an array as a matrix: NumPy and its BLAS, between elementwise passes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.batch import Batch, Measurement
from fastopt.engine.memory import address, aligned_zeros
from fastopt.engine.plain import COPY, SQUARES
from fastopt.engine.rule import Rule
from fastopt.engine.scaled import Scaled
from fastopt.engine.tiles import Scaling

Array = NDArray[np.floating]


def _blend(p: Any, g: Any, keep: Any, share: Any, smallest: Any, zero: Any) -> Any:
    p = keep * p + share * g
    return zero if abs(p) < smallest else p  # a NaN stays


_BLEND = Rule(_blend)


def _flat(array: Array) -> Array:
    """Return an array's memory as one axis, without a copy."""
    if not array.flags.forc:
        raise ValueError(f"the array must be contiguous, got strides {array.strides} for {array.shape}")
    return array.reshape(-1, order="A")


class Workspace:
    """Scratch memory that the matrices of an optimizer share, one after the other, and passes over them.

    The results of its passes do not depend on the number of threads.

    Parameters
    ----------
    max_threads : int
        The most threads that a pass may use.

    Examples
    --------
    >>> workspace = Workspace(max_threads=1)
    >>> scratch = workspace.take("scratch", (2, 3), np.dtype("float32"))
    >>> workspace.take("scratch", (5,), scratch.dtype).base is scratch.base
    True
    """

    def __init__(self, max_threads: int) -> None:
        self.max_threads = max_threads
        self._buffers: dict[tuple[str, np.dtype[np.floating]], Array] = {}
        # By the addresses of arrays that they keep alive.
        self._batches: dict[tuple[Any, ...], Batch] = {}
        self._measurements: dict[tuple[Any, ...], Measurement] = {}

    @property
    def nbytes(self) -> int:
        """Size of the scratch memory."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def take(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.floating], order: str = "C"
    ) -> Array:
        """Return the scratch array of this name, with whatever is in it.

        Those of one name share their memory.
        """
        size, key = math.prod(shape), (name, dtype)
        if key not in self._buffers or self._buffers[key].size < size:
            self._buffers[key] = aligned_zeros(size, dtype)
        return self._buffers[key][:size].reshape(shape, order="F" if order == "F" else "C")

    def like(self, name: str, array: Array) -> Array:
        """Return the scratch array of this name, in the shape and order of another array."""
        order = "C" if array.flags.c_contiguous else "F"
        return self.take(name, array.shape, array.dtype, order)

    def apply(
        self, rule: Rule, p: Array, g: Array, state: Sequence[Array] = (), scalars: Sequence[float] = ()
    ) -> None:
        """Update ``p`` and ``state`` by an elementwise rule.

        All arrays must have one order in memory. ``p`` and the state are remembered, and must be
        scratch memory, parameters or state. A scalar too large for the dtype is infinite.
        """
        arrays = (p, g, *state)
        if not (all(a.flags.c_contiguous for a in arrays) or all(a.flags.f_contiguous for a in arrays)):
            raise ValueError("the arrays must be contiguous, in one order")
        flat, *rest = (_flat(array) for array in (p, *state))
        key = rule, flat.dtype, flat.size, address(flat), *(address(buffer) for buffer in rest)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batch(rule, [(flat, None, rest, 0)], 1, self.max_threads)
        batch.set_gradients(np.array([address(g)], np.int64))
        batch.scalars[0] = 1.0, *scalars
        batch.run()

    def blend(self, average: Array, new: Array, share: float) -> None:
        """Move an average to new values, by their share. What becomes subnormal is zero."""
        smallest = float(np.finfo(average.dtype).smallest_normal)
        self.apply(_BLEND, average, new, scalars=(1.0 - share, share, smallest, 0.0))

    def norm(self, array: Array) -> float:
        """Return the root of the sum of the squares: in double, without overflow, in the order of memory.

        The array must be scratch memory, parameters or state.
        """
        flat = _flat(array)
        key = flat.dtype, flat.size, address(flat)
        measurement = self._measurements.get(key)
        if measurement is None:
            measurement = Measurement(SQUARES, [(flat, flat, [], 0)], 1, self.max_threads)
            self._measurements[key] = measurement
        factor = 1.0
        total = self._squares(measurement, factor)
        if total < 1e-200 or total == math.inf:  # of float64: squares of float32 are normal doubles
            largest = max(abs(float(flat.max())), abs(float(flat.min())))
            if 0.0 < largest < math.inf:
                factor = min(1.0 / largest, 1e300)
                total = self._squares(measurement, factor)
        return math.sqrt(total) / factor

    @staticmethod
    def _squares(measurement: Measurement, factor: float) -> float:
        measurement.scalars[0] = factor
        measurement.run()
        (total,) = measurement.totals()
        return total


def divide(array: Array, number: float) -> None:
    """Divide an array in place. The number need not be one of its dtype: the division is in double."""
    np.divide(array, number, out=array, dtype=np.float64, casting="same_kind")


def flush(array: Array) -> None:
    """Set what is subnormal to zero."""
    array[np.abs(array) < np.finfo(array.dtype).smallest_normal] = 0.0


@dataclass(frozen=True)
class MatrixRule:
    """A rule that updates a whole array at once, in NumPy.

    Parameters
    ----------
    function : callable
        ``(p, g, state, workspace, *scalars)``: updates ``p``, and the arrays in the dict ``state``, in
        place. ``g`` is scratch memory, to be overwritten at will. ``p``, ``g`` and the state of the
        array's size lie in memory in one order: C, or Fortran's. It must not raise an error: what was done
        before could not be undone. It runs with NumPy's warnings off, as compiled code does.
    state : tuple of str
        State of the array's size.
    scalars : callable, optional
        ``(step, shape, *hyperparameters) -> tuple``: what ``gather`` takes, then what ``function`` takes.
        Floats, and tuples of such, must fit into the dtype. By default, the hyperparameters that the
        last arguments of ``function`` name.
    shapes : callable, optional
        Returns the shapes of further state, by name, for an array's shape.
    gather : Rule, optional
        The pass over the gradients, which makes ``g``: in its function, ``p`` is scratch memory, ``g`` the
        gradient. Its state is among ``state``. By default it copies the gradient.
    scaling : Scaling, optional
        With it, ``function`` takes a :class:`fastopt.engine.scaled.Scaled` in the place of ``g``: the
        gradient is not gathered, but scaled by its rows and columns. The array has two or more axes.
    """

    function: Callable[..., None]
    state: tuple[str, ...] = ()
    scalars: Callable[..., tuple[Any, ...]] | None = None
    shapes: Callable[[tuple[int, ...]], Mapping[str, tuple[int, ...]]] | None = None
    gather: Rule = COPY
    scaling: Scaling | None = None

    carry = ()
    measure = None

    def __post_init__(self) -> None:
        for name in {*self.gather.state} - {*self.state}:
            raise TypeError(f"rule {self.name!r} gathers in {name!r}, which is not in its state {self.state}")
        if self.scalars is None and self.gather.n_scalars:
            raise TypeError(f"rule {self.name!r} needs `scalars`: gathering takes some")
        if self.scaling is not None and self.gather.state + self.scaling.update.state:
            raise TypeError(f"rule {self.name!r} scales gradients: `gather` and `update` can have no state")

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        """The hyperparameters that the rule needs, in the order in which it takes them."""
        before, function = (4, self.function) if self.scalars is None else (2, self.scalars)
        return tuple(inspect.signature(function).parameters)[before:]

    def extra_state(
        self, shape: tuple[int, ...], dtype: np.dtype[np.floating]
    ) -> dict[str, tuple[tuple[int, ...], np.dtype[np.floating]]]:
        """Return the shape and dtype of each state that has not the size of its array, for an array's."""
        return {} if self.shapes is None else {name: (own, dtype) for name, own in self.shapes(shape).items()}


class _Gathered:
    """A gradient that is gathered in scratch memory; see :class:`Matrix`."""

    def __init__(
        self,
        rule: Rule,
        param: Array,
        grad: Array | None,
        state: Mapping[str, Array],
        workspace: Workspace,
        clears: bool,
    ) -> None:
        self._array = workspace.like("gradient", param)
        gathering = [_flat(state[name]) for name in rule.state]
        segment = _flat(self._array), grad, gathering, 0
        self._gather = Batch(rule, [segment], 1, workspace.max_threads, clears)

    def set_gradient(self, address: int) -> None:
        self._gather.set_gradients(np.array([address], np.int64))

    def set_scalars(self, multiplier: float, scalars: Sequence[float]) -> None:
        self._gather.set_scalars(0, multiplier, scalars)

    def ready(self) -> Array:
        self._gather.run()
        return self._array


class Matrix:
    """An array that a matrix rule updates.

    Parameters
    ----------
    rule : MatrixRule
        The rule.
    param : ndarray of shape (size,)
        The parameters, flat.
    shaped : callable
        Returns a flat buffer in the array's shape.
    grad : ndarray of shape (size,), optional
        Its gradients; else they are set at each step.
    state : mapping of str to ndarray
        All its state, in shape.
    workspace : Workspace
        Scratch memory.
    clears : bool
        Whether the gradients are set to zero once they are read.
    """

    def __init__(
        self,
        rule: MatrixRule,
        param: Array,
        shaped: Callable[[Array], Array],
        grad: Array | None,
        state: Mapping[str, Array],
        workspace: Workspace,
        clears: bool = False,
    ) -> None:
        self._rule, self._param, self._state, self._workspace = rule, shaped(param), state, workspace
        if rule.scaling is None:
            self._gradient: _Gathered | Scaled = _Gathered(
                rule.gather, self._param, grad, state, workspace, clears
            )
        else:
            self._gradient = Scaled(rule.gather, rule.scaling, self._param, grad, workspace, clears)
        self._largest = float(np.finfo(param.dtype).max)
        self._scalars: Sequence[Any] = ()

    def set_gradient(self, address: int) -> None:
        """Set where the gradient is."""
        self._gradient.set_gradient(address)

    def set_scalars(self, step: int, multiplier: float, values: Sequence[Any]) -> None:
        """Compute the scalars of a step from the values of the rule's hyperparameters.

        Raises
        ------
        OverflowError
            If one is too large for the dtype.
        """
        rule = self._rule
        if rule.scalars is not None:
            values = rule.scalars(step, self._param.shape, *values)
        first = rule.gather.n_scalars
        self._gradient.set_scalars(multiplier, values[:first])
        for value in values[first:]:
            for number in value if isinstance(value, tuple) else (value,):
                if abs(number) > self._largest:
                    raise OverflowError(f"{number} is too large for {self._param.dtype}")
        self._scalars = values[first:]

    def run(self) -> None:
        """Update the array."""
        with np.errstate(all="ignore"):
            gradient = self._gradient.ready()
            self._rule.function(self._param, gradient, self._state, self._workspace, *self._scalars)
