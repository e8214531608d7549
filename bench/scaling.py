"""AdamW's step against threads, 1 to all cores, and against size: from where on do more threads pay?

The answer depends on what comes before the step, so there are three situations:

loop
    One step after the other: the helping threads are still awake, and what fits into the caches is there.
pause
    The program sleeps a little and then reads and writes a few MiB, as loading a batch does. The
    helping threads are asleep and have to be woken; a part of the caches is lost.
product
    A matrix product before each step: the threads of NumPy's BLAS spin for a while, on the cores that the
    helping threads need.

Timed is the step alone.

The engine uses one thread up to its cut-off (``fastopt.engine.threads.cutoff_bytes``) and all above it. What
this choice costs is its time over that of the best number of threads, at worst and on the average, over all
sizes and situations; and the same for every other cut-off, so that one sees if another would be better here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import _measure  # first: it says which fastopt is measured
import numpy as np
from _measure import duration, free_bytes, median
from _turns import SMOKE, note_spread, turns
from contestants import by_fastopt, check, start

import fastopt
from fastopt.engine import available_threads, threads

#: Two borders are measured too: the engine's largest size for one thread, and the smallest for all.
SIZES = [
    *(m * 10**e for e in (4, 5, 6) for m in (1, 2, 3, 5, 7)),
    *(15 * 10**5, 10**7, 2 * 10**7, 5 * 10**7),
]
#: Buffers that AdamW reads, each of 4 bytes: parameters, gradients, two of state. It writes three.
BYTES_PER_PARAMETER, BYTES_MOVED = 16, 28
#: What a pause does: seconds of sleep, and bytes that are read and written, more than an L2 cache holds.
SLEEP, TOUCHED = 0.001, 4 << 20
#: The side of the square matrices of the product.
SIDE = 128

#: A difference that does not count.
NOTHING = 0.05

#: Seconds of a step by situation, size and number of threads. JSON's keys are strings.
Seconds = Mapping[str, Mapping[str, Mapping[str, float]]]


def counts(most: int) -> list[int]:
    """Return the numbers of threads that are tried: two for each doubling, and all cores."""
    doublings = {m * 2**k for m in (2, 3) for k in range(most.bit_length())}
    return sorted({1, most, *(count for count in doublings if count < most)})


class Stepper:
    """AdamW's step of some size, with as many threads as is said, always in the same memory."""

    def __init__(self, size: int) -> None:
        p, g = start(size)
        self._pack = fastopt.pack(p)
        self._pack.flat_grads[:] = g
        opt: Any = fastopt.AdamW(self._pack, lr=1e-6)
        self.step: Callable[[], object] = opt.step
        self.step()
        (launch,) = opt._arrangement.launches
        self._batch = launch.batch
        self._chunk = threads.CHUNK
        self.size = size
        #: The engine's number of threads.
        self.chosen: int = self._batch.threads

    def use(self, count: int, chunk: int | None = None) -> None:
        """Use so many threads, each of which takes ``chunk`` elements at a time."""
        threads.CHUNK = chunk or self._chunk
        self._batch.threads = count

    def most(self, chunk: int | None = None) -> int:
        """Return how many threads there can be: each must have a chunk."""
        return min(available_threads(), -(-self.size // (chunk or self._chunk)))

    def ways(self, chunks: Iterable[int]) -> dict[str, tuple[int, int | None]]:
        """Return the numbers of threads, and with how large chunks, by name."""
        found: dict[str, tuple[int, int | None]] = {str(n): (n, None) for n in counts(self.most())}
        for chunk in chunks:
            if (count := self.most(chunk)) > 1:
                found[f"{count}, chunk {chunk}"] = count, chunk
        return found


def in_loop(stepper: Stepper, repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        stepper.step()
    return (time.perf_counter() - began) / repeats


def after_pause(stepper: Stepper, repeats: int) -> float:
    buffer = np.ones(TOUCHED // 8)

    def pause() -> None:
        time.sleep(SLEEP)
        np.add(buffer, 1, out=buffer)

    return _after(pause, stepper, repeats)


def after_product(stepper: Stepper, repeats: int) -> float:
    a, b, out = np.random.default_rng(0).random((3, SIDE, SIDE), np.float32)
    return _after(partial(np.matmul, a, b, out=out), stepper, repeats)


def _after(before: Callable[[], object], stepper: Stepper, repeats: int) -> float:
    """Return the median seconds of a step; what is done before each of them is not timed."""
    taken = []
    for _ in range(repeats):
        before()
        began = time.perf_counter()
        stepper.step()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


SITUATIONS: dict[str, Callable[[Stepper, int], float]] = {
    "loop": in_loop,
    "pause": after_pause,
    "product": after_product,
}
TITLES = {"loop": "in a loop", "pause": "after a pause", "product": "after a product"}


def check_threads() -> None:
    """Raise an error unless the step is right with each number of threads."""
    p, g = start(available_threads() * threads.CHUNK + 1)
    for count in counts(available_threads()):
        with mock.patch.object(threads, "cutoff_bytes", return_value=0):
            check("AdamW", by_fastopt("AdamW", p, g, threads=count))


def measure(stepper: Stepper, situation: str, chunks: Iterable[int], rounds: int) -> dict[str, float]:
    """Return the median seconds of a step, by number of threads."""
    run = SITUATIONS[situation]

    def timed(way: tuple[int, int | None]) -> float:
        stepper.use(*way)
        run(stepper, 2)  # wakes who is to be awake
        return run(stepper, repeats)

    stepper.use(1)
    once = run(stepper, 3)
    repeats = int(np.clip((0.002 if SMOKE else 0.04) / once, 3, 50 if situation == "pause" else 10_000))
    runs = {name: partial(timed, way) for name, way in stepper.ways(chunks).items()}
    found = turns(runs, rounds)
    stepper.use(stepper.chosen)
    for name, values in found.items():
        note_spread(f"{stepper.size:,} parameters, {situation}, threads {name}", values)
    return {name: median(np.array(values)) for name, values in found.items()}


def costs(seconds: Seconds, choice: Mapping[str, str]) -> dict[str, Any]:
    """Return what a choice of the number of threads for each size costs, over the best one.

    Parameters
    ----------
    seconds : mapping
        What was measured.
    choice : mapping
        The number of threads for each size.
    """
    found = {
        (situation, size): ways[choice[size]] / min(plain(ways).values())
        for situation, sizes in seconds.items()
        for size, ways in sizes.items()
    }
    worst = max(found, key=lambda case: found[case])
    return {
        "worst": found[worst],
        "worst_at": worst,
        "mean": float(np.exp(np.mean(np.log(list(found.values()))))),
    }


def plain(ways: Mapping[str, float]) -> dict[str, float]:
    """Return the times with the engine's own chunks."""
    return {name: seconds for name, seconds in ways.items() if name.isdecimal()}


def pays_from(sizes: Mapping[str, Mapping[str, float]]) -> int | None:
    """Return the size from which on more threads than one are faster.

    At larger sizes they may be as fast as one, give or take ``NOTHING``: where the memory is the limit.
    """
    found = None
    for size, ways in sorted(sizes.items(), key=lambda item: -int(item[0])):
        one, more = ways["1"], min((ways[name] for name in plain(ways) if name != "1"), default=np.inf)
        if more > (1 + NOTHING) * one:
            break
        found = int(size) if more < one else found
    return found


def summary(seconds: Seconds, chosen: Mapping[str, int]) -> dict[str, Any]:
    """Return where threads pay, what the engine's choice costs, and what other cut-offs would."""
    sizes = sorted(next(iter(seconds.values())), key=int)
    most = {size: max(plain(seconds["loop"][size]), key=int) for size in sizes}
    cutoffs = []
    for cutoff in (0, *map(int, sizes)):
        choice = {size: "1" if int(size) <= cutoff else most[size] for size in sizes}
        cutoffs.append({"parameters": cutoff, **costs(seconds, choice)})
    return {
        "pays_from": {situation: pays_from(by_size) for situation, by_size in seconds.items()},
        "engine": costs(seconds, {size: str(count) for size, count in chosen.items()}),
        "cutoffs": cutoffs,
        "best_cutoff": min(cutoffs, key=lambda each: (each["worst"], each["mean"])),
    }


def words(engine: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return what was found, in sentences."""
    lines = []
    for situation, size in found["pays_from"].items():
        where = "at no size" if size is None else f"from {size:,} parameters on"
        lines.append(f"{TITLES[situation]}, more threads than one pay {where}")
    (situation, size), best = found["engine"]["worst_at"], found["best_cutoff"]
    cutoff = engine["cutoff_bytes"] // BYTES_PER_PARAMETER
    lines += [
        f"the engine uses up to {engine['threads']} thread{'s' * (engine['threads'] > 1)} "
        f"above {cutoff:,} parameters",
        f"this costs at worst {found['engine']['worst']:.2f} times the best ({TITLES[situation]}, "
        f"{int(size):,} parameters), on the average {found['engine']['mean']:.2f}",
        f"the cut-off that costs least at worst, {best['parameters']:,}, costs {best['worst']:.2f}, on the "
        f"average {best['mean']:.2f}",
    ]
    return "\n".join(lines)


def sizes(quick: bool, cutoff: int) -> list[int]:
    """Return the sizes to be measured, the engine's border among them, as far as the memory goes."""
    wanted = [10**4, 2 * 10**5] if SMOKE else [*(SIZES[::3] if quick else SIZES), cutoff, cutoff + 1]
    room = free_bytes() // (2 * BYTES_PER_PARAMETER)
    for size in wanted:
        if size > room:
            print(f"skipped: {size:,} parameters (not enough free memory)")
    return sorted({size for size in wanted if size <= room})


def main() -> None:
    parser = _measure.arguments(__doc__, "scaling.json")
    text = "elements that a thread takes at a time, to be tried beside the engine's: separated by commas"
    parser.add_argument("--chunks", default="", help=text)
    args = parser.parse_args()
    chunks = sorted(set(map(int, filter(None, args.chunks.split(",")))) - {threads.CHUNK})
    about = _measure.describe()
    engine = {"cutoff_bytes": threads.cutoff_bytes(), "chunk": threads.CHUNK, "threads": available_threads()}
    rounds = 1 if SMOKE else 3 if args.quick else 9
    check_threads()
    seconds: dict[str, dict[str, dict[str, float]]] = {situation: {} for situation in SITUATIONS}
    chosen: dict[str, int] = {}
    for size in sizes(args.quick, engine["cutoff_bytes"] // BYTES_PER_PARAMETER):
        stepper = Stepper(size)
        chosen[str(size)] = stepper.chosen
        for situation, by_size in seconds.items():
            by_size[str(size)] = measure(stepper, situation, chunks, rounds)
        del stepper
    for situation, by_size in seconds.items():
        names = list(next(reversed(by_size.values())))
        rows = []
        for key, ways in by_size.items():
            cells = [duration(ways[name]) if name in ways else "" for name in names]
            rows.append([f"{int(key):,}", *cells, str(chosen[key])])
        head = [situation, *(f"threads: {name}" for name in names), "the engine's"]
        print(_measure.table(head, rows), "\n")
    found = summary(seconds, chosen)
    print(words(engine, found))
    results = {"engine": engine, "chosen": chosen, "seconds": seconds, "summary": found}
    _measure.save(args, about, {"bytes_moved": BYTES_MOVED, **results})


if __name__ == "__main__":
    main()
