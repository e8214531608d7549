"""A matrix product and a step in turn, against the sum of the two: threads that spin would spoil it."""

from __future__ import annotations

from collections.abc import Callable

import _measure
import contestants
import numpy as np
from _measure import duration, interleaved, median

SIDES, SIZES = (128, 512), (10**5, 10**6)


def alternation(side: int, step: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Return the product, the step, and one after the other."""
    a, b, out = np.random.default_rng(0).random((3, side, side), np.float32)

    def both() -> None:
        np.matmul(a, b, out=out)
        step()

    return {"product": lambda: np.matmul(a, b, out=out), "step": step, "both": both}


def main() -> None:
    args = _measure.arguments(__doc__, "beside_blas.json").parse_args()
    about = _measure.describe()
    rounds, seconds = (3, 0.02) if args.quick else (15, 0.2)
    cases = []
    for side in SIDES:
        for size in SIZES:
            contestant = contestants.by_fastopt("AdamW", *contestants.start(size))
            contestants.check("AdamW", contestant)
            times = interleaved(alternation(side, contestant.step), rounds, seconds)
            quotient = median(times["both"] / (times["product"] + times["step"]))
            found = {name: median(values) for name, values in times.items()}
            cases.append({"side": side, "parameters": size, "seconds": found, "quotient": quotient})
            words = ", ".join(f"{name} {duration(value)}" for name, value in found.items())
            print(f"{side}x{side}, {size:,} parameters: {words}: {quotient:.3f} times the sum")
    _measure.save(args, about, {"cases": cases})


if __name__ == "__main__":
    main()
