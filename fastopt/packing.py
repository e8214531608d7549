"""Trees of arrays in one flat, aligned buffer, as views."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastopt.engine import device as on_device
from fastopt.engine.device import ARRAYS, ELSEWHERE, HERE, DeviceArray, copyto
from fastopt.engine.memory import aligned_zeros, overlapping
from fastopt.foreign import as_array
from fastopt.formats import is_half
from fastopt.tree import Tree, plural

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Pack:
    """Parameters and gradients as views into two flat buffers. Made by :func:`pack`.

    Attributes
    ----------
    params, grads : array, or dict, list or tuple, nested
        Views of the buffers, in the structure and the shapes that were packed. Write gradients into
        ``grads`` (``np.matmul(..., out=pack.grads["w"])``) and nothing has to be copied.
    flat, flat_grads : ndarray or DeviceArray, of shape (size,)
        The buffers: the leaves one after the other, each in C order, without gaps. They
        start at a multiple of 64 bytes. Their dtypes may differ: see ``grad_dtype``.

    See Also
    --------
    pack : The function to call.
    """

    def __init__(
        self,
        tree: Tree,
        shapes: list[tuple[int, ...]],
        flat: NDArray[np.floating],
        flat_grads: NDArray[np.floating],
    ) -> None:
        self._tree, self._shapes = tree, shapes
        self.flat, self.flat_grads = flat, flat_grads
        self._origin: tuple[Pack, Any] | None = None
        self.params = tree.build(self.views(flat))
        self.grads = tree.build(self.views(flat_grads))

    @property
    def names(self) -> list[str]:
        """Where each array is in the tree, such as ``"['layer1']['w']"``."""
        return self._tree.names

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.flat.size

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Dtype of the parameters."""
        return self.flat.dtype

    @property
    def device(self) -> str:
        """Where the buffers are: "cpu" or "cuda"."""
        return "cuda" if isinstance(self.flat, DeviceArray) else "cpu"

    def views(self, flat: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the leaves that ``flat``, an array of the buffers' size, holds, as views of it."""
        sizes = [int(np.prod(shape, dtype=np.intp)) for shape in self._shapes]
        ends = list(itertools.accumulate(sizes))
        return [
            flat[end - size : end].reshape(shape)
            for size, end, shape in zip(sizes, ends, self._shapes, strict=True)
        ]

    def __getitem__(self, key: Any) -> Pack:
        """Return the part of the pack below one key of the tree, over the same memory.

        A part is a pack, so it can be a parameter group.
        """
        if isinstance(self.params, ARRAYS):
            raise TypeError("this pack holds a sole array: it has no parts")
        below = self.params[key]  # raises the error of the container
        if isinstance(key, slice):
            raise TypeError("a part of a pack is named by one key or index, not by a slice")
        before, inside = 0, Tree(below)
        for other in self.params if isinstance(self.params, dict) else range(len(self.params)):
            if other == key or (isinstance(key, int) and other == key % len(self.params)):
                break
            before += len(Tree(self.params[other]).names)
        shapes = self._shapes[before : before + len(inside.names)]
        sizes = [int(np.prod(shape, dtype=np.intp)) for shape in self._shapes]
        start, stop = sum(sizes[:before]), sum(sizes[: before + len(shapes)])
        part = Pack(inside, shapes, self.flat[start:stop], self.flat_grads[start:stop])
        part._origin = self, key
        return part

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.flat_grads.fill(0)

    def __reduce__(self) -> Any:
        # Views would be pickled as arrays of their own, and so would the buffers of a part.
        if self._origin is not None:
            return operator.getitem, self._origin
        return _restore, (self._tree, self._shapes, self.flat, self.flat_grads)

    def __repr__(self) -> str:
        where = f", {HERE}" if self.device == "cuda" else ""
        arrays, parameters = plural(len(self.names), "array"), plural(self.size, "parameter")
        return f"<Pack of {arrays}, {parameters}, {self.dtype}{where}>"


def pack(
    params: Any,
    dtype: DTypeLike | None = None,
    grad_dtype: DTypeLike | None = None,
    device: str | None = None,
) -> Pack:
    """Copy a tree of arrays into one flat buffer, with a second one for the gradients.

    An optimizer updates a pack in one call over the whole buffer, however many arrays it holds.

    Parameters
    ----------
    params : array, or dict, list or tuple of arrays, nested
        float32 or float64 arrays of any shape: 0-d, empty and strided ones too, NumPy's or any with
        ``__array_interface__`` or ``__dlpack__``; or contiguous ones on a CUDA device, with
        ``__cuda_array_interface__``. They are copied and not referred to any more: use the views
        ``pack.params`` from here on.
    dtype : float32, float64, float16 or bfloat16, optional
        dtype of the buffers. By default that of the arrays, which must then have one dtype. With it,
        arrays of any real dtype are converted. ``"bfloat16"`` is that of the package ml_dtypes, with which
        NumPy can compute.
    grad_dtype : float16, bfloat16 or float32, optional
        dtype of the gradients, by default that of the parameters. Those of float32 may have gradients of half
        precision, and those of half precision may have gradients of float32.
    device : {"cpu", "cuda"}, optional
        In which memory the buffers are: the CPU's, or that of the current CUDA device. By default where the
        arrays are. On a device the views are no arrays of NumPy, but ``cupy.asarray`` or
        ``torch.as_tensor(view, device="cuda")`` show them without a copy.

    Returns
    -------
    Pack
        With gradients that are zero.

    Raises
    ------
    TypeError
        If a leaf is no array, or its dtype is none of these and no ``dtype`` is given, or only some of them
        are on a device and no ``device`` is given.
    ModuleNotFoundError
        If ml_dtypes is needed and missing, or a package for CUDA.
    ValueError
        If there are no arrays, if they have several dtypes and no ``dtype`` is given, if ``device`` is
        neither, or if two of them share memory: as copies they would not be shared any more.
    RuntimeError
        If no CUDA device can be used.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> rng = np.random.default_rng(0)
    >>> pack = fastopt.pack({"w": rng.random((3, 2), np.float32), "b": np.zeros(2, np.float32)})
    >>> pack
    <Pack of 2 arrays, 8 parameters, float32>
    >>> pack.params["b"] += 1  # a view of the buffer
    >>> pack.flat[6:]
    array([1., 1.], dtype=float32)
    """
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"device must be 'cpu', 'cuda' or None, got {device!r}")
    tree = Tree(params)
    given = tree.leaves(params, "params")
    arrays = list(given)
    places = [f"params{name}" for name in tree.names]
    for i, array in enumerate(arrays):
        array = as_array(array, places[i])
        arrays[i] = array = np.asarray(array) if isinstance(array, np.generic) else array
        check_array(array, places[i], "halves" if dtype is None else "real")
    if not arrays:
        raise ValueError("params must hold at least one array, got none")
    chosen = arrays[0].dtype if dtype is None else _real_dtype("dtype", dtype)
    of_grads = chosen if grad_dtype is None else _real_dtype("grad_dtype", grad_dtype)
    if np.float64 in (chosen, of_grads) and chosen != of_grads:
        raise TypeError(f"grad_dtype must be float64 where the parameters are, got {of_grads} for {chosen}")
    for place, array in zip(places, arrays, strict=True):
        if dtype is None and array.dtype != chosen:
            raise ValueError(
                f"params must have one dtype: {places[0]} is {chosen} and {place} is {array.dtype}; "
                f"to convert them, give pack a dtype"
            )
    check_no_overlap(arrays, places)
    if device is None:
        check_one_place(arrays, places, "; to have all in one place, give pack a device")
        device = "cuda" if isinstance(arrays[0], DeviceArray) else "cpu"
    if device == "cuda":
        on_device.require()
    shapes = [array.shape for array in arrays]
    size = sum(array.size for array in arrays)
    known = any(isinstance(array, DeviceArray) for array in arrays)
    with on_device.on_stream(on_device.stream_of(given)) if known else nullcontext():
        packed = Pack(tree, shapes, _zeros(size, chosen, device), _zeros(size, of_grads, device))
        for view, array in zip(packed.views(packed.flat), arrays, strict=True):
            copyto(view, array, "same_kind" if dtype is None else "unsafe")
    if device == "cuda":
        on_device.wait()  # steps may be taken on other streams
    return packed


