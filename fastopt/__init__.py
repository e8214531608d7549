"""Optimizer kernels for NumPy, compiled by Numba: one fused pass over all parameters, in place.

>>> import numpy as np, fastopt
>>> pack = fastopt.pack({"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)})
>>> opt = fastopt.AdamW(pack, lr=1e-3)
>>> pack.grads["w"][:] = 1.0  # write gradients where they belong
>>> opt.step()
"""

from fastopt import algorithms, schedules
from fastopt._version import __version__
from fastopt.algorithms import *  # noqa: F403
from fastopt.engine import Rule
from fastopt.engine.device import on_stream
from fastopt.files import load
from fastopt.grad_scaler import GradScaler
from fastopt.hyperparameters import ParamGroup
from fastopt.optimizer import Optimizer
from fastopt.packing import Pack, pack
from fastopt.rows import Rows

__all__ = [
    "GradScaler",
    "Optimizer",
    "Pack",
    "ParamGroup",
    "Rows",
    "Rule",
    "__version__",
    "load",
    "on_stream",
    "pack",
    "schedules",
    *algorithms.__all__,
]
