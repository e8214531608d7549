"""Updates of buffers in fewer bytes: what is read and written, whoever does it, and what becomes of it."""

import math
import pickle
import re
import threading
from itertools import pairwise

import numpy as np
import pytest

import fastopt
from fastopt.engine import Batch, Measure, Measurement, Rule, Squares, kernel, threads
from fastopt.engine.memory import address
from fastopt.engine.rows import RowBatch, touch
from fastopt.engine.storage import (
    BFLOAT16,
    FLOAT8,
    FLOAT8_SQUARES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FORMATS,
    Format,
    Storage,
    allocate,
    decode,
    encode,
    join,
    native,
    split,
    stored_size,
)
from tests.compiled_here import compiled_here

LOW = [FLOAT16, BFLOAT16, FLOAT8, FLOAT8_SQUARES]
BLOCKS = [FLOAT8, FLOAT8_SQUARES]


def listed(ordinary, others):
    """Return parameters for a test, of which others are for the long run: each is compiled."""
    return [*ordinary, *(pytest.param(each, marks=pytest.mark.slow) for each in others)]


each_low = pytest.mark.parametrize("form", listed(LOW[1:], LOW[:1]), ids=lambda form: form.name)
each_block = pytest.mark.parametrize("form", BLOCKS, ids=lambda form: form.name)

ADAMW = fastopt.AdamW.plain
STATES = {
    "bfloat16": (BFLOAT16, BFLOAT16),
    "float8": (FLOAT8, FLOAT8_SQUARES),
    "mixed": (FLOAT8, BFLOAT16),
}


def draw(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size, np.float32)


def scalars(step=1, lr=1e-2):
    return ADAMW.scalars(step, lr, (0.9, 0.99), 1e-8, 0.1)


class Problem:
    """Tensors that AdamW updates, in one storage."""

    def __init__(self, storage, sizes, apart=False):
        self.storage, self.sizes = storage, sizes
        self.origins = np.cumsum([0, *sizes])[:-1].tolist()
        total = sum(sizes)
        values, grads = draw(total, 1), draw(total, 2)
        self.segments = []
        common = [encode(form, each) for form, each in ((storage.param, values), (storage.grad, grads))]
        common += [allocate(form, total) for form in storage.buffers]
        if storage.rest == "master":
            common[-1][:] = values
        if storage.rest == "split":
            common[0][:], common[-1][:] = split(values)
        for first, size in zip(self.origins, sizes, strict=True):
            columns = []
            for form, whole in zip((storage.param, storage.grad, *storage.buffers), common, strict=True):
                part = whole[first : first + size]
                if form.block > 1:
                    part = allocate(form, size)
                columns.append(part.copy() if apart else part)
            self.segments.append((columns[0], columns[1], columns[2:], 0))

    def run(self, steps, max_threads=1, seed=5):
        batch = Batch(ADAMW, self.segments, 1, max_threads, False, self.storage, self.origins)
        for step in range(1, steps + 1):
            batch.set_key(seed, step)
            batch.set_scalars(0, 1.0, scalars(step))
            batch.run()
        return self

    def stored(self):
        return [np.concatenate([part.view(np.uint8) for part in column]) for column in self.columns()]

    def columns(self):
        return list(zip(*((p, g, *state) for p, g, state, _ in self.segments), strict=True))

    def values(self):
        """Return parameters and state in float32, each as one array."""
        storage, found = self.storage, []
        for form, column in zip((storage.param, storage.grad, *storage.state), self.columns(), strict=False):
            parts = [decode(form, part, size) for part, size in zip(column, self.sizes, strict=True)]
            found.append(np.concatenate(parts))
        del found[1]
        return found


# Formats.


def test_formats():
    assert [form.name for form in FORMATS.values()] == list(FORMATS)
    assert [form.name for form in FORMATS.values() if form.native] == ["float32", "float64"]
    assert [form.dtype.itemsize for form in FORMATS.values()] == [4, 8, 2, 2, 1, 1]
    assert [form.block for form in FORMATS.values()] == [1, 1, 1, 1, 256, 256]
    assert pickle.loads(pickle.dumps(BFLOAT16)) == BFLOAT16
    assert native(np.dtype("float32")) == FLOAT32
    assert native(np.dtype("float64")) == FLOAT64


