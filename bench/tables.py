"""Writes the tables of README.md and bench/README.md, from results and classes, between their markers.

A table stands between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``. Numbers in the README are never
typed: ``python bench/tables.py --check`` fails where one is not what was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import comparisons
import findings
import gpu_comparisons
import numpy as np
from _measure import BENCH, RESULTS, count, duration, multiple, table

import fastopt

Results = dict[str, Any]


def machine(results: Results) -> str:
    """Return one line about where, with what and when something was measured."""
    found, versions = results["machine"], results["versions"]
    with_versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{found['cpu']}, {found['cores']} cores; {with_versions}; {results['date'][:10]}"


#: How the algorithms are grouped in the README; those that are not named here come last.
KINDS = {
    "The classics": "SGD Momentum NAG Adagrad Adadelta RMSprop Adam AdamW",
    "Relatives of Adam": (
        "NAdam RAdam Adamax AdaBelief Yogi LaProp Adan AdEMAMix ADOPT Grams AdamAtan2 Sophia"
    ),
    "Signs, and other ways": "Lion SignSGD Signum Rprop ASGD FTRL SparseAdam",
    "For large batches: whole tensors": "LARS LAMB NovoGrad StableAdamW AdamMini MARS",
    "No learning rate, no schedule": "Prodigy DAdaptAdam DoG ScheduleFreeSGD ScheduleFreeAdamW",
    "Matrices, and second order": "Muon SOAP Adafactor LBFGS",
}


def classes() -> str:
    """Return the table of algorithms, from the classes and their docstrings."""
    named = [name for names in KINDS.values() for name in names.split()]
    rest = [name for name in fastopt.algorithms.__all__ if name not in named]
    parts = []
    for kind, names in [*KINDS.items(), *([("Others", " ".join(rest))] if rest else [])]:
        rows = [class_row(getattr(fastopt, name)) for name in names.split()]
        heading = "| class | paper | state | bytes | when to choose it |\n|---|---|---|---|---|\n"
        parts.append(f"**{kind}**\n\n{heading}" + "\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts)


def class_row(cls: type[fastopt.Optimizer]) -> list[str]:
    """Return an algorithm's row: what its docstring and its rule say."""
    when = re.match(r"((?:For|When) .*?)\. ", section(cls, "Notes") + " ")
    if when is None:
        raise ValueError(f"the notes of {cls.__name__} must begin with when to choose it")
    plain = re.sub(r":math:`(.*?)`", r"\1", when.group(1)).replace("``", "`")
    for letter, written in GREEK.items():
        plain = plain.replace(letter, written)
    if len(plain) > 100:
        plain = plain.split(": ")[0]
    state, moved = cost(cls)
    return [f"`{cls.__name__}`", cited(section(cls, "References")), state, moved, plain]


GREEK = {r"\beta_2": "β2", r"\beta": "β", r"\eta": "η", r"\epsilon": "ε", r"\pi": "π"}


def section(cls: type[fastopt.Optimizer], name: str) -> str:
    """Return a section of a class's docstring, in one line."""
    title = rf"\n    {name}\n    -+\n"
    found = re.search(title + r"(.*?)(?=\n\n    \w[\w ]*\n    -+\n|\Z)", cls.__doc__ or "", re.DOTALL)
    if found is None:
        raise ValueError(f"{cls.__name__} has no section {name}")
    return " ".join(found.group(1).split())


def cited(references: str) -> str:
    """Return the first of some references: its first author and its year, with a link to arXiv."""
    arxiv = re.search(r"arXiv:(\d+\.\d+)", references)
    author = re.match(r".*?(?= et al\.| and |,)", references)
    year = re.search(r"(?<=[ ,])((?:19|20)\d\d)(?=\.(?: |$)| \()", references)
    text = f"{author.group(0) if author else ''} {year.group(1) if year else ''}".strip()
    first = arxiv is not None and (year is None or arxiv.start() < year.end())
    return f"[{text}](https://arxiv.org/abs/{arxiv.group(1)})" if arxiv and first else text


def cost(cls: type[fastopt.Optimizer]) -> tuple[str, str]:
    """Return the state and the bytes a step, for a float32 parameter, with the default settings.

    Of a matrix of r rows and c columns, state that has not its size is given as what it is in all.
    """
    if cls is fastopt.LBFGS:
        return "2 x history", "-"
    rows, columns = 1000, 10
    rule = cls.rule_for(cls._known_defaults(), (rows, columns))
    if isinstance(rule, fastopt.Rule):
        return str(len(rule.state)), str(4 * rule.traffic)
    names = {rows: "r", columns: "c", rows**2: "r²", columns**2: "c²"}
    extra = rule.extra_state((rows, columns), np.dtype("float32")).values()
    counts = Counter(names[math.prod(shape)] for shape, _ in extra)
    terms = [str(len(rule.state)), *(f"{'' if n == 1 else n}{name}" for name, n in counts.items())]
    return " + ".join(terms[0 if rule.state else 1 :]), "products"


def catalogue(results: Results) -> str:
    """Return what each algorithm moves, how fast, and how that compares with AdamW in the same rounds."""
    rows = [
        [
            name,
            f"{found['bytes']}",
            duration(found["seconds"]),
            f"{found['gb_per_s']:.0f}",
            f"{found['of_adamw']:.2f}",
        ]
        for name, found in sorted(results["bandwidth"].items(), key=lambda item: -item[1]["of_adamw"])
    ]
    head = [count(results["size"]), "bytes a parameter", "step", "GB/s", "of AdamW's"]
    return table(head, rows)


