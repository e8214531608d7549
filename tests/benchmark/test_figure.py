import numpy as np
import pytest

from fastopt import machine
from fastopt.benchmark.measurement import Measured
from tests.benchmark.results import ABOUT, measured, result

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from fastopt.benchmark import figure


@pytest.fixture
def drawn(monkeypatch):
    """Return what is drawn, and write no files, which takes a second each."""
    found = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: found.append(figure))
    monkeypatch.setattr(
        machine, "caches", lambda: [machine.Cache(1, "data", 1 << 15), machine.Cache(2, "unified", 1 << 30)]
    )
    return found


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_a_row_of_two_panels(drawn, tmp_path):
    figure.draw(measured(), ABOUT, tmp_path / "bench.png")
    left, right, *_ = drawn[0].axes
    assert left.get_title(loc="left") == "Speed under the memory's roof (float32, up to 4 threads)"
    assert right.get_title(loc="left") == "Time of a step (float32, up to 4 threads)"
    assert {"SGD", "AdamW"} <= set(words(left))
    assert "Muon" not in words(left)  # it has no limit
    assert {"SGD", "AdamW", "Muon"} <= set(words(right))
    assert [word for word in words(left) if word.startswith(" L")] == [" L1"]  # the other is beyond
    assert (left.get_xlabel(), left.get_ylabel()) == ("memory that a step goes over", "GB/s")
    assert right.get_xlabel() == "parameters"
    colours = [line.get_color() for line in right.lines[:3]]
    assert len(set(colours)) == 3
    assert "A processor, 4 cores; python 3.13.0, fastopt 0.1.0; 2026-01-02" in words(drawn[0])


def test_a_row_for_each_dtype_and_number_of_threads(drawn, tmp_path):
    results = [*measured(threads=1).results, *measured(dtype="float64").results]
    figure.draw(Measured(results=results), ABOUT, tmp_path / "bench.png")
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes]
    assert titles[::2] == [
        "Speed under the memory's roof (float32, 1 thread)",
        "Speed under the memory's roof (float64, up to 4 threads)",
        "Roofline: the largest steps (float32, 1 thread)",
    ]


def test_many_algorithms_are_in_a_legend(drawn, tmp_path):
    names = [f"Method{i}" for i in range(40)]
    figure.draw(measured(names, (100, 10**4)), ABOUT, tmp_path / "bench.png")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == names
    lines = drawn[0].axes[1].lines
    looks = {(line.get_color(), line.get_marker(), line._unscaled_dash_pattern[1] or None) for line in lines}
    assert len(looks) == len(names)
    assert not set(names) & set(words(drawn[0].axes[0]))


def test_a_line_that_ends_early_is_named_where_it_ends(drawn, tmp_path):
    results = [*measured(("SGD",), (100, 10**4, 10**6)).results, result("Lion", 100)]
    figure.draw(Measured(results=results), ABOUT, tmp_path / "bench.png")
    (name,) = [text for text in drawn[0].axes[1].texts if text.get_text() == "Lion"]
    assert name.xy == (100, result("Lion", 100).seconds)


def test_matrix_rules_alone(drawn, tmp_path):
    figure.draw(measured(("Muon", "SOAP")), ABOUT, tmp_path / "bench.png")
    assert "matrix products" in words(drawn[0].axes[0])[0]
    assert not drawn[0].axes[2].axison  # no roofline


def test_the_roofline(drawn, tmp_path):
    found = measured()
    figure.draw(found, ABOUT, tmp_path / "bench.png")
    axes = drawn[0].axes[2]
    assert axes.get_title(loc="left") == "Roofline: the largest steps (float32, up to 4 threads)"
    assert words(axes) == ["arithmetic in float32, 4 threads", "memory, 4 threads, 60 GB/s", "L1, 400 GB/s"]
    memory, cache, *points = axes.lines
    for line, speed in ((memory, 60.0), (cache, 400.0)):
        (low, high), ys = line.get_data()
        np.testing.assert_allclose(ys, [low * speed, 390.0])
        assert high == pytest.approx(390.0 / speed)
    largest = [each for each in found.results if each.parameters == 10**6 and not each.at_least]
    for point, each in zip(points, largest, strict=False):
        expected = 16 / 28, 16 * each.parameters_per_s / 1e9
        assert [float(x[0]) for x in point.get_data()] == pytest.approx(expected)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SGD", "AdamW"]


def test_the_bars_of_the_memory(drawn, tmp_path):
    figure.draw(measured(), ABOUT, tmp_path / "bench.png")
    axes = drawn[0].axes[3]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["L1\n16 KiB\n1 thread", "memory\n256 MiB\n1 thread", "memory\n256 MiB\n4 threads"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["copy", "triad", "update"]
    assert [bar.get_height() for bar in axes.patches] == [400.0, 20.0, 60.0] * 3


def test_a_file_of_one_size_alone(tmp_path):
    figure.draw(measured(sizes=(100,)), ABOUT, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_roof_is_the_greatest_speed_at_about_each_size():
    results = [
        result(footprint=1000, limit_gb_per_s=5.0),
        result(footprint=1100, limit_gb_per_s=7.0),
        result(footprint=10**6, limit_gb_per_s=3.0),
        result("Muon", footprint=10**6),
    ]
    (x, first), last = figure.roof(results)
    assert (first, last) == (7.0, (pytest.approx(10**6), 3.0))
    assert 1000 < x < 1100
