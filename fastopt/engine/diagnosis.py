"""Finds the mistakes in a rule when it is compiled, and names their lines.

A function is typed by itself, with scalars of the dtype, before anything is built around it. That
takes some milliseconds of a compilation, and none when the compiled code comes from the disk cache.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import builtins
import dis
import os
import re
import types as python_types
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import ir
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from fastopt.engine import declared
from fastopt.engine.compiled import jitable
from fastopt.engine.declared import GENERATED, WHAT_IT_MAY, counted, functions_of, place
from fastopt.engine.inference import assignments, constant, infer, named
from fastopt.engine.rule import RETURNED, Rule, listed_results

# Numba compares the signature of an overload with its implementation's, annotations too: there are none.


def examiner(rule: Rule, measuring: bool = False) -> Callable[..., None]:
    """Return a function that does nothing, and examines a rule for a number's dtype as it is compiled."""

    def examine_rule(x):
        return None

    @overload(examine_rule)
    def examined(x):
        examine(rule, as_dtype(x), measuring)
        return lambda x: None

    return examine_rule


def scalars_examiner(rule: Rule) -> Callable[..., None]:
    """Return the same for the scalars of a rule, for a tuple of hyperparameters."""

    def examine_scalars(values):
        return None

    @overload(examine_scalars)
    def examined(values):
        assert rule.scalars is not None
        before = rule.scalars.__code__.co_argcount - len(rule.scalars_of)
        arguments = (*[types.float64] * before, *values)
        Inspection(f"the scalars of rule {rule.name!r}", rule.scalars).typed(rule.scalars, arguments)
        return lambda values: None

    return examine_scalars


def examine(rule: Rule, dtype: np.dtype[np.floating], measuring: bool = False) -> None:
    """Type the function of a rule, or of its measure.

    Raises
    ------
    TypeError
        If it cannot be compiled, computes float32 in double, or returns something else than it must.
    """
    measure = rule.measure
    function = measure.function if measuring and measure is not None else rule.function
    written = _written(function)
    name = rule.name if written is function else written.__name__
    results = None if measuring or written not in RETURNED else ("p", *RETURNED[written])
    what = f"the measure of rule {name!r}" if measuring else f"rule {name!r}"
    Inspection(what, written).run(numba.from_dtype(dtype), results)


