"""The animation: the points move over both surfaces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fastopt.demos.figures import style
from fastopt.demos.saddle.figure import Panel, draw_legend, draw_surface

FRAMES, MILLISECONDS, HOLD = 80, 80, 1500


def frame_steps(length: int, frames: int) -> list[int]:
    """Return the step that each frame shows: slow at the beginning, where paths part, then faster."""
    return [round(length * share**2) for share in np.linspace(0.0, 1.0, frames).tolist()]


class _MovingPanel:
    """A panel whose trails, dots and title change, on a background that does not."""

    def __init__(self, axes: Axes, panel: Panel) -> None:
        self._axes, self._panel = axes, panel
        self._steps = frame_steps(panel.length, FRAMES)
        draw_surface(axes, panel.surface)
        self._title = axes.set_title(panel.surface.title)
        self._lines = []
        for label in panel.order:
            colour = panel.colour(label)
            axes.plot([], [], color=colour, label=panel.legend_text(label))  # for the legend
            (trail,) = axes.plot([], [], color=colour, lw=1.5, zorder=3, animated=True)
            (dot,) = axes.plot([], [], "o", color=colour, ms=9, mec="white", zorder=4, animated=True)
            self._lines.append((panel.paths[label], trail, dot))
        draw_legend(axes, panel)

    def take_title_off(self) -> None:
        """Leave the title out of the background, once the layout has room for it."""
        self._title.set_animated(True)

    def draw(self, number: int) -> None:
        """Draw what moves, as frame ``number`` has it."""
        step = self._steps[number]
        self._title.set_text(f"{self._panel.surface.title}: step {step}")
        for points, trail, dot in self._lines:
            trail.set_data(*points[: step + 1].T)
            dot.set_data(*points[step : step + 1].T)
        moving: list[Artist] = [self._title, *(trail for _, trail, _ in self._lines)]
        for artist in (*moving, *(dot for _, _, dot in self._lines)):
            self._axes.draw_artist(artist)


def write(panels: Sequence[Panel], path: Path, frames: Iterable[int]) -> None:
    """Write the GIF.

    Parameters
    ----------
    panels : sequence of Panel
        What to show, side by side.
    path : Path
        Where to write it.
    frames : iterable of int
        Ascending numbers of frames, of ``range(FRAMES)``. A progress bar can count them.
    """
    images = []
    with style():
        figure = Figure(figsize=(11, 4.6), dpi=100, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
        moving = [
            _MovingPanel(axes, panel)
            for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True)
        ]
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for panel in moving:
            panel.take_title_off()
        canvas.draw()
        background = canvas.copy_from_bbox(figure.bbox)
        for number in frames:
            canvas.restore_region(background)
            for panel in moving:
                panel.draw(number)
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]
            images.append(Image.fromarray(pixels // 4 * 4))
    images = _share_palette(images)
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[MILLISECONDS] * (len(images) - 1) + [HOLD],
        loop=0,
    )


def _share_palette(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the images in the most frequent colours of the last one, with one left free of 256.

    What stands still has the same pixels in all of them then: Pillow writes it once, and after that in the
    free colour, as transparent. Pillow finds multiples of 4 exactly; they are stretched, for 252 to be white.
    """
    found, counts = np.unique(np.asarray(images[-1]).reshape(-1, 3), axis=0, return_counts=True)
    colours = found[np.argsort(-counts)[:255]]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.tobytes())
    shared = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    for image in shared:
        image.putpalette((colours / 252 * 255).astype(np.uint8).tobytes())
    return shared
