"""Clipping by the norm, and steps that are left out. Against torch: test_parity_guard.py."""

import copy
import math
import pickle

import numba
import numpy as np
import pytest

import fastopt
from fastopt.engine import threads
from fastopt.guard import WINDOW, combined
from tests.algorithms.cases import LAYOUTS, assert_same, draw, each_dtype, leaves, values

SHAPES = [(), (1,), (7, 5), (0,), (300,), (8192,), (3, 4, 2), (8193,)]
if not numba.config.DISABLE_JIT:
    SHAPES.append((20_000,))


def arrays(dtype="float32", shapes=SHAPES, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [np.asarray(draw(rng, shape, dtype) * scale, dtype) for shape in shapes]


def norm_of(grads):
    return math.sqrt(math.fsum(float(x) ** 2 for grad in grads if grad is not None for x in np.ravel(grad)))


# The norm.


@each_dtype
@pytest.mark.parametrize("packed", [False, True])
def test_grad_norm_is_that_of_all_arrays(dtype, packed):
    params, grads = arrays(dtype), arrays(dtype, seed=1)
    given = fastopt.pack(params) if packed else params
    opt = fastopt.SGD(given, max_grad_norm=math.inf)
    assert opt.grad_norm is None
    if packed:
        for own, grad in zip(given.grads, grads, strict=True):
            own[...] = grad
        opt.step()
    else:
        opt.step(grads)
    # With the JIT off the terms are added one by one.
    rel = 1e-13 if numba.config.DISABLE_JIT else 4e-16
    assert opt.grad_norm == pytest.approx(norm_of(grads), rel=rel)


def test_grad_norm_is_of_all_groups_dtypes_and_layouts():
    shape = (6, 5)
    params = [
        make(draw(np.random.default_rng(i), shape, "float32")) for i, make in enumerate(LAYOUTS.values())
    ]
    grads = [
        make(draw(np.random.default_rng(9 + i), shape, "float32")) for i, make in enumerate(LAYOUTS.values())
    ]
    double, its_grad = arrays("float64", [(3,)]), arrays("float64", [(3,)], seed=3)
    opt = fastopt.SGD([{"params": params}, {"params": double}], max_grad_norm=math.inf)
    opt.step([grads, its_grad])
    assert opt.grad_norm == pytest.approx(norm_of([*grads, *its_grad]), rel=1e-14)


def test_grad_norm_is_unscaled_and_of_those_that_are_there():
    params, grads = arrays(), arrays(seed=1)
    grads[4] = None
    opt = fastopt.SGD(params, max_grad_norm=math.inf, frozen="2")
    opt.step(grads, grad_scale=8.0)
    grads[2] = None
    assert opt.grad_norm == pytest.approx(norm_of(grads) / 8, rel=1e-14)


def test_grad_norm_of_rows_is_of_the_rows_that_are_added_up():
    table, w = np.zeros((10, 3), np.float32), np.zeros(2, np.float32)
    rows = fastopt.Rows(np.array([7, 2, 7]), np.array([[1, 2, 3], [4, 5, 6], [-1, 2, 0]], np.float32))
    opt = fastopt.SGD([table, w], lr=1.0, max_grad_norm=1.0)
    opt.step([rows, np.array([2, 0], np.float32)])
    summed = [np.array([[4, 5, 6], [0, 4, 3]]), np.array([2, 0])]
    norm = norm_of(summed)
    assert opt.grad_norm == pytest.approx(norm, rel=1e-14)
    np.testing.assert_allclose(table[[2, 7]], -summed[0] / norm, rtol=1e-6)
    np.testing.assert_allclose(w, [-2 / norm, 0], rtol=1e-6)
    opt.step([fastopt.Rows([], np.zeros((0, 3), np.float32)), np.array([0.6, 0.8], np.float32)])
    assert opt.grad_norm == pytest.approx(1.0)


@pytest.mark.jit  # NumPy warns where it overflows
def test_norms_of_doubles_do_not_overflow():
    params = [np.zeros(3), np.zeros(2, np.float32)]
    opt = fastopt.SGD(params, lr=1.0, max_grad_norm=5.0, skip_nonfinite=True)
    opt.step([np.array([3e200, 0.0, 4e200]), np.ones(2, np.float32)])
    assert opt.grad_norm == pytest.approx(5e200, rel=1e-14)
    np.testing.assert_allclose(params[0], [-3.0, 0.0, -4.0], rtol=1e-14)
    opt.step([np.full(3, 1e300), np.ones(2, np.float32)])
    assert opt.skipped_nonfinite == 0
    assert combined(np.array([1e300, 1e300])) == pytest.approx(math.sqrt(2) * 1e300)


def test_no_norm_is_measured_unless_it_is_asked_for(monkeypatch):
    def refuse(*args):
        raise AssertionError("measured")

    monkeypatch.setattr("fastopt.norms.GradientNorms.measure", refuse)
    opt = fastopt.SGD(np.ones(2), zero_grads=True)
    opt.step(np.ones(2))
    assert opt.grad_norm is None
    with pytest.raises(AssertionError, match="measured"):
        fastopt.SGD(np.ones(2), skip_nonfinite=True).step(np.ones(2))


# Clipping.


@each_dtype
def test_clipping_equals_a_smaller_grad_scale(dtype):
    """The factor is in the multiplier of the gradients: nothing else is done to them."""
    clipped, scaled = arrays(dtype), arrays(dtype)
    opt = fastopt.AdamW(clipped, max_grad_norm=0.5)
    other = fastopt.AdamW(scaled)
    for i in range(3):
        grads = arrays(dtype, seed=i + 1)
        opt.step(grads)
        other.step(grads, grad_scale=(opt.grad_norm + 1e-6) / 0.5)
    for one, two in zip(clipped, scaled, strict=True):
        np.testing.assert_allclose(one, two, rtol=20 * np.finfo(dtype).eps)


def test_nothing_is_done_to_gradients_below_the_limit():
    clipped, plain = arrays(), arrays()
    opt, other = fastopt.Adam(clipped, max_grad_norm=1e6), fastopt.Adam(plain)
    for i in range(3):
        grads = arrays(seed=i + 1)
        opt.step(grads)
        other.step(grads)
    assert_same(values(opt), values(other))


@pytest.mark.parametrize(
    "limit", [math.inf, lambda count: 1.0 if count else math.inf], ids=["inf", "at first"]
)
def test_each_tensor_clipped_to_no_norm(limit):
    """Nothing is clipped; and the steps are those without."""
    params = [{"w": np.ones(3), "b": np.ones(2)} for _ in range(2)]
    opts = [
        fastopt.AdamW(params[0], max_grad_norm=limit, grad_norm_over="tensor"),
        fastopt.AdamW(params[1]),
    ]
    for opt in opts:
        opt.step({"w": np.full(3, 10.0), "b": np.full(2, 0.1)})
    np.testing.assert_array_equal(params[0]["w"], params[1]["w"])
    np.testing.assert_array_equal(params[0]["b"], params[1]["b"])
    assert opts[0].grad_norm == pytest.approx(math.sqrt(300.02))


def test_each_tensor_by_its_own_norm():
    params = [np.zeros(2), np.zeros((2, 2)), np.zeros(1)]
    opt = fastopt.SGD(params, lr=1.0, max_grad_norm=5.0, grad_norm_over="tensor")
    opt.step([np.array([30.0, 40.0]), np.full((2, 2), 1.0), np.array([-7.0])])
    np.testing.assert_allclose(params[0], [-3, -4], rtol=1e-6)
    np.testing.assert_array_equal(params[1], np.full((2, 2), -1.0))
    np.testing.assert_allclose(params[2], [5], rtol=1e-6)
    assert opt.grad_norm == pytest.approx(math.sqrt(50**2 + 4 + 49))


def test_one_tensor_alone_is_all():
    one, other = arrays(shapes=[(9000,)]), arrays(shapes=[(9000,)])
    apart, together = (
        fastopt.AdamW(w, max_grad_norm=0.5, grad_norm_over=over)
        for w, over in ((one, "tensor"), (other, "all"))
    )
    for i in range(3):
        grads = arrays(shapes=[(9000,)], seed=i + 1)
        apart.step(grads)
        together.step(grads)
    assert_same(values(apart), values(together))


@pytest.mark.parametrize("over", ["all", "tensor"])
@pytest.mark.parametrize("name", ["LAMB", "NovoGrad", "AdamMini", "Prodigy", "Muon", "NAdam"])
def test_rules_of_every_shape_are_given_clipped_gradients(name, over):
    """They measure, per tensor, row or all together; they work on matrices; they carry numbers."""
    shapes = [(6, 5), (40,), (8, 8)]
    params, plain = arrays(shapes=shapes), arrays(shapes=shapes)
    opt = getattr(fastopt, name)(params, max_grad_norm=0.3, grad_norm_over=over, maximize=True)
    other = getattr(fastopt, name)(plain, maximize=True)
    for i in range(4):
        grads = arrays(shapes=shapes, seed=i + 1)
        opt.step(grads)
        norms = [norm_of([grad]) for grad in grads]
        if over == "all":
            norms = [norm_of(grads)] * 3
        factors = [min(1.0, 0.3 / (norm + 1e-6)) for norm in norms]
        other.step([grad * np.float32(f) for grad, f in zip(grads, factors, strict=True)])
    for one, two in zip(params, plain, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_the_limit_may_be_a_schedule():
    w = np.zeros(1)
    asked = []

    def limit(step):
        asked.append(step)
        return [1.0, math.inf][step]

    opt = fastopt.SGD(w, lr=1.0, max_grad_norm=limit)
    opt.step(np.array([4.0]))
    opt.step(np.array([4.0]))
    assert asked == [0, 1]
    np.testing.assert_allclose(w, [-5.0], rtol=1e-6)


def test_a_bad_value_of_the_schedule_writes_nothing():
    w = np.ones(2)
    opt = fastopt.SGD(w, max_grad_norm=lambda step: -1.0)
    with pytest.raises(ValueError, match="max_grad_norm must be a number >= 0; got -1.0"):
        opt.step(np.ones(2))
    np.testing.assert_array_equal(w, [1, 1])
    assert opt.step_count == 0


@pytest.mark.jit  # NumPy warns
def test_what_is_not_finite_goes_through_as_in_torch():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0, max_grad_norm=1.0)
    opt.step(np.array([np.inf, 1.0, 2.0]))
    np.testing.assert_array_equal(w, [np.nan, 0.0, 0.0])
    w[:] = 0.0
    opt.step(np.array([np.nan, 1.0, 2.0]))
    np.testing.assert_array_equal(w, [np.nan, np.nan, np.nan])


@pytest.mark.jit
def test_the_bits_do_not_depend_on_threads_or_packing(monkeypatch):
    monkeypatch.setattr(threads, "CHUNK", 4096)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    found = []
    for count in (1, 2, 5):
        for packed in (False, True):
            for over in ("all", "tensor"):
                params = arrays()
                given = fastopt.pack(params) if packed else params
                opt = fastopt.AdamW(given, max_grad_norm=0.5, grad_norm_over=over, threads=count)
                for i in range(2):
                    opt.step(arrays(seed=i + 1))
                found.append((over, values(opt), opt.grad_norm))
    for over, got, norm in found:
        want = next(each for each in found if each[0] == over)
        assert_same(got, want[1])
        assert norm == want[2]


# Steps that are left out.


@pytest.mark.parametrize(
    "bad", [np.nan, *(pytest.param(x, marks=pytest.mark.jit) for x in (np.inf, -np.inf))]
)
@pytest.mark.parametrize("packed", [False, True])
@each_dtype
def test_a_step_with_a_bad_gradient_writes_nothing(dtype, packed, bad):
    params, plain = arrays(dtype), arrays(dtype)
    given = fastopt.pack(params) if packed else params
    opt, other = fastopt.NAdam(given, skip_nonfinite=True), fastopt.NAdam(plain)
    for i in range(5):
        grads = arrays(dtype, seed=i + 1)
        if i in (0, 3):
            grads[-1][-1] = bad
        else:
            other.step(grads)
        opt.step(grads)
        assert_same(values(opt), values(other))
    assert (opt.step_count, opt.skipped_nonfinite, opt.skipped_outliers) == (3, 2, 0)


def test_large_gradients_of_half_the_range_are_finite():
    w = np.zeros(4, np.float32)
    opt = fastopt.SGD(w, lr=0.0, skip_nonfinite=True)
    opt.step(np.full(4, 3e38, np.float32))
    assert (opt.step_count, opt.skipped_nonfinite) == (1, 0)
    assert opt.grad_norm == pytest.approx(2 * float(np.float32(3e38)))


def test_schedules_and_the_step_do_not_move_on():
    w, asked = np.zeros(1), []
    opt = fastopt.SGD(w, lr=lambda step: asked.append(step) or 1.0, skip_nonfinite=True)
    for grad in (1.0, np.nan, 1.0):
        opt.step(np.array([grad]))
    assert asked == [0, 1]
    assert w == [-2.0]


def test_too_many_in_a_row_raise():
    w = np.ones(1)
    opt = fastopt.SGD(w, lr=1.0, skip_nonfinite=True, max_skips=1)
    opt.step(np.array([np.nan]))
    opt.step(np.array([1.0]))
    opt.step(np.array([np.inf]))
    with pytest.raises(
        FloatingPointError, match="2 steps in a row were left out, more than max_skips=1.*latest is inf"
    ):
        opt.step(np.array([np.inf]))
    assert w == [0.0]
    assert (opt.skipped_nonfinite, opt.step_count) == (3, 1)
    opt.step(np.array([1.0]))  # it can go on
    assert w == [-1.0]


def outliers_by_hand(norms, z):
    """OLMo's rule, naively: which are left out."""
    found = []
    for i, norm in enumerate(norms):
        before = norms[max(0, i - WINDOW) : i]
        far = len(before) >= WINDOW // 2 and norm > np.mean(before) + z * np.std(before, ddof=1)
        found.append(bool(far))
    return found


def test_outliers_are_left_out():
    rng = np.random.default_rng(0)
    norms = rng.lognormal(0.0, 0.5, 400)
    norms[[10, 100, 101, 250]] *= 100
    expected = outliers_by_hand(norms.tolist(), 3.0)
    assert not expected[10]
    assert expected[100]
    assert 3 < sum(expected) < 40
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=1.0, skip_outliers=3.0)
    moved = []
    for norm in norms:
        before = w.copy()
        opt.step(np.array([norm]))
        moved.append(bool(w == before))
    assert moved == expected
    assert (opt.skipped_outliers, opt.step_count) == (sum(expected), 400 - sum(expected))


