"""Steps on a CUDA device by fastopt, torch (fused, foreach, compiled, in graphs) and apex, beside a copy.

The answers of each are held to a reference in float64 before it is timed; one that is wrong does not take
part. What is compared takes turns; the results are medians and quartiles over the rounds. The time of a step
is the device's, of steps that were queued while it was busy. Beside it are: the time after the caches were
flushed; that of a loop; the host's, which is the overhead. Steps of 1e6 parameters stay in the cache.

With --tune: AdamW by the threads of a block, the vectors that each takes of a tile, and the most blocks.
Without a GPU, ``NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 python bench/gpu.py`` tries the script itself, on
a few numbers; its times mean nothing.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

# Memory that numba.cuda frees some time later would be missing from what torch can have.
os.environ.setdefault("NUMBA_CUDA_MAX_PENDING_DEALLOCS_COUNT", "0")

import _measure  # it says which fastopt is measured
import gpu_comparisons
import gpu_contestants
import gpu_tune
import numpy as np
from _measure import duration, table
from _turns import SMOKE, note_spread, turns
from contest import KINDS, Task, Unavailable
from gpu_clock import Clock, Times
from gpu_contestants import CONTESTANTS, Contestant, Failed, Period
from peers import chosen, quartiles
from workloads import GPT2, MANY, Shapes, flat, gpt2_small, name_of, parameters

from fastopt import machine
from fastopt.engine import cuda

Cell = dict[str, Any]

#: Whether only answers are checked, of a few numbers.
TINY = SMOKE or cuda.SIMULATED
SIZES = (10**4, 10**6, 10**8, 10**9)
FEW = "3 arrays, 40 parameters"
WORKLOADS: dict[str, Shapes] = (
    {"vector of 7e1": flat(70), FEW: [(3, 5), (5,), (20,)]}
    if TINY
    else {**{name_of(size): flat(size) for size in SIZES}, MANY: [(1000,)] * 1000, GPT2: gpt2_small()}
)
#: Bytes that a contestant needs for each parameter, at least and with what it allocates for a moment.
LEAST, MOST = 20, 28
#: The most numbers of a copy: no cache holds a part of them that matters.
COPIED = 5 * 10**8
ROUNDS, QUICK = 9, 3
PACKAGES = ("numba-cuda", "numba-cuda-mlir", "torch", "triton", "apex")


def plan(quick: bool) -> dict[str, list[Task]]:
    """Return what is compared in each workload."""
    every, kinds = [Task(name) for name in gpu_contestants.STATE], [Task("AdamW", kind) for kind in KINDS]
    if TINY:
        return {"vector of 7e1": every, FEW: kinds[-1:]}
    if quick:
        return {name_of(10**4): every[:1], name_of(10**6): every[:1], MANY: kinds[:2]}
    vectors: dict[str, list[Task]] = {name_of(size): every for size in SIZES}
    return {**vectors, MANY: [*kinds, *every[1:]], GPT2: [*kinds, *every[1:]]}


def measure(
    workload: str, task: Task, names: Sequence[str], rounds: int, clock: Clock, numbers: Period
) -> Cell:
    """Return the times of a task by all that can do it.

    Where the memory does not hold them all, some at a time take turns with fastopt.
    """
    shapes = WORKLOADS[workload]
    size, room = parameters(shapes), free_bytes()
    cell: Cell = {"workload": workload, "parameters": size, "arrays": len(shapes)}
    cell |= {"algorithm": task.algorithm, "step": task.kind, "peers": {}, "skipped": {}, "failed": {}}
    if room < LEAST * size:
        needed = f"needs {LEAST * size / 2**30:.1f} GiB of the device's memory, {room / 2**30:.1f} are free"
        cell["skipped"] = dict.fromkeys(names, needed)
        return cell
    at_once = max(1, room // (MOST * size) - 1)
    ours = _made("fastopt", task, shapes, numbers, cell)
    if ours is None:
        return cell
    copied = min(size, COPIED)
    copies = gpu_contestants.copies(copied, numbers) if len(shapes) == 1 else {}
    found: dict[str, list[Times]] = {}
    base: dict[str, list[Times]] = {}
    moved = dict.fromkeys(copies, 8 * copied)
    others = [name for name in names if name != "fastopt"]
    for at in range(0, max(1, len(others)), at_once):
        some: dict[str, Contestant | None] = {"fastopt": ours}
        for name in others[at : at + at_once]:
            some[name] = _made(name, task, shapes, numbers, cell)
        there = {name: each for name, each in some.items() if each is not None}
        steps = {**{name: each.step for name, each in there.items()}, **copies}
        runs = {name: lambda step=step: clock.times(step) for name, step in steps.items()}
        times = turns(runs, rounds)
        for name, each in there.items():
            moved[name] = size * gpu_contestants.bytes_moved(task, each.state_dtype)
        for name, values in times.items():
            found.setdefault(name, []).extend(values)
            base.setdefault(name, []).extend(times["fastopt"])
            note_spread(f"{workload}, {task.algorithm}, {task.kind}: {name}", [v.device for v in values])
        del some, there, steps, runs
        _free()
    copy = [each.device for each in found.get("copy", [])]
    for name in [*copies, *CONTESTANTS]:
        if name in found:
            cell["peers"][name] = summary(found[name], base[name], moved[name])
    if copy:  # the copy has a value for each round too: where all are there at once, of the same round
        fastest = 8 * copied / float(np.median(copy))
        for each in cell["peers"].values():
            each["of_copy"] = each["bytes"] / each["seconds"][1] / fastest
    return cell


def summary(times: Sequence[Times], ours: Sequence[Times], moved: int) -> dict[str, Any]:
    """Return the quartiles of times and of their multiples of fastopt's in the same rounds."""
    values, own = np.array(times), np.array(ours)
    found: dict[str, Any] = {"bytes": moved}
    for column, name in enumerate(Times._fields):
        key = "" if name == "device" else f"{name}_"
        found[f"{key}seconds"] = quartiles(values[:, column])
        found[f"{key}times_fastopt"] = quartiles(values[:, column] / own[:, column])
    found["gb_per_s"] = moved / found["seconds"][1] / 1e9
    return found


