"""What was measured, as text and as JSON."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from fastopt.benchmark.measurement import Measured, Result
from fastopt.demos.table import table
from fastopt.engine.threads import cutoff_bytes
from fastopt.info import describe

#: The version of the JSON's form.
FORMAT = 1

HEADER = ("parameters", "algorithm", "time/step", "spread", "params/s", "GB/s", "limit", "of limit")

_NOTES = """\
GB/s: bytes that the program reads and writes, each once, in 10^9 a second. Where memory is written and not
read (copy, triad), most processors read it all the same; that is not counted.
limit: the speed of a pass that reads and writes as much of the same memory, and computes next to nothing.
What is missing to 100% is arithmetic, a second pass, and, in small steps, the cost of the call.
spread: of the middle half of the rounds. Above some 10%, other programs ran: the numbers are theirs, too.
params/s: parameters updated in a second (k, M, G: 10^3, 10^6, 10^9)."""
_AT_LEAST = """\
> : at least; this method's step is matrix products for the most part, and no memory's speed is its limit."""


def as_json(
    found: Measured, options: Mapping[str, Any], about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what was measured, where, with what and how, as JSON has it."""
    return {
        "format": FORMAT,
        **(describe() if about is None else about),
        "cutoff_bytes": cutoff_bytes(),
        "options": dict(options),
        **found.as_dict(),
    }


def text(found: Measured, about: Mapping[str, Any]) -> str:
    """Return what was measured, for people to read."""
    parts = [_where(about), _memory(found)]
    several = len({(result.dtype, result.threads) for result in found.results}) > 1
    for (dtype, threads), group in itertools.groupby(found.results, lambda each: (each.dtype, each.threads)):
        results = list(group)
        title = f"Steps, {dtype}, {thread_count(threads)}:" if several else f"Steps, {dtype}:"
        parts.append(f"{title}\n\n{_steps(results)}")
    if found.missing:
        lines = [
            f"left out: {case.algorithm}, {count(case.size)}"
            f"{f', {case.dtype}, {thread_count(case.threads)}' if several else ''}: {reason}"
            for case, reason in found.missing
        ]
        parts.append("\n".join(dict.fromkeys(lines)))
    if found.results:
        parts.append(_NOTES)
    if any(result.at_least for result in found.results):
        parts[-1] += f"\n{_AT_LEAST}"
    return "\n\n".join(parts)


def duration(seconds: float) -> str:
    """Return a time in three digits and a fitting unit.

    Examples
    --------
    >>> from fastopt.benchmark.report import duration
    >>> duration(1.234e-6), duration(0.0456), duration(7.0)
    ('1.23 µs', '45.6 ms', '7 s')
    """
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def count(number: float) -> str:
    """Return a number of parameters, or of bytes, with commas or as a power of ten where it is one.

    Examples
    --------
    >>> from fastopt.benchmark.report import count
    >>> count(100), count(1000000), count(2500)
    ('100', '1e6', '2,500')
    """
    digits = len(str(int(number))) - 1
    return f"1e{digits}" if digits >= 3 and number == 10**digits else f"{number:,.0f}"


def rate(per_second: float) -> str:
    """Return a number a second in three digits, with the prefix for thousands, millions or billions.

    Examples
    --------
    >>> from fastopt.benchmark.report import rate
    >>> rate(1.8e3), rate(56.3e6), rate(5.65e9)
    ('1.8 k', '56.3 M', '5.65 G')
    """
    for prefix in ("", " k", " M"):
        if per_second < 999.5:
            return f"{per_second:.3g}{prefix}"
        per_second /= 1000
    return f"{per_second:.3g} G"


def size(number: float) -> str:
    """Return a number of bytes in a fitting unit.

    Examples
    --------
    >>> from fastopt.benchmark.report import size
    >>> size(24576), size(16 << 20)
    ('24 KiB', '16 MiB')
    """
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} GiB"


def thread_count(number: int) -> str:
    """Return a number of threads in words.

    Examples
    --------
    >>> from fastopt.benchmark.report import thread_count
    >>> thread_count(1), thread_count(4)
    ('1 thread', '4 threads')
    """
    return "1 thread" if number == 1 else f"{number} threads"


def _where(about: Mapping[str, Any]) -> str:
    machine = about["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [f"{machine['cpu']}, {machine['cores']} cores", ", ".join(machine["caches"]), versions]
    load = machine["load_before"]
    if load is not None and load > 0.5:
        lines.append(f"Other programs are running (load {load}): expect noise.")
    return "\n".join(line for line in lines if line)


def _memory(found: Measured) -> str:
    """Return the table of the memory's speeds: a line for each place and number of threads."""
    streams = list(dict.fromkeys(speed.stream for speed in found.memory))
    places: dict[tuple[str, int, int], dict[str, float]] = {}
    for speed in found.memory:
        places.setdefault((speed.where, speed.bytes, speed.threads), {})[speed.stream] = speed.gb_per_s
    rows = [
        [where, f"{size(bytes_)}, {thread_count(threads)}", *(f"{speeds[name]:.3g}" for name in streams)]
        for (where, bytes_, threads), speeds in places.items()
    ]
    head = "Memory, in GB/s (copy: 1 read, 1 write; triad: 2, 1; update: 4, 3, as AdamW):"
    lines = [head, "", table(("", "", *streams), rows, left=2)]
    if found.peaks:
        peaks = ", ".join(f"{peak.gop_per_s:.3g} on {thread_count(peak.threads)}" for peak in found.peaks)
        lines += ["", f"Arithmetic, in 10^9 operations a second: {peaks}"]
    return "\n".join(lines)


def _steps(results: list[Result]) -> str:
    """Return the table of steps, with an empty line between sizes."""
    rows = []
    for result in results:
        limit = result.limit_gb_per_s
        rows.append(
            [
                count(result.parameters),
                result.algorithm,
                duration(result.seconds),
                f"±{(result.seconds_high - result.seconds_low) / 2 / result.seconds:.0%}",
                rate(result.parameters_per_s),
                f"{'>' if result.at_least else ''}{result.gb_per_s:.3g}",
                "" if limit is None else f"{limit:.3g}",
                _percent(result.of_limit),
            ]
        )
    lines = table(HEADER, rows, left=2).splitlines()
    spaced = lines[:2]
    for number, line in enumerate(lines[2:]):
        if number and results[number].parameters != results[number - 1].parameters:
            spaced.append("")
        spaced.append(line)
    return "\n".join(spaced)


def _percent(share: float | None) -> str:
    return "" if share is None else "<1%" if share < 0.01 else f"{share:.0%}"
