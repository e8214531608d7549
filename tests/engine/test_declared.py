"""Mistakes in rules that are seen where the rule is made, before anything is compiled."""

import functools
import inspect
import re

import numpy as np
import pytest

from fastopt import Rule
from fastopt.engine.declared import is_in_file
from fastopt.engine.rule import Measure


def written(source, name="rule", **scope):
    """Return a function that is made of source, as at a prompt: there is no file."""
    exec(source, scope)
    return scope[name]


def good(p, g, m, lr):
    return p - lr * m, m


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def refused(text, *args, kind=TypeError, **options):
    with pytest.raises(kind) as caught:
        Rule(*args, **options)
    message = str(caught.value)
    assert re.search(text, message), message
    return message


# What a rule is made of.


class Callable:
    def __call__(self, p, g, lr):
        return p

    def method(self, p, g, lr):
        return p


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (functools.partial(good, m=1), "a partial.*numbers come in as hyperparameters or scalars"),
        (Callable().method, "a method.*write a function outside of classes"),
        (Callable(), "a Callable"),
        (Callable, "a type"),
        (max, "a builtin_function_or_method"),
        (np.sqrt, "a ufunc"),
        ("p - lr * g", "a str"),
    ],
)
def test_only_plain_functions(function, kind):
    refused(rf"the function of a rule, must be a plain function \(def, or lambda\), got {kind}", function)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("async def rule(p, g, lr): return p", "no async, no yield"),
        ("async def rule(p, g, lr): yield p", "no async, no yield"),
        ("def rule(p, g, lr): yield p", "no async, no yield"),
        ("def rule(p, g, *rest): return p", r"name its arguments one by one: no \*args, no \*\*kwargs"),
        ("def rule(p, g, **rest): return p", "name its arguments one by one"),
        ("def rule(p, g, *, lr): return p", r"takes its arguments by their places: none after a \*"),
        (
            "def rule(p, g, lr=0.1): return p",
            "no default arguments, but has one for 'lr'; default values belong in the class",
        ),
        ("def rule(p, g, a, b=1, c=2): return p", "has one for 'b'"),
    ],
)
def test_arguments_are_plain(source, text):
    message = refused(text, written(source))
    assert "the function of a rule, 'rule' (<string>, line 1)" in message
    refused(text, good, state=("m",), scalars=written(source))


def test_too_few_arguments_name_the_file_and_the_line():
    message = refused("must take a parameter, a gradient, the state", good, state=("m", "v", "n"))
    assert f"rule 'good' ({__file__}, line {good.__code__.co_firstlineno})" in message
    assert "it takes only ('p', 'g', 'm', 'lr')" in message


def test_decay():
    refused(
        "decay must be 'coupled', 'decoupled', 'none', or None, got 'L2'",
        good,
        ("m",),
        decay="L2",
        kind=ValueError,
    )


# Names.


@pytest.mark.parametrize("name", ["state", "carry", "writes"])
def test_names_are_a_tuple(name):
    refused(
        rf"a rule's {name} must be a tuple of names, got the string 'm': write \('m',\)", good, **{name: "m"}
    )
    refused(f"a rule's {name} must be a tuple of names, got ", good, **{name: (1,)})
    refused(f"a rule's {name} must be a tuple of names, got ", good, **{name: 3})


@pytest.mark.parametrize("name", ["a b", "2m", "lambda", "_m", ""])
def test_names_are_those_of_variables(name):
    refused("cannot be the name of a variable, or begins with _", good, state=(name,), kind=ValueError)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (("p",), "'p' is what kernels call the arguments of every rule and a state"),
        (("g",), "'g' is what kernels call"),
        (("step",), "'step' is what kernels call"),
        (("m", "m"), "'m' is a state and a state; rename one of them"),
        (("momentum",), "'momentum' is a state and a hyperparameter"),
    ],
)
def test_names_are_apart(state, text):
    names = ", ".join(f"a{i}" for i in range(len(state)))
    function = written(f"def rule(p, g, {names}, lr, *_): return p".replace(", *_", ""))
    scalars = written("def rule(step, momentum): return (momentum,)")
    refused(text, function, state=state, scalars=scalars, kind=ValueError)


def test_state_and_what_is_carried_are_apart():
    scalars = written("def rule(step, m, lr): return (m,), (lr,)")
    refused("'m' is a state and carried", good, ("m",), scalars, carry=("m",), kind=ValueError)


def test_a_hyperparameter_is_not_the_step():
    function = written("def rule(p, g, lr, step): return p")
    refused(
        "'step' is what kernels call the arguments of every rule and a hyperparameter",
        function,
        kind=ValueError,
    )


def test_state_in_another_order():
    function = written("def rule(p, g, m, v, lr): return p, v, m")
    refused(
        r"takes 'm' where its state has 'v': the state \('v', 'm'\) must come in one order",
        function,
        ("v", "m"),
    )


def test_other_names_than_those_of_the_state_are_fine():
    function = written("def rule(w, d, a, b, lr): return w, a, b")
    assert Rule(function, ("exp_avg", "exp_avg_sq")).hyperparameters == ("lr",)


# Where it is written.


