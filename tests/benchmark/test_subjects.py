import numpy as np
import pytest

import fastopt
from fastopt.benchmark import subjects
from fastopt.benchmark.checks import require_finite
from fastopt.benchmark.subjects import LEFT_OUT, NAMES, USUAL, Subject, fill, memory_of, shape_of
from fastopt.engine import MatrixRule


def test_every_algorithm_is_measured_or_left_out_with_a_reason():
    assert sorted((*NAMES, *LEFT_OUT)) == sorted(fastopt.algorithms.__all__)
    assert set(USUAL) <= set(NAMES)


@pytest.mark.parametrize("size", [1, 2, 10, 100, 1000, 10**5, 10**7, 101, 9973])
def test_matrices_are_nearly_square_and_about_as_large(size):
    rows, columns = shape_of("Muon", size)
    assert rows <= columns <= 2 * rows + 1
    assert abs(rows * columns - size) <= columns
    assert shape_of("AdamW", size) == (size,)


def test_memory():
    assert memory_of("AdamW", 1000, "float32") == 16_000
    assert memory_of("SGD", 1000, "float64") == 16_000
    assert memory_of("Muon", 1000, "float32") > 12_000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_not_all_equal_none_is_zero_or_subnormal(monkeypatch, dtype):
    monkeypatch.setattr(subjects, "_BLOCK", 5000)
    array = np.zeros(12_345, dtype)
    fill(array, seed=1)
    assert np.abs(array).min() >= 0.999e-3
    assert abs(array.mean()) < 0.1
    assert 0.9 < array.std() < 1.1
    np.testing.assert_array_equal(array[:5000], array[5000:10_000])
    np.testing.assert_array_equal(array[:2345], array[10_000:])
    other = np.zeros(12_345, dtype)
    fill(other, seed=2)
    assert (array != other).mean() > 0.9


def test_what_a_step_goes_over():
    subject = Subject("AdamW", 100, "float32")
    assert (subject.size, subject.shape, subject.traffic) == (100, (100,), 7)
    assert (subject.bytes, subject.footprint) == (2800, 1600)
    p, g, m, v = subject.buffers()
    assert p is subject.pack.flat
    assert g is subject.pack.flat_grads
    subject.step()
    assert (m != 0).all()  # views of the state, not copies
    assert (v != 0).all()


def test_the_limit_goes_over_the_same_memory(monkeypatch):
    monkeypatch.setattr("fastopt.benchmark.streams._LEAST", 0)
    subject = Subject("Lion", 100, "float32")
    subject.step()
    before = [buffer.copy() for buffer in subject.buffers()]
    limit = subject.limit(1)
    limit.run()
    assert limit.bytes == subject.bytes
    for buffer, copy in zip(subject.buffers(), before, strict=True):
        np.testing.assert_array_equal(buffer, copy)


def test_a_matrix_rule_has_no_limit_and_counts_the_least():
    subject = Subject("Muon", 100, "float32")
    assert isinstance(subject.rule, MatrixRule)
    assert subject.limit(1) is None
    assert subject.traffic == 5
    assert subject.shape == (10, 10)


def test_nag_steps_without_looking():
    subject = Subject("NAG", 100, "float64")
    before = subject.pack.flat.copy()
    subject.step()
    subject.step()
    assert (subject.pack.flat != before).all()


@pytest.mark.jit
@pytest.mark.parametrize("name", ["SGD", "AdamW", "LAMB", "DoG", "Momentum"])
def test_ten_thousand_calm_steps_change_little(name):
    subject = Subject(name, 100, "float32")
    for _ in range(3):
        subject.step()
    subject.calm()
    before = subject.pack.flat.copy()
    for _ in range(10_000):
        subject.step()
    require_finite(subject)
    assert np.abs(subject.pack.flat - before).max() < 1
    assert np.abs(subject.pack.flat).min() > np.finfo("float32").smallest_normal
