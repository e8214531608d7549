import numpy as np
import pytest

from fastopt.schedules import Chain, Linear, Schedule, Step

LINE = Linear(1.0, steps=4)


@pytest.mark.parametrize("two", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), np.array(2.0)], ids=type)
def test_a_number_times_a_schedule_is_a_chain(two):
    assert two * LINE == Chain([2.0, LINE])
    assert LINE * two == Chain([LINE, 2.0])
    assert (two * LINE)(1) == 1.5


def test_schedules_and_functions_multiply():
    step = Step(1.0, 2, gamma=0.5)
    assert LINE * step == Chain([LINE, step])
    assert (LINE * step)(3) == 0.25 * 0.5
    assert ((lambda t: t + 1.0) * LINE)(1) == 2.0 * 0.75


@pytest.mark.parametrize("other", ["2", None, [1, 2], True])
def test_nothing_else_multiplies(other):
    with pytest.raises(TypeError, match="unsupported operand|can't multiply"):
        LINE * other
    with pytest.raises(TypeError, match="unsupported operand|can't multiply"):
        other * LINE


def test_an_infinite_factor_is_an_error():
    with pytest.raises(ValueError, match=r"schedules\[1\] must be a finite number; got inf"):
        LINE * float("inf")


def test_one_s_own():
    class Halving(Schedule):
        def __call__(self, step):
            return 0.5**step

    assert (4 * Halving())(3) == 0.5
    with pytest.raises(TypeError, match="abstract"):
        Schedule()


def test_the_chain_of_a_peak_and_factors():
    chain = Chain([0.1, Linear(0.0, 2, final=1.0), Step(1.0, 3, gamma=0.5)])
    assert [chain(step) for step in range(7)] == pytest.approx([0.0, 0.05, 0.1, 0.05, 0.05, 0.05, 0.025])
