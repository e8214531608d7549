"""AdamW with less to move: state in bfloat16 or in 8 bits, gradients in half precision, against float32.

A step is bound by the memory, so the aim is the ratio of the bytes. Where all is in the cache, it is bound by
what it computes: there fewer bytes cost time. All round stochastically, as they do by default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import _measure  # first: it says which fastopt is measured
import numpy as np
from _measure import Times, duration, interleaved, median, ratio
from numpy.typing import NDArray

import fastopt

try:
    from ml_dtypes import bfloat16
except ModuleNotFoundError:
    bfloat16 = None

SMOKE = os.environ.get("FASTOPT_BENCH_SMOKE", "") not in ("", "0")
LR, BETAS, DECAY = 1e-3, (0.9, 0.999), 0.01

Array = NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """What is stored how.

    Attributes
    ----------
    moved : int
        Bytes that a step reads and writes for each parameter.
    off : float
        How far the parameters may be from those of float32 after some steps, in learning rates.
    options : mapping
        Of the optimizer.
    grad, param : str
        The dtypes of the gradients and of the parameters.
    """

    moved: int
    off: float
    options: Mapping[str, Any]
    grad: str = "float32"
    param: str = "float32"


KINDS = {
    "float32": Kind(28, 0.0, {}),
    "bfloat16 state": Kind(20, 0.1, {"state_dtype": "bfloat16"}),
    "bfloat16 state, bfloat16 gradients": Kind(18, 0.1, {"state_dtype": "bfloat16"}, "bfloat16"),
    "bfloat16 state, float16 gradients": Kind(18, 0.1, {"state_dtype": "bfloat16"}, "float16"),
    "float8 state": Kind(16, 1.0, {"state_dtype": "float8"}),
    "float8 state, bfloat16 gradients": Kind(14, 1.0, {"state_dtype": "float8"}, "bfloat16"),
    "all in bfloat16": Kind(14, 10.0, {"state_dtype": "bfloat16"}, "bfloat16", "bfloat16"),
    "all in bfloat16, split weights": Kind(
        18, 0.1, {"state_dtype": "bfloat16", "master_weights": "split"}, "bfloat16", "bfloat16"
    ),
}
CHECKED = 5


def kinds() -> dict[str, Kind]:
    """Return what can be measured: bfloat16 arrays are those of a package that may be missing."""
    return {
        name: kind
        for name, kind in KINDS.items()
        if bfloat16 is not None or "bfloat16" not in (kind.grad, kind.param)
    }


def start(kind: Kind, size: int) -> tuple[Array, Array]:
    """Return parameters and gradients. All kinds have the same: bfloat16 and float16 both have these."""
    rng = np.random.default_rng(0)
    dtypes = [bfloat16 if name == "bfloat16" else np.dtype(name) for name in (kind.param, kind.grad)]
    param, grad = (rng.integers(-127, 128, size, np.int8).astype(np.float32) / 64 for _ in range(2))
    return param.astype(dtypes[0]), grad.astype(dtypes[1])


def make(kind: Kind, size: int) -> tuple[Callable[[], object], Array]:
    """Return a step, and the parameters that it updates."""
    param, grad = start(kind, size)
    opt = fastopt.AdamW(param, lr=LR, betas=BETAS, weight_decay=DECAY, **kind.options)
    return lambda: opt.step(grad), param


def check(size: int = 10_000) -> None:
    """Raise an error unless some steps of each kind end near those of float32."""
    wanted: Array | None = None
    for name, kind in kinds().items():
        step, param = make(kind, size)
        for _ in range(CHECKED):
            step()
        got = param.astype(np.float64)
        wanted = got if wanted is None else wanted
        # A parameter without its rest is rounded in each step, by up to the distance of its neighbours.
        spacing = 2.0**-7 * CHECKED if kind.param == "bfloat16" else 0.0
        off = float(np.max(np.abs(got - wanted) - spacing * np.abs(wanted)))
        if not off <= kind.off * LR or not np.isfinite(got).all():
            raise AssertionError(f"{name}: off by {off / LR} learning rates, {kind.off} are allowed")


def measure(size: int, rounds: int, seconds: float) -> Times:
    """Return the times of a step of each kind."""
    steps = {name: make(kind, size)[0] for name, kind in kinds().items()}
    return interleaved(steps, rounds, seconds)


def main() -> None:
    args = _measure.arguments(__doc__, "lowprec.json").parse_args()
    about = _measure.describe()
    check()
    sizes = (
        [10_000] if SMOKE else [10_000, 100_000] if args.quick else [10_000, 100_000, 1_000_000, 50_000_000]
    )
    rounds, seconds = (3, 0.01) if args.quick or SMOKE else (15, 0.2)
    cases = []
    for size in sizes:
        times = measure(size, rounds, seconds)
        for name, kind in kinds().items():
            found, speed = median(times[name]), ratio(times, "float32", name)
            fastest = float(times["float32"].min() / times[name].min())
            bytes_ratio = KINDS["float32"].moved / kind.moved
            cases.append(
                {
                    "size": size,
                    "kind": name,
                    "bytes": kind.moved,
                    "seconds": found,
                    "least": float(times[name].min()),
                    "speed": speed,
                    "fastest": fastest,
                }
            )
            print(
                f"{size}: {name}: {duration(found)}, {speed:.2f} times float32's speed "
                f"({fastest:.2f} by the fastest rounds); the bytes would allow {bytes_ratio:.2f}"
            )
    _measure.save(args, about, {"cases": cases})


if __name__ == "__main__":
    main()
