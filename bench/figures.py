"""Draws the README's figures from the results, into ``bench/figures``. Its tables are drawn by tables.py."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from _measure import BENCH, RESULTS, count, duration, multiple
from comparisons import LABELS, SHOWN_SIZES, Results, cell, seconds
from contest import SETTINGS
from contestants import bytes_moved
from findings import LABELS as TRAINERS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from scaling import BYTES_PER_PARAMETER, TITLES, plain
from tables import load, machine
from workloads import GPT2, SIZES, name_of

OURS, THEIRS, INK, QUIET = "#0b7285", "#c3c9d0", "#212529", "#6c757d"
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#dee2e6",
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
}
#: A bar that is longer, as a multiple of fastopt's, is cut: the others could not be told apart.
LONGEST = 14.0
#: Who is shown with bars, and who with lines, in which colours.
STEP_PEERS = (
    "fastopt",
    "C, by hand",
    "torch, fused",
    "torch, compiled",
    "DeepSpeed",
    "optax, jitted",
    "NumPy, in place",
    "NumPy, textbook",
)
WHOLE_PEERS = (
    "fastopt",
    "C, by hand",
    "torch, fused",
    "torch, foreach",
    "DeepSpeed",
    "optax, jitted",
    "NumPy, in place",
)
LINES = {
    "NumPy, textbook": "#ced4da",
    "NumPy, in place": "#868e96",
    "scikit-learn": "#e8a33d",
    "thinc": "#b08968",
    "optax, jitted": "#5c7cfa",
    "torch, foreach": "#ffa8a8",
    "torch, compiled": "#d6336c",
    "torch, fused": "#e8590c",
    "DeepSpeed": "#9c36b5",
    "C, by hand": "#212529",
    "fastopt": OURS,
}
BESIDE_NUMPY = ("vector of 1e4", "vector of 5e7")


def step(results: Results) -> Figure:
    """Draw AdamW's times, a panel a size; the bars are multiples of fastopt's."""
    found = [cell(results, name) for name in SHOWN_SIZES]
    cells = [each for each in found if each is not None]
    figure, panels = plt.subplots(2, 2, figsize=(9, 6.8), sharey=True)
    for axes in panels.flat[len(cells) :]:
        axes.set_visible(False)
    for axes, each in zip(panels.flat, cells, strict=False):
        _bars(axes, each, STEP_PEERS, f"{count(each['parameters'])} parameters")
    panels[0, 0].invert_yaxis()
    _frame(figure, "Time of one AdamW step", OF_BARS, results)
    return figure


def whole_step(results: Results) -> Figure:
    """Draw the whole step on GPT-2 small's arrays: a panel for each thing more that is done."""
    kinds = {"update": "update", "clip": "clip and update", "clip + EMA": "clip, update and average"}
    found = {title: cell(results, GPT2, step=kind) for kind, title in kinds.items()}
    cells = {title: each for title, each in found.items() if each is not None}
    figure, panels = plt.subplots(1, max(1, len(cells)), figsize=(11, 3.6), sharey=True, squeeze=False)
    for axes, (title, each) in zip(panels.flat, cells.items(), strict=False):
        _bars(axes, each, WHOLE_PEERS, title)
    panels[0, 0].invert_yaxis()
    _frame(figure, "AdamW on the 148 arrays of GPT-2 small", OF_BARS, results)
    figure.subplots_adjust(left=0.135)
    return figure


OF_BARS = [
    ("float32. Shorter is better. In grey: the multiple of ", QUIET),
    ("fastopt", OURS),
    ("'s time.", QUIET),
]


def _bars(axes: Axes, found: dict[str, Any], names: Sequence[str], title: str) -> None:
    """Draw a bar for each library, as long as the multiple of fastopt's time."""
    _panel(axes, title, [LABELS[name] for name in names])
    multiples = [values["times_fastopt"][1] for name, values in found["peers"].items() if name in names]
    longest = min(LONGEST, max(multiples))
    unit = longest / LONGEST  # of the distances
    for row, name in enumerate(names):
        if name not in found["peers"]:
            axes.text(0.25 * unit, row, "has none", va="center_baseline", color=QUIET, fontsize=8.5)
            continue
        values = found["peers"][name]
        times, ours = values["times_fastopt"][1], name == "fastopt"
        end = min(times, LONGEST)
        axes.barh(row, end, 0.66, color=OURS if ours else THEIRS)
        if times > LONGEST:
            for x in (end - 1.0, end - 0.7):  # a bar that is cut
                axes.plot([x - 0.12, x + 0.12], [row + 0.42, row - 0.42], color="white", linewidth=2)
        color, weight = (OURS, "bold") if ours else (INK, "normal")
        words = duration(values["seconds"][1])
        label = axes.text(end + 0.25 * unit, row, words, va="center_baseline", color=color, weight=weight)
        if not ours:
            axes.annotate(multiple(times), (1, 0.5), (8, 0), label, "offset points", va="center", color=QUIET)
    axes.set_xlim(0, longest * 1.5)


