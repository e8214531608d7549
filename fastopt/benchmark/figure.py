"""The picture: speed under the memory's roof, and time, both against size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from fastopt import machine
from fastopt.benchmark.figure_limits import memory_bars, roofline
from fastopt.benchmark.measurement import Measured, Result
from fastopt.benchmark.report import duration, size
from fastopt.demos.figures import COLOURS, DASHES, EndLabel, label_ends, style

#: Marks of lines, so that they are told apart in grey, too.
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
#: More names than this are in a legend, not beside the lines.
_NAMED = 12
_ROOF = "0.88"


def draw(found: Measured, about: Mapping[str, Any], path: Path) -> None:
    """Draw what was measured, a row of two panels for each dtype and number of threads.

    Parameters
    ----------
    found : Measured
        What was measured.
    about : mapping
        What :func:`fastopt.info.describe` found.
    path : Path
        The PNG file.
    """
    groups = _groups(found.results)
    names = list(dict.fromkeys(result.algorithm for result in found.results))
    looks = {name: _look(number) for number, name in enumerate(names)}
    many = len(names) > _NAMED
    legend = 0.25 * math.ceil(len(names) / 8) + 0.3 if many else 0.0
    with style():
        height = 1.25 + 4.6 * (len(groups) + 1) + legend
        figure = Figure(figsize=(14.5, height))
        panels = figure.subplots(len(groups) + 1, 2, squeeze=False)
        for (left, right), (variant, results) in zip(panels, groups.items(), strict=False):
            note = _note(*variant)
            _roof(left, results, looks, many, note)
            _times(right, results, looks, many, note)
        (variant, results), (left, right) = next(iter(groups.items())), panels[-1]
        roofline(left, found, results, looks, many, _note(*variant))
        memory_bars(right, found)
        figure.subplots_adjust(
            left=0.06,
            right=0.975 if many else 0.92,
            top=1 - 0.95 / height,
            bottom=(0.9 + legend) / height,
            wspace=0.17 if many else 0.4,
            hspace=0.42,
        )
        title = figure.text(0.06, 1 - 0.32 / height, "Optimizer steps on this machine", va="center")
        title.set(fontsize=16, fontweight="bold")
        figure.text(0.06, 0.16 / height, _source(about), fontsize=8.5, color="0.4", va="center")
        if many:
            handles, labels = panels[0][1].get_legend_handles_labels()
            place = (0.5, 0.3 / height)
            figure.legend(
                handles,
                labels,
                loc="lower center",
                ncols=8,
                fontsize=8.5,
                frameon=False,
                bbox_to_anchor=place,
            )
        figure.savefig(path)


def _note(dtype: str, threads: int) -> str:
    return f"{dtype}, up to {threads} threads" if threads > 1 else f"{dtype}, 1 thread"


def _groups(results: Sequence[Result]) -> dict[tuple[str, int], list[Result]]:
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.dtype, result.threads), []).append(result)
    return groups


def _look(number: int) -> dict[str, Any]:
    """Return the look of a line: a colour, a mark, and from the ninth on dashes."""
    turn = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKS[(number + turn) % len(_MARKS)],
        "markersize": 5,
        "dashes": DASHES[turn % len(DASHES)] or (1, 0),
    }


def _lines(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each algorithm, by size."""
    lines: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda each: each.parameters):
        lines.setdefault(result.algorithm, []).append(result)
    return lines


def roof(results: Sequence[Result]) -> list[tuple[float, float]]:
    """Return the greatest speed of a stream at each size of memory, to a third of a power of ten."""
    limits = sorted((r.footprint, r.limit_gb_per_s) for r in results if r.limit_gb_per_s is not None)
    found = []
    for _, near in itertools.groupby(limits, lambda limit: round(3 * math.log10(limit[0]))):
        points = list(near)
        middle = math.exp(sum(math.log(x) for x, _ in points) / len(points))
        found.append((middle, max(speed for _, speed in points)))
    return found


