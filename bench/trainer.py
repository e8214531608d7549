"""The step inside real training, where the threads of NumPy's BLAS and those of the step share the cores.

A network in NumPy learns scikit-learn's digits, with the step by NumPy, by torch and by fastopt; and so do
scikit-learn's MLPClassifier and fastopt's. Measured are the seconds of an epoch and, inside the loop, those
of its steps. The losses must be the same, or it is an error. Networks have some 1e4 to 1e7 parameters.

How much of an epoch a step is depends on the matrix products. Which kernels BLAS has for them stands in the
results: settings such as OPENBLAS_CORETYPE, which would have it use others than it chooses, change them.
"""

from __future__ import annotations

from typing import Any

import _measure  # first: it says which fastopt is measured
import numpy_mlp
import sklearn_mlp
from _measure import duration, free_bytes
from _turns import SMOKE
from numpy_mlp import Hidden
from threadpoolctl import threadpool_info

#: Hidden layers of the networks, by what trains them: epochs that are timed, and rounds.
NUMPY: dict[Hidden, tuple[int, int]] = {
    (128,): (20, 9),
    (280, 280): (10, 9),
    (960, 960): (4, 7),
    (3100, 3100): (1, 3),
}
SKLEARN: dict[Hidden, tuple[int, int]] = {
    (128,): (60, 7),
    (256, 128): (60, 7),
    (1024, 1024): (12, 7),
    (3100, 3100): (2, 3),
}
#: Bytes a parameter: of all that a fit in double keeps, and what its steps allocate.
MOST_BYTES_PER_PARAMETER = 160


def blas_kernels() -> list[str]:
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return sorted({str(library.get("architecture")) for library in libraries})


def measure(quick: bool) -> dict[str, Any]:
    """Return all results, and the kernels of BLAS."""
    found: dict[str, Any] = {"blas_kernels": blas_kernels(), "numpy": [], "sklearn": []}
    for kind, module, networks in (("numpy", numpy_mlp, NUMPY), ("sklearn", sklearn_mlp, SKLEARN)):
        for hidden, (epochs, rounds) in networks.items():
            if (quick or SMOKE) and max(hidden) > (256 if SMOKE else 1024):
                continue
            if 10 * max(hidden) ** 2 * MOST_BYTES_PER_PARAMETER // 9 > free_bytes():
                print(f"skipped: {kind}, {hidden} (not enough free memory)")
                continue
            epochs, rounds = (2, 1) if SMOKE else (max(2, epochs // 4), 3) if quick else (epochs, rounds)
            case = module.measure(hidden, epochs, rounds)
            found[kind].append(case)
            print(words(kind, case), flush=True)
    return found


def words(kind: str, case: dict[str, Any]) -> str:
    times = [
        f"{by} {duration(values['epoch_s'])} ({values['share']:.0%} in steps)"
        for by, values in case["by"].items()
    ]
    text = f"{kind}, {case['hidden']}, {case['parameters']:,} parameters, an epoch: {', '.join(times)}"
    if kind == "numpy":
        return text
    text += f"; products alone {duration(case['products_s'])}; a fit is {case['speed']:.2f} times as fast"
    if case["target"] is None:
        return text
    return f"{text}, target {case['target']}: {'met' if case['speed'] >= case['target'] else 'NOT MET'}"


def main() -> None:
    parser = _measure.arguments(__doc__, "trainer.json")
    args = parser.parse_args()
    about = _measure.describe()
    _measure.save(args, about, measure(args.quick))


if __name__ == "__main__":
    main()
