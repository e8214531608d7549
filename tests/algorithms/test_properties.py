"""Agreement with the references for hyperparameters, shapes and gradients that nobody chose."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.algorithms.cases import FAMILIES, Closeness, each_case, run_values, step, values


def upto(high):
    return st.just(0.0) | st.floats(1e-6, high)


RANGES = {
    "lr": upto(0.9),  # at 1, methods of a trust ratio take a sole element to 0, where the ratio jumps
    "weight_decay": upto(0.5),
    "momentum": upto(0.99),
    "dampening": upto(1.0),
    "betas": st.tuples(upto(0.999), upto(0.999)),
    "alpha": st.floats(0.5, 0.999),  # the variance of the centered form is a difference: it needs some past
    "rho": upto(1.0),
    "eps": st.floats(1e-3, 1.0),
    "lr_decay": upto(1.0),
    "initial_accumulator_value": upto(10.0),
}
for family in FAMILIES:
    RANGES |= family.RANGES
SHAPES = st.lists(st.integers(0, 7), max_size=3).map(tuple)


def drawn(name, value):
    """Return what values come from like that of a case."""
    if name == "betas":
        return st.tuples(*[upto(0.999)] * len(value))
    several = isinstance(value, tuple) and name == "eps"
    return st.tuples(*[RANGES[name]] * len(value)) if several else RANGES[name]


@st.composite
def gradients(draw, shape, dtype):
    """Numbers of all sizes whose squares are normal numbers, and zeros."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    largest = 8 if dtype == "float32" else 100
    powers = rng.uniform(*sorted(draw(st.tuples(*[st.integers(-largest, largest)] * 2))), shape)
    some = rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return np.asarray(np.where(some, 0.0, rng.standard_normal(shape) * 10.0**powers), dtype)


@each_case
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]), shape=SHAPES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_agrees_with_the_reference(case, data, dtype, shape):
    changes = {
        name: data.draw(drawn(name, value), label=name)
        for name, value in case.hyper.items()
        if name in RANGES
    }
    if case.hyper.get("nesterov"):
        changes["momentum"] = max(changes["momentum"], 0.1)
    w = np.asarray(np.random.default_rng(0).standard_normal(shape), dtype)
    if "p0" in getattr(case.rule, "state", ()):
        w *= 0  # what is summed is p - p0: of long ways from far away, only the rounding would be left
    opt = case.optimizer(w, **changes)
    run = case.run(w, **changes)
    close = Closeness(200, [w], whole=case.over == "matrix")
    for i in range(4):
        if case.gradients:
            grad = case.gradients(np.random.default_rng(data.draw(st.integers(0, 2**32))), shape, dtype)
        else:
            grad = data.draw(gradients(shape, dtype), label="gradient")
        if i == 0:  # see cases.follow
            grad = np.asarray(np.copysign(grad, w))
        step(opt, grad)
        run.step(grad)
        close.check(values(opt), [run_values(run)])
