"""The first pass of rules that measure: its sums, and who they reach."""

import math

import numba
import numpy as np
import pytest

import fastopt
from fastopt import Optimizer, Rule
from fastopt.engine import Measure, dot
from tests.algorithms.cases import draw, each_dtype, leaves
from tests.algorithms.test_bits import joined  # noqa: F401

SIZES = [1, 15, 511, 512, 513, 8191, 8192, 8193, pytest.param(100_003, marks=pytest.mark.jit)]
SUMS = ("square", "abs", "sum", "product")
KEPT = (*SUMS, "size")


def keep(p, g):
    return p


def terms(p, g):
    return p, g, p, p, g


def take(step, size, square, abs, sum, product, *before):
    return (square, abs, sum, product, size), ()


class Sums(Optimizer):
    """Keeps what it measures, and changes nothing."""

    rule = Rule(keep, scalars=take, carry=KEPT, measure=Measure(terms, SUMS))
    defaults = {}


class RowSums(Sums):
    rule = Rule(keep, scalars=take, carry=KEPT, measure=Measure(terms, SUMS, over="row"))


class AllSums(Sums):
    rule = Rule(keep, scalars=take, carry=KEPT, measure=Measure(terms, SUMS, over="all"))


def measured(cls, params, grads, **options):
    """Return what is measured of each array: one row for each, or for each of its rows."""
    opt = cls(params, **options)
    opt.step(grads)
    columns = [np.concatenate([np.ravel(one) for one in leaves(opt.state[0][name])]) for name in KEPT]
    return np.stack(columns, axis=-1)


def pairs(shapes, dtype):
    rng = np.random.default_rng(0)
    return [draw(rng, shape, dtype) for shape in shapes], [draw(rng, shape, dtype) for shape in shapes]


def exact(p, g):
    """Return the sums without any rounding but that of the products, and the sums of the terms' sizes."""
    p, g = (np.concatenate([np.ravel(each) for each in arrays]).astype(float) for arrays in (p, g))
    columns = [p * p, abs(g), p, p * g]
    sums = [math.fsum(column) for column in columns]
    return [*sums, p.size], [*(math.fsum(abs(column)) for column in columns), 0]


def assert_exact(row, p, g):
    want, sizes = exact(p, g)
    tolerance = 100 if numba.config.DISABLE_JIT else 3  # one by one, sums of thousands round more often
    assert (abs(row - want) <= tolerance * np.finfo(float).eps * np.array(sizes)).all(), (row, want)


# The sums.


@each_dtype
@pytest.mark.parametrize("size", SIZES)
def test_sums(dtype, size):
    (p,), (g,) = pairs([size], dtype)
    (row,) = measured(Sums, [p], [g])
    assert_exact(row, [p], [g])
    assert dot(p, g) == row[SUMS.index("product")]


@pytest.mark.jit
@each_dtype
def test_small_terms_beside_large_ones_count(dtype):
    """In the order of memory, the first would swallow the others, one by one. Vectors lose their own lane."""
    p = np.ones(8193, dtype)
    p[0] = 2.0**57
    (row,) = measured(Sums, [p], [p.copy()])
    assert row[2] - 2.0**57 == pytest.approx(8192, abs=8192 / 8)


def test_squares_of_float32_neither_overflow_nor_vanish():
    for size in (np.float32(1e-38), np.float32(1e38)):
        p = np.full(100, size)
        (row,) = measured(Sums, [p], [p.copy()])
        assert row[0] == pytest.approx(100 * float(size) ** 2, rel=1e-15)


@each_dtype
def test_what_lies_beside_a_tensor_does_not_matter(dtype):
    shapes = [1, 15, 511, 513, 8191, 8193, 20_000, (31, 31)]
    params, grads = pairs(shapes, dtype)
    together = measured(Sums, params, grads)
    for i in range(len(shapes)):
        assert np.array_equal(measured(Sums, [params[i]], [grads[i]]), together[i : i + 1])
    assert np.array_equal(measured(Sums, fastopt.pack(params), grads), together)


