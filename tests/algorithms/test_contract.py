"""What holds for every algorithm: each test is driven through the whole table of cases."""

import copy
import pickle

import numpy as np
import pytest
from numba.core import event

import fastopt
from fastopt.engine import kernel
from tests.algorithms.cases import (
    Closeness,
    assert_same,
    assert_same_history,
    by_element,
    draw,
    each_case,
    each_dtype,
    each_elementwise,
    each_measuring,
    history,
    parameters,
    run_values,
    step,
    values,
)

SHAPES = {"w": (5, 3), "b": (7,), "k": [(2, 3, 4), ()], "none": (0, 4), "n": (1, 1)}


def tree(rng, dtype, shapes=SHAPES):
    if isinstance(shapes, dict):
        return {key: tree(rng, dtype, inner) for key, inner in shapes.items()}
    if isinstance(shapes, list):
        return [tree(rng, dtype, inner) for inner in shapes]
    return draw(rng, shapes, dtype)


def trees(dtype, count, shapes=SHAPES):
    """Return parameters, and gradients for some steps."""
    rng = np.random.default_rng(0)
    return tree(rng, dtype, shapes), [tree(rng, dtype, shapes) for _ in range(count)]


# The direction.


def descend(case, steps, **changes):
    """Step over sum((w - 3)**2) / 2 from 1 and 5, without decay; return the distances from 3."""
    w = np.resize([1.0, 5.0], (2,) * case.axes)
    opt = case.optimizer(w, **{**case.no_decay, **changes})
    for _ in range(steps):
        step(opt, w - 3.0)
    return np.abs(w - 3.0)


@each_case
def test_descends(case):
    assert (descend(case, 1) < 2.0).all()
    assert (descend(case, 30) < 1.9).all()


@each_case
def test_maximize_ascends(case):
    assert (descend(case, 1, maximize=True) > 2.0).all()
    assert (descend(case, 30, maximize=True) > 2.1).all()


@each_case
def test_the_learning_rate_is_a_factor_of_the_first_step(case):
    whole, half = 2.0 - descend(case, 1, lr=0.25), 2.0 - descend(case, 1, lr=0.125)
    np.testing.assert_allclose(whole, 2 * half, rtol=1e-12)


@each_case
@each_dtype
def test_no_learning_rate_no_change(case, dtype):
    params, grads = trees(dtype, 3)
    opt = case.optimizer(params, lr=0.0, **case.no_decay)
    before = [w.copy() for w in parameters(opt)]
    history(opt, grads)
    assert all(np.array_equal(w, old) for w, old in zip(parameters(opt), before, strict=True))


# Nothing is compiled twice.


@each_case
@pytest.mark.jit
def test_compiles_nothing_after_the_first_step(case):
    w, grad = [np.ones(5), np.ones((2, 3))], [np.ones(5), np.ones((2, 3))]
    opt = case.optimizer(w)
    step(opt, grad)
    loaded = kernel.compile_launch.cache_info().misses
    with event.install_recorder("numba:compile") as recorder:
        step(opt, grad)
        step(opt, copy.deepcopy(grad), grad_scale=8.0, lr=0.5)
        for name, value in case.hyper.items():
            if isinstance(value, float) and name != "initial_accumulator_value":
                opt.param_groups[0][name] = 0.95 * value
                step(opt, grad)
                opt.param_groups[0][name] = lambda count, value=value: 0.999**count * value
                step(opt, grad)
        other = case.optimizer([np.ones((3, 4)), np.ones(2)], maximize=True, threads=1)
        step(other, [np.ones((3, 4)), None])
        step(case.optimizer(fastopt.pack(np.ones(3))))
        copy.deepcopy(opt).load_state_dict(opt.state_dict())
    assert not recorder.buffer
    assert kernel.compile_launch.cache_info().misses == loaded


@pytest.mark.jit
def test_compiling_is_noticed(monkeypatch):
    monkeypatch.setenv("FASTOPT_CACHE", "0")
    with event.install_recorder("numba:compile") as recorder:
        kernel.compile_launch.__wrapped__(fastopt.SGD.plain, np.dtype("float64"))
    assert recorder.buffer


# Going on elsewhere.


def from_state_dict(case, opt):
    other = case.optimizer(copy.deepcopy(opt.param_groups[0]["params"]), lr=123.0)
    other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    return other


WAYS = {
    "state_dict": from_state_dict,
    "pickle": lambda case, opt: pickle.loads(pickle.dumps(opt)),
    "deepcopy": lambda case, opt: copy.deepcopy(opt),
}


@each_case
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("packed", "dtype"), [(False, "float32"), (True, "float64")], ids=["arrays", "pack"])
def test_goes_on_bit_for_bit(case, dtype, way, packed):
    params, grads = trees(dtype, 6)
    opt = case.optimizer(fastopt.pack(params) if packed else params)
    history(opt, grads[:3])
    other = WAYS[way](case, opt)
    assert_same(values(other), values(opt))
    assert_same_history(history(other, grads[3:]), history(opt, grads[3:]))
    assert other.step_count == opt.step_count == 6


# Missing gradients, and arrays with little in them.


