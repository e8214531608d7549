"""Arrays of other libraries as parameters and gradients: stand-ins that have their protocols, and no more."""

import copy
import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt
from fastopt.engine import cuda
from fastopt.foreign import as_numpy

F = np.float32
MISSING = "params must be a NumPy array of float32 or float64 (or float16, bfloat16), got "


class Interface:
    """Memory of its own, shown by ``__array_interface__``."""

    def __init__(self, array, readonly=False):
        self.memory = ctypes.create_string_buffer(array.tobytes(), array.nbytes)
        self.readonly = readonly
        self.shape, self.dtype = array.shape, array.dtype

    @property
    def __array_interface__(self):
        where = ctypes.addressof(self.memory), self.readonly
        return {"version": 3, "typestr": self.dtype.str, "shape": self.shape, "data": where}

    @property
    def values(self):
        return np.frombuffer(self.memory.raw, self.dtype).reshape(self.shape)


class Exchanged:
    """An array that is shown by DLPack only."""

    def __init__(self, array, device=(1, 0), says=None):
        self.values, self.device, self.says = array, device, says

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        if self.says is not None:
            raise self.says
        return self.values.__dlpack__(**options)


class OnCuda:
    __cuda_array_interface__ = {"version": 3, "typestr": "<f4", "shape": (3,), "data": (4096, False)}


KINDS = [Interface, Exchanged]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_and_gradients_without_a_copy(kind, dtype):
    rng = np.random.default_rng(0)
    start = {"w": rng.random((3, 4)).astype(dtype), "b": rng.random(4).astype(dtype)}
    plain = copy.deepcopy(start)
    params = {name: kind(array.copy()) for name, array in start.items()}
    opt, own = (fastopt.AdamW(tree, lr=0.1) for tree in (params, plain))
    for _ in range(3):
        grads = {name: rng.standard_normal(array.shape).astype(dtype) for name, array in start.items()}
        opt.step({name: kind(grad) for name, grad in grads.items()})
        own.step(grads)
    for name in start:
        assert np.array_equal(params[name].values, plain[name])
        assert not np.array_equal(plain[name], start[name])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_copy(kind):
    table, wanted = np.ones((5, 2), F), np.ones((5, 2), F)
    indices, values = np.array([3, 1]), np.array([[1, 2], [3, 4]], F)
    rows = fastopt.Rows(kind(indices), kind(values))
    opt, other = fastopt.SGD(table, lr=0.5, zero_grads=True), fastopt.SGD(wanted, lr=0.5)
    other.step(fastopt.Rows(indices, values.copy()))
    opt.step(rows)
    np.testing.assert_array_equal(table, wanted)
    assert not rows.values.any()
    with pytest.raises(
        TypeError, match="^values must be in the memory of the CPU, got OnCuda on a CUDA device"
    ):
        fastopt.Rows([0], OnCuda())


@pytest.mark.parametrize("kind", KINDS)
def test_one_array_whose_memory_is_filled_anew(kind):
    w, g = kind(np.zeros(3, F)), kind(np.zeros(3, F))
    opt = fastopt.SGD(w, lr=1.0)
    for k in range(1, 5):
        as_numpy(g, "g")[:] = k
        opt.step(g)
    assert w.values.tolist() == [-10, -10, -10]


def test_an_array_that_moves_its_memory_between_steps():
    w, g = np.zeros(2, F), Exchanged(np.ones(2, F))
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(g)
    g.values = np.full(2, 10, F)
    opt.step(g)
    assert w.tolist() == [-11, -11]


def test_strided_and_fortran_and_empty_and_0d_arrays():
    memory = np.zeros((4, 6), F)
    params = [memory[::2, ::3], memory[1::2, 1:3].T, np.zeros((0, 3), F), np.zeros((), F)]
    opt = fastopt.SGD([Exchanged(array) for array in params], lr=1.0)
    opt.step([Exchanged(np.full(array.shape, -k, F)) for k, array in enumerate(params, 1)])
    assert memory[::2, ::3].tolist() == [[1, 1], [1, 1]]
    assert memory[1::2, 1:3].tolist() == [[2, 2], [2, 2]]
    assert memory.sum() == 4 + 8
    assert params[3] == 4


