"""The public kernels do what the optimizers do, bit for bit, called from Python and from compiled code."""

import numba
import numpy as np
import pytest

from fastopt import AdamW
from tests.algorithms.cases import CASES, assert_same, draw, step, values

SCALAR = [case for case in CASES if case.scalar]
#: Every other one in float32. The rule itself is compiled in both dtypes for the optimizers; what a kernel
#: has besides, the compiled scalars in double, is the same in both.
DTYPES = {case.id: ("float32", "float64")[i % 2] for i, case in enumerate(SCALAR)}


def in_one_dtype(chosen):
    """Return a mark for cases in one dtype each; for all cases in both, where there is time."""
    ids = {case.id for case in chosen}
    given = []
    for case in SCALAR:
        for dtype in ("float32", "float64"):
            marks = () if case.id in ids and dtype == DTYPES[case.id] else pytest.mark.slow
            given.append(pytest.param(case, dtype, id=f"{case.id}-{dtype}", marks=marks))
    return pytest.mark.parametrize(("case", "dtype"), given)


def arguments(case):
    """Return what a kernel's arguments depend on: how much state, and sums over what."""
    rule = case.rule
    return len(rule.state), len(rule.carry), rule.measure and rule.measure.over


#: One for each way of calling them.
CALLS = {arguments(case): case for case in SCALAR if "test_in_a_compiled_loop" not in case.exempt}


def start(case, dtype, size=37):
    """Return parameters, gradients of some steps, and state."""
    rng = np.random.default_rng(0)
    w, grads = draw(rng, size, dtype), draw(rng, (12, size), dtype)
    (state,) = case.optimizer(w.copy()).state
    return w, grads, {name: array.reshape(-1).copy() for name, array in state.items()}


def flat_values(opt):
    return [{name: array.reshape(-1) for name, array in one.items()} for one in values(opt)]


@numba.njit
def loop(kernel, w, grads, state, end):
    for i in range(end):
        kernel(w, grads[i], *state, i + 1)


@in_one_dtype(SCALAR)
def test_same_as_the_optimizer(case, dtype):
    kernel = case.cls.kernel(**case.hyper)
    w, grads, state = start(case, dtype)
    opt = case.optimizer(w.copy())
    for i, grad in enumerate(grads):
        kernel(w, grad, *state.values(), i + 1)
        step(opt, grad)
        assert_same([{"params": w, **state}], flat_values(opt))


@in_one_dtype(CALLS.values())
def test_in_a_compiled_loop(case, dtype):
    kernel = case.cls.kernel(**case.hyper)
    w, grads, state = start(case, dtype)
    opt = case.optimizer(w.copy())
    loop(kernel, w, grads, tuple(state.values()), len(grads))
    for grad in grads:
        step(opt, grad)
    assert_same([{"params": w, **state}], flat_values(opt))


@pytest.mark.parametrize("case", SCALAR, ids=lambda case: case.id)
def test_sizes_must_agree(case):
    kernel = case.cls.kernel(**case.hyper)
    w, _, state = start(case, DTYPES[case.id])
    buffers = [w, np.ones_like(w), *state.values()]
    for i in range(2 + len(case.rule.state)):
        wrong = [buffer[:-1].copy() if i == j else buffer for j, buffer in enumerate(buffers)]
        before = [buffer.copy() for buffer in wrong]
        with pytest.raises(ValueError, match=f"{case.rule.name}: .* must have the same size"):
            kernel(*wrong, 1)
        assert all(np.array_equal(*pair) for pair in zip(wrong, before, strict=True))


def test_hyperparameters_are_arguments():
    w, g, m, v = np.ones(5), np.linspace(-1, 1, 5), np.zeros(5), np.zeros(5)
    want, kernel = w.copy(), AdamW.kernel()
    AdamW.kernel(lr=0.1, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.2)(want, g, m.copy(), v.copy(), 1)
    by_place, by_name = w.copy(), w.copy()
    kernel(by_place, g, m.copy(), v.copy(), 1, 0.1, (0.5, 0.6), 1e-3, 0.2)
    kernel(by_name, g, exp_avg=m, exp_avg_sq=v, step=1, weight_decay=0.2, eps=1e-3, betas=(0.5, 0.6), lr=0.1)
    assert np.array_equal(by_place, want)
    assert np.array_equal(by_name, want)


def test_strided_arrays():
    w, g, m, v = np.ones(10), np.linspace(-1, 1, 10), np.zeros(10), np.zeros(10)
    want = [a[::2].copy() for a in (w, g, m, v)]
    AdamW.kernel()(*want, 1)
    AdamW.kernel()(w[::2], g[::2], m[::2], v[::2], 1)
    assert np.array_equal(w[::2], want[0])
    assert (w[1::2] == 1.0).all()


@pytest.mark.parametrize("jit", [pytest.param("on", marks=pytest.mark.jit), "off"])
def test_dtypes_must_agree(jit):
    import numba

    if (jit == "off") != bool(numba.config.DISABLE_JIT):
        pytest.skip("the other kind of pass")
    mixed = np.ones(3, np.float32), np.ones(3), np.zeros(3, np.float32), np.zeros(3, np.float32)
    with pytest.raises((numba.TypingError, TypeError), match="p, g and the state must have one dtype, got"):
        AdamW.kernel()(*mixed, 1)
    assert mixed[0].tolist() == [1, 1, 1]
