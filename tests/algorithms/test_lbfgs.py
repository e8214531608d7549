"""L-BFGS: it finds SciPy's minima in about as many evaluations, and survives what closures do."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest

import fastopt
from fastopt import LBFGS
from fastopt.algorithms._pairs import Pairs
from tests.algorithms.cases import LAYOUTS, draw, each_dtype

each_search = pytest.mark.parametrize("search", ["strong_wolfe", None])


def rosenbrock(w):
    bend, rest = w[1:] - w[:-1] ** 2, 1 - w[:-1]
    grad = np.zeros_like(w)
    grad[:-1] = -400 * w[:-1] * bend - 2 * rest
    grad[1:] += 200 * bend
    return float((100 * bend**2 + rest**2).sum()), grad


def valley(w):
    """A convex function that is steep in some directions: its minimum is at 1, 2, 3..."""
    scale = np.logspace(0, 2, w.size).astype(w.dtype)
    away = w - np.arange(1, w.size + 1, dtype=w.dtype)
    return float((scale * np.logaddexp(away, -away)).sum()), scale * np.tanh(away)


def bowl(w):
    """A quadratic, ten times as steep in one direction as in another, with its minimum at 1, 2, 3..."""
    scale = np.linspace(0.5, 5, w.size).astype(w.dtype)
    away = w - np.arange(1, w.size + 1, dtype=w.dtype)
    return float((scale * away**2).sum() / 2), scale * away


def minimize(w, function, search="strong_wolfe", **settings):
    """Return an optimizer of an array, and a closure of its function."""
    opt = LBFGS(w, **{"lr": 1.0 if search else 0.1, "line_search_fn": search, **settings})
    return opt, lambda: function(w)


# The minima that SciPy finds.


def compare_with_scipy(function, start, **settings):
    """Return what this and SciPy find under the same tolerances: losses and numbers of evaluations."""
    optimize = pytest.importorskip(
        "scipy.optimize", reason="scipy is not installed: pip install scikit-learn"
    )
    w = start.copy()
    opt, closure = minimize(
        w, function, max_iter=20_000, max_eval=40_000, history_size=10, tolerance_grad=1e-8, tolerance_change=0.0,
        **settings,
    )  # fmt: skip
    assert opt.step(closure) == function(start)[0]
    options = {"maxcor": 10, "gtol": 1e-8, "ftol": 0.0, "maxiter": 20_000, "maxfun": 40_000}
    theirs = optimize.minimize(function, start, jac=True, method="L-BFGS-B", options=options)
    return function(w)[0], theirs.fun, opt.state[0]["func_evals"], theirs.nfev


STARTS = {
    "standard": lambda size: np.where(np.arange(size) % 2 == 0, -1.2, 1.0),
    "zeros": np.zeros,
    "near": lambda size: np.full(size, 0.5),  # the way from the others winds through a thousand valleys
}
slowly = [pytest.mark.jit, pytest.mark.slow]


@pytest.mark.parametrize(
    ("size", "start"),
    [
        *((size, start) for size in (2, 10) for start in STARTS),
        (100, "near"),
        *(pytest.param(100, start, marks=pytest.mark.jit) for start in ("standard", "zeros")),
        pytest.param(1000, "near", marks=pytest.mark.jit),
        pytest.param(1000, "standard", marks=slowly),
        pytest.param(1000, "zeros", marks=slowly),
    ],
)
def test_rosenbrock(size, start):
    at = STARTS[start](size)
    mine, theirs, my_evaluations, their_evaluations = compare_with_scipy(rosenbrock, at)
    assert mine == pytest.approx(theirs, abs=1e-12)  # both are zero, but for rounding
    assert my_evaluations <= 1.5 * their_evaluations


def make_logistic(x, y, decay):
    """Return the loss of a softmax regression with an L2 penalty, as a function of one vector."""
    classes = np.eye(y.max() + 1)[y]

    def logistic(w):
        w = w.reshape(x.shape[1], -1)
        scores = x @ w
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        shares /= shares.sum(axis=1, keepdims=True)
        loss = -np.log(shares[classes == 1]).mean() + 0.5 * decay * (w * w).sum()
        return float(loss), (x.T @ (shares - classes) / len(x) + decay * w).ravel()

    return logistic


@pytest.mark.jit  # else it takes long
@pytest.mark.parametrize("data", ["load_digits", "load_breast_cancer"])
@pytest.mark.parametrize("decay", [1e-2, 1e-4])
def test_logistic_regression(data, decay):
    datasets = pytest.importorskip("sklearn.datasets", reason="pip install fastopt[demo]")
    x, y = (each[::3] for each in getattr(datasets, data)(return_X_y=True))
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    function = make_logistic(x, y, decay)
    found = compare_with_scipy(function, np.zeros(x.shape[1] * (y.max() + 1)))
    mine, theirs, my_evaluations, their_evaluations = found
    assert mine == pytest.approx(theirs, rel=1e-9)
    assert my_evaluations <= 1.5 * their_evaluations


# The direction.


def test_the_two_loops_are_the_bfgs_formula():
    """Nocedal and Wright's equation 7.16, with matrices; also when the rings have gone round."""
    rng = np.random.default_rng(0)
    size, capacity, direction = 7, 3, np.zeros(7)
    pairs, seen = Pairs(capacity, direction, 1), []
    hessian = np.diag(rng.uniform(1, 10, size))
    for count in range(1, 8):
        step = rng.standard_normal(size)
        change = hessian @ step
        pairs.add(step, change, 0.0)
        seen = [*seen, (step, change)][-capacity:]
        assert len(pairs) == min(count, capacity)
        inverse = np.eye(size) * (step @ change) / (change @ change)
        for s, y in seen:
            rho = 1 / (s @ y)
            v = np.eye(size) - rho * np.outer(y, s)
            inverse = v.T @ inverse @ v + rho * np.outer(s, s)
        grad = rng.standard_normal(size)
        pairs.aim(grad)
        np.testing.assert_allclose(direction, -inverse @ grad, rtol=1e-12, atol=1e-12)
        pairs.aim(change)
        np.testing.assert_allclose(direction, -step, rtol=1e-12, atol=1e-12)  # the secant equation


