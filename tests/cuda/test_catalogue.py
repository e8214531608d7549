"""Every algorithm on a device: its steps are those of the CPU, parameters and state, after each."""

from functools import partial

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt.engine import MatrixRule, cuda, device
from tests.algorithms.cases import BY_ID, CASES, draw
from tests.cuda.foreign import assert_equal, foreign
from tests.cuda.pairs import SHAPES, Pair

#: By name: of cases, with the JIT off, only the first one of each class would be left.
each_name = pytest.mark.parametrize("name", [case.id for case in CASES if case.scalar])
#: One of each class, and of them those that add up.
FIRST = {case.cls: case for case in reversed(CASES) if case.scalar}.values()
each_first = pytest.mark.parametrize("name", [case.id for case in FIRST])
each_measuring = pytest.mark.parametrize("name", [case.id for case in FIRST if not case.elementwise])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def pair(name, dtype="float32", **options):
    case = BY_ID[name]
    make = partial(fastopt.Sophia, **case.hyper) if name == "sophia" else case.optimizer
    shapes, hyper = dict(SHAPES), {**case.cls.defaults, **case.hyper}
    if case.over == "row" or isinstance(case.cls.rule_for(hyper, (5, 7)), MatrixRule):
        shapes = {"w": (5, 7) if case.over == "row" else (37,), "b": (3,)}
    gradients = case.gradients or draw
    return Pair(make, shapes, dtype, exact=case.elementwise, gradients=gradients, **options)


@each_name
def test_steps_are_those_of_the_cpu(name):
    both = pair(name, packed=False)
    for missing in ((), ("w",), ()):
        both.step({key: None if key in missing else grad for key, grad in both.draw().items()})
        both.check()


@each_first
def test_doubles(name):
    both = pair(name, "float64")
    both.run(2).check()


@each_first
def test_the_host_need_not_ask(name):
    """Which of several steps are left out."""
    both = pair(name, skip_nonfinite=True)
    for bad in (False, True, False):
        grads = both.draw()
        if bad:
            grads["w"].flat[3] = np.nan
        both.step(grads)
    both.check()
    assert both.there.skipped_nonfinite == 1
    assert both.there.step_count == 2


@each_measuring
def test_goes_on_from_a_checkpoint(name):
    both = pair(name)
    both.run(1)
    other = pair(name)
    other.there.load_state_dict(both.there.state_dict(params=True))
    grads = both.step()
    other.step(grads)
    assert_same(both.there.state_dict(params=True), other.there.state_dict(params=True))


def assert_same(one, two):
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, list):
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(one, two)


# Protocols of their own.


@each_dtype
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.skipif(not cuda.SIMULATED, reason="a GPU rounds otherwise")
def test_nag_looks_ahead(dtype, packed):
    both = pair("nag", dtype, packed=packed)
    for _ in range(2):
        with both.here.lookahead(), both.there.lookahead():
            for one, other in zip(*(both.packs(opt) for opt in both.both), strict=True):
                assert_equal(getattr(one, "params", one), getattr(other, "params", other))
        both.step()
    both.check()


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
@each_dtype
def test_schedule_free_turns_to_the_average(name, dtype):
    both = pair(name, dtype)
    for _ in range(2):
        both.run(2)
        for opt in both.both:
            opt.eval()
        both.check()
        for opt in both.both:
            opt.train()
        both.check()


def test_schedule_free_turns_where_steps_were_left_out():
    both = pair("schedule_free_adamw", skip_nonfinite=True)
    for step in range(3):
        grads = both.draw()
        if step != 1:
            grads["b"][0] = np.nan
        both.step(grads)
    for opt in both.both:
        opt.eval()
    both.check()


@each_dtype
def test_the_hessian_of_sophia(dtype):
    both = pair("sophia", dtype)
    for step in range(3):
        hessian = both.draw()
        if step == 1:
            hessian["b"] = None
        both.here.update_hessian(hessian)
        both.there.update_hessian(foreign(hessian))
        both.check()
        both.step()
    both.check()


def test_hessians_that_do_not_fit():
    both = pair("sophia")
    with pytest.raises(TypeError, match=r"^hessians\['w'\] is in the memory of the CPU, its parameter"):
        both.there.update_hessian(both.draw())
    with pytest.raises(TypeError, match=r"^hessians\['w'\] is on a CUDA device, its parameter"):
        both.here.update_hessian(foreign(both.draw()))


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_hessians_of_half_precision(half):
    both = pair("sophia")
    hessians = {key: grad.astype(half) for key, grad in both.draw().items()}
    both.here.update_hessian(hessians)
    both.there.update_hessian({key: device.asarray(each) for key, each in hessians.items()})
    both.run(1).check()
