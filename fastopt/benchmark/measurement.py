"""What is measured, in which order, and in how much time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fastopt import machine
from fastopt.benchmark import checks, streams
from fastopt.benchmark.arithmetic import Peak, operations, peak
from fastopt.benchmark.rounds import Times, interleaved
from fastopt.benchmark.subjects import Subject, memory_of, rule_of
from fastopt.engine import MatrixRule, Rule

#: How many turns each step has: as many as the time allows, within these.
FEWEST, MOST = 3, 15
#: The longest that a step which takes no time is measured, in seconds.
LONGEST = 0.6
#: The share of the free memory that may be taken; where it is not known, so many bytes.
SHARE, UNKNOWN = 0.5, 2 << 30
#: Where a first step of a matrix rule is tried before a larger one, and what its time grows with.
PROBE, EXPONENT = 100_000, 1.5

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """What to measure: an algorithm, a number of parameters, their dtype, the most threads."""

    algorithm: str
    size: int
    dtype: str = "float32"
    threads: int = 1


@dataclass(frozen=True)
class Speed:
    """The speed of a stream: the median of the rounds."""

    stream: str
    where: str
    bytes: int
    threads: int
    gb_per_s: float


@dataclass(frozen=True)
class Result:
    """A step's time: the median of the rounds, and their middle half; and what follows from it.

    With ``at_least``, a step reads and writes more than is counted. ``limit_gb_per_s`` is the speed of the
    stream over the same memory, in the same rounds; ``of_limit`` the step's share of it.
    """

    algorithm: str
    parameters: int
    shape: tuple[int, ...]
    dtype: str
    threads: int
    seconds: float
    seconds_low: float
    seconds_high: float
    parameters_per_s: float
    footprint: int
    bytes_per_parameter: int
    gb_per_s: float
    at_least: bool
    operations_per_parameter: int | None
    limit_gb_per_s: float | None
    of_limit: float | None


@dataclass
class Measured:
    """All that was found, and why something is missing."""

    memory: list[Speed] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    missing: list[tuple[Case, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "memory": [asdict(each) for each in self.memory],
            "peaks": [each._asdict() for each in self.peaks],
            "results": [asdict(each) for each in self.results],
            "missing": [{**asdict(case), "reason": reason} for case, reason in self.missing],
        }


def room() -> int:
    """Return how many bytes may be taken at once."""
    free = machine.free_bytes()
    return UNKNOWN if free is None else int(SHARE * free)


def measure(cases: Sequence[Case], seconds: float, tell: Tell = lambda what: None) -> Measured:
    """Measure the memory, then the cases, in about so many seconds.

    Parameters
    ----------
    cases : sequence of Case
        What to measure. Of each algorithm, the smaller sizes come first. The memory is measured with one
        thread, and with the numbers of threads that are among them.
    seconds : float
        For all of it.
    tell : callable
        Is told what comes next, once for the memory and once for each case.
    """
    found, begun, allowed = Measured(), time.perf_counter(), room()
    tell("memory")
    counts = {1, *(case.threads for case in cases)}
    found.memory = memory(counts, seconds / 10, allowed)
    peaks = [peak(count, seconds / 50) for count in sorted(counts)]
    found.peaks = [each for each in peaks if each is not None]
    took: dict[tuple[str, str, int], tuple[int, float]] = {}
    for number, case in enumerate(cases):
        tell(f"{case.algorithm}, {case.size:,}")
        left = seconds - (time.perf_counter() - begun)
        share = max(left, 0.1 * seconds) / (len(cases) - number)
        key = case.algorithm, case.dtype, case.threads
        reason = _too_large(case, allowed) or _too_slow(case, took.get(key), share)
        if reason:
            found.missing.append((case, reason))
            continue
        try:
            result = time_case(case, share)
        except checks.WrongAnswer as error:
            found.wrong.append(str(error))
            found.missing.append((case, f"wrong: {error}"))
        else:
            took[key] = result.parameters, result.seconds
            found.results.append(result)
    return found


def memory(threads: set[int], seconds: float, allowed: int) -> list[Speed]:
    """Measure each stream in each cache, on one thread, and in the memory, on each number of threads."""
    places = [
        (name, level, count)
        for level in streams.levels(allowed)
        for count in sorted(threads)
        for name in streams.STREAMS
    ]
    found = []
    for name, level, count in places:
        stream = streams.make(name, level.size, count)
        if stream.threads != count:  # a step of this size uses one
            continue
        stream.run()
        times = interleaved({name: stream.run}, FEWEST, seconds / len(places) / FEWEST / 2)
        speed = stream.bytes / float(np.median(times[name])) / 1e9
        found.append(Speed(name, level.name, level.size, count, speed))
    return found


def time_case(case: Case, seconds: float) -> Result:
    """Check and time one case, in about so many seconds.

    Raises
    ------
    WrongAnswer
        If the answers are wrong. Nothing is timed then.
    """
    subject = Subject(case.algorithm, case.size, case.dtype, case.threads)
    checks.check(subject)
    limit = subject.limit(case.threads)
    subject.calm()
    steps = {"step": subject.step} if limit is None else {"step": subject.step, "limit": limit.run}
    times = _timed(steps, seconds)
    checks.require_finite(subject)
    low, median, high = (float(x) for x in np.quantile(times["step"], (0.25, 0.5, 0.75)))
    of_limit = limit_speed = None
    if limit is not None:
        limit_speed = limit.bytes / float(np.median(times["limit"])) / 1e9
        of_limit = subject.bytes / limit.bytes * float(np.median(times["limit"] / times["step"]))
    return Result(
        algorithm=case.algorithm,
        parameters=subject.size,
        shape=subject.shape,
        dtype=case.dtype,
        threads=case.threads,
        seconds=median,
        seconds_low=low,
        seconds_high=high,
        parameters_per_s=subject.size / median,
        footprint=subject.footprint,
        bytes_per_parameter=subject.bytes // subject.size,
        gb_per_s=subject.bytes / median / 1e9,
        at_least=limit is None,
        operations_per_parameter=operations(subject.rule) if isinstance(subject.rule, Rule) else None,
        limit_gb_per_s=limit_speed,
        of_limit=of_limit,
    )


def _timed(steps: dict[str, Callable[[], object]], seconds: float) -> Times:
    """Time steps in turns, in as many rounds as there is time for."""
    begun = time.perf_counter()
    for step in steps.values():
        step()
    once = time.perf_counter() - begun
    rounds = max(FEWEST, min(MOST, int(seconds / (2 * once))))
    return interleaved(steps, rounds, min(seconds, LONGEST) / len(steps) / (rounds + 1))


def _too_large(case: Case, allowed: int) -> str | None:
    needed = memory_of(case.algorithm, case.size, case.dtype)
    if needed <= allowed:
        return None
    return f"needs {needed / 2**30:.1f} GiB; {allowed / 2**30:.1f} GiB may be taken, half of what is free"


def _too_slow(case: Case, before: tuple[int, float] | None, seconds: float) -> str | None:
    """Say why a step of a matrix rule would take too long: its time grows faster than the array."""
    if not isinstance(rule_of(case.algorithm), MatrixRule) or case.size <= PROBE:
        return None
    if before is None or before[0] < PROBE // 2:  # small steps say nothing of large ones
        subject = Subject(case.algorithm, PROBE, case.dtype, case.threads)
        before = PROBE, float(interleaved({"step": subject.step}, 1, 0.0)["step"][0])
    size, took = before
    expected = took * (case.size / size) ** EXPONENT
    if (checks.STEPS + 2 * FEWEST) * expected <= 2 * max(seconds, LONGEST):
        return None
    return f"a step would take about {_rough(expected)}; give it more --seconds"


def _rough(seconds: float) -> str:
    digits = 1 - math.floor(math.log10(seconds))
    return f"{round(seconds, digits):g} s"
