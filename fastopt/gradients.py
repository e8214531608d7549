"""Gradients that are given to a step: checked, and found in memory."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine import Rule
from fastopt.engine.device import ARRAYS, HERE, DeviceArray, copyto
from fastopt.engine.memory import address, byte_bounds, contiguous_address, shares_memory
from fastopt.engine.rows import Touched
from fastopt.engine.storage import Format, decode
from fastopt.foreign import as_array
from fastopt.formats import format_of, plain_bits
from fastopt.leaf import Array, Leaf
from fastopt.rows import Rows

#: Gradients of up to this size are remembered: the same arrays again, filled anew, need no second check.
#: Beyond it the check costs nothing beside the step, and the memory is better free.
REMEMBERED_BYTES = 1 << 26


class GivenGradients:
    """Finds the gradients of each step, without a copy where the engine can read them as they are.

    Parameters
    ----------
    leaves : sequence of Leaf
        All leaves of the optimizer.
    writeable : bool
        Whether the gradients will be written to.
    reads_halves : bool
        Whether gradients of float16 and bfloat16 are read as they are. Else they are converted first.

    Attributes
    ----------
    present : list of int
        The leaves that have a gradient in this step.
    sparse : list of int
        Those of them that are given rows.
    addresses : ndarray of int64
        Where the gradients of those that are present are.
    copies : list of (ndarray, ndarray)
        What has to be copied first: destinations and sources.
    halves : dict of int to Format
        Those of the leaves whose gradients are read in half precision.
    touched : dict of int to Touched
        Where the rows are of those that are given rows, by their place among those that are present.
    """

    def __init__(self, leaves: Sequence[Leaf], writeable: bool = False, reads_halves: bool = False) -> None:
        self._leaves, self._writeable, self._reads_halves = leaves, writeable, reads_halves
        self._expect([], {})
        self._shapes = [leaf.shape for leaf in leaves]
        self._all_plain = all(leaf.order == "C" and leaf.array.size for leaf in leaves)
        bounds = [byte_bounds(leaf.array) for leaf in leaves if leaf.array.size]
        self._starts, ends = np.array(sorted(bounds), np.int64).reshape(-1, 2).T
        self._ends = np.maximum.accumulate(ends)  # strided parameters can be interleaved
        self._remembered: list[Any] = []
        self.present: list[int] = []
        self.sparse: list[int] = []
        self.addresses = np.zeros(0, np.int64)
        self.copies: list[tuple[Array, Array]] = []
        self.touched: dict[int, Touched] = {}

    def _expect(self, given: list[Any], halves: dict[int, Format]) -> None:
        """Expect the same leaves to have gradients in half precision the next time."""
        self.halves = halves
        dtypes = [leaf.dtype for leaf in self._leaves]
        for number in halves:
            dtypes[number] = given[number].dtype
        self._dtypes = dtypes
        sizes = [leaf.array.size * dtype.itemsize for leaf, dtype in zip(self._leaves, dtypes, strict=True)]
        self._sizes = np.array(sizes, np.int64)

    def take(self, given: list[Any], places: Callable[[], Sequence[str]], allow_rows: bool = False) -> bool:
        """Find and check a gradient for each leaf; return whether any lies elsewhere than before.

        Parameters
        ----------
        given : list
            A gradient, or None, for each leaf. Arrays of other libraries become views of them.
        places : callable
            Returns how errors name the gradient of each leaf.
        allow_rows : bool
            Whether there may be Rows among them.

        Raises
        ------
        TypeError, ValueError
            If a gradient does not fit its parameter, or shares memory with one.
        """
        if len(given) == len(self._remembered) and all(map(operator.is_, given, self._remembered)):
            return False
        touched: dict[int, Touched] = {}
        addresses = self._plain(given)
        if addresses is not None:
            present = list(range(len(given)))
            copies: list[tuple[Array, Array]] = []
        else:
            halves: dict[int, Format] = {}
            present, addresses, copies = self._one_by_one(given, places(), allow_rows, touched, halves)
            if halves or self.halves:
                self._expect(given, halves)
        found = np.array(addresses, np.int64)
        sizes = self._sizes[present]
        for position, rows in touched.items():
            sizes[position] = rows.alive[0].nbytes
        for clash in self._clashes(present, found, sizes):
            grad = given[clash].values if isinstance(given[clash], Rows) else given[clash]
            if any(shares_memory(grad, leaf.array) for leaf in self._leaves):
                raise ValueError(f"{places()[clash]} shares memory with a parameter; it must be apart")
        # Rows are read anew at each step: which they are may have changed.
        self._remembered = given if not touched and self._sizes.sum() <= REMEMBERED_BYTES else []
        self.present, self.addresses, self.copies, self.touched = present, found, copies, touched
        self.sparse = [present[position] for position in touched]
        return True

    def _plain(self, given: list[Any]) -> list[int] | None:
        """Return the addresses of the gradients if all are there and can be read as they are.

        A few comprehensions: with a thousand small arrays, looking at each costs more than the update.
        """
        if (
            self._all_plain
            and set(map(type, given)) == {np.ndarray}
            and [grad.dtype for grad in given] == self._dtypes
            and [grad.shape for grad in given] == self._shapes
            and all([grad.flags.carray for grad in given])  # noqa: C419
        ):
            return [*map(_address if self.halves else contiguous_address, given)]
        return None

    def _one_by_one(
        self,
        given: list[Any],
        places: Sequence[str],
        allow_rows: bool,
        touched: dict[int, Touched],
        halves: dict[int, Format],
    ) -> tuple[list[int], list[int], list[tuple[Array, Array]]]:
        present: list[int] = []
        addresses: list[int] = []
        copies: list[tuple[Array, Array]] = []
        for i, (leaf, grad, place) in enumerate(zip(self._leaves, given, places, strict=True)):
            if grad is None:
                continue
            if not isinstance(grad, np.ndarray):
                given[i] = grad = as_array(grad, place)  # a view must live as long as its address is used
            if self._writeable:
                _check_writeable(grad.values if isinstance(grad, Rows) else grad, place)
            if allow_rows and isinstance(grad, Rows):
                if leaf.on_device:
                    raise TypeError(f"{place} cannot be Rows: {leaf.place} is {HERE}")
                rows = grad.touch(leaf, place)
                touched[len(present)] = rows
                present.append(i)
                addresses.append(address(rows.alive[0]))
                continue
            array = leaf.check_grad(grad, place, halves=True)
            if leaf.on_device and not leaf.readable(array):
                raise ValueError(
                    f"{place} must be in {leaf.order} order, like its parameter, because it is {HERE}"
                )
            half = array.dtype != leaf.dtype
            direct = not half or (self._reads_halves and isinstance(leaf.rule, Rule))
            # A NumPy scalar has no lasting address.
            if array is not grad or not leaf.readable(array) or not direct:
                staging = leaf.grad_staging()
                copies.append((leaf.shaped(staging), array))
                array = staging
            elif half:
                halves[i] = format_of(array.dtype)
            present.append(i)
            addresses.append(_address(array))
        return present, addresses, copies

    def _clashes(
        self, present: list[int], addresses: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> list[int]:
        """Return those of the leaves whose gradient lies within the bounds of a parameter."""
        if not len(self._starts):
            return []
        before = np.searchsorted(self._starts, addresses + sizes) - 1  # the last that starts before the end
        inside = (before >= 0) & (self._ends[before] > addresses) & (sizes > 0)
        return [present[i] for i in np.flatnonzero(inside)]


class DeviceGradients(GivenGradients):
    """The gradients of arrays on a CUDA device; see :class:`GivenGradients`.

    Arrays of other libraries are known again by what they are, not by views that are made of them.
    """

    def __init__(self, leaves: Sequence[Leaf], writeable: bool = False, reads_halves: bool = False) -> None:
        super().__init__(leaves, writeable, reads_halves)
        self._originals: list[Any] = []
        self._pointers: list[int] = []

    def take(self, given: list[Any], places: Callable[[], Sequence[str]], allow_rows: bool = False) -> bool:
        """See :meth:`GivenGradients.take`."""
        pointers = _pointers(given)
        if (
            len(given) == len(self._originals)
            and all(map(operator.is_, given, self._originals))
            and pointers == self._pointers
        ):
            given[:] = self._remembered
            return False
        originals = list(given)
        self._originals = []
        super().take(given, places, allow_rows)
        if self._remembered:
            self._originals, self._pointers = originals, pointers
        return True

    def _plain(self, given: list[Any]) -> list[int] | None:
        if not self._all_plain or self.halves:
            return None
        views = []
        for grad, shape, dtype in zip(given, self._shapes, self._dtypes, strict=True):
            if type(grad) is not DeviceArray:
                try:
                    known = grad.__cuda_array_interface__
                except (AttributeError, RuntimeError):  # what raises an error is looked at one by one
                    return None
                if known["shape"] != shape or known["typestr"] != dtype.str or known.get("strides"):
                    return None
                grad = DeviceArray(grad, known["data"][0], shape, dtype, "C", not known["data"][1])
            elif grad.shape != shape or grad.dtype != dtype or grad.order != "C":
                return None
            if not grad.flags.aligned or (self._writeable and not grad.flags.writeable):
                return None
            views.append(grad)
        given[:] = views
        return [view.address for view in views]


def _pointers(given: list[Any]) -> list[int]:
    """Return where those tensors of torch are that are given: one may be given other memory."""
    return [grad.data_ptr() for grad in given if hasattr(grad, "data_ptr")]


def gradients_for(
    leaves: Sequence[Leaf], writeable: bool = False, reads_halves: bool = False
) -> GivenGradients:
    """Return what finds the gradients of leaves, which are on the host, or on a CUDA device."""
    kind = DeviceGradients if leaves and leaves[0].on_device else GivenGradients
    return kind(leaves, writeable, reads_halves)


def stage(copies: Iterable[tuple[Array, Array]]) -> None:
    """Copy the gradients that cannot be read as they are."""
    for staging, grad in copies:
        if isinstance(grad, DeviceArray):  # half precision
            flat = plain_bits(grad).reshape(-1, "A")
            copyto(staging.reshape(-1, order="A"), decode(format_of(grad.dtype), flat, grad.size))
        else:
            np.copyto(staging, grad)


def clear(grads: Iterable[Any]) -> None:
    """Set gradients to zero."""
    for grad in grads:
        if grad is not None:
            (grad.values if isinstance(grad, Rows) else grad).fill(0)


def clear_rest(
    leaves: Iterable[Leaf], given: list[Any] | None, copies: Iterable[tuple[Array, Array]]
) -> None:
    """Set those gradients of a step to zero that the update could not.

    Parameters
    ----------
    leaves : iterable of Leaf
        All leaves of the optimizer, the frozen ones too.
    given : list, optional
        The gradients. By default those of the packs.
    copies : iterable of (ndarray, ndarray)
        What was copied first: destinations and sources.
    """
    if given is None:
        clear(leaf.grad for leaf in leaves if leaf.frozen)
        return
    clear(grad for _, grad in copies)
    clear(grad for grad in given if isinstance(grad, Rows))


def _address(array: Array) -> int:
    return address(plain_bits(array))


def _check_writeable(grad: Any, place: str) -> None:
    if isinstance(grad, np.generic) or (isinstance(grad, ARRAYS) and not grad.flags.writeable):
        raise ValueError(f"{place} must be a writeable array: zero_grads=True sets it to zero")
