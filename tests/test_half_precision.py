"""Parameters and gradients in float16 and bfloat16: what is computed is what float32 would compute."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt.engine import threads
from fastopt.engine.storage import join
from tests.algorithms.cases import BY_ID, LAYOUTS, draw, step

BF16 = np.dtype(ml_dtypes.bfloat16)
HALVES = [np.dtype(np.float16), BF16]
each_half = pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: dtype.name)
#: Where the second compiles much and shows little.
mostly_bfloat16 = pytest.mark.parametrize(
    "dtype",
    [pytest.param(HALVES[0], marks=pytest.mark.slow), BF16],
    ids=lambda dtype: dtype.name,
)
SHAPE = (31, 17)


def single(tree):
    """Return a model in float32."""
    return {name: array.astype(np.float32, order="K") for name, array in tree.items()}


def bits(array):
    return np.ascontiguousarray(array).view(np.uint16)


def model(dtype, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal(SHAPE).astype(dtype), "b": rng.standard_normal(17).astype(dtype)}


def gradients(dtype, count, seed=1):
    return [model(dtype, seed + i) for i in range(count)]


# --- gradients of half precision for parameters of float32


OPTIONS = {
    "plain": {},
    "low": {"state_dtype": "bfloat16", "overrides": {"*": {"state_dtype": "bfloat16"}}},
    "norm": {"max_grad_norm": 0.5},
    "tensor": {"max_grad_norm": 0.5, "grad_norm_over": "tensor", "skip_nonfinite": True},
    "zero": {"zero_grads": True},
    "accumulate": {"accumulate": 2},
}


#: What compiles little.
QUICK = {("plain", "float16"), ("plain", "bfloat16"), ("accumulate", "float16")}


@pytest.mark.parametrize(
    ("option", "dtype"),
    [
        pytest.param(option, dtype, marks=() if (option, dtype.name) in QUICK else pytest.mark.slow)
        for option in OPTIONS
        for dtype in HALVES
    ],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.jit
def test_gradients_are_what_they_are_in_float32(option, dtype):
    params, plain = model(np.float32), model(np.float32)
    opt, twin = (fastopt.AdamW(each, **OPTIONS[option]) for each in (params, plain))
    for grads in gradients(dtype, 4):
        twin.step(single(grads))
        opt.step(grads)
        for name in params:
            np.testing.assert_array_equal(params[name], plain[name])
        if option == "zero":
            assert not any(bits(grad).any() for grad in grads.values())


@pytest.mark.jit
def test_gradients_may_change_their_dtype_and_be_missing():
    params, plain = model(np.float32), model(np.float32)
    opt, twin = fastopt.AdamW(params), fastopt.AdamW(plain)
    first = model(np.float16, 1)
    for grads in (
        {"w": model(BF16, 2)["w"], "b": None},
        first,
        first,  # the same arrays again
        {"w": first["w"], "b": model(np.float32, 3)["b"]},
        model(np.float32, 4),
        {"w": None, "b": model(BF16, 5)["b"]},
    ):
        twin.step({name: None if grad is None else grad.astype("f4") for name, grad in grads.items()})
        opt.step(grads)
        for name in params:
            np.testing.assert_array_equal(params[name], plain[name])


@mostly_bfloat16
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.jit
def test_layouts(layout, dtype):
    start = model(np.float32)["w"]
    grad = LAYOUTS[layout](model(dtype, 3)["w"])
    w, plain = start.copy(), start.copy()
    fastopt.AdamW(w).step(grad)
    fastopt.AdamW(plain).step(grad.astype(np.float32))
    np.testing.assert_array_equal(w, plain)
    half, same = LAYOUTS[layout](start.astype(dtype)), start.astype(dtype)
    for each, given in ((half, grad), (same, grad.copy())):
        fastopt.AdamW(each, lr=0.1, master_weights="float32").step(given)
    np.testing.assert_array_equal(bits(half), bits(same))


@each_half
@pytest.mark.parametrize("name", ["lamb", "muon", "prodigy"])
@pytest.mark.jit
@pytest.mark.slow
def test_gradients_of_rules_that_measure_and_of_matrices(name, dtype):
    case = BY_ID[name]
    rng = np.random.default_rng(0)
    w = draw(rng, case.shape(400), "float32")
    plain = w.copy()
    opt, twin = case.optimizer(w), case.optimizer(plain)
    for _ in range(3):
        grad = rng.standard_normal(w.shape).astype(dtype)
        step(twin, grad.astype(np.float32))
        step(opt, grad)
        np.testing.assert_array_equal(w, plain)


@pytest.mark.jit
def test_rows():
    table, plain = np.ones((50, 4), np.float32), np.ones((50, 4), np.float32)
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float16)
    fastopt.Adagrad(table).step(fastopt.Rows([7, 3, 7], values))
    fastopt.Adagrad(plain).step(fastopt.Rows([7, 3, 7], values.astype(np.float32)))
    np.testing.assert_array_equal(table, plain)


@pytest.mark.jit
def test_not_finite_ones_are_seen():
    w = np.ones(SHAPE, np.float32)
    opt = fastopt.AdamW(w, skip_nonfinite=True)
    grad = np.ones(SHAPE, BF16)
    grad[3, 4] = np.inf
    opt.step(grad)
    assert opt.skipped_nonfinite == 1
    assert (w == 1).all()


# --- parameters of half precision


MASTERS = [
    (BF16, "float32"),
    (BF16, "split"),
    pytest.param(np.dtype(np.float16), "float32", marks=pytest.mark.slow),
]
each_master = pytest.mark.parametrize(
    ("dtype", "rest"), MASTERS, ids=["bfloat16-float32", "bfloat16-split", "float16-float32"]
)


def exact(opt, params, name):
    """Return the parameters that an optimizer computes with, in float32."""
    state = opt.state[0]
    if "master_weights" in state:
        return state["master_weights"][name]
    low = np.ascontiguousarray(state["low_bits"][name]).reshape(-1)
    return join(bits(params[name]).reshape(-1), low).reshape(params[name].shape)


WITH_MASTERS = {
    "plain": {},
    "low": {"overrides": {"*": {"state_dtype": "float8"}}},
    "norm": {"max_grad_norm": 0.5},
    "cautious": {"cautious": True},
    "ema": {"ema_decay": 0.9},
    "swa": {"swa_start": 1},
    "zero": {"zero_grads": True},
}


@each_master
@pytest.mark.parametrize(
    "option",
    [pytest.param(name, marks=() if name == "plain" else pytest.mark.slow) for name in WITH_MASTERS],
)
@pytest.mark.jit
def test_with_their_rest_they_are_trained_as_in_float32(option, dtype, rest):
    params = model(dtype)
    plain = single(params)
    options = {"lr": 0.01, **WITH_MASTERS[option]}
    opt, twin = fastopt.AdamW(params, master_weights=rest, **options), fastopt.AdamW(plain, **options)
    for grads in gradients(dtype, 3):
        twin.step(single(grads))
        opt.step(grads)
        for name, want in plain.items():
            np.testing.assert_array_equal(exact(opt, params, name), want)
            if rest == "float32":
                np.testing.assert_array_equal(bits(params[name]), bits(want.astype(dtype)))
    if option in ("ema", "swa"):
        np.testing.assert_array_equal(opt.averages()["w"], twin.averages()["w"])


@pytest.mark.jit
@mostly_bfloat16
def test_without_a_rest_they_are_rounded_up_or_down(dtype):
    w = np.full(100_000, 1.0, dtype)
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(np.full(w.shape, -0.0001, np.float32))
    found, counts = np.unique(w.astype(np.float32), return_counts=True)
    spacing = 2.0**-7 if dtype == BF16 else 2.0**-10
    np.testing.assert_array_equal(found, [1.0, 1.0 + spacing])
    share = 0.0001 / spacing
    assert abs(counts[1] - 1e5 * share) < 5 * np.sqrt(1e5 * share)


@pytest.mark.jit
@mostly_bfloat16
def test_a_gradient_of_zero_moves_nothing(dtype):
    params = model(dtype)
    before = copy.deepcopy(params)
    opt = fastopt.SGD(params, lr=1.0)
    for _ in range(5):
        opt.step({name: np.zeros(array.shape, np.float32) for name, array in params.items()})
    for name in params:
        np.testing.assert_array_equal(bits(params[name]), bits(before[name]))


@pytest.mark.jit
def test_the_same_bits_however_it_is_done(monkeypatch):
    def trained(packed=False, **options):
        params = model(BF16)
        given = fastopt.pack(params) if packed else params
        opt = fastopt.AdamW(given, **options)
        for grads in gradients(BF16, 3):
            opt.step(grads)
        return given.params if packed else params

    one = trained(threads=1)
    np.testing.assert_array_equal(bits(one["w"]), bits(trained(packed=True)["w"]))
    assert (bits(one["w"]) != bits(trained(seed=1)["w"])).any()
    monkeypatch.setattr(threads, "CHUNK", 100)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    np.testing.assert_array_equal(bits(one["w"]), bits(trained(threads=4)["w"]))


@pytest.mark.parametrize("rest", [None, "float32", "split"])
@pytest.mark.parametrize("ending", ["npz", "safetensors", "pickle", "copy"])
@pytest.mark.jit
def test_a_run_goes_on_from_a_checkpoint(ending, rest, tmp_path):
    params = model(BF16)
    opt = fastopt.AdamW(params, master_weights=rest)
    first, second, third = gradients(BF16, 3)
    opt.step(first)
    opt.step(second)
    if ending in ("pickle", "copy"):
        other = pickle.loads(pickle.dumps(opt)) if ending == "pickle" else copy.deepcopy(opt)
        theirs = other.param_groups[0]["params"]
    else:
        if ending == "safetensors":
            pytest.importorskip("safetensors")
        opt.save(tmp_path / f"run.{ending}")
        theirs = model(BF16, seed=9)
        other = fastopt.AdamW(theirs, master_weights=rest)
        other.load_state_dict(fastopt.load(tmp_path / f"run.{ending}"))
    opt.step(third)
    other.step(third)
    for name in params:
        np.testing.assert_array_equal(bits(params[name]), bits(theirs[name]))


@each_half
@pytest.mark.jit
@pytest.mark.slow
def test_averages_in_the_place_of_the_parameters(dtype):
    params = model(dtype)
    opt = fastopt.AdamW(params, lr=0.1, ema_decay=0.5)
    opt.step(model(dtype, 1))
    before = copy.deepcopy(params)
    average = opt.averages()["w"]
    assert average.dtype == np.float32
    with opt.averaged_parameters():
        np.testing.assert_array_equal(bits(params["w"]), bits(average.astype(dtype)))
    for name in params:
        np.testing.assert_array_equal(bits(params[name]), bits(before[name]))


@pytest.mark.jit
def test_parameters_that_are_set_before_the_first_step_count():
    params = model(BF16)
    opt = fastopt.AdamW(params, lr=0.0, weight_decay=0.0, master_weights="float32")
    params["w"][...] = 3.0
    opt.step(model(BF16, 1))
    assert (params["w"] == 3).all()


def test_memory():
    params = {"w": np.zeros((100, 100), BF16)}
    bytes_of = {
        rest: fastopt.AdamW(params, state_dtype="bfloat16", master_weights=rest).nbytes
        for rest in (None, "float32", "split")
    }
    assert bytes_of == {None: 40_000, "float32": 80_000, "split": 60_000}


def test_a_master_is_for_half_precision_alone():
    opt = fastopt.Adam(model(np.float32), master_weights="float32")
    assert opt.state[0].keys() == {"exp_avg", "exp_avg_sq"}


# --- packs


@mostly_bfloat16
@pytest.mark.jit
def test_packs(dtype):
    pack = fastopt.pack(model(np.float32), dtype=dtype, grad_dtype=dtype)
    assert pack.flat.dtype == pack.flat_grads.dtype == pack.params["w"].dtype == dtype
    assert pack.flat.ctypes.data % 64 == 0 if dtype != BF16 else bits(pack.flat).ctypes.data % 64 == 0
    plain = single(pack.params)
    opt = fastopt.AdamW(pack, lr=0.01, master_weights="float32", max_grad_norm=1.0, zero_grads=True)
    twin = fastopt.AdamW(plain, lr=0.01, max_grad_norm=1.0)
    for grads in gradients(dtype, 2):
        for name, grad in grads.items():
            pack.grads[name][...] = grad
        opt.step()
        twin.step(single(grads))
        np.testing.assert_array_equal(opt.state[0]["master_weights"]["w"], plain["w"])
        assert not bits(pack.flat_grads).any()
    same = pickle.loads(pickle.dumps(pack))
    np.testing.assert_array_equal(bits(same.flat), bits(pack.flat))


@pytest.mark.jit
def test_packs_with_gradients_of_another_dtype():
    pack = fastopt.pack(model(np.float32), grad_dtype="bfloat16")
    assert (pack.dtype, pack.flat_grads.dtype) == (np.float32, BF16)
    plain = copy.deepcopy(pack.params)
    (grads,) = gradients(BF16, 1)
    for name, grad in grads.items():
        pack.grads[name][...] = grad
    fastopt.AdamW(pack).step()
    fastopt.AdamW(plain).step(single(grads))
    np.testing.assert_array_equal(pack.params["w"], plain["w"])
    pack.zero_grad()
    assert not bits(pack.flat_grads).any()


# --- errors


def grads_of(dtype):
    return np.ones(SHAPE, dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastopt.AdamW(grads_of(np.float64)).step(grads_of(np.float16)), TypeError,
         "^grads must be of float64, like its parameter; got float16$"),
        (lambda: fastopt.AdamW(grads_of(np.float32)).step(grads_of(np.int16)), TypeError,
         "^grads must be of float32, like its parameter; got int16$"),
        (lambda: fastopt.AdamW(grads_of(np.float16)).step(grads_of(np.float64)), TypeError,
         "^grads must be of float32, or half precision; got float64$"),
        (lambda: fastopt.AdamW(grads_of(np.int16)), TypeError,
         "^params must be a NumPy array of float32 or float64 .or float16, bfloat16., got an array of int16$"),
        (lambda: fastopt.NAG(grads_of(np.float16)), TypeError,
         "^params and its gradient must be of float32 or float64 for NAG, got float16$"),
        (lambda: fastopt.ScheduleFreeAdamW(grads_of(BF16)), TypeError,
         "^params and its gradient must be of float32 or float64 for ScheduleFreeAdamW, got bfloat16$"),
        (lambda: fastopt.LBFGS(grads_of(np.float16)), TypeError,
         "^params and its gradient must be of float32 or float64 for LBFGS, got float16$"),
        (lambda: fastopt.LBFGS(fastopt.pack(grads_of(np.float32), grad_dtype="float16")), TypeError,
         "^params and its gradient must be of float32 or float64 for LBFGS, got float16$"),
        (lambda: fastopt.Muon(grads_of(np.float16)), TypeError,
         "^Muon updates params as a whole, in NumPy: parameters and gradients must be of float32 or float64"),
        (lambda: fastopt.Muon(fastopt.pack(grads_of(np.float32), grad_dtype="float16")), TypeError,
         "^Muon updates params as a whole, in NumPy: parameters and gradients must be of float32 or float64"),
        (lambda: fastopt.SGD(grads_of(np.float16), lookahead_steps=5), TypeError,
         "^lookahead_steps needs parameters of float32 or float64, params is of float16$"),
        (lambda: fastopt.SGD(grads_of(np.float16), master_weights="split"), ValueError,
         "^master_weights='split' is for bfloat16, whose bits are the high half of float32's; params is of"),
        (lambda: fastopt.SGD(grads_of(np.float16), master_weights="float64"), ValueError,
         "^master_weights must be 'float32', 'split', or None; got 'float64'$"),
        (lambda: fastopt.SGD(fastopt.pack(grads_of(np.float16)), accumulate=2), TypeError,
         "^the gradients of a pack must be of float32 for accumulate=2, which adds up in them; got float16$"),
        (lambda: fastopt.pack(grads_of(np.float64), grad_dtype="float16"), TypeError,
         "^grad_dtype must be float64 where the parameters are, got float16 for float64$"),
        (lambda: fastopt.pack(grads_of(np.float32), dtype="int8"), TypeError,
         "^dtype must be float32, float64, float16 or bfloat16, got int8$"),
        (lambda: fastopt.pack(grads_of(np.float32), grad_dtype="int8"), TypeError,
         "^grad_dtype must be float32, float64, float16 or bfloat16, got int8$"),
        (lambda: fastopt.SGD.kernel(master_weights="float32"), ValueError, "^a kernel cannot have master_weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)  # fmt: skip
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    message = "^dtype='bfloat16' needs the package ml_dtypes, which is missing: pip install"
    with pytest.raises(ModuleNotFoundError, match=message):
        fastopt.pack(np.ones(3), dtype="bfloat16")


@pytest.mark.jit
def test_checkpoints_of_bfloat16_that_do_not_fit():
    opt = fastopt.SGD({"w": np.ones(3, BF16)})
    saved = opt.state_dict(params=True)
    saved["param_groups"][0]["params"][0]["format"] = "float16"
    with pytest.raises(ValueError, match=r"of params\['w'\]: format must be bfloat16, got float16"):
        opt.load_state_dict(saved)
    frozen = np.ones(3, BF16)
    frozen.flags.writeable = False
    other = fastopt.SGD({"w": frozen}, frozen="w")
    saved = other.state_dict(params=True)
    other.load_state_dict(saved)
    saved["param_groups"][0]["params"][0]["stored"][1] = 0
    with pytest.raises(ValueError, match=r"of params\['w'\] differs, and params\['w'\] is read-only"):
        other.load_state_dict(saved)
