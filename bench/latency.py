"""What a program waits for: ``import fastopt``, and the first step, from a cold and from a warm cache.

Each measurement is a new process, and ``import numba`` is measured in the same rounds: fastopt
answers for what comes on top of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import _measure
import numpy as np
from _measure import Times, median

CLOCK = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
FIRST_STEP = (
    "import numpy as np, fastopt; pack = fastopt.pack(np.ones(100, np.float32)); fastopt.AdamW(pack).step()"
)
PROGRAMS = {
    "import numba": "import numba",
    "import fastopt": "import fastopt",
    "first step, cold": FIRST_STEP,
    "first step, warm": FIRST_STEP,
}


def measure(rounds: int) -> Times:
    """Return the seconds that each program takes, after the interpreter's own start, one value a round."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    _run(FIRST_STEP, None)  # reads the files from the disk, and writes the .pyc
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:  # empty at the cold step, filled at the warm one
            for name, program in PROGRAMS.items():
                times[name].append(_run(program, cache))
    return {name: np.array(values) for name, values in times.items()}


def _run(program: str, cache: str | None) -> float:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FASTOPT_"))}
    path = [str(_measure.BENCH.parent), given.get("PYTHONPATH", "")]
    env = {**given, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    with tempfile.TemporaryDirectory() as other:
        command = [sys.executable, "-c", CLOCK.format(program)]
        env["NUMBA_CACHE_DIR"] = cache or other
        # Elsewhere than in the repository, so that a fastopt.py or numba.py there cannot be picked up.
        done = subprocess.run(command, env=env, cwd=other, capture_output=True, text=True, check=True)
    return float(done.stdout)


def extra(times: Times, name: str) -> float:
    """Return the median seconds that a program takes more than ``import numba``, by rounds."""
    return median(times[name] - times["import numba"])


def main() -> None:
    args = _measure.arguments(__doc__, "latency.json").parse_args()
    about = _measure.describe()
    times = measure(3 if args.quick else 11)
    rows = [[name, f"{median(t):.3f}", f"{extra(times, name):+.3f}"] for name, t in times.items()]
    print(_measure.table(["", "s", "more than numba"], rows))
    _measure.save(args, about, {"seconds": {name: list(t) for name, t in times.items()}})


if __name__ == "__main__":
    main()
