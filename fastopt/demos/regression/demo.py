"""The demo ``regression``: the textbook's loop, then the other methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from fastopt.demos.methods import settled
from fastopt.demos.regression import figure
from fastopt.demos.regression.contestants import METHODS, TEXTBOOK
from fastopt.demos.regression.fitting import (
    Fit,
    Points,
    fit,
    least_squares,
    make_points,
    mean_squared_error,
)
from fastopt.demos.table import table


def run(folder: Path, *, epochs: int, seed: int) -> None:
    """Fit a line with all methods; print the textbook's losses and a table, write a picture.

    Parameters
    ----------
    folder : Path
        For the picture.
    epochs : int
        Number of steps.
    seed : int
        Of the points.
    """
    points = make_points(seed)
    fits = {
        method.label: fit(method, points, epochs)
        for method in tqdm(METHODS, desc="fitting", disable=None, leave=False)
    }
    print(f"A line through 100 points near y = 2.5 x, by Adam with lr {TEXTBOOK.settings['lr']:g}:\n")
    print(course(fits[TEXTBOOK.label]))
    print(f"\nAll methods after {epochs} epochs:\n\n{report(points, fits, epochs)}\n")
    print(
        "A step of Adam is about as long as its lr, so the textbook's loop cannot get further than lr times\n"
        "epochs from where it starts: it stops on its way. AdamW's decay pulls the line towards zero."
    )
    path = folder / "fastopt-regression.png"
    figure.draw(points, fits, path)
    print(f"Lines and losses: {path}")


def course(fit: Fit) -> str:
    """Return a table of every hundredth epoch, and of the last."""
    last = len(fit.losses) - 1
    epochs = sorted({*range(0, last + 1, 100), last})
    return table(
        ("epoch", "loss", "slope", "intercept"),
        [[f"{n}", f"{fit.losses[n]:.4f}", *(f"{value:.4f}" for value in fit.path[n])] for n in epochs],
    )


def report(points: Points, fits: Mapping[str, Fit], epochs: int) -> str:
    """Return the table of all methods, with least squares last."""
    line = least_squares(points)
    best = mean_squared_error(points, *line)
    rows = []
    for method in METHODS:
        path, losses = fits[method.label]
        reached = settled(losses, 1.01 * best)
        rows.append(
            [
                method.label,
                f"{method.settings['lr']:g}",
                *(f"{value:.4f}" for value in path[-1]),
                f"{losses[-1]:.5f}",
                f"> {epochs}" if reached is None else f"{reached}",
            ]
        )
    rows.append(["least squares", "", *(f"{value:.4f}" for value in line), f"{best:.5f}", ""])
    return table(("method", "lr", "slope", "intercept", "loss", "epochs to 1% above least"), rows)
