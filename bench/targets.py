"""Measures the project's targets, in one run, and says which are met.

Ratios come from interleaved rounds: all that is compared takes turns, and the median is taken over the
rounds' ratios. Kernels are compiled, and answers checked against float64, before any clock starts.
Above 1 means that fastopt is faster. A peer that is not installed leaves its targets unmeasured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import _measure
import contestants
import latency
import numpy as np
from _measure import Times, interleaved, median, ratio, slowest
from contestants import Array, torch_or_none

import fastopt


class Run(NamedTuple):
    """How much to measure."""

    rounds: int
    seconds: float
    large: int


class Result(NamedTuple):
    """A target and what was measured. Without a target it is reported for comparison only."""

    name: str
    value: float | None
    target: float | None
    unit: str
    better: str = "more"

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        if self.target is None:
            return ""
        met = self.value >= self.target if self.better == "more" else self.value <= self.target
        return "met" if met else "NOT MET"


def _speed(times: Times, peer: str) -> float | None:
    return ratio(times, peer, "fastopt") if peer in times else None


def large_step(run: Run) -> Iterator[Result]:
    times = _adamw(run.large, run)
    what = f"AdamW, {run.large:.0e} parameters: speed / "
    yield Result(what + "C's", _speed(times, "C"), 0.95, "x")
    yield Result(what + "NumPy's, textbook", _speed(times, "NumPy, textbook"), 10, "x")
    yield Result(what + "NumPy's, in place", _speed(times, "NumPy, in place"), None, "x")
    yield Result(what + "torch's, fused", _speed(times, "torch, fused"), 1.0, "x")


def step_in_cache(run: Run) -> Iterator[Result]:
    times = _adamw(10**6, run)
    yield Result("AdamW, 1e+06 parameters: speed / torch's, fused", _speed(times, "torch, fused"), 1.2, "x")
    yield Result("AdamW, 1e+06 parameters: speed / C's", _speed(times, "C"), None, "x")


def small_step(run: Run) -> Iterator[Result]:
    times = _adamw(100, run)
    yield Result("step of 100 parameters", median(times["fastopt"]) * 1e6, 4.0, "µs", "less")
    yield Result("step of 100 parameters: speed / torch's, fused", _speed(times, "torch, fused"), 5, "x")


def _adamw(size: int, run: Run) -> Times:
    steps = {name: contestant.step for name, contestant in contestants.adamw(size).items()}
    return contestants.best_c(interleaved(steps, run.rounds, run.seconds))


def many_arrays(run: Run) -> Iterator[Result]:
    """1000 arrays of 1000: in a pack, and as they are, with the same and with new gradient arrays."""
    count, size = 1000, 1000
    params, grads = (list(array.reshape(count, size)) for array in contestants.start(count * size))
    others = [grad.copy() for grad in grads]
    new: list[list[Array]] = [others, grads]
    pack = fastopt.pack(params)
    pack.flat_grads[:] = np.concatenate(grads)
    own, alternated = ([param.copy() for param in params] for _ in range(2))
    with_same, with_new = fastopt.AdamW(own), fastopt.AdamW(alternated)

    def new_arrays() -> None:
        new.reverse()
        with_new.step(new[0])

    steps: dict[str, Callable[[], object]] = {
        "packed": fastopt.AdamW(pack).step,
        "same": lambda: with_same.step(grads),
        "new": new_arrays,
    }
    updated = {"packed": pack.params, "same": own, "new": alternated}
    if torch := torch_or_none():
        parameters = [torch.nn.Parameter(torch.tensor(param)) for param in params]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = torch.tensor(grad)
        steps["torch"] = torch.optim.AdamW(parameters, fused=True).step
        updated["torch"] = [parameter.detach().numpy() for parameter in parameters]
    for name, step in steps.items():
        _check_list(step, updated[name], params, grads)
    times = interleaved(steps, run.rounds, run.seconds)
    speeds = {name: ratio(times, "torch", name) if "torch" in times else None for name in steps}
    what = "1000 arrays of 1000: speed / torch's, fused: "
    yield Result(what + "packed", speeds["packed"], 20, "x")
    worse = slowest(times, ["same", "new"])
    for name in ("same", "new"):
        target = 4 if name == worse else None
        yield Result(f"{what}unpacked, {name} gradient arrays", speeds[name], target, "x")
    for name in ("packed", "same", "new"):
        yield Result(f"1000 arrays of 1000: time, {name}", median(times[name]) * 1e6, None, "µs", "less")


def _check_list(
    step: Callable[[], object], updated: list[Array], params: list[Array], grads: list[Array]
) -> None:
    def step_and_gather() -> None:
        step()
        flat[:] = np.concatenate(updated)

    flat = np.concatenate(params)
    contestants.check("AdamW", contestants.Contestant(step_and_gather, flat, np.concatenate(grads)))


def beside_blas(run: Run) -> Iterator[Result]:
    """A matrix product and a step in turn, against the sum of the two alone."""
    rng = np.random.default_rng(0)
    for side in (128, 512):
        for size in (10**5, 10**6):
            contestant = contestants.by_fastopt("AdamW", *contestants.start(size))
            contestants.check("AdamW", contestant)
            times = interleaved(_alternation(rng, side, contestant.step), run.rounds, 2 * run.seconds)
            quotient = median(times["both"] / (times["product"] + times["step"]))
            name = f"matmul of {side}x{side} and step of {size:.0e} in turn / their sum"
            yield Result(name, quotient, 1.15, "x", "less")


def _alternation(
    rng: np.random.Generator, side: int, step: Callable[[], object]
) -> dict[str, Callable[[], object]]:
    a, b, out = rng.random((3, side, side), np.float32)

    def both() -> None:
        np.matmul(a, b, out=out)
        step()

    return {"product": lambda: np.matmul(a, b, out=out), "step": step, "both": both}


def start_up(run: Run) -> Iterator[Result]:
    times = latency.measure(run.rounds)
    for name, target in {"import fastopt": 0.1, "first step, cold": 1.5, "first step, warm": 0.35}.items():
        yield Result(f"{name}: more than import numba", latency.extra(times, name), target, "s", "less")


TARGETS = [large_step, step_in_cache, small_step, many_arrays, beside_blas, start_up]


def main() -> None:
    parser = _measure.arguments(__doc__, "targets.json")
    parser.add_argument("--only", metavar="NAME", help=", ".join(f.__name__ for f in TARGETS))
    args = parser.parse_args()
    about = _measure.describe()
    run = Run(3, 0.02, 2 * 10**7) if args.quick else Run(15, 0.1, 5 * 10**7)
    results = []
    for measure in TARGETS:
        if args.only in (None, measure.__name__):
            results += measure(run)
    rows = [[r.name, _number(r.value, r.unit), _bound(r), r.verdict or "(for comparison)"] for r in results]
    print(_measure.table(["target", "measured", "wanted", ""], rows))
    entries = [{**r._asdict(), "verdict": r.verdict} for r in results]
    _measure.save(args, about, {"run": run._asdict(), "targets": entries})


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.3g} {unit}"


def _bound(result: Result) -> str:
    sign = ">=" if result.better == "more" else "<="
    return "" if result.target is None else f"{sign} {_number(result.target, result.unit)}"


if __name__ == "__main__":
    main()
