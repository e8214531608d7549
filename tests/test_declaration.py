"""What a class of optimizers must state."""

import numpy as np
import pytest

from fastopt import Optimizer, Rule


def descend(p, g, m, lr):
    return p - lr * (m + g), m


def declare(rule, defaults, name="Mine"):
    return type(name, (Optimizer,), {"rule": rule, "defaults": defaults})


def named(state=(), hyper=("lr",), carry=(), decay=None):
    """Return a rule whose names are given."""
    scope = {}
    listed = "".join(f"{name}, " for name in state)
    exec(
        f"def rule(p, g, {listed}x): return (p, {listed})" if state else "def rule(p, g, x): return p", scope
    )
    values = "".join(f"{name}, " for name in carry)
    result = f"({values}), ({hyper[0]},)" if carry else f"({hyper[0]},)"
    exec(f"def scalars(step, {values}{', '.join(hyper)}): return {result}", scope)
    return Rule(scope["rule"], state, scope["scalars"], carry, decay=decay)


@pytest.mark.parametrize(
    ("rule", "defaults", "kind", "text"),
    [
        (
            Rule(descend, ("m",)),
            {},
            TypeError,
            r"Mine: its rule takes 'lr', which has no default; write defaults = \{'lr': \.\.\.\}",
        ),
        (
            descend,
            {"lr": 1.0},
            TypeError,
            r"Mine.rule must be a fastopt.Rule, got <function .*; write rule = fastopt.Rule\(function, \.\.\.\)",
        ),
        (3, {"lr": 1.0}, TypeError, "Mine.rule must be a fastopt.Rule, got 3$"),
        (
            Rule(descend, ("m",)),
            {"lr"},
            TypeError,
            "Mine.defaults must be a dict of names and numbers, got {'lr'}",
        ),
        (
            Rule(descend, ("m",)),
            {"lr": "x"},
            TypeError,
            r"Mine.defaults\['lr'\] must be a number, a tuple of numbers, a bool, or None; got 'x'",
        ),
        (
            Rule(descend, ("m",)),
            {"lr": [0.1]},
            TypeError,
            r"a tuple of numbers, a bool, or None; got \[0.1\]",
        ),
        (Rule(descend, ("m",)), {"lr": ()}, TypeError, r"got \(\)"),
        (Rule(descend, ("m",)), {"lr": lambda step: 0.1}, TypeError, "got <function"),
        (
            named(hyper=("threads",)),
            {"threads": 1.0},
            ValueError,
            "Mine.defaults: 'threads' is an option of every optimizer; rename yours",
        ),
        (named(hyper=("params",)), {"params": 1.0}, ValueError, "'params' is an option of every optimizer"),
        (named(hyper=("ema_decay",)), {"ema_decay": 1.0}, ValueError, "'ema_decay' is an option"),
        (
            named(state=("ema",)),
            {"lr": 1.0},
            ValueError,
            "Mine: every optimizer can have a state 'ema'; rename that of its rule",
        ),
        (named(state=("n_averaged",)), {"lr": 1.0}, ValueError, "can have a state 'n_averaged'"),
        (named(state=("low_bits",)), {"lr": 1.0}, ValueError, "can have a state 'low_bits'"),
        (
            named(state=("total",)),
            {"lr": 1.0},
            ValueError,
            "Mine: its rule cannot have a name 'total', which modifiers use; rename it",
        ),
        (named(state=("s0",)), {"lr": 1.0}, ValueError, "cannot have a name 's0'"),
        (named(carry=("kept",)), {"lr": 1.0}, ValueError, "cannot have a name 'kept'"),
        (named(hyper=("size",), decay="none"), {"size": 1.0}, ValueError, "cannot have a name 'size'"),
    ],
)
def test_mistakes(rule, defaults, kind, text):
    with pytest.raises(kind, match=text):
        declare(rule, defaults)


def test_scalars_without_the_step():
    def rule(p, g, lr, rest):
        return p - lr * g

    def scalars(lr, momentum):
        return lr, momentum

    text = r"Mine: the scalars of its rule, 'scalars' \(.*test_declaration.py, line \d+\), must take the step first; they begin with 'lr'"
    with pytest.raises(TypeError, match=text):
        declare(Rule(rule, scalars=scalars), {"lr": 1.0, "momentum": 0.5})


@pytest.mark.parametrize("default", [1, 0.5, np.float32(0.5), (0.5, 1), True, None])
def test_defaults(default):
    cls = declare(Rule(lambda p, g: p), {"other": default})
    assert cls(np.ones(2)).param_groups[0]["other"] == default


def test_the_signature_can_be_the_defaults():
    class Mine(Optimizer):
        def __init__(self, params, lr=0.5, **options):
            super().__init__(params, lr=lr, **options)

        rule = Rule(descend, ("m",))

    assert Mine.defaults == {"lr": 0.5}


FREE_STATE = (
    "limits",
    "totals",
    "s",
    "sx",
    "m1",
    "share",
    "due",
    "count",
    "moved",
    "shrunk",
    "agreeing_",
    "result",
)
FREE_NUMBERS = ("own_", "decay", "one", "zero", "total", "scale", "limit", "s0", "share_", "moved_")


@pytest.mark.slow
@pytest.mark.parametrize(
    "modifiers",
    [
        {"max_grad_value": 0.5, "ema_decay": 0.5, "swa_start": 0, "lookahead_steps": 2},
        {"cautious": True, "cautious_weight_decay": True, "ema_decay": 0.5},
    ],
)
def test_names_that_are_free_mean_what_they_should(modifiers):
    """Compare a rule with odd names with one of plain names, both modified in all ways."""

    def run(state, numbers):
        scope = {}
        first, last = state[0], state[-1]
        lines = [f"{first} = {first} + g"]
        lines += [f"{b} = {n} * {b} + {a}" for a, b, n in zip(state, state[1:], numbers * 2, strict=False)]
        lines.append(f"return p - (shrink * p + lr * {last}), {', '.join(state)}")
        listed = ", ".join(numbers)
        head = f"def rule(p, g, {', '.join(state)}, lr, {listed}, shrink):"
        exec("\n ".join([head, *lines]), scope)
        exec(f"def scalars(step, lr, {listed}, weight_decay): return lr, {listed}, lr * weight_decay", scope)
        rule = Rule(scope["rule"], state, scope["scalars"], decay="decoupled")
        defaults = {"lr": 0.01, **{name: 0.1 * i for i, name in enumerate(numbers)}, "weight_decay": 0.1}
        w = np.linspace(-1, 1, 7)
        opt = declare(rule, defaults)(w, **modifiers)
        for i in range(4):
            opt.step(np.cos(np.arange(7) + i))
        return w

    want = run(
        tuple(f"a{i}" for i in range(len(FREE_STATE))), tuple(f"b{i}" for i in range(len(FREE_NUMBERS)))
    )
    assert np.array_equal(run(FREE_STATE, FREE_NUMBERS), want)
