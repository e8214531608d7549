import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastopt.engine.memory import address, aligned_zeros, overlapping, self_overlapping


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_003])
def test_aligned_zeros(size, dtype):
    array = aligned_zeros(size, dtype)
    assert (array.shape, array.dtype, array.any()) == ((size,), np.dtype(dtype), False)
    assert size == 0 or address(array) % 64 == 0
    assert array.flags.carray


def test_address_is_numpys_in_every_layout():
    a = np.zeros((4, 6), np.float32)
    read_only = a.copy()
    read_only.flags.writeable = False
    for array in (a, a.T, a[1:, ::2], a[::-1], np.zeros(()), np.zeros((0, 3)), read_only):
        assert address(array) == array.__array_interface__["data"][0]


def test_overlapping_tells_interleaved_views_apart():
    a = np.zeros((6, 4))
    assert overlapping([a[:, ::2], a[:, 1::2]]) is None
    assert overlapping([a[:, ::2], np.zeros(3), a[:, 2]]) == (0, 2)
    assert overlapping([a[:0], a]) is None  # an empty one shares nothing


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=8))
def test_overlapping_agrees_with_all_pairs(slices):
    base = np.zeros(64)
    arrays = [base[start : start + size] for start, size in slices]
    pairs = {(i, j) for j in range(len(arrays)) for i in range(j) if np.shares_memory(arrays[i], arrays[j])}
    found = overlapping(arrays)
    assert (found is None) if not pairs else (found in pairs)


def test_self_overlapping():
    a = np.zeros((3, 4))
    assert not any(map(self_overlapping, (a, a.T, a[::2, ::-1], a[:, :1], np.zeros(()), a[:0])))
    assert self_overlapping(np.broadcast_to(a, (2, 3, 4)))
    assert self_overlapping(np.lib.stride_tricks.sliding_window_view(np.zeros(5), 2))
