"""The command ``bench``: its options, and running it."""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import math
import os
import sys
from pathlib import Path

from fastopt.benchmark import report
from fastopt.benchmark.measurement import Case, measure
from fastopt.benchmark.progress import Progress
from fastopt.benchmark.subjects import LEFT_OUT, NAMES, USUAL
from fastopt.engine import available_threads
from fastopt.info import describe

SIZES = tuple(10**power for power in range(2, 9))
DTYPES = ("float32", "float64")
SECONDS = 45.0
PICTURE = "fastopt-bench.png"

_LARGEST = 10**12


def algorithms(text: str) -> tuple[str, ...]:
    """Return the names of algorithms that a list names, in whatever case: or all, or the usual ones."""
    if text in ("all", "usual"):
        return NAMES if text == "all" else USUAL
    known = {name.lower(): name for name in (*NAMES, *LEFT_OUT)}
    names = []
    for given in text.split(","):
        name = known.get(given.strip().lower())
        if name is None:
            near = difflib.get_close_matches(given.strip().lower(), known, n=3)
            hint = f"did you mean {' or '.join(known[each] for each in near)}?" if near else ""
            hint = hint or f"there are {', '.join(NAMES)}; or all, usual"
            raise argparse.ArgumentTypeError(f"there is no algorithm {given.strip()!r}; {hint}")
        if name in LEFT_OUT:
            raise argparse.ArgumentTypeError(f"{name} is not measured: {LEFT_OUT[name]}")
        names.append(name)
    return tuple(dict.fromkeys(names))


def sizes(text: str) -> tuple[int, ...]:
    """Return numbers of parameters, ascending."""
    found = set()
    for given in text.split(","):
        try:
            number = float(given)
        except ValueError:
            number = math.nan
        if not 1 <= number <= _LARGEST or number != int(number):
            raise argparse.ArgumentTypeError(
                f"must be whole numbers from 1 to 1e12, such as 1e4,1e6, got {given!r}"
            )
        found.add(int(number))
    return tuple(sorted(found))


def dtypes(text: str) -> tuple[str, ...]:
    """Return names of dtypes."""
    for given in text.split(","):
        if given not in DTYPES:
            raise argparse.ArgumentTypeError(f"must be float32, float64 or both, got {given!r}")
    return tuple(dict.fromkeys(text.split(",")))


def threads(text: str) -> tuple[int, ...]:
    """Return numbers of threads."""
    for given in text.split(","):
        if not given.isdecimal() or int(given) < 1:
            raise argparse.ArgumentTypeError(f"must be whole numbers >= 1, such as 1,2, got {given!r}")
    return tuple(dict.fromkeys(map(int, text.split(","))))


def positive(text: str) -> float:
    """Return a positive number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return number


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    parser = commands.add_parser(
        "bench",
        help="the speed of this machine's memory, and of each algorithm's step",
        description="Measures the speed of this machine's memory, then the step of each algorithm at several "
        "sizes: its time, parameters a second, GB/s, and the share of what the memory can do. Answers are "
        "checked first. Takes about a minute; close other programs.",
        epilog="Not measured: " + "; ".join(f"{name}: {reason}" for name, reason in LEFT_OUT.items()) + ".",
    )
    for name, kind, default, metavar, text in (
        ("algorithms", algorithms, USUAL, "NAME,...", f"classes, or all, or usual: {','.join(USUAL)}"),
        ("sizes", sizes, SIZES, "N,...", "numbers of parameters, as memory allows (1e2,1e3,...,1e8)"),
        ("dtypes", dtypes, DTYPES[:1], "NAME,...", "float32, float64 or both (float32)"),
        ("threads", threads, None, "N,...", "the most threads of a step (all)"),
        ("seconds", positive, SECONDS, "S", f"for all of it, about ({SECONDS:g})"),
        ("json", Path, None, "FILE", "write the results there too"),
        ("png", Path, None, "FILE", f"draw them there, or as {PICTURE} in a folder; needs matplotlib"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and report what the arguments ask for; return the exit status."""
    try:
        most = args.threads or (available_threads(),)
        png = None if args.png is None else _file(args.png, PICTURE)
        path = None if args.json is None else _file(args.json)
        figure = None if png is None else importlib.import_module("fastopt.benchmark.figure")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return _refuse('--png needs matplotlib, which is missing: pip install "fastopt[demo]"')
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    except ValueError as error:  # FASTOPT_NUM_THREADS
        return _refuse(str(error))
    cases = [
        Case(name, size, dtype, count)
        for dtype in args.dtypes
        for count in most
        for size in args.sizes
        for name in args.algorithms
    ]
    about = describe()
    progress = Progress(1 + len(cases))
    try:
        found = measure(cases, args.seconds, progress)
    except KeyboardInterrupt:
        return _refuse("stopped", 130)
    finally:
        progress.end()
    written = []
    if path is not None:
        chosen = ("algorithms", "sizes", "dtypes", "threads", "seconds")
        options = {name: getattr(args, name) for name in chosen}
        content = json.dumps(report.as_json(found, options, about), indent=1)
        path.write_text(content + "\n", encoding="utf-8")
        written.append(f"\nResults: {path}")
    if figure is not None and found.results:
        figure.draw(found, about, png)
        written.append(f"\nPicture: {png}")
    print(report.text(found, about), *written, sep="\n")
    for message in found.wrong:
        print(f"python -m fastopt: wrong answer: {message}", file=sys.stderr)
    return 1 if found.wrong else 0


def _file(path: Path, name: str = "") -> Path:
    """Return the file to write: with ``name``, in a folder if ``path`` is one; or raise an OSError."""
    if name and (path.is_dir() or not path.suffix):
        path = path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(21, os.strerror(21), str(path))
    where = path if path.exists() else path.parent
    if not os.access(where, os.W_OK):
        raise PermissionError(13, os.strerror(13), str(where))
    return path


def _refuse(message: str, status: int = 1) -> int:
    print(f"python -m fastopt: {message}", file=sys.stderr)
    return status
