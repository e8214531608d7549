"""Everything in one command: all results, the figures and tables of the READMEs, and the pictures of demos.

Each measurement runs in a process of its own, one after the other: leave the machine alone meanwhile. What
needs a package that is missing is skipped by name. What fails is named at the end, and the rest goes on. With
--quick it is a try: everything goes to a temporary folder, and nothing here is changed.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from _measure import BENCH, RESULTS

ROOT = BENCH.parent
FIGURES = BENCH / "figures"
TABLES = ("{tables}/README.md", "{tables}/bench/README.md")


class Part(NamedTuple):
    """A program, what it is about, and the packages without which it is skipped.

    In its arguments, ``{results}``, ``{figures}`` and ``{tables}`` are where it reads and writes.
    """

    arguments: Sequence[str]
    about: str
    needs: Sequence[str] = ()
    #: What makes it short.
    quick: Sequence[str] = ("--quick",)


def script(name: str, about: str, needs: Sequence[str] = (), result: str = "") -> Part:
    """Return a measurement of this folder, which writes one file of results."""
    out = f"{{results}}/{result or name}.json"
    return Part([str(BENCH / f"{name}.py"), "--out", out], about, needs)


def demo(name: str, quick: Sequence[str] = ()) -> Part:
    arguments = ["-m", "fastopt", "demo", name, "--out", "{figures}"]
    return Part(arguments, f"the picture of the demo {name}", ("matplotlib", "sklearn", "tqdm"), quick)


#: In this order: first what takes longest to be asked for again.
PARTS: dict[str, Part] = {
    "peers": script("peers", "the same steps by every library that is installed"),
    "methods": script("methods", "every method at the memory's speed", result="catalogue"),
    "rows": script("rows", "rows of embedding tables"),
    "lowprec": script("lowprec", "state, gradients and parameters in fewer bytes", ("ml_dtypes",)),
    "beside_blas": script("beside_blas", "steps and matrix products in turn"),
    "scaling": script("scaling", "time against threads"),
    "slowdown": script("slowdown", "the last of many steps beside the first"),
    "trainer": script("trainer", "the step inside training", ("sklearn", "threadpoolctl")),
    "own_rule": script("own_rule", "rules that a user writes"),
    "torch_adapter": script("torch_adapter", "fastopt's optimizers in torch", ("torch",)),
    "gpu": script("gpu", "steps on a CUDA device", ("numba_cuda",)),
    "latency": script("latency", "imports, first steps, compilation", ("packaging",)),
    "bench": Part(
        ["-m", "fastopt", "bench", "--json", "{results}/bench.json", "--png", "{figures}/fastopt-bench.png"],
        "the installed command: the machine's limit, and the usual methods beside it",
        ("matplotlib",),
        ("--seconds", "5", "--sizes", "1e4,1e6"),
    ),
    "digits": demo("digits", ("--epochs", "2")),
    "saddle": demo("saddle", ("--no-gif",)),
    "schedules": demo("schedules"),
    "race": demo("race", ("--epochs", "1", "--evaluations", "20", "--methods", "SGD", "Adam")),
    "figures": Part(
        [str(BENCH / "figures.py"), "--results", "{results}", "--out", "{figures}"],
        "the figures, from the results",
        ("matplotlib",),
        (),
    ),
    "tables": Part(
        [
            str(BENCH / "tables.py"),
            "--results",
            "{results}",
            "--readme",
            "{tables}/README.md",
            "{tables}/bench/README.md",
        ],
        "the READMEs' tables, from the results",
        (),
        (),
    ),
}


def missing(part: Part) -> list[str]:
    """Return the packages that a part needs and that are not installed."""
    return [package for package in part.needs if importlib.util.find_spec(package) is None]


def run(names: Sequence[str], results: Path, figures: Path, tables: Path, quick: bool) -> list[str]:
    """Run the parts, each in its process, and return the names of those that failed."""
    failed, begun = [], time.perf_counter()
    for number, name in enumerate(names, 1):
        part, since = PARTS[name], clock(time.perf_counter() - begun)
        print(f"\n=== {number} of {len(names)}, after {since}: {name}, {part.about}", flush=True)
        if lacks := missing(part):
            print(f"skipped: {name} ({', '.join(lacks)} not installed)")
            continue
        places = {"results": results, "figures": figures, "tables": tables}
        arguments = [argument.format(**places) for argument in part.arguments]
        arguments += part.quick if quick else ()
        if subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode:
            failed.append(name)
            print(f"failed: {name}", flush=True)
    total = clock(time.perf_counter() - begun)
    print(f"\n=== done in {total}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return failed


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The parts:\n" + "\n".join(f"  {name:14} {part.about}" for name, part in PARTS.items()),
    )
    parser.add_argument("--quick", action="store_true", help="a try, which changes nothing here")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help="these parts")
    args = parser.parse_args(arguments)
    names = [name for name in PARTS if args.only is None or name in args.only]
    if not args.quick:
        return int(bool(run(names, RESULTS, FIGURES, ROOT, quick=False)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results, figures = folder / "results", folder / "figures"
        for each in (results, figures, folder / "bench"):
            each.mkdir()
        for readme in ("README.md", "bench/README.md"):
            shutil.copy(ROOT / readme, folder / readme)
        return int(bool(run(names, results, figures, folder, quick=True)))


if __name__ == "__main__":
    sys.exit(main())
