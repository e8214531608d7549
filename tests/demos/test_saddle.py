import numpy as np
import pytest

from fastopt.__main__ import main
from fastopt.demos.saddle.paths import CONTESTANTS, distances, follow, steps_to_leave, steps_to_settle
from fastopt.demos.saddle.surfaces import SADDLE, VALLEY


def leaving(label, offset):
    (method,) = [c.on_saddle for c in CONTESTANTS if c.on_saddle.label == label]
    steps = steps_to_leave(follow(method, SADDLE, (-1.0, offset), 160))
    assert steps is not None
    return steps


@pytest.mark.parametrize("surface", [SADDLE, VALLEY], ids=lambda surface: surface.title)
def test_surfaces(surface):
    h = 1e-6
    for x, y in np.random.default_rng(0).uniform(-1.5, 1.5, (20, 2)):
        by_x = (surface.value(x + h, y) - surface.value(x - h, y)) / (2 * h)
        by_y = (surface.value(x, y + h) - surface.value(x, y - h)) / (2 * h)
        assert surface.gradient(x, y) == pytest.approx((by_x, by_y), abs=1e-6)
    least = surface.value(*surface.minima[0])
    for minimum in surface.minima:
        assert surface.gradient(*minimum) == pytest.approx((0.0, 0.0), abs=1e-12)
        assert surface.value(*minimum) == pytest.approx(least, abs=1e-12)
    grid = np.meshgrid(np.linspace(*surface.x_limits, 200), np.linspace(*surface.y_limits, 200))
    assert surface.value(*grid).min() >= least


def test_the_origin_is_a_saddle():
    assert SADDLE.gradient(0.0, 0.0) == (0.0, 0.0)
    assert SADDLE.value(0.1, 0.0) > SADDLE.value(0.0, 0.0) > SADDLE.value(0.0, 0.1)


@pytest.mark.parametrize("label", ["Adagrad", "RMSprop", "Adam"])
def test_nearness_to_the_ridge_makes_no_difference_to_those_that_divide_by_the_gradient(label):
    assert leaving(label, 1e-2) == leaving(label, 1e-4) == leaving(label, 1e-6)


def test_sgd_waits_for_the_slope_to_grow():
    # Near the ridge, a step with lr 0.05 multiplies y by 1.1: a hundredth takes 48 steps more.
    for nearer, offset in ((1e-4, 1e-2), (1e-6, 1e-4)):
        assert leaving("SGD", nearer) - leaving("SGD", offset) == pytest.approx(
            np.log(100) / np.log(1.1), abs=1
        )


@pytest.mark.parametrize(
    ("label", "share"),
    [("Adagrad", 0.7), ("Adadelta", 0.4), ("RMSprop", 0.1), ("Adam", 0.2), ("Momentum", 0.4)],
)
def test_all_leave_the_saddle_of_the_picture_before_sgd(label, share):
    assert SADDLE.start[1] == 1e-4
    assert leaving(label, SADDLE.start[1]) <= share * leaving("SGD", SADDLE.start[1])


def test_rates_on_the_saddle_are_the_same():
    rates = {c.on_saddle.label: c.on_saddle.settings["lr"] for c in CONTESTANTS}
    assert rates.pop("Adadelta") == 1.0
    assert set(rates.values()) == {0.05}


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda contestant: contestant.in_valley.label)
def test_all_but_adadelta_reach_the_valley_s_minimum(contestant):
    path = follow(contestant.in_valley, VALLEY, VALLEY.start, 1000)
    steps = steps_to_settle(path, VALLEY)
    if contestant.in_valley.label == "Adadelta":
        assert steps is None
        assert distances(path, VALLEY)[-1] < 0.2  # it crawls around it
    else:
        assert steps is not None
        assert 100 <= steps <= 500


def test_counting_steps():
    path = np.array([[0.0, 0.0], [0.0, -1.5], [3.0, 0.5], [3.0, 0.0], [3.0, 0.45]])
    assert steps_to_leave(path) == 1
    assert steps_to_leave(path[:1]) is None
    assert steps_to_settle(path, VALLEY) == 4
    assert steps_to_settle(path[:4], VALLEY) is None
    assert steps_to_settle(path[4:], VALLEY) == 0


def test_the_demo(tmp_path, capsys):
    pytest.importorskip("tqdm")
    pytest.importorskip("matplotlib")
    images = pytest.importorskip("PIL.Image")
    assert main(["demo", "saddle", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(shown.count(f"\n{contestant.on_saddle.label} ") == 2 for contestant in CONTESTANTS)
    assert "> 1000" in shown
    with images.open(tmp_path / "fastopt-saddle.png") as picture:
        assert picture.size == (2250, 900)
    animation = tmp_path / "fastopt-saddle.gif"
    assert animation.stat().st_size < 1_500_000
    with images.open(animation) as moving:
        assert moving.n_frames > 70
        assert moving.info["loop"] == 0
        first = np.asarray(moving.convert("RGB"))
        moving.seek(moving.n_frames - 1)
        last = np.asarray(moving.convert("RGB"))
    assert tuple(first[0, 0]) == tuple(last[0, 0]) == (255, 255, 255)
    assert 0.01 < (first != last).any(axis=2).mean() < 0.2


def test_without_the_animation(tmp_path):
    pytest.importorskip("tqdm")
    pytest.importorskip("matplotlib")
    assert main(["demo", "saddle", "--no-gif", "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["fastopt-saddle.png"]
