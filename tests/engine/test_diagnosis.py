"""Mistakes in rules that are seen when they are compiled: each is one error, with the line."""

import inspect
import math
import re
import types

import numba
import numpy as np
import pytest

import fastopt
from fastopt import Rule
from fastopt.engine.diagnosis import examine, wrong_scalars
from fastopt.engine.rule import Measure

FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
TABLE, EPS, SINGLE = np.ones(3), 1e-8, np.float32(0.5)
HELPERS = types.ModuleType("helpers")
exec("def half(x): return x", HELPERS.__dict__)


def refused(function, where, what, state=("m",), dtype=FLOAT32):
    """Check that a rule is refused, that the error names a line by what is written there, and why."""
    with pytest.raises(TypeError) as caught:
        examine(Rule(function, state), dtype)
    message = str(caught.value)
    lines, first = inspect.getsourcelines(function)
    number, line = next((i, line) for i, line in enumerate(lines, first) if where in line)
    assert f"rule '{function.__name__}' ({__file__}, line {number}: `{line.strip()}`)" in message
    assert re.search(what, message), message
    assert "\n" not in message
    return caught.value


# Numbers that make doubles.


def literal(p, g, m, lr):
    m = m + g
    return p - lr * (0.5 * m), m


def integer(p, g, m, lr):
    fresh = 1 - lr
    return p - fresh * m, m


def from_outside(p, g, m, lr):
    return p - lr * g / (m + EPS), m


def from_module(p, g, m, lr):
    return p - math.pi * g, m


def in_a_comparison(p, g, m, lr):
    small = abs(g) < 0.1 * lr
    return p if small else p - lr * g, m


def only_one_branch(p, g, m, lr):
    if g > m:
        m = m * 0.9
    return p - lr * g, m


def returned(p, g, m, lr):
    return p - lr * g, 0.0


def returned_integer(p, g, m, lr):
    return p - lr * g, 0


@pytest.mark.parametrize(
    ("function", "where", "what"),
    [
        (
            literal,
            "0.5",
            "computes float32 in double: 0.5 is a double; pass it as a hyperparameter or scalar",
        ),
        (integer, "1 - lr", "computes float32 in double: 1 is a 64-bit integer; pass it"),
        (from_outside, "EPS", "EPS = 1e-08 is a double"),
        (from_module, "math.pi", r"pi = 3\.14159\d+ is a double"),
        (in_a_comparison, "0.1", "0.1 is a double"),
        (only_one_branch, "0.9", "0.9 is a double"),
        (returned, "0.0", "returns float64 for 'm', where the parameters are float32; pass numbers as"),
        (returned_integer, "0", "returns 0 for 'm', where the parameters are float32"),
    ],
)
def test_numbers_that_make_doubles(function, where, what):
    refused(function, where, what)


def test_an_integer_is_refused_as_state_of_float64_too():
    refused(returned_integer, "0", "returns 0 for 'm', where the parameters are float64", dtype=FLOAT64)


@pytest.mark.parametrize("function", [literal, integer, from_outside, from_module, only_one_branch, returned])
def test_they_are_fine_in_float64(function):
    examine(Rule(function, ("m",)), FLOAT64)


def test_what_stays_in_float32_is_fine():
    def squared(p, g, m, lr):
        return p - lr * g**2, m

    def compared(p, g, m, lr):
        return p - lr * (g if g > 0 else m), m

    def typed(p, g, m, lr):
        return p - SINGLE * g, m

    def looping(p, g, m, lr):
        for _ in range(3):
            p = p - lr * g
        return p, m

    for function in (squared, compared, typed, looping):
        examine(Rule(function, ("m",)), FLOAT32)


def halved(x):
    return x * 0.5


def by_helper(p, g, m, lr):
    return p - halved(lr * g), m


@pytest.mark.jit
def test_a_number_in_a_helper_names_the_helper():
    with pytest.raises(TypeError) as caught:
        examine(Rule(by_helper, ("m",)), FLOAT32)
    line = halved.__code__.co_firstlineno + 1
    where = f"rule 'by_helper', in 'halved' ({__file__}, line {line}: `return x * 0.5`) computes float32 in"
    assert where in str(caught.value)


# Names.


def unknown(p, g, m, lr):
    m = m + g
    return p - rl * m, m  # noqa: F821


def unknown_of_a_module(p, g, m, lr):
    return p - math.squareroot(g), m


def of_a_module(p, g, m, lr):
    return p - HELPERS.half(g), m


def uses_array(p, g, m, lr):
    return p - TABLE[0] * g, m


