"""Buffers that change places, in one pass and bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from fastopt.engine.batch import Batch
from fastopt.engine.columns import PARAM, STATE
from fastopt.engine.compiled import view
from fastopt.engine.kernel import (
    Launch,
    compile_template,
    launch,
    launch_signature,
    specialised,
    update_names,
)
from fastopt.engine.rule import Rule, digest


def _swap(p: Any, g: Any, other: Any) -> Any:
    return other, p


_SWAP = Rule(_swap, ("other",))


def _apply_swap(line: Any, at: Any, size: Any, scalars: Any) -> None:
    """Swap ``size`` elements of a segment, from the element ``at`` on.

    An update would not do: it sets to zero what is subnormal in the state.
    """
    offset = at * scalars.itemsize
    p: Any = view(line[PARAM] + offset, size, scalars)  # type: ignore[no-untyped-call]
    other: Any = view(line[STATE] + offset, size, scalars)  # type: ignore[no-untyped-call]
    for i in range(p.size):
        kept = p[i]
        p[i] = other[i]
        other[i] = kept


class Swap(Batch):
    """Buffers of one dtype that change places with others.

    Parameters
    ----------
    pairs : sequence of (ndarray, ndarray)
        Flat, contiguous buffers, none of them empty: those of a pair have one size, and no two share memory.
    max_threads : int
        The most threads that it may use.

    Examples
    --------
    >>> one, other = np.zeros(2), np.ones(2)
    >>> Swap([(one, other)], max_threads=1).run()
    >>> one, other
    (array([1., 1.]), array([0., 0.]))
    """

    def __init__(
        self, pairs: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]], max_threads: int
    ) -> None:
        super().__init__(_SWAP, [(one, other, [other], 0) for one, other in pairs], 1, max_threads)

    def _compiled(self, clears: bool) -> Launch:
        return _compile_swap(self.dtype)


@cache
def _compile_swap(dtype: np.dtype[np.floating]) -> Launch:
    names = {
        **update_names(_SWAP),
        "_apply": register_jitable(specialised(_apply_swap, "apply_swap", {})),
    }
    name = f"swap_{digest(_apply_swap)}_{dtype.name}"
    return compile_template(launch, name, names, launch_signature(dtype), _SWAP)
