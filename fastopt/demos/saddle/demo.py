"""The demo ``saddle``: two surfaces, a table, a picture and an animation."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from fastopt.demos.saddle import animation, figure
from fastopt.demos.saddle.paths import CONTESTANTS, distances, follow, steps_to_leave, steps_to_settle
from fastopt.demos.saddle.surfaces import SADDLE, VALLEY
from fastopt.demos.table import table

#: How far from the saddle's ridge the paths of the table start. The second is the picture's.
OFFSETS = (1e-2, 1e-4, 1e-6)

#: Lengths of the paths: on the saddle, in the valley.
SADDLE_STEPS, VALLEY_STEPS = 160, 1000


def run(folder: Path, *, gif: bool) -> None:
    """Follow all methods over both surfaces; print tables, write a picture and an animation.

    Parameters
    ----------
    folder : Path
        For the files.
    gif : bool
        Whether to write the animation.
    """
    saddle, valley = saddle_panel(), valley_panel()
    print(f"Steps out of a saddle (to |y| > {SADDLE.border:g}), by how far from its ridge they start:\n")
    print(saddle_table())
    print("\nSteps along a narrow valley, until within 0.1 of the minimum for good:\n")
    print(valley_table(valley))
    print(
        "\nAdagrad, RMSprop and Adam divide by the size of the gradient: how near to the ridge they start\n"
        "makes no difference to them, and little to Adadelta. SGD waits for the slope to grow; momentum\n"
        "shortens that."
    )
    picture, animated = folder / "fastopt-saddle.png", folder / "fastopt-saddle.gif"
    figure.draw([saddle, valley], picture)
    print(f"Paths: {picture}")
    if gif:
        frames = tqdm(range(animation.FRAMES), desc="animation", disable=None, leave=False)
        animation.write([saddle, valley], animated, frames)
        print(f"Animation: {animated}")


def saddle_table() -> str:
    """Return the table of the steps out of the saddle."""
    rows = []
    for method, _ in CONTESTANTS:
        counts = []
        for offset in OFFSETS:
            path = follow(method, SADDLE, (SADDLE.start[0], offset), SADDLE_STEPS)
            counts.append(_count(steps_to_leave(path), SADDLE_STEPS))
        rows.append([method.label, method.described, *counts])
    offsets = [f"from {offset:f}".rstrip("0") for offset in OFFSETS]
    return table(("method", "settings", *offsets), rows, left=2)


def valley_table(panel: figure.Panel) -> str:
    """Return the table of the steps along the valley."""
    rows = []
    for _, method in CONTESTANTS:
        steps, left = panel.steps[method.label], distances(panel.paths[method.label], VALLEY)[-1]
        rows.append([method.label, method.described, _count(steps, VALLEY_STEPS), f"{left:.3f}"])
    return table(("method", "settings", "steps", f"distance after {VALLEY_STEPS}"), rows, left=2)


def _count(steps: int | None, most: int) -> str:
    return f"> {most}" if steps is None else f"{steps}"


def saddle_panel() -> figure.Panel:
    """Return the paths out of the saddle."""
    paths = {c.on_saddle.label: follow(c.on_saddle, SADDLE, SADDLE.start, SADDLE_STEPS) for c in CONTESTANTS}
    steps = {label: steps_to_leave(path) for label, path in paths.items()}
    return figure.Panel(SADDLE, paths, steps, "steps to |y| > 1")


def valley_panel() -> figure.Panel:
    """Return the paths along the valley."""
    paths = {c.in_valley.label: follow(c.in_valley, VALLEY, VALLEY.start, VALLEY_STEPS) for c in CONTESTANTS}
    steps = {label: steps_to_settle(path, VALLEY) for label, path in paths.items()}
    return figure.Panel(VALLEY, paths, steps, "steps to 0.1 from the minimum")