@pytest.mark.jit
def test_files(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def rule(p, g, lr): return p")

    def from_(name, **scope):
        exec(compile(script.read_text(), name, "exec"), scope)
        return is_in_file(scope["rule"])

    assert from_(str(script))
    assert from_("script.py", __file__=str(script))  # started from its folder, which it has left
    assert from_("/archive.zip/module.py", __spec__=object())  # imported, wherever from
    assert not from_("script.py")
    assert not from_("other.py", __file__=str(script))
    assert not from_("/tmp/ipykernel_1/2.py", __spec__=None)
    assert not from_("<stdin>", __file__=str(script), __spec__=object())


# What is returned.


def short(p, g, m, lr):
    if g > m:
        return p, m
    m = m + g
    return p, m, g


def alone(p, g, m, lr):
    return p - lr * g


def single(p, g, lr):
    return (p - lr * g,)


def test_number_of_returned_values():
    message = refused("must return 2 values: p, m; it returns 3 values", short, ("m",))
    assert f"rule 'short' ({__file__}, line {line_of(short, 'm, g')}: `return p, m, g`)" in message
    message = refused("must return 2 values: p, m; it returns one value that is no tuple", alone, ("m",))
    assert f"line {line_of(alone, 'return')}: `return p - lr * g`" in message
    refused("must return one value, the new parameter, and no tuple; it returns a tuple of one value", single)
    refused("must return one value, the new parameter", written("def rule(p, g, lr): return p, g"))
    refused(
        "it returns 0 values|it returns 2 values",
        written("def rule(p, g, m, lr): return p, m"),
        ("m",),
        writes=(),
    )


def test_what_is_passed_on_is_not_looked_at_here():
    both = written("def both(p, g, m, lr): return p, m", "both")
    assert Rule(written("def rule(p, g, m, lr): return both(p, g, m, lr)", both=both), ("m",))
    assert Rule(written("def rule(p, g, m, lr):\n new = p, m\n return new"), ("m",))
    assert Rule(written("def rule(p, g, m, lr): return (p, m) if g > m else (m, p)"), ("m",))
    assert Rule(written("def rule(p, g, m, lr): return both(p, g, m, lr)[lr > p]", both=both))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "def rule(step, lr): return lr, lr",
            r"must return a tuple of the 1 scalar that the rule takes after its state \(lr\); it returns 2 values",
        ),
        ("def rule(step, lr): return lr * 2", "it returns one value that is no tuple"),
        ("def rule(lr, step): return (lr,)", "must take the step first"),
        ("def rule(): return (1,)", r"must take the step first; they take \(\)"),
    ],
)
def test_scalars(source, text):
    refused(
        r"the scalars of rule 'good', 'rule' \(<string>, line 1\).*" + text, good, ("m",), written(source)
    )


def test_scalars_that_carry():
    scalars = written("def rule(step, d, lr): return d, lr, lr")
    refused(
        "must return two tuples: what is carried, and the scalars; it returns 3 values",
        good,
        ("m",),
        scalars,
        carry=("d",),
    )


def test_scalars_of_a_length_that_is_not_seen_are_left_for_later():
    scalars = written("def rule(step, betas): return *betas, 1 - betas[0]")
    function = written("def rule(p, g, a, b, c): return p")
    assert Rule(function, scalars=scalars).hyperparameters == ("betas",)


# Code that is Python's alone.


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("print(p)", "print is Python's alone"),
        ("isinstance(p, float)", "isinstance is Python's alone"),
        ("sorted(p)", "sorted is Python's alone"),
        ("m = [p, g]", "a list"),
        ("m = [x for x in m]", "a list|a function inside"),
        ("m = {p: g}", "a dict"),
        ("m = {'a': p, 'b': g}", "a dict"),
        ("m = {p, g}", "a set"),
        ("m = f'{p}'", "a formatted string"),
        ("import math", "an import"),
        ("with m: pass", "a with statement"),
        ("assert p > g", "an assertion"),
        ("raise ValueError", "a raise statement|ValueError is Python's alone"),
        ("m.x = p", "an assignment to an attribute"),
        ("m[0] = p", "an assignment to an item"),
        ("m = lambda x: x", "a function inside"),
        ("def inner(): return p", "a function inside"),
        ("class Inner: pass", "a class"),
        ("global lr_\n lr_ = p", "an assignment to a global name"),
    ],
)
def test_python_only_code(line, text):
    source = f"def rule(p, g, m, lr):\n m = p\n {line}\n return p, m"
    number = 4 if "global" in line else 3
    where = rf"rule 'rule' \(<string>, line {number}\) cannot be compiled: "
    message = refused(where + f"({text}); a rule may use arithmetic, comparisons", written(source), ("m",))
    assert "plain functions that do no more" in message


def test_a_try_statement():
    source = "def rule(p, g, lr):\n try:\n  p = p\n except ValueError:\n  p = g\n return p"
    refused("a try statement|ValueError is Python's alone", written(source))


def test_the_measure_is_looked_at_too():
    with pytest.raises(TypeError, match="measure 'rule' .* cannot be compiled: a list"):
        Measure(written("def rule(p, g): return [p]"), ("sum",))
    with pytest.raises(TypeError, match="the function of a measure, must be a plain function"):
        Measure(max, ("sum",))
    with pytest.raises(TypeError, match="the scalars of a measure, must be a plain function"):
        Measure(good, ("sum",), scalars=max)


def test_names_of_ones_own_are_not_pythons():
    assert Rule(written("def rule(p, g, lr): return print(p)", print=lambda x: x))
    assert Rule(written("def rule(p, g, m, lr): return p, *m"), ("m",))  # a list in bytecode
    names = tuple(f"m{i}" for i in range(40))
    listed = ", ".join(names)
    assert Rule(written(f"def rule(p, g, {listed}): return p, {listed}"), names)  # and here
    assert Rule(written("def rule(p, g, lr):\n for i in range(3):\n  p = max(p, abs(g))\n return p"))
