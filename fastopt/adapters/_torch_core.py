"""A fastopt optimizer over the memory of torch's tensors: parameters, and gradients, new in each step."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from fastopt.arrangement import Arrangement
from fastopt.engine import MatrixRule, Rule
from fastopt.engine.device import ARRAYS, HERE, of
from fastopt.foreign import as_array
from fastopt.formats import PLAIN, Form
from fastopt.gradients import GivenGradients
from fastopt.leaf import Leaf
from fastopt.optimizer import Optimizer
from fastopt.rows import Rows

#: Those that take the gradients of ``nn.Embedding(sparse=True)``.
_WITH_ROWS = "SparseAdam, SGD, Adagrad, RMSprop or FTRL"


@cache
def host() -> Any:
    """Return torch, which is imported when it is needed."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ImportError(
            'fastopt.adapters.torch needs torch, which is not installed: pip install "fastopt[torch]"'
        ) from None


def plain(value: Any) -> Any:
    """Return a hyperparameter without tensors: numbers in their place."""
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    return value.item() if isinstance(value, host().Tensor) else value


def check_devices(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ValueError unless all parameters of groups are on one device."""
    tensors = [
        (f"param_groups[{i}]['params'][{j}]", tensor)
        for i, group in enumerate(groups)
        for j, tensor in enumerate(group["params"])
    ]
    if not tensors:
        return
    first, one = tensors[0]
    for place, tensor in tensors:
        if tensor.device.type not in ("cpu", "cuda"):
            raise ValueError(
                f"{place} must be on the CPU or on a CUDA device, got a tensor on {tensor.device}: move the "
                f"model with model.cpu() or model.cuda(), or use torch.optim"
            )
        if tensor.device != one.device:
            raise ValueError(
                f"all parameters must be on one device: {first} is on {one.device}, and {place} on "
                f"{tensor.device}; make an optimizer for each device"
            )


def array_of(tensor: Any, place: str, algorithm: str) -> Any:
    """Return a parameter as fastopt takes it, in the same memory, or raise an error that names ``place``.

    That is an array, or, on a CUDA device, a tensor: it tells the stream on which to work.
    """
    torch = host()
    if tensor.layout != torch.strided:
        raise ValueError(
            f"{algorithm} requires dense parameter tensors; {place} has the layout {tensor.layout}"
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{place} must be of torch.float32 or torch.float64, got {tensor.dtype}")
    own = tensor.detach()
    if not tensor.is_cuda:
        return own.numpy()
    as_array(own, place)  # it has words for what is not contiguous, and for another device
    return own


class TensorGradients(GivenGradients):
    """Finds gradients that are tensors, without an array for each: that would take longer than a step."""

    def __init__(self, leaves: Sequence[Leaf], writeable: bool) -> None:
        super().__init__(leaves, writeable)
        torch = host()
        self._tensor, self._strided = torch.Tensor, torch.strided
        self._tensor_dtypes = [getattr(torch, dtype.name) for dtype in self._dtypes]
        self._latest: Any = None

    def readable(self, given: list[Any]) -> bool:
        """Tell whether all are dense tensors whose memory can be read as it is.

        Their devices and shapes are those of the parameters: torch sees to that when a gradient is set.
        """
        tensor = self._tensor
        return (
            self._all_plain
            and not self._writeable
            and set(map(type, given)) == {tensor}
            and {grad.layout for grad in given} == {self._strided}
            and [grad.dtype for grad in given] == self._tensor_dtypes
            and all(map(tensor.is_contiguous, given))
            and not any(map(tensor.is_neg, given))
        )

    def take(self, given: list[Any], places: Callable[[], Sequence[str]], allow_rows: bool = False) -> bool:
        if not given or type(given[0]) is not self._tensor:
            moved = super().take(given, places, allow_rows)
            self._remembered = []  # else the memory of gradients that have been set to None would be held
            self._latest = None
            return moved
        addresses = np.array([*map(self._tensor.data_ptr, given)], np.int64)
        if self._latest is not None and np.array_equal(addresses, self._latest):
            return False
        present = list(range(len(given)))
        if clashing := self._clashes(present, addresses, self._sizes):
            place = places()[clashing[0]]
            raise ValueError(f"{place} shares memory with a parameter; it must be apart")
        self._latest = self.addresses = addresses
        self.present, self.sparse, self.copies, self.touched = present, [], [], {}
        return True


class TensorCore(Optimizer):
    """What a fastopt class is given to take lists of tensors as gradients: see :func:`core_class`."""

    def _found(self) -> TensorGradients:
        if not isinstance(self._given, TensorGradients):
            self._given = TensorGradients(self._leaves(), self._options.zero_grads)
        return self._given

    def _leaves_of(self, trees: Any, name: str) -> list[Any]:
        """Return the gradients of the leaves that are updated, from those of all of them, in a list."""
        given: list[Any] = trees
        if self._any_frozen:
            leaves = [leaf for group in self._groups for leaf in group.leaves]
            given = [grad for grad, leaf in zip(given, leaves, strict=True) if not leaf.frozen]
        if self._options.accumulate == 1 and self._found().readable(given):
            return given
        if self._on_device:
            return [self._there(grad, leaf) for grad, leaf in zip(given, self._leaves(), strict=True)]
        return [self._as_array(grad, i) for i, grad in enumerate(given)]

    def _there(self, grad: Any, leaf: Leaf) -> Any:
        """Return a gradient on a CUDA device as an array: a copy, where it lies not as its parameter does."""
        if grad is None or isinstance(grad, ARRAYS):
            return grad
        place = f"the gradient of {leaf.place}"
        if grad.layout != host().strided:
            raise TypeError(
                f"{place} must be dense, because it is {HERE}; got the layout {grad.layout}: use "
                f"nn.Embedding(sparse=False)"
            )
        like = leaf.array.owner  # type: ignore[attr-defined]
        own = grad.detach().resolve_neg()
        alike = own.stride() == like.stride() or (own.is_contiguous() and like.is_contiguous())
        if not alike and own.shape == like.shape:
            own = host().empty_like(like).copy_(own)
        if self._options.zero_grads and own.data_ptr() != grad.data_ptr():
            raise ValueError(
                f"{place} must lie in memory as its parameter does, because zero_grads=True sets it to zero; "
                f"got strides {grad.stride()} for {like.stride()}"
            )
        return of(own, place)

    def _as_array(self, grad: Any, number: int) -> Any:
        if grad is None or isinstance(grad, np.ndarray):
            return grad
        if grad.layout == host().strided:
            return grad.detach().resolve_neg().numpy()
        place = self._grad_places()[number]
        if grad.layout != host().sparse_coo or grad.sparse_dim() != 1:
            raise TypeError(
                f"{place} must be dense, or sparse in rows as that of nn.Embedding(sparse=True) is; "
                f"got the layout {grad.layout} with {grad.sparse_dim()} sparse dimensions"
            )
        if self.rows_without is None:
            raise TypeError(
                f"{place} is sparse, and {type(self).__name__} takes dense gradients only; use "
                f"nn.Embedding(sparse=False), or {_WITH_ROWS}"
            )
        grad = grad.detach()
        return Rows(grad._indices()[0].numpy(), grad._values().numpy())

    def _form_of(self, leaf: Leaf, rule: Rule | MatrixRule, fill: Mapping[str, float | str]) -> Form:
        form = super()._form_of(leaf, rule, fill)
        if form != PLAIN:
            raise ValueError(
                f"{leaf.place} cannot have state_dtype={leaf.group['state_dtype']!r}: torch's state is "
                f"tensors that can be written to"
            )
        return form

    def _arrange_given(self, given: list[Any]) -> tuple[Arrangement, list[Any]]:
        self._found()
        return super()._arrange_given(given)


@cache
def core_class(algorithm: type[Optimizer]) -> type[TensorCore]:
    """Return a class of fastopt whose gradients are tensors."""
    return type(algorithm.__name__, (TensorCore, algorithm), {"__doc__": algorithm.__doc__})