def test_equal_norms_are_no_outliers():
    opt = fastopt.SGD(np.zeros(3), skip_outliers=1e-3)
    for _ in range(200):
        opt.step(np.full(3, 0.1))
    assert opt.skipped_outliers == 0


def test_what_is_not_finite_is_no_outlier_and_not_remembered():
    opt = fastopt.SGD(np.zeros(1), skip_outliers=3.0, skip_nonfinite=True)
    rng = np.random.default_rng(0)
    for norm in [*rng.uniform(1, 2, 80), np.nan, np.inf, *rng.uniform(1, 2, 80)]:
        opt.step(np.array([norm]))
    assert (opt.skipped_nonfinite, opt.skipped_outliers) == (2, 0)


# Copies and checkpoints.


@pytest.mark.parametrize("clone", ["pickle", "deepcopy", "state_dict"])
def test_copies_go_on_alike(clone):
    rng = np.random.default_rng(1)
    norms = rng.lognormal(0.0, 0.5, 200)
    norms[150] *= 50
    norms[160] = np.nan
    options = {"skip_outliers": 3.0, "skip_nonfinite": True, "max_grad_norm": 1.0}
    opt = fastopt.Adam(np.zeros(1), **options)
    for norm in norms[:140]:
        opt.step(np.array([norm]))
    if clone == "state_dict":
        other = fastopt.Adam(opt.param_groups[0]["params"].copy(), **options)
        other.load_state_dict(opt.state_dict())
    else:
        other = copy.deepcopy(opt) if clone == "deepcopy" else pickle.loads(pickle.dumps(opt))
    for norm in norms[140:]:
        opt.step(np.array([norm]))
        other.step(np.array([norm]))
        assert_same(values(opt), values(other))
    assert opt.skipped_outliers == other.skipped_outliers > 0
    assert opt.skipped_nonfinite == other.skipped_nonfinite == 1
    assert opt.grad_norm == other.grad_norm


