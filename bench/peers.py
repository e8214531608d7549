"""The same steps by fastopt and by all others that are installed: NumPy, scikit-learn, torch, DeepSpeed ...

Each library takes them in its best configuration (see bench/libraries), after its answers were held to a
reference in float64. What is compared takes turns; the results are medians and quartiles over the rounds,
of the times and of the rounds' ratios to fastopt's. What does not take part is named with the reason.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import _measure  # first: it says which fastopt is measured
import numpy as np
from _measure import duration, interleaved
from contest import KINDS, SETTINGS, Contestant, Task, Unavailable, check
from libraries import PEERS, versions
from numpy.typing import NDArray
from workloads import GPT2, MANY, PERCEPTRON, SIZES, WORKLOADS, Arrays, name_of, parameters, start

#: Those that all libraries are compared in. The others are for the picture of fastopt beside NumPy.
MAIN = ("AdamW", "SGD", "Adagrad", "Lion")
#: Buffers of the parameters' size that a contestant may need, with what it allocates for a moment.
MOST_BUFFERS = 9
COMPILED = "torch, compiled"
#: Those that take seconds a step for as many parameters, where only AdamW's update shows what they need.
LARGE = 3 * 10**7
SLOW = ("NumPy, textbook", "scikit-learn", "thinc", "torch, for-loop", "fastopt, unpacked")


class Run(NamedTuple):
    """How much to measure: rounds, of small steps and of those that take long; and seconds a round."""

    rounds: int
    rounds_of_large: int
    seconds: float


FULL, QUICK = Run(7, 5, 0.015), Run(3, 2, 0.004)


def plan(quick: bool = False) -> dict[str, list[Task]]:
    """Return what is compared in each workload: AdamW everywhere, the other algorithms at some sizes."""
    kinds = ("update", "clip + EMA")
    both = [Task(algorithm, kind) for algorithm in MAIN for kind in kinds]
    update = [Task(algorithm) for algorithm in MAIN]
    beside_numpy = [Task(algorithm) for algorithm in SETTINGS if algorithm not in MAIN]
    found = {
        **{name_of(size): [Task("AdamW")] for size in SIZES},
        name_of(10**2): [*update, Task("AdamW", "clip + EMA")],
        name_of(10**4): both + beside_numpy,
        name_of(10**6): both,
        name_of(5 * 10**7): [*update, Task("AdamW", "clip + EMA"), *beside_numpy],
        PERCEPTRON: both,
        MANY: [*(Task("AdamW", kind) for kind in KINDS), *both[2:]],
        GPT2: [*(Task("AdamW", kind) for kind in KINDS), *update[1:]],
    }
    if quick:
        found = {name: tasks for name, tasks in found.items() if parameters(WORKLOADS[name]) <= 10**6}
    return found


def make(name: str, task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """Return a contestant whose answers are right, or raise Unavailable."""
    if task.algorithm not in MAIN and name not in ("fastopt", "NumPy, in place"):
        raise Unavailable("this algorithm is compared with NumPy alone")
    if sum(array.size for array in params) > LARGE and name in SLOW and task != Task("AdamW"):
        raise Unavailable("takes long; see AdamW's update")
    if name == COMPILED and task.algorithm != "AdamW":
        raise Unavailable("takes seconds to compile; see AdamW")
    contestant = PEERS[name](task, params, grads)
    try:
        check(task, contestant, params, grads)
    except AssertionError as wrong:
        if name == "fastopt":
            raise
        raise Unavailable(f"its answers are others: {wrong}") from None
    return contestant


def measure(
    workload: str, task: Task, names: Sequence[str], run: Run, params: Arrays, grads: Arrays
) -> dict[str, Any]:
    """Return the times of a task by all that can do it.

    Where memory does not hold them all, some at a time take turns with fastopt.
    """
    size = parameters(WORKLOADS[workload])
    each = MOST_BUFFERS * 4 * size
    at_once = max(1, min(len(PEERS), _measure.free_bytes() * 3 // 4 // each - 1))
    rounds = run.rounds_of_large if size > LARGE else run.rounds
    ours = make("fastopt", task, params, grads)
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    own = []
    others = [name for name in names if name != "fastopt"]
    for at in range(0, max(1, len(others)), at_once):
        steps = {"fastopt": ours.step}
        for name in others[at : at + at_once]:
            try:
                steps[name] = make(name, task, params, grads).step
            except Unavailable as reason:
                skipped[name] = str(reason)
        times = interleaved(steps, rounds, run.seconds, f"{workload}, {task.algorithm}, {task.kind}: ")
        own.append(times.pop("fastopt"))
        for name, values in times.items():
            found[name] = {"seconds": quartiles(values), "times_fastopt": quartiles(values / own[-1])}
        del steps
        gc.collect()  # their memory is needed for the next ones
    found["fastopt"] = {"seconds": quartiles(np.concatenate(own)), "times_fastopt": [1.0, 1.0, 1.0]}
    return {
        "workload": workload,
        "parameters": size,
        "arrays": len(params),
        "algorithm": task.algorithm,
        "step": task.kind,
        "peers": {name: found[name] for name in PEERS if name in found},
        "skipped": skipped,
    }


def quartiles(values: NDArray[np.float64]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return [float(value) for value in np.quantile(values, (0.25, 0.5, 0.75))]


def shown(cell: dict[str, Any]) -> str:
    """Return a cell as a table, the fastest first."""
    rows = []
    for name, found in sorted(cell["peers"].items(), key=lambda item: item[1]["seconds"][1]):
        low, middle, high = found["seconds"]
        spread = f"{duration(low)} to {duration(high)}"
        rows.append([name, duration(middle), spread, f"{found['times_fastopt'][1]:.2f}"])
    head = [f"{cell['workload']}: {cell['algorithm']}, {cell['step']}", "time", "middle half", "/ fastopt"]
    return _measure.table(head, rows)


def chosen(
    words: Sequence[str], tasks: dict[str, list[Task]], libraries: Iterable[str] = PEERS
) -> tuple[dict[str, list[Task]], list[str]]:
    """Return the part of a plan, and the libraries, that some words name; of what they do not, all.

    Raises
    ------
    ValueError
        If there is nothing of such a name.
    """
    kinds_of_names = [list(tasks), list(SETTINGS), list(KINDS), list(libraries)]
    unknown = [word for word in words if not any(word in names for names in kinds_of_names)]
    if unknown:
        known = "; ".join(", ".join(names) for names in kinds_of_names)
        raise ValueError(f"there is no {unknown[0]!r}, but: {known}")
    workloads, algorithms, kinds, peers = (
        [name for name in names if name in words] or names for names in kinds_of_names
    )
    found = {
        name: [task for task in tasks[name] if task.algorithm in algorithms and task.kind in kinds]
        for name in workloads
    }
    return {name: tasks for name, tasks in found.items() if tasks}, peers


def main() -> None:
    parser = _measure.arguments(__doc__, "peers.json")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of " + "; ".join(", ".join(names) for names in (WORKLOADS, SETTINGS, KINDS, PEERS)),
    )
    args = parser.parse_args()
    try:
        tasks, names = chosen(args.only, plan(args.quick))
    except ValueError as error:
        parser.error(str(error))
    run = QUICK if args.quick else FULL
    about = _measure.describe()
    about["versions"] |= versions()
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    cells: list[dict[str, Any]] = []
    begun, count = time.perf_counter(), sum(map(len, tasks.values()))
    for workload, of_workload in tasks.items():
        params, grads = start(WORKLOADS[workload])
        for task in of_workload:
            cell = measure(workload, task, names, run, params, grads)
            cells.append(cell)
            minutes, seconds = divmod(round(time.perf_counter() - begun), 60)
            print(f"\n{len(cells)} of {count}, after {minutes}:{seconds:02}\n{shown(cell)}", flush=True)
            for name, reason in cell["skipped"].items():
                print(f"skipped: {name} ({reason})")
        _measure.save(args, about, {"cells": cells})


if __name__ == "__main__":
    main()