@pytest.mark.parametrize("size", [0, 1, 3, 4, 255, 256, 257, 1001])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_size_and_alignment(form, size):
    stored = allocate(form, size)
    assert stored.dtype == form.dtype
    assert stored.size == stored_size(form, size)
    if size:
        assert address(stored) % 64 == 0
    scales = 4 * math.ceil(size / 256) + -size % 4 if form.block > 1 else 0
    assert stored.nbytes == size * form.dtype.itemsize + scales
    got = decode(form, stored, size)
    assert got.dtype == (np.float64 if form == FLOAT64 else np.float32)
    assert got.tolist() == [0.0] * size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((FLOAT64, FLOAT64, (BFLOAT16,)), "float64 goes with float64 alone, .* got bfloat16, float64"),
        ((FLOAT32, FLOAT64), "float64 goes with float64 alone, .* got float32, float64"),
        ((FLOAT8, FLOAT32), "param must not be stored in blocks, got float8"),
        ((FLOAT32, FLOAT8_SQUARES), "grad must not be stored in blocks, got float8_squares"),
        ((BFLOAT16, FLOAT32, (), "both"), "rest must be None, 'master' or 'split', got 'both'"),
        ((FLOAT32, FLOAT32, (), "master"), "rest='master' is for parameters of half precision, got float32"),
        ((FLOAT16, FLOAT32, (), "split"), "rest='split' is for parameters in bfloat16, got float16"),
    ],
)
def test_no_such_storage(given, message):
    with pytest.raises(ValueError, match=message):
        Storage(*given)


def test_storage():
    storage = Storage(BFLOAT16, FLOAT32, (FLOAT8, FLOAT32, BFLOAT16))
    assert storage.rounded == (0, 1, 3)
    assert Storage(BFLOAT16, FLOAT32, (FLOAT8,), rest="master").rounded == (1,)
    assert Storage(BFLOAT16, FLOAT32, (FLOAT8,), nearest=True).rounded == ()
    assert storage.itemsizes == (2, 4, 1, 4, 2)
    assert storage.in_blocks
    assert not storage.native
    assert Storage(FLOAT64, FLOAT64, (FLOAT64,)).native
    assert Storage(FLOAT64, FLOAT64).dtype == np.float64
    kinds = [storage, Storage(BFLOAT16, FLOAT32, (FLOAT8, FLOAT32, BFLOAT16), "master")]
    kinds += [Storage(BFLOAT16, FLOAT32, (FLOAT8, FLOAT32, BFLOAT16), "split"), Storage(FLOAT16, FLOAT32)]
    kinds += [Storage(FLOAT16, FLOAT32, nearest=True), Storage(FLOAT16, FLOAT16)]
    assert len({each.name for each in kinds}) == len(kinds)
    assert pickle.loads(pickle.dumps(storage)) == storage


# Numbers in and out.


@each_block
def test_every_code_comes_back(form):
    codes = np.arange(256, dtype=np.uint8)
    span = {FLOAT8: 16, FLOAT8_SQUARES: 32}[form]
    for exponent in (45, 127, 254):
        stored = allocate(form, 256)
        stored[:256] = codes
        stored[256:].view(np.float32)[:] = 2.0 ** (exponent - 127 - span)
        values = decode(form, stored, 256)
        assert np.isfinite(values).all()
        assert (np.abs(values[values != 0.0]) >= np.finfo(np.float32).smallest_normal).all()
        increasing = values if form == FLOAT8_SQUARES else values[:128]
        assert (np.diff(increasing) > 0.0).all()
        if form == FLOAT8:
            np.testing.assert_array_equal(values[128:], -values[:128])
        for key in (None, (1, 2, 3), (4, 5, 6)):
            np.testing.assert_array_equal(encode(form, values, key=key), stored)


@pytest.mark.parametrize("size", [1, 5, 255, 256, 257, 1000])
@each_low
def test_to_nearest(form, size):
    values = draw(size)
    values = values**2 if form == FLOAT8_SQUARES else values
    got = decode(form, encode(form, values), size)
    if form.block == 1:
        assert (np.abs(got - values) <= np.abs(values) * (2.0**-8 if form == BFLOAT16 else 2.0**-11)).all()
        return
    largest = np.repeat(np.maximum.reduceat(np.abs(values), np.arange(0, size, 256)), 256)[:size]
    # Steps are an eighth of a power of two, and do not get smaller far below the largest of the block.
    least = largest * (2.0**-16 if form == FLOAT8 else 2.0**-32)
    assert (np.abs(got - values) <= np.abs(values) / 16 + least).all()
    assert (np.abs(got - values) > np.abs(values) / 1000).any() or size == 1


