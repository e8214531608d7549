import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from fastopt.demos.figures import EndLabel, label_ends, spread, style  # noqa: E402


@pytest.mark.parametrize("seed", range(20))
def test_spread(seed):
    rng = np.random.default_rng(seed)
    heights = np.sort(rng.choice([0.0, 0.2, 0.5, 0.55, 0.56, 1.0], 6) + rng.normal(0, 0.01, 6)).tolist()
    moved = spread(heights, 0.05)
    assert np.diff(moved).min() >= 0.05 - 1e-9
    assert sum(moved) == pytest.approx(sum(heights))
    assert spread(moved, 0.05) == pytest.approx(moved)


def test_spread_leaves_alone_what_is_apart():
    assert spread([0.0, 0.3, 0.9], 0.1) == [0.0, 0.3, 0.9]


def test_the_style_is_put_back_afterwards():
    before = dict(matplotlib.rcParams)
    with style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before


def test_names_stand_apart_and_at_their_lines():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.set_yscale("log")
    axes.set_ylim(0.1, 10.0)
    label_ends(axes, 1.0, [EndLabel("high", 1.0, "red"), EndLabel("low", 0.99, "blue")], gap=0.1)
    low, high = axes.texts
    assert (low.get_text(), high.get_text()) == ("low", "high")
    (_, y_low), (_, y_high) = low.get_position(), high.get_position()
    assert y_high - y_low == pytest.approx(0.1)
    assert (y_high + y_low) / 2 == pytest.approx(0.5, abs=0.01)
    at_low, at_high = (line.get_ydata()[0] for line in axes.lines)
    assert (at_low, at_high) == (pytest.approx(0.5 + np.log10(0.99) / 2), pytest.approx(0.5))