def shown(cell: Cell) -> str:
    """Return a cell as a table, the fastest first."""
    rows = []
    for name, found in sorted(cell["peers"].items(), key=lambda item: item[1]["seconds"][1]):
        times = [found[key][1] for key in ("seconds", "cold_seconds", "loop_seconds", "host_seconds")]
        share = f"{found['of_copy']:.2f}" if "of_copy" in found else ""
        speed = f"{found['gb_per_s']:.0f}"
        ratio = f"{found['times_fastopt'][1]:.2f}"
        rows.append([name, *map(duration, times), speed, share, ratio])
    title = f"{cell['workload']}: {cell['algorithm']}, {cell['step']}"
    return table([title, "device", "cold", "loop", "host", "GB/s", "of a copy's", "/ fastopt"], rows)


def _made(name: str, task: Task, shapes: Shapes, numbers: Period, cell: Cell) -> Contestant | None:
    try:
        return gpu_contestants.make(name, task, shapes, numbers)
    except Failed as reason:
        cell["failed"][name] = str(reason)
    except Unavailable as reason:
        cell["skipped"][name] = str(reason)
    return None


def free_bytes() -> int:
    """Return how much of the device's memory can be taken."""
    _free()
    return 1 << 30 if cuda.SIMULATED else int(0.95 * cuda.package().current_context().get_memory_info()[0])


def _free() -> None:
    """Give back the memory of what is done."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def describe() -> dict[str, Any]:
    """Return the date, the machine, the device, and the versions."""
    about = _measure.describe()
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            about["versions"][name] = importlib.metadata.version(name)
    own, found = cuda.package().current_context().device, {"package": cuda.package().__name__}
    found["names"] = ["Numba's simulator"] if cuda.SIMULATED else machine.gpus()
    found["compute_capability"] = list(own.compute_capability)
    for name in () if cuda.SIMULATED else ("MULTIPROCESSOR_COUNT", "L2_CACHE_SIZE"):
        found[name.lower()] = int(getattr(own, name))
    return {**about, "device": found}


def require_device() -> None:
    """End the program, with what is missing, unless there is a device; a smoke test is content."""
    try:
        cuda.package()
    except (ModuleNotFoundError, RuntimeError) as error:
        if SMOKE:
            print(f"skipped: {error}")
            sys.exit(0)
        sys.exit(f"bench/gpu.py measures on a CUDA device: {error}")


def main() -> None:
    parser = _measure.arguments(__doc__, "gpu.json")
    words = "; ".join(", ".join(each) for each in (WORKLOADS, gpu_contestants.STATE, KINDS, CONTESTANTS))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of {words}")
    parser.add_argument("--tune", action="store_true", help="which launch configuration is the fastest")
    args = parser.parse_args()
    require_device()
    if args.tune:
        gpu_tune.run(args, describe(), TINY)
        return
    rounds = 1 if TINY else QUICK if args.quick else ROUNDS
    args.quick |= TINY
    try:
        tasks, names = chosen(args.only, plan(args.quick), CONTESTANTS)
    except ValueError as error:
        parser.error(str(error))
    about = describe()
    print(", ".join(about["device"]["names"]), about["versions"])
    clock, numbers = (
        Clock(1 << (10 if TINY else 29)),
        gpu_contestants.period(97 if TINY else gpu_contestants.PERIOD),
    )
    cells: list[Cell] = []
    begun, count = time.perf_counter(), sum(map(len, tasks.values()))
    for workload, of_workload in tasks.items():
        for task in of_workload:
            cell = measure(workload, task, names, rounds, clock, numbers)
            cells.append(cell)
            minutes, seconds = divmod(round(time.perf_counter() - begun), 60)
            print(f"\n{len(cells)} of {count}, after {minutes}:{seconds:02}\n{shown(cell)}")
            for kind in ("skipped", "failed"):
                for name, reason in cell[kind].items():
                    print(f"{kind}: {name} ({reason})")
            sys.stdout.flush()
        _measure.save(args, about, {"cells": cells})
    print(f"\n{gpu_comparisons.targets({'cells': cells})}")
    if any(cell["failed"] for cell in cells):
        sys.exit("failed: see above")


if __name__ == "__main__":
    main()