def test_pairs_without_curvature_are_left_out():
    pairs = Pairs(3, np.zeros(2), 1)
    for change in ([-1.0, 0.0], [0.0, 1.0], [1e-11, 0.0], [np.nan, 0.0], [np.inf, 0.0]):
        pairs.add(np.array([1.0, 0.0]), np.array(change), 1e-10)
        assert len(pairs) == 0
        assert pairs.scale == 1.0
    pairs.add(np.array([1.0, 0.0]), np.array([1e-17, 1.0]), 0.0)  # nothing but rounding
    assert len(pairs) == 0
    pairs.add(np.array([1e-9, 0.0]), np.array([1e-9, 0.0]), 0.0)
    assert len(pairs) == 1


def test_a_quadratic_needs_no_more_moves_than_it_has_directions():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((6, 6))
    hessian = a @ a.T + np.eye(6)
    w = np.ones(6)
    opt, closure = minimize(
        w, lambda w: (w @ hessian @ w / 2, hessian @ w), max_iter=100, tolerance_change=0, tolerance_grad=1e-9
    )
    opt.step(closure)
    assert abs(w).max() < 1e-9
    assert opt.state[0]["n_iter"] < 25  # the search is not exact: else there would be 6


@each_search
def test_the_first_move_is_along_the_gradient_and_short(search):
    w = np.array([3.0, -5.0, 0.5])
    opt, closure = minimize(w, lambda w: (w @ w / 2, w.copy()), search, lr=0.5, max_iter=1)
    assert opt.step(closure) == 17.125
    np.testing.assert_allclose(w, np.array([3.0, -5.0, 0.5]) * (1 - 0.5 / 8.5), rtol=1e-15)


@each_search
def test_maximize_is_minimize_of_the_negative(search):
    w, v = np.zeros(5), np.zeros(5)
    opt, closure = minimize(w, bowl, search)
    other, _ = minimize(v, bowl, search, maximize=True)

    def negative():
        loss, grad = bowl(v)
        return -loss, -grad

    for _ in range(4):
        assert opt.step(closure) == -other.step(negative)
        assert np.array_equal(w, v)
    assert bowl(w)[0] < bowl(np.zeros(5))[0]


@each_search
def test_turning_round_forgets_the_pairs(search):
    w = np.zeros(3)
    opt, closure = minimize(w, bowl, search, max_iter=3)
    opt.step(closure)
    before = w.copy()
    opt.param_groups[0]["maximize"] = True
    opt.max_iter = opt.max_eval = 1
    opt.step(closure)
    grad = bowl(before)[1]
    np.testing.assert_allclose(w - before, grad * (w - before)[0] / grad[0], rtol=1e-9)
    assert bowl(w)[0] > bowl(before)[0]


