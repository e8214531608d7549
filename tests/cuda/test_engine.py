"""The kernels of updates, measures and swaps: every element once, whatever its address, as on the CPU."""

import math

import numpy as np
import pytest

import fastopt
from fastopt.engine import Batch, Measure, Measurement, Rule, Squares, cuda, cuda_kernels, device
from fastopt.engine.columns import END, START
from fastopt.engine.formats import BFLOAT16, FLOAT8, FLOAT8_SQUARES, FLOAT16, FLOAT32, FLOAT64, Storage
from fastopt.engine.kernel import BLOCK
from fastopt.engine.memory import address
from fastopt.engine.storage import allocate, decode, encode, split
from fastopt.engine.swap import Swap
from tests.algorithms.cases import draw

ADAMW = fastopt.AdamW.plain
STORAGES = {
    "float32": Storage(FLOAT32, FLOAT32, (FLOAT32, FLOAT32)),
    "float64": Storage(FLOAT64, FLOAT64, (FLOAT64, FLOAT64)),
    "bfloat16 state": Storage(FLOAT32, FLOAT32, (BFLOAT16, BFLOAT16)),
    "to nearest": Storage(FLOAT32, FLOAT32, (BFLOAT16, BFLOAT16), nearest=True),
    "float8": Storage(FLOAT32, FLOAT32, (FLOAT8, FLOAT8_SQUARES)),
    "mixed": Storage(FLOAT32, BFLOAT16, (FLOAT8, BFLOAT16)),
    "bfloat16": Storage(BFLOAT16, BFLOAT16, (FLOAT32, FLOAT32)),
    "all float16": Storage(FLOAT16, FLOAT16, (FLOAT16, FLOAT16)),
    "master": Storage(BFLOAT16, BFLOAT16, (BFLOAT16, FLOAT32), rest="master"),
    "split": Storage(BFLOAT16, FLOAT32, (FLOAT32, BFLOAT16), rest="split"),
    "split, float8": Storage(BFLOAT16, BFLOAT16, (FLOAT8, FLOAT8_SQUARES), rest="split"),
}
each_storage = pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)

#: Elements before and after each tensor, which are nobody's. The least are 12 bytes: so some are not aligned.
GAP = 3


class Tensors:
    """Tensors in one storage, on the CPU and on the device, in buffers with gaps.

    Parameters
    ----------
    storage : Storage
    sizes : sequence of int
    gap : int
        How many items are before each tensor; of formats in blocks, four times as many.
    """

    def __init__(self, storage, sizes, gap=GAP, seed=0):
        rng = np.random.default_rng(seed)
        self.storage, self.sizes = storage, sizes
        forms = [storage.param, storage.grad, *storage.buffers]
        self.host = [[] for _ in sizes]
        self.there = [[] for _ in sizes]
        self.rooms = []
        kept = [self._start(storage, rng, size) for size in sizes]
        for column in range(len(forms)):
            items = [own[column] for own in kept]
            step = 4 * gap if items[0].dtype == np.uint8 else gap
            room = np.zeros(sum(item.size + step for item in items) + step, items[0].dtype)
            room.view(np.uint8)[...] = 77
            ends = np.cumsum([item.size + step for item in items]).tolist()
            for item, end in zip(items, ends, strict=True):
                room[end - item.size : end] = item
            copy = device.asarray(room)
            for i, (item, end) in enumerate(zip(items, ends, strict=True)):
                self.host[i].append(room[end - item.size : end])
                self.there[i].append(copy[end - item.size : end])
            self.rooms.append((room, copy))

    def _start(self, storage, rng, size):
        values, grads, first, second = (rng.standard_normal(size) for _ in range(4))
        second = np.square(second)
        found = [
            encode(form, each)
            for form, each in zip(
                [storage.param, storage.grad, *storage.state], [values, grads, first, second], strict=True
            )
        ]
        if storage.rest == "master":
            found.append(values.astype(np.float32))
        if storage.rest == "split":
            found[0], low = split(values)
            found.append(low)
        return found

    def batch(self, arrays, rows, clears=False, kind=Batch, rule=ADAMW):
        segments = [(own[0], own[1], own[2:], row) for own, row in zip(arrays, rows, strict=True)]
        origins = np.cumsum([0, *self.sizes])[:-1].tolist()
        return kind(rule, segments, max(rows) + 1, 1, clears, self.storage, origins)

    def check(self):
        """Compare all that is in the buffers, what lies between the tensors too."""
        for column, (room, copy) in enumerate(self.rooms):
            got = copy.copy_to_host()
            if cuda.SIMULATED:
                np.testing.assert_array_equal(got.view(np.uint8), room.view(np.uint8), f"column {column}")
            elif room.dtype in (np.float32, np.float64):
                np.testing.assert_allclose(got, room, 64 * np.finfo(room.dtype).eps, 1e-6)
            else:  # the next number in a few elements
                off = np.abs(got.view(room.dtype).astype(np.int64) - room.astype(np.int64))
                assert np.mean(off > 1) < 0.05