@each_low
def test_zeros_stay_and_signs_too(form):
    values = np.zeros(600, np.float32)
    values[::7] = np.abs(draw(86)) if form == FLOAT8_SQUARES else draw(86)
    for key in (None, (0, 1, 0), (0, 2, 0)):
        got = decode(form, encode(form, values, key=key), 600)
        assert (got[values == 0.0] == 0.0).all()
        assert (np.sign(got) == np.sign(values)).all()
    assert not decode(form, encode(form, np.zeros(600, np.float32), key=(0, 0, 0)), 600).any()


@each_low
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(form, bad):
    values = np.abs(draw(700))
    values[300] = bad
    got = decode(form, encode(form, values, key=(0, 1, 0)), 700)
    if form.block == 1:
        np.testing.assert_array_equal(got[300], np.float32(bad))
        assert np.isfinite(np.delete(got, 300)).all()
    else:
        assert np.isnan(got[256:512]).all()
        assert np.isfinite(got[:256]).all()
        assert np.isfinite(got[512:]).all()


@pytest.mark.jit
@pytest.mark.parametrize("value", [1.2345678, 0.0333, 2.5e-4])
@each_low
def test_random_rounding_is_unbiased(form, value):
    values = np.full(100_000, value, np.float32)
    values[::100] = 3.0  # so that all blocks have one scale
    kept = values != 3.0
    got = decode(form, encode(form, values, key=(0, 1, 0)), values.size)[kept].astype(np.float64)
    assert len(set(got.tolist())) == 2
    assert abs(got.mean() - float(np.float32(value))) < 4 * got.std() / math.sqrt(got.size)


def test_random_rounding_depends_on_the_place_alone():
    values = draw(1000)
    whole = encode(BFLOAT16, values, key=(7, 3, 100))
    np.testing.assert_array_equal(encode(BFLOAT16, values[300:], key=(7, 3, 400)), whole[300:])
    for other in ((8, 3, 100), (7, 4, 100), (7, 3, 101)):
        assert (encode(BFLOAT16, values, key=other) != whole).mean() > 0.2


def test_squares_do_not_vanish():
    values = np.geomspace(1e-30, 1.0, 256).astype(np.float32)
    for step in range(5):
        assert (decode(FLOAT8_SQUARES, encode(FLOAT8_SQUARES, values, key=(0, step, 0)), 256) > 0.0).all()
    assert (decode(FLOAT8, encode(FLOAT8, values), 256) == 0.0).sum() > 100


def test_encode_leaves_its_argument():
    for form in BLOCKS:
        values = np.abs(draw(300))
        values.flags.writeable = False
        kept = values.copy()
        encode(form, values)
        encode(form, values[::3])
        np.testing.assert_array_equal(values, kept)


def test_split_and_join():
    values = np.concatenate([draw(1001), np.float32([0.0, np.inf, -np.inf, 3.4e38, 1e-40])])
    high, low = split(values)
    assert high.dtype == low.dtype == np.uint16
    np.testing.assert_array_equal(join(high, low), values)
    assert split(np.zeros(0, np.float32))[0].size == 0


# Updates.


@pytest.mark.parametrize(
    ("param", "state"),
    [
        (FLOAT16, "bfloat16"),
        pytest.param(FLOAT32, "float8", marks=pytest.mark.slow),
        pytest.param(BFLOAT16, "mixed", marks=pytest.mark.slow),
    ],
    ids=["float16", "float32", "bfloat16"],
)
def test_an_update_is_that_of_float32_but_for_the_rounding(state, param):
    """To the last bit: the state that is read is decoded, the results are encoded."""
    state = STATES[state]
    storage = Storage(param, FLOAT32, state, nearest=True)
    problem = Problem(storage, [1000])
    for _ in range(3):
        p, m, v = problem.values()
        plain = Batch(ADAMW, [(p, draw(1000, 2), [m, v], 0)], 1, 1)
        plain.set_scalars(0, 1.0, scalars())
        plain.run()
        problem.run(1)
        ((own, _, moments, _),) = problem.segments
        for form, got, wanted in zip((param, *state), (own, *moments), (p, m, v), strict=True):
            np.testing.assert_array_equal(got, encode(form, wanted))


