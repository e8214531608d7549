"""Turns of runs that time themselves: a part of a loop, where ``_measure.interleaved`` would time all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import _measure
import numpy as np
from _measure import PAUSE, duration

#: Whether only answers are checked, and in a few seconds.
SMOKE = os.environ.get("FASTOPT_BENCH_SMOKE", "") not in ("", "0")

T = TypeVar("T")


def turns(runs: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Return what each run returns, once a round; who comes first changes."""
    names = list(runs)
    found: dict[str, list[T]] = {name: [] for name in names}
    for i in range(rounds):
        start = i % len(names)
        for name in names[start:] + names[:start]:
            time.sleep(PAUSE)
            found[name].append(runs[name]())
    return found


def note_spread(name: str, seconds: Sequence[float]) -> None:
    """Note, for the results, if the rounds differ much: usually because other programs ran."""
    low, high = np.quantile(seconds, (0.25, 0.75))
    if high > 1.25 * low:
        _measure.NOISY.append(f"{name}: the middle half of the rounds is {duration(low)} to {duration(high)}")
        print(f"noisy: {_measure.NOISY[-1]}")