def scalars(step, dtype=np.float32, lr=1e-2):
    return ADAMW.scalars(step, lr, (0.9, 0.99), 1e-8, 0.1)


def run_both(tensors, rows, steps=2, clears=False, **options):
    batches = [tensors.batch(each, rows, clears, **options) for each in (tensors.host, tensors.there)]
    assert [batch.on_device for batch in batches] == [False, True]
    for step in range(1, steps + 1):
        for batch in batches:
            batch.set_key(11, step)
            for row in range(max(rows) + 1):
                batch.set_scalars(row, 1.0 + row, scalars(step, lr=0.01 * (1 + row)))
            batch.run()
    return batches


# Updates.


@each_storage
@pytest.mark.parametrize("clears", [False, True])
def test_all_sizes_of_tails(storage, clears):
    """Tensors of a few elements, some of them aligned, and others not."""
    tensors = Tensors(storage, [*range(1, 10), 31, 32, 33])
    run_both(tensors, [i % 2 for i in range(12)], clears=clears)
    tensors.check()


@each_storage
@pytest.mark.parametrize("gap", [0, 1, 2, 4])
def test_all_alignments(storage, gap):
    tensors = Tensors(storage, [37], gap)
    (_, batch) = run_both(tensors, [0])
    aligned = all(array.address % min(4 * array.itemsize, 16) == 0 for array in tensors.there[0])
    assert batch._table.values[0, -1] == aligned
    tensors.check()


@pytest.mark.parametrize("name", ["float32", "bfloat16 state", "float8", "split"])
def test_several_tiles(name):
    tensors = Tensors(STORAGES[name], [3 * cuda_kernels.TILE + 5, 1, 600, 256])
    run_both(tensors, [0, 1, 0, 2])
    tensors.check()


@pytest.mark.parametrize("name", ["float32", "float8"])
def test_blocks_of_threads_that_take_several_tiles(name, monkeypatch):
    monkeypatch.setattr("fastopt.engine.device_batch.MOST", 2)
    tensors = Tensors(STORAGES[name], [5 * cuda_kernels.TILE + 5, 300, 7])
    run_both(tensors, [0, 1, 0])
    tensors.check()


def test_addresses_do_not_matter():
    """The same numbers, by fours and one by one."""
    found = []
    for gap in range(4):
        tensors = Tensors(STORAGES["float32"], [45], gap)
        run_both(tensors, [0])
        found.append([array.copy_to_host() for array in tensors.there[0]])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_segments_that_continue_each_other_are_one():
    tensors = Tensors(STORAGES["float32"], [5, 6, 7], gap=0)
    (here, there) = run_both(tensors, [0, 0, 1])
    assert there.table[:, START : END + 1].tolist() == [[0, 11], [cuda_kernels.TILE, cuda_kernels.TILE + 7]]
    tensors.check()


@pytest.mark.parametrize("steps", [1, 3])
def test_gradients_that_are_set_later(steps):
    tensors = Tensors(STORAGES["float32"], [5, 6])
    others = [device.asarray(np.full(n + 1, 2, np.float32))[k : n + k] for k, n in ((0, 5), (1, 6))]
    batch = tensors.batch([[own[0], None, *own[2:]] for own in tensors.there], [0, 0])
    want = tensors.batch(tensors.host, [0, 0])
    for own in tensors.host:
        own[1][...] = 2
    batch.set_gradients(np.array([each.address for each in others]))
    assert batch._table.values[:, -1].tolist() == [0, 0]
    for step in range(1, 1 + steps):
        for each in (want, batch):
            each.set_scalars(0, 0.5, scalars(step))
            each.run()
    for column in (0, 2, 3):
        for i in range(2):
            got = tensors.there[i][column].copy_to_host()
            np.testing.assert_allclose(got, tensors.host[i][column], 0 if cuda.SIMULATED else 1e-5)


def test_subnormal_state_is_zero():
    tensors = Tensors(STORAGES["float32"], [6])
    for arrays in (tensors.host, tensors.there):
        device.copyto(arrays[0][1], np.zeros(6, np.float32))
        device.copyto(arrays[0][2], np.float32([1e-38, 1e-39, -1e-38, 2e-38, 0, 1]))
    run_both(tensors, [0])
    tensors.check()
    assert tensors.there[0][2].copy_to_host()[0] == 0


def clipped(p, g, least, greatest):
    return min(max(g, least), greatest)


