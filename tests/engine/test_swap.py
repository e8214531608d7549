import numpy as np
import pytest

from fastopt.engine.swap import Swap


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("threads", "chunk"), [(1, 1 << 17), (2, 16), (3, 48)])
def test_every_element_changes_places(monkeypatch, dtype, threads, chunk):
    monkeypatch.setattr("fastopt.engine.threads.cutoff_bytes", lambda: 0)
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", chunk)
    rng = np.random.default_rng(0)
    ones, others = ([rng.random(n).astype(dtype) for n in (1, 2, 300, 16, 17, 64)] for _ in range(2))
    want = [each.copy() for each in others], [each.copy() for each in ones]
    swap = Swap(list(zip(ones, others, strict=True)), threads)
    swap.run()
    for got, expected in zip((ones, others), want, strict=True):
        assert all(map(np.array_equal, got, expected))
    swap.run()
    assert all(map(np.array_equal, ones, want[1]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_bits_are_kept(dtype):
    """Also those that arithmetic would change: of subnormals, and of what is no number."""
    whole = f"u{np.dtype(dtype).itemsize}"
    patterns = np.random.default_rng(0).integers(0, np.iinfo(whole).max, 1000, whole)
    patterns[::3] &= np.iinfo(whole).max >> 12  # subnormal
    ones, others = patterns.copy().view(dtype), patterns[::-1].copy().view(dtype)
    Swap([(ones, others)], 1).run()
    assert np.array_equal(others.view(whole), patterns)
    assert np.array_equal(ones.view(whole), patterns[::-1])
