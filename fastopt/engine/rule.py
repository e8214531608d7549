"""A rule: one scalar update, and what the engine must know about it."""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rule:
    """A scalar update rule ``(p, g, *state, *scalars) -> (p, *state)``.

    Parameters
    ----------
    function : callable
        A plain function of scalars. It takes the parameter, the gradient, one value of each
        state buffer and the scalars of the step, and returns the new parameter and the new
        state (the parameter alone where there is no state). It may use arithmetic, comparisons,
        ``abs``, ``min``, ``max`` and the functions of :mod:`math`. Number literals do not belong in
        it: they are doubles, or 64-bit integers, and promote a float32 rule to double.
    state : tuple of str
        The names of the state buffers, in the order in which the function takes them.
    scalars : callable, optional
        A plain function of ``step`` (the number of this update, from 1) and of the hyperparameters
        that it names. It returns the scalars of the step as a tuple, is run once a step, outside the
        loop and in double precision, and must be within what Numba compiles. By default the
        scalars are the hyperparameters that the last arguments of ``function`` name.

    Raises
    ------
    TypeError
        If ``function`` cannot take a parameter, a gradient and the state.

    Examples
    --------
    >>> from fastopt.engine import Rule
    >>> def momentum(p, g, velocity, lr, momentum):
    ...     velocity = momentum * velocity + lr * g
    ...     return p - velocity, velocity
    >>> rule = Rule(momentum, state=("velocity",))
    >>> rule.hyperparameters
    ('lr', 'momentum')
    """

    function: Callable[..., Any]
    state: tuple[str, ...] = ()
    scalars: Callable[..., tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        if self.n_scalars < 0:
            raise TypeError(
                f"rule {self.name!r} must take a parameter, a gradient, the state {self.state} and "
                f"then its scalars; it takes only {self._arguments}"
            )

    @cached_property
    def _arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.function).parameters)

    @property
    def name(self) -> str:
        """The name of the scalar function, or "rule" where it has none."""
        name = self.function.__name__
        return name if name.isidentifier() else "rule"

    @cached_property
    def n_scalars(self) -> int:
        """How many scalars of the step the function takes."""
        return len(self._arguments) - 2 - len(self.state)

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        """The hyperparameters that the rule needs, in the order in which it takes them."""
        if self.scalars is None:
            return self._arguments[2 + len(self.state) :]
        return tuple(inspect.signature(self.scalars).parameters)[1:]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the code that the compiled update depends on.

        Numba's disk cache watches one source file, the engine's. The fingerprint is part of the name under
        which a kernel is cached, so that an edited rule, or an edited helper of a rule, is compiled anew.
        """
        return hashlib.sha256(repr(_describe(self.function, set())).encode()).hexdigest()[:16]


def _describe(value: object, seen: set[int]) -> object:
    """Return what decides how ``value`` compiles, in a form whose ``repr`` is repeatable."""
    value = getattr(value, "py_func", value)  # a function that Numba has compiled already
    if isinstance(value, types.CodeType):
        constants = tuple(_describe(constant, seen) for constant in value.co_consts)
        return value.co_code, value.co_names, value.co_varnames, constants
    if isinstance(value, types.FunctionType):
        if id(value) in seen:
            return value.__qualname__
        seen.add(id(value))
        code = value.__code__
        cells = [_describe(cell.cell_contents, seen) for cell in value.__closure__ or ()]
        used = [value.__globals__[name] for name in code.co_names if name in value.__globals__]
        for module in [found for found in used if isinstance(found, types.ModuleType)]:
            used += [getattr(module, name) for name in code.co_names if hasattr(module, name)]
        described = [_describe(found, seen) for found in used]
        return _describe(code, seen), _describe(value.__defaults__, seen), cells, described
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, tuple):
        return [_describe(item, seen) for item in value]
    if isinstance(value, type | np.ufunc | types.BuiltinFunctionType):
        return value.__name__
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | np.dtype):
        return repr(value)
    return type(value).__qualname__  # its repr may hold an address, which differs in each process
