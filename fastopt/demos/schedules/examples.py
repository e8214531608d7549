"""One example or more of each schedule, over the same number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastopt import schedules as s
from fastopt.schedules import Schedule

#: How many steps are drawn.
STEPS = 1000

#: Every how many of them the metric is reported to what listens to one.
REPORT_EVERY = 10


class Curve(NamedTuple):
    """The values of a schedule.

    Attributes
    ----------
    label : str
        What is special about it.
    values : list of float
        At the steps from 0 to ``STEPS``.
    is_schedule : bool
        Whether it is one: the loss that goes with one is not.
    """

    label: str
    values: list[float]
    is_schedule: bool = True


class Panel(NamedTuple):
    """A class of schedules, and curves that show what its arguments do."""

    title: str
    curves: Sequence[Curve]


def values(schedule: Callable[[int], float]) -> list[float]:
    """Return the values of a schedule at all steps."""
    return [schedule(step) for step in range(STEPS + 1)]


def panels() -> list[Panel]:
    """Return all examples, in the order in which they are drawn."""
    return [
        *(
            Panel(title, [Curve(label, values(schedule)) for label, schedule in lines.items()])
            for title, lines in _examples().items()
        ),
        plateau(s.ReduceOnPlateau(1.0, factor=0.5, patience=8, threshold=0.01)),
    ]


def _examples() -> dict[str, dict[str, Schedule]]:
    curve = {100: 1.0, 400: 0.5, 600: 0.9, 900: 0.1}
    cycle = s.OneCycle(1.0, STEPS)
    in_three = s.OneCycle(1.0, STEPS, shape="linear", three_phase=True)
    stairs = s.Step(1.0, 150, gamma=0.7)
    return {
        "Constant": {"value=1.0": s.Constant(1.0)},
        "Linear": {"final=0.1": s.Linear(1.0, STEPS, final=0.1)},
        "Polynomial": {
            "power=2": s.Polynomial(1.0, STEPS, power=2.0),
            "power=0.5": s.Polynomial(1.0, STEPS, power=0.5),
        },
        "Exponential": {
            "gamma=0.6": s.Exponential(1.0, gamma=0.6, steps=150),
            "staircase=True": s.Exponential(1.0, gamma=0.6, steps=150, staircase=True),
        },
        "Step": {"step_size=150": stairs},
        "MultiStep": {"milestones=[500, 750]": s.MultiStep(1.0, [500, 750], gamma=0.3)},
        "Piecewise": {
            "constant": s.Piecewise(0.2, curve),
            "linear": s.Piecewise(0.2, curve, shape="linear"),
            "cosine": s.Piecewise(0.2, curve, shape="cosine"),
        },
        "Cosine": {"power=1": s.Cosine(1.0, STEPS), "power=3": s.Cosine(1.0, STEPS, power=3.0)},
        "CosineRestarts": {
            "multiplier=1": s.CosineRestarts(1.0, 250),
            "multiplier=2": s.CosineRestarts(1.0, 143, multiplier=2),
        },
        "OneCycle": {"two phases": cycle, "three, linear": in_three},
        "OneCycle.momentum()": {"two phases": cycle.momentum(), "three, linear": in_three.momentum()},
        "Cyclic": {
            "triangular": s.Cyclic(0.1, 1.0, 125),
            "triangular2": s.Cyclic(0.1, 1.0, 125, mode="triangular2"),
            "exp_range": s.Cyclic(0.1, 1.0, 125, mode="exp_range", gamma=0.998),
        },
        "InverseSqrt": {
            "timescale=100": s.InverseSqrt(1.0, 100),
            "in a Warmup": s.Warmup(s.InverseSqrt(1.0, 100), 100),
        },
        "Warmup": {
            "of a Cosine": s.Warmup(s.Cosine(1.0, 800), 200),
            "constant, of a Linear": s.Warmup(s.Linear(1.0, 800), 200, start_factor=0.3, shape="constant"),
        },
        "WarmupStableDecay": {
            shape: s.WarmupStableDecay(1.0, warmup=100, stable=500, decay=400, shape=shape)
            for shape in ("linear", "cosine", "1-sqrt")
        },
        "Sequence": {
            "Linear, 0.5, Cosine": s.Sequence([s.Linear(1.0, 600), 0.5, s.Cosine(0.5, 400)], [300, 600])
        },
        "Chain": {"Linear * Step": s.Linear(1.0, STEPS) * stairs},
    }


def plateau(schedule: s.ReduceOnPlateau) -> Panel:
    """Return the curves of a value that waits for plateaus, and of a loss that has them.

    The loss nears a floor that is in proportion to the value, as that of SGD does whose gradients are noisy.
    """
    rates, losses = [], []
    loss = 3.0
    for step in range(STEPS + 1):
        rate = schedule(step)
        rates.append(rate)
        losses.append(loss)
        loss += 0.02 * (0.5 * rate - loss)
        if step % REPORT_EVERY == REPORT_EVERY - 1:
            schedule.report(loss)
    label = f"factor={schedule.factor:g}"
    return Panel(type(schedule).__name__, [Curve(label, rates), Curve("loss", losses, is_schedule=False)])
