"""What the demos' pictures share. They are drawn without pyplot, so no state of matplotlib changes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import matplotlib.style
from matplotlib.axes import Axes

#: Okabe and Ito's colours, which colour-blind readers tell apart. Their yellow is too pale on white:
#: a grey is in its place.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#777777")

#: One a line as well, for what is printed in grey.
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (8, 2, 2, 2), (4, 2, 1.5, 2, 1.5, 2))

_STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "axes.labelcolor": "0.2",
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "grid.color": "0.9",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 150,
}


def style() -> AbstractContextManager[None]:
    """Return the context in which to draw: one look, whatever the user's settings are."""
    context: AbstractContextManager[None] = matplotlib.style.context(["default", _STYLE])
    return context


class EndLabel(NamedTuple):
    """The name of a line, to be written at its right end."""

    text: str
    y: float
    colour: str


def label_ends(axes: Axes, x: float, labels: Sequence[EndLabel], gap: float = 0.055) -> None:
    """Write names beside the ends of lines, moved apart where they would overlap.

    Parameters
    ----------
    axes : Axes
        Where the lines are. Its limits must be final.
    x : float
        Where the lines end.
    labels : sequence of EndLabel
        The names.
    gap : float
        The least distance between two names, as a share of the axes' height.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    placed = sorted((float(to_share.transform((x, label.y))[1]), label) for label in labels)
    heights = spread([share for share, _ in placed], gap)
    # Lines, not an annotation's arrow: matplotlib cannot clip every one of those at its text.
    for height, (share, label) in zip(heights, placed, strict=True):
        axes.plot(
            (1.01, 1.04),
            (share, height),
            color=label.colour,
            lw=0.7,
            transform=axes.transAxes,
            clip_on=False,
            scalex=False,
            scaley=False,
        )
        axes.text(
            1.05,
            height,
            label.text,
            color=label.colour,
            va="center",
            fontsize=10,
            transform=axes.transAxes,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return ascending heights moved apart to ``gap``, as little as may be, with neighbours in groups.

    Examples
    --------
    >>> spread([0.0, 0.5, 0.5], 0.25)
    [0.0, 0.375, 0.625]
    """
    groups: list[tuple[float, int]] = []  # the centre of each group, and how many are in it
    for height in heights:
        groups.append((height, 1))
        while len(groups) > 1:
            (below, m), (above, n) = groups[-2:]
            if above - below >= gap * (m + n) / 2 - 1e-12:
                break
            groups[-2:] = [((below * m + above * n) / (m + n), m + n)]
    return [centre + gap * (i - (size - 1) / 2) for centre, size in groups for i in range(size)]
