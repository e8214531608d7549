"""The README's tables of training, latency, subnormal numbers and threads: what tables.py writes there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import scaling as scales
from _measure import count, duration, multiple, table

Results = dict[str, Any]

#: How those who take the steps are called, in the order in which they are shown.
LABELS = {
    "fastopt": "fastopt",
    "torch, fused": "PyTorch, fused",
    "torch": "PyTorch",
    "NumPy, in place": "NumPy, in place",
    "NumPy, textbook": "NumPy, textbook",
}


def trainer(results: Results) -> str:
    """Return the time of an epoch of the NumPy network, and the step's share of it, by who takes the step."""
    cases = results["numpy"]
    shown = {by: label for by, label in LABELS.items() if any(by in case["by"] for case in cases)}
    lines = []
    for case in cases:
        cells = []
        for by in shown:
            found = case["by"].get(by)
            text = "" if found is None else duration(found["epoch_s"])
            bold = f"**{text}**" if by == "fastopt" else text
            cells.append(text and f"{bold}, {found['share']:.0%}")
        lines.append([f"{case['parameters']:,}", *cells])
    return table(["parameters", *shown.values()], lines)


def sklearn_fit(results: Results) -> str:
    """Return how a fit of scikit-learn's classifier compares with that of fastopt's, in an epoch."""
    lines = []
    for case in results["sklearn"]:
        ours, theirs = case["by"]["fastopt"], case["by"]["scikit-learn"]
        epochs = (f"{duration(each['epoch_s'])}, {each['share']:.0%}" for each in (theirs, ours))
        target = case["target"]
        verdict = "met" if target and case["speed"] >= target else "NOT MET"
        lines.append(
            [
                ", ".join(map(str, case["hidden"])),
                f"{case['parameters']:,}",
                *epochs,
                duration(case["products_s"]),
                multiple(case["speed"]),
                "" if target is None else f">= {multiple(target)}, {verdict}",
            ]
        )
    head = ["hidden layers", "parameters", "scikit-learn", "fastopt"]
    return table([*head, "matrix products", "a fit's speed-up", "target"], lines)


def latency(results: Results) -> str:
    """Return what is waited for until the first step is done, and what a process carries then."""
    lines = []
    for name, found in results["libraries"].items():
        times = (found.get(key) for key in ("import_s", "cold_step_s", "warm_step_s"))
        memory = (found.get(key) for key in ("import_bytes", "warm_step_bytes"))
        cells = ["" if seconds is None else duration(seconds) for seconds in times]
        cells += ["" if size is None else _mib(size) for size in memory]
        label = f"**{name}**" if name == "fastopt" else name
        lines.append([label, *cells, _mib(sum(found["installed"].values()))])
    head = [
        "",
        "import",
        "first step, cold",
        "warm",
        "memory: imported",
        "after the step",
        "on disk, with all",
    ]
    return table(head, lines)


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def compiled(results: Results) -> str:
    """Return how long methods take to compile: the quickest, the slowest and the one in the middle."""
    kinds = {"compiled": "fastopt, compiled", "cached": "fastopt, from the cache", "jax": "jax and optax"}
    lines = []
    for kind, label in kinds.items():
        found = sorted((row[kind], name) for name, row in results["compile"].items() if kind in row)
        if found:
            chosen = (found[0], found[len(found) // 2], found[-1])
            lines.append(
                [label, str(len(found)), *(f"{duration(seconds)} ({name})" for seconds, name in chosen)]
            )
    return table(["first step of a method", "methods", "quickest", "median", "slowest"], lines)


def slowdown(results: Results) -> str:
    """Return a step's time at the beginning and at the end, where most gradients are zero."""
    methods = results["methods"]
    by = ("fastopt", "torch, fused", "torch", "NumPy, in place")
    shown = [each for each in by if any(each in found for found in methods.values())]
    lines = []
    for method, by_library in methods.items():
        cells = []
        for each in shown:
            if (found := by_library.get(each)) is None:
                cells.append("")
                continue
            early = "" if found["steps"] == results["steps"] else f" after {found['steps']:,}"
            times = f"{duration(found['first_s'])}, {duration(found['last_s'])}{early}"
            cells.append(f"{times} ({multiple(found['ratio'])})")
        lines.append([method, *cells])
    cost = ", ".join(f"{name} {multiple(value)}" for name, value in results["subnormal_cost"].items())
    head = [
        f"{count(results['size'])} parameters, {results['steps']:,} steps",
        *(LABELS[each] for each in shown),
    ]
    return f"{table(head, lines)}\n\nThis processor's time on subnormal numbers, over that on others: {cost}."


def scaling(results: Results) -> str:
    """Return the time of a step on one thread and on all, and what the engine's choice between them costs."""
    seconds, chosen, engine = results["seconds"], results["chosen"], results["engine"]
    cutoff = engine["cutoff_bytes"] // scales.BYTES_PER_PARAMETER
    lines = []
    for size in chosen:
        if int(size) not in (cutoff, cutoff + 1) and (int(size) < 10**5 or size[0] not in "125"):
            continue
        cells = []
        for by_size in seconds.values():
            ways = scales.plain(by_size[size])
            most = max(ways, key=int)
            cells.append(_mark(ways["1"], chosen[size] == 1))
            if engine["threads"] > 1:
                cells.append("" if most == "1" else _mark(ways[most], chosen[size] > 1))
        lines.append([f"{int(size):,}", *cells])
    names = ["1 thread"] if engine["threads"] == 1 else ["1 thread", str(engine["threads"])]
    head = [f"{scales.TITLES[each]}: {n}" for each in seconds for n in names]
    return f"{table(['parameters', *head], lines)}\n\n{_sentences(engine, results['summary'])}"


def _mark(seconds: float, chosen: bool) -> str:
    return f"**{duration(seconds)}**" if chosen else duration(seconds)


def _sentences(engine: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    lines = (f"- {line[0].upper()}{line[1:]}." for line in scales.words(engine, summary).splitlines())
    return "\n".join(["In bold: the engine's choice.", "", *lines])
