"""The picture of all schedules: a small panel for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fastopt.demos.figures import COLOURS, DASHES, style
from fastopt.demos.schedules.examples import STEPS, Panel

COLUMNS = 3


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the PNG.

    Parameters
    ----------
    panels : sequence of Panel
        What to show, in rows of three.
    path : Path
        Where to write it.
    """
    rows = -(-len(panels) // COLUMNS)
    with style():
        layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.1)
        figure = Figure(figsize=(12, 2.2 * rows), layout=layout)
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            draw_panel(axes, panel)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes in grid[:-1].flat:
            axes.tick_params(labelbottom=False)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        figure.savefig(path)


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw the curves of a panel, and write what they are above it."""
    for curve, colour, dashes in zip(panel.curves, COLOURS, DASHES, strict=False):
        look = {"color": colour, "dashes": dashes} if curve.is_schedule else {"color": "0.6", "lw": 1.2}
        axes.plot(curve.values, label=curve.label, **look)
    greatest = max(max(curve.values) for curve in panel.curves if curve.is_schedule)
    least = min(min(curve.values) for curve in panel.curves)
    low = least if 0.5 * greatest < least < greatest else 0.0
    axes.set_ylim(low - 0.04 * (greatest - low), greatest + 0.06 * (greatest - low))
    axes.set_xlim(0, STEPS)
    axes.set_xticks([0, STEPS // 2, STEPS])
    axes.set_yticks([low, (low + greatest) / 2, greatest])
    axes.grid()
    axes.set_title(panel.title, pad=24)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(panel.curves),
        frameon=False,
        fontsize=10,
        handlelength=1.8,
        handletextpad=0.4,
        columnspacing=0.8,
        borderpad=0.0,
        borderaxespad=0.35,
    )