def test_nan_is_not_clipped_away():
    """Of a number and NaN, the GPU's own maximum is the number."""
    given = np.array([math.nan, -math.inf, -3, 0.5, 7, math.inf, math.nan])
    p, g = device.zeros(7, np.float64), device.asarray(given)
    batch = Batch(Rule(clipped), [(p, g, [], 0)], 1, 1)
    batch.set_scalars(0, 1.0, (-1.0, 2.0))
    batch.run()
    np.testing.assert_array_equal(p.copy_to_host(), [math.nan, -1, -1, 0.5, 2, 2, math.nan])


# Steps that are left out, and factors that only the device knows.


def guarded(tensors, goes, factors):
    """Return a batch on the device that is told of a step by the device."""
    batch = tensors.batch(tensors.there, [0] * len(tensors.sizes), clears=True)
    control = device.asarray(np.array([goes], np.int64))
    numbers = device.asarray(np.array(factors))
    batch.guard(control.address, numbers.address + 8 * np.arange(len(factors)))
    batch.kept = control, numbers
    batch.set_key(11, 1)
    batch.set_scalars(0, 2.0, scalars(1))
    return batch


@each_storage
def test_a_step_that_is_left_out_clears_the_gradients_alone(storage):
    tensors = Tensors(storage, [7, 33])
    guarded(tensors, 0, [1.0, 1.0]).run()
    for own in tensors.host:
        own[1][...] = 0
    for room, copy in tensors.rooms:
        np.testing.assert_array_equal(copy.copy_to_host().view(np.uint8), room.view(np.uint8))


@each_storage
def test_each_segment_has_its_factor(storage):
    tensors = Tensors(storage, [7, 33])
    guarded(tensors, 1, [0.5, 0.25]).run()
    batch = tensors.batch(tensors.host, [0, 1], clears=True)
    batch.set_key(11, 1)
    batch.set_scalars(0, 1.0, scalars(1))
    batch.set_scalars(1, 0.5, scalars(1))
    batch.run()
    tensors.check()


# Measures.


def terms(p, g, a):
    return g - a, p, g, a


def no_scalars(step, size, *totals):
    return ()


def keep(p, g, a):
    return p


MEASURING = Rule(keep, ("a",), scalars=no_scalars, measure=Measure(terms, ("square", "abs", "product")))


def sums_of(arrays, dtype, gap=0, alone=False):
    """Return the sums of tensors, on the device, as hexadecimal numbers."""
    tensors = [
        [device.asarray(np.r_[np.zeros(gap), each].astype(dtype))[gap:] for each in own] for own in arrays
    ]
    groups = [[own] for own in tensors] if alone else [tensors]
    found = []
    for group in groups:
        batch = Measurement(MEASURING, [(p, g, [a], 0) for p, g, a in group], 1, 1)
        batch.set_scalars(0, 1.0, ())
        for _ in range(2):
            batch.run()
            found.append([float(x).hex() for x in batch.sums.ravel()])
    return found


