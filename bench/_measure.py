"""What all measurements share: interleaved rounds, the machine's description, the command line, the files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BENCH = Path(__file__).parent
RESULTS = BENCH / "results"

# What is measured is the checkout around this file, installed or not: import this module before fastopt.
sys.path.insert(0, str(BENCH.parent))

from fastopt.benchmark import rounds as in_turns  # noqa: E402
from fastopt.benchmark.report import duration  # noqa: E402

#: Seconds between the measurements of two libraries. The threads of OpenMP (torch, C) and of BLAS spin for
#: some milliseconds after their last work, and would take the CPU from whoever is measured next.
PAUSE = 0.03

#: Seconds from which on a step is not warmed up before it is timed: it has time enough itself.
LONG = 0.2

Times = dict[str, NDArray[np.float64]]

#: What varied too much between the rounds, usually because other programs ran. Saved with the results.
NOISY: list[str] = []


def interleaved(
    steps: Mapping[str, Callable[[], object]], rounds: int = 9, seconds: float = 0.05, where: str = ""
) -> Times:
    """Return the seconds that a call of each step takes, one value a round.

    The steps take turns, so that what changes on the machine meanwhile meets them all. Each
    is called often enough to take about ``seconds`` a round. ``where`` stands before what is noted as noisy.
    """
    found = in_turns.interleaved(steps, rounds, seconds, pause=PAUSE, warm=LONG)
    for name, values in found.items():
        low, high = np.quantile(values, (0.25, 0.75))
        if high > 1.25 * low:
            NOISY.append(
                f"{where}{name}: the middle half of the rounds is {duration(low)} to {duration(high)}"
            )
            print(f"noisy: {NOISY[-1]}")
    return found


def median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def ratio(times: Times, slow: str, fast: str) -> float:
    """Return how many times as long as ``fast`` the step ``slow`` takes: the median over the rounds."""
    return median(times[slow] / times[fast])


def fastest(times: Times, names: list[str]) -> str:
    return min(names, key=lambda name: median(times[name]))


def free_bytes() -> int:
    """Return the memory that can be taken without swapping; 4 GiB on systems that do not tell."""
    from fastopt import machine

    found = machine.free_bytes()
    return 1 << 32 if found is None else found


def describe() -> dict[str, Any]:
    """Return the date, the machine and the versions: without them a time means nothing."""
    from fastopt import info

    return info.describe(("numpy", "numba", "torch", "scikit-learn"))


def arguments(doc: str | None, out: str) -> argparse.ArgumentParser:
    """Return the command line of a script: ``--quick`` and ``--out``, to which it may add its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = "few rounds, small sizes: a try, which is not saved unless --out is given"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, help=f"where the JSON goes, instead of bench/results/{out}")
    parser.set_defaults(usual_out=RESULTS / out)
    return parser


def save(args: argparse.Namespace, about: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write the results, but for a try or a part to the usual place."""
    if (args.quick or getattr(args, "only", None)) and not args.out:
        print("not saved: only a part (--out FILE saves it there)")
        return
    path = args.out or args.usual_out
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "noisy": NOISY, **results}, indent=1) + "\n")
    print(f"written: {path}")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, aligned so that it also reads as plain text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    pads = [str.ljust] + [str.rjust] * (len(head) - 1)

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(pad(c, w) for pad, c, w in zip(pads, cells, widths, strict=True))} |"

    rule = [f"{'-' * w}" if i == 0 else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def count(size: int) -> str:
    """Return a number of parameters in words that fit a heading."""
    return f"{size:,}" if size < 10**6 else f"{size / 10**6:g} million"


def multiple(value: float) -> str:
    """Return a ratio in as many digits as it deserves."""
    return f"{value:.{2 if value < 2 else 1 if value < 10 else 0}f}\N{MULTIPLICATION SIGN}"
