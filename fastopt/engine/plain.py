"""The rules that the library itself needs: to copy, to add, to store, and to sum up."""

from __future__ import annotations

from typing import Any

from fastopt.engine.rule import Measure, Rule


def _copy(p: Any, g: Any) -> Any:
    return g


def _add(p: Any, g: Any) -> Any:
    return p + g


def _keep(p: Any, g: Any) -> Any:
    return p


def _gradient(p: Any, g: Any) -> Any:
    return g


def _both(p: Any, g: Any) -> Any:
    return p, g


def _nothing(step: Any, size: Any, total: Any) -> Any:
    return ()


def _store(p: Any, g: Any, stored: Any) -> Any:
    return p, g


def _take(p: Any, g: Any, stored: Any) -> Any:
    return stored


COPY, ADD = Rule(_copy), Rule(_add)
#: To write the gradient to the state, and to read the parameter from it.
KEEP, TAKE = Rule(_store, ("stored",)), Rule(_take, ("stored",), writes=())
#: Its measure sums up the squares of the gradients.
SQUARES = Rule(_keep, scalars=_nothing, measure=Measure(_gradient, ("square",)))
#: Its measure sums up the products of parameters and gradients.
PRODUCTS = Rule(_keep, scalars=_nothing, measure=Measure(_both, ("product",)))