def test_sums():
    rng = np.random.default_rng(0)
    arrays = [[draw(rng, n, "float32") for _ in range(3)] for n in (1, 7, BLOCK + 5)]
    (first, second) = sums_of(arrays, "float32")
    assert first == second
    got = np.array([float.fromhex(x) for x in first]).reshape(4, 3)
    got = np.array([got[0], got[1], got[2] + got[3]])
    for (p, g, a), sums in zip(arrays, got, strict=True):
        p, g, a = (each.astype(np.float64) for each in (p, g, a))
        difference = (g.astype("float32") - a.astype("float32")).astype(np.float64)
        want = [math.fsum(difference**2), math.fsum(abs(p)), math.fsum(g * a)]
        np.testing.assert_allclose(sums, want, 1e-12, 1e-12 * sum(abs(g * a)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_depend_on_the_numbers_alone(dtype):
    """Not on what else is measured, nor on addresses: bit for bit."""
    rng = np.random.default_rng(0)
    arrays = [[draw(rng, n, dtype) for _ in range(3)] for n in (3, 50, 300, 4)]
    (together, again) = sums_of(arrays, dtype)
    assert together == again
    alone = sums_of(arrays, dtype, alone=True)
    assert sum(alone[::2], []) == sum(alone[1::2], []) == together  # noqa: RUF017
    for gap in (1, 2, 3):
        assert sums_of(arrays, dtype, gap)[0] == together


def test_squares_of_gradients():
    rng = np.random.default_rng(0)
    grads = [draw(rng, n, "float32") for n in (1, 40, 5)]
    there = [device.asarray(each) for each in grads]
    squares = Squares(np.array([1, 40, 5]), np.dtype("float32"), 1, on_device=True)
    squares.set_gradients(np.array([each.address for each in there]))
    want = [math.fsum(each.astype(np.float64) ** 2) for each in grads]
    np.testing.assert_allclose(squares.each(), want, 1e-14)
    np.testing.assert_allclose(squares.each(0.5), np.array(want) / 4, 1e-14)


# Swaps.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_swaps_are_bit_for_bit(dtype):
    info = np.finfo(dtype)
    odd = np.array([info.smallest_subnormal, -0.0, 0.0, math.inf, -math.inf, info.max, -info.tiny], dtype)
    ones = [np.resize(odd, n) for n in (1, 3, 7, 40)]
    others = [np.arange(n, dtype=dtype) for n in (1, 3, 7, 40)]
    there = [
        [device.asarray(np.r_[each, each])[k : each.size + k] for k, each in enumerate(own)]
        for own in (ones, others)
    ]
    before = [[each.copy_to_host() for each in own] for own in there]
    swap = Swap(list(zip(*there, strict=True)), 1)
    swap.run()
    for own, want in zip(there, reversed(before), strict=True):
        for got, each in zip(own, want, strict=True):
            assert got.copy_to_host().tobytes() == each.tobytes()
    swap.run()
    for own, want in zip(there, before, strict=True):
        for got, each in zip(own, want, strict=True):
            assert got.copy_to_host().tobytes() == each.tobytes()


def test_swaps_of_nan():
    one, other = device.asarray(np.array([math.nan, 1.0])), device.asarray(np.array([2.0, math.nan]))
    Swap([(one, other)], 1).run()
    np.testing.assert_array_equal(one.copy_to_host(), [2, math.nan])
    np.testing.assert_array_equal(other.copy_to_host(), [math.nan, 1])


# Memory.


@pytest.mark.parametrize("offset", [0, 1, 8, 16])
def test_memory_is_cleared_and_no_more(offset):
    for nbytes in (0, 1, 15, 16, 17, 95):
        array = device.asarray(np.full(128, 77, np.uint8))
        cuda.clear(array.address + offset, nbytes)
        got = array.copy_to_host()
        assert not got[offset : offset + nbytes].any()
        assert (np.delete(got, slice(offset, offset + nbytes)) == 77).all()


def test_memory_is_aligned():
    kept = [cuda.Memory(n) for n in (0, 1, 100, 1000)]
    assert all(each.address % 256 == 0 for each in kept)
    assert len({each.address for each in kept}) == 4


def test_uploads_are_copies():
    upload = cuda.Upload((3,), np.float64)
    upload.values[:] = 1, 2, 3
    upload.run()
    upload.values[:] = 4
    got = np.zeros(3)
    cuda.to_host(got, upload.address)
    assert got.tolist() == [1, 2, 3]
    for k in range(40):  # more than are under way at once
        upload.values[:] = k
        upload.run()
    cuda.to_host(got, upload.address)
    assert got.tolist() == [39] * 3


def test_columns_of_the_device_are_those_of_the_host():
    tensors = Tensors(STORAGES["float8"], [5, 300])
    here, there = (tensors.batch(each, [0, 0]) for each in (tensors.host, tensors.there))
    assert there.table.shape == here.table.shape
    assert there._table.values.shape[1] == here.table.shape[1] + 2
    assert there.table[1, 5:].tolist()[:1] == [tensors.there[1][2].address]
    assert here.table[1, 5] == address(tensors.host[1][2])


# Formats.


@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16, FLOAT8, FLOAT8_SQUARES], ids=lambda form: form.name)
@pytest.mark.parametrize("key", [None, (3, 5, 1000)])
@pytest.mark.parametrize("size", [1, 7, 255, 300])
def test_formats(form, key, size):
    rng = np.random.default_rng(size)
    values = draw(rng, size, "float32")
    values[: size // 8] = 0
    values = np.abs(values) if form == FLOAT8_SQUARES else values
    want, got = encode(form, values, key=key), encode(form, device.asarray(values), key=key)
    np.testing.assert_array_equal(got.copy_to_host(), want)
    back = decode(form, got, size)
    np.testing.assert_array_equal(back.copy_to_host(), decode(form, want, size))
    out = allocate(form, size, like=got)
    encode(form, values, out, key)
    np.testing.assert_array_equal(out.copy_to_host(), want)


@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16, FLOAT8], ids=lambda form: form.name)
def test_formats_of_what_is_not_finite(form):
    values = np.arange(600, dtype=np.float32)
    values[[3, 300, 590]] = math.nan, math.inf, -math.inf
    got = decode(form, encode(form, device.asarray(values)), 600).copy_to_host()
    np.testing.assert_array_equal(got, decode(form, encode(form, values), 600))