def sizes(results: Results) -> Figure:
    """Draw AdamW's time against the number of parameters, a line a library."""
    figure, axes = plt.subplots(figsize=(9, 5.6))
    ends = []
    for name, color in LINES.items():
        points = []
        for size in SIZES:
            found = cell(results, name_of(size))
            value = seconds(found, name)
            if found is not None and value is not None:
                points.append((found["parameters"], *found["peers"][name]["seconds"]))
        if not points:
            continue
        x, low, middle, high = zip(*points, strict=True)
        ours = name == "fastopt"
        front = {"linewidth": 2.6 if ours else 1.4, "zorder": 3 if ours else 2}
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(x, middle, color=color, marker="o", markersize=4 if ours else 3, **front)
        ends.append((middle[0], name, color))
    axes.set(xscale="log", yscale="log")
    ticks = [size for size in SIZES if cell(results, name_of(size))]
    axes.set_xticks(ticks, [_short(size) for size in ticks])
    exponents = range(-6, 1)
    axes.set_yticks([10.0**n for n in exponents], [duration(10.0**n) for n in exponents])
    axes.minorticks_off()
    axes.grid(True, color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _name_lines(axes, ends)
    words = [
        ("float32, one vector. Lower is better. ", QUIET),
        ("fastopt", OURS),
        (" and others; bands: the middle half of the rounds.", QUIET),
    ]
    _frame(figure, "Time of one AdamW step against the number of parameters", words, results)
    figure.subplots_adjust(left=0.27, bottom=0.13, top=0.86)
    return figure


def _name_lines(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write the names at the left ends of the lines, moved apart where they would lie on each other."""
    axes.figure.canvas.draw()
    at = -np.inf
    for value, name, color in sorted(ends):
        y = axes.transAxes.inverted().transform(axes.transData.transform((1, value)))[1]
        at = max(y, at + 0.052)
        axes.annotate(
            LABELS[name],
            (axes.get_xlim()[0], value),
            (-0.115, at),
            textcoords="axes fraction",
            ha="right",
            va="center",
            color=color,
            weight="bold" if name == "fastopt" else "normal",
        )
    axes.tick_params(axis="y", pad=4)


def algorithms(results: Results) -> Figure:
    """Draw each algorithm's GB/s beside NumPy's, a panel a size."""
    names = [name for name in SETTINGS if any(cell(results, size, name) for size in BESIDE_NUMPY)]
    panels_of = [size for size in BESIDE_NUMPY if any(cell(results, size, name) for name in names)]
    height = 1.5 + 0.44 * max(1, len(names))
    figure, panels = plt.subplots(1, max(1, len(panels_of)), figsize=(9, height), sharey=True, squeeze=False)
    for axes, size in zip(panels.flat, panels_of, strict=False):
        cells = {name: cell(results, size, name) for name in names}
        longest = 0.0
        for row, (name, found) in enumerate(cells.items()):
            moved = bytes_moved(name, **SETTINGS[name]) * found["parameters"] if found else 0
            for offset, by, color in ((-0.19, "fastopt", OURS), (0.19, "NumPy, in place", THEIRS)):
                value = seconds(found, by)
                if value is None:
                    continue
                speed = moved / value / 1e9
                longest = max(longest, speed)
                axes.barh(row + offset, speed, 0.36, color=color)
                text = OURS if by == "fastopt" else QUIET
                axes.text(speed, row + offset, f" {speed:.0f}", va="center", fontsize=8.5, color=text)
        parameters = next(found["parameters"] for found in cells.values() if found)
        _panel(axes, f"{count(parameters)} parameters", names)
        axes.set_xlim(0, 1.12 * longest)
    panels[0, 0].invert_yaxis()
    words = [("GB/s of ", QUIET), ("fastopt", OURS), (" and of ", QUIET), ("NumPy, in place", "#868e96")]
    words += [(", counting the bytes that the update needs. Longer is better.", QUIET)]
    _frame(figure, "Speed of the algorithms", words, results)
    return figure


def scaling(results: Results) -> Figure:
    """Draw the GB/s of AdamW against size, by number of threads: a panel a situation."""
    engine, by_situation = results["engine"], results["seconds"]
    figure, panels = plt.subplots(1, len(by_situation), figsize=(9, 4.2), sharey=True)
    for axes, (situation, by_size) in zip(panels, by_situation.items(), strict=True):
        for number in {name: None for ways in by_size.values() for name in plain(ways)}:
            sizes = [size for size, ways in by_size.items() if number in ways]
            speeds = [_speed(results, size, by_size[size][number]) for size in sizes]
            ends = number in ("1", str(engine["threads"]))
            color = "#868e96" if number == "1" else OURS
            axes.plot(list(map(int, sizes)), speeds, color=color, linewidth=2 if ends else 0.7)
        cutoff = engine["cutoff_bytes"] / BYTES_PER_PARAMETER
        axes.axvline(cutoff, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.set_ylim(0)
        axes.set_title(TITLES[situation], loc="left", fontsize=11, fontweight="bold", pad=6)
        axes.set_xticks([10**4, 10**5, 10**6, 10**7], ["10k", "100k", "1M", "10M"])
        axes.minorticks_off()
        axes.yaxis.grid(True, color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    words = [("GB/s of an AdamW step on ", QUIET), (f"{engine['threads']} threads", OURS)]
    words += [(" and on ", QUIET), ("one", "#868e96"), (", against size. Dashed: from here on, ", QUIET)]
    words += [("the engine uses all threads.", QUIET)]
    _frame(figure, "When threads pay", words, results)
    figure.subplots_adjust(left=0.05, bottom=0.17, wspace=0.08)
    return figure


def _speed(results: Results, size: str, seconds: float) -> float:
    return float(results["bytes_moved"] * int(size) / seconds / 1e9)


def trainer(results: Results) -> Figure:
    """Draw the time of an epoch of the NumPy network, the step's part in colour: a panel a network."""
    cases = results["numpy"]
    shown = [by for by in TRAINERS if any(by in case["by"] for case in cases)]
    figure, panels = plt.subplots(2, -(-len(cases) // 2), figsize=(9, 5), sharey=True, squeeze=False)
    for axes, case in zip(panels.flat, cases, strict=False):
        _panel(axes, f"{case['parameters']:,} parameters", [TRAINERS[by] for by in shown])
        longest = max(found["epoch_s"] for found in case["by"].values())
        for row, by in enumerate(shown):
            if (found := case["by"].get(by)) is None:
                continue
            rest = found["epoch_s"] - found["step_s"]
            axes.barh(row, rest, 0.66, color=THEIRS)
            axes.barh(row, found["step_s"], 0.66, left=rest, color=OURS)
            text = f" {duration(found['epoch_s'])}, {found['share']:.0%}"
            axes.text(found["epoch_s"], row, text, va="center_baseline")
        axes.set_xlim(0, 1.45 * longest)
    for axes in panels.flat[len(cases) :]:
        axes.set_visible(False)
    panels[0, 0].invert_yaxis()
    words = [("An epoch: ", QUIET), ("the step", OURS), (", and the rest, mostly matrix products. ", QUIET)]
    words += [("Shorter is better. Percent: the step's share.", QUIET)]
    _frame(figure, "AdamW inside training: a NumPy network on digits", words, results)
    return figure


def _short(size: int) -> str:
    return count(size).replace(" million", "M").replace(",000", "k")


def _panel(axes: Axes, title: str, rows: list[str]) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=6)
    axes.set(xticks=[])
    axes.set_yticks(range(len(rows)), rows)
    for label in axes.get_yticklabels():
        if label.get_text() == "fastopt":
            label.set(color=OURS, weight="bold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.axvline(0, color=INK, linewidth=0.8)


def _frame(figure: Figure, title: str, words: list[tuple[str, str]], results: Results) -> None:
    """Write the title, a line of coloured words that is also the legend, and where this was measured."""
    height = figure.get_figheight()
    top, bottom = 1 - 1.05 / height, 0.5 / height
    figure.subplots_adjust(left=0.165, right=0.985, top=top, bottom=bottom, wspace=0.06, hspace=0.26)
    figure.text(0.02, 1 - 0.24 / height, title, fontsize=15, fontweight="bold", va="center")
    looks = [{"color": color, "weight": "bold" if color == OURS else "normal"} for _, color in words]
    areas = [TextArea(word, textprops=look) for (word, _), look in zip(words, looks, strict=True)]
    line = HPacker(children=areas, align="baseline", pad=0, sep=0)
    anchor = (0.02, 1 - 0.54 / height)
    figure.add_artist(
        AnchoredOffsetbox(
            "center left",
            child=line,
            pad=0,
            borderpad=0,
            frameon=False,
            bbox_to_anchor=anchor,
            bbox_transform=figure.transFigure,
        )
    )
    lines = textwrap.fill(machine(results), round(16 * figure.get_figwidth()))
    figure.text(0.02, 0.08 / height, lines, fontsize=7, color=QUIET, va="bottom", linespacing=1.3)


FIGURES: dict[str, tuple[str, Callable[[Results], Figure]]] = {
    "step": ("peers.json", step),
    "sizes": ("peers.json", sizes),
    "whole_step": ("peers.json", whole_step),
    "algorithms": ("peers.json", algorithms),
    "threads": ("scaling.json", scaling),
    "trainer": ("trainer.json", trainer),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=BENCH / "figures")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, (file, draw) in FIGURES.items():
            source = args.results / file
            if not source.exists():
                print(f"skipped: {name} (there is no {source})")
                continue
            figure = draw(load(source))
            figure.savefig(args.out / f"{name}.png")
            plt.close(figure)
            print(f"written: {args.out / name}.png")


if __name__ == "__main__":
    main()