def test_immutable_gradients():
    w = np.zeros(3, F)
    opt = fastopt.SGD(w, lr=1.0, max_grad_norm=1.0)
    opt.step(Interface(np.array([0, 3, 4], F), readonly=True))
    np.testing.assert_allclose(w, [0, -0.6, -0.8], rtol=1e-6)
    opt = fastopt.SGD(w, zero_grads=True)
    with pytest.raises(
        ValueError, match=r"^grads must be a writeable array: zero_grads=True sets it to zero$"
    ):
        opt.step(Interface(np.ones(3, F), readonly=True))


def test_gradients_that_are_set_to_zero_or_added_up():
    w, g = np.zeros(2, F), Interface(np.ones(2, F))
    fastopt.SGD(w, lr=1.0, zero_grads=True).step(g)
    assert (w.tolist(), g.values.tolist()) == ([-1, -1], [0, 0])
    g = Interface(np.full(2, np.inf, F))
    fastopt.SGD(w, lr=1.0, zero_grads=True, skip_nonfinite=True).step(g)
    assert (w.tolist(), g.values.tolist()) == ([-1, -1], [0, 0])
    opt = fastopt.SGD(w, lr=1.0, accumulate=2, zero_grads=True)
    g, h = Interface(np.full(2, 2, F)), Exchanged(np.full(2, 4, F))
    opt.step(g)
    opt.step(h)
    assert (w.tolist(), g.values.tolist(), h.values.tolist()) == ([-4, -4], [0, 0], [0, 0])


def test_an_array_that_cannot_be_read_in_place_is_set_to_zero_too():
    w, memory = np.zeros(2, F), np.ones((2, 2), F)
    fastopt.SGD(w, lr=1.0, zero_grads=True).step(Exchanged(memory[:, 0]))
    assert (w.tolist(), memory.tolist()) == ([-1, -1], [[0, 1], [0, 1]])


def test_lbfgs():
    params, plain = Interface(np.array([3.0, -2.0])), np.array([3.0, -2.0])
    scale = np.array([1.0, 10.0])

    def closure(w, kind):
        value = as_numpy(w, "w")
        return 0.5 * float(scale @ value**2), kind(scale * value)

    opt, own = fastopt.LBFGS(params), fastopt.LBFGS(plain)
    for _ in range(4):
        opt.step(closure=lambda: closure(params, Interface))
        own.step(closure=lambda: closure(plain, np.asarray))
    assert np.array_equal(params.values, plain)
    assert abs(plain).max() < 0.1


def test_a_pack_takes_immutable_ones():
    pack = fastopt.pack({"w": Interface(np.ones((2, 2), F), readonly=True), "b": Exchanged(np.zeros(2, F))})
    assert pack.params["w"].tolist() == [[1, 1], [1, 1]]
    pack.grads["w"][:] = 1
    fastopt.SGD(pack, lr=1.0).step()
    assert pack.flat.tolist() == [0] * 6


def test_a_frozen_parameter_may_be_immutable():
    params = {"a": Interface(np.ones(2, F), readonly=True), "b": Interface(np.ones(2, F))}
    opt = fastopt.SGD(params, lr=1.0, frozen="a")
    opt.step({"a": None, "b": Interface(np.ones(2, F))})
    assert params["a"].values.tolist() == [1, 1]
    assert params["b"].values.tolist() == [0, 0]


def test_copies_of_an_optimizer_have_their_own():
    params = [Exchanged(np.zeros(2, F))]
    opt = fastopt.AdamW(params, lr=0.5, weight_decay=0.0)
    opt.step([np.ones(2, F)])
    other = copy.deepcopy(opt)
    other.step([np.ones(2, F)])
    (copied,) = other.param_groups[0]["params"]
    np.testing.assert_allclose(params[0].values, [-0.5, -0.5], rtol=1e-6)
    np.testing.assert_allclose(copied.values, [-1.0, -1.0], rtol=1e-6)