@pytest.mark.parametrize("form", listed([FLOAT16], [BFLOAT16]), ids=lambda form: form.name)
def test_gradients_of_half_precision(form):
    grads = encode(form, draw(1000, 2))
    p, wanted = draw(1000), draw(1000)
    storage = Storage(FLOAT32, form, (FLOAT32, FLOAT32))
    for each, grad, how in ((p, grads, storage), (wanted, decode(form, grads, 1000), None)):
        state = [np.zeros(1000, np.float32) for _ in range(2)]
        batch = Batch(ADAMW, [(each, grad, state, 0)], 1, 1, False, how, [0])
        batch.set_scalars(0, 0.25, scalars())
        batch.run()
    np.testing.assert_array_equal(p, wanted)


@pytest.mark.parametrize("form", listed([BFLOAT16], [FLOAT16]), ids=lambda form: form.name)
def test_gradients_of_half_precision_are_cleared(form):
    grads = encode(form, draw(1000))
    p = np.zeros(1000, np.float32)
    batch = Batch(fastopt.SGD.plain, [(p, grads, [], 0)], 1, 1, True, Storage(FLOAT32, form), [0])
    batch.set_scalars(0, 1.0, (1.0, 0.0))
    batch.run()
    assert not grads.view(np.uint16).any()
    np.testing.assert_array_equal(p, -decode(form, encode(form, draw(1000)), 1000))


@pytest.mark.parametrize("rest", ["master", "split"])
def test_parameters_with_their_rest_are_exact(rest):
    problem = Problem(Storage(BFLOAT16, FLOAT32, (FLOAT32, FLOAT32), rest), [1000]).run(20)
    wanted = Problem(Storage(FLOAT32, FLOAT32, (FLOAT32, FLOAT32)), [1000]).run(20)
    ((p, _, state, _),), ((exact, _, moments, _),) = problem.segments, wanted.segments
    own = state[2] if rest == "master" else join(p, state[2])
    np.testing.assert_array_equal(own, exact)
    np.testing.assert_array_equal(state[0], moments[0])
    np.testing.assert_array_equal(p, encode(BFLOAT16, exact))


def test_the_master_alone_is_read():
    problem = Problem(Storage(BFLOAT16, FLOAT32, (FLOAT32, FLOAT32), "master"), [100])
    ((p, _, state, _),) = problem.segments
    p[:] = 77
    problem.run(1)
    np.testing.assert_array_equal(p, encode(BFLOAT16, state[2]))


# Whoever does it.

STORAGES = {
    **{name: Storage(FLOAT32, FLOAT32, state) for name, state in STATES.items()},
    "all_half": Storage(BFLOAT16, FLOAT16, (BFLOAT16, BFLOAT16)),
    "split": Storage(BFLOAT16, BFLOAT16, (FLOAT8, FLOAT8_SQUARES), "split"),
}
each_storage = pytest.mark.parametrize("name", listed(["float8", "all_half"], ["bfloat16", "mixed", "split"]))


@pytest.fixture
def joined(monkeypatch):
    """Have small steps use threads, each of which waits for the others; say how many came."""
    seen = []

    def run(launch, table, values, count, unit):
        arrival, arrived = threading.Condition(), set()

        def launch_together(*arguments):
            with arrival:
                arrived.add(threading.get_ident())
                arrival.notify_all()
                assert arrival.wait_for(lambda: len(arrived) >= count, timeout=60)
            launch(*arguments)

        original(launch_together, table, values, count, unit)
        seen.append(len(arrived))

    original = threads.run
    monkeypatch.setattr(threads, "run", run)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    monkeypatch.setattr(threads, "CHUNK", 64)
    return seen


SIZES = [1, 300, 256, 7, 2000, 513]


@pytest.mark.jit
@each_storage
def test_any_number_of_threads(name, joined):
    storage = STORAGES[name]
    want = Problem(storage, SIZES).run(4).stored()
    assert joined == []
    for count in (2, 3, 7):
        got = Problem(storage, SIZES).run(4, count).stored()
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one, other)
        assert max(joined) == count
        joined.clear()


