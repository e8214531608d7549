"""The picture: how long the pole stays up, by generation; and an episode before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastopt.demos.evolution.pole import LEAN, LONGEST, SOLVED, TICK
from fastopt.demos.evolution.strategy import Array, Course
from fastopt.demos.figures import COLOURS, DASHES, style


def draw(courses: Mapping[str, Sequence[Course]], episodes: Mapping[str, Array], path: Path) -> None:
    """Draw the courses of all methods, and some episodes.

    Parameters
    ----------
    courses : mapping
        By the method's label, its trials.
    episodes : mapping
        By what they are called, the states of episodes.
    path : Path
        Where to write the PNG.
    """
    with style():
        figure = Figure(figsize=(13, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_courses(left, courses)
        _draw_episodes(right, episodes)
        figure.savefig(path)


def _draw_courses(axes: Axes, courses: Mapping[str, Sequence[Course]]) -> None:
    for number, (label, trials) in enumerate(courses.items()):
        lasted = np.mean([course.lasted for course in trials], axis=0)
        dashes = DASHES[number % len(DASHES)]
        axes.plot(lasted, color=COLOURS[number], dashes=dashes, label=label)
    axes.axhline(SOLVED, color="0.6", lw=0.8)
    axes.text(0, SOLVED - 6, "solved", color="0.4", va="top", fontsize=10)
    axes.set_xlim(0, len(lasted) - 1)
    axes.set_ylim(0, LONGEST * 1.02)
    axes.set_xlabel("generation")
    axes.set_ylabel("pushes until the pole falls")
    axes.set_title("An evolution strategy, by what takes its steps")
    axes.grid()
    axes.legend(loc="lower right", frameon=False)


def _draw_episodes(axes: Axes, episodes: Mapping[str, Array]) -> None:
    for number, (label, states) in enumerate(episodes.items()):
        seconds = TICK * np.arange(len(states))
        axes.plot(seconds, np.degrees(states[:, 2]), color=COLOURS[number], label=label, lw=1.4)
        axes.plot(seconds[-1], np.degrees(states[-1, 2]), "o", ms=4, color=COLOURS[number])
    for side in (-1, 1):
        axes.axhline(side * np.degrees(LEAN), color="0.6", lw=0.8)
    axes.set_xlim(0, TICK * LONGEST)
    axes.set_ylim(-15, 15)
    axes.set_xlabel("seconds")
    axes.set_ylabel("angle of the pole, degrees")
    axes.set_title("One episode: the pole falls beyond the grey lines")
    axes.grid()
    axes.legend(loc="center right", frameon=False)
