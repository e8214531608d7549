import tracemalloc

import numpy as np
import pytest

import fastopt
from fastopt.engine import Batch, Rule
from fastopt.engine.memory import address, aligned_zeros


def descend(p, g, lr):
    return p - lr * g


RULE = Rule(descend)


def test_segments_that_continue_each_other_are_one():
    p, g = aligned_zeros(30, "float32"), aligned_zeros(30, "float32")
    cut = [(p[a:b], g[a:b], [], 0) for a, b in ((0, 10), (10, 13), (13, 30))]
    assert Batch(RULE, cut, 1, 1).table.tolist() == [[0, 30, 0, address(p), address(g)]]
    apart = [cut[0], cut[2]]
    assert Batch(RULE, apart, 1, 1).table[:, :3].tolist() == [[0, 10, 0], [10, 27, 0]]
    rows = [(*segment[:3], row) for row, segment in enumerate(cut)]
    assert Batch(RULE, rows, 3, 1).table[:, :3].tolist() == [[0, 10, 0], [10, 13, 1], [13, 30, 2]]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunk", [16, 48, 1 << 17])
def test_every_element_is_updated_once(monkeypatch, threads, chunk):
    monkeypatch.setattr("fastopt.engine.threads.cutoff_bytes", lambda: 0)
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", chunk)
    sizes = [1, 2, 300, 16, 15, 17, 1, 64]
    params = [np.zeros(n) for n in sizes]
    grads = [np.full(n, 1.0 + i) for i, n in enumerate(sizes)]
    batch = Batch(RULE, [(p, g, [], 0) for p, g in zip(params, grads, strict=True)], 1, threads)
    batch.set_scalars(0, 1.0, (1.0,))
    for _ in range(3):
        batch.run()
    for p, g in zip(params, grads, strict=True):
        np.testing.assert_array_equal(p, -3 * g)


def test_a_batch_keeps_its_arrays_alive():
    import weakref

    p, g = np.ones(1000), np.ones(1000)
    seen = [weakref.ref(p), weakref.ref(g)]
    batch = Batch(RULE, [(p, g, [], 0)], 1, 1)
    del p, g
    assert all(ref() is not None for ref in seen)
    del batch
    assert all(ref() is None for ref in seen)


def nothing_allocated(step):
    for _ in range(3):
        step()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(100):
            step()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000  # 100 steps; one buffer is 4,080 bytes: the interpreter's odds and ends
    assert peak - before < 20_000


def addresses(opt):
    (group,) = opt._groups
    return [address(buffer) for leaf in group.leaves for buffer in (leaf.flat, *leaf.state.values())]


@pytest.mark.jit
@pytest.mark.parametrize("name", ["SGD", "Momentum", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_on_a_pack_allocates_nothing(monkeypatch, name, threads):
    monkeypatch.setattr("fastopt.engine.threads.cutoff_bytes", lambda: 0)
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", 512)
    pack = fastopt.pack({"w": np.ones((50, 20), np.float32), "b": np.ones(20, np.float32)})
    opt = getattr(fastopt, name)(pack, threads=threads)
    opt.step()
    before = addresses(opt)
    nothing_allocated(opt.step)
    assert addresses(opt) == before


def test_a_step_with_given_gradients_allocates_nothing():
    params = [
        np.ones((5, 4), np.float32),
        np.ones((4, 5), np.float32).T,
        np.ones((9, 9), np.float32)[::2, ::3],
    ]
    grads = [np.ones((5, 4), np.float32), np.ones((5, 4), np.float32), np.ones((5, 3), np.float32)]
    opt = fastopt.AdamW(params)
    opt.step(grads)
    before = addresses(opt)
    nothing_allocated(lambda: opt.step(grads))
    assert addresses(opt) == before
