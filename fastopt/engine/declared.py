"""What can be seen of a rule without compiling it: its arguments, its names, how much it returns."""

from __future__ import annotations

import builtins
import contextlib
import dis
import functools
import inspect
import keyword
import linecache
import opcode
import os
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

#: The file of functions that are made of source lines; see ``defined``.
GENERATED = "<fastopt>"

#: What a rule may use of Python's own functions.
_USABLE = {"abs", "bool", "divmod", "float", "int", "len", "max", "min", "pow", "range", "round", "sum"}
_PYTHONS_OWN = {name for name in dir(builtins) if callable(getattr(builtins, name))} - _USABLE

#: Instructions that a function of numbers has no use for, and what they are for.
_FOREIGN = {
    "BUILD_LIST": "a list",
    "LIST_APPEND": "a list",
    "BUILD_MAP": "a dict",
    "BUILD_CONST_KEY_MAP": "a dict",
    "MAP_ADD": "a dict",
    "BUILD_SET": "a set",
    "SET_ADD": "a set",
    "FORMAT_VALUE": "a formatted string",
    "FORMAT_SIMPLE": "a formatted string",
    "FORMAT_WITH_SPEC": "a formatted string",
    "BUILD_STRING": "a formatted string",
    "IMPORT_NAME": "an import",
    "BEFORE_WITH": "a with statement",
    "PUSH_EXC_INFO": "a try statement",
    "LOAD_ASSERTION_ERROR": "an assertion",
    "RAISE_VARARGS": "a raise statement",
    "STORE_GLOBAL": "an assignment to a global name",
    "STORE_ATTR": "an assignment to an attribute",
    "STORE_SUBSCR": "an assignment to an item",
    "LOAD_BUILD_CLASS": "a class",
    "MAKE_FUNCTION": "a function inside",
}
#: Instructions that load a name from around a function.
FROM_AROUND = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_FROM_DICT_OR_GLOBALS")
_FOREIGN_CODES = {opcode.opmap[name] for name in _FOREIGN if name in opcode.opmap}
_OF_LISTS = ("BUILD_LIST", "LIST_APPEND")
_RETURN, _TUPLE, _ARITHMETIC = (opcode.opmap[name] for name in ("RETURN_VALUE", "BUILD_TUPLE", "BINARY_OP"))
_SUBSCRIPT = 26  # from Python 3.14 on an operation like those of arithmetic

WHAT_IT_MAY = (
    "a rule may use arithmetic, comparisons, abs, min, max, the functions of math, and plain functions "
    "that do no more"
)


def place(function: Callable[..., Any], line: int | None = None, name: str = "") -> str:
    """Return a function's name, file and line, for an error; with the line's source where there is any."""
    code = function.__code__
    shown = f"{name or repr(function.__name__)} ({code.co_filename}, line {line or code.co_firstlineno}"
    source = linecache.getline(code.co_filename, line, function.__globals__).strip() if line else ""
    return f"{shown}: `{source}`)" if source else f"{shown})"


def plain(function: Any, what: str, starred: bool = False) -> Callable[..., Any]:
    """Return the plain function that a rule is made of, with the compiler's decorators taken off.

    With ``starred``, it may take ``*args``.

    Raises
    ------
    TypeError
        If it is none, or takes its arguments in another way than by their places.
    """
    function = getattr(function, "py_func", function)
    if isinstance(function, staticmethod):
        function = function.__func__
    if not isinstance(function, types.FunctionType):
        kind = "a method" if inspect.ismethod(function) else f"a {type(function).__name__}"
        hint = "write a function outside of classes"
        if isinstance(function, functools.partial):
            hint = "numbers come in as hyperparameters or scalars"
        raise TypeError(f"{what} must be a plain function (def, or lambda), got {kind}: {function!r}; {hint}")
    code, at = function.__code__, place(function)
    if code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        raise TypeError(f"{what} {at} must be a plain function: no async, no yield")
    if code.co_flags & (inspect.CO_VARKEYWORDS | (0 if starred else inspect.CO_VARARGS)):
        raise TypeError(f"{what} {at} must name its arguments one by one: no *args, no **kwargs")
    if code.co_kwonlyargcount:
        raise TypeError(f"{what} {at} takes its arguments by their places: none after a *")
    if function.__defaults__:
        first = code.co_varnames[code.co_argcount - len(function.__defaults__)]
        raise TypeError(
            f"{what} {at} must have no default arguments, but has one for {first!r}; default values "
            "belong in the class: defaults = {...}"
        )
    return function


def arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a plain function's arguments."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount]


