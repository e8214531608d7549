"""Step times of every algorithm, by fastopt and by plain NumPy: ``pytest bench/test_step.py``.

The bytes are those that an update must move (see ``contestants.bytes_moved``), so the GB/s of NumPy, which
moves more, compare with fastopt's. FASTOPT_BENCH_SMOKE=1 makes it a check of the answers alone: a few
seconds, for CI.
"""

from __future__ import annotations

import os

import contestants
import methods
import numpy as np
import plain_numpy
import pytest
from _measure import free_bytes
from contestants import Contestant

import fastopt
from tests.algorithms.cases import CASES as CASES_OF_TESTS
from tests.algorithms.cases import follow

SMOKE = os.environ.get("FASTOPT_BENCH_SMOKE", "") not in ("", "0")
SIZES = {"1e2": 10**2, "1e4": 10**4, "1e6": 10**6, "5e7": 5 * 10**7}
#: Parameters, gradients, state and scratch, and what the check and the making of the start need.
MOST_BYTES_PER_PARAMETER = 40

sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def _skip_unless_it_fits(size: int) -> None:
    if SMOKE and size > 10**6:
        pytest.skip("smoke run")
    if size * MOST_BYTES_PER_PARAMETER > free_bytes():
        pytest.skip(f"{size} parameters need {size * MOST_BYTES_PER_PARAMETER >> 20} MiB of free memory")


def _time(benchmark, contestant: Contestant, moved: int) -> None:
    if SMOKE:
        benchmark.pedantic(contestant.step, setup=contestant.before, rounds=2)
    elif contestant.before:
        # A setup before each call, outside the clock: so one call a round.
        rounds = 200 if contestant.p.size <= 10**6 else 9
        benchmark.pedantic(contestant.step, setup=contestant.before, rounds=rounds, warmup_rounds=2)
    else:
        benchmark(contestant.step)
    benchmark.extra_info["bytes"] = moved
    if benchmark.stats:  # not with --benchmark-disable
        benchmark.extra_info["GB/s"] = round(moved / benchmark.stats.stats.median / 1e9, 2)


def _make(algorithm: str, by: str, size: int) -> Contestant:
    p, g = contestants.start(size)
    if by == "fastopt":
        return contestants.by_fastopt(algorithm, p, g)
    if by == "textbook":
        return contestants.by_numpy(plain_numpy.adamw_textbook, p, g)
    return contestants.by_numpy(plain_numpy.STEPS[algorithm], p, g)


CASES = [
    pytest.param(algorithm, by, size, id=f"{algorithm}-{name}-{by}")
    for algorithm in sorted(methods.elementwise())
    for name, size in SIZES.items()
    for by in [
        "fastopt",
        *["numpy"] * (algorithm in plain_numpy.STEPS),
        *["textbook"] * (algorithm == "AdamW"),
    ]
]


@pytest.mark.parametrize(("algorithm", "by", "size"), CASES)
def test_step(benchmark, algorithm, by, size):
    _skip_unless_it_fits(size)
    benchmark.group = f"{algorithm}, {size:,} parameters"
    contestant = _make(algorithm, by, size)
    if algorithm in plain_numpy.STEPS:
        contestants.check(algorithm, contestant)
    elif size <= 10**4:  # of larger ones, tests/algorithms/test_reference.py takes care
        _check_with_the_tests(algorithm, size)
    _time(benchmark, contestant, contestants.bytes_moved(algorithm) * size)


def _check_with_the_tests(algorithm: str, size: int) -> None:
    """Hold the algorithm to its float64 reference, with the settings of its tests."""
    cls = getattr(fastopt, algorithm)
    case = next(case for case in CASES_OF_TESTS if issubclass(case.cls, cls))
    follow(case, size, "float32", steps=3, tol=30)


@sizes
@pytest.mark.parametrize("by", ["fastopt", "numpy"])
def test_lookahead(benchmark, by, size):
    """What NAG needs beside its update: to the point ahead, and back. Plain NumPy goes to a scratch array."""
    _skip_unless_it_fits(size)
    benchmark.group = f"NAG's look-ahead, {size:,} parameters"
    p, g = contestants.start(size)
    pack = fastopt.pack(p)
    opt = fastopt.NAG(pack)
    with opt.lookahead():
        pack.flat_grads[:] = g
    opt.step()
    velocity, ahead = opt.state[0]["velocity"], np.empty_like(p)

    def plain() -> None:
        np.multiply(velocity, -0.9, out=ahead)
        np.add(pack.flat, ahead, out=ahead)

    def there_and_back() -> None:
        with opt.lookahead():
            pass

    plain()
    with opt.lookahead():
        np.testing.assert_array_equal(pack.flat, ahead)
    # Reads the parameters and the velocity, writes the point ahead.
    _time(benchmark, Contestant(plain if by == "numpy" else there_and_back, p, g), 12 * size)


HYPERPARAMETERS = {
    **{algorithm: {"weight_decay": 0.05} for algorithm in plain_numpy.STEPS},
    "SGD-momentum": {"momentum": 0.8, "weight_decay": 0.05},
    "SGD-nesterov": {"momentum": 0.8, "weight_decay": 0.05, "nesterov": True},
}


@pytest.mark.parametrize("case", HYPERPARAMETERS)
def test_plain_numpy_means_the_same(case):
    """Away from the defaults too, and in numbers that the timed steps do not use."""
    algorithm, options = case.partition("-")[0], HYPERPARAMETERS[case]
    options = {"lr": 0.003, **options}
    p, g = contestants.start(4097)
    contestants.check(algorithm, contestants.by_fastopt(algorithm, p, g, **options), **options)
    plain = plain_numpy.STEPS[algorithm]
    contestants.check(algorithm, contestants.by_numpy(plain, p, g, **options), **options)


def test_the_check_refuses_a_wrong_answer():
    p, g = contestants.start(4097)
    with pytest.raises(AssertionError, match="4097 of 4097"):
        contestants.check("AdamW", Contestant(lambda: None, p, g))
