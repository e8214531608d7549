"""A whole ``fit`` of scikit-learn's MLPClassifier and of fastopt's, on digits: the same epochs and losses.

How much an optimizer can save depends on the share that is left to the matrix products of NumPy's BLAS, which
both do alike. So the time of these alone is measured beside. ``OPENBLAS_CORETYPE=SkylakeX`` has OpenBLAS use
AVX-512 where it does not know that the CPU has it; which kernels it used stands in the results.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import _measure  # first: it says which fastopt is measured
import numpy as np
from _measure import duration, interleaved, median, ratio
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from fastopt.adapters.sklearn import MLPClassifier

SMOKE = os.environ.get("FASTOPT_BENCH_SMOKE", "") not in ("", "0")
#: Hidden layers, and how many epochs: so many that what comes before the first is not seen.
NETWORKS = {(256, 128): 60, (1024, 1024): 12}
BATCH = 200  # scikit-learn's

Hidden = tuple[int, ...]


def fit(cls: Any, hidden: Hidden, epochs: int) -> Any:
    images, labels = load_digits(return_X_y=True)
    # Neither stops early, whatever the loss does.
    model = cls(hidden, max_iter=epochs, tol=0.0, n_iter_no_change=epochs, batch_size=BATCH, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(images / 16, labels)


def check(hidden: Hidden) -> None:
    """Raise an error unless both have the same loss curve, up to rounding."""
    ours, theirs = (fit(cls, hidden, 3).loss_curve_ for cls in (MLPClassifier, neural_network.MLPClassifier))
    if not np.allclose(ours, theirs, rtol=1e-10, atol=0.0):
        raise AssertionError(f"{hidden}: the losses are {ours} and {theirs}")


def products(hidden: Hidden, epochs: int) -> Callable[[], None]:
    """Return what does the matrix products of a fit, and nothing else."""
    rng = np.random.default_rng(0)
    samples, features, outputs = 1797, 64, 10
    sizes = [features, *hidden, outputs]
    weights = [rng.standard_normal(shape) for shape in pairwise(sizes)]
    rows = [min(BATCH, samples - start) for start in range(0, samples, BATCH)]
    layers = {n: [rng.standard_normal((n, size)) for size in sizes] for n in set(rows)}
    grads = [np.empty_like(weight) for weight in weights]

    def run() -> None:
        for n in rows * epochs:
            for i, weight in enumerate(weights):
                layers[n][i] @ weight
            for i, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
                np.matmul(layers[n][i].T, layers[n][i + 1], out=grad)
                if i > 0:
                    layers[n][i + 1] @ weight.T

    return run


def main() -> None:
    args = _measure.arguments(__doc__, "sklearn_fit.json").parse_args()
    blas = sorted(
        {str(library.get("architecture")) for library in threadpool_info() if library["user_api"] == "blas"}
    )
    about = {**_measure.describe(), "blas_kernels": blas}
    cases = []
    for hidden, full in NETWORKS.items():
        epochs = 2 if SMOKE else full // 4 if args.quick else full
        check(hidden)
        calls = {
            "scikit-learn": partial(fit, neural_network.MLPClassifier, hidden, epochs),
            "fastopt": partial(fit, MLPClassifier, hidden, epochs),
            "matrix products": products(hidden, epochs),
        }
        times = interleaved(calls, 3 if args.quick or SMOKE else 7, 0.01)
        found = {name: median(values) for name, values in times.items()}
        speed = ratio(times, "scikit-learn", "fastopt")
        cases.append({"hidden": hidden, "epochs": epochs, "seconds": found, "speed": speed})
        words = ", ".join(f"{name} {duration(value)}" for name, value in found.items())
        print(f"digits, {hidden}, {epochs} epochs: {words}: {speed:.2f} times")
    _measure.save(args, about, {"cases": cases})


if __name__ == "__main__":
    main()
