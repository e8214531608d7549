import numpy as np
import pytest

from fastopt import Adam
from fastopt.demos.digits import numpy_steps
from fastopt.demos.digits.contestants import METHODS
from fastopt.demos.digits.timing import Pair, Times, check, time_steps
from fastopt.demos.methods import Method

STEPS = 20


@pytest.fixture
def params():
    return np.random.default_rng(0).standard_normal(257).astype(np.float32)


@pytest.fixture
def gradients():
    rng = np.random.default_rng(1)
    return [(0.1 * rng.standard_normal(257)).astype(np.float32) for _ in range(STEPS)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_numpy_and_fastopt_agree(method, params, gradients):
    pair = Pair(method, params)
    # In units in the last place of the greatest parameter. NumPy's 1 - lr * weight_decay is rounded to
    # float32, which adds half a unit at each step.
    assert pair.difference(gradients) <= (0.6 * STEPS if "weight_decay" in method.settings else 3.0)
    assert not np.array_equal(pair.numpy_params, params)
    assert pair.numpy_params.dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [{"betas": (0.9, 0.99)}, {"betas": (0.8, 0.999)}, {"eps": 1e-6}, {"weight_decay": 0.01}, {"lr": 0.00201}],
)
def test_a_difference_is_noticed(wrong, params, gradients):
    pair = Pair(Method("Adam", Adam, {"lr": 0.002}), params)
    pair.numpy_step = numpy_steps.adam(pair.numpy_params, **{"lr": 0.002, **wrong})
    with pytest.raises(RuntimeError, match=r"Adam: fastopt and NumPy differ by .* after 20 steps"):
        check(pair, gradients)


def test_nan_is_noticed(params, gradients):
    pair = Pair(Method("Adam", Adam, {"lr": 0.002}), params)
    pair.numpy_params[0] = np.nan
    with pytest.raises(RuntimeError):
        check(pair, gradients)


def test_turns_are_taken_one_after_the_other(params, gradients):
    pair = Pair(Method("Adam", Adam, {"lr": 0.002}), params)
    calls = []
    pair.fastopt_step = lambda: calls.append("fastopt")
    pair.numpy_step = lambda g: calls.append("numpy")
    times = time_steps(pair, gradients, rounds=3, steps=2)
    assert calls == ["fastopt", "fastopt", "numpy", "numpy"] * 3
    assert times.fastopt > 0.0
    assert times.numpy > 0.0


def test_ratio():
    assert Times(fastopt=2.0, numpy=9.0).ratio == 4.5
