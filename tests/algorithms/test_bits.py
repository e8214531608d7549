"""The result is the same, bit for bit, however the work is cut and wherever the numbers lie."""

import copy
import itertools
import threading

import numpy as np
import pytest

import fastopt
from fastopt.engine import kernel, threads
from tests.algorithms.cases import (
    CASES,
    LAYOUTS,
    assert_same,
    assert_same_history,
    by_element,
    draw,
    each_case,
    each_dtype,
    each_elementwise,
    each_scalar,
    history,
    step,
    values,
)
from tests.compiled_here import compiled_here

#: Of every kind: by element, by what is summed over a tensor, a row and all of them, and of matrices.
EVERY_KIND = {case.over: case.id for case in reversed(CASES)}.values()
SHAPES = [(33, 5), (129,), (3, 4, 5), (), (0, 2), (31, 1)]


def problem(dtype, steps, shapes=SHAPES):
    """Return parameters, and gradients for some steps."""
    rng = np.random.default_rng(0)
    return [draw(rng, shape, dtype) for shape in shapes], [
        [draw(rng, shape, dtype) for shape in shapes] for _ in range(steps)
    ]


# Where the numbers lie.


@each_case
@each_dtype
def test_layouts(case, dtype):
    """Each of the parameters, with the same one of the gradients, and with another one from case to case."""
    names, turn = list(LAYOUTS), 1 + CASES.index(case) % (len(LAYOUTS) - 1)
    others = [*names[turn:], *names[:turn]]
    assert_same_wherever_it_lies(
        case, dtype, [*zip(names, names, strict=True), *zip(names, others, strict=True)]
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id, marks=() if case.id in EVERY_KIND else pytest.mark.slow)
        for case in CASES
    ],
)
@each_dtype
def test_all_pairs_of_layouts(case, dtype):
    assert_same_wherever_it_lies(case, dtype, itertools.product(LAYOUTS, repeat=2))


def assert_same_wherever_it_lies(case, dtype, layouts):
    params, grads = problem(dtype, 4)
    want = history(case.optimizer(copy.deepcopy(params)), grads)
    for of_params, of_grads in layouts:
        if not case.elementwise and of_params in ("F", "swapped"):
            continue  # what is summed up is in the order of memory
        placed = [[LAYOUTS[of_grads](grad) for grad in given] for given in grads]
        got = history(case.optimizer([LAYOUTS[of_params](w) for w in params]), placed)
        assert_same_history(got, want)


@each_case
@each_dtype
def test_pack(case, dtype):
    params, grads = problem(dtype, 4)
    pack = fastopt.pack(params)
    given = history(case.optimizer(fastopt.pack(params)), grads)
    opt = case.optimizer(pack)
    for each, want in zip(grads, given, strict=True):
        for view, grad in zip(pack.grads, each, strict=True):
            view[...] = grad
        step(opt)
        assert_same(values(opt), want)
    assert_same_history(given, history(case.optimizer(params), grads))


@each_elementwise
@each_dtype
def test_one_flat_array(case, dtype):
    params, grads = problem(dtype, 4)

    def flat(arrays):
        return np.concatenate([array.ravel() for array in arrays])

    got = history(case.optimizer(flat(params)), [flat(given) for given in grads])
    want = history(case.optimizer(params), grads)
    for one, several in zip(got, want, strict=True):
        (one,), several = by_element(case, one), by_element(case, several)
        assert_same([one], [{name: flat([each[name] for each in several]) for name in one}])


@each_case
@each_dtype
def test_groups(case, dtype):
    params, grads = problem(dtype, 4)
    want = history(case.optimizer(copy.deepcopy(params)), grads)
    opt = case.optimizer([{"params": params[:2]}, {"params": {"rest": params[2:]}}])
    got = history(opt, [[given[:2], {"rest": given[2:]}] for given in grads])
    assert_same_history(got, want)


# How the work is cut.


@pytest.fixture
def joined(monkeypatch):
    """Have small steps use threads; say which came. Each launch waits until all of its threads are there."""
    launches = []

    def run(launch, table, scalars, count, unit):
        arrival, arrived = threading.Condition(), []
        launches.append(arrived)

        def launch_together(*arguments):
            with arrival:
                arrived.append(threading.get_ident())
                arrival.notify_all()
                assert arrival.wait_for(lambda: len(set(arrived)) >= count, timeout=60)
            launch(*arguments)

        original(launch_together, table, scalars, count, unit)

    original = threads.run
    monkeypatch.setattr(threads, "run", run)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    return launches


@pytest.mark.jit
@each_case
@each_dtype
@pytest.mark.parametrize(("chunk", "shapes"), [(64, [*SHAPES, (4097,), (15,)]), (1024, [(100003,)])])
def test_threads(case, dtype, chunk, shapes, joined, monkeypatch):
    monkeypatch.setattr(threads, "CHUNK", chunk)
    params, grads = problem(dtype, 3, shapes)
    want = history(case.optimizer(copy.deepcopy(params), threads=1), grads)
    assert joined == []
    for count in (2, 3, 7):
        got = history(case.optimizer(copy.deepcopy(params), threads=count), grads)
        assert_same_history(got, want)
        pack = fastopt.pack(params)
        assert_same_history(history(case.optimizer(pack, threads=count), grads), want)
        assert len(joined) >= 6  # a look ahead is made of launches too
        assert any(len(set(arrived)) >= count for arrived in joined)  # small matrices are for fewer
        joined.clear()


@pytest.mark.jit
@each_elementwise
@each_dtype
def test_sizes(case, dtype):
    """Each element comes out the same, in a vector or in the last ones of a loop."""
    (w,), grads = problem(dtype, 3, [(133,)])
    want = history(case.optimizer([w.copy()]), grads)
    for size in range(1, 133):
        got = history(case.optimizer([w[:size].copy()]), [[grad[:size]] for (grad,) in grads])
        got = [by_element(case, one) for one in got]
        assert_same_history(
            got,
            [[{name: one[name][:size] for name in now[0]}] for now, (one,) in zip(got, want, strict=True)],
        )


@pytest.mark.jit
@each_scalar
def test_disk_cache(case, monkeypatch):
    """Compiled here, or read from the cache."""
    params, grads = problem("float32", 3)
    here = compiled_here(kernel.compile_launch, case.rule, np.dtype("float32"))
    monkeypatch.setenv("FASTOPT_CACHE", "1")
    kernel.compile_launch.__wrapped__(case.rule, np.dtype("float32"))  # unless that has left it there already
    stored = kernel.compile_launch.__wrapped__(case.rule, np.dtype("float32"))
    assert not here.stats.cache_hits
    assert sum(stored.stats.cache_hits.values()) == 1
    compile_launch, histories = kernel.compile_launch, []
    for launch in (here, stored):

        def compile_now(rule, dtype, launch=launch):
            return launch if rule is case.rule else compile_launch(rule, dtype)

        monkeypatch.setattr("fastopt.engine.batch.compile_launch", compile_now)
        histories.append(history(case.optimizer(copy.deepcopy(params)), grads))
    assert_same_history(*histories)
