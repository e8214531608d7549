"""What gpu.py found: tables for bench/README.md, and the promises held against them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _measure import duration, multiple, table
from comparisons import cell, fastest
from workloads import GPT2, MANY, name_of

Results = dict[str, Any]
Cell = dict[str, Any]

#: How the contestants are called, in the order in which they are shown.
LABELS = {
    "fastopt": "fastopt",
    "fastopt, unpacked": "without a pack",
    "fastopt, torch's tensors": "of PyTorch's tensors",
    "fastopt, in a graph": "in a graph",
    "fastopt, bfloat16 state": "bfloat16 state",
    "fastopt, float8 state": "float8 state",
    "torch, fused": "PyTorch, fused",
    "torch, fused, in a graph": "fused, in a graph",
    "torch, foreach": "foreach",
    "torch, compiled": "compiled",
    "apex": "apex",
}
SMALL, LARGE = name_of(10**4), name_of(10**9)


def _rows(results: Results, entry: Callable[[Cell, str], str], small: bool) -> str:
    """Return a row for each comparison, of those of few parameters or of many arrays, or of all."""
    there = [name for name in LABELS if any(name in each["peers"] for each in results["cells"])]
    rows = []
    for each in results["cells"]:
        if small and each["workload"] not in (SMALL, MANY, GPT2):
            continue
        what = f"{each['algorithm']}, {each['step']}, {each['workload']}"
        rows.append([what, *(entry(each, name) if name in each["peers"] else "" for name in there)])
    return table(["", *map(LABELS.__getitem__, there)], rows)


def device(results: Results) -> str:
    """Return the times on the device, with the multiples of fastopt's. Bold: the fastest in float32."""

    def entry(found: Cell, name: str) -> str:
        of = found["peers"][name]
        alike = [other for other in LABELS if not other.endswith(" state")]
        text = duration(of["seconds"][1])
        text = f"**{text}**" if name == fastest(found, alike) else text
        return text if name == "fastopt" else f"{text} ({multiple(of['times_fastopt'][1])})"

    return f"{_rows(results, entry, small=False)}\n\nOn: {'; '.join(results['device']['names'])}."


def overhead(results: Results) -> str:
    """Return the times until a call returns, and of a loop: where the host is the slower of the two."""

    def entry(found: Cell, name: str) -> str:
        of = found["peers"][name]
        return f"{duration(of['host_seconds'][1])}, {duration(of['loop_seconds'][1])}"

    return _rows(results, entry, small=True)


def copy(results: Results) -> str:
    """Return which share of the bandwidth of a copy the steps over one vector have."""
    cells = [each for each in results["cells"] if "copy" in each["peers"]]
    there = [name for name in LABELS if any(name in each["peers"] for each in cells)]
    rows = []
    for each in cells:
        speeds = [f"{each['peers'][name]['gb_per_s']:.0f}" for name in ("copy", "copy, by a kernel")]
        shares = [f"{each['peers'][name]['of_copy']:.2f}" if name in each["peers"] else "" for name in there]
        rows.append([f"{each['algorithm']}, {each['workload']}", *speeds, *shares])
    return table(["", "copy, GB/s", "by a kernel", *(LABELS[name] for name in there)], rows)


def targets(results: Results) -> str:
    """Return what is promised, what was measured, and whether that is enough."""
    rows = []

    def add(name: str, value: float | None, target: float, at_most: bool = False) -> None:
        sign = "<=" if at_most else ">="
        verdict = "not measured"
        if value is not None:
            verdict = "met" if (value <= target if at_most else value >= target) else "NOT MET"
        rows.append([name, "-" if value is None else f"{value:.3g}", f"{sign} {target:g}", verdict])

    def of(workload: str, name: str, key: str) -> Any:
        found = cell(results, workload)
        return None if found is None else found["peers"].get(name, {}).get(key)

    add(f"AdamW, {LARGE}: share of a copy's bandwidth", of(LARGE, "fastopt", "of_copy"), 0.9)
    for workload in (name_of(10**6), name_of(10**8), LARGE):
        value = of(workload, "torch, fused", "times_fastopt")
        name = f"AdamW, {workload}: speed over PyTorch, fused"
        add(name, None if value is None else value[1], 1)
    value = of(SMALL, "torch, fused", "host_times_fastopt")
    ratio = None if value is None else 1 / value[1]
    add(f"AdamW, {SMALL}: overhead over that of PyTorch, fused", ratio, 1.5, at_most=True)
    return table(["", "measured", "target", "verdict"], rows)
