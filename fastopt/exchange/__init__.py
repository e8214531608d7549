"""State from torch.optim and optax, and for them: a run that began there goes on here, and back."""

from fastopt.exchange.optax_export import to_optax
from fastopt.exchange.optax_import import from_optax
from fastopt.exchange.torch_export import to_torch
from fastopt.exchange.torch_import import from_torch

__all__ = ["from_optax", "from_torch", "to_optax", "to_torch"]
