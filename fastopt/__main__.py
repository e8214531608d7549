"""The command line: ``python -m fastopt``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastopt import __version__, info
from fastopt.benchmark import command as bench
from fastopt.demos import command as demo

#: Modules with a function ``add_to(commands)`` that adds a parser, whose default ``run`` is a
#: function that takes the parsed arguments and returns the exit status.
COMMANDS = (demo, bench, info)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. By default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastopt", description="Optimizer kernels for NumPy, compiled by Numba."
    )
    parser.add_argument("--version", action="version", version=f"fastopt {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    args = parser.parse_args(demo.with_default(sys.argv[1:] if argv is None else argv))
    if args.run is None:
        parser.print_help()
        return 0
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