# What can be optimized, and how gradients come.


@each_dtype
@each_search
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits(dtype, search, layout):
    """A tree of arrays, as they lie, makes the moves of one vector."""
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 4), "b": (), "none": (0, 2), "k": (2, 1, 3)}
    flat = draw(rng, 12 + 1 + 6, dtype)
    opt, closure = minimize(flat, bowl, search, max_iter=5)
    parts = np.split(flat.copy(), [12, 13, 13])
    params = {
        name: LAYOUTS[layout](part.reshape(shapes[name])) for name, part in zip(shapes, parts, strict=True)
    }

    def tree_closure():
        loss, grad = bowl(np.concatenate([params[name].ravel() for name in shapes]))
        grads = zip(shapes, np.split(grad, [12, 13, 13]), strict=True)
        return loss, {name: LAYOUTS[layout](part.reshape(shapes[name])) for name, part in grads}

    other, _ = minimize(params, bowl, search, max_iter=5)
    for _ in range(3):
        assert opt.step(closure) == other.step(tree_closure)
        assert np.array_equal(flat, np.concatenate([params[name].ravel() for name in shapes]))
    assert bowl(flat)[0] < bowl(np.concatenate(parts))[0]


@each_dtype
@each_search
def test_a_pack_takes_gradients_in_place_or_given(dtype, search):
    start = {"w": draw(np.random.default_rng(0), (2, 3), dtype), "b": np.zeros(2, dtype)}
    w = np.concatenate([start["w"].ravel(), start["b"]])
    opt, closure = minimize(w, bowl, search)
    pack, other = fastopt.pack(start), fastopt.pack(start)
    in_place, given = (minimize(each, bowl, search)[0] for each in (pack, other))

    def write():
        loss, pack.flat_grads[:] = bowl(pack.flat)
        return loss

    def give():
        loss, grad = bowl(other.flat)
        return loss, {"w": grad[:6].reshape(2, 3), "b": grad[6:]}

    for _ in range(3):
        assert opt.step(closure) == in_place.step(write) == given.step(give)
        assert np.array_equal(pack.flat, w)
        assert np.array_equal(other.flat, w)
    assert not other.flat_grads.any()


def test_a_part_of_a_pack():
    pack = fastopt.pack({"a": np.zeros(3), "b": np.zeros(2)})
    opt = LBFGS(pack["a"], line_search_fn="strong_wolfe")

    def closure():
        loss, pack.grads["a"][:] = bowl(pack.params["a"])
        return loss

    opt.step(closure)
    np.testing.assert_allclose(pack.flat, [1, 2, 3, 0, 0], atol=1e-4)


def test_one_group_as_in_torch():
    w = np.zeros(3)
    opt = LBFGS([{"params": {"w": w}, "lr": 0.5}], line_search_fn="strong_wolfe")
    opt.step(lambda: (valley(w)[0], [{"w": valley(w)[1]}]))
    np.testing.assert_allclose(w, [1, 2, 3], atol=1e-3)


@each_dtype
def test_float32_comes_as_near_as_it_can(dtype):
    w = np.array([-1.2, 1.0], dtype)
    opt, closure = minimize(w, rosenbrock, max_iter=200)
    opt.step(closure)
    np.testing.assert_allclose(w, [1, 1], rtol=1e-3 if dtype == "float32" else 1e-4)


@pytest.mark.parametrize("params", [np.zeros((0, 3)), {"a": np.zeros(0), "b": np.zeros((2, 0))}, []])
def test_nothing_to_optimize(params):
    opt = LBFGS(params)
    assert opt.step(lambda: (1.5, copy.deepcopy(params))) == 1.5
    assert opt.step_count == 1


@pytest.mark.parametrize("loss", [np.float32(24.5), np.array(24.5), np.array([[24.5]]), 24.5])
def test_losses_of_any_kind(loss):
    given = LBFGS(np.ones(2)).step(lambda: (loss, np.zeros(2)))
    assert given == 24.5
    assert type(given) is float


def test_the_learning_rate_of_a_step_and_schedules():
    rates = []
    w, v = np.ones(3), np.ones(3)
    opt, closure = minimize(w, bowl, None, lr=lambda count: rates.append(count) or 0.01 * (1 + count))
    other, other_closure = minimize(v, bowl, None)
    for count in range(3):
        opt.step(closure)
        other.step(other_closure, lr=0.01 * (1 + count))
    assert np.array_equal(w, v)
    assert rates == [0, 1, 2]
    opt.step(closure, lr=0.0)
    assert np.array_equal(w, v)


