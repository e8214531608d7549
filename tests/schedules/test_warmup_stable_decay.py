import pytest

from fastopt.schedules import WarmupStableDecay


def values(schedule, steps):
    return [schedule(step) for step in range(steps)]


def test_three_phases():
    wsd = WarmupStableDecay(1.0, warmup=2, stable=2, decay=4, initial=0.2, final=0.1)
    expected = [0.2, 0.6, 1.0, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1]
    assert values(wsd, 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("linear", [0.75, 0.5, 0.25]), ("cosine", [0.853553390593, 0.5, 0.146446609407]), ("1-sqrt", [0.5, 0.292893218813, 0.133974596216])],
)  # fmt: skip
def test_the_ways_down(shape, expected):
    assert values(WarmupStableDecay(1.0, 0, 0, 4, shape=shape), 5)[1:4] == pytest.approx(expected, abs=1e-12)


def test_phases_without_steps():
    assert values(WarmupStableDecay(1.0, 0, 2, 0), 4) == [1.0, 1.0, 0.0, 0.0]
    assert values(WarmupStableDecay(1.0, 2, 0, 0, final=0.5), 4) == [0.0, 0.5, 0.5, 0.5]
    assert values(WarmupStableDecay(1.0, 0, 0, 0, final=0.5), 2) == [0.5, 0.5]