@pytest.mark.jit
@pytest.mark.usefixtures("joined")
@each_dtype
@pytest.mark.parametrize("cls", [Sums, RowSums, AllSums])
@pytest.mark.parametrize("packed", [False, True], ids=["arrays", "pack"])
def test_any_number_of_threads_finds_the_same(cls, dtype, packed, monkeypatch):
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", 64)
    params, grads = pairs([1, 513, 8193, (3, 10_000), 100_003, 15], dtype)
    want = measured(cls, params, grads, threads=1)
    for threads in (2, 3, 7):
        got = measured(cls, fastopt.pack(params) if packed else params, grads, threads=threads)
        assert np.array_equal(got, want)


@pytest.mark.jit
@pytest.mark.usefixtures("joined")
@each_dtype
def test_dot_with_any_number_of_threads(dtype, monkeypatch):
    monkeypatch.setattr("fastopt.engine.threads.CHUNK", 64)
    (x,), (y,) = pairs([100_003], dtype)
    assert len({dot(*both, threads) for both in ((x, y), (y, x)) for threads in (1, 2, 3, 7)}) == 1


@each_dtype
def test_dot_of_little(dtype):
    assert dot(np.ones(0, dtype), np.ones(0, dtype)) == 0.0
    assert dot(np.array([3.0], dtype), np.array([-2.0], dtype)) == -6.0
    assert math.isnan(dot(np.array([0.0], dtype), np.array([np.inf], dtype)))


def test_gradients_are_measured_as_the_rule_sees_them():
    (row,) = measured(Sums, [np.ones(3)], [np.ones(3)], maximize=True)
    assert row.tolist() == [3, 3, 3, -3, 3]
    opt = Sums(np.ones(3))
    opt.step(np.full(3, 8.0), grad_scale=4.0)
    assert float(opt.state[0]["product"]) == 6


# By row.


@each_dtype
@pytest.mark.parametrize("shape", [(7, 5), (3, 8193), (4, 2, 3), (1, 6), (6, 1), (9,), ()])
def test_each_row_is_measured_apart(dtype, shape):
    (p,), (g,) = pairs([shape], dtype)
    got = measured(RowSums, [p], [g])
    rows = (list(p), list(g)) if p.ndim > 1 else ([p], [g])
    assert np.array_equal(got, measured(Sums, *rows))
    assert RowSums(p).state[0]["sum"].shape == (shape[:1] if len(shape) > 1 else ())


@each_dtype
def test_rows_of_several_arrays(dtype):
    params, grads = pairs([(3, 4), (5,), (2, 600)], dtype)
    apart = [measured(RowSums, [p], [g]) for p, g in zip(params, grads, strict=True)]
    assert np.array_equal(measured(RowSums, params, grads), np.concatenate(apart))


# Over all.


def test_one_total_of_two_dtypes_and_several_groups():
    params, grads = pairs([5, (2, 3), 9000], "float32")
    doubles, more = pairs([(), 8193], "float64")
    opt = AllSums([{"params": [params[0], doubles[0]]}, {"params": params[1:]}, {"params": doubles[1]}])
    opt.step([[grads[0], more[0]], grads[1:], more[1]])
    found = [[float(one) for one in leaves(state[name])] for name in KEPT for state in opt.state]
    assert all(len(set(column)) == 1 for column in found)
    row = np.array([found[i][0] for i in range(0, len(found), 3)])
    assert_exact(row, [*params, *doubles], [*grads, *more])


