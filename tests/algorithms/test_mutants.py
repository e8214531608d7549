"""The comparison with the references rejects rules that are slightly wrong."""

import ast
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import BY_ID, CASES, FAMILIES, each_dtype, each_scalar, follow
from tests.algorithms.families import classical
from tests.algorithms.interpreted import Interpreted

# Mistakes that people make: run without the engine where that can be. Of those of the first family, some are
# compiled too; so many compilations more would take minutes, and show nothing new.

MISTAKES = [mistake for family in FAMILIES for mistake in family.MISTAKES]


@pytest.mark.parametrize(("case", "mistake", "old", "new"), MISTAKES)
def test_mistake_is_noticed(case, mistake, old, new, monkeypatch):
    case = BY_ID[case]
    if not case.scalar:
        mutant = edited_class(case.cls, old, new)
    elif "test_rule_agrees_without_the_engine" in case.exempt:
        mutant = class_of(case, edited_rule(case.rule, old, new))
    else:
        assert not rule_agrees(case, "float32", edited_rule(case.rule, old, new))
        return
    assert_noticed(case, mutant, monkeypatch)


@pytest.mark.parametrize(
    ("case", "mistake", "old", "new"),
    [
        pytest.param(
            *mistake, marks=() if mistake[0] in ("sgd_dampening", "adam_amsgrad") else pytest.mark.slow
        )
        for mistake in classical.MISTAKES
    ],
)
def test_mistake_is_noticed_when_it_is_compiled(case, mistake, old, new, monkeypatch):
    case = BY_ID[case]
    assert_noticed(case, class_of(case, edited_rule(case.rule, old, new)), monkeypatch)


def assert_noticed(case, mutant, monkeypatch):
    monkeypatch.setenv("FASTOPT_CACHE", "0")  # no mutants in the disk cache
    with pytest.raises(AssertionError, match="should be"):
        follow(case, 17, "float32", steps=10, tol=20, cls=mutant)


def class_of(case, rule):
    """Return a case's class with another rule."""
    return type("Mutant", (case.cls,), {"rule_for": classmethod(lambda cls, group, shape: rule)})


def edited_rule(rule, old, new):
    """Return a rule with a piece of its functions' source replaced."""
    changed = replace(rule, function=edited(rule.function, old, new), scalars=edited(rule.scalars, old, new))
    if rule.measure is not None:
        measure = rule.measure
        function, scalars = edited(measure.function, old, new), edited(measure.scalars, old, new)
        changed = replace(changed, measure=replace(measure, function=function, scalars=scalars))
    assert changed != rule, f"the rule has no {old!r} any more"
    return changed


def edited(function, old, new):
    """Return a function with a piece of its source replaced; the function itself if it is not in there."""
    source = "" if function is None else textwrap.dedent(inspect.getsource(function))
    return compiled(source.replace(old, new), function) if old in source else function


def edited_class(cls, old, new):
    """Return a class from the source of its module with a piece replaced.

    What does not depend on that piece stays the module's: its rules are compiled already.
    """
    module = sys.modules[cls.__module__]
    source = inspect.getsource(module)
    assert old in source, f"{cls.__module__} has no {old!r} any more"
    kept = {ast.dump(node) for node in ast.parse(source).body}
    nodes = ast.parse(source.replace(old, new)).body
    edited = [node for node in nodes if ast.dump(node) not in kept]
    for node in edited:  # what uses it, in turn
        changed = defines(node)
        edited += [other for other in nodes if other not in edited and uses(other) & changed]
    ordered = [node for node in nodes if node in edited]
    names = dict(vars(module))
    whole = [*ast.parse("from __future__ import annotations").body, *ordered]
    exec(compile(ast.Module(whole, []), "<mutant>", "exec"), names)
    return names[cls.__name__]


def defines(node):
    """Return the names that a statement of a module gives a meaning to."""
    return {node.name} if hasattr(node, "name") else uses(node, ast.Store)


def uses(node, how=ast.expr_context):
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, how)}


def compiled(source, function):
    names = dict(function.__globals__)
    exec(source, names)
    return names[function.__name__]


# Hyperparameters that are slightly off.


def off(value):
    if isinstance(value, tuple):
        return [(*value[:i], 0.999 * each, *value[i + 1 :]) for i, each in enumerate(value)]
    if isinstance(value, int):  # a flag, or a whole number
        return [False] if value is True else [value + 1] if value else []
    return [0.999 * value]


WRONG = [(c.id, name, wrong) for c in CASES for name, value in c.hyper.items() for wrong in off(value)]


@pytest.mark.parametrize(("case", "name", "wrong"), WRONG)
def test_hyperparameter_that_is_off_by_a_thousandth_is_noticed(case, name, wrong):
    with pytest.raises(AssertionError, match=r"should be|state is"):
        follow(BY_ID[case], 17, "float32", steps=10, tol=20, mistake={name: wrong})


# Every small change to the text of every rule, found by machine. These are run without the engine.

