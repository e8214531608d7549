"""The text of each error, by the expression that raises it."""

import math

import numpy as np
import pytest

from fastopt import schedules

NAMES = {**vars(schedules), "nan": math.nan, "inf": math.inf, "np": np}

CASES = [
    ("Constant(inf)", ValueError, "value must be a finite number; got inf"),
    ("Constant('1')", TypeError, "value must be a finite number; got '1'"),
    ("Constant(True)", TypeError, "value must be a finite number; got True"),
    ("Constant(np.ones(2))", TypeError, "value must be a finite number; got array([1., 1.])"),
    ("Linear(nan, 10)", ValueError, "initial must be a finite number; got nan"),
    ("Linear(1.0, 2.5)", ValueError, "steps must be a whole number >= 0; got 2.5"),
    ("Linear(1.0, -1)", ValueError, "steps must be a whole number >= 0; got -1"),
    ("Linear(1.0, None)", TypeError, "steps must be a whole number >= 0; got None"),
    ("Linear(1.0, 10, final='0')", TypeError, "final must be a finite number; got '0'"),
    ("Polynomial(None, 10)", TypeError, "initial must be a finite number; got None"),
    ("Polynomial(1.0, -1)", ValueError, "steps must be a whole number >= 0; got -1"),
    ("Polynomial(1.0, 10, final=inf)", ValueError, "final must be a finite number; got inf"),
    ("Polynomial(1.0, 10, power=0)", ValueError, "power must be a finite number > 0; got 0"),
    ("Exponential([], 0.9)", TypeError, "initial must be a finite number; got []"),
    ("Exponential(1.0, 0)", ValueError, "gamma must be a finite number > 0; got 0"),
    ("Exponential(1.0, 0.9, steps=0)", ValueError, "steps must be a whole number >= 1; got 0"),
    ("Exponential(1.0, 0.9, staircase=1)", TypeError, "staircase must be True or False; got 1"),
    ("Exponential(1.0, 0.9, final=nan)", ValueError, "final must be a finite number; got nan"),
    ("InverseSqrt('a', 10)", TypeError, "initial must be a finite number; got 'a'"),
    ("InverseSqrt(1.0, 0)", ValueError, "timescale must be a whole number >= 1; got 0"),
    ("Step(inf, 10)", ValueError, "initial must be a finite number; got inf"),
    ("Step(1.0, 0)", ValueError, "step_size must be a whole number >= 1; got 0"),
    ("Step(1.0, 10, gamma=-0.5)", ValueError, "gamma must be a finite number >= 0; got -0.5"),
    ("MultiStep(nan, [])", ValueError, "initial must be a finite number; got nan"),
    ("MultiStep(1.0, 10)", TypeError, "milestones must be a list of whole numbers; got 10"),
    ("MultiStep(1.0, '10')", TypeError, "milestones must be a list of whole numbers; got '10'"),
    ("MultiStep(1.0, [1, -1])", ValueError, "milestones[1] must be a whole number >= 0; got -1"),
    ("MultiStep(1.0, ['1'])", TypeError, "milestones[0] must be a whole number >= 0; got '1'"),
    ("MultiStep(1.0, [], gamma=inf)", ValueError, "gamma must be a finite number >= 0; got inf"),
    ("Piecewise(nan, {})", ValueError, "initial must be a finite number; got nan"),
    ("Piecewise(1.0, 10)", TypeError, "values must be a list of pairs of a step and a value; got 10"),
    ("Piecewise(1.0, [10])", TypeError, "values[0] must be a pair of a step and a value; got 10"),
    ("Piecewise(1.0, [(1, 2, 3)])", TypeError, "values[0] must be a pair of a step and a value; got (1, 2, 3)"),
    ("Piecewise(1.0, {-1: 0.5})", ValueError, "the steps of values must be a whole number >= 0; got -1"),
    ("Piecewise(1.0, {5: nan})", ValueError, "the value from step 5 must be a finite number; got nan"),
    ("Piecewise(1.0, [(5, 1.0), (5, 2.0)])", ValueError, "values must have one value for each step; got two for 5"),
    (
        "Piecewise(1.0, {}, shape='cubic')", ValueError,
        "shape must be one of 'constant', 'linear', 'cosine', '1-sqrt'; got 'cubic'",
    ),
    ("Cosine(nan, 10)", ValueError, "initial must be a finite number; got nan"),
    ("Cosine(1.0, -1)", ValueError, "steps must be a whole number >= 0; got -1"),
    ("Cosine(1.0, 10, final=nan)", ValueError, "final must be a finite number; got nan"),
    ("Cosine(1.0, 10, power=-1)", ValueError, "power must be a finite number > 0; got -1"),
    ("CosineRestarts(nan, 10)", ValueError, "initial must be a finite number; got nan"),
    ("CosineRestarts(1.0, 0)", ValueError, "steps must be a whole number >= 1; got 0"),
    ("CosineRestarts(1.0, 10, 1.5)", ValueError, "multiplier must be a whole number >= 1; got 1.5"),
    ("CosineRestarts(1.0, 10, final=inf)", ValueError, "final must be a finite number; got inf"),
    ("OneCycle(nan, 10)", ValueError, "peak must be a finite number; got nan"),
    ("OneCycle(1.0, 0)", ValueError, "steps must be a whole number >= 1; got 0"),
    ("OneCycle(1.0, 10, pct_start=1.5)", ValueError, "pct_start must be a number in [0, 1]; got 1.5"),
    (
        "OneCycle(1.0, 10, pct_start=0.6, three_phase=True)", ValueError,
        "pct_start must be a number in [0, 0.5]; got 0.6",
    ),
    ("OneCycle(1.0, 10, initial='a')", TypeError, "initial must be a finite number; got 'a'"),
    ("OneCycle(1.0, 10, final='a')", TypeError, "final must be a finite number; got 'a'"),
    ("OneCycle(1.0, 10, shape='cos')", ValueError, "shape must be one of 'cosine', 'linear', '1-sqrt'; got 'cos'"),
    ("OneCycle(1.0, 10, three_phase=None)", TypeError, "three_phase must be True or False; got None"),
    ("Cyclic(nan, 1.0)", ValueError, "initial must be a finite number; got nan"),
    ("Cyclic(0.1, nan)", ValueError, "peak must be a finite number; got nan"),
    ("Cyclic(0.1, 1.0, 0)", ValueError, "steps_up must be a whole number >= 1; got 0"),
    ("Cyclic(0.1, 1.0, 1, -1)", ValueError, "steps_down must be a whole number >= 0; got -1"),
    (
        "Cyclic(0.1, 1.0, mode='up')", ValueError,
        "mode must be one of 'triangular', 'triangular2', 'exp_range'; got 'up'",
    ),
    ("Cyclic(0.1, 1.0, gamma=0)", ValueError, "gamma must be a finite number > 0; got 0"),
    ("Warmup('a', 10)", TypeError, "schedule must be a number or a schedule; got 'a'"),
    ("Warmup(nan, 10)", ValueError, "schedule must be a finite number; got nan"),
    ("Warmup(1.0, -1)", ValueError, "steps must be a whole number >= 0; got -1"),
    ("Warmup(1.0, 10, -0.5)", ValueError, "start_factor must be a finite number >= 0; got -0.5"),
    ("Warmup(1.0, 10, shape='cosine')", ValueError, "shape must be one of 'linear', 'constant'; got 'cosine'"),
    ("Warmup(1.0, 10, delay=0)", TypeError, "delay must be True or False; got 0"),
    ("Sequence(1.0, [])", TypeError, "schedules must be a list of numbers and schedules; got 1.0"),
    (
        "Sequence(Constant(1), [])", TypeError,
        "schedules must be a list of numbers and schedules; got Constant(value=1.0)",
    ),
    ("Sequence([], [])", ValueError, "schedules must have at least one item; got none"),
    ("Sequence([1.0, None], [1])", TypeError, "schedules[1] must be a number or a schedule; got None"),
    ("Sequence([1.0], 1)", TypeError, "milestones must be a list of whole numbers; got 1"),
    ("Sequence([1.0, 2.0], [-1])", ValueError, "milestones[0] must be a whole number >= 0; got -1"),
    ("Sequence([1.0, 2.0, 3.0], [2, 1])", ValueError, "milestones must be in ascending order; got [2, 1]"),
    ("Sequence([1.0, 2.0], [])", ValueError, "milestones must be one fewer than the schedules: 1; got 0"),
    ("Chain(Constant(1.0))", TypeError, "schedules must be a list of numbers and schedules; got Constant(value=1.0)"),
    ("Chain([])", ValueError, "schedules must have at least one item; got none"),
    ("Chain([True])", TypeError, "schedules[0] must be a number or a schedule; got True"),
    ("Tuple([0.9, inf])", ValueError, "schedules[1] must be a finite number; got inf"),
    ("WarmupStableDecay(nan, 1, 1, 1)", ValueError, "peak must be a finite number; got nan"),
    ("WarmupStableDecay(1.0, -1, 1, 1)", ValueError, "warmup must be a whole number >= 0; got -1"),
    ("WarmupStableDecay(1.0, 1, -1, 1)", ValueError, "stable must be a whole number >= 0; got -1"),
    ("WarmupStableDecay(1.0, 1, 1, -1)", ValueError, "decay must be a whole number >= 0; got -1"),
    ("WarmupStableDecay(1.0, 1, 1, 1, initial=nan)", ValueError, "initial must be a finite number; got nan"),
    ("WarmupStableDecay(1.0, 1, 1, 1, final=nan)", ValueError, "final must be a finite number; got nan"),
    (
        "WarmupStableDecay(1.0, 1, 1, 1, shape='sqrt')", ValueError,
        "shape must be one of 'linear', 'cosine', '1-sqrt'; got 'sqrt'",
    ),
    ("ReduceOnPlateau(-1.0)", ValueError, "initial must be a finite number >= 0; got -1.0"),
    ("ReduceOnPlateau(1.0, factor=1.0)", ValueError, "factor must be a number in [0, 1); got 1.0"),
    ("ReduceOnPlateau(1.0, patience=-1)", ValueError, "patience must be a whole number >= 0; got -1"),
    ("ReduceOnPlateau(1.0, threshold=-1)", ValueError, "threshold must be a finite number >= 0; got -1"),
    (
        "ReduceOnPlateau(1.0, threshold_mode='relative')", ValueError,
        "threshold_mode must be one of 'rel', 'abs'; got 'relative'",
    ),
    ("ReduceOnPlateau(1.0, cooldown=0.5)", ValueError, "cooldown must be a whole number >= 0; got 0.5"),
    ("ReduceOnPlateau(1.0, min_value=nan)", ValueError, "min_value must be a finite number >= 0; got nan"),
    ("ReduceOnPlateau(1.0, mode='least')", ValueError, "mode must be one of 'min', 'max'; got 'least'"),
    ("ReduceOnPlateau(1.0, mode=['min'])", ValueError, "mode must be one of 'min', 'max'; got ['min']"),
    ("ReduceOnPlateau(1.0, eps=-1e-8)", ValueError, "eps must be a finite number >= 0; got -1e-08"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "error", "message"), CASES, ids=[case[0] for case in CASES])
def test_errors(expression, error, message):
    with pytest.raises(error) as caught:
        eval(expression, dict(NAMES))
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", [name for name in schedules.__all__ if name != "Schedule"])
def test_each_argument_of_each_class_has_a_case(kind):
    fields = {name for name in getattr(schedules, kind).__dataclass_fields__ if not name.startswith("_")}
    named = {
        name
        for expression, _, message in CASES
        if expression.startswith(f"{kind}(")
        for name in fields
        if message.startswith(name) or (name == "values" and "values" in message)
    }
    assert named == fields
