"""Where an optimizer's arrays are decides where its state is, and where its steps are taken."""

import copy
import gc
import math
import pickle

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt.engine import cuda, device
from fastopt.engine.device import DeviceArray
from fastopt.foreign import as_array
from tests.cuda.foreign import Foreign, assert_equal, foreign, host

F = np.float32


def draw(shape, dtype=F, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def tree(dtype=F, seed=0):
    shapes = {"w": (3, 5), "b": (5,), "scale": (), "none": (0, 2)}
    return {name: draw(shape, dtype, seed + i) for i, (name, shape) in enumerate(shapes.items())}


def grads(step, dtype=F):
    return tree(dtype, seed=10 * (step + 1))


def pair(cls, params, **options):
    """Return an optimizer of arrays of the CPU and one of a device's, and both's parameters."""
    params, there = copy.deepcopy(params), foreign(params)
    return cls(params, **options), cls(there, **options), params, there


def assert_alike(here, there):
    """Compare optimizers of the CPU and of a device: their state dicts with the parameters."""
    one, other = here.state_dict(params=True), there.state_dict(params=True)
    assert one["step_count"] == other["step_count"]
    for a, b in zip(one["param_groups"], other["param_groups"], strict=True):
        assert a["steps"] == b["steps"]
        assert_equal(a["state"], b["state"])
        assert_equal(a["params"], b["params"])


# Parameters, and their state.


@pytest.mark.parametrize("dtype", [F, np.float64])
def test_steps_are_those_of_the_cpu(dtype):
    here, there, params, arrays = pair(fastopt.AdamW, tree(dtype), lr=0.1)
    for step in range(3):
        given = grads(step, dtype)
        if step == 1:
            given["b"] = None
        here.step(copy.deepcopy(given))
        there.step(foreign(given))
    assert_equal(params, arrays)
    assert_alike(here, there)


def test_memory_is_used_as_it_is():
    w = Foreign(np.ones((2, 3), F))
    opt = fastopt.SGD(w, lr=1.0, momentum=0.5)
    (leaf,) = opt._leaves()
    assert leaf.array.address == leaf.flat.address == w.memory.address
    state = opt.state[0]["momentum_buffer"]
    assert isinstance(state, DeviceArray)
    assert state.shape == (2, 3)
    opt.step(Foreign(np.ones((2, 3), F)))
    assert_equal(state.copy_to_host(), np.ones((2, 3), F))  # a view
    assert not w.get().any()


@pytest.mark.parametrize("orders", ["CC", "FF"])
def test_both_orders(orders):
    params = {"a": draw((3, 4)), "b": np.asfortranarray(draw((4, 3), seed=1))}
    here, there, params, arrays = pair(fastopt.SGD, params, lr=0.5, momentum=0.9)
    for step in range(2):
        given = {"a": draw((3, 4), seed=step), "b": np.asfortranarray(draw((4, 3), seed=7 + step))}
        here.step(given)
        there.step(foreign(given))
    assert_equal(params, arrays)
    assert_alike(here, there)
    assert there.state[0]["momentum_buffer"]["b"].order == "F"


def test_what_functions_for_arrays_are_given():
    params = foreign({"w": draw((2, 3)), "b": draw(3)})
    seen = []
    opt = fastopt.AdamW(
        params, no_decay=lambda name, array: seen.append((name, array.ndim)) or array.ndim < 2
    )
    assert seen == [("w", 2), ("b", 1)]
    assert "with overrides" in repr(opt)


def test_frozen_arrays_can_be_read_only():
    w, b = Foreign(draw(3)), Foreign(draw(3))
    w.memory.flags.writeable = False
    opt = fastopt.SGD({"w": w, "b": b}, frozen="w", lr=1.0)
    before = host(w)
    opt.step({"w": None, "b": Foreign(np.ones(3, F))})
    assert_equal(before, w)
    opt.load_state_dict(opt.state_dict(params=True))
    saved = opt.state_dict(params=True)
    saved["param_groups"][0]["params"][0][0] += 1
    with pytest.raises(
        ValueError,
        match=r"^state_dict does not fit: .* of params\['w'\] differs, and params\['w'\] is read-only$",
    ):
        opt.load_state_dict(saved)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (lambda: Foreign(draw((2, 3)), strides=(24, 4)), ValueError,
         "params['w'] must be contiguous, in C or Fortran order, because it is on a CUDA device; "
         "got strides (24, 4) for the shape (2, 3) of float32"),
        (lambda: Foreign(np.arange(3)), TypeError,
         "params['w'] must be a NumPy array of float32 or float64 (or float16, bfloat16), got an array of int64"),
        (lambda: Foreign(draw(3), data=(4096, True)), ValueError,
         "params['w'] must be writeable, got a read-only Foreign on a CUDA device"),
    ],
    ids=["strided", "dtype", "read-only"],
)  # fmt: skip
def test_arrays_that_cannot_be_updated(array, error, message):
    with pytest.raises(error) as caught:
        fastopt.SGD({"w": array()})
    assert str(caught.value) == message


