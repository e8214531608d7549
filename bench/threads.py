"""Where a second thread begins to pay: the time of an AdamW step, on one thread and on all, against size.

Alone, and alternating with a matrix product, whose BLAS threads are still spinning when the step begins. The
engine's cut-off is lifted for the measurement; the table shows where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _measure
import contestants
import numpy as np
from _measure import duration, interleaved, median

from fastopt.engine import available_threads, threads

SIZES = [10**4, 3 * 10**4, 10**5, 2 * 10**5, 5 * 10**5, 10**6, 2 * 10**6, 5 * 10**6, 2 * 10**7]
#: Buffers that AdamW reads: parameters, gradients, two of state.
BYTES_PER_PARAMETER = 16


def steps(size: int, chunks: list[int]) -> dict[str, Callable[[], None]]:
    """Return a step on one thread, and one on all threads for each size of chunk."""
    p, g = contestants.start(size)
    found: dict[str, Callable[[], None]] = {"1 thread": contestants.by_fastopt("AdamW", p, g, threads=1).step}
    for chunk in chunks:
        # As many threads as there are chunks, so fewer than all for a small size.
        step = contestants.by_fastopt("AdamW", p, g, threads=available_threads()).step

        def chunked(step: Any = step, chunk: int = chunk) -> None:
            threads.CHUNK = chunk
            step()

        found[f"chunk {chunk}"] = chunked
    return found


def measure(size: int, chunks: list[int], rounds: int) -> dict[str, Any]:
    """Return the median seconds of each step, alone and with a product before it."""
    rng = np.random.default_rng(0)
    a, b, out = rng.random((3, 128, 128), np.float32)

    def product() -> None:
        np.matmul(a, b, out=out)

    def after_product(step: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            np.matmul(a, b, out=out)
            step()

        return both

    alone = steps(size, chunks)
    both = {f"{name} + matmul": after_product(step) for name, step in alone.items()}
    times = interleaved({"matmul": product, **alone, **both}, rounds)
    return {name: median(values) for name, values in times.items()}


def main() -> None:
    parser = _measure.arguments(__doc__, "threads.json")
    text = (
        "elements that a thread takes at a time, beside the engine's own choice: numbers, separated by commas"
    )
    parser.add_argument("--chunks", default="", help=text)
    args = parser.parse_args()
    chunks = sorted({threads.CHUNK, *map(int, filter(None, args.chunks.split(",")))})
    about = _measure.describe()
    engines = {"cutoff_bytes": threads.cutoff_bytes(), "chunk": threads.CHUNK, "threads": available_threads()}
    threads.cutoff_bytes = lambda: 0
    found: dict[str, dict[str, float]] = {}
    for size in SIZES[::2] if args.quick else SIZES:
        found[str(size)] = measure(size, chunks, 3 if args.quick else 11)
    names = list(next(iter(found.values())))
    rows = [[f"{int(size):,}", *(duration(values[name]) for name in names)] for size, values in found.items()]
    print(_measure.table(["parameters", *names], rows))
    largest = engines["cutoff_bytes"] // BYTES_PER_PARAMETER
    print(f"\nthe engine uses up to {engines['threads']} threads above {largest:,} parameters")
    for chunk in chunks:
        for kind in ("", " + matmul"):
            one, all_of_them = f"1 thread{kind}", f"chunk {chunk}{kind}"
            faster = [int(size) for size, values in found.items() if values[all_of_them] < values[one]]
            text = ", ".join(f"{size:,}" for size in faster) or "no size"
            print(f"chunk {chunk}{kind}: all threads are faster at {text}")
    _measure.save(args, about, {"engine": engines, "seconds": found})


if __name__ == "__main__":
    main()
