from itertools import combinations

import pytest

from fastopt import schedules
from fastopt.__main__ import main
from fastopt.demos.schedules.examples import STEPS, panels, plateau


def test_every_schedule_has_a_panel():
    titles = [panel.title for panel in panels()]
    assert len(titles) == len(set(titles))
    # A tuple has several values; a schedule is what the others are.
    assert set(titles) == {*schedules.__all__, "OneCycle.momentum()"} - {"Schedule", "Tuple"}


def test_every_curve_has_the_values_of_all_steps():
    for panel in panels():
        assert len({curve.label for curve in panel.curves}) == len(panel.curves)
        for curve in panel.curves:
            assert len(curve.values) == STEPS + 1
            assert all(0.0 <= value <= 1.0 for value in curve.values) or not curve.is_schedule


def test_the_panel_of_the_plateaus_is_of_a_real_run():
    panel = plateau(schedules.ReduceOnPlateau(1.0, factor=0.5, patience=8, threshold=0.01))
    (value, loss) = panel.curves
    steps = [step for step in range(1, STEPS + 1) if value.values[step] < value.values[step - 1]]
    assert len(steps) == 2
    assert [value.values[step] for step in (0, *steps)] == [1.0, 0.5, 0.25]
    for step in steps:  # it had stopped to fall, and does so again
        assert loss.values[step - 10] < 1.02 * loss.values[step]
        assert loss.values[step + 50] < 0.8 * loss.values[step]


def test_the_demo(tmp_path, capsys):
    images = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    assert main(["demo", "schedules", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert (
        "\nCosine               power=1                   1   0.9045   0.6545   0.3455    0.09549          0\n"
        in shown
    )
    assert all(f"\n{panel.title} " in shown for panel in panels())
    with images.open(tmp_path / "fastopt-schedules.png") as picture:
        assert picture.size == (1800, 1980)


def test_no_text_lies_over_another_or_over_a_panel(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from fastopt.demos.schedules import figure

    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path: (self.draw_without_rendering(), drawn.append(self))
    )
    shown = panels()[:-1]  # the last place is empty
    figure.draw(shown, tmp_path / "picture.png")
    axes = drawn[0].axes
    assert [each.get_title(loc="left") for each in axes] == [panel.title for panel in shown]
    texts = []
    for each in axes:
        labels = [*each.get_xticklabels(), *each.get_yticklabels()]
        own = [
            each._left_title,
            *each.get_legend().get_texts(),
            *(text for text in labels if text.get_text()),
        ]
        boxes = [text.get_window_extent() for text in own if text.get_visible()]
        assert not any(box.overlaps(each.patch.get_window_extent()) for box in boxes)
        texts += boxes
    assert not any(one.overlaps(other) for one, other in combinations(texts, 2))
    assert not any(box.overlaps(each.patch.get_window_extent()) for box in texts for each in axes)
    assert all(drawn[0].bbox.containsx(box.x0) and drawn[0].bbox.containsx(box.x1) for box in texts)