def test_our_own_arrays_that_are_read_only():
    array = device.asarray(draw(3))
    array.flags.writeable = False
    with pytest.raises(ValueError, match="^params must be writeable, got a read-only array$"):
        fastopt.SGD(array)


def test_arrays_that_share_memory():
    w = Foreign(draw(4))
    with pytest.raises(
        ValueError, match=r"^params\[0\] and params\[1\] share memory; each parameter must be given once$"
    ):
        fastopt.SGD([w, w])
    array = device.asarray(draw(6))
    with pytest.raises(ValueError, match=r"^params\[0\] and params\[1\] share memory"):
        fastopt.SGD([array[:4], array[3:]])
    fastopt.SGD([array[:3], array[3:]])


# One place.


MIXED = (
    r"^all arrays must be in one place: params\['w'\] is on a CUDA device, and params\['b'\] is in the memory of "
    r"the CPU"
)


def test_all_arrays_are_in_one_place():
    w, b = draw((2, 3)), draw(3)
    with pytest.raises(TypeError, match=MIXED + "$"):
        fastopt.SGD({"w": Foreign(w), "b": b})
    with pytest.raises(TypeError, match=MIXED + "; to have all in one place, give pack a device$"):
        fastopt.pack({"b": b, "w": Foreign(w)})
    opt = fastopt.SGD([{"params": w}])
    message = (
        r"^all arrays must be in one place: params\[1\]\['params'\] is on a CUDA device, and "
        r"params\[0\]\['params'\] is in the memory of the CPU$"
    )
    with pytest.raises(TypeError, match=message):
        opt.add_param_group({"params": Foreign(b)})
    assert len(opt.param_groups) == 1
    opt.step([w + 1])
    opt = fastopt.SGD([{"params": fastopt.pack(b, device="cuda")}])
    with pytest.raises(
        TypeError, match=r"^all arrays must be in one place: params\[0\]\['params'\] is on a CUDA device"
    ):
        opt.add_param_group({"params": w})
    opt.add_param_group({"params": Foreign(w)})
    assert len(opt.param_groups) == 2


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (fastopt.Muon, "Muon updates params as a whole, in NumPy: it cannot be on a CUDA device"),
        (fastopt.SOAP, "SOAP updates params as a whole, in NumPy: it cannot be on a CUDA device"),
        (fastopt.Adafactor, "Adafactor updates params as a whole, in NumPy: it cannot be on a CUDA device"),
        (fastopt.LBFGS, "LBFGS cannot update params, which is on a CUDA device"),
        (fastopt.SparseAdam, "SparseAdam cannot update params, which is on a CUDA device"),
    ],
)
def test_algorithms_of_the_cpu(cls, message):
    with pytest.raises(TypeError) as caught:
        cls(Foreign(draw((3, 4))))
    assert str(caught.value) == message


def test_rows_are_of_the_cpu():
    opt = fastopt.SGD({"w": Foreign(draw((3, 2)))}, lr=1.0)
    with pytest.raises(TypeError, match=r"^grads\['w'\] cannot be Rows: params\['w'\] is on a CUDA device$"):
        opt.step({"w": fastopt.Rows([0], draw((1, 2)))})
    with pytest.raises(
        TypeError, match="^values must be in the memory of the CPU, got DeviceArray on a CUDA device"
    ):
        fastopt.Rows([0], device.asarray(draw((1, 2))))


@pytest.mark.parametrize("number", [0, 1])
def test_other_devices(number):
    class Exchanged(Foreign):
        def __dlpack__(self, **options):
            raise AssertionError

        def __dlpack_device__(self):
            return 2, number

    if number == cuda.device_number():
        fastopt.SGD(Exchanged(draw(3)))
        return
    with pytest.raises(ValueError, match="^params is on CUDA device 1, and this thread works on device 0$"):
        fastopt.SGD(Exchanged(draw(3)))


