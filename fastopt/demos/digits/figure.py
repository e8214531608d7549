"""The picture of the losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastopt.demos.digits.contestants import FAMILIES
from fastopt.demos.digits.training import Run
from fastopt.demos.figures import COLOURS, DASHES, EndLabel, label_ends, style


def draw(runs: Mapping[str, Run], path: Path) -> None:
    """Draw the training loss of each method by epochs, a panel a family; the other families are grey.

    Parameters
    ----------
    runs : mapping
        Trainings by the method's label.
    path : Path
        Where to write the PNG.
    """
    with style():
        figure = Figure(figsize=(14, 5))
        figure.subplots_adjust(left=0.075, right=0.89, top=0.85, bottom=0.11, wspace=0.7)
        panels = figure.subplots(1, len(FAMILIES), sharex=True, sharey=True)
        for axes, (title, family) in zip(panels, FAMILIES.items(), strict=True):
            own = [method.label for method in family]
            for label, run in runs.items():
                if label not in own:
                    axes.plot(run.losses, color="0.85", lw=1)
            for label, colour, dashes in zip(own, COLOURS, DASHES, strict=False):
                axes.plot(runs[label].losses, color=colour, dashes=dashes)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.set_yscale("log")
            axes.grid()
        panels[0].set_ylabel("training loss")
        panels[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panels[0].set_xlim(0, len(next(iter(runs.values())).losses) - 1)
        figure.suptitle(
            "Handwritten digits: the same network and batches for every method "
            "(grey: those of the other panels)",
            x=0.075,
            y=0.97,
            ha="left",
        )
        for axes, family in zip(panels, FAMILIES.values(), strict=True):
            labels = []
            for method, colour in zip(family, COLOURS, strict=False):
                text = method.label.replace("centered, ", "centered,\n")
                labels.append(EndLabel(text, runs[method.label].losses[-1], colour))
            label_ends(axes, axes.get_xlim()[1], labels)
        figure.savefig(path)
