"""Writes the README's tables from the results, between their markers.

A table stands between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``. Numbers in the README are never
typed: ``python bench/tables.py --check`` fails where one is not what was measured.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _measure import BENCH, RESULTS, duration, table

Results = dict[str, Any]

#: How peers are called, in the order in which they are shown. One that was not measured is left out.
PEERS = {
    "fastopt": "fastopt",
    "C": "C, by hand",
    "torch, fused": "PyTorch, fused",
    "NumPy, in place": "NumPy, in place",
    "NumPy, textbook": "NumPy, textbook",
}


def count(size: int) -> str:
    """Return a number of parameters in words that fit a heading."""
    return f"{size:,}" if size < 10**6 else f"{size / 10**6:g} million"


def multiple(value: float) -> str:
    """Return a ratio in as many digits as it deserves."""
    return f"{value:.{2 if value < 2 else 1 if value < 10 else 0}f}\N{MULTIPLICATION SIGN}"


def machine(results: Results) -> str:
    """Return one line about where, with what and when something was measured."""
    found, versions = results["machine"], results["versions"]
    with_versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{found['cpu']}, {found['cores']} cores; {with_versions}; {results['date'][:10]}"


def step(results: Results) -> str:
    """Return AdamW's times, by size and peer, with how many times as long as fastopt each takes."""
    sizes = results["adamw"]
    rows = []
    for peer, label in PEERS.items():
        cells = []
        for found in sizes.values():
            value = found.get(peer)
            if value is None:
                cells.append("")
            elif peer == "fastopt":
                cells.append(f"**{duration(value['seconds'])}**")
            else:
                cells.append(f"{duration(value['seconds'])} ({multiple(value['times_fastopt'])})")
        if any(cells):
            rows.append([label, *cells])
    return table(["AdamW", *(count(int(size)) for size in sizes)], rows)


def algorithms(results: Results) -> str:
    """Return each algorithm's speed beside NumPy's, in place."""
    sizes = results["algorithms"]
    head, rows = ["GB/s"], []
    for size in sizes:
        head += [f"{count(int(size))}: fastopt", "NumPy", "speed-up"]
    for name in next(iter(sizes.values())):
        cells = []
        for found in sizes.values():
            value = found[name]
            speeds = value["gb_per_s"]
            cells += [f"{speeds['fastopt']:.0f}", f"{speeds['NumPy']:.0f}", multiple(value["speedup"])]
        rows.append([name, *cells])
    return table(head, rows)


def targets(results: Results) -> str:
    rows = []
    for found in results["targets"]:
        value, target, unit = found["value"], found["target"], found["unit"]
        sign = ">=" if found["better"] == "more" else "<="
        rows.append(
            [
                found["name"],
                "-" if value is None else f"{value:.3g} {unit}",
                "" if target is None else f"{sign} {target:g} {unit}",
                found["verdict"],
            ]
        )
    return table(["", "measured", "target", "verdict"], rows)


def load(path: Path) -> Results:
    """Return results from their file; say so if the machine was busy when they were measured."""
    results: Results = json.loads(path.read_text())
    for line in results.get("noisy", []):
        print(f"{path.name}: noisy: {line}")
    return results


TABLES: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    "step": ("step.json", step),
    "algorithms": ("step.json", algorithms),
    "targets": ("targets.json", targets),
}


def rendered(results: Path = RESULTS) -> dict[str, str]:
    """Return the tables of all results that are there, by name, each with a line about the machine."""
    found = {}
    for name, (file, make) in TABLES.items():
        if (results / file).exists():
            measured = load(results / file)
            found[name] = f"{make(measured)}\n\nMeasured on: {machine(measured)}."
    return found


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Return ``text`` with the tables between their markers. What has no markers is not added."""
    for name, content in tables.items():
        start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        text = pattern.sub(lambda _, new=f"{start}\n{content}\n{end}": new, text)
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    parser.add_argument("--readme", type=Path, default=BENCH.parent / "README.md")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if not args.readme.exists():
        print(f"skipped: {args.readme} (there is none)")
        return 0
    text = args.readme.read_text()
    new = fill(text, rendered(args.results))
    if args.check:
        if new != text:
            print(f"{args.readme}: tables differ from {args.results}; run python bench/tables.py")
        return int(new != text)
    args.readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