# Gradients.


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (lambda: draw((3, 4)), TypeError, "grads['w'] is in the memory of the CPU, its parameter params['w'] on a CUDA device"),
        (lambda: np.float32(1.0), TypeError,
         "grads['w'] is in the memory of the CPU, its parameter params['w'] on a CUDA device"),
        (lambda: Foreign(draw((3, 4), np.float64)), TypeError, "grads['w'] must be of float32, like its parameter; got float64"),
        (lambda: Foreign(draw((4, 3))), ValueError, "grads['w'] must have its parameter's shape (3, 4), got (4, 3)"),
        (lambda: Foreign(np.asfortranarray(draw((3, 4)))), ValueError,
         "grads['w'] must be in C order, like its parameter, because it is on a CUDA device"),
        (lambda: Foreign(draw((3, 4)), strides=(32, 8)), ValueError,
         "grads['w'] must be contiguous, in C or Fortran order, because it is on a CUDA device; "
         "got strides (32, 8) for the shape (3, 4) of float32"),
        (lambda: [1.0], TypeError,
         "grads['w'] must be an array of float32, or None where there is no gradient; got list"),
    ],
    ids=["host", "number", "dtype", "shape", "order", "strided", "no array"],
)  # fmt: skip
def test_gradients_that_do_not_fit(grad, error, message):
    params = {"w": draw((3, 4)), "b": draw(2)}
    opt = fastopt.SGD(foreign(params), lr=1.0)
    given = {"w": grad(), "b": Foreign(draw(2))}
    if isinstance(given["w"], list):  # a container, elsewhere
        opt = fastopt.SGD(list(foreign(params).values()), lr=1.0)
        with pytest.raises(error, match="must be an array of float32"):
            opt.step([object(), given["b"]])
        return
    with pytest.raises(error) as caught:
        opt.step(given)
    assert str(caught.value) == message
    assert_equal(params, opt._params())


def test_gradients_of_a_device_for_the_cpu():
    opt = fastopt.SGD({"w": draw(3)}, lr=1.0)
    with pytest.raises(TypeError) as caught:
        opt.step({"w": Foreign(draw(3))})
    assert (
        str(caught.value)
        == "grads['w'] is on a CUDA device, its parameter params['w'] in the memory of the CPU"
    )


def test_gradients_apart_from_the_parameters():
    w = Foreign(draw(4))
    opt = fastopt.SGD({"w": w}, lr=1.0)
    with pytest.raises(ValueError, match=r"^grads\['w'\] shares memory with a parameter; it must be apart$"):
        opt.step({"w": w})


def test_the_same_gradients_again_are_not_looked_at():
    w, g = Foreign(np.zeros(4, F)), Foreign(np.ones(4, F))
    opt = fastopt.SGD([w], lr=1.0)
    opt.step([g])
    asked = g.asked
    g.set(np.full(4, 2, F))
    opt.step([g])
    assert g.asked == asked + 1  # for its stream
    opt.step([Foreign(np.full(4, 3, F))])
    opt.step([g])
    assert_equal(w, np.full(4, -8, F))


def test_tensors_whose_memory_is_another():
    class Tensor(Foreign):
        def data_ptr(self):
            return self.memory.address

    w, g = Foreign(np.zeros(4, F)), Tensor(np.ones(4, F))
    opt = fastopt.SGD([w], lr=1.0)
    opt.step([g])
    before, g.memory = g.memory, device.asarray(np.full(4, 5, F))
    opt.step([g])
    assert_equal(w, np.full(4, -6, F))
    assert before.address != g.memory.address


def test_our_own_arrays_as_gradients():
    w = device.zeros((2, 3), F)
    opt = fastopt.SGD([w], lr=1.0)
    g = device.asarray(np.ones((2, 3), F))
    for _ in range(2):
        opt.step([g])
        opt.step([device.asarray(np.ones((2, 3), F))])
    assert_equal(w, np.full((2, 3), -4, F))


