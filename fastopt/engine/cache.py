"""The disk cache of compiled code, which is Numba's."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numba

from fastopt.engine.rule import Rule, digest

_FILES = ("codec", "columns", "compiled", "diagnosis", "finish", "formats", "kernel", "tiles")
_CUDA = (
    *("codec", "columns", "compiled", "formats"),
    *(f"cuda{part}" for part in ("", "_access", "_kernels", "_scalars", "_source")),
)


@cache
def sources(cuda: bool = False) -> str:
    """Return a digest of the files that compiled code depends on, the CPU's or the GPU's.

    Numba's cache watches only one.
    """
    here, names = Path(__file__), _CUDA if cuda else _FILES
    try:
        return digest(*(here.with_name(f"{name}.py").read_text() for name in names))
    except OSError:  # in a zip file, which does not change
        return ""


def wanted() -> bool:
    """Tell whether compiled code is to be kept for the next process."""
    return os.environ.get("FASTOPT_CACHE", "1") != "0"


def from_cache(
    function: Any, signature: Any, options: Mapping[str, Any], rule: Rule
) -> Callable[..., None] | None:
    """Return a function of a rule that is compiled, from the cache or into it; None where there is no cache.

    The cache is in ``__pycache__`` beside the function's file, or in a folder of the user's where that one is
    read-only, or in ``NUMBA_CACHE_DIR``. Where none is writable, or with ``FASTOPT_CACHE=0``, each process
    compiles for itself; so it does if a rule comes from a prompt, a notebook or a string: each version of it
    would leave a file that nobody ever reads.
    """
    if not wanted() or not rule.in_files:
        return None
    try:
        cached: Callable[..., None] = numba.njit(signature, cache=True, **options)(function)
        return cached
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        return None  # no folder to write to, or a damaged file in it: only time is lost
