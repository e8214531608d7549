import math

import numba
import numpy as np
import pytest

from fastopt import Rule
from fastopt.benchmark import arithmetic
from fastopt.benchmark.arithmetic import MUCH, operations, peak
from fastopt.benchmark.subjects import rule_of
from fastopt.engine import Measure


def helper(x, y):
    return x * y + y


@numba.njit
def compiled(x):
    return x * x


LIMIT = np.float32(2)


def rule_of_eleven(p, g, m, lr):
    m = helper(m, g)  # 2
    if m > lr:  # 1
        m = -m  # 1
    root = math.sqrt(abs(m))  # 2
    return p - lr * min(root, LIMIT) + compiled(m), m  # 5


def test_operations_are_counted_as_they_are_written():
    assert operations(Rule(rule_of_eleven, ("m",))) == 1 + 11


def test_operations_of_algorithms():
    assert operations(rule_of("SGD")) == 1 + 4
    assert operations(rule_of("AdamW")) == 1 + 3 + 4 + 3 + 5


def test_a_measure_counts_too():
    def update(p, g, lr):
        return p - lr * g

    def scalars(step, size, total, lr):
        return (lr / total,)

    rule = Rule(update, scalars=scalars, measure=Measure(lambda p, g: g, ("square",)))
    assert operations(rule) == (1 + 2) + (1 + 0 + 2)


def test_what_is_computed_for_the_peak():
    assert operations(MUCH) == 1 + 4 * 32 + 3
    factors = np.array(arithmetic._FACTORS)
    found = arithmetic.much(5.0, 1.0, *factors)
    assert found == pytest.approx((1 / (1 - factors)).sum())


def test_the_peak(monkeypatch):
    monkeypatch.setattr(arithmetic, "_FEW", 16)
    monkeypatch.setattr(arithmetic, "_MANY", 2048)
    found = peak(1, 1e-3)
    assert found.threads == 1
    assert found.gop_per_s > 0
    assert peak(2, 1e-3) is None  # a step of that size uses one
    monkeypatch.setattr("fastopt.engine.threads.cutoff_bytes", lambda: 0)
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", 1024)
    assert peak(2, 1e-3).threads == 2
