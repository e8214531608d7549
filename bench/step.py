"""Times a step against size and peers, for the README's figures and tables (see figures.py).

AdamW by all that do it here, and every algorithm by fastopt and by plain NumPy (in place, the faster
form). float32, interleaved rounds, answers checked first.
"""

from __future__ import annotations

from typing import Any

import _measure
import contestants
import plain_numpy
from _measure import duration, interleaved, median, ratio

import fastopt


def adamw(size: int, rounds: int) -> dict[str, Any]:
    """Return each peer's seconds, and how many times as long as fastopt it takes."""
    found = contestants.adamw(size)
    times = contestants.best_c(interleaved({name: c.step for name, c in found.items()}, rounds))
    return {
        name: {"seconds": median(values), "times_fastopt": ratio(times, name, "fastopt")}
        for name, values in times.items()
    }


def algorithm(name: str, size: int, rounds: int) -> dict[str, Any]:
    p, g = contestants.start(size)
    found = {
        "fastopt": contestants.by_fastopt(name, p, g),
        "NumPy": contestants.by_numpy(plain_numpy.STEPS[name], p, g),
    }
    for contestant in found.values():
        contestants.check(name, contestant)
    times = interleaved({key: c.step for key, c in found.items()}, rounds)
    moved = contestants.bytes_moved(name) * size
    speeds = {key: moved / median(values) / 1e9 for key, values in times.items()}
    return {
        "bytes_per_parameter": moved // size,
        "gb_per_s": speeds,
        "speedup": ratio(times, "NumPy", "fastopt"),
    }


def main() -> None:
    args = _measure.arguments(__doc__, "step.json").parse_args()
    about = _measure.describe()
    rounds = 3 if args.quick else 15
    largest = 2 * 10**7 if args.quick else 5 * 10**7
    largest = min(largest, _measure.free_bytes() // 250 // 10**6 * 10**6)  # what all peers need together
    results: dict[str, Any] = {"adamw": {}, "algorithms": {}}
    for size in (10**2, 10**4, 10**6, largest):
        results["adamw"][str(size)] = found = adamw(size, rounds)
        rows = [[k, duration(v["seconds"]), f"{v['times_fastopt']:.2f}"] for k, v in found.items()]
        print(_measure.table([f"AdamW, {size:,} parameters", "time", "/ fastopt"], rows), end="\n\n")
    # NAG's update does Momentum's work; test_step.py has its look-ahead, which is a call of its own.
    names = [n for n in sorted(fastopt.algorithms.__all__) if n in plain_numpy.STEPS and n != "NAG"]
    for size in (10**4, largest):
        results["algorithms"][str(size)] = {name: algorithm(name, size, rounds) for name in names}
        rows = [
            [
                name,
                *(f"{found['gb_per_s'][by]:.1f}" for by in ("fastopt", "NumPy")),
                f"{found['speedup']:.1f}",
            ]
            for name, found in results["algorithms"][str(size)].items()
        ]
        head = [f"GB/s, {size:,} parameters", "fastopt", "NumPy", "speed-up"]
        print(_measure.table(head, rows), end="\n\n")
    _measure.save(args, about, results)


if __name__ == "__main__":
    main()
