"""20,000 steps in which most gradients are zero: does a step take longer at the end than at the beginning?

The moments of a parameter whose gradient is zero (a dead unit, a word that no longer comes) fade. After some
800 steps momentum becomes subnormal, a number so small that many processors compute with it 10 to 100 times
as slowly, and rounding then keeps it from ever becoming zero. fastopt sets such state to zero. How much
this processor loses on subnormal numbers is measured beside.

Each library takes its steps by windows, in turns with the others. One that would take longer than
``--seconds`` in all stops earlier: the results say after how many steps. Parameters must be finite in the
end, and within rounding those of NumPy in double.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import _measure  # first: it says which fastopt is measured
import numpy as np
import plain_numpy
from _measure import PAUSE, duration
from _turns import SMOKE
from contestants import Array, start, torch_or_none

import fastopt

SIZE, STEPS, WINDOW = 10**5, 20_000, 500
#: Steps with gradients for all, and the share of the parameters that have one afterwards.
DENSE, LIVE = 50, 0.05
#: A window's time is the median of as many parts: what disturbs one does not count.
PARTS = 10

#: Hyperparameters, which all libraries call alike; where they are left out, all have the same.
METHODS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "Adagrad": {},
    "Adadelta": {},
    "RMSprop": {},
    "Adam": {},
    "AdamW": {},
}


class Runner(NamedTuple):
    """A step, what sets its gradients, and the parameters that it updates."""

    step: Callable[[], object]
    set_gradients: Callable[[Array], None]
    params: Array


def by_fastopt(method: str, p: Array) -> Runner:
    pack = fastopt.pack(p)

    def set_gradients(g: Array) -> None:
        pack.flat_grads[:] = g

    return Runner(getattr(fastopt, method)(pack, **METHODS[method]).step, set_gradients, pack.flat)


def by_numpy(method: str, p: Array) -> Runner:
    p, grads = p.copy(), np.empty_like(p)
    step = plain_numpy.STEPS[method](p, **METHODS[method])

    def set_gradients(g: Array) -> None:
        grads[:] = g

    return Runner(lambda: step(grads), set_gradients, p)


def by_torch(torch: Any, method: str, p: Array, **manner: bool) -> Runner:
    """Return torch's; raise a TypeError if the method cannot be done in this manner."""
    parameter = torch.nn.Parameter(torch.tensor(p))
    parameter.grad = torch.zeros_like(parameter)
    opt = getattr(torch.optim, method)([parameter], **METHODS[method], **manner)

    def set_gradients(g: Array) -> None:
        parameter.grad.copy_(torch.tensor(g))

    return Runner(opt.step, set_gradients, parameter.detach().numpy())


def runners(method: str, p: Array) -> dict[str, Runner]:
    found = {"fastopt": by_fastopt(method, p), "NumPy, in place": by_numpy(method, p)}
    if torch := torch_or_none():
        found["torch"] = by_torch(torch, method, p)
        with suppress(TypeError):  # there is none of this method
            found["torch, fused"] = by_torch(torch, method, p, fused=True)
    return found


def window(step: Callable[[], object], steps: int) -> float:
    """Return the seconds of a step: the median of some parts of a window."""
    parts = min(PARTS, steps)
    number = steps // parts
    return float(np.median(timeit.repeat(step, number=number, repeat=parts))) / number