def others(results: Results) -> str:
    """Return how many times as fast as other libraries' steps those of fastopt are."""
    rows = []
    for size, by_name in results["optax"].items():
        for name, found in by_name.items():
            rows.append([name, "optax, jitted, donated", count(int(size)), multiple(found["speed"])])
    for size, by_name in results["trust"].items():
        for name, speeds in by_name.items():
            for peer, speed in speeds.items():
                rows.append([name, f"{peer}, in place", count(int(size)), multiple(speed)])
    return table(["", "the same by", "parameters", "speed-up"], rows)


def rows(results: Results) -> str:
    """Return the times of a step of some rows of a table, and of reading those rows."""
    lines = []
    for case in results["cases"]:
        seconds = case["seconds"]
        kind = "words, by frequency" if case["kind"] == "words" else "any rows"
        peers = [duration(seconds[peer]) if peer in seconds else "" for peer in ("torch", "NumPy", "reading")]
        name = f"{case['algorithm']}, {case['rows_of_the_table']:,} x {results['width']}, {kind}"
        lines.append([name, f"**{duration(seconds['fastopt'])}**", *peers])
    head = [f"{results['rows']:,} rows a step", "fastopt", "PyTorch", "NumPy", "np.take of the rows"]
    return table(head, lines)


def lowprec(results: Results) -> str:
    """Return the speed of AdamW in fewer bytes, as a multiple of float32's, by size."""
    cases = results["cases"]
    sizes = list(dict.fromkeys(case["size"] for case in cases))
    speeds = {(case["kind"], case["size"]): case["speed"] for case in cases}
    bytes_of = {case["kind"]: case["bytes"] for case in cases}
    lines = [
        [kind, str(moved), multiple(bytes_of["float32"] / moved), *(multiple(speeds[kind, n]) for n in sizes)]
        for kind, moved in bytes_of.items()
    ]
    return table(["AdamW", "bytes a parameter", "the bytes' ratio", *map(count, sizes)], lines)


def torch_adapter(results: Results) -> str:
    """Return the steps of fastopt's optimizers for torch, and of torch's."""
    lines = []
    for case in results["cases"]:
        seconds = case["seconds"]
        peers = [duration(seconds[peer]) if peer in seconds else "" for peer in TORCH]
        ours = f"**{duration(seconds['fastopt'])}**"
        lines.append([case["shapes"], case["algorithm"], ours, *peers, multiple(case["speed"])])
    head = ["parameters", "algorithm", "fastopt", "PyTorch", "foreach", "fused"]
    return table([*head, "speed-up over the best"], lines)


TORCH = ("torch", "torch foreach", "torch fused")


def own_rule(results: Results) -> str:
    """Return the times of a user's rules as multiples of those of built-in ones, by size."""
    found = results["results"]
    sizes = list(next(iter(found.values())))
    lines = [[name, *(f"{by[size]['quotient']:.3f}" for size in sizes)] for name, by in found.items()]
    return table(["time / built-in's", *(count(int(size)) for size in sizes)], lines)


@cache
def load(path: Path) -> Results:
    """Return results from their file; say so if the machine was busy when they were measured."""
    results: Results = json.loads(path.read_text())
    if noisy := results.get("noisy"):
        print(f"{path.name}: {len(noisy)} noisy, such as {noisy[0]}")
    return results


#: The files that a table is made from, and by which function; the first says where it was measured.
TABLES: Mapping[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "step": (("peers.json",), comparisons.step),
    "models": (("peers.json",), comparisons.models),
    "peers": (("peers.json",), comparisons.others),
    "losses": (("peers.json",), comparisons.losses),
    "whole_step": (("peers.json",), comparisons.whole_step),
    "targets": (("peers.json", "beside_blas.json", "latency.json"), comparisons.targets),
    "catalogue": (("catalogue.json",), catalogue),
    "others": (("catalogue.json",), others),
    "rows": (("rows.json",), rows),
    "lowprec": (("lowprec.json",), lowprec),
    "torch_adapter": (("torch_adapter.json",), torch_adapter),
    "own_rule": (("own_rule.json",), own_rule),
    "trainer": (("trainer.json",), findings.trainer),
    "sklearn_fit": (("trainer.json",), findings.sklearn_fit),
    "latency": (("latency.json",), findings.latency),
    "compiled": (("latency.json",), findings.compiled),
    "slowdown": (("slowdown.json",), findings.slowdown),
    "scaling": (("scaling.json",), findings.scaling),
    "gpu_targets": (("gpu.json",), gpu_comparisons.targets),
    "gpu": (("gpu.json",), gpu_comparisons.device),
    "gpu_overhead": (("gpu.json",), gpu_comparisons.overhead),
    "gpu_copy": (("gpu.json",), gpu_comparisons.copy),
}


def rendered(text: str, results: Path = RESULTS) -> dict[str, str]:
    """Return the tables that a text has markers for, as far as there are results, by name.

    Each has a line about the machine.
    """
    found = {"classes": classes()}
    for name, (files, make) in TABLES.items():
        paths = [results / file for file in files]
        if f"<!-- bench:{name} -->" in text and all(path.exists() for path in paths):
            measured = [load(path) for path in paths]
            found[name] = f"{make(*measured)}\n\nMeasured on: {machine(measured[0])}."
    return found


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Return ``text`` with the tables between their markers. What has no markers is not added."""
    for name, content in tables.items():
        start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        text = pattern.sub(lambda _, new=f"{start}\n{content}\n{end}": new, text)
    return text


#: Where there are tables.
PLACES = (BENCH.parent / "README.md", BENCH / "README.md")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    parser.add_argument("--readme", type=Path, nargs="+", default=PLACES, help="the files that have tables")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    stale = 0
    for path in args.readme:
        text = path.read_text()
        new = fill(text, rendered(text, args.results))
        if not args.check:
            path.write_text(new)
        elif new != text:
            print(f"{path}: tables differ from {args.results}; run python bench/tables.py")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
