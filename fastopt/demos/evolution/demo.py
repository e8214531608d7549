"""The demo ``evolution``: policies that balance a pole, evolved with each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fastopt.demos.evolution import figure
from fastopt.demos.evolution.contestants import METHODS
from fastopt.demos.evolution.pole import LONGEST, SIZE, SOLVED, recorded, starts
from fastopt.demos.evolution.strategy import PAIRS, Course, evolve
from fastopt.demos.table import table


def run(folder: Path, *, generations: int, trials: int, seed: int) -> None:
    """Evolve policies with all methods; print a table, write a picture.

    Parameters
    ----------
    folder : Path
        For the picture.
    generations : int
        Number of steps.
    trials : int
        How often each method starts anew.
    seed : int
        Of the first trial; the others have the next ones.
    """
    jobs = tqdm(
        [(method, trial) for method in METHODS for trial in range(trials)],
        desc="evolving",
        disable=None,
        leave=False,
    )
    courses: dict[str, list[Course]] = {}
    for method, trial in jobs:
        courses.setdefault(method.label, []).append(evolve(method, generations, seed + trial))
    print(
        f"A cart balances a pole. Its policy is one vector of {SIZE} numbers; each generation tries\n"
        f"{PAIRS} directions both ways, and update(globalg) makes the step. Pushes until the pole falls\n"
        f"({LONGEST} at most), means of {trials} trials:\n"
    )
    print(report(courses, generations))
    print(
        "\nThe strategy goes by ranks, so its estimates of the gradient are of one size from the first\n"
        "generation to the last, and plain SGD keeps up. The last column is what update() returns, in the\n"
        "second half of the generations."
    )
    best = max(
        (course for trial in courses.values() for course in trial), key=lambda course: course.lasted.sum()
    )
    start = starts(np.random.default_rng(seed), 1)[0]
    first = 0.1 * np.random.default_rng(seed).standard_normal(SIZE)
    path = folder / "fastopt-evolution.png"
    figure.draw(courses, {"at first": recorded(first, start), "evolved": recorded(best.theta, start)}, path)
    print(f"Courses and episodes: {path}")


def report(courses: Mapping[str, Sequence[Course]], generations: int) -> str:
    """Return the table of all methods."""
    marks = sorted({max(1, generations // 4), max(1, generations // 2), generations})
    rows = []
    for method in METHODS:
        trials = courses[method.label]
        lasted = np.mean([course.lasted for course in trials], axis=0)
        solved = sorted(_solved(course, generations) for course in trials)[len(trials) // 2]
        ratio = np.mean([course.ratios[generations // 2 :].mean() for course in trials])
        rows.append(
            [
                method.label,
                method.described,
                *(f"{lasted[mark]:.0f}" for mark in marks),
                f"> {generations}" if solved > generations else f"{solved}",
                f"{ratio:.3f}",
            ]
        )
    after = [f"after {mark}" for mark in marks]
    return table(("method", "settings", *after, "solved in", "|step| / |theta|"), rows, left=2)


def _solved(course: Course, generations: int) -> int:
    """Return the first generation whose policy solves the task, or one more than there are."""
    found = np.flatnonzero(course.lasted >= SOLVED)
    return int(found[0]) if len(found) else generations + 1