@each_case
@each_dtype
def test_missing_gradients(case, dtype):
    """No gradient: parameter and state stay, bit for bit, and the array's own step count too."""
    params, grads = trees(dtype, 20, [(5,), (2, 2), (9,)])
    opt = case.optimizer(params)
    runs = [case.run(w) for w in params]
    closes = [Closeness(20, [w], whole=case.over == "matrix") for w in params]
    for count, given in enumerate(grads):
        chosen = [count % 3 != 2, count >= 4, count % 5 == 0]
        if count in (0, 4):  # the first ones, and the decay, shall not cancel
            given = [np.copysign(grad, w) for grad, w in zip(given, params, strict=True)]
        before = values(opt)
        step(opt, [grad if there else None for grad, there in zip(given, chosen, strict=True)])
        for i, now in enumerate(values(opt)):
            if chosen[i]:
                runs[i].step(given[i])
                closes[i].check([now], [run_values(runs[i])])
            else:
                assert_same([now], [before[i]])
    assert opt.state_dict()["param_groups"][0]["steps"] == [run.steps for run in runs] == [14, 16, 4]


@each_case
@each_dtype
def test_empty_arrays(case, dtype):
    params, grads = trees(dtype, 3, [(0,), (3, 0, 2)])
    for now in by_element(case, history(case.optimizer(params), grads)[-1]):
        assert all(array.size == 0 and array.dtype == dtype for array in now.values())


@each_elementwise
@each_dtype
def test_0_d_arrays(case, dtype):
    params, grads = trees(dtype, 5, [(), (), ()])
    want = history(case.optimizer([np.stack(params)]), [[np.stack(grad)] for grad in grads])
    for now, stacked in zip(history(case.optimizer(params), grads), want, strict=True):
        for name, array in by_element(case, stacked)[0].items():
            assert [float(each[name]) for each in now] == array.tolist()


@each_case
@each_dtype
def test_gradients_that_are_numpy_scalars(case, dtype):
    """Sums are: np.float32, not 0-d arrays."""
    params, grads = trees(dtype, 5, [(), (), ()])
    want = history(case.optimizer(copy.deepcopy(params)), grads)
    assert_same_history(
        history(case.optimizer(params), [[grad[()] for grad in given] for given in grads]), want
    )


# Numbers at the edge.


@each_elementwise
@each_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [3, 36])
def test_nan_and_inf_stay_where_they_are(case, dtype, bad, at):
    w, grads = trees(dtype, 6, (37,))
    want = history(case.optimizer(w.copy()), grads)
    spoilt = [grad.copy() for grad in grads]
    spoilt[2][at] = bad
    got = history(case.optimizer(w), spoilt)
    for now, (then,) in zip(got, want, strict=True):
        for name, array in by_element(case, now)[0].items():
            assert np.array_equal(np.delete(array, at), np.delete(then[name], at))
    assert all(np.isfinite(now[0]["params"][at]) for now in got[:2])
    assert not any(np.isfinite(now[0]["params"][at]) for now in got[2:])


@each_measuring
@each_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_tensor(case, dtype, bad):
    """Or shows in all of them, where the method looks at all."""
    params, grads = trees(dtype, 4, [(5,), (2, 3), (9,)])
    want = history(case.optimizer(copy.deepcopy(params)), grads)
    opt = case.optimizer(params)
    grads[1][1][1, 2] = bad
    got = history(opt, grads)
    assert_same(got[0], want[0])
    if case.over != "all":
        for now, then in zip(got, want, strict=True):
            assert_same([now[0], now[2]], [then[0], then[2]])
    assert not np.isfinite(got[-1][1]["params"][1, 2])


def has_subnormals(array):
    return ((array != 0) & (abs(array) < np.finfo(array.dtype).smallest_normal)).any()


@each_case
@each_dtype
def test_state_decays_to_zero_and_is_never_subnormal(case, dtype):
    """The share 0.6 of the smallest subnormal is, rounded, the smallest subnormal: it would stay for ever."""
    shares = {
        "momentum": 0.6,
        "betas": (0.6, 0.6),
        "alpha": 0.6,
        "rho": 0.6,
        "dampening": 0.4,
        "shampoo_beta": 0.6,
    }
    changes = {name: share for name, share in shares.items() if name in case.hyper}
    if "betas" in changes:
        changes["betas"] = (0.6,) * len(case.hyper["betas"])
    w = np.ones((1,) * (case.axes - 1) + (3,), dtype)
    opt = case.optimizer(w, **{**case.no_decay, **changes})
    step(opt, np.array([1e-12, -1e-3, 1.0], dtype).reshape(w.shape))
    zero = np.zeros_like(w)
    doubles = dtype == "float64" or case.over in ("tensor", "row")  # what is carried there
    for _ in range(1500 if doubles else 250):
        step(opt, zero)
        state = opt.state[0]
        assert not any(has_subnormals(array) for array in state.values())
    assert {name for name, array in state.items() if array.any()} == set(case.lasting)


@each_case
@each_dtype
def test_tiny_gradients_make_no_subnormal_state(case, dtype):
    tiny = float(np.finfo(dtype).smallest_normal)
    w = np.full(case.shape(40), tiny, dtype)
    opt = case.optimizer(w)
    for size in 10.0 ** -np.arange(0, 2 * -np.log10(tiny)):
        step(opt, np.linspace(-size, size, w.size).astype(dtype).reshape(w.shape))
        assert not any(has_subnormals(array) for array in opt.state[0].values())


@each_case
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_extreme_gradients_in_float32(case, size):
    """Where squares underflow or overflow, the float32 arithmetic of NumPy's arrays gives the same."""
    w, grads = trees("float32", 5, case.shape(37))
    run = case.run(w, dtype=np.float32)
    opt = case.optimizer(w)
    close = Closeness(30, [w], whole=case.over == "matrix")
    for grad in grads:
        grad = grad * np.float32(size)
        step(opt, grad)
        with np.errstate(over="ignore", invalid="ignore"):
            run.step(grad)
        close.check(values(opt), [run_values(run)])