@pytest.mark.jit
@each_dtype
def test_any_number_of_threads_gives_the_same_bits(dtype):
    size = 3_000_000
    target = np.random.default_rng(0).standard_normal(size).astype(dtype)
    found = []
    for threads in (1, 2, 3):
        pack = fastopt.pack(np.zeros(size, dtype))
        opt = LBFGS(pack, line_search_fn="strong_wolfe", max_iter=3, history_size=2, threads=threads)

        def closure(pack=pack):
            np.subtract(pack.flat, target, out=pack.flat_grads)
            pack.flat_grads[::2] *= 3
            return float(np.abs(pack.flat_grads).sum(dtype=float))

        opt.step(closure)
        found.append(pack.flat)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.jit
def test_no_vector_is_allocated_in_a_step():
    pack = fastopt.pack(np.zeros(200_000))
    target = np.random.default_rng(0).standard_normal(pack.size)
    opt = LBFGS(pack, line_search_fn="strong_wolfe", max_iter=4, history_size=3)

    def closure():
        np.subtract(pack.flat, target, out=pack.flat_grads)
        pack.flat_grads[::2] *= 3
        return float(np.dot(pack.flat_grads[::2], pack.flat_grads[::2]) / 3)

    opt.step(closure)
    tracemalloc.start()
    opt.step(closure)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert opt.state[0]["n_iter"] > 4
    assert peak < pack.flat.nbytes / 4


# Going on elsewhere.


def from_state_dict(opt):
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    twin = LBFGS(opt.param_groups[0]["params"].copy(), lr=123.0)
    twin.load_state_dict(saved)
    return twin


WAYS = {
    "state_dict": from_state_dict,
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "deepcopy": copy.deepcopy,
}


@each_dtype
@each_search
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_goes_on_bit_for_bit(dtype, search, way, steps):
    opt, closure = minimize(
        np.full(9, -1.0, dtype), rosenbrock, search, lr=1.0 if search else 1e-3, max_iter=3, history_size=4
    )
    w = opt.param_groups[0]["params"]
    for _ in range(steps):
        opt.step(closure)
    twin = WAYS[way](opt)
    v = twin.param_groups[0]["params"]
    assert v is not w
    np.testing.assert_equal(twin.state_dict(), opt.state_dict())
    for _ in range(3):
        assert opt.step(closure) == twin.step(lambda: rosenbrock(v))
        assert np.array_equal(w, v)
    np.testing.assert_equal(twin.state_dict(), opt.state_dict())
    assert len(opt.state[0]["ro"]) == 4 or steps < 1
    assert (twin.max_iter, twin.history_size, twin.line_search_fn) == (3, 4, search)


