"""A rule: one scalar update, and what the engine must know about it."""

from __future__ import annotations

import dis
import hashlib
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastopt.engine import declared
from fastopt.engine.declared import arguments as _arguments

#: What the functions of rules must return after the parameter: modifiers wrap them in others.
RETURNED: WeakKeyDictionary[Callable[..., Any], tuple[str, ...]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Measure:
    """What a rule must know of whole tensors before it updates them: a pass that sums up.

    Parameters
    ----------
    function : callable
        A plain function ``(p, g, *state, *scalars) -> (*written, *terms)`` of scalars, as a rule's is. It
        returns the new values of the state that it writes, then the element's terms (one alone: no tuple).
    sums : tuple of {"square", "abs", "sum", "product"}
        How the terms are added up, in double: their squares, their sizes, themselves, or the products of two.
    scalars : callable, optional
        The scalars of the pass, as a rule's: ``(step, *hyperparameters) -> tuple``; with ``over="all"``,
        ``(step, *carry, *hyperparameters)``. By default, the hyperparameters that the last arguments of
        ``function`` name.
    writes : tuple of str
        The state buffers that the pass writes.
    over : {"tensor", "row", "all"}
        Whether the sums are those of each tensor, of each row of each tensor (its first axis; a tensor of
        one axis is one row), or of all tensors of the optimizer.
    """

    function: Callable[..., Any]
    sums: tuple[str, ...]
    scalars: Callable[..., tuple[float, ...]] | None = None
    writes: tuple[str, ...] = ()
    over: str = "tensor"

    def __post_init__(self) -> None:
        object.__setattr__(self, "function", declared.plain(self.function, "the function of a measure,"))
        if self.scalars is not None:
            scalars = declared.plain(self.scalars, "the scalars of a measure,")
            object.__setattr__(self, "scalars", scalars)
        declared.check_code(self.function, "measure")


@dataclass(frozen=True)
class Rule:
    """A scalar update rule ``(p, g, *state, *scalars) -> (p, *state)``.

    Parameters
    ----------
    function : callable
        A plain function of scalars. It takes the parameter, the gradient, one value of each
        state buffer and the scalars of the step, and returns the new parameter and the new
        state (the parameter alone where there is no state). It may use arithmetic, comparisons,
        ``abs``, ``min``, ``max``, the functions of :mod:`math`, and plain functions that it knows by their
        names and that do no more. Number literals do not belong in it: they are doubles, or 64-bit integers,
        and would promote a float32 rule to double, which is refused when it is compiled.
    state : tuple of str
        The names of the state buffers, in the order in which the function takes them.
    scalars : callable, optional
        A plain function of ``step`` (the number of this update, from 1) and of the hyperparameters
        that it names. It returns the scalars of the step as a tuple, is run once a step, outside the
        loop and in double precision, and must be within what Numba compiles. By default the
        scalars are the hyperparameters that the last arguments of ``function`` name.
    carry : tuple of str
        Names of numbers, in double, that are kept from step to step. ``scalars`` takes them after ``step``
        and returns ``(carry, scalars)``: a tuple of their new values, and the scalars.
    measure : Measure, optional
        A pass over the tensors that comes before the update. ``scalars`` then takes
        ``(step, size, *sums, *carry, *hyperparameters)``, with the number of elements that were summed.
    writes : tuple of str, optional
        The state buffers that the function returns, after the parameter. By default all.
    decay : {"coupled", "decoupled", "none"}, optional
        That the function's step, ``p`` less what it returns, depends on ``p`` through ``weight_decay`` alone,
        and how: the decay is added to the gradient, or ``lr`` times it to the step, or there is none. Such a
        rule can be made cautious.
    squares : tuple of str
        The state that is never negative and is divided by, such as means of squares. In 8 bits it has a
        format of its own: no sign, more exponents, and only zero is rounded to zero.
    exact : tuple of str
        The state that is stored in the parameters' precision whatever ``state_dtype`` is: what is no moment,
        such as averages of parameters, or sums that the size of all steps follows from.

    Raises
    ------
    TypeError
        If a function cannot take what it is given, returns another number of values than it must, or has code
        that is Python's alone. The message names the line. What is seen only when a rule is compiled
        is a TypeError, too, of the first step or of the first call of its kernel.
    ValueError
        If names are no names, or the same.

    Notes
    -----
    A function that Numba has compiled, or a static method, is taken for the plain function in it. Rules
    whose source is in files are loaded from Numba's disk cache, others are compiled in each process.

    Examples
    --------
    >>> from fastopt.engine import Rule
    >>> def momentum(p, g, velocity, lr, momentum):
    ...     velocity = momentum * velocity + lr * g
    ...     return p - velocity, velocity
    >>> rule = Rule(momentum, state=("velocity",))
    >>> rule.hyperparameters
    ('lr', 'momentum')
    >>> Rule(momentum)
    Traceback (most recent call last):
    TypeError: rule 'momentum' (...) must return one value, ... and no tuple; it returns 2 values
    """

    function: Callable[..., Any]
    state: tuple[str, ...] = ()
    scalars: Callable[..., Any] | None = None
    carry: tuple[str, ...] = ()
    measure: Measure | None = None
    writes: tuple[str, ...] | None = None
    decay: str | None = None
    squares: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("state", "carry", "writes", "squares", "exact"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, declared.names(getattr(self, name), f"a rule's {name}"))
        object.__setattr__(self, "function", declared.plain(self.function, "the function of a rule,"))
        if self.scalars is not None:
            starred = bool(self.carry) or self.measure is not None  # those come before what has a name
            made = declared.plain(self.scalars, "the scalars of a rule,", starred)
            object.__setattr__(self, "scalars", made)
        self._check_arguments()
        self._check_names()
        listing = listed_results(self.written)
        declared.check_code(self.function, "rule")
        declared.check_returned(self.function, 1 + len(self.written) if self.written else 0, "rule", listing)
        RETURNED[self.function] = self.written
        if self.scalars is not None:
            self._check_scalars(self.scalars)

    def _check_arguments(self) -> None:
        here = declared.place(self.function, name=repr(self.name))
        if self.n_scalars < 0:
            raise TypeError(
                f"rule {here} must take a parameter, a gradient, the state {self.state} and "
                f"then its scalars; it takes only {self._arguments}"
            )
        taken = self._arguments[2 : 2 + len(self.state)]
        for name, argument in zip(self.state, taken, strict=True):
            if name != argument and name in self._arguments[2:]:
                raise TypeError(
                    f"rule {here} takes {argument!r} where its state has {name!r}: the state {self.state} "
                    "must come in one order, after the parameter and the gradient"
                )
        if self.n_measure_scalars < 0:
            raise TypeError(
                f"the measure of rule {self.name!r} must take a parameter, a gradient and the state"
            )
        if self.scalars is None and (self.carry or self.measure is not None):
            raise TypeError(f"rule {self.name!r} needs `scalars`: it carries numbers, or measures")
        if self.decay not in (None, "coupled", "decoupled", "none"):
            kinds = "'coupled', 'decoupled', 'none', or None"
            raise ValueError(f"rule {here}: decay must be {kinds}, got {self.decay!r}")
        if self.scalars is not None and _arguments(self.scalars)[:1] != ("step",):
            names, at = _arguments(self.scalars), declared.place(self.scalars)
            if not names or "step" in names:
                raise TypeError(
                    f"the scalars of rule {self.name!r}, {at} must take the step first; they take {names}"
                )

    def _check_names(self) -> None:
        for name in {*self.written, *(self.measure.writes if self.measure else ())} - {*self.state}:
            raise TypeError(f"rule {self.name!r} writes {name!r}, which is not in its state {self.state}")
        for what in ("squares", "exact"):
            for name in {*getattr(self, what)} - {*self.state}:
                raise TypeError(
                    f"rule {self.name!r} has {name!r} in its {what}, which is not in its state {self.state}"
                )
        groups = (
            ("what kernels call the arguments of every rule", ("p", "g", "step")),
            ("a state", self.state),
            ("carried", self.carry),
            ("a hyperparameter", self.hyperparameters),
        )
        declared.check_apart(groups, f"rule {declared.place(self.function, name=repr(self.name))}")

    def _check_scalars(self, scalars: Callable[..., Any]) -> None:
        what = f"the scalars of rule {self.name!r},"
        if self.carry:
            declared.check_returned(scalars, 2, what, "two tuples: what is carried, and the scalars")
        else:
            taken = ", ".join(self._arguments[2 + len(self.state) :])
            count = "1 scalar" if self.n_scalars == 1 else f"{self.n_scalars} scalars"
            listing = f"a tuple of the {count} that the rule takes after its state ({taken or 'none'})"
            declared.check_returned(scalars, self.n_scalars, what, listing)

    @cached_property
    def _arguments(self) -> tuple[str, ...]:
        return _arguments(self.function)

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
    def written(self) -> tuple[str, ...]:
        """The state that the update writes."""
        return self.state if self.writes is None else self.writes

    def extra_state(
        self, shape: tuple[int, ...], dtype: np.dtype[np.floating]
    ) -> dict[str, tuple[tuple[int, ...], np.dtype[np.floating]]]:
        """Return the shape and dtype of each state that has not the size of its array, for an array's."""
        by_row = self.measure is not None and self.measure.over == "row" and len(shape) > 1
        own = shape[:1] if by_row else ()
        return {name: (own, np.dtype(np.float64)) for name in self.carry}

    @cached_property
    def scalars_of(self) -> tuple[str, ...]:
        """The hyperparameters that decide the scalars of the update."""
        if self.scalars is None:
            return self._arguments[2 + len(self.state) :]
        before = 1 + len(self.carry)
        if self.measure is not None:
            before += 1 + len(self.measure.sums)
        return _arguments(self.scalars)[before:]

    @cached_property
    def measured_with(self) -> tuple[str, ...]:
        """The hyperparameters that decide the scalars of the measuring pass."""
        if self.measure is None:
            return ()
        if self.measure.scalars is None:
            return _arguments(self.measure.function)[2 + len(self.state) :]
        return _arguments(self.measure.scalars)[1 + (len(self.carry) if self.measure.over == "all" else 0) :]

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        """The hyperparameters that the rule needs, in the order in which it takes them."""
        return tuple(dict.fromkeys((*self.scalars_of, *self.measured_with)))

    @cached_property
    def n_measure_scalars(self) -> int:
        """How many scalars the function of the measure takes."""
        if self.measure is None:
            return 0
        return len(_arguments(self.measure.function)) - 2 - len(self.state)

    @cached_property
    def in_files(self) -> bool:
        """Whether all its source is in files, so that compiled code can be kept for the next process."""
        own = [
            self.function,
            self.scalars,
            *((self.measure.function, self.measure.scalars) if self.measure else ()),
        ]
        functions = [each for function in own if function for each in declared.functions_of(function)]
        return all(map(declared.is_in_file, functions))

    @cached_property
    def traffic(self) -> int:
        """How many numbers a step reads and writes for each parameter."""
        functions = [(self.function, 1 + len(self.written))]
        if self.measure is not None:
            functions.append((self.measure.function, len(self.measure.writes)))
        count = 0
        for function, written in functions:
            read = {i.argval for i in dis.get_instructions(function) if i.opname.startswith("LOAD_FAST")}
            buffers = _arguments(function)[: 2 + len(self.state)]
            count += written + sum(name in read for name in buffers)
        return count

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the code that the compiled update depends on.

        Numba's disk cache watches one source file, the engine's. The fingerprint is part of the name under
        which a kernel is cached, so that an edited rule, or an edited helper of a rule, is compiled anew.
        """
        return digest(self.function, self.state, self.written)

    @cached_property
    def measure_fingerprint(self) -> str:
        """The same of the measure."""
        measure = self.measure
        return "" if measure is None else digest(measure.function, self.state, measure.writes, measure.sums)


def listed_results(written: tuple[str, ...]) -> str:
    """Return what a rule must return, in words."""
    if not written:
        return "one value, the new parameter, and no tuple"
    return f"{1 + len(written)} values: p, {', '.join(written)}"


def digest(*things: object) -> str:
    """Return a short digest of functions' code, and of plain values."""
    return hashlib.sha256(repr([_describe(thing, set()) for thing in things]).encode()).hexdigest()[:16]


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
