"""The picture of both surfaces with all paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastopt.demos.figures import COLOURS, style
from fastopt.demos.saddle.surfaces import Array, Surface

#: As wide as a digit.
FIGURE_SPACE = "\u2007"


class Panel:
    """One surface, the paths on it, and the steps that they took.

    Parameters
    ----------
    surface : Surface
        What to draw.
    paths : mapping
        Points by the method's label.
    steps : mapping
        Steps to what the panel is about, by label; None if it was not reached.
    legend_title : str
        What the steps count.
    """

    def __init__(
        self,
        surface: Surface,
        paths: Mapping[str, Array],
        steps: Mapping[str, int | None],
        legend_title: str,
    ) -> None:
        self.surface, self.paths, self.steps, self.legend_title = surface, paths, steps, legend_title
        self.length = len(next(iter(paths.values()))) - 1

    @property
    def order(self) -> list[str]:
        """The labels, from the fewest steps to the most."""
        return sorted(self.paths, key=lambda label: (self.steps[label] is None, self.steps[label]))

    def colour(self, label: str) -> str:
        """Return the colour of a method: the same in every panel."""
        return COLOURS[list(self.paths).index(label)]

    def legend_text(self, label: str) -> str:
        """Return a method's name with its steps."""
        steps = self.steps[label]
        count = f"> {self.length}" if steps is None else f"{steps}"
        return f"{count.rjust(4, FIGURE_SPACE)}  {label}"


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the PNG.

    Parameters
    ----------
    panels : sequence of Panel
        What to show, side by side.
    path : Path
        Where to write it.
    """
    with style():
        figure = Figure(figsize=(15, 6), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
            draw_surface(axes, panel.surface)
            for label in panel.order:
                points = panel.paths[label]
                axes.plot(*points.T, color=panel.colour(label), label=panel.legend_text(label), zorder=3)
                axes.plot(*points[-1], "o", color=panel.colour(label), markersize=7, mec="white", zorder=4)
            axes.set_title(panel.surface.title)
            draw_legend(axes, panel)
        figure.savefig(path)


def draw_surface(axes: Axes, surface: Surface) -> None:
    """Draw contours in light grey, the start and the minima."""
    x = np.linspace(*surface.x_limits, 200)
    y = np.linspace(*surface.y_limits, 200)
    heights = surface.value(*np.meshgrid(x, y))
    rise = heights - surface.value(*surface.minima[0])
    scaled = np.cbrt(rise)  # contours are as dense near the minima as on the walls
    levels = np.linspace(0.0, scaled.max(), 22)
    axes.contourf(x, y, scaled, levels, cmap="Greys", vmin=0.0, vmax=4.0 * levels[-1])
    axes.contour(x, y, scaled, levels, colors="0.8", linewidths=0.6)
    axes.plot(*surface.start, "s", color="0.2", markersize=7, zorder=5)
    away = -18 if surface.minima[0][1] > surface.start[1] else 8
    axes.annotate("start", surface.start, (0, away), textcoords="offset points", color="0.2", ha="center")
    if surface.border is not None:
        axes.axhline(surface.border, color="0.2", lw=1, dashes=(4, 3), zorder=2.5)
    for minimum in surface.minima:
        axes.plot(*minimum, "*", color="white", markersize=18, mec="0.2", zorder=2.5)
    axes.set_xlim(*surface.x_limits)
    axes.set_ylim(*surface.y_limits)
    axes.set_xlabel("x")
    axes.set_ylabel("y")


def draw_legend(axes: Axes, panel: Panel) -> None:
    """Write the methods and their steps beside the panel."""
    axes.legend(
        title=panel.legend_title,
        alignment="left",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
