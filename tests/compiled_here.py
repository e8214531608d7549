"""Kernels that are compiled in this process, not read from the disk cache."""

from collections.abc import Callable
from typing import Any

import pytest


def compiled_here(compiled: Callable[..., Any], *what: Any) -> Any:
    """Return what ``compiled``, of the engine's modules, makes of its arguments, compiled by this process.

    As a rule that is the launch that the optimizers use here: it is not compiled again, which would take most
    of a test's time. What comes from the disk cache has no code to look at, and is no second opinion.
    """
    launch = compiled(*what)
    return fresh(compiled, *what) if launch.stats.cache_hits else launch


def fresh(compiled: Callable[..., Any], *what: Any) -> Any:
    """Return what is compiled now, and kept in no cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTOPT_CACHE", "0")
        return compiled.__wrapped__(*what)
