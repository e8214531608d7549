"""Draws the README's figures from the results, into ``bench/figures``. Its tables are drawn by tables.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from _measure import BENCH, RESULTS, duration
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from tables import PEERS, Results, count, load, machine, multiple

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


def step(results: Results) -> Figure:
    """Draw AdamW's times, a panel a size; the bars are multiples of fastopt's."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 5.4), sharey=True)
    for axes, (size, found) in zip(panels.flat, results["adamw"].items(), strict=True):
        peers = [peer for peer in PEERS if peer in found]
        _panel(axes, f"{count(int(size))} parameters", [PEERS[peer] for peer in peers])
        for row, peer in enumerate(peers):
            times, seconds = found[peer]["times_fastopt"], found[peer]["seconds"]
            ours, end = peer == "fastopt", min(times, LONGEST)
            axes.barh(row, end, 0.66, color=OURS if ours else THEIRS)
            if times > LONGEST:
                for x in (end - 1.0, end - 0.7):
                    axes.plot([x - 0.12, x + 0.12], [row + 0.42, row - 0.42], color="white", linewidth=2)
            color, weight = (OURS, "bold") if ours else (INK, "normal")
            label = axes.text(
                end + 0.25, row, duration(seconds), va="center_baseline", color=color, weight=weight
            )
            if not ours:
                axes.annotate(
                    multiple(times), (1, 0.5), (8, 0), label, "offset points", va="center", color=QUIET
                )
        axes.set_xlim(0, LONGEST + 5)
    panels[0, 0].invert_yaxis()
    words = [
        ("float32. Shorter is better. In grey: the multiple of ", QUIET),
        ("fastopt", OURS),
        ("'s time.", QUIET),
    ]
    _frame(figure, "Time of one AdamW step", words, results)
    return figure


def algorithms(results: Results) -> Figure:
    """Draw each algorithm's GB/s beside NumPy's, a panel a size."""
    sizes = results["algorithms"]
    tallest = max(map(len, sizes.values()))
    figure, panels = plt.subplots(1, len(sizes), figsize=(9, 1.5 + 0.44 * tallest), sharey=True)
    for axes, (size, found) in zip(panels, sizes.items(), strict=True):
        _panel(axes, f"{count(int(size))} parameters", list(found))
        for row, value in enumerate(found.values()):
            for offset, by, color in ((-0.19, "fastopt", OURS), (0.19, "NumPy", THEIRS)):
                speed = value["gb_per_s"][by]
                axes.barh(row + offset, speed, 0.36, color=color)
                text = OURS if by == "fastopt" else QUIET
                axes.text(speed, row + offset, f" {speed:.0f}", va="center", fontsize=8.5, color=text)
        axes.set_xlim(0, 1.12 * max(value["gb_per_s"]["fastopt"] for value in found.values()))
    panels[0].invert_yaxis()
    words = [("GB/s of ", QUIET), ("fastopt", OURS), (" and of ", QUIET), ("NumPy, in place", "#868e96")]
    words += [(", counting the bytes that the update needs. Longer is better.", QUIET)]
    _frame(figure, "Speed of every algorithm", words, results)
    return figure


def threads(results: Results) -> Figure:
    """Draw the GB/s of AdamW against size, on one thread and on all."""
    engine, seconds = results["engine"], results["seconds"]
    sizes = [int(size) for size in seconds]
    figure, axes = plt.subplots(figsize=(9, 4.6))
    for name, color in (("1 thread", "#868e96"), (f"chunk {engine['chunk']}", OURS)):
        speeds = [
            28 * size / values[name] / 1e9 for size, values in zip(sizes, seconds.values(), strict=True)
        ]
        axes.plot(sizes, speeds, color=color, linewidth=2, marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] * 0.8, sizes[-1] * 1.3)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    axes.set_xticks(sizes, [count(size).replace(" million", "M").replace(",000", "k") for size in sizes])
    axes.minorticks_off()
    axes.yaxis.grid(True, color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    cutoff = engine["cutoff_bytes"] / 16
    axes.axvline(cutoff, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    text = "several threads\nfrom here on"
    axes.annotate(text, (cutoff, 0), (6, 14), textcoords="offset points", fontsize=8.5, color=QUIET)
    words = [
        ("GB/s of an AdamW step on ", QUIET),
        (f"{engine['threads']} threads", OURS),
        (" and on ", QUIET),
    ]
    words += [("one", "#868e96"), (", against the number of parameters. Higher is better.", QUIET)]
    _frame(figure, "When threads pay", words, results)
    figure.subplots_adjust(left=0.06, bottom=0.16, top=0.85)
    return figure


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
    top, bottom = 1 - 1.05 / height, 0.42 / height
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
    figure.text(0.02, 0.14 / height, machine(results), fontsize=7, color=QUIET, va="center")


FIGURES: dict[str, tuple[str, Callable[[Results], Figure]]] = {
    "step": ("step.json", step),
    "algorithms": ("step.json", algorithms),
    "threads": ("threads.json", threads),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=BENCH / "figures")
    args = parser.parse_args()
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