def _zeros(size: int, dtype: np.dtype[Any], device: str = "cpu") -> NDArray[np.floating]:
    if device == "cuda":
        return on_device.zeros(size, dtype)  # type: ignore[return-value]
    return aligned_zeros(size, np.uint16).view(dtype) if is_half(dtype) else aligned_zeros(size, dtype)


def _real_dtype(name: str, given: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that an argument names."""
    if given == "bfloat16":
        try:
            given = import_module("ml_dtypes").bfloat16
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{name}='bfloat16' needs the package ml_dtypes, which is missing: "
                f'pip install "fastopt[bfloat16]"',
                name="ml_dtypes",
            ) from None
    dtype = np.dtype(given)
    if dtype not in DTYPES and not is_half(dtype):
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {dtype}")
    return dtype


def check_array(array: Any, place: str, dtype: Any = None) -> None:
    """Raise a TypeError unless ``array`` is a float32 or float64 array.

    With "halves", it may be of float16 or bfloat16 too; with "real", of these and any real dtype.
    """
    wanted = "a NumPy array of float32 or float64"
    if dtype is not None:
        wanted += " (or float16, bfloat16)"
    if not isinstance(array, ARRAYS):
        raise TypeError(f"{place} must be {wanted}, got {type(array).__name__}")
    if array.dtype in DTYPES or (dtype is not None and is_half(array.dtype)):
        return
    if dtype == "real" and array.dtype.kind in "fiub":
        return
    raise TypeError(f"{place} must be {wanted}, got an array of {array.dtype}")


def check_one_place(arrays: Sequence[Any], places: Sequence[str], more: str = "") -> None:
    """Raise a TypeError if some of the arrays are on a CUDA device, and others are not."""
    there = [isinstance(array, DeviceArray) for array in arrays]
    if any(there) and not all(there):
        one, other = places[there.index(True)], places[there.index(False)]
        raise TypeError(f"all arrays must be in one place: {one} is {HERE}, and {other} is {ELSEWHERE}{more}")


def check_no_overlap(arrays: list[NDArray[Any]], places: list[str]) -> None:
    """Raise a ValueError if two of the arrays are one, or share memory."""
    pair = overlapping(arrays)
    if pair is not None:
        i, j = pair
        how = "are the same array" if arrays[i] is arrays[j] else "share memory"
        raise ValueError(f"{places[i]} and {places[j]} {how}; each parameter must be given once")


def _restore(
    tree: Tree,
    shapes: list[tuple[int, ...]],
    flat: NDArray[np.floating],
    flat_grads: NDArray[np.floating],
) -> Pack:
    if isinstance(flat, DeviceArray):
        return Pack(tree, shapes, flat, flat_grads)
    copies = []
    for values in (flat, flat_grads):  # unpickled arrays are not aligned
        copies.append(_zeros(values.size, values.dtype))
        copies[-1][:] = values
    return Pack(tree, shapes, *copies)