def test_without_a_gradient_a_tensor_is_left_out_and_told_the_total():
    params, grads = pairs([5, 3, 4], "float64")
    opt = AllSums(params)
    for given in ([0, 2], [1], [0, 1, 2], []):
        before = opt.state_dict()["param_groups"][0]["state"]
        opt.step([grads[i] if i in given else None for i in range(3)])
        found = [leaves(opt.state[0][name]) for name in KEPT]
        assert all(len({float(one) for one in column}) == 1 for column in found)
        row = np.array([float(column[0]) for column in found])
        if given:
            assert_exact(row, [params[i] for i in given], [grads[i] for i in given])
        else:
            assert row.tolist() == [float(before[name][0]) for name in KEPT]


def test_apart_a_tensor_without_a_gradient_keeps_its_own():
    params, grads = pairs([5, 3], "float64")
    opt = Sums(params)
    opt.step(grads)
    before = [float(opt.state[0][name][1]) for name in KEPT]
    opt.step([2 * grads[0], None])
    assert [float(opt.state[0][name][1]) for name in KEPT] == before
    assert_exact(np.array([float(opt.state[0][name][0]) for name in KEPT]), params[:1], [2 * grads[0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("cls", [Sums, RowSums, AllSums])
def test_what_is_not_finite_shows_in_its_own_sums_only(cls, bad):
    params, grads = pairs([5, (3, 4), 9000], "float64")
    want = measured(cls, params, grads)
    grads[1][1, 2] = bad
    got = measured(cls, params, grads)
    touched = {Sums: [1], RowSums: [2], AllSums: [0, 1, 2]}[cls]
    apart = np.setdiff1d(np.arange(len(want)), touched)
    assert np.array_equal(got[apart], want[apart])
    assert np.array_equal(got[touched][:, [0, 2, 4]], want[touched][:, [0, 2, 4]])  # those without gradients
    assert not np.isfinite(got[touched][:, [1, 3]]).any()


# What it writes, and what it returns.


def remember(p, g, seen, half):
    return half * g, g


def recall(p, g, seen):
    return p - seen


def take_one(step, size, total, before):
    return (total,), ()


class Remembering(Optimizer):
    rule = Rule(
        recall, ("seen",), take_one, ("total",),
        Measure(remember, ("sum",), lambda step: (0.5,), writes=("seen",)), writes=(),
    )  # fmt: skip
    defaults = {}


@each_dtype
def test_the_update_sees_what_the_measure_wrote(dtype):
    (p,), (g,) = pairs([8193], dtype)
    want = p - g / 2
    opt = Remembering(p)
    opt.step(g)
    assert np.array_equal(p, want)
    assert np.array_equal(opt.state[0]["seen"], g / 2)
    assert float(opt.state[0]["total"]) == pytest.approx(math.fsum(g.astype(float)), rel=1e-12)


@each_dtype
def test_what_is_written_is_never_subnormal(dtype):
    tiny = np.finfo(dtype).smallest_normal
    w, grad = np.zeros(3, dtype), np.array([tiny, -tiny, 2 * tiny])
    opt = Remembering(w)
    opt.step(grad)
    assert opt.state[0]["seen"].tolist() == [0.0, 0.0, tiny]
    assert float(opt.state[0]["total"]) == float(2 * tiny)


def one(p, g):
    return p


def two(p, g):
    return p, g


def three(p, g):
    return p, g, p


@pytest.mark.parametrize(
    ("function", "sums", "n"),
    [
        (one, ("sum", "sum"), 2),
        (one, ("product",), 2),
        (two, ("sum",), 1),
        (two, ("sum", "product"), 3),
        (three, ("square", "abs"), 2),
    ],
)
def test_another_number_of_terms(function, sums, n):
    scalars = {1: lambda step, size, one: (), 2: lambda step, size, one, two: ()}[len(sums)]
    rule = Rule(keep, scalars=scalars, measure=Measure(function, sums))
    wrong = type("Wrong", (Optimizer,), {"rule": rule, "defaults": {}})
    with pytest.raises((numba.TypingError, TypeError), match=f"the measure must return {n} value"):
        wrong(np.ones(3)).step(np.ones(3))
