"""The panels of the picture that show what the machine can do: the roofline, and the memory's speeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from fastopt.benchmark.measurement import Measured, Result, Speed
from fastopt.benchmark.report import size, thread_count
from fastopt.demos.figures import COLOURS

_ROOF = "0.45"


def roofline(
    axes: Axes, found: Measured, results: Sequence[Result], looks: Mapping[str, Any], many: bool, note: str
) -> None:
    """Draw the largest step of each algorithm below what the memory and the arithmetic allow.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    found : Measured
        What the machine can do.
    results : sequence of Result
        The steps, of one dtype and number of threads.
    looks : mapping
        The look of each algorithm.
    many : bool
        Whether names are left to a legend.
    note : str
        What the steps have in common.
    """
    axes.set_title(f"Roofline: the largest steps ({note})")
    largest = {
        result.algorithm: result
        for result in sorted(results, key=lambda each: each.parameters)
        if result.operations_per_parameter is not None
    }
    if not largest or not found.peaks or not found.memory:
        axes.set_axis_off()
        return
    points = {name: _point(result) for name, result in largest.items()}
    peak = max(found.peaks, key=lambda each: each.gop_per_s)
    top = peak.gop_per_s
    fastest: dict[str, Speed] = {}  # in each place: of the memory, usually with all threads
    for speed in sorted(found.memory, key=lambda each: each.gb_per_s):
        if speed.stream == "update":
            fastest[speed.where] = speed
    updates = sorted(fastest.values(), key=lambda each: each.gb_per_s)
    slowest = min(speed.gb_per_s for speed in updates)
    slowest = min(slowest, *(y / x for x, y in points.values()))
    low, high = 0.02, max(4.0, 3 * top / slowest)
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(low, high)
    axes.set_ylim(0.8 * low * slowest, 2.5 * top)
    axes.hlines(top, low, high, color=_ROOF, lw=1.4)
    text = f"arithmetic in float32, {thread_count(peak.threads)}"
    axes.text(high, 1.06 * top, text, fontsize=9, color="0.35", ha="right", va="bottom")
    for number, speed in enumerate(updates):
        axes.plot((low, top / speed.gb_per_s), (low * speed.gb_per_s, top), color=_ROOF, lw=1.0)
        x = low * (1.15, 4.0)[number % 2]  # those of neighbours beside each other
        _along(axes, x, x * speed.gb_per_s, f"{_place(speed)}, {speed.gb_per_s:.3g} GB/s")
    for name, (x, y) in points.items():
        axes.plot([x], [y], **{**looks[name], "markersize": 7}, ls="none", zorder=3)
    if not many:
        axes.legend(
            [axes.plot([], [], **looks[name])[0] for name in points],
            list(points),
            loc="lower right",
            fontsize=9,
            frameon=False,
        )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.set(xlabel="operations for each byte that is read or written", ylabel="10\u2079 operations a second")


def memory_bars(axes: Axes, found: Measured) -> None:
    """Draw the speed of each stream, by where it goes and with how many threads."""
    axes.set_title("Memory of this machine")
    streams = list(dict.fromkeys(speed.stream for speed in found.memory))
    places = list(dict.fromkeys((speed.where, speed.bytes, speed.threads) for speed in found.memory))
    width = 0.8 / max(1, len(streams))
    for number, stream in enumerate(streams):
        bars = [speed for speed in found.memory if speed.stream == stream]
        xs = [
            places.index((speed.where, speed.bytes, speed.threads))
            + width * (number - (len(streams) - 1) / 2)
            for speed in bars
        ]
        ys = [speed.gb_per_s for speed in bars]
        axes.bar(xs, ys, 0.94 * width, color=COLOURS[number], label=stream)
        for x, y in zip(xs, ys, strict=True):
            axes.text(x, y, f"{y:.3g}", fontsize=8, color="0.3", ha="center", va="bottom")
    names = [f"{where}\n{size(bytes_)}\n{thread_count(threads)}" for where, bytes_, threads in places]
    axes.set_xticks(range(len(places)), names, fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("GB/s")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if streams:
        axes.legend(fontsize=9, frameon=False)


def _point(result: Result) -> tuple[float, float]:
    """Return the operations a byte, and a second in billions."""
    operations = result.operations_per_parameter or 0
    return operations / result.bytes_per_parameter, operations * result.parameters_per_s / 1e9


def _along(axes: Axes, x: float, y: float, text: str) -> None:
    """Write along a line of slope one that goes through a point, above it."""
    axes.text(
        x,
        1.06 * y,
        text,
        fontsize=9,
        color="0.35",
        rotation=math.degrees(math.atan2(y, x)),
        rotation_mode="anchor",
        transform_rotates_text=True,
        clip_on=True,
        va="bottom",
    )


def _place(speed: Speed) -> str:
    return speed.where if speed.threads == 1 else f"{speed.where}, {thread_count(speed.threads)}"