def _written(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what somebody has written, of a function that modifiers were put around."""
    while function.__code__.co_filename == GENERATED and "_rule" in function.__globals__:
        function = function.__globals__["_rule"]
    return function


def failed(rule: Rule, error: Exception) -> TypeError:
    """Return the error of a rule that could not be compiled for another reason than those above."""
    at = place(_written(rule.function))
    return TypeError(f"rule {at} cannot be compiled: {_cause(error)}; {WHAT_IT_MAY}")


def wrong_scalars(rule: Rule, wanted: int, got: Any) -> TypeError:
    """Return the error of scalars that are no tuple of as many numbers as a rule takes."""
    of = "the scalars of " if rule.scalars else "the hyperparameters of "
    at = f"{of}rule {rule.name!r}, {place(rule.scalars or rule.function)},"
    number = f"{len(got)}: {got!r}" if isinstance(got, tuple | list) else repr(got)
    return TypeError(f"{at} must come as a tuple of {counted(wanted)}, all numbers; got {number}")


class Inspection:
    """Looks at a function of numbers, and at those that it calls.

    Parameters
    ----------
    what : str
        How errors name it.
    function : callable
        The function.
    """

    def __init__(self, what: str, function: Callable[..., Any]) -> None:
        self.what, self.function = what, function

    def run(self, kind: Any, results: tuple[str, ...] | None) -> None:
        """Look at everything, for arguments of one type; the results are known by their names."""
        for each in functions_of(self.function):
            self._check_names(each)
            what = self.what if each is self.function else f"{self.what}, in"
            declared.check_outside(each, what)
            declared.check_code(each, what)
        jitable(self.function)  # again: a helper may have been missing when it was tried before
        found = self.typed(self.function, (kind,) * self.function.__code__.co_argcount, results)
        if kind is types.float32:
            self._check_doubles(self.function, found)
        if results is not None:
            self._check_results(found, kind, results)

    def _at(self, function: Callable[..., Any], line: int | None = None) -> str:
        """Return how an error begins: what is looked at, and where."""
        if function is self.function:
            return f"{self.what} {place(function, line, ' ').strip()}"
        return f"{self.what}, in {place(function, line)}"

    def typed(
        self, function: Callable[..., Any], arguments: Sequence[Any], results: tuple[str, ...] | None = None
    ) -> Any:
        """Return Numba's view of a function: its intermediate code, and the type of each variable.

        Raises
        ------
        TypeError
            If it cannot be typed. The message names the line.
        """
        try:
            return infer(function, arguments)
        except Exception as error:
            found = re.findall(_RETURNS, str(error))
            if results is not None and found:
                kinds = {int(line): _shortened(kind) for kind, line in found}
                first, *_ = lines = sorted(kinds)
                raise TypeError(
                    f"{self._at(function, first)} must return {listed_results(results[1:])}; it returns "
                    + ", but ".join(f"{kinds[line]} in line {line}" for line in lines)
                ) from error
            at = self._at(*_located(function, str(error)))
            raise TypeError(f"{at} cannot be compiled: {_cause(error)}; {WHAT_IT_MAY}") from error

    def _check_names(self, function: Callable[..., Any]) -> None:
        """Raise a TypeError if a function uses a name that nothing has."""
        known = {**vars(builtins), **function.__globals__, **dict(declared.outside(function))}
        module: Any = None
        for each in dis.get_instructions(function):
            line = each.positions.lineno if each.positions else None
            before, module, name = module, None, each.argval
            if each.opname in declared.FROM_AROUND:
                if name not in known and name not in function.__code__.co_cellvars:
                    raise TypeError(
                        f"{self._at(function, line)} uses the name {name!r}, which is not defined"
                    )
                module = known.get(name)
            elif each.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(before, python_types.ModuleType):
                module = getattr(before, name, None)
                whole = f"{before.__name__}.{name}"
                if not hasattr(before, name):
                    raise TypeError(f"{self._at(function, line)} uses {whole}, which is not defined")
                if isinstance(module, python_types.FunctionType) and not whole.startswith("numpy."):
                    raise TypeError(
                        f"{self._at(function, line)} calls a function by way of its module; write: "
                        f"from {before.__name__} import {name}"
                    )

    def _check_doubles(self, function: Callable[..., Any], found: Any) -> None:
        """Raise a TypeError if a function of float32 computes something in double."""
        made = {each.target.name: each.value for each in assignments(found)}
        for each in assignments(found):
            value = each.value
            if not isinstance(value, ir.Expr) or value.op not in ("binop", "inplace_binop", "unary", "call"):
                continue
            called = constant(value.func, made) if value.op == "call" else None
            called = getattr(called, "py_func", called)
            if isinstance(called, python_types.FunctionType) and called in functions_of(function)[1:]:
                self._check_doubles(called, self.typed(called, found.calltypes[value].args))
            if found.typemap[each.target.name] is not types.float64:
                continue
            culprit = "what it computes with is no float32"
            for operand in value.args if value.op == "call" else value.list_vars():
                number = constant(operand, made)
                if isinstance(number, bool | int | float):
                    kind = "a double" if isinstance(number, float) else "a 64-bit integer"
                    culprit = f"{named(operand, made)}{number!r} is {kind}"
            raise TypeError(
                f"{self._at(function, value.loc.line)} computes float32 in double: {culprit}; "
                "pass it as a hyperparameter or scalar"
            )

    def _check_results(self, found: Any, kind: Any, results: tuple[str, ...]) -> None:
        """Raise a TypeError unless each return statement returns what it must, as floats."""
        made = {each.target.name: each.value for each in assignments(found)}
        wanted = listed_results(results[1:])
        for _, block in sorted(found.func_ir.blocks.items()):
            last = block.terminator
            if not isinstance(last, ir.Return):
                continue
            value = made.get(last.value.name)
            source = value.value if isinstance(value, ir.Expr) and value.op == "cast" else last.value
            got, at = found.typemap[source.name], self._at(self.function, last.loc.line)
            if isinstance(got, types.NoneType | types.Optional):
                raise TypeError(f"{at} must return {wanted}; one way through it returns nothing")
            is_tuple = isinstance(got, types.BaseTuple)
            items = tuple(got) if is_tuple else (got,)
            if is_tuple != (len(results) > 1) or len(items) != len(results):
                number = counted(len(items)) if is_tuple else f"one {_shortened(str(got))}"
                raise TypeError(f"{at} must return {wanted}; it returns {number}")
            for name, item in zip(results, items, strict=True):
                if not isinstance(item, types.Float) or (kind is types.float32 and item is not kind):
                    raise TypeError(
                        f"{at} returns {_shortened(str(item))} for {name!r}, "
                        f"where the parameters are {kind}; pass numbers as hyperparameters or scalars"
                    )


def _located(function: Callable[..., Any], message: str) -> tuple[Callable[..., Any], int | None]:
    """Return the innermost place in a function, or in one that it calls, that an error message names."""
    for match in re.finditer(r'File "([^"]+)", line (\d+)|\bat (\S[^\n]*) \((\d+)\)', message):
        file, line = match[1] or match[3], int(match[2] or match[4])
        for each in functions_of(function):
            code = each.__code__
            lines = [number for _, _, number in code.co_lines() if number is not None]
            if os.path.abspath(file) == os.path.abspath(code.co_filename) and line in lines:
                return each, line
    return function, None


#: The types of several return statements, and their lines.
_RETURNS = r"type '([^\n]+)', location:\s*File \"[^\"]+\", line (\d+)"

#: What Numba says, and what it means. The last match is the innermost.
_CAUSES = (
    (r"Can't unify return type from the following types: (.+)", "it returns several kinds: {}"),
    (r"Cannot unify (.+) and (.+) for '([\w$]+?)(?:\.\d+)*'", "{2!r} is now {0}, now {1}"),
    (r"Unknown attribute '(\w+)' of type (.+)", "{1} has no attribute {0!r}"),
    (r">>> (.+)", "there is no compiled {}"),
)


def _cause(error: Exception) -> str:
    """Return the cause of one of Numba's errors, in one line."""
    text = str(error)
    for pattern, form in _CAUSES:
        if found := re.findall(pattern, text):
            last = found[-1]
            return _shortened(form.format(*(last if isinstance(last, tuple) else (last,))))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Failed in", "During:", "File "))]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _shortened(text: str) -> str:
    """Return Numba's name of a type, in words."""
    text = re.sub(r"UniTuple\(\w+ x (\d+)\)", r"a tuple of \1", text)
    text = re.sub(r"Literal\[\w+\]\((.+?)\)", r"\1", text)
    return re.sub(r"OptionalType\((\w+)\)", r"\1 or None", text).replace("none", "None")