def _roof(
    axes: Axes,
    results: Sequence[Result],
    looks: Mapping[str, Any],
    many: bool,
    note: str,
) -> None:
    """Draw the speeds against the memory that a step goes over, below that of the streams."""
    axes.set_title(f"Speed under the memory's roof ({note})")
    results = [result for result in results if not result.at_least]
    if not results:
        text = (
            "These methods' steps are matrix products for the most part:\nno memory's speed is their limit."
        )
        axes.text(0.5, 0.5, text, ha="center", va="center", color="0.35", transform=axes.transAxes)
        axes.set_axis_off()
        return
    lines, line = _lines(results), roof(results)
    speeds = [result.gb_per_s for result in results]
    axes.set(xscale="log", yscale="log")
    axes.set_ylim(min(speeds) / 1.6, 2.5 * max([*speeds, *(speed for _, speed in line)]))
    footprints = [result.footprint for result in results]
    low, high = min(footprints) / 1.5, 1.5 * max(footprints)
    axes.set_xlim(low, high)
    xs, ys = zip((low, line[0][1]), *line, (high, line[-1][1]), strict=True)
    axes.fill_between(xs, axes.get_ylim()[0], ys, color=_ROOF, lw=0, zorder=0)
    axes.plot(xs, ys, color="0.45", lw=1.2, zorder=1)
    axes.text(
        0.99,
        0.97,
        "grey: what a stream over the same memory reaches",
        fontsize=9,
        color="0.35",
        ha="right",
        va="top",
        transform=axes.transAxes,
    )
    for cache in machine.caches():
        if cache.kind != "instruction" and low < cache.size < high:
            axes.axvline(cache.size, color="0.6", lw=0.8, ls=(0, (2, 3)), zorder=1)
            axes.text(
                cache.size,
                0.015,
                f" L{cache.level}",
                fontsize=9,
                color="0.4",
                transform=axes.get_xaxis_transform(),
            )
    for name, own in lines.items():
        axes.plot([r.footprint for r in own], [r.gb_per_s for r in own], label=name, lw=1.6, **looks[name])
    axes.xaxis.set_major_locator(LogLocator(base=32, subs=(1.0,)))
    axes.xaxis.set_minor_locator(LogLocator(base=32, subs=()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.set(xlabel="memory that a step goes over", ylabel="GB/s")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if not many:
        _name_ends(axes, {name: (own[-1].footprint, own[-1].gb_per_s) for name, own in lines.items()}, looks)


def _times(axes: Axes, results: Sequence[Result], looks: Mapping[str, Any], many: bool, note: str) -> None:
    """Draw the times against the number of parameters."""
    lines = _lines(results)
    axes.set(xscale="log", yscale="log")
    for name, own in lines.items():
        xs, ys = [r.parameters for r in own], [r.seconds for r in own]
        axes.plot(xs, ys, label=name, lw=1.6, **looks[name])
        axes.fill_between(
            xs,
            [r.seconds_low for r in own],
            [r.seconds_high for r in own],
            color=looks[name]["color"],
            alpha=0.15,
            lw=0,
        )
    sizes = [result.parameters for result in results]
    axes.set_xlim(min(sizes) / 1.3, 1.3 * max(sizes))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: duration(y)))
    axes.set_title(f"Time of a step ({note})")
    axes.set(xlabel="parameters")
    axes.grid()
    axes.set_axisbelow(True)
    if not many:
        _name_ends(axes, {name: (own[-1].parameters, own[-1].seconds) for name, own in lines.items()}, looks)


def _name_ends(axes: Axes, ends: Mapping[str, tuple[float, float]], looks: Mapping[str, Any]) -> None:
    """Write names at the ends of lines: outside on the right, or where a line ends before."""
    last = max(x for x, _ in ends.values())
    outside = []
    for name, (x, y) in ends.items():
        if x < last / 8:
            axes.annotate(
                name, (x, y), (7, 5), textcoords="offset points", fontsize=10, color=looks[name]["color"]
            )
        else:
            outside.append(EndLabel(name, y, looks[name]["color"]))
    label_ends(axes, axes.get_xlim()[1], outside, gap=0.06)


def _source(about: Mapping[str, Any]) -> str:
    found, versions = about["machine"], about["versions"]
    with_versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{found['cpu']}, {found['cores']} cores; {with_versions}; {about['date'][:10]}"
