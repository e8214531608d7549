"""What the comparisons of peers.py say: tables for the README, and the promises held against them.

In each table the fastest of a column, or of a row, is bold, whoever that is; what was not measured is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from _measure import count, duration, multiple, table
from workloads import GPT2, MANY, PERCEPTRON

Results = dict[str, Any]
Cell = dict[str, Any]

#: How the libraries are called, in the order in which they are shown.
LABELS = {
    "fastopt": "fastopt",
    "fastopt, unpacked": "fastopt, without a pack",
    "fastopt, in torch": "fastopt, in PyTorch",
    "C, by hand": "C with OpenMP",
    "torch, fused": "PyTorch, fused",
    "torch, compiled": "PyTorch, compiled",
    "torch, foreach": "PyTorch, foreach",
    "torch, for-loop": "PyTorch, for-loop",
    "DeepSpeed": "DeepSpeed, CPU",
    "optax, jitted": "optax, jitted",
    "thinc": "thinc",
    "scikit-learn": "scikit-learn (Adam)",
    "NumPy, in place": "NumPy, in place",
    "NumPy, textbook": "NumPy, textbook",
}
TORCH = ("torch, fused", "torch, compiled", "torch, foreach", "torch, for-loop")
SHOWN_SIZES = ("vector of 1e2", "vector of 1e4", "vector of 1e6", "vector of 5e7")


def cell(results: Results, workload: str, algorithm: str = "AdamW", step: str = "update") -> Cell | None:
    """Return one comparison, if it was measured."""
    wanted = workload, algorithm, step
    for found in results["cells"]:
        if (found["workload"], found["algorithm"], found["step"]) == wanted:
            return dict(found)
    return None


def seconds(found: Cell | None, name: str) -> float | None:
    """Return the median time of a library."""
    return found["peers"][name]["seconds"][1] if found and name in found["peers"] else None


def fastest(found: Cell, names: Iterable[str]) -> str | None:
    """Return which of some libraries is the fastest there."""
    there = [name for name in names if name in found["peers"]]
    return min(there, key=lambda name: found["peers"][name]["seconds"][1], default=None)


def _entry(found: Cell | None, name: str | None, best: str | None) -> str:
    """Return a time, with the multiple of fastopt's."""
    value = None if name is None else seconds(found, name)
    if found is None or name is None or value is None:
        return ""
    text = f"**{duration(value)}**" if name == best else duration(value)
    if name == "fastopt":
        return text
    return f"{text} ({multiple(found['peers'][name]['times_fastopt'][1])})"


def _by_library(columns: Mapping[str, Cell | None], corner: str) -> str:
    """Return a table with a row for each library and a column for each comparison."""
    there = {head: found for head, found in columns.items() if found is not None}
    best = {head: fastest(found, LABELS) for head, found in there.items()}
    rows = []
    for name, label in LABELS.items():
        entries = [_entry(found, name, best[head]) for head, found in there.items()]
        if any(entries):
            rows.append([label, *entries])
    return table([corner, *there], rows)


def step(results: Results) -> str:
    """Return the times of AdamW over one vector, by size."""
    found = {name: cell(results, name) for name in SHOWN_SIZES}
    return _by_library({count(each["parameters"]): each for each in found.values() if each}, "AdamW")


def models(results: Results) -> str:
    """Return the times of AdamW over the arrays of models, alone and with what belongs to a whole step."""
    short = {PERCEPTRON: "perceptron", MANY: "1000 arrays", GPT2: "GPT-2 small"}
    columns = {
        f"{label}: {words}": cell(results, name, step=kind)
        for name, label in short.items()
        for kind, words in (("update", "update"), ("clip + EMA", "clip, update, EMA"))
    }
    return _by_library(columns, "AdamW")


def others(results: Results) -> str:
    """Return the times of the other algorithms: a row a comparison, of torch the fastest form."""
    rows = []
    workloads = ("vector of 1e4", "vector of 1e6", "vector of 5e7", MANY, GPT2)
    for found in (
        cell(results, workload, algorithm)
        for algorithm in ("SGD", "Adagrad", "Lion")
        for workload in workloads
    ):
        if found is not None:
            rows.append([f"{found['algorithm']}, {found['workload']}", *_row(found)])
    return table(["update", *ROW], rows)


def whole_step(results: Results) -> str:
    """Return the times of AdamW's step by what is done in it, for the arrays of models."""
    rows = []
    kinds = ("update", "clip", "clip + EMA", "clip + EMA + zero")
    for found in (cell(results, workload, step=kind) for workload in (GPT2, MANY) for kind in kinds):
        if found is not None:
            rows.append([f"{found['workload']}: {found['step'].replace('update', 'AdamW')}", *_row(found)])
    return table(["one whole step", *ROW], rows)


