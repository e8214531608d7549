"""The command ``demo``: which demos there are, their options, and running one."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastopt.demos.race.contestants import CONTESTANTS

DEFAULT = "digits"

#: What the extra ``fastopt[demo]`` installs, by the names that are imported.
EXTRAS = {
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "threadpoolctl": "scikit-learn",
    "tqdm": "tqdm",
}


def count(text: str) -> int:
    """Return a whole number that is at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Return a whole number that is at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {text!r}")
    return int(text)


def _digits_options(add: Callable[..., Any]) -> None:
    add("--epochs", type=count, default=30, metavar="N", help="passes over the training data (30)")
    add(
        "--hidden",
        type=count,
        nargs="+",
        default=[256, 128],
        metavar="N",
        help="units of hidden layers (256 128)",
    )
    add("--seed", type=seed, default=0, metavar="N", help="of the weights and of the shuffling (0)")


def _regression_options(add: Callable[..., Any]) -> None:
    add("--epochs", type=count, default=1000, metavar="N", help="number of steps (1000)")
    add("--seed", type=seed, default=0, metavar="N", help="of the points (0)")


def _saddle_options(add: Callable[..., Any]) -> None:
    add("--no-gif", dest="gif", action="store_false", help="leave out the animation")


def _race_options(add: Callable[..., Any]) -> None:
    names = list(CONTESTANTS)
    add("--methods", nargs="+", choices=names, default=names, metavar="NAME", help="names of classes (all)")
    add("--epochs", type=count, default=20, metavar="N", help="passes over the digits (20)")
    add("--evaluations", type=count, default=3000, metavar="N", help="the most in Rosenbrock's valley (3000)")
    add("--seed", type=seed, default=0, metavar="N", help="of weights, shuffling and starts (0)")


def _schedules_options(add: Callable[..., Any]) -> None:
    """Add none: there is nothing to choose."""


def _evolution_options(add: Callable[..., Any]) -> None:
    add("--generations", type=count, default=40, metavar="N", help="number of steps (40)")
    add("--trials", type=count, default=3, metavar="N", help="how often each method starts anew (3)")
    add("--seed", type=seed, default=0, metavar="N", help="of the first policies and of all chance (0)")


class Demo(NamedTuple):
    """A demo, before its module is imported: that needs the extra packages."""

    summary: str
    add_options: Callable[[Callable[..., Any]], None]


DEMOS = {
    "digits": Demo("a network learns handwritten digits, with every method; speed", _digits_options),
    "regression": Demo("a line through points: the textbook's loop with Adam", _regression_options),
    "saddle": Demo("paths out of a saddle and along a narrow valley; animation", _saddle_options),
    "race": Demo("all methods on digits and in Rosenbrock's valley, each with its best rate", _race_options),
    "schedules": Demo("a picture of every schedule", _schedules_options),
    "evolution": Demo("an evolution strategy balances a pole, with several methods", _evolution_options),
}


def with_default(argv: Sequence[str]) -> list[str]:
    """Return the arguments, with the default demo's name where ``demo`` is followed by none."""
    command, *rest = argv or [""]
    if command == "demo" and (not rest or (rest[0].startswith("-") and rest[0] not in ("-h", "--help"))):
        return [command, DEFAULT, *rest]
    return list(argv)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    parser = commands.add_parser(
        "demo",
        help=f"run a small real program: {', '.join(DEMOS)}",
        description="Small real programs. Each prints a table and writes pictures.",
        epilog=f"Without a name: {DEFAULT}. The options of each: python -m fastopt demo NAME --help",
    )
    names = parser.add_subparsers(title="demos", metavar="NAME", required=True)
    for name, (summary, add_options) in DEMOS.items():
        own = names.add_parser(name, help=summary, description=f"Demo: {summary}.")
        add_options(own.add_argument)
        own.add_argument(
            "--out", type=Path, default=Path(), metavar="FOLDER", help="for the pictures (the current one)"
        )
        own.set_defaults(run=run, demo=name)


def run(args: argparse.Namespace) -> int:
    """Run the demo that the arguments name; return the exit status."""
    options = {key: value for key, value in vars(args).items() if key not in ("run", "demo", "out")}
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        module = importlib.import_module(f"fastopt.demos.{args.demo}.demo")
        module.run(args.out, **options)
    except ModuleNotFoundError as error:
        missing = EXTRAS.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        message = f'the demo {args.demo} needs {missing}, which is missing: pip install "fastopt[demo]"'
    except OSError as error:
        if error.filename is None:
            raise
        message = f"{error.filename}: {error.strerror}"
    else:
        return 0
    print(f"python -m fastopt: {message}", file=sys.stderr)
    return 1