def test_a_state_dict_is_a_copy_and_fits_arrays_in_another_order():
    params = {"w": np.zeros((2, 3)), "b": np.zeros(2)}
    fortran = {"w": np.zeros((2, 3), order="F"), "b": np.zeros(2)}

    def closure_of(params):
        def closure():
            loss, grad = valley(np.concatenate([params["w"].ravel(), params["b"]]))
            return loss, {"w": grad[:6].reshape(2, 3), "b": grad[6:]}

        return closure

    opt, twin = (LBFGS(each, line_search_fn="strong_wolfe", max_iter=3) for each in (params, fortran))
    opt.step(closure_of(params))
    saved = opt.state_dict()
    kept = copy.deepcopy(saved)
    opt.step(closure_of(params))
    np.testing.assert_equal(saved, kept)
    assert saved["param_groups"][0]["steps"] == [1, 1]
    twin.load_state_dict(saved)
    LBFGS(fortran, max_iter=3, line_search_fn="strong_wolfe").step(closure_of(fortran))
    twin.step(closure_of(fortran))
    assert np.array_equal(params["w"], fortran["w"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("memory"), "state_dict must be what state_dict() returned; state_dict['memory'] has no 'n_iter'"),
        (lambda s: s["memory"].pop("ro"), "state_dict must be what state_dict() returned; state_dict['memory'] has no 'ro'"),
        (lambda s: s["settings"].update(max_iter=0), "max_iter must be a whole number >= 1, got 0"),
        (lambda s: s["settings"].update(history_size=1), "state_dict does not fit: it has 2 pairs, more than its history_size"),
        (lambda s: s["memory"].update(d=np.ones(4)), "state_dict does not fit: shape of memory['d'] must be (3,), got (4,)"),
        (
            lambda s: s["memory"].update(old_dirs=np.ones((2, 3), np.float32)),
            "state_dict does not fit: dtype of memory['old_dirs'] must be float64, got float32",
        ),
        (
            lambda s: s["memory"].update(old_stps=np.ones((1, 3))),
            "state_dict does not fit: shape of memory['old_stps'] must be (2, 3), got (1, 3)",
        ),
        (lambda s: s.update(algorithm="Adam"), "state_dict does not fit: algorithm must be LBFGS, got Adam"),
        (lambda s: s["param_groups"][0].update(names=["['a']"]), "state_dict does not fit: parameters of param_groups[0] differ: only the optimizer has params; only the state_dict has params['a']"),
    ],
)  # fmt: skip
def test_a_state_dict_that_does_not_fit_changes_nothing(change, message):
    w = np.zeros(3)
    opt, closure = minimize(w, rosenbrock, max_iter=3, max_eval=30)
    opt.step(closure)
    assert len(opt.state[0]["ro"]) == 2
    saved = opt.state_dict()
    before = copy.deepcopy(saved)
    change(saved)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        opt.load_state_dict(saved)
    assert str(caught.value) == message
    np.testing.assert_equal(opt.state_dict(), before)


# Losses that are not numbers, and exceptions.


def barrier(w):
    """Its domain is w > 0, its minimum at 1."""
    with np.errstate(all="ignore"):
        return float((w - np.log(w)).sum()), 1 - 1 / w


def outside(loss, grad):
    """Return a function that is ``loss`` and ``grad`` above 2, and (w - 1)**2 elsewhere."""

    def function(w):
        if w.max() > 2:
            return loss, np.full_like(w, grad)
        return float(((w - 1) ** 2).sum()), 2 * (w - 1)

    return function


@each_dtype
@pytest.mark.parametrize("lr", [1.0, 100.0, 1e10])
@pytest.mark.parametrize(
    "function",
    [barrier, outside(np.nan, 0.0), outside(-np.inf, 1.0), outside(0.0, np.nan), outside(0.0, np.inf)],
)
def test_the_line_search_goes_back_from_what_is_not_finite(dtype, function, lr):
    w = np.array([0.01, 0.1, 0.5], dtype)
    seen = []

    def watched(w):
        seen.append(w.copy())
        return function(w)

    opt, closure = minimize(w, watched, lr=lr, max_iter=60, max_eval=1000)
    opt.step(closure)
    np.testing.assert_allclose(w, 1, atol=1e-3)
    assert np.isfinite(seen).all()


@each_dtype
@pytest.mark.parametrize(
    ("function", "start"), [(barrier, 3.0), (outside(np.nan, 0.0), 0.0), (outside(0.0, np.nan), 0.0)]
)
def test_without_a_line_search_the_step_ends_before_such_a_move(function, start, dtype):
    w = np.array([start, start / 2], dtype)
    opt, closure = minimize(w, function, None, lr=0.5, max_iter=4)
    opt.step(closure)
    reached = w.copy()
    opt.param_groups[0]["lr"] = 50.0
    opt.step(closure)
    assert np.array_equal(w, reached)
    assert opt.state[0]["fresh"]
    assert len(opt.state[0]["ro"]) == 0
    opt.param_groups[0]["lr"] = 0.5
    for _ in range(20):
        opt.step(closure)
    np.testing.assert_allclose(w, 1, atol=1e-3)


@each_dtype
@each_search
@pytest.mark.parametrize("bad", [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf)])
def test_a_step_that_starts_there_does_nothing(dtype, search, bad):
    w = np.zeros(3, dtype)
    opt, closure = minimize(w, bowl, search, max_iter=3)
    opt.step(closure)
    before, saved = w.copy(), opt.state[0]
    loss, grad = bad
    np.testing.assert_equal(opt.step(lambda: (loss, np.full_like(w, grad))), loss)
    assert np.array_equal(w, before)
    assert opt.step_count == 2
    np.testing.assert_equal(opt.state[0], {**saved, "func_evals": saved["func_evals"] + 1})
    twin, twin_closure = minimize(v := np.zeros(3, dtype), bowl, search, max_iter=3)
    for _ in range(2):
        twin.step(twin_closure)
    opt.step(closure)
    assert np.array_equal(w, v)


