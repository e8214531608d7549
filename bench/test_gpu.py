"""The script for GPUs, in Numba's simulator: that it runs and that its answers are right; and its tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import _measure
import gpu_comparisons
import gpu_contestants
import numpy as np
import pytest
from contest import Task
from gpu_comparisons import LARGE, SMALL
from workloads import name_of

import fastopt

SIMULATOR = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "FASTOPT_BENCH_SMOKE": "1"}


def run(arguments, environment):
    command = [sys.executable, str(_measure.BENCH / "gpu.py"), *arguments]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FASTOPT_"))}
    return subprocess.run(command, env={**own, **environment}, capture_output=True, text=True, check=False)


def test_the_script(tmp_path):
    out = tmp_path / "gpu.json"
    done = run(["--out", str(out)], SIMULATOR)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["device"]["names"] == ["Numba's simulator"]
    assert [(each["algorithm"], each["step"]) for each in found["cells"]] == [
        *((name, "update") for name in ("AdamW", "SGD", "Lion")),
        ("AdamW", "clip + EMA + zero"),
    ]
    for cell in found["cells"]:
        assert not cell["failed"]
        assert cell["skipped"]["torch, fused"] == "is not in the simulator"
        wanted = {"copy", "copy, by a kernel", *gpu_contestants.OF_UPDATES}
        assert cell["peers"].keys() == {"fastopt", *({"fastopt, unpacked"} if cell["arrays"] > 1 else wanted)}
        for each in cell["peers"].values():
            for key in ("seconds", "cold_seconds", "loop_seconds", "host_seconds", "times_fastopt"):
                assert np.greater(each[key], 0).all()
        assert cell["peers"]["fastopt"]["times_fastopt"] == [1, 1, 1]
    for make in (gpu_comparisons.device, gpu_comparisons.overhead, gpu_comparisons.copy):
        assert make(found).startswith("| ")
    assert "not measured" in done.stdout


def test_the_configurations(tmp_path):
    out = tmp_path / "tune.json"
    done = run(["--tune", "--out", str(out)], SIMULATOR)
    assert done.returncode == 0, done.stdout + done.stderr
    (only,) = json.loads(out.read_text())["configurations"]
    assert (only["threads"], only["blocks"]) == (2, 1 << 14)
    assert only["found"]["70"]["fastopt"]["device"] > 0
    assert "(as it is)" in done.stdout


def test_without_a_device():
    done = run([], {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 1
    assert done.stderr.startswith("bench/gpu.py measures on a CUDA device: ")


@pytest.mark.parametrize("kind", ["update", "clip", "clip + EMA", "clip + EMA + zero"])
@pytest.mark.parametrize("algorithm", gpu_contestants.STATE)
def test_bytes_are_those_that_the_rules_count(algorithm, kind):
    more = {"update": 0, "clip": 4, "clip + EMA": 12, "clip + EMA + zero": 16}[kind]
    settings = Task(algorithm).settings
    cls = getattr(fastopt, algorithm)
    moved = 4 * cls.choose_rule({**cls._known_defaults(), **settings}).traffic
    assert gpu_contestants.bytes_moved(Task(algorithm, kind)) == moved + more


class Plain(np.ndarray):
    """An array of the CPU in the place of one of a device."""

    def copy_to_device(self, values):
        self[...] = values

    def copy_to_host(self):
        return np.asarray(self)


@pytest.mark.parametrize("sizes", [[5], [70_000], [997, 3, 30_001, 1994]])
def test_numbers_repeat_as_if_arrays_were_one(sizes):
    values = np.random.default_rng(0).normal(size=997).astype(np.float32)
    arrays = [np.empty(size, np.float32).view(Plain) for size in sizes]
    gpu_contestants.fill(arrays, values)
    every = np.resize(values, sum(sizes))
    np.testing.assert_array_equal(np.concatenate(arrays), every)
    sample = gpu_contestants.Sample(arrays)
    np.testing.assert_array_equal(sample.of(arrays), every[sample.places])
    np.testing.assert_array_equal(sample.of_period(values), every[sample.places])
    assert len(sample.places) <= 60_000
    assert {0, sum(sizes) - 1} <= set(sample.places)
    np.testing.assert_allclose(sample.norm(values), np.linalg.norm(every.astype(np.float64)))


def peer(seconds, ours=1.0, host=1.0, **more):
    def around(value):
        return [0.9 * value, value, 1.1 * value]

    times = {"seconds": around(seconds), "times_fastopt": around(seconds / ours)}
    times |= {"host_seconds": around(1e-5 * host), "host_times_fastopt": around(host)}
    return {**times, "loop_seconds": around(2 * seconds), **more}


def cell_of(workload, **peers):
    return {"workload": workload, "algorithm": "AdamW", "step": "update", "peers": peers}


def test_promises_are_held_against_what_was_measured():
    cells = [
        cell_of(SMALL, fastopt=peer(1.0), **{"torch, fused": peer(1.0, host=0.5)}),
        cell_of(name_of(10**6), fastopt=peer(1.0), **{"torch, fused": peer(1.25)}),
        cell_of(LARGE, fastopt=peer(1.0, of_copy=0.93), **{"torch, fused": peer(0.95)}),
    ]
    lines = gpu_comparisons.targets({"cells": cells}).splitlines()[2:]
    verdicts = [tuple(part.strip() for part in line.strip("|").split("|"))[1:] for line in lines]
    assert verdicts == [
        ("0.93", ">= 0.9", "met"),
        ("1.25", ">= 1", "met"),
        ("-", ">= 1", "not measured"),
        ("0.95", ">= 1", "NOT MET"),
        ("2", "<= 1.5", "NOT MET"),
    ]
    shown = gpu_comparisons.device({"cells": cells, "device": {"names": ["any"]}}).splitlines()
    assert "**950 ms** (0.95" in shown[4]
    assert "**1 s**" in shown[3]