EQUIVALENT = set().union(*(family.EQUIVALENT for family in FAMILIES))


def agrees(case, dtype, function=None, mutant=None):
    """Tell whether a case's rule, with ``mutant`` in the place of ``function``, agrees with the reference."""
    replaced = {function: mutant}
    rule, measure = case.rule, case.rule.measure
    if measure is not None:
        measure = replace(
            measure,
            function=replaced.get(measure.function, measure.function),
            scalars=replaced.get(measure.scalars, measure.scalars),
        )
    try:
        rule = replace(
            rule,
            function=replaced.get(rule.function, rule.function),
            scalars=replaced.get(rule.scalars, rule.scalars),
            measure=measure,
        )
    except TypeError as error:  # seen at once: another number of values
        if "must return" not in str(error):
            raise
        return False
    return rule_agrees(case, dtype, rule)


def rule_agrees(case, dtype, rule):
    """Tell whether a rule, in the place of a case's, agrees with the reference, without the engine."""

    def interpreted(w, **hyper):
        return Interpreted(rule, w, opt=case.optimizer(w), **hyper)

    try:
        with np.errstate(all="ignore"):
            vectors = replace(case, axes=1)  # of a matrix whose rows are apart, one row
            follow(vectors, 5, dtype, steps=8, tol=20, cls=interpreted)
    except (AssertionError, ArithmeticError, ValueError, TypeError):
        return False
    return True


def changes(node: ast.AST, scalars: list[str]) -> Iterator[ast.AST]:
    """Yield what a node of a rule could be mistaken for."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            yield from (ast.BinOp(left, ast.Sub(), right), left, right)
        case ast.BinOp(left, ast.Sub(), right):
            yield from (ast.BinOp(left, ast.Add(), right), left)
        case ast.BinOp(left, ast.Mult(), right):
            yield from (left, right)
        case ast.BinOp(left, ast.Div(), right):
            yield from (left, ast.BinOp(left, ast.Mult(), right))
        case ast.BinOp(left, ast.Pow(), right):
            yield from (left, ast.BinOp(left, ast.Pow(), ast.Constant(2)))
        case ast.Call(ast.Name("float"), _):
            pass  # a matter of types alone; see test_kernels.py
        case ast.Call(_, arguments):
            yield from arguments
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.Constant(value):
            yield ast.Constant(value + 1)
        case ast.Name(name, ast.Load()) if name in scalars:
            yield from (ast.Name(other, ast.Load()) for other in scalars if other != name)
        case ast.Return(ast.Tuple([first, second, *rest])):
            yield ast.Return(ast.Tuple([second, first, *rest], ast.Load()))


def name_of(function) -> str:
    return f"{function.__module__.split('.')[-1]}.{function.__name__}"


def mutants(function, n_arrays: int) -> Iterator[tuple[tuple[str, str, str], Callable[..., Any]]]:
    """Yield every variant of a function, named by its change."""
    source = textwrap.dedent(inspect.getsource(function))
    tree = ast.parse(source)
    scalars = [argument.arg for argument in tree.body[0].args.args[n_arrays:]]
    starts = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
    # What a condition compares is tested for each algorithm: it decides in cases that the runs here do not meet.
    compared = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in compared:
            continue
        for new in changes(node, scalars):
            old_text, new_text = ast.unparse(node), ast.unparse(new)
            begin, end = (
                starts[line - 1] + column
                for line, column in ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
            )
            inserted = new_text if isinstance(new, ast.Return) else f"({new_text})"
            mutant = compiled(source[:begin] + inserted + source[end:], function)
            yield (name_of(function), old_text, new_text), mutant


FUNCTIONS = {}  # -> the number of leading arguments that are no scalars, and the cases
for case in [case for case in CASES if case.scalar]:
    rule, measure = case.rule, case.rule.measure
    functions = [(rule.function, 2 + len(rule.state)), (rule.scalars, 1)]
    if measure is not None:
        functions += [(measure.function, 2 + len(rule.state)), (measure.scalars, 1)]
    for function, n_arrays in functions:
        if function is not None:
            FUNCTIONS.setdefault(function, (n_arrays, []))[1].append(case)


@each_scalar
@each_dtype
def test_rule_agrees_without_the_engine(case, dtype):
    assert agrees(case, dtype)


@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_every_change_of_a_rule_is_noticed(function):
    """In float64, which notices more."""
    n_arrays, cases = FUNCTIONS[function]
    unnoticed = {
        name
        for name, mutant in mutants(function, n_arrays)
        if all(agrees(case, "float64", function, mutant) for case in cases)
    }
    assert unnoticed == {name for name in EQUIVALENT if name[0] == name_of(function)}


def test_how_many_changes_are_tried():
    assert len(list(mutants(fastopt.SGD.plain.function, 2))) == 11
    assert sum(len(list(mutants(f, n_arrays))) for f, (n_arrays, _) in FUNCTIONS.items()) > 900
