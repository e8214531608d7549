import math

import numpy as np
import pytest

import fastopt
from fastopt import Rule


def test_hyperparameters_are_the_last_arguments():
    def rule(p, g, m, lr, beta): ...

    assert Rule(rule, state=("m",)).hyperparameters == ("lr", "beta")
    assert Rule(rule, state=("m",)).n_scalars == 2


def test_hyperparameters_are_those_of_the_scalars():
    def rule(p, g, size): ...

    def scalars(step, lr, decay): ...

    made = Rule(rule, scalars=scalars)
    assert (made.hyperparameters, made.n_scalars) == (("lr", "decay"), 1)


def test_too_few_arguments():
    def rule(p, g): ...

    with pytest.raises(TypeError, match=r"rule 'rule' must take .* the state \('m',\)"):
        Rule(rule, state=("m",))


def factor(x):
    return x + x


def make(body, **names):
    scope = {"math": math, **names}
    exec(f"def rule(p, g, lr):\n    return {body}", scope)
    return Rule(scope["rule"])


def test_fingerprint_is_that_of_the_code():
    assert make("p - lr * g").fingerprint == make("p - lr * g").fingerprint
    bodies = ["p - lr * g", "p + lr * g", "p - g * lr", "p - lr * math.sqrt(g)", "p - lr * math.exp(g)"]
    assert len({make(body).fingerprint for body in bodies}) == len(bodies)


def test_fingerprint_sees_constants_and_helpers():
    assert make("p - a", a=1.0).fingerprint != make("p - a", a=2.0).fingerprint
    one, other = {}, {}
    exec("def helper(x): return x + x", one)
    exec("def helper(x): return x * x", other)
    assert make("helper(p)", **one).fingerprint != make("helper(p)", **other).fingerprint


def test_fingerprint_sees_defaults_and_closures():
    def outer(c):
        def rule(p, g, lr):
            return p - c * g

        return Rule(rule)

    assert outer(1).fingerprint == outer(1).fingerprint
    assert outer(1).fingerprint != outer(2).fingerprint


def test_a_rule_that_calls_itself_has_a_fingerprint():
    def rule(p, g, lr):
        return rule(p, g, lr)

    assert Rule(rule).fingerprint == Rule(rule).fingerprint


def test_lambda():
    class Plain(fastopt.Optimizer):
        rule = Rule(lambda p, g, lr: p - lr * g)
        defaults = {"lr": 1.0}

    w = np.ones(3)
    Plain(w).step(np.full(3, 2.0))
    assert w.tolist() == [-1.0, -1.0, -1.0]
    Plain.kernel()(w, np.ones(3), 1)
    assert w.tolist() == [-2.0, -2.0, -2.0]


@pytest.mark.jit
def test_a_rule_must_return_its_state():
    import numba

    class Short(fastopt.Optimizer):
        rule = Rule(lambda p, g, m, lr: (p, m, m), state=("m",))
        defaults = {"lr": 1.0}

    with pytest.raises(numba.TypingError, match="must return 2 values"):
        Short(np.ones(3)).step(np.ones(3))


def test_fingerprint_sees_functions_of_modules():
    import types

    def made(body):
        helpers = types.ModuleType("helpers")
        exec(f"def h(x): return {body}", helpers.__dict__)
        return make("helpers.h(p)", helpers=helpers).fingerprint

    assert made("x") == made("x")
    assert made("x") != made("-x")


def test_fingerprint_holds_no_address():
    assert (
        make("p - unknown.size * g", unknown=object()).fingerprint
        == make("p - unknown.size * g", unknown=object()).fingerprint
    )
