"""Checks of the schedules' arguments. Each returns the value in plain Python numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastopt.hyperparameters import Range, as_number

FINITE, NOT_NEGATIVE, POSITIVE = Range(), Range(0), Range(0, above=True)


def number(name: str, value: Any, allowed: Range = FINITE) -> float:
    """Return a number, or raise an error that names it."""
    plain = as_number(value)
    if plain is None:
        raise TypeError(f"{name} must be {allowed}; got {value!r}")
    if plain not in allowed:
        raise ValueError(f"{name} must be {allowed}; got {value!r}")
    return plain


def whole(name: str, value: Any, least: int = 0) -> int:
    """Return a whole number that is at least ``least``."""
    return int(number(name, value, Range(least, whole=True)))


def flag(name: str, value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return one of some names."""
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return str(value)


def items(name: str, values: Any, what: str) -> tuple[Any, ...]:
    """Return what a list or another iterable holds."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of {what}; got {values!r}")
    return tuple(values)
