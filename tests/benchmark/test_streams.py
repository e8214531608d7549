import numpy as np
import pytest

from fastopt import machine
from fastopt.benchmark import streams
from fastopt.benchmark.subjects import NAMES, rule_of
from fastopt.engine import Rule


def buffers(count, size=100, dtype="float32"):
    rng = np.random.default_rng(count)
    return [rng.standard_normal(size).astype(dtype) for _ in range(count)]


@pytest.fixture(autouse=True)
def few_passes(monkeypatch):
    monkeypatch.setattr(streams, "_LEAST", 0)


@pytest.mark.parametrize("shape", streams.UPDATES, ids=str)
def test_an_update_reads_and_writes_what_it_says(shape):
    reads, writes = shape
    rule = streams.UPDATES[shape]
    assert rule.traffic == reads + writes
    assert 1 + len(rule.written) == writes
    assert 2 + len(rule.state) == reads
    given = np.arange(1.0, 1.0 + reads)
    found = np.ravel(rule.function(*given, 10.0))
    assert found.size == writes
    assert (
        found != [given[0], *given[2 : 1 + writes]]
    ).all()  # each is computed with something that was read


@pytest.mark.parametrize("shape", [(2, 1), (4, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_update_leaves_the_values_as_they_are(shape, dtype):
    arrays = buffers(shape[0], dtype=dtype)
    before = [array.copy() for array in arrays]
    stream = streams.Stream(streams.UPDATES[shape], arrays, 1)
    stream.run()
    assert stream.bytes == sum(shape) * arrays[0].nbytes
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_copy_and_triad_are_those_of_stream():
    p, g = buffers(2)
    stream = streams.Stream(streams.COPY, [p, g], 1)
    stream.run()
    np.testing.assert_array_equal(p, g)
    assert stream.bytes == 2 * p.nbytes
    assert streams.TRIAD.function(1.0, 2.0, 3.0, 10.0) == 32.0
    assert streams.TRIAD.traffic == 3


def test_small_memory_is_gone_over_many_times_on_one_thread(monkeypatch):
    monkeypatch.setattr(streams, "_LEAST", 8000)
    monkeypatch.setattr("fastopt.engine.threads.cutoff_bytes", lambda: 0)
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", 64)
    p, g = np.zeros(100), np.ones(100)
    rule = streams.UPDATES[2, 1]
    stream = streams.Stream(rule, [p, g], 2)
    assert (stream.threads, stream.bytes) == (1, 5 * 3 * p.nbytes)
    p, g = np.zeros(1000), np.ones(1000)
    stream = streams.Stream(rule, [p, g], 2)
    assert (stream.threads, stream.bytes) == (2, 3 * p.nbytes)


def test_every_algorithm_has_a_stream_of_its_shape():
    for name in NAMES:
        rule = rule_of(name)
        if not isinstance(rule, Rule):
            continue
        stream = streams.like_update(buffers(2 + len(rule.state), 10), rule.traffic, 1)
        if rule.measure is None:
            assert stream.bytes == rule.traffic * 40, name


def test_levels(monkeypatch):
    caches = [machine.Cache(1, "data", 1 << 15), machine.Cache(1, "instruction", 1 << 15)]
    caches += [machine.Cache(2, "unified", 1 << 20), machine.Cache(3, "unified", 100 << 20)]
    monkeypatch.setattr(machine, "caches", lambda: caches)
    assert streams.levels(1 << 40) == [
        ("L1", 1 << 14),
        ("L2", 1 << 19),
        ("L3", 50 << 20),
        ("memory", 400 << 20),
    ]
    assert streams.levels(300 << 20)[-1] == ("memory", 300 << 20)
    monkeypatch.setattr(machine, "caches", list)
    assert streams.levels(1 << 40) == [("memory", 256 << 20)]


@pytest.mark.parametrize("name", streams.STREAMS)
def test_the_streams_of_the_machine(name):
    count = streams.STREAMS[name][1]
    stream = streams.make(name, 4 * 100 * count, 1)
    assert stream.bytes == {"copy": 2, "triad": 3, "update": 7}[name] * 400
    stream.run()