def test_names():
    refused(unknown, "rl * m", "uses the name 'rl', which is not defined")
    refused(unknown_of_a_module, "squareroot", r"uses math\.squareroot, which is not defined")
    refused(of_a_module, "half", "by way of its module; write: from helpers import half")


def test_names_that_a_helper_does_not_know():
    scope = {"math": math}
    exec("def helper(x): return missing(x)\ndef rule(p, g, lr): return helper(p)", scope)
    with pytest.raises(
        TypeError, match=r"rule 'rule', in 'helper' \(<string>, line 1\) uses the name 'missing'"
    ):
        examine(Rule(scope["rule"]), FLOAT32)
    exec("def helper(x): return [x]", scope)
    with pytest.raises(TypeError, match="rule 'rule', in 'helper' .* cannot be compiled: a list"):
        examine(Rule(scope["rule"]), FLOAT32)


@pytest.mark.jit
def test_a_helper_that_is_defined_later_is_fine():
    scope = {}
    exec("def rule(p, g, lr): return later(p, g, lr)", scope)
    made = Rule(scope["rule"])
    with pytest.raises(TypeError, match="uses the name 'later', which is not defined"):
        examine(made, FLOAT32)
    exec("def later(p, g, lr): return p - lr * g", scope)
    examine(made, FLOAT32)


def test_arrays_from_outside():
    with pytest.raises(
        TypeError, match="uses 'TABLE' from outside, a ndarray, which could change unseen; numbers"
    ):
        examine(Rule(uses_array, ("m",)), FLOAT32)

    def closed(values):
        def rule(p, g, lr):
            return p - values[0] * g

        return Rule(rule)

    for values in (np.ones(2), [1.0], {0: 1.0}):
        with pytest.raises(TypeError, match=f"uses 'values' from outside, a {type(values).__name__}"):
            examine(closed(values), FLOAT64)
    examine(closed((np.float32(2.0), np.float32(1.0))), FLOAT32)


def test_a_closure_that_is_not_filled():
    def outer():
        def rule(p, g, lr):
            return p - late * g

        made = Rule(rule)
        if made.state:
            late = 1.0
        return made

    with pytest.raises(TypeError, match="uses the name 'late', which is not defined"):
        examine(outer(), FLOAT32)


# What cannot be compiled.


def norm(p, g, m, lr):
    length = np.linalg.norm(g)
    return p, m * length


def too_many(p, g, m, lr):
    return p, math.sqrt(m, g)


def attribute(p, g, m, lr):
    m = m.foo
    return p, m


def text(p, g, m, lr):
    m = "a" + m
    return p, m


def none_or_number(p, g, m, lr):
    x = p if g > m else None
    return x, m


def two_lengths(p, g, m, lr):
    if g > m:
        return p
    return p, m


def one_way_only(p, g, m, lr):
    if g > m:
        return p, m


def no_return(p, g, m, lr):
    p - lr * g


def truth(p, g, m, lr):
    return p, m > g


def several(p, g, m, lr):
    new = p, m, g
    return new


def plain_for_pair(p, g, m, lr):
    new = p
    return new


def pair_for_plain(p, g, lr):
    new = p, g
    return new


@pytest.mark.parametrize(
    ("function", "where", "what"),
    [
        (
            norm,
            "length = ",
            r"cannot be compiled: there is no compiled norm\(float32\); a rule may use arithmetic",
        ),
        (too_many, "sqrt", r"there is no compiled sqrt\(float32, float32\)"),
        (attribute, "m.foo", "float32 has no attribute 'foo'"),
        (text, "'a'".replace("'", '"'), "cannot be compiled: there is no compiled"),
        (none_or_number, "return x", "returns float32 or None for 'p', where the parameters are float32"),
        (
            two_lengths,
            "return p",
            r"must return 2 values: p, m; it returns float32 in line \d+, but a tuple of 2 in",
        ),
        (one_way_only, "if g", "must return 2 values: p, m; one way through it returns nothing"),
        (no_return, "p - lr * g", "must return 2 values: p, m; one way through it returns nothing"),
        (truth, "m > g", "returns bool for 'm', where the parameters are float32"),
        (several, "return new", "must return 2 values: p, m; it returns 3 values"),
        (plain_for_pair, "return new", "must return 2 values: p, m; it returns one float32"),
    ],
)
def test_what_cannot_be_compiled(function, where, what):
    refused(function, where, what)


def test_a_pair_for_a_plain_parameter():
    what = "must return one value, the new parameter, and no tuple; it returns 2 values"
    refused(pair_for_plain, "return new", what, state=())


def test_the_compilers_own_error_is_the_cause():
    assert isinstance(refused(norm, "length = ", "norm").__cause__, numba.TypingError)