def names(given: Any, what: str) -> tuple[str, ...]:
    """Return names as a tuple.

    Raises
    ------
    TypeError, ValueError
        If they are not names of variables.
    """
    if isinstance(given, str):
        raise TypeError(f"{what} must be a tuple of names, got the string {given!r}: write ({given!r},)")
    if not isinstance(given, tuple | list) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"{what} must be a tuple of names, got {given!r}")
    for name in given:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise ValueError(f"{what}: {name!r} cannot be the name of a variable, or begins with _")
    return tuple(given)


def check_apart(groups: Sequence[tuple[str, Sequence[str]]], what: str) -> None:
    """Raise a ValueError if a name is there twice, in a group or in several."""
    seen: dict[str, str] = {}
    for kind, group in groups:
        for name in group:
            if name in seen:
                raise ValueError(f"{what}: {name!r} is {seen[name]} and {kind}; rename one of them")
            seen[name] = kind


def check_code(function: Callable[..., Any], what: str) -> None:
    """Raise a TypeError if a function of numbers has code that is Python's alone."""
    code = function.__code__
    found = {code.co_code[i] for i in range(0, len(code.co_code), 2)} & _FOREIGN_CODES
    used = _PYTHONS_OWN.intersection(code.co_names)
    if code.co_filename == GENERATED or not (found or used):
        return
    # Tuples and calls that are long, or have a star, are built by way of a list.
    starred = any("LIST_TO_TUPLE" in each.argrepr + each.opname for each in dis.get_instructions(code))
    for each in dis.get_instructions(code):
        line = each.positions.lineno if each.positions else None
        if each.opname in _FOREIGN and not (starred and each.opname in _OF_LISTS):
            at = place(function, line)
            raise TypeError(f"{what} {at} cannot be compiled: {_FOREIGN[each.opname]}; {WHAT_IT_MAY}")
        name = each.argval
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name in used and name not in function.__globals__:
            at = place(function, line)
            raise TypeError(f"{what} {at} cannot be compiled: {name} is Python's alone; {WHAT_IT_MAY}")


def check_returned(function: Callable[..., Any], wanted: int, what: str, listing: str) -> None:
    """Raise a TypeError if a function is seen to return another number of values than ``wanted``.

    A ``wanted`` of 0 is one value that is no tuple. What a function passes on, of another function or in a
    variable, is not looked at here.
    """
    code = function.__code__.co_code
    before = before_at = -1
    for i in range(0, len(code), 2):
        if code[i] == 0:  # room for the interpreter's notes
            continue
        if code[i] == _RETURN:
            got = -1
            if before == _TUPLE:
                got = code[before_at + 1]
            elif before == _ARITHMETIC and code[before_at + 1] < _SUBSCRIPT:
                got = 0
            if got not in (-1, wanted):
                line = list(function.__code__.co_positions())[before_at // 2][0]
                number = "one value that is no tuple" if got == 0 else counted(got)
                number = "a tuple of one value" if got == 1 else number
                raise TypeError(f"{what} {place(function, line)} must return {listing}; it returns {number}")
        before, before_at = code[i], i


def counted(n: int) -> str:
    """Return a number of values in words."""
    return f"{n} values" if n != 1 else "1 value"


def check_outside(function: Callable[..., Any], what: str) -> None:
    """Raise a TypeError if a function refers to arrays, or to what holds other things, outside of it."""
    for name, value in outside(function):
        if isinstance(value, np.ndarray | list | dict | set | bytearray) and name in _loaded(function):
            raise TypeError(
                f"{what} {place(function)} uses {name!r} from outside, a {type(value).__name__}, which could "
                "change unseen; numbers come in as hyperparameters or scalars, arrays as state"
            )


def _loaded(function: Callable[..., Any]) -> set[Any]:
    """Return the names that a function takes from around it. Its ``co_names`` are attributes too."""
    return {each.argval for each in dis.get_instructions(function) if each.opname in FROM_AROUND}


def outside(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Return the names and values that a function takes from around it, as far as they are there."""
    code = function.__code__
    for name in code.co_names:
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not there yet
            yield name, cell.cell_contents


def functions_of(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return a function, and the plain functions that it refers to, in turn."""
    found = [function]
    for each in found:
        for _, value in outside(each):
            value = getattr(value, "py_func", value)
            if isinstance(value, types.FunctionType) and value not in found:
                found.append(value)
    return found


def is_in_file(function: Callable[..., Any]) -> bool:
    """Tell whether a function's source is a file, or a module; not a prompt, a notebook, or a string."""
    file, around = function.__code__.co_filename, function.__globals__
    if file == GENERATED:
        return True
    if file.startswith("<"):
        return False
    if os.path.exists(file) or around.get("__spec__") is not None:
        return True
    # A script that was started by a relative path, and has left its folder.
    whole = around.get("__file__") or ""
    return os.path.basename(whole) == os.path.basename(file) and os.path.exists(whole)
