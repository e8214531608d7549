"""Results as they could be, for what shows them."""

from fastopt.benchmark.arithmetic import Peak
from fastopt.benchmark.measurement import Case, Measured, Result, Speed

ABOUT = {
    "date": "2026-01-02T03:04:05+00:00",
    "machine": {
        "cpu": "A processor",
        "cores": 4,
        "caches": ["L1 data 32K", "L2 unified 1M"],
        "memory_gib": 8.0,
        "os": "Linux",
        "load_before": 0.1,
    },
    "versions": {"python": "3.13.0", "fastopt": "0.1.0"},
}


def result(algorithm="AdamW", parameters=1000, **changes):
    """Return a result of one nanosecond a parameter and a microsecond a call."""
    seconds, matrix = 1e-6 + 1e-9 * parameters, algorithm in ("Muon", "SOAP")
    given = {
        "algorithm": algorithm,
        "parameters": parameters,
        "shape": (parameters,),
        "dtype": "float32",
        "threads": 4,
        "seconds": seconds,
        "seconds_low": 0.9 * seconds,
        "seconds_high": 1.1 * seconds,
        "parameters_per_s": parameters / seconds,
        "footprint": 16 * parameters,
        "bytes_per_parameter": 28,
        "gb_per_s": 28 * parameters / seconds / 1e9,
        "at_least": matrix,
        "operations_per_parameter": None if matrix else 16,
        "limit_gb_per_s": None if matrix else 60.0,
        "of_limit": None if matrix else 28 * parameters / seconds / 60e9,
    }
    return Result(**{**given, **changes})


def measured(names=("SGD", "AdamW", "Muon"), sizes=(100, 10**4, 10**6), **changes):
    return Measured(
        memory=[
            Speed(name, where, size, threads, speed)
            for where, size, threads, speed in (
                ("L1", 16 << 10, 1, 400.0),
                ("memory", 256 << 20, 1, 20.0),
                ("memory", 256 << 20, 4, 60.0),
            )
            for name in ("copy", "triad", "update")
        ],
        peaks=[Peak(1, 100.0), Peak(4, 390.0)],
        results=[result(name, size, **changes) for size in sizes for name in names],
        missing=[(Case("Muon", 10**7, threads=4), "a step would take about 9 s; give it more --seconds")],
    )
