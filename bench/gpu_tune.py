"""Which launch configuration of the CUDA kernels is the fastest: ``gpu.py --tune``.

Each configuration has a process of its own, with an empty cache of compiled code: the constants are compiled
in. AdamW's time is compared as a multiple of a copy's in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import _measure
import gpu_contestants
import numpy as np
from _measure import BENCH, RESULTS, duration
from contest import Task
from gpu_clock import Clock, Times
from workloads import flat

from fastopt.engine import cuda


class Configuration(NamedTuple):
    """Threads of a block, vectors of four that each takes of a tile, and the most blocks of a launch."""

    threads: int
    vectors: int
    blocks: int


THREADS, VECTORS, BLOCKS = (64, 128, 256, 512), (1, 2, 4), (1 << 10, 1 << 12, 1 << 14, 1 << 16)
SIZES = (10**6, 10**9)
ROUNDS = 5
LONGEST = 120

#: What the constants are set to must be known before the kernels are made from them.
PROGRAM = """
import sys
sys.path.insert(0, {bench!r})
import _measure
from fastopt.engine import cuda
cuda.THREADS = {threads}
from fastopt.engine import cuda_kernels
cuda_kernels.TILE = {vectors} * cuda_kernels.WIDTH * cuda.THREADS
cuda_kernels.MOST = {blocks}
import gpu_tune
gpu_tune.measure({sizes!r})
"""


def measure(sizes: Sequence[int]) -> None:
    """Print the times of AdamW, and of a copy, by size."""
    tiny = max(sizes) <= 1000
    clock, numbers = (
        Clock(1 << (10 if tiny else 29)),
        gpu_contestants.period(97 if tiny else gpu_contestants.PERIOD),
    )
    task, found = Task("AdamW"), {}
    for size in sizes:
        contestant = gpu_contestants.make("fastopt", task, flat(size), numbers)
        copies = gpu_contestants.copies(min(size, 5 * 10**8), numbers)
        steps = {"fastopt": contestant.step, "copy": copies["copy"]}
        rounds = [
            {name: clock.times(step) for name, step in steps.items()} for _ in range(1 if tiny else ROUNDS)
        ]
        found[size] = {name: _medians([each[name] for each in rounds]) for name in steps}
    print(json.dumps(found))


def _medians(times: Sequence[Times]) -> dict[str, float]:
    return dict(zip(Times._fields, np.median(np.array(times), axis=0).tolist(), strict=True))


def tried(configuration: Configuration, sizes: Sequence[int]) -> dict[str, Any]:
    """Return what a process printed that has a configuration; or why it failed."""
    program = PROGRAM.format(bench=str(BENCH), sizes=tuple(sizes), **configuration._asdict())
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        command = [sys.executable, "-c", program]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done in {LONGEST} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(args: argparse.Namespace, about: dict[str, Any], tiny: bool) -> None:
    """Try threads with vectors, then numbers of blocks with the best of these; print and save the table."""
    from fastopt.engine import cuda_kernels

    vectors = cuda_kernels.TILE // (cuda_kernels.WIDTH * cuda.THREADS)
    usual = Configuration(cuda.THREADS, vectors, cuda_kernels.MOST)
    sizes: Sequence[int] = (70,) if tiny else SIZES[:1] if args.quick else SIZES
    found: dict[Configuration, dict[str, Any]] = {}

    def add(configuration: Configuration) -> None:
        if configuration not in found:
            found[configuration] = tried(configuration, sizes)
            print(configuration, found[configuration], flush=True)

    add(usual)
    for threads in () if tiny else THREADS:
        for vectors in VECTORS:
            add(Configuration(threads, vectors, usual.blocks))
    best = min(found, key=lambda each: _share(found[each], str(sizes[-1])))
    for blocks in () if tiny else BLOCKS:
        add(best._replace(blocks=blocks))
    rows = []
    for configuration, result in sorted(found.items(), key=lambda item: _share(item[1], str(sizes[-1]))):
        cells = [result["failed"]] if "failed" in result else []
        for size in () if cells else sizes:
            own = result[str(size)]["fastopt"]
            share = _share(result, str(size))
            cells += [duration(own["device"]), duration(own["cold"]), f"{share:.2f}"]
        cells += [""] * (3 * len(sizes) - len(cells))
        mark = " (as it is)" if configuration == usual else ""
        rows.append(
            [f"{configuration.threads} x {configuration.vectors}, {configuration.blocks}{mark}", *cells]
        )
    head = [f"{size:.0e}: {what}" for size in sizes for what in ("AdamW", "cold", "/ copy")]
    print(_measure.table(["threads x vectors, most blocks", *head], rows))
    args.quick, args.usual_out = args.quick or tiny, RESULTS / "gpu_tune.json"
    named = [{**configuration._asdict(), "found": result} for configuration, result in found.items()]
    _measure.save(args, about, {"configurations": named})


def _share(result: dict[str, Any], size: str) -> float:
    """Return AdamW's time as a multiple of a copy's; infinite where there is none."""
    if "failed" in result:
        return float("inf")
    return float(result[size]["fastopt"]["device"] / result[size]["copy"]["device"])