def measure(method: str, size: int, steps: int, length: int, most_seconds: float) -> dict[str, Any]:
    """Return the seconds of a step in each window, by library, and the last over the first."""
    p, g = start(size)
    sparse = np.where(np.random.default_rng(2).random(size) < LIVE, g, 0).astype(g.dtype)
    found = runners(method, p)
    seconds: dict[str, list[float]] = {by: [] for by in found}
    spent = dict.fromkeys(found, 0.0)
    for runner in found.values():
        runner.set_gradients(g)
        for _ in range(DENSE):
            runner.step()
        runner.set_gradients(sparse)
    for _ in range(steps // length):
        for by, runner in found.items():
            if spent[by] < most_seconds:
                time.sleep(PAUSE)
                before = time.perf_counter()
                seconds[by].append(window(runner.step, length))
                spent[by] += time.perf_counter() - before
    for by, runner in found.items():
        check(f"{method}, {by}", method, runner.params, p, g, sparse, len(seconds[by]) * length)
    return {by: {"steps": len(each) * length, **ends(each), "seconds": each} for by, each in seconds.items()}


def ends(seconds: list[float]) -> dict[str, float]:
    """Return the first window's time, and that of the last tenth of them, also as a ratio."""
    last = float(np.median(seconds[-max(1, len(seconds) // 10) :]))
    return {"first_s": seconds[0], "last_s": last, "ratio": last / seconds[0]}


def check(name: str, method: str, params: Array, p: Array, g: Array, sparse: Array, steps: int) -> None:
    """Raise an error unless a sample of the parameters is what NumPy computes in double."""
    if not np.isfinite(params).all():
        raise AssertionError(f"{name}: {(~np.isfinite(params)).sum()} parameters are not finite")
    sample = slice(None, None, max(1, p.size // 500))
    exact = p[sample].astype(float)
    step = plain_numpy.STEPS[method](exact, **METHODS[method])
    for taken in range(DENSE + steps):
        step((g if taken < DENSE else sparse)[sample].astype(float))
    # Rounding errors of thousands of steps add up; in live parameters they are those of the sum.
    moved = np.maximum(abs(exact - p[sample]), 1)
    wrong = ~(abs(params[sample] - exact) <= 1e-3 * moved)
    if wrong.any():
        worst = abs(params[sample] - exact).max()
        raise AssertionError(f"{name}: {wrong.sum()} of {exact.size} differ from double's, by up to {worst}")


def subnormal_cost() -> dict[str, float]:
    """Return how many times as long NumPy's operations take on subnormal numbers, on this processor."""
    usual, tiny = np.full(4096, 1.1, np.float32), np.full(4096, 1e-40, np.float32)
    out = np.empty_like(usual)
    operations: dict[str, Callable[[Array], object]] = {
        "multiply": lambda x: np.multiply(x, np.float32(0.9), out=out),
        "add": lambda x: np.add(x, x, out=out),
        "sqrt": lambda x: np.sqrt(x, out=out),
        "divide": lambda x: np.divide(x, usual, out=out),
    }
    number = 20 if SMOKE else 2000

    def fastest(operation: Callable[[Array], object], x: Array) -> float:
        return min(timeit.repeat(lambda: operation(x), number=number, repeat=5))

    return {
        name: fastest(operation, tiny) / fastest(operation, usual) for name, operation in operations.items()
    }


def main() -> None:
    parser = _measure.arguments(__doc__, "slowdown.json")
    text = "the most that a library's steps of one method may take (default %(default)s)"
    parser.add_argument("--seconds", type=float, default=6.0, help=text)
    args = parser.parse_args()
    about = _measure.describe()
    size, steps, length = (
        (1000, 400, 100) if SMOKE else (SIZE, 4000, WINDOW) if args.quick else (SIZE, STEPS, WINDOW)
    )
    cost = subnormal_cost()
    print("subnormal numbers, times as slow here: " + ", ".join(f"{k} {v:.2g}" for k, v in cost.items()))
    found = {method: measure(method, size, steps, length, args.seconds) for method in METHODS}
    rows = []
    for method, by_library in found.items():
        for by, each in by_library.items():
            cells = [duration(each["first_s"]), duration(each["last_s"]), f"{each['ratio']:.2f}"]
            rows.append([method, by, f"{each['steps']:,}", *cells])
    print(_measure.table(["", "by", "steps", "first", "last", "last / first"], rows))
    settings = {"size": size, "steps": steps, "window": length, "live": LIVE, "dense": DENSE}
    _measure.save(args, about, {**settings, "subnormal_cost": cost, "methods": found})


if __name__ == "__main__":
    main()