def test_the_same_memory_twice():
    memory = np.zeros(4, F)
    with pytest.raises(ValueError, match=r"^params\[0\] and params\[1\] share memory; each"):
        fastopt.SGD([Exchanged(memory), Exchanged(memory[1:])])
    with pytest.raises(ValueError, match=r"^grads shares memory with a parameter; it must be apart$"):
        fastopt.SGD(memory).step(Exchanged(memory))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([Interface(np.ones(2, F), readonly=True)], ValueError,
         "params[0] must be writeable, got a read-only Interface: let NumPy have a copy, "
         "np.array(x), update that, and convert it back where it is used"),
        ({"w": Exchanged(np.ones(2, F), device=(2, 0))}, TypeError,
         "params['w'] cannot be seen as an array on a CUDA device, Exchanged says: "
         "'Exchanged' object has no attribute '__cuda_array_interface__'"),
        (Exchanged(np.ones(2, F), device=(99, 0)), TypeError,
         "params must be in the memory of the CPU, got Exchanged on a device of DLPack's kind 99: "
         "copy it to the CPU first"),
        (Exchanged(np.ones(2, F), says=BufferError("detach it")), TypeError,
         "params cannot be seen as a NumPy array, Exchanged says: detach it"),
        (Interface(np.ones(2, ">f4")), TypeError, MISSING + "an array of >f4"),
        (Exchanged(np.ones(2, np.int32)), TypeError, MISSING + "an array of int32"),
        (object(), TypeError, MISSING + "object"),
    ],
    ids=["immutable", "cuda by DLPack alone", "unknown device", "refused", "byte order", "dtype", "no array"],
)  # fmt: skip
def test_parameters_that_cannot_be_updated(params, error, message):
    with pytest.raises(error) as caught:
        fastopt.SGD(params)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (OnCuda(), TypeError,
         "grads['w'] is on a CUDA device, its parameter params['w'] in the memory of the CPU"),
        (Exchanged(np.ones(3)), TypeError, "grads['w'] must be of float32, like its parameter; got float64"),
        (Interface(np.ones(2, F)), ValueError, "grads['w'] must have its parameter's shape (3,), got (2,)"),
        (object(), TypeError,
         "grads['w'] must be an array of float32, or None where there is no gradient; got object"),
    ],
    ids=["cuda", "dtype", "shape", "no array"],
)  # fmt: skip
def test_gradients_that_do_not_fit(grad, error, message):
    w, b = np.ones(3, F), np.ones(2, F)
    opt = fastopt.SGD({"b": b, "w": w})
    with pytest.raises(error) as caught:
        opt.step({"b": np.ones(2, F), "w": grad})
    assert str(caught.value) == message
    assert (w.tolist(), b.tolist()) == ([1, 1, 1], [1, 1])  # nothing was written


def test_views_of_numpy_before_2_1(monkeypatch):
    """It made all views of DLPack read-only, so those of ``__array__`` are taken where they are views."""

    class Old(Exchanged):
        def __array__(self, dtype=None, copy=None):
            return self.shown

        def __dlpack__(self, **options):
            frozen = self.values.view()
            frozen.flags.writeable = False
            return frozen.__dlpack__(**options)

    monkeypatch.setattr("fastopt.foreign.ALL_READ_ONLY", True)
    w = Old(np.zeros(2, F))
    w.shown = w.values
    fastopt.SGD(w, lr=1.0).step(Exchanged(np.ones(2, F)))
    assert w.values.tolist() == [-1, -1]
    w.shown = w.values.copy()
    with pytest.raises(ValueError, match=r"^params must be writeable, got a read-only Old: "):
        fastopt.SGD(w)


def test_a_device_is_asked_before_its_interface():
    """Those of some libraries raise errors of their own on tensors that are elsewhere."""

    class Elsewhere:
        def __dlpack_device__(self):
            return (10, 0)

        def __dlpack__(self, **options):
            raise AssertionError

        @property
        def __cuda_array_interface__(self):
            raise AssertionError

    with pytest.raises(TypeError, match="got Elsewhere on a ROCm device"):
        as_numpy(Elsewhere(), "params")


def test_what_is_no_array_of_another_library_stays():
    for value in (None, 1.0, "x", [1.0], np.float32(2), np.ones(2), fastopt.Rows([0], np.ones((1, 2)))):
        assert as_numpy(value, "params") is value


def test_a_device_that_cannot_be_used(monkeypatch):
    package = SimpleNamespace(__name__="numba.cuda", is_available=lambda: False)
    monkeypatch.setattr(cuda, "_package", lambda: package)
    monkeypatch.setattr(cuda, "package", cuda.package.__wrapped__)
    for use in (lambda: fastopt.SGD(OnCuda()), lambda: fastopt.pack(np.ones(3), device="cuda")):
        with pytest.raises(RuntimeError, match="^no CUDA device can be used: numba.cuda finds no driver"):
            use()


def test_without_a_package_for_cuda(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(cuda.importlib, "import_module", missing)
    monkeypatch.setattr(cuda, "_package", cuda._package.__wrapped__)
    monkeypatch.setattr(cuda, "package", cuda.package.__wrapped__)
    with pytest.raises(ModuleNotFoundError, match=r'which is missing: pip install "fastopt\[cuda\]"$'):
        fastopt.pack(np.ones(3), device="cuda")