def test_a_limit_with_state_is_saved():
    def make():
        plateau = fastopt.schedules.ReduceOnPlateau(1.0, factor=0.5, patience=0)
        return fastopt.SGD(np.zeros(1), lr=1.0, max_grad_norm=2 * plateau), plateau

    opt, plateau = make()
    for loss in (1.0, 2.0):
        plateau.report(loss)
    other, again = make()
    other.load_state_dict(opt.state_dict())
    assert again.value == 0.5
    other.step(np.array([3.0]))
    np.testing.assert_allclose(other.param_groups[0]["params"], [-1.0], rtol=1e-6)


def test_a_state_dict_that_lacks_the_guards_part_is_refused():
    opt = fastopt.SGD(np.ones(2), skip_nonfinite=True)
    saved = opt.state_dict()
    del saved["options"]["guard"]["norms"]
    with pytest.raises(ValueError, match=r"state_dict\['options'\]\['guard'\] has no 'norms'"):
        opt.load_state_dict(saved)


# Errors.


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"max_grad_norm": -1},
            ValueError,
            "max_grad_norm must be a number >= 0, or a schedule of such; got -1",
        ),
        ({"max_grad_norm": "1"}, TypeError, "max_grad_norm must be a number >= 0"),
        ({"max_grad_norm": math.nan}, ValueError, "max_grad_norm must be a number >= 0"),
        ({"grad_norm_over": "row"}, ValueError, "grad_norm_over must be 'all' or 'tensor', got 'row'"),
        ({"skip_nonfinite": 1}, TypeError, "skip_nonfinite must be True or False, got 1"),
        ({"skip_outliers": 0}, ValueError, "skip_outliers must be a finite number > 0; got 0"),
        ({"skip_outliers": lambda step: 3}, TypeError, "skip_outliers must be a finite number > 0; got"),
        (
            {"max_skips": -1, "skip_nonfinite": True},
            ValueError,
            "max_skips must be a whole number >= 0, or None",
        ),
        (
            {"max_skips": 1.5, "skip_nonfinite": True},
            TypeError,
            "max_skips must be a whole number >= 0, or None",
        ),
        ({"max_skips": 3}, ValueError, "max_skips needs skip_nonfinite, skip_outliers or a grad_scaler"),
    ],
)
def test_bad_options(options, kind, message):
    with pytest.raises(kind, match=message):
        fastopt.SGD(np.ones(2), **options)


def test_they_are_the_optimizers_not_a_groups():
    with pytest.raises(ValueError, match="unknown hyperparameter 'max_grad_norm' of a parameter group"):
        fastopt.SGD([{"params": np.ones(2), "max_grad_norm": 1.0}])


def test_params_are_as_they_were_given():
    """Nothing of what is checked here touches the arrays that are not updated."""
    params = arrays()
    before = [array.copy() for array in leaves(params)]
    fastopt.SGD(params, max_grad_norm=1.0, skip_nonfinite=True).step([None] * len(params))
    for one, two in zip(params, before, strict=True):
        np.testing.assert_array_equal(one, two)