@each_dtype
@each_search
def test_parameters_never_overflow(dtype, search):
    """A loss that falls for ever, in a direction in which there is no end to the lengths."""
    w = np.zeros(2, dtype)
    slope = np.array([1e-3, 1.0], dtype)
    opt, closure = minimize(
        w, lambda w: (-float(slope @ w.astype(float)), -slope), search, lr=1e37, max_iter=200
    )
    for _ in range(20):
        opt.step(closure)
        assert np.isfinite(w).all()
    assert w.max() > 1e36


@each_search
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 1e-30),
        ("float32", 1e30),
        ("float64", 1e-150),
        ("float64", 1e-30),
        ("float64", 1e150),
        ("float64", 1e300),
    ],
)
def test_extreme_gradients(search, dtype, size):
    w = np.ones(3, dtype)

    def scaled(w):
        with np.errstate(over="ignore"):
            loss, grad = bowl(w)
            return size * loss, (size * grad.astype(float)).astype(dtype)

    opt, closure = minimize(w, scaled, search)
    for _ in range(3):
        opt.step(closure)
    assert np.isfinite(w).all()
    assert bowl(w)[0] <= bowl(np.ones(3, dtype))[0]


@each_dtype
@each_search
def test_a_loss_that_stays_finite_where_the_parameters_would_not(dtype, search):
    w = np.zeros(2, dtype)
    top = float(np.finfo(dtype).max)

    def closure():
        assert np.isfinite(w).all()
        return -min(float(w[0]), top) / 4, np.array([-0.25, 0.0], dtype)

    opt = LBFGS(w, lr=top / 3, max_iter=30, max_eval=1000, line_search_fn=search)
    for _ in range(3):
        opt.step(closure)
        assert np.isfinite(w).all()
    assert top / 4 < w[0] <= top / 2


@each_search
@pytest.mark.parametrize("inverse", [np.inf, 1e308, np.nan])
def test_pairs_that_point_nowhere_are_forgotten(search, inverse):
    w = np.zeros(3)
    opt, closure = minimize(w, bowl, search, max_iter=3)
    opt.step(closure)
    saved = opt.state_dict()
    saved["memory"]["ro"][-1] = inverse
    opt.load_state_dict(saved)
    before = bowl(w)[0]
    opt.step(closure)
    assert np.isfinite(w).all()
    assert bowl(w)[0] < before
    assert len(opt.state[0]["ro"]) < 3


def test_a_search_that_is_cut_short_leaves_the_pairs():
    w = np.array([-1.2, 1.0])
    opt, closure = minimize(w, rosenbrock, max_iter=10, max_eval=6)
    times = 0
    for _ in range(60):
        before = w.copy()
        opt.step(closure)
        if opt.state[0]["t"] == 0.0 and not np.array_equal(w, before):
            assert not opt.state[0]["fresh"]
            assert len(opt.state[0]["ro"]) > 0
            times += 1
    assert times > 0


def test_a_step_that_has_not_moved_at_all_tries_another_direction_next_time():
    """With a single trial a step, which torch then repeats for ever."""
    w = np.zeros(20)
    opt, closure = minimize(w, lambda w: (bowl(w)[0] / 10, bowl(w)[1] / 10), max_iter=1, max_eval=1)
    times = 0
    for _ in range(200):
        before = w.copy()
        opt.step(closure)
        if np.array_equal(w, before) and abs(bowl(w)[1]).max() > 1e-2:
            assert opt.state[0]["fresh"]
            opt.step(closure)
            assert not np.array_equal(w, before)
            times += 1
    assert times > 0
    np.testing.assert_allclose(w, np.arange(1, 21), rtol=1e-3)


class Interrupted(Exception):
    pass


def failing_at(count, closure):
    """Return a closure that raises an exception in its call of that number."""
    calls = []

    def failing():
        calls.append(None)
        found = closure()
        if len(calls) == count:
            raise Interrupted
        return found

    return failing


def many_steps(opt, closure):
    for _ in range(3):
        opt.step(closure)