def test_gradients_live_until_they_are_read():
    w = Foreign(np.zeros(4, F))
    opt = fastopt.SGD([w], lr=1.0)
    for _ in range(3):
        opt.step([Foreign(np.ones(4, F))])
        gc.collect()
    assert_equal(w, np.full(4, -3, F))


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_gradients_of_half_precision(half):
    params, given = {"w": draw((3, 4))}, {"w": draw((3, 4), half, seed=1)}
    here, there, params, arrays = pair(fastopt.SGD, params, lr=0.5, momentum=0.9)
    for opt, g in ((here, given), (there, {"w": device.asarray(given["w"])})):
        opt.step(g)
        opt.step(g)
        opt.step({"w": as_array(g["w"], "").copy()})
    assert_equal(params, arrays)


def test_zero_grads():
    w, g = Foreign(np.zeros(4, F)), Foreign(np.ones(4, F))
    opt = fastopt.SGD({"w": w}, lr=1.0, zero_grads=True)
    opt.step({"w": g})
    assert not g.get().any()
    assert_equal(w, np.full(4, -1, F))
    with pytest.raises(
        ValueError, match=r"^grads\['w'\] must be a writeable array: zero_grads=True sets it to zero$"
    ):
        opt.step({"w": Foreign(np.ones(4, F), data=(g.memory.address, True))})


def test_gradients_of_steps_that_are_left_out_are_set_to_zero():
    w, g = Foreign(np.zeros(4, F)), Foreign(np.array([1, math.nan, 1, 1], F))
    opt = fastopt.SGD({"w": w}, lr=1.0, zero_grads=True, skip_nonfinite=True)
    opt.step({"w": g})
    assert not g.get().any()
    assert not w.get().any()
    assert opt.skipped_nonfinite == 1
    assert opt.step_count == 0


# Packs.


def test_a_pack_on_the_device():
    arrays = tree()
    pack = fastopt.pack(arrays, device="cuda")
    assert pack.device == "cuda"
    assert repr(pack) == "<Pack of 4 arrays, 21 parameters, float32, on a CUDA device>"
    assert isinstance(pack.flat, DeviceArray)
    assert pack.params["w"].address == pack.flat.address
    assert_equal(arrays, pack.params)
    assert not pack.flat_grads.copy_to_host().any()
    pack.flat_grads.fill(1)
    pack.zero_grad()
    assert not pack.flat_grads.copy_to_host().any()


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("where", [None, "cpu", "cuda"])
def test_packs_are_copies(there, where):
    arrays = tree() | {"f": np.asfortranarray(draw((2, 3)))}
    given = foreign(arrays) if there else arrays
    pack = fastopt.pack(given, device=where)
    assert pack.device == (where or ("cuda" if there else "cpu"))
    assert_equal(arrays, pack.params)
    assert type(pack.flat) is (DeviceArray if pack.device == "cuda" else np.ndarray)


def test_packs_of_arrays_in_both_places():
    pack = fastopt.pack({"w": Foreign(draw(3)), "b": draw(3)}, device="cuda")
    assert_equal(pack.params, {"w": draw(3), "b": draw(3)})
    pack = fastopt.pack({"w": Foreign(draw(3)), "b": draw(3)}, device="cpu")
    assert_equal(pack.params, {"w": draw(3), "b": draw(3)})


@pytest.mark.parametrize("place", ["gpu", "cuda:0", 0, True])
def test_places_that_there_are_not(place):
    with pytest.raises(ValueError, match="^device must be 'cpu', 'cuda' or None, got ") as caught:
        fastopt.pack(draw(3), device=place)
    assert str(caught.value).endswith(repr(place))


@pytest.mark.parametrize("given", [np.array, Foreign])
def test_packs_convert(given):
    array = draw(5, np.float64)
    pack = fastopt.pack([given(array)], dtype="bfloat16", grad_dtype=F, device="cuda")
    assert (pack.dtype, pack.flat_grads.dtype) == (ml_dtypes.bfloat16, F)
    assert_equal(pack.params[0], array.astype(ml_dtypes.bfloat16))
    assert_equal(fastopt.pack(given(np.arange(5)), dtype=F, device="cuda").params, np.arange(5, dtype=F))
    with pytest.raises(
        ValueError, match=r"^params must have one dtype: params\[0\] is float64 and params\[1\] is float32"
    ):
        fastopt.pack([given(array), given(array.astype(F))], device="cuda")