def test_a_measure():
    def terms(p, g):
        return g * 2.5

    def scalars(step, size, total, lr):
        return (lr,)

    rule = Rule(lambda p, g, lr: p, scalars=scalars, measure=Measure(terms, ("sum",)))
    examine(rule, FLOAT32)
    with pytest.raises(
        TypeError, match=r"the measure of rule 'rule' \(.*g \* 2.5`\) computes float32 in double"
    ):
        examine(rule, FLOAT32, measuring=True)


# Where they come up.


def literal_rule(p, g, lr):
    return p - 0.5 * lr * g


class Literal(fastopt.Optimizer):
    rule = Rule(literal_rule)
    defaults = {"lr": 0.1}


MESSAGE = (
    r"^rule 'literal_rule' \(.*test_diagnosis.py, line \d+: `return p - 0.5 \* lr \* g`\) computes float32 in"
)


@pytest.mark.jit
@pytest.mark.parametrize("options", [{}, {"max_grad_value": 1.0}, {"ema_decay": 0.5, "zero_grads": True}])
def test_in_a_step(options):
    w = np.ones(3, np.float32)
    opt = Literal(w, **options)
    for _ in range(2):  # what was refused once is not taken the next time
        with pytest.raises(TypeError, match=MESSAGE):
            opt.step(np.ones(3, np.float32))
    assert (w == 1).all()
    assert opt.step_count == 0


@pytest.mark.jit
def test_in_a_kernel():
    kernel = Literal.kernel()
    with pytest.raises(TypeError, match=MESSAGE):
        kernel(np.ones(3, np.float32), np.ones(3, np.float32), 1)

    @numba.njit
    def train(w, g):
        for step in range(1, 3):
            kernel(w, g, step)

    with pytest.raises(TypeError, match=MESSAGE):
        train(np.ones(3, np.float32), np.ones(3, np.float32))


@pytest.mark.jit
def test_scalars_in_a_kernel():
    def scalars(step, lr):
        return (lr * np.linalg.norm(lr),)

    class Fancy(fastopt.Optimizer):
        rule = Rule(lambda p, g, lr: p - lr * g, scalars=scalars)
        defaults = {"lr": 0.1}

    what = r"^the scalars of rule 'rule' \(.*line \d+: `return .*`\) cannot be compiled: there is no compiled norm\("
    with pytest.raises(TypeError, match=what):
        Fancy.kernel()(np.ones(3), np.ones(3), 1)


@pytest.mark.parametrize(
    ("scalars", "text"),
    [
        (
            lambda step, betas: (*betas,),
            r"must come as a tuple of 3 values, all numbers; got 2: \(0.5, 0.25\)",
        ),
        (lambda step, betas: betas[0], r"must come as a tuple of 3 values, all numbers; got 0.5"),
        (
            lambda step, betas: (*betas, "x"),
            r"must come as a tuple of 3 values, all numbers; got 3: \(0.5, 0.25, 'x'\)",
        ),
    ],
)
def test_scalars_of_a_step(scalars, text):
    class Three(fastopt.Optimizer):
        rule = Rule(lambda p, g, a, b, c: p - a * g, scalars=scalars)
        defaults = {"betas": (0.5, 0.25)}

    w = np.ones(3)
    with pytest.raises(
        TypeError, match=r"the scalars of rule 'rule', '<lambda>' \(.*test_diagnosis.py, line \d+\), " + text
    ):
        Three(w).step(np.ones(3))
    assert (w == 1).all()


def test_hyperparameters_that_are_no_numbers():
    def rule(p, g, betas):
        return p

    class Pairs(fastopt.Optimizer):
        rule_of_one = Rule(rule)
        defaults = {"betas": (0.5, 0.25)}

    what = (
        r"the hyperparameters of rule 'rule', 'rule' \(.*, line \d+\), must come as a tuple of 1 value, all"
    )
    error = wrong_scalars(Pairs.rule_of_one, 1, (Pairs.defaults["betas"],))
    assert re.match(what + r" numbers; got 1: \(\(0.5, 0.25\),\)$", str(error))


@pytest.mark.jit
def test_what_is_returned_under_a_modifier():
    def rule(p, g, m, lr):
        new = p, m, g  # what is passed on is not seen before it is compiled
        return new

    class Several(fastopt.Optimizer):
        pass

    Several.rule, Several.defaults = Rule(rule, ("m",)), {"lr": 0.1}
    what = rf"^rule 'rule' \({re.escape(__file__)}, line \d+: `return new`\) must return 2 values: p, m; it returns 3"
    for options in ({}, {"ema_decay": 0.5}):
        w = np.ones(3)
        with pytest.raises(TypeError, match=what):
            Several(w, **options).step(np.ones(3))
        assert (w == 1).all()
