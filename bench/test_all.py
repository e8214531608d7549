"""The command that makes everything, and the tables that are made from the comparisons."""

from __future__ import annotations

import importlib
import json

import all as everything
import comparisons
import pytest
import tables
from all import Part
from workloads import GPT2, MANY


def test_every_part_is_there():
    scripts = {part.arguments[0] for part in everything.PARTS.values() if part.arguments[0] != "-m"}
    there = {
        str(path)
        for path in everything.BENCH.glob("*.py")
        if '\nif __name__ == "__main__"' in path.read_text()
    }
    assert scripts == there - {str(everything.BENCH / "all.py")}
    made = [
        argument for part in everything.PARTS.values() for argument in part.arguments if ".json" in argument
    ]
    read = {f"{{results}}/{file}" for files, _ in tables.TABLES.values() for file in files}
    assert read <= set(made)


def test_what_cannot_run_is_named(monkeypatch, tmp_path, capfd):
    parts = {
        "lacking": Part(["-c", "1/0"], "needs what is missing", ("json", "no_such_package")),
        "broken": Part(["-c", "1/0"], "fails"),
        "sound": Part(["-c", "import sys; print(sys.argv[1:])", "{results}"], "prints"),
    }
    monkeypatch.setattr(everything, "PARTS", parts)
    assert everything.run(list(parts), tmp_path, tmp_path, tmp_path, quick=True) == ["broken"]
    out = capfd.readouterr().out
    assert "skipped: lacking (no_such_package not installed)" in out
    assert "=== 3 of 3, after 0:0" in out
    assert f"['{tmp_path}', '--quick']" in out
    assert out.rstrip().endswith("failed: broken")


def test_a_try_changes_nothing():
    before = [path.stat().st_mtime_ns for path in tables.PLACES]
    assert everything.main(["--quick", "--only", "tables"]) == 0
    assert before == [path.stat().st_mtime_ns for path in tables.PLACES]


def _cell(workload, step="update", algorithm="AdamW", **seconds):
    ours = seconds["fastopt"]
    names = {
        "c": "C, by hand",
        "fused": "torch, fused",
        "foreach": "torch, foreach",
        "numpy": "NumPy, in place",
    }
    peers = {
        names.get(name, name): {
            "seconds": [0.9 * t, t, 1.1 * t],
            "times_fastopt": [0.95 * t / ours, t / ours, 1.05 * t / ours],
        }
        for name, t in seconds.items()
    }
    found = {"workload": workload, "parameters": 10**6, "arrays": 1, "algorithm": algorithm, "step": step}
    return {**found, "peers": peers, "skipped": {}}


RESULTS = {
    "cells": [
        _cell("vector of 1e6", fastopt=2e-4, c=1e-4, fused=3e-4, numpy=1e-3),
        _cell("vector of 1e6", algorithm="Lion", fastopt=2e-4, c=1.98e-4),
        _cell(GPT2, "clip", fastopt=0.1, fused=0.2, foreach=0.15),
        _cell(MANY, fastopt=1e-4, fused=1e-2),
    ]
}


def test_tables_show_losses_as_plainly_as_wins():
    lines = comparisons.step(RESULTS).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "fastopt",
        "C with OpenMP",
        "PyTorch, fused",
        "NumPy, in place",
    ]
    assert "200 µs" in lines[2]
    assert "**" not in lines[2]
    assert "**100 µs** (0.50" in lines[3]
    losses = comparisons.losses(RESULTS)
    assert "AdamW 0.50" in losses
    assert "Lion" not in losses  # the quartiles lie on both sides


def test_of_torch_the_fastest_form_is_shown():
    assert "150 ms (1.50" in comparisons.whole_step(RESULTS)
    assert comparisons.speed(comparisons.cell(RESULTS, GPT2, step="clip"), "torch") == pytest.approx(1.5)


def test_figures_are_drawn_of_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    figures = importlib.import_module("figures")
    about = {
        "machine": {"cpu": "any", "cores": 2},
        "versions": {"numpy": "2"},
        "date": "2026-11-20",
        "noisy": [],
    }
    cells = [_cell("vector of 1e4", fastopt=3e-6, numpy=1e-5), *RESULTS["cells"]]
    (tmp_path / "peers.json").write_text(json.dumps({**about, "cells": cells}))
    figures.main(["--results", str(tmp_path), "--out", str(tmp_path)])
    made = sorted(path.name for path in tmp_path.glob("*.png"))
    assert made == ["algorithms.png", "sizes.png", "step.png", "whole_step.png"]


def test_promises_are_held_against_what_was_measured():
    blas = {"cases": [{"side": 128, "parameters": 10**5, "quotient": 1.2}]}
    own = {"import_s": 0.25, "cold_step_s": 1.2, "warm_step_s": 0.4}
    latency = {"libraries": {"numba": {"import_s": 0.2}, "fastopt": own}}
    found = comparisons.targets(RESULTS, blas, latency)
    verdicts = {}
    for line in found.splitlines()[2:]:
        name, measured, _, verdict = (entry.strip() for entry in line.strip("|").split("|"))
        verdicts[name] = measured, verdict
    assert verdicts[f"AdamW, clip, {GPT2}: speed over PyTorch, its fastest"] == ("1.5 x", "met")
    assert verdicts["AdamW, update, vector of 1e6: speed over C with OpenMP"] == ("0.5 x", "")
    assert verdicts["AdamW, update, vector of 5e7: speed over PyTorch, fused"] == ("-", "not measured")
    assert verdicts["matmul of 128x128 and step of 1e+05, in turn / their sum"] == ("1.2 x", "NOT MET")
    assert verdicts["import fastopt: more than import numba"] == ("0.05 s", "met")