@pytest.mark.jit
@each_storage
def test_packed_or_apart(name):
    storage = STORAGES[name]
    together, apart = Problem(storage, SIZES).run(4), Problem(storage, SIZES, apart=True).run(4)
    for one, other in zip(together.stored(), apart.stored(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.jit
def test_cut_at_any_place():
    storage = STORAGES["all_half"]
    want = Problem(storage, [1337]).run(3).stored()
    cut = Problem(storage, [1337])
    ((p, g, state, row),) = cut.segments
    ends = [0, 1, 15, 16, 17, 500, 1337]
    places = list(pairwise(ends))
    cut.segments = [(p[a:b], g[a:b], [each[a:b] for each in state], row) for a, b in places]
    batch = Batch(ADAMW, cut.segments, 1, 1, False, storage, ends[:-1])
    assert len(batch.table) == 1  # they continue each other
    cut.origins = ends[:-1]
    cut.run(3)
    for one, other in zip(cut.stored(), want, strict=True):
        np.testing.assert_array_equal(one, other)
    elsewhere = Batch(ADAMW, cut.segments, 1, 1, False, storage, [n + 5 * k for k, n in enumerate(ends[:-1])])
    assert len(elsewhere.table) == len(places)


@each_storage
def test_the_seed_and_the_step_decide(name):
    storage = STORAGES[name]
    want = Problem(storage, [700]).run(2).stored()
    again = Problem(storage, [700]).run(2).stored()
    for one, other in zip(again, want, strict=True):
        np.testing.assert_array_equal(one, other)
    other = Problem(storage, [700]).run(2, seed=6).stored()
    assert any((one != two).any() for one, two in zip(other, want, strict=True))


def test_storage_of_native_formats_is_none():
    storage = Storage(FLOAT32, FLOAT32, (FLOAT32, FLOAT32))
    p, state = np.zeros(5, np.float32), [np.zeros(5, np.float32) for _ in range(2)]
    batch = Batch(ADAMW, [(p, p, state, 0)], 1, 1, False, storage, [0])
    assert batch.storage is None
    assert batch.launch is Batch(ADAMW, [(p, p, state, 0)], 1, 1).launch
    batch.set_key(1, 2)
    assert batch.table.shape == (1, 7)


# Rows.


def test_rows_are_updated_as_in_the_whole_table():
    storage = STORAGES["all_half"]
    whole, some = Problem(storage, [60]), Problem(storage, [60])
    whole.origins = some.origins = [1000]
    before = some.stored()
    whole.run(1)
    ((p, g, state, _),) = some.segments
    batch = RowBatch(ADAMW, [(p, None, state, 0)], [5], 1, 1, storage, [1000])
    batch.set_scalars(0, 1.0, scalars())
    for rows in ([3, 4, 9], [0, 11]):
        batch.set_key(5, 1)
        batch.set_rows([touch(np.array(rows), g.reshape(12, 5)[rows])])
        batch.run()
    changed = np.repeat(np.isin(np.arange(12), [0, 3, 4, 9, 11]), 5)
    for one, other, old in zip(some.stored(), whole.stored(), before, strict=True):
        mask = np.repeat(changed, one.size // 60)
        np.testing.assert_array_equal(one, np.where(mask, other, old))


@each_block
def test_no_rows_in_8_bits(form):
    storage = Storage(FLOAT32, FLOAT32, (form, form))
    p, state = np.zeros(600, np.float32), [allocate(form, 600) for _ in range(2)]
    with pytest.raises(
        ValueError, match="rows alone cannot be updated where elements share scales, as in float8"
    ):
        RowBatch(ADAMW, [(p, None, state, 0)], [5], 1, 1, storage, [0])


# What is measured.


def keep(p, g, m):
    return p


def look(p, g, m):
    m = m + g
    return m, p, m


def nothing(step, size, first, second):
    return ()


MEASURING = Rule(keep, ("m",), nothing, writes=(), measure=Measure(look, ("square", "abs"), writes=("m",)))


@pytest.mark.parametrize("form", listed([BFLOAT16], [FLOAT8]), ids=lambda form: form.name)
@pytest.mark.parametrize("size", [100, 256, 8192, 20_000])
def test_measures(form, size):
    storage = Storage(BFLOAT16, FLOAT16, (form,), "split")  # so that the state alone is rounded
    (p, low), g, m = split(draw(size, 1)), encode(FLOAT16, draw(size, 2)), encode(form, draw(size, 3))
    before = [draw(size, 1), decode(FLOAT16, g, size), decode(form, m, size)]
    measurement = Measurement(MEASURING, [(p, g, [m, low], 0)], 1, 1, False, storage, [50])
    measurement.set_scalars(0, 1.0, ())
    measurement.set_key(1, 2)
    measurement.run()
    new = before[2] + before[1]
    squares, sizes = measurement.totals()
    assert squares == pytest.approx(math.fsum(before[0].astype(float) ** 2), rel=1e-12)
    assert sizes == pytest.approx(math.fsum(abs(new).astype(float)), rel=1e-12)
    np.testing.assert_array_equal(m, encode(form, new, key=(1, 2, 50)))


@pytest.mark.jit
@pytest.mark.parametrize("form", listed([BFLOAT16], [FLOAT8]), ids=lambda form: form.name)
def test_any_number_of_threads_measures_the_same(form, joined):
    storage = Storage(BFLOAT16, FLOAT16, (form,), "split")
    found = []
    for count in (1, 2, 5):
        segments = []
        for size in (100, 40_000, 8193):
            high, low = split(draw(size, 1))
            grads, state = encode(FLOAT16, draw(size, 2)), encode(form, draw(size, 3))
            segments.append((high, grads, [state, low], 0))
        measurement = Measurement(MEASURING, segments, 1, count, False, storage, [0, 100, 40_100])
        measurement.set_scalars(0, 1.0, ())
        measurement.set_key(1, 2)
        measurement.run()
        found.append((measurement.sums.copy(), [state for _, _, (state, _), _ in segments]))
    assert max(joined) == 5
    for sums, states in found[1:]:
        np.testing.assert_array_equal(sums, found[0][0])
        for one, other in zip(states, found[0][1], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", listed([BFLOAT16], [FLOAT16, FLOAT32]), ids=lambda form: form.name)
def test_squares_of_gradients(form):
    sizes = [10, 9000, 3]
    grads = [encode(form, draw(n, n)) for n in sizes]
    squares = Squares(np.array(sizes), np.dtype(np.float32), 1, form)
    squares.set_gradients(np.array([address(grad) for grad in grads]))
    wanted = [
        math.fsum(decode(form, grad, n).astype(float) ** 2) for grad, n in zip(grads, sizes, strict=True)
    ]
    np.testing.assert_allclose(squares.each(), wanted, rtol=1e-12)


# What becomes of it.


@each_storage
def test_without_a_gradient_nothing_drifts(name):
    storage = STORAGES[name]
    problem = Problem(storage, [600])
    ((_, g, _, _),) = problem.segments
    g[:] = 0
    before = problem.stored()
    batch = Batch(ADAMW, problem.segments, 1, 1, False, storage, problem.origins)
    for step in range(50):
        batch.set_key(0, step)
        batch.set_scalars(0, 1.0, ADAMW.scalars(step + 1, 0.1, (0.9, 0.99), 1e-8, 0.0))
        batch.run()
    _, m, v = problem.values()
    assert not m.any()
    assert not v.any()
    np.testing.assert_array_equal(problem.stored()[0], before[0])


@pytest.mark.jit
@pytest.mark.parametrize("form", listed([FLOAT8], [BFLOAT16]), ids=lambda form: form.name)
def test_an_average_fades_without_bias(form):
    """Of a coordinate whose gradient turns zero: the mean over many of them is that of float32."""
    n = 100_000
    m = encode(form, np.full(n, 1.7, np.float32))
    m_squares = encode(BFLOAT16 if form == BFLOAT16 else FLOAT8_SQUARES, np.full(n, 1.7, np.float32))
    second = BFLOAT16 if form == BFLOAT16 else FLOAT8_SQUARES
    start = [float(decode(f, s, n).mean(dtype=float)) for f, s in ((form, m), (second, m_squares))]
    p, g = np.zeros(n, np.float32), np.zeros(n, np.float32)
    g[::200] = 1.0  # the block's scale stays: others have gradients
    storage = Storage(FLOAT32, FLOAT32, (form, second))
    batch = Batch(ADAMW, [(p, g, [m, m_squares], 0)], 1, 1, False, storage, [0])
    rates, steps = (0.95, 0.999), 60
    for step in range(steps):
        batch.set_key(0, step)
        batch.set_scalars(0, 1.0, ADAMW.scalars(step + 1, 0.0, rates, 1e-8, 0.0))
        batch.run()
    alone = g == 0.0
    for each, stored, rate, first in zip((form, second), (m, m_squares), rates, start, strict=True):
        left = decode(each, stored, n)[alone].astype(float)
        assert abs(left.mean() / (first * rate**steps) - 1.0) < 5 * left.std() / left.mean() / math.sqrt(
            left.size
        )


@pytest.mark.jit
@pytest.mark.parametrize("name", listed(["float8"], ["bfloat16", "mixed"]))
def test_state_is_never_subnormal(name):
    n, state = 512, STATES[name]
    p, g = np.zeros(n, np.float32), np.full(n, 1e-30, np.float32)
    moments = [allocate(form, n) for form in state]
    batch = Batch(ADAMW, [(p, g, moments, 0)], 1, 1, False, Storage(FLOAT32, FLOAT32, state), [0])
    batch.set_scalars(0, 1.0, ADAMW.scalars(1, 1e-3, (0.5, 0.5), 1e-8, 0.0))
    smallest = np.finfo(np.float32).smallest_normal
    for step in range(200):
        if step == 5:
            g[:] = 0.0
        batch.set_key(0, step)
        batch.run()
        for form, moment in zip(state, moments, strict=True):
            values = np.abs(decode(form, moment, n))
            assert ((values == 0.0) | (values >= smallest)).all()


# The compiled code.


def inspected(storage, compiled=kernel.compile_launch, rule=ADAMW):
    launch = compiled_here(compiled, rule, np.dtype("float32"), storage)
    (signature,) = launch.signatures
    return launch.inspect_llvm(signature)


FUSED = [r"llvm\.sqrt.*llvm\.fshl"]
LOOPS = {
    "float8": (STORAGES["float8"], [r"llvm\.sqrt", r"llvm\.umax", r"llvm\.fshl"]),
    "all_half": (STORAGES["all_half"], FUSED),
    "bfloat16": (STORAGES["bfloat16"], FUSED),
    "split": (Storage(BFLOAT16, BFLOAT16, (BFLOAT16, BFLOAT16), "split"), FUSED),
    "master": (Storage(BFLOAT16, BFLOAT16, (BFLOAT16, BFLOAT16), "master"), FUSED),
}


@pytest.mark.jit
@pytest.mark.parametrize("name", listed(["float8", "all_half"], ["bfloat16", "split", "master"]))
def test_all_of_its_loops_are_in_vectors(name):
    """Of 32 bits: vectors of 64 bits would hold half as many."""
    storage, loops = LOOPS[name]
    llvm = inspected(storage)
    bodies = re.findall(r"\n(vector\.body[\w.]*:.*?)(?=\n\n)", llvm, re.DOTALL)
    assert bodies
    for wanted in loops:
        matching = [body for body in bodies if re.search(wanted, body, re.DOTALL)]
        assert matching, wanted
        for body in matching:
            assert not re.search(r"<\d+ x (i64|double)>", body)
    assert not re.search(r"\b(double|fast|contract)\b|fmul reassoc", llvm)
    # Nothing is left to be done one by one, but what is over at the end of a loop.
    assert all("call float @llvm.sqrt" not in body for body in bodies)


@pytest.mark.slow
@pytest.mark.jit
def test_each_storage_has_a_kernel_of_its_own():
    found = {kernel.compile_launch(ADAMW, np.dtype("float32"), each) for each in STORAGES.values()}
    assert len(found) == len(STORAGES)
    names = [launch.py_func.__qualname__ for launch in found]
    assert len(set(names)) == len(names)


@pytest.mark.jit
def test_disk_cache(monkeypatch):
    monkeypatch.setenv("FASTOPT_CACHE", "1")
    rule, storage = fastopt.SGD.plain, Storage(FLOAT32, BFLOAT16)
    _, again = (kernel.compile_launch.__wrapped__(rule, np.dtype("float32"), storage) for _ in range(2))
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_format_is_what_it_is_called():
    assert Format("float32", "float32") == FLOAT32
    assert not Format("bfloat16", "uint16").native