#: The columns of tables with a row a comparison.
ROW = {
    "fastopt": ("fastopt",),
    "C with OpenMP": ("C, by hand",),
    "PyTorch, its fastest": TORCH,
    "DeepSpeed": ("DeepSpeed",),
    "optax": ("optax, jitted",),
    "NumPy, in place": ("NumPy, in place",),
}


def _row(found: Cell) -> list[str]:
    names = [fastest(found, forms) for forms in ROW.values()]
    best = fastest(found, filter(None, names))
    return [_entry(found, name, best) for name in names]


def losses(results: Results) -> str:
    """Return every comparison in which another was faster in three rounds out of four."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for each in results["cells"]:
        for name, values in each["peers"].items():
            if not name.startswith("fastopt") and values["times_fastopt"][2] < 1:
                place = LABELS[name], each["workload"], each["step"]
                multiples = f"{each['algorithm']} {multiple(values['times_fastopt'][1])}"
                found.setdefault(place, []).append(multiples)
    rows = [
        [who, f"{where}: {step}", ", ".join(multiples)] for (who, where, step), multiples in found.items()
    ]
    rows.sort(key=lambda row: list(LABELS.values()).index(row[0]))
    return table(["faster than fastopt", "where", "its time, as a multiple of fastopt's"], rows)


def speed(found: Cell | None, peer: str, ours: str = "fastopt") -> float | None:
    """Return how many times as long as ours a library takes; of torch, its fastest form."""
    if found is None:
        return None
    name = fastest(found, TORCH) if peer == "torch" else peer
    if name not in found["peers"]:
        return None
    if ours == "fastopt":  # by rounds, which is more exact than the quotient of the medians
        return float(found["peers"][name]["times_fastopt"][1])
    own = seconds(found, ours)
    return None if own is None else float(found["peers"][name]["seconds"][1] / own)


def targets(results: Results, blas: Results, latency: Results) -> str:
    """Return what the library promises, what was measured, and whether that is enough."""
    rows: list[list[str]] = []

    def add(
        name: str, value: float | None, target: float | None = None, unit: str = "x", sign: str = ">="
    ) -> None:
        verdict = ""
        if value is None:
            verdict = "not measured"
        elif target is not None:
            verdict = "met" if (value >= target if sign == ">=" else value <= target) else "NOT MET"
        measured = "-" if value is None else f"{value:.3g} {unit}"
        rows.append([name, measured, "" if target is None else f"{sign} {target:g} {unit}", verdict])

    def compare(
        workload: str, what: dict[str, float | None], step: str = "update", ours: str = "fastopt"
    ) -> None:
        kept = "" if ours == "fastopt" else f", {ours.removeprefix('fastopt, ')}"
        for peer, target in what.items():
            label = LABELS.get(peer, "PyTorch, its fastest")
            name = f"AdamW, {step}, {workload}{kept}: speed over {label}"
            add(name, speed(cell(results, workload, step=step), peer, ours), target)

    peers = {"C, by hand": 0.95, "NumPy, textbook": 10, "NumPy, in place": None, "torch, fused": 1}
    compare("vector of 5e7", peers)
    compare("vector of 1e6", {"torch, fused": 1.2, "C, by hand": None})
    small = seconds(cell(results, "vector of 1e2"), "fastopt")
    add("AdamW, update, vector of 1e2", None if small is None else small * 1e6, 4, "µs", "<=")
    compare("vector of 1e2", {"torch, fused": 5})
    compare(MANY, {"torch, fused": 20})
    compare(MANY, {"torch, fused": None}, ours="fastopt, unpacked")
    compare(MANY, {"torch, fused": 4}, ours="fastopt, new gradients")
    compare(GPT2, {"torch": 1.25}, step="clip")
    compare(MANY, {"torch": 15}, step="clip")
    for case in blas["cases"]:
        side, size = case["side"], case["parameters"]
        add(
            f"matmul of {side}x{side} and step of {size:.0e}, in turn / their sum",
            case["quotient"],
            1.15,
            "x",
            "<=",
        )
    numba, own = latency["libraries"]["numba"]["import_s"], latency["libraries"]["fastopt"]
    for name, key, target in (
        ("import fastopt", "import_s", 0.1),
        ("first step, cold", "cold_step_s", 1.5),
        ("first step, warm", "warm_step_s", 0.35),
    ):
        add(f"{name}: more than import numba", own[key] - numba, target, "s", "<=")
    return table(["", "measured", "target", "verdict"], rows)