def test_parts_of_packs():
    pack = fastopt.pack({"a": draw((2, 3)), "rest": [draw(4, seed=1), draw(2, seed=2)]}, device="cuda")
    part = pack["rest"]
    assert part.flat.address == pack.flat.address + 6 * 4
    assert part.device == "cuda"
    part.flat_grads.fill(1)
    assert pack.flat_grads.copy_to_host().tolist() == [0] * 6 + [1] * 6
    with pytest.raises(TypeError, match="^this pack holds a sole array: it has no parts$"):
        pack["a"][0]


def test_packs_are_pickled_by_way_of_the_host():
    pack = fastopt.pack({"a": draw((2, 3)), "rest": [draw(4, seed=1)]}, device="cuda")
    pack.flat_grads.fill(2)
    whole, part = pickle.loads(pickle.dumps((pack, pack["rest"])))
    assert whole.device == "cuda"
    assert_equal(whole.params, pack.params)
    assert_equal(whole.grads, pack.grads)
    assert part.flat.address == whole.flat.address + 6 * 4
    assert whole.flat.address != pack.flat.address


def test_steps_with_packs():
    here, there = fastopt.pack(tree()), fastopt.pack(tree(), device="cuda")
    opts = [fastopt.Adam(pack, lr=0.1, zero_grads=True) for pack in (here, there)]
    for step in range(3):
        for name, grad in grads(step).items():
            here.grads[name][...] = grad
            there.grads[name].copy_to_device(grad)
        for opt in opts:
            opt.step()
        assert not there.flat_grads.copy_to_host().any()
    assert_equal(here.flat, there.flat)
    assert_alike(*opts)
    there.flat_grads.fill(1)
    opts[1].zero_grad()
    assert not there.flat_grads.copy_to_host().any()
    assert isinstance(opts[1].state[0]["exp_avg"]["w"], DeviceArray)


# State dicts.

CASES = {
    "adamw": (fastopt.AdamW, {"lr": 0.1}),
    "amsgrad": (fastopt.AdamW, {"lr": 0.1, "amsgrad": True}),
    "lamb": (fastopt.LAMB, {"lr": 0.1}),
    "carried by tensors": (fastopt.SGD, {"lr": 0.1, "cautious": True, "swa_start": 1}),
    "carried": (fastopt.NAdam, {"lr": 0.1}),
    "averages": (fastopt.SGD, {"lr": 0.1, "ema_decay": 0.5, "swa_start": 1, "lookahead_steps": 2}),
    "rows": (fastopt.AdamMini, {"lr": 0.1}),
}


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_move(case, tmp_path):
    cls, options = CASES[case]
    here, there, *_ = pair(cls, tree(), **options)
    opts = [here, there]
    for step in range(2):
        here.step(grads(step))
        there.step(foreign(grads(step)))
        opts = opts[::-1]
        # Each goes on with what the other has, by way of a file.
        for i, opt in enumerate((here, there)):
            opt.save(tmp_path / f"{i}.npz")
        here.load_state_dict(fastopt.load(tmp_path / "1.npz"))
        there.load_state_dict(fastopt.load(tmp_path / "0.npz"))
    saved = there.state_dict(params=True)
    for part in saved["param_groups"]:
        for column in (part["params"], *part["state"].values()):
            assert all(array is None or type(array) is np.ndarray for array in column)
    fresh = cls(foreign(tree(seed=3)), **options)
    fresh.load_state_dict(here.state_dict(params=True))
    assert_alike(here, fresh)


@pytest.mark.parametrize("orders", ["CF", "FC"])
def test_checkpoints_of_other_orders(orders):
    one, other = (np.array(draw((3, 4)), order=order) for order in orders)
    here, there = fastopt.SGD(one, lr=0.5, momentum=0.9), fastopt.SGD(Foreign(other), lr=0.5, momentum=0.9)
    here.step(np.array(draw((3, 4), seed=1), order=orders[0]))
    there.load_state_dict(here.state_dict(params=True))
    assert_alike(here, there)
    here.load_state_dict(there.state_dict(params=True))
    assert_alike(here, there)


def test_state_dicts_with_arrays_of_a_device():
    here, there, *_ = pair(fastopt.SGD, {"w": draw((2, 3))}, lr=0.5, momentum=0.9)
    there.step({"w": Foreign(draw((2, 3), seed=1))})
    saved = there.state_dict(params=True)
    (part,) = saved["param_groups"]
    part["params"] = [device.asarray(array) for array in part["params"]]
    part["state"] = {
        name: [device.asarray(array) for array in column] for name, column in part["state"].items()
    }
    here.load_state_dict(saved)
    assert_alike(here, there)
    there.load_state_dict(saved)
    assert_alike(here, there)


