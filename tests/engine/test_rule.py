import math

import numba
import numpy as np
import pytest

import fastopt
from fastopt import Rule
from tests.algorithms.cases import CASES


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

    with pytest.raises(TypeError, match=r"rule 'rule' \(.*, line \d+\) must take .* the state \('m',\)"):
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


def test_a_compiled_function_is_taken_for_the_plain_one():
    @numba.njit(fastmath=True)
    def rule(p, g, lr):
        return p - lr * g

    made = Rule(rule)
    assert made.function is getattr(rule, "py_func", rule)
    assert made.fingerprint == Rule(made.function).fingerprint


def test_a_static_method_is_taken_for_its_function():
    class Holder:
        @staticmethod
        def update(p, g, lr):
            return p - lr * g

        rule = Rule(update)

    assert Holder.rule.function is Holder.update


def test_lists_of_names_are_taken():
    made = Rule(lambda p, g, m, lr: (p, m), state=["m"], writes=["m"])
    assert (made.state, made.writes) == (("m",), ("m",))
    assert hash(made)


def test_rules_are_kept_on_disk_only_if_all_their_source_is_in_files():
    def here(p, g, lr):
        return p - lr * g

    scope = {"here": here}
    exec("def rule(p, g, lr): return here(p, g, lr)", scope)
    exec("def scalars(step, lr): return (lr,)", scope)
    assert Rule(here).in_files
    assert not Rule(scope["rule"]).in_files
    assert not Rule(here, scalars=scope["scalars"]).in_files
    assert all(case.rule.in_files for case in CASES if case.scalar)
    (modified,) = {
        leaf.rule for group in fastopt.Adam(np.ones(2), ema_decay=0.5)._groups for leaf in group.leaves
    }
    assert modified.function is not fastopt.Adam.plain.function
    assert modified.in_files
