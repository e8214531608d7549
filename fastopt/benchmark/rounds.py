"""Times of several functions, measured in turns."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Step = Callable[[], object]
Times = dict[str, NDArray[np.float64]]


def interleaved(
    steps: Mapping[str, Step], rounds: int = 9, seconds: float = 0.05, pause: float = 0.0, warm: float = 0.0
) -> Times:
    """Return the seconds that a call of each step takes, one value a round.

    The steps take turns, so that what changes on the machine meanwhile meets them all. None always comes
    first, or always after the same neighbour. Before it is timed, a step is called a tenth as often, which
    warms caches, clocks and threads.

    Parameters
    ----------
    steps : mapping of str to callable
        What to call, by name.
    rounds : int
        How often each has its turn.
    seconds : float
        How long a turn takes, about: a step is called once at least.
    pause : float
        Seconds to sleep before each turn, where the threads of a step spin for a while after it.
    warm : float
        Steps that fill a turn by one call are warmed up if they take less than so many seconds.

    Examples
    --------
    >>> from fastopt.benchmark.rounds import interleaved
    >>> times = interleaved({"sum": lambda: sum(range(100)), "nothing": lambda: None}, 3, 1e-4)
    >>> times["sum"].shape, bool(times["sum"].min() > times["nothing"].min())
    ((3,), True)
    """
    names = list(steps)
    each = {name: seconds_of(step, seconds) for name, step in steps.items()}
    numbers = {name: max(1, round(seconds / took)) for name, took in each.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        start = i % len(names)
        for name in names[start:] + names[:start]:
            number = numbers[name]
            if pause:
                time.sleep(pause)
            if number > 1 or each[name] < warm:
                timeit.timeit(steps[name], number=max(1, number // 10))
            times[name].append(timeit.timeit(steps[name], number=number) / number)
    return {name: np.array(values) for name, values in times.items()}


def seconds_of(step: Step, seconds: float) -> float:
    """Return about how long a call of a step takes, of as many as take a part of ``seconds``."""
    step()  # compiles, and touches the memory
    number = 1
    while (took := timeit.timeit(step, number=number)) < seconds / 8:
        number *= 4
    if took < 4 * seconds:  # if it was held up, too few calls would be thought to fill a turn
        took = min(took, *(timeit.timeit(step, number=number) for _ in range(2)))
    return took / number
