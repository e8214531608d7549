"""A bar that shows how far the work is, at a terminal only."""

from __future__ import annotations

import sys
from typing import TextIO


class Progress:
    """A bar on one line, drawn anew for each part of the work; call it with what begins.

    Parameters
    ----------
    parts : int
        How many parts there are.
    stream : file, optional
        Where it is drawn, if that is a terminal: by default the standard error stream.

    Examples
    --------
    >>> import sys
    >>> from fastopt.benchmark.progress import Progress
    >>> progress = Progress(2, sys.stdout)  # no terminal here: nothing is drawn
    >>> progress("first")
    >>> progress.end()
    """

    _WIDTH = 30

    def __init__(self, parts: int, stream: TextIO | None = None) -> None:
        self._parts, self._done, self._longest = parts, -1, 0
        self._stream = sys.stderr if stream is None else stream
        self._shows = self._stream.isatty()

    def __call__(self, what: str) -> None:
        """Say that the next part begins."""
        self._done += 1
        filled = self._WIDTH * self._done // self._parts
        bar = "#" * filled + "-" * (self._WIDTH - filled)
        self._draw(f"[{bar}] {self._done}/{self._parts} {what}")

    def end(self) -> None:
        """Remove the bar."""
        self._draw("")
        if self._shows:
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, line: str) -> None:
        if self._shows:
            self._longest = max(self._longest, len(line))
            self._stream.write("\r" + line.ljust(self._longest))
            self._stream.flush()