@each_search
@pytest.mark.parametrize("packed", [False, True], ids=["array", "pack"])
def test_an_exception_leaves_the_last_accepted_point(search, packed):
    """Whenever it comes: the parameters are a point of the undisturbed way, and the way goes on there."""
    start = np.array([-1.2, 1.0, 0.3, 0.0])
    settings = {"lr": 1.0 if search else 1e-3, "max_iter": 6, "max_eval": 100, "history_size": 3}
    way = [start]
    opt, closure = minimize(start.copy(), rosenbrock, search, **{**settings, "max_iter": 1})
    for _ in range(40):
        opt.step(closure)
        way.append(opt.param_groups[0]["params"].copy())
    points = [point.tobytes() for point in way]
    for count in range(1, 12):
        params = fastopt.pack(start) if packed else start.copy()
        w = params.flat if packed else params
        opt = LBFGS(params, line_search_fn=search, **settings)
        failing = failing_at(count, lambda w=w: rosenbrock(w))
        with pytest.raises(Interrupted):
            many_steps(opt, failing)
        assert w.tobytes() in points
        place = points.index(w.tobytes())
        opt.step(failing)
        assert points.index(w.tobytes()) == place + 6


def test_an_exception_at_the_start_changes_nothing():
    w = np.zeros(3)
    opt, closure = minimize(w, valley, max_iter=3)
    opt.step(closure)
    before, saved = w.copy(), opt.state_dict()
    with pytest.raises(ZeroDivisionError):
        opt.step(lambda: 1 / 0)
    assert np.array_equal(w, before)
    np.testing.assert_equal(opt.state_dict(), saved)


def test_a_search_that_fails_forgets_the_pairs_and_tries_the_gradient():
    """The remembered curvature is that of another function, in a direction that is of no use here."""
    w = np.zeros(3)
    opt, closure = minimize(w, valley, max_iter=10)
    opt.step(closure)
    trials = []

    def cone():  # its slope is wrong, but for the gradient's own direction
        trials.append(w.copy())
        return float(abs(w - trials[0]).sum()), np.ones(3)

    opt.max_iter = opt.max_eval = 1000
    opt.param_groups[0]["tolerance_change"] = 0.0
    opt.step(cone)
    assert np.array_equal(w, trials[0])
    assert opt.state[0]["fresh"]
    assert len(trials) <= 1 + 2 * 25
    first = trials[-1] - trials[0]
    np.testing.assert_allclose(first, first[0])  # the last search was along the gradient


# Errors.


def test_a_step_needs_a_closure():
    opt = LBFGS(np.ones(3))
    for given, what in ((np.ones(3), "a ndarray"), ({"w": np.ones(3)}, "a dict"), (None, "None")):
        with pytest.raises(TypeError) as caught:
            opt.step(given)
        assert str(caught.value) == (
            "LBFGS.step() needs a closure, a function that computes the loss and its gradients, because it "
            f"evaluates them at several points; got {what}"
        )
    with pytest.raises(TypeError, match="closure"):
        opt.step()
    assert opt.step_count == 0


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (1.0, TypeError, "the closure returned no gradients, and params['a'] is not in a pack: return (loss, grads), or give LBFGS a fastopt.pack(...)"),
        ((1.0, None), TypeError, "the closure returned no gradients, and params['a'] is not in a pack"),
        ((1.0, {"a": np.ones(2), "b": None}), TypeError, "grads['b'] is None: LBFGS needs the gradients of all parameters, because each of its moves, and all that it remembers of them, spans all. To freeze params['b'], leave it out"),
        ((1.0, {"a": np.ones(2)}), ValueError, "grads must have the keys ['a', 'b'], got ['a']"),
        ((1.0, {"a": np.ones(2), "b": np.ones(2)}), ValueError, "grads['b'] must have its parameter's shape (3,), got (2,)"),
        ((1.0, {"a": np.ones(2), "b": np.ones(3, np.float32)}), TypeError, "grads['b'] must be of float64, like its parameter; got float32"),
        ((None, {"a": np.ones(2), "b": np.ones(3)}), TypeError, "the closure must return the loss, a number, or (loss, grads); got None"),
        (("1.0", {"a": np.ones(2), "b": np.ones(3)}), TypeError, "the closure must return the loss, a number, or (loss, grads); got a str"),
        ((1j, {"a": np.ones(2), "b": np.ones(3)}), TypeError, "the closure must return the loss, a number, or (loss, grads); got a complex"),
    ],
)  # fmt: skip
def test_what_a_closure_returns_is_checked(result, error, message):
    opt = LBFGS({"a": np.ones(2), "b": np.ones(3)})
    with pytest.raises(error) as caught:
        opt.step(lambda: result)
    assert str(caught.value).startswith(message)
    assert opt.step_count == 0


