"""The demo ``schedules``: a table of values, and a picture of every schedule."""

from __future__ import annotations

from pathlib import Path

from fastopt.demos.schedules import figure
from fastopt.demos.schedules.examples import STEPS, Panel, panels
from fastopt.demos.table import table

#: The steps of the table.
SHOWN = range(0, STEPS + 1, STEPS // 5)


def run(folder: Path) -> None:
    """Print the values of all schedules at some steps, write a picture.

    Parameters
    ----------
    folder : Path
        For the picture.
    """
    shown = panels()
    print(f"Values at some steps, of {STEPS}:\n")
    print(values_table(shown))
    path = folder / "fastopt-schedules.png"
    figure.draw(shown, path)
    print(f"\nSchedules: {path}")


def values_table(shown: list[Panel]) -> str:
    """Return the table of the values."""
    rows = [
        [panel.title, curve.label, *(f"{curve.values[step]:.4g}" for step in SHOWN)]
        for panel in shown
        for curve in panel.curves
    ]
    return table(("schedule", "", *(f"{step}" for step in SHOWN)), rows, left=2)
