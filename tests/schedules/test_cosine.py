import math

import pytest

from fastopt.schedules import Cosine, CosineRestarts


def test_cosine():
    cosine = Cosine(1.0, 4, final=0.2)
    expected = [0.2 + 0.4 * (1 + math.cos(math.pi * t / 4)) for t in range(5)]
    assert [cosine(t) for t in range(5)] == pytest.approx(expected, rel=1e-15)
    assert (cosine(0), cosine(4), cosine(5), cosine(10**9)) == (1.0, 0.2, 0.2, 0.2)
    assert Cosine(1.0, 4, power=3.0)(2) == pytest.approx(0.125)
    assert Cosine(1.0, 0, final=0.2)(0) == 0.2


def test_restarts_at_whole_numbers():
    assert [CosineRestarts(1.0, 4)(t) for t in range(9)] == pytest.approx(
        [Cosine(1.0, 4)(t % 4) for t in range(9)], rel=1e-15
    )
    # Three to the fifth: log(243, 3) is below 5 in doubles.
    trebled = CosineRestarts(1.0, 2, multiplier=3)
    restarts = [3**n - 1 for n in range(30)]
    assert [trebled(t) for t in restarts] == [1.0] * 30
    assert all(trebled(t - 1) < 0.1 for t in restarts[2:])


def test_many_cycles_of_one_length_take_no_time():
    assert CosineRestarts(1.0, 3)(10**18) == CosineRestarts(1.0, 3)(10**18 % 3)
