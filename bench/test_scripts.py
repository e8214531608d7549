"""The scripts that run trainers, processes and many steps: that they run, and what they conclude.

Each checks its answers before it measures. Here they run at their smallest, in a process of their own, with
one thread for BLAS and OpenMP: on a busy machine, their spinning threads would take minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import _measure
import findings
import numpy as np
import pytest
import scaling
import slowdown


def results(script, folder, *arguments):
    """Return what a script writes, after a run that is a smoke test."""
    environment = {"FASTOPT_BENCH_SMOKE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    out = folder / "results.json"
    done = subprocess.run(
        [sys.executable, str(_measure.BENCH / script), "--out", str(out), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["versions"]["numpy"] == np.__version__
    assert found["machine"]["cores"] >= 1
    return found


def test_trainer(tmp_path):
    found = results("trainer.py", tmp_path)
    assert found["blas_kernels"]
    for case in (*found["numpy"], *found["sklearn"]):
        losses = [each["loss"] for each in case["by"].values()]
        np.testing.assert_allclose(losses, losses[0], rtol=0.02)
        for each in case["by"].values():
            assert 0 < each["step_s"] < each["epoch_s"]
    assert [case["target"] for case in found["sklearn"]] == [None, 1.25]
    assert len(findings.trainer(found).splitlines()) == 2 + 1
    assert len(findings.sklearn_fit(found).splitlines()) == 2 + 2


def test_latency(tmp_path):
    found = results("latency.py", tmp_path, "--only", "fastopt")
    own = found["libraries"]["fastopt"]
    assert 0 < own["import_s"] < own["warm_step_s"]
    assert own["warm_step_s"] < own["cold_step_s"]  # which compiles
    assert own["warm_step_bytes"] > own["import_bytes"] > found["libraries"]["numpy"]["import_bytes"]
    assert own["installed"].keys() == {"fastopt", "numba", "llvmlite", "numpy"}
    for row in found["compile"].values():
        assert row["cached"] < row["compiled"]
    assert len(findings.latency(found).splitlines()) == 2 + len(found["libraries"])
    assert len(findings.compiled(found).splitlines()) == 2 + 2


def test_slowdown(tmp_path):
    found = results("slowdown.py", tmp_path)
    for by_library in found["methods"].values():
        assert {"fastopt", "NumPy, in place"} <= by_library.keys()
        for each in by_library.values():
            assert each["steps"] == found["steps"] == found["window"] * len(each["seconds"])
            assert each["ratio"] > 0
    assert len(findings.slowdown(found).splitlines()) == 2 + len(found["methods"]) + 2


def test_scaling(tmp_path):
    found = results("scaling.py", tmp_path, "--chunks", "50000")
    all_threads = found["engine"]["threads"]
    assert found["seconds"].keys() == {"loop", "pause", "product"}
    for by_size in found["seconds"].values():
        assert list(by_size["10000"]) == ["1"]
        assert ("2" in by_size["200000"]) == (all_threads > 1)
        assert any("chunk 50000" in name for name in by_size["200000"]) == (all_threads > 1)
    assert found["summary"]["engine"]["worst"] >= found["summary"]["engine"]["mean"] >= 1
    assert "| 200,000 " in findings.scaling(found)
    assert "\n- In a loop, more threads than one pay " in findings.scaling(found)


def test_what_a_choice_of_threads_costs():
    loop = {"10": {"1": 1.0}, "20": {"1": 2.0, "2": 2.5, "2, chunk 5": 0.1}, "30": {"1": 3.0, "2": 1.5}}
    pause = {"10": {"1": 1.0}, "20": {"1": 2.0, "2": 4.0}, "30": {"1": 3.0, "2": 3.1}}
    found = scaling.summary({"loop": loop, "pause": pause}, {"10": 1, "20": 2, "30": 2})
    assert found["pays_from"] == {"loop": 30, "pause": None}
    assert found["engine"]["worst"] == 2.0  # two threads for 20, after a pause
    assert found["engine"]["worst_at"] == ("pause", "20")
    np.testing.assert_allclose(found["engine"]["mean"], (1.25 * 2.0 * 3.1 / 3.0) ** (1 / 6))
    assert found["best_cutoff"]["parameters"] == 20
    np.testing.assert_allclose(found["best_cutoff"]["worst"], 3.1 / 3.0)
    lines = scaling.words({"cutoff_bytes": 240, "threads": 2}, found).splitlines()
    assert lines == [
        "in a loop, more threads than one pay from 30 parameters on",
        "after a pause, more threads than one pay at no size",
        "the engine uses up to 2 threads above 15 parameters",
        "this costs at worst 2.00 times the best (after a pause, 20 parameters), on the average 1.17",
        "the cut-off that costs least at worst, 20, costs 1.03, on the average 1.01",
    ]


@pytest.mark.parametrize(
    ("most", "wanted"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 3, 4, 5]), (16, [1, 2, 3, 4, 6, 8, 12, 16])]
)
def test_numbers_of_threads(most, wanted):
    assert scaling.counts(most) == wanted


def test_the_check_of_many_steps_refuses_wrong_answers():
    p, g = slowdown.start(1000)
    sparse = np.where(np.arange(1000) < 50, g, 0).astype(g.dtype)
    runner = slowdown.by_fastopt("SGD", p)
    runner.set_gradients(g)
    for _ in range(slowdown.DENSE):
        runner.step()
    slowdown.check("fastopt", "SGD", runner.params, p, g, sparse, 0)
    with pytest.raises(AssertionError, match="fastopt: 500 of 500 differ from double's"):
        slowdown.check("fastopt", "SGD", runner.params + 1, p, g, sparse, 0)
    runner.params[3] = np.nan
    with pytest.raises(AssertionError, match="fastopt: 1 parameters are not finite"):
        slowdown.check("fastopt", "SGD", runner.params, p, g, sparse, 0)
