"""All that take part in the comparisons, by name: one implementation of each contestant.

Each makes, for a task and the arrays of a workload, a step in the library's best configuration for it, or
raises Unavailable. A library is imported when it is first asked.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import suppress

from contest import Contestant, Task
from workloads import Arrays

from libraries import by_c, by_fastopt, by_numpy, by_optax, by_sklearn, by_thinc, by_torch

PEERS: dict[str, Callable[[Task, Arrays, Arrays], Contestant]] = {
    "fastopt": by_fastopt.packed,
    "fastopt, unpacked": by_fastopt.unpacked,
    "fastopt, new gradients": by_fastopt.unpacked_anew,
    "fastopt, in torch": by_fastopt.in_torch,
    "C, by hand": by_c.by_hand,
    "torch, fused": by_torch.fused,
    "torch, compiled": by_torch.compiled,
    "torch, foreach": by_torch.foreach,
    "torch, for-loop": by_torch.loop,
    "DeepSpeed": by_torch.deepspeed,
    "optax, jitted": by_optax.jitted,
    "thinc": by_thinc.thinc,
    "scikit-learn": by_sklearn.sklearn,
    "NumPy, in place": by_numpy.in_place,
    "NumPy, textbook": by_numpy.textbook,
}
PACKAGES = ("numpy", "numba", "scikit-learn", "torch", "deepspeed", "jax", "optax", "thinc")


def versions() -> dict[str, str]:
    """Return the versions of all that take part, and of the C compiler."""
    found = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    compiler = by_c.version()
    return {**found, "gcc": compiler} if compiler else found
