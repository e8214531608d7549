"""The demo ``digits``: train with every method, time every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from fastopt.demos.digits import figure
from fastopt.demos.digits.contestants import METHODS
from fastopt.demos.digits.timing import Pair, Times, check, time_steps
from fastopt.demos.digits.training import BATCH, Run, load, sample_gradients, train
from fastopt.demos.table import table

#: Turns of each of the two that are timed.
ROUNDS = 100

HEADER = (
    "method",
    "lr",
    "training loss",
    "test accuracy",
    "us/step fastopt",
    "us/step NumPy",
    "NumPy/fastopt",
)


def run(folder: Path, *, epochs: int, hidden: Sequence[int], seed: int) -> None:
    """Train and time all methods; print a table, write a picture.

    Parameters
    ----------
    folder : Path
        For the picture.
    epochs : int
        Passes over the training data.
    hidden : sequence of int
        Units of the hidden layers.
    seed : int
        Of weights and batches.
    """
    data = load()
    params, gradients = sample_gradients(data, hidden, seed, number=20)
    print(
        f"Handwritten digits: {len(data.train_x)} training images, {len(data.test_x)} test images.\n"
        f"Network {'-'.join(map(str, (data.train_x.shape[1], *hidden, 10)))}: {params.size} parameters, "
        f"{params.dtype}. {epochs} epochs in batches of {BATCH}."
    )
    runs: dict[str, Run] = {}
    with tqdm(total=epochs * len(METHODS), unit="epoch", disable=None, leave=False) as progress:
        for method in METHODS:
            progress.set_description(method.label)
            runs[method.label] = train(method, data, hidden, epochs, seed, progress.update)
    times: dict[str, Times] = {}
    for method in tqdm(METHODS, desc="timing", disable=None, leave=False):
        pair = Pair(method, params)
        check(pair, gradients)
        times[method.label] = time_steps(pair, gradients, ROUNDS)
    print(f"\n{report(runs, times)}\n")
    print(
        "Step times: medians of turns taken one after the other, on one flat array of all parameters, which\n"
        "is NumPy's best case; NAG's include the look ahead. Before that, both gave the same parameters."
    )
    path = folder / "fastopt-digits.png"
    figure.draw(runs, path)
    print(f"Losses: {path}")


def report(runs: Mapping[str, Run], times: Mapping[str, Times]) -> str:
    """Return the table of all methods."""
    rows = []
    for method in METHODS:
        run, time = runs[method.label], times[method.label]
        rows.append(
            [
                method.label,
                f"{method.settings['lr']:g}",
                f"{run.losses[-1]:.4f}",
                f"{run.accuracy:.1%}",
                f"{time.fastopt:.1f}",
                f"{time.numpy:.1f}",
                f"{time.ratio:.1f}",
            ]
        )
    return table(HEADER, rows)