def test_a_pack_whose_closure_returns_something_else():
    opt = LBFGS(fastopt.pack(np.ones(2)))
    with pytest.raises(
        TypeError, match=r"the closure must return the loss, a number, or \(loss, grads\); got None"
    ):
        opt.step(lambda: None)
    with pytest.raises(TypeError, match="got a tuple"):
        opt.step(lambda: (1.0, np.ones(2), 3))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_iter": 0}, ValueError, "max_iter must be a whole number >= 1, got 0"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be a whole number >= 1, got 2.5"),
        ({"max_eval": True}, TypeError, "max_eval must be a whole number >= 1, got True"),
        ({"history_size": -3}, ValueError, "history_size must be a whole number >= 1, got -3"),
        ({"line_search_fn": "armijo"}, ValueError, "line_search_fn must be 'strong_wolfe' or None, got 'armijo'"),
        ({"lr": -1.0}, ValueError, "lr must be a finite number >= 0, or a schedule of such; got -1.0"),
        ({"tolerance_grad": -1.0}, ValueError, "tolerance_grad must be a finite number >= 0, or a schedule of such; got -1.0"),
        ({"tolerance_change": np.nan}, ValueError, "tolerance_change must be a finite number >= 0, or a schedule of such; got nan"),
        ({"momentum": 0.9}, TypeError, "LBFGS has no hyperparameter 'momentum'; it has lr, tolerance_grad, tolerance_change; and every optimizer has accumulate"),
    ],
)  # fmt: skip
def test_arguments_are_checked(settings, error, message):
    with pytest.raises(error) as caught:
        LBFGS(np.ones(2), **settings)
    assert str(caught.value).startswith(message)


def test_defaults_of_the_number_of_evaluations():
    assert (LBFGS(np.ones(2)).max_eval, LBFGS(np.ones(2), max_iter=1).max_eval) == (25, 1)
    assert LBFGS(np.ones(2), max_iter=10, max_eval=7).max_eval == 7


def test_one_group_and_one_dtype():
    a, b = np.ones(2), np.ones(2)
    message = "LBFGS takes one parameter group, got another: its steps are those of all parameters together"
    with pytest.raises(ValueError, match=message):
        LBFGS([{"params": a}, {"params": b}])
    opt = LBFGS(a)
    with pytest.raises(ValueError, match=message):
        opt.add_param_group({"params": b})
    assert len(opt.param_groups) == 1
    with pytest.raises(
        ValueError, match="params\\['a'\\] is float64 and params\\['b'\\] is float32; fastopt.pack"
    ):
        LBFGS({"a": a, "b": np.ones(2, np.float32)})


def test_what_is_for_single_elements_is_refused():
    with pytest.raises(TypeError, match="LBFGS has no kernel: its update is not one element's at a time"):
        LBFGS.kernel()
    others = {"swa_every": 2.0, "state_dtype": "bfloat16", "master_weights": "float32"}
    for name, default in fastopt.SGD(np.ones(2)).param_groups[0].defaults.items():
        if name in fastopt.modifiers.DEFAULTS:
            other = True if default is False else others.get(name, 1.0)
            with pytest.raises(ValueError, match=f"LBFGS takes no {name}"):
                LBFGS(np.ones(2), **{name: other})
    options = {
        "max_grad_norm": 1.0, "grad_norm_over": "tensor", "skip_nonfinite": True, "skip_outliers": 3.0,
        "grad_scaler": fastopt.GradScaler(), "accumulate": 2, "zero_grads": True,
    }  # fmt: skip
    for name, value in options.items():
        with pytest.raises(
            ValueError, match=f"LBFGS takes no {name}: a line search needs the gradients as they are"
        ):
            LBFGS(np.ones(2), **{name: value})
    opt = LBFGS(np.ones(2))
    opt.param_groups[0]["cautious"] = True
    with pytest.raises(ValueError, match="LBFGS takes no cautious"):
        opt.step(lambda: (1.0, np.ones(2)))


def test_the_loss_is_smooth_enough_for_math():
    """A closure may use plain Python."""
    w = np.array([2.0])
    opt = LBFGS(w, line_search_fn="strong_wolfe")
    opt.step(lambda: (math.cosh(w[0]), np.array([math.sinh(w[0])])))
    assert abs(w[0]) < 1e-4
