"""The picture: the textbook's line as it turns, and how fast every method comes to the best line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastopt.demos.figures import COLOURS, EndLabel, label_ends, style
from fastopt.demos.methods import settled
from fastopt.demos.regression.contestants import TEXTBOOK
from fastopt.demos.regression.fitting import (
    Fit,
    Points,
    least_squares,
    mean_squared_error,
)

#: Colour, width and dashes of the losses. One colour has two methods: AdamW is Adam, but for its decay.
_LINES: dict[str, tuple[str, float, tuple[float, ...]]] = {
    TEXTBOOK.label: ("#000000", 3.5, ()),
    "SGD": (COLOURS[0], 1.8, ()),
    "Momentum": (COLOURS[1], 1.8, ()),
    "NAG": (COLOURS[2], 1.8, ()),
    "Adagrad": (COLOURS[3], 1.8, ()),
    "Adadelta": (COLOURS[5], 1.8, ()),
    "RMSprop": (COLOURS[6], 1.8, ()),
    "Adam": (COLOURS[7], 1.8, ()),
    "AdamW": (COLOURS[7], 1.8, (3, 1.5)),
}


def draw(points: Points, fits: Mapping[str, Fit], path: Path) -> None:
    """Draw the points with the fitted lines, and the losses by epochs.

    Parameters
    ----------
    points : Points
        What was fitted.
    fits : mapping
        Fits by the method's label, the textbook's among them.
    path : Path
        Where to write the PNG.
    """
    with style():
        figure = Figure(figsize=(13, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_lines(left, points, fits[TEXTBOOK.label])
        _draw_losses(right, points, fits)
        figure.savefig(path)


def _draw_lines(axes: Axes, points: Points, fit: Fit) -> None:
    axes.scatter(points.x, points.y, s=18, color="0.6", linewidths=0)
    ends = np.array([points.x.min(), points.x.max()])
    epochs = np.unique(np.linspace(0, len(fit.path) - 1, 6).astype(int))
    shades = matplotlib.colormaps["Blues"](np.linspace(0.35, 1.0, len(epochs)))
    lines = [
        (f"epoch {epoch}", *fit.path[epoch], shade)
        for epoch, shade in zip(epochs.tolist(), shades, strict=True)
    ]
    labels = []
    for text, slope, intercept, colour in [*lines, ("least squares", *least_squares(points), COLOURS[1])]:
        heights = slope * ends + intercept
        axes.plot(ends, heights, color=colour, dashes=(4, 2) if text == "least squares" else ())
        labels.append(EndLabel(text, heights[1], colour))
    axes.set_title(f"The textbook's loop: Adam, lr {TEXTBOOK.settings['lr']:g}")
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.set_xlim(ends[0] - 0.1, ends[1])
    axes.set_ylim(axes.get_ylim())
    label_ends(axes, ends[1], labels, gap=0.045)


def _draw_losses(axes: Axes, points: Points, fits: Mapping[str, Fit]) -> None:
    best = mean_squared_error(points, *least_squares(points))
    epochs = len(fits[TEXTBOOK.label].losses) - 1
    reached = {label: settled(fit.losses, 1.01 * best) for label, fit in fits.items()}
    for label in sorted(fits, key=lambda label: (reached[label] is None, reached[label])):
        colour, width, dashes = _LINES[label]
        axes.plot(
            np.arange(1, epochs + 1),
            fits[label].losses[1:] - best,
            color=colour,
            lw=width,
            dashes=dashes,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, max(epochs, 2))
    axes.set_ylim(1e-5, None)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss above that of least squares")
    axes.set_title("Every method, each with a rate that suits it")
    axes.grid()
    axes.legend(
        title="from fast to slow",
        alignment="left",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
