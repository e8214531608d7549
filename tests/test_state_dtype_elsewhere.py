"""State that is stored in fewer bytes: in checkpoints, and where it cannot be."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import assert_same, draw, values
from tests.stored import LOW, SHAPE, assert_near, each_form, gradients, model, stored, trained


@each_form
@pytest.mark.parametrize("ending", ["dict", "npz", "safetensors", "pickle", "copy"])
@pytest.mark.jit
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(form, ending, tmp_path):
    whole, opt = trained(count=4, state_dtype=form, seed=7)
    params, first = trained(count=2, state_dtype=form, seed=7)
    if ending in ("pickle", "copy"):
        second = pickle.loads(pickle.dumps(first)) if ending == "pickle" else copy.deepcopy(first)
        params = second.param_groups[0]["params"]
    else:
        if ending == "dict":
            saved = first.state_dict()
        else:
            pytest.importorskip("safetensors" if ending == "safetensors" else "numpy")
            path = tmp_path / f"run.{ending}"
            first.save(path)
            saved = fastopt.load(path)
        second = fastopt.AdamW(params, state_dtype=form)  # the seed is in the checkpoint
        second.load_state_dict(saved)
    for grads in gradients(4)[2:]:
        second.step(grads)
    np.testing.assert_array_equal(params["w"], whole["w"])
    assert_same(values(second), values(opt))


# --- checkpoints


@pytest.mark.parametrize("form", [None, *LOW])
@pytest.mark.parametrize("other", [None, *LOW])
@pytest.mark.jit
def test_one_form_is_loaded_into_another(form, other):
    _, opt = trained(state_dtype=form)
    second = fastopt.AdamW(model(), state_dtype=other)
    second.load_state_dict(opt.state_dict())
    assert second.param_groups[0]["state_dtype"] == other
    for name, tree in second.state[0].items():
        given, got = opt.state[0][name]["w"], tree["w"]
        if other is None or other == form:
            np.testing.assert_array_equal(got, given)
        else:
            assert_near(got, given, other)
        np.testing.assert_array_equal(tree["b"], opt.state[0][name]["b"])


@each_form
def test_a_checkpoint_holds_what_is_stored(form):
    opt = fastopt.Adam(model(), state_dtype=form)
    low, plain = opt.state_dict()["param_groups"][0]["state"]["exp_avg"]
    assert isinstance(plain, np.ndarray)
    assert low.keys() == {"format", "order", "stored"}
    assert (low["format"], low["order"], low["stored"].nbytes) == (
        form, "C", opt._leaves()[0].state["exp_avg"].nbytes,
    )  # fmt: skip


@each_form
@pytest.mark.jit
def test_arrays_in_another_order(form):
    w = np.asfortranarray(np.ones(SHAPE, np.float32))
    grad = draw(np.random.default_rng(0), SHAPE, "float32")
    opt = fastopt.AdamW(w, state_dtype=form)
    opt.step(grad)
    other = fastopt.AdamW(np.ones(SHAPE, np.float32), state_dtype=form)
    other.load_state_dict(opt.state_dict())
    mine, theirs = opt.state[0]["exp_avg"], other.state[0]["exp_avg"]
    if form == "bfloat16":
        np.testing.assert_array_equal(mine, theirs)
    else:
        np.testing.assert_allclose(mine, theirs, rtol=0.13, atol=1e-3 * np.abs(mine).max())


def damaged(change):
    saved = fastopt.Adam(model(), state_dtype="bfloat16").state_dict()
    part = saved["param_groups"][0]["state"]["exp_avg"]
    part[0] = change(part[0])
    return saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "format": "int4"}, "format must be one of float32, float64, float16, bfloat16, float8, "
         "float8_squares, got 'int4'"),
        (lambda s: {**s, "order": "A"}, "order must be 'C' or 'F', got 'A'"),
        (lambda s: {**s, "stored": s["stored"][1:]}, r"stored: shape must be \(5063,\), got \(5062,\)"),
        (lambda s: {**s, "stored": s["stored"].astype("f4")}, "stored: dtype must be uint16, got float32"),
        (lambda s: {"format": "bfloat16"}, "has no 'order'"),
    ],
)  # fmt: skip
def test_checkpoints_that_do_not_fit(change, message):
    opt = fastopt.Adam(model(), state_dtype="bfloat16")
    with pytest.raises(ValueError, match=message):
        opt.load_state_dict(damaged(change))


def test_stored_state_in_the_place_of_none():
    saved = fastopt.Adam(model(), state_dtype="bfloat16").state_dict()
    frozen = fastopt.Adam(model(), frozen="w")
    with pytest.raises(ValueError, match=r"of params\['w'\] must be None, got a dict"):
        frozen.load_state_dict(saved)


@pytest.mark.jit
def test_checkpoints_without_a_seed_are_taken():
    _, opt = trained(state_dtype="bfloat16", seed=5)
    saved = opt.state_dict()
    del saved["options"]["seed"]
    other = fastopt.AdamW(model(), state_dtype="bfloat16", seed=9)
    other.load_state_dict(saved)
    assert other.state_dict()["options"]["seed"] == 9


# --- errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastopt.Adam(model(), state_dtype="int8"), ValueError,
         "^state_dtype must be 'float32', 'bfloat16', 'float8', or None; got 'int8'$"),
        (lambda: fastopt.Adam(model(), state_dtype=16), TypeError,
         "^state_dtype must be 'float32', 'bfloat16', 'float8', or None; got 16$"),
        (lambda: fastopt.Adam(model(), overrides={"w": {"state_dtype": "half"}}), ValueError,
         r"^overrides\['w'\]: state_dtype must be 'float32', 'bfloat16', 'float8', or None; got 'half'$"),
        (lambda: fastopt.Adam(np.ones(9), state_dtype="bfloat16"), ValueError,
         "^params is of float64, whose state has no state_dtype: it is in float64 too; got 'bfloat16'$"),
        (lambda: fastopt.Muon(np.ones((70, 70), np.float32), state_dtype="bfloat16"), ValueError,
         "^Muon updates params as a whole, in NumPy: no state_dtype='bfloat16'; overrides="),
        (lambda: fastopt.DoG(np.ones(9, np.float32), state_dtype="float8"), ValueError,
         "^DoG needs all of its state in float32: no state_dtype='float8'$"),
        (lambda: fastopt.FTRL(np.ones(9, np.float32), state_dtype="float8"), ValueError,
         "^FTRL needs all of its state in float32: no state_dtype='float8'$"),
        (lambda: fastopt.AdamMini(np.ones((70, 70), np.float32), by_row=True, state_dtype="float8"), ValueError,
         "^AdamMini goes by rows, which are no whole blocks: no state_dtype='float8'$"),
        (lambda: fastopt.SparseAdam(np.ones((70, 70), np.float32), state_dtype="float8"), ValueError,
         "^SparseAdam goes by rows, which are no whole blocks: no state_dtype='float8'$"),
        (lambda: fastopt.LBFGS(np.ones(9, np.float32), state_dtype="bfloat16"), ValueError,
         "^LBFGS takes no state_dtype: "),
        (lambda: fastopt.Adam.kernel(state_dtype="bfloat16"), ValueError, "^a kernel cannot have state_dtype"),
        (lambda: fastopt.Adam(model(), seed=-1), ValueError,
         "^seed must be a whole number from 0 to 4294967295; got -1$"),
        (lambda: fastopt.Adam(model(), seed=1 << 32), ValueError,
         "^seed must be a whole number from 0 to 4294967295; got 4294967296$"),
        (lambda: fastopt.Adam(model(), seed=0.5), TypeError,
         "^seed must be a whole number from 0 to 4294967295; got 0.5$"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)  # fmt: skip
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_arrays_that_cannot_can_be_left_out():
    params = {"a": np.ones((70, 70), np.float32), "b": np.ones(9)}
    opt = fastopt.Muon(params, state_dtype="bfloat16", overrides={"*": {"state_dtype": None}})
    assert stored(opt) == [{}, {}]