@pytest.mark.parametrize("form", ["bfloat16", "float8"])
def test_state_in_fewer_bytes(form):
    options = {"lr": 0.1, "state_dtype": form, "overrides": {"*": {"state_dtype": form}}}
    params = {"w": np.asfortranarray(draw((5, 3))), "b": draw(7)}
    here, there, params, arrays = pair(fastopt.Adam, params, **options)
    for step in range(2):
        given = {"w": np.asfortranarray(draw((5, 3), seed=step)), "b": draw(7, seed=step)}
        here.step(given)
        there.step(foreign(given))
    assert_equal(params, arrays)
    assert here.nbytes == there.nbytes
    assert_alike(here, there)
    state = there.state[0]["exp_avg"]["w"]
    assert isinstance(state, DeviceArray)
    assert not state.flags.writeable
    assert_equal(state, here.state[0]["exp_avg"]["w"])
    here.load_state_dict(there.state_dict())
    there.load_state_dict(here.state_dict())
    plain = fastopt.Adam(foreign(params), lr=0.1)
    plain.load_state_dict(there.state_dict())
    assert_equal(plain.state, there.state)
    for opt in (here, there):
        opt.load_state_dict(plain.state_dict())
    assert_alike(here, there)
    plain.load_state_dict(there.state_dict())
    there.param_groups[0]["state_dtype"] = "float32"
    assert_equal(plain.state[0]["exp_avg"]["b"], there.state[0]["exp_avg"]["b"])


@pytest.mark.parametrize("form", ["bfloat16", "float8"])
def test_state_that_is_stored_otherwise_from_now_on(form):
    here, there, *_ = pair(fastopt.SGD, {"w": draw((64, 64))}, momentum=0.9)
    values = draw((64, 64), seed=1)
    here.state[0]["momentum_buffer"]["w"][...] = values
    there.state[0]["momentum_buffer"]["w"].copy_to_device(values)
    saved = there.state_dict()
    saved["param_groups"][0]["state"]["momentum_buffer"][0] = device.asarray(values)
    for wanted in (form, None):
        for opt in (here, there):
            opt.param_groups[0]["state_dtype"] = wanted
        assert_equal(here.state, there.state)
        assert_alike(here, there)
        there.load_state_dict(saved)
        here.load_state_dict(saved)
        assert_alike(here, there)


@pytest.mark.parametrize("rest", [None, "float32", "split"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_parameters_of_half_precision(half, rest):
    if half == "float16" and rest == "split":
        pytest.skip("is refused")
    packs = [
        fastopt.pack([draw((3, 4)), draw(5, seed=1)], dtype=half, device=where) for where in ("cpu", "cuda")
    ]
    options = {"lr": 0.5, "momentum": 0.9, "master_weights": rest, "ema_decay": 0.5}
    here, there = (fastopt.SGD(pack, **options) for pack in packs)
    for step in range(2):
        values = draw(17, seed=5 + step).astype(packs[0].dtype)
        packs[0].flat_grads[...] = values
        packs[1].flat_grads.copy_to_device(values)
        here.step()
        there.step()
    assert_equal(packs[0].flat, packs[1].flat)
    assert_alike(here, there)
    kept = packs[1].flat.copy_to_host()
    with here.averaged_parameters(), there.averaged_parameters():
        assert_equal(packs[0].flat, packs[1].flat)
        assert not np.array_equal(kept, packs[1].flat.copy_to_host())
    assert_equal(kept, packs[1].flat)
    fresh = fastopt.SGD(fastopt.pack([draw((3, 4)), draw(5)], dtype=half, device="cuda"), **options)
    fresh.load_state_dict(here.state_dict(params=True))
    assert_alike(here, fresh)
    here.load_state_dict(there.state_dict(params=True))
    assert_alike(here, there)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
@pytest.mark.parametrize("packed", [False, True])
def test_copies_of_optimizers(copied, packed):
    params = fastopt.pack(tree(), device="cuda") if packed else foreign(tree())
    opt = fastopt.AdamW(params, lr=0.1)
    opt.step(foreign(grads(0)))
    other = copied(opt)
    assert_alike(opt, other)
    for each in (opt, other):
        each.step(foreign(grads(1)))
    assert_alike(opt, other)
    assert other.state[0]["exp_avg"]["w"].address != opt.state[0]["exp_avg"]["w"].address


def test_torch_goes_on_and_back():
    pytest.importorskip("torch")
    from fastopt.exchange import from_torch, to_torch

    here, there, *_ = pair(fastopt.AdamW, [draw((2, 3)), draw(3)], lr=0.1)
    there.step(foreign([draw((2, 3), seed=1), draw(3, seed=2)]))
    here.load_state_dict(from_torch(to_torch(there), here))
    assert_equal(here.state, there.state)
    there.load_state_dict(from_torch(to_torch(here), there))
    assert_equal(here.state, there.state)


def test_optax_goes_on_and_back():
    optax = pytest.importorskip("optax")
    from fastopt.exchange import from_optax, to_optax

    params = {"w": draw((2, 3)), "b": draw(3)}
    method = optax.adam(0.1)
    here, there, *_ = pair(fastopt.Adam, params, lr=0.1)
    there.step(foreign({"w": draw((2, 3), seed=1), "b": draw(3, seed=2)}))
    here.load_state_dict(from_optax(to_optax(there, method.init(params)), here))
    assert_equal(here.state, there.state)
    there.load_state_dict(from_optax(to_optax(here, method.init(params)), there))
    assert_equal(here.state, there.state)


def test_what_is_carried_follows_the_rule():
    here, there, params, arrays = pair(fastopt.SGD, {"w": draw(5)}, lr=0.5, swa_start=1)
    kinds = []
    for step, cautious in enumerate((False, True, True, False)):
        for opt in (here, there):
            opt.param_groups[0]["cautious"] = cautious
        here.step({"w": draw(5, seed=step)})
        there.step({"w": Foreign(draw(5, seed=step))})
        kinds.append(type(there._leaves()[0].extra["n_averaged"]) is DeviceArray)
    assert kinds == [False, True, True, False]
    assert_equal(params, arrays)
    assert_alike(here, there)


def test_state_that_begins_with_a_number():
    here, there, *_ = pair(fastopt.Adagrad, tree(), lr=0.1, initial_accumulator_value=0.5)
    assert_equal(here.state, there.state)


# What else is done with the parameters.


def test_averages():
    here, there, params, arrays = pair(fastopt.SGD, tree(), lr=0.5, ema_decay=0.5, swa_start=1)
    for step in range(2):
        here.step(grads(step))
        there.step(foreign(grads(step)))
    for which in ("ema", "swa"):
        assert isinstance(there.averages(which)["w"], DeviceArray)
        assert_equal(here.averages(which), there.averages(which))
    before = host(arrays)
    with there.averaged_parameters("ema") as shown:
        assert shown is arrays
        assert_equal(arrays, here.averages("ema"))
    assert_equal(before, arrays)


def test_a_mean_that_has_not_begun():
    opt = fastopt.SGD({"w": Foreign(draw(3))}, lr=0.5, swa_start=3, cautious=True)
    opt.step({"w": Foreign(draw(3, seed=1))})
    assert opt.averages() == {"w": None}


@pytest.mark.parametrize("cls", [fastopt.ScheduleFreeSGD, fastopt.ScheduleFreeAdamW])
def test_schedule_free(cls):
    here, there, params, arrays = pair(cls, tree(), lr=0.5)
    for step in range(2):
        here.step(grads(step))
        there.step(foreign(grads(step)))
    for opt in (here, there):
        opt.eval()
    assert_equal(params, arrays)
    for opt in (here, there):
        opt.train()
    assert_equal(params, arrays)


def test_lookahead_of_nag():
    here, there, params, arrays = pair(fastopt.NAG, tree(), lr=0.5, momentum=0.9)
    for step in range(3):
        with here.lookahead(), there.lookahead():
            assert_equal(params, arrays)
        here.step(grads(step))
        there.step(foreign(grads(step)))
    assert_equal(params, arrays)


@pytest.mark.parametrize("packed", [False, True])
def test_accumulation(packed):
    options = {"lr": 0.5, "momentum": 0.9, "accumulate": 2}
    params = tree()
    here = fastopt.SGD(fastopt.pack(params) if packed else copy.deepcopy(params), **options)
    there = fastopt.SGD(fastopt.pack(params, device="cuda") if packed else foreign(params), **options)
    for step in range(3):
        given = grads(step) | ({"b": None} if step == 1 else {})
        here.step(given)
        there.step(foreign(given))
    assert_alike(here, there)
    saved = there.state_dict()
    sums = saved["options"]["accumulated"]["sums"]
    assert all(type(array) is np.ndarray for array in sums.values())
    assert_equal(sums, here.state_dict()["options"]["accumulated"]["sums"])
    here.load_state_dict(saved)
    there.load_state_dict(here.state_dict())
    here.step(grads(3))
    there.step(foreign(grads(3)))
    assert_alike(here, there)
    if packed:
        with pytest.raises(
            ValueError, match=r"^grads\['w'\] is the pack's gradient, in which the sum is kept"
        ):
            there.step(there.param_groups[0]["params"].grads)


def test_accumulation_of_half_precision():
    here, there, params, arrays = pair(
        fastopt.SGD, {"w": draw((3, 4))}, lr=0.5, accumulate=2, zero_grads=True
    )
    for step in range(4):
        given = draw((3, 4), ml_dtypes.bfloat16, seed=step)
        here.step({"w": given.copy()})
        there.step({"w": device.asarray(given)})
    assert_equal(params, arrays)


# Streams.


@pytest.fixture
def streams(monkeypatch):
    """Return the list of the streams on which kernels are launched."""
    found = []

    def run(*arguments):
        found.append(cuda.current_stream())
        return launched(*arguments)

    launched = cuda.run
    monkeypatch.setattr(cuda, "run", run)
    return found


def only(found):
    """Return the sole stream that was used since the last time."""
    (one,) = set(found)
    found.clear()
    return one


def test_the_stream_is_that_of_the_gradients(streams):
    w, g = Foreign(draw(3), stream=5), Foreign(draw(3), stream=6)
    opt = fastopt.SGD({"w": w}, lr=0.5, ema_decay=0.5)
    streams.clear()
    opt.step({"w": g})
    assert only(streams) == 6
    g.changed["stream"] = 7  # asked anew at each step
    opt.step({"w": g})
    assert only(streams) == 7
    g.changed["stream"] = None
    opt.step({"w": g})
    assert only(streams) == 5
    with opt.averaged_parameters():
        assert only(streams) == 5
        w.changed["stream"] = 8
    assert only(streams) == 8
    assert cuda.current_stream() == 0


def test_the_stream_is_that_around_the_step_where_arrays_have_none(streams):
    pack = fastopt.pack([draw(3)], device="cuda")
    opt = fastopt.SGD(pack, lr=0.5)
    streams.clear()
    with device.on_stream(9):
        opt.step()
    assert only(streams) == 9
    opt.step()
    assert only(streams) == 0
    with device.on_stream(9):
        opt.zero_grad()
    assert only(streams) == 9


def test_what_the_host_asks_for_is_in_the_order_of_the_stream(monkeypatch):
    found = []

    def to_host(*arguments):
        found.append(cuda.current_stream())
        return copied(*arguments)

    copied = cuda.to_host
    monkeypatch.setattr(cuda, "to_host", to_host)
    w = Foreign(draw(3), stream=5)
    opt = fastopt.NAdam([w], max_grad_norm=math.inf, skip_nonfinite=True)
    opt.step([Foreign(draw(3), stream=5)])
    assert opt.grad_norm > 0.0
    assert only(found) == 5
    saved = opt.state_dict()
    assert only(found) == 5
    opt.step([Foreign(draw(3), stream=5)])
    opt.load_state_dict(saved)
    assert only(found) == 5
    opt.step([Foreign(draw(3), stream=5)])
    opt.add_param_group({"params": Foreign(draw(2))})
    assert set(found) <= {5}


def test_steps_on_another_thread_are_on_the_stream_of_this_one(streams):
    w, g = Foreign(draw(3)), Foreign(draw(3), stream=6)
    opt = fastopt.SGD([w], lr=0.5)
    streams.clear()
    pending = opt.step_async([g])
    g.changed["stream"] = 7
    pending.wait()
    assert only(streams) == 6
    opt.step([g])
    assert only(streams) == 7
    with pytest.raises(TypeError, match="^grads must be a list or tuple of 1"):
        opt.step_async({"w": g}).wait()
