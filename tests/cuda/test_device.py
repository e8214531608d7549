"""DeviceArray: what it has of an ndarray, and the arrays of other libraries that it shows."""

import copy
import pickle
import subprocess
import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from fastopt.engine import cuda, device
from fastopt.engine.device import DeviceArray
from fastopt.engine.memory import address, aligned_zeros, overlapping, self_overlapping, shares_memory
from tests.cuda.foreign import Foreign

F = np.float32
MATRIX = np.arange(6, dtype=F).reshape(2, 3)


def fortran():
    return device.asarray(np.asfortranarray(MATRIX))


@pytest.mark.parametrize(
    "values",
    [
        MATRIX,
        np.asfortranarray(MATRIX),
        MATRIX.T,
        np.arange(24.0).reshape(2, 3, 4)[:, ::2],
        np.array(5.0),
        np.zeros((0, 3), F),
        np.arange(5, dtype=np.float16),
        np.arange(5).astype(ml_dtypes.bfloat16),
        np.arange(300, dtype=np.uint8),
    ],
    ids=["C", "F", "transposed", "strided", "0-d", "empty", "float16", "bfloat16", "bytes"],
)
def test_there_and_back(values):
    array = device.asarray(values)
    back = array.copy_to_host()
    assert (back.dtype, back.shape) == (array.dtype, array.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(back, values)
    assert (array.size, array.ndim, array.nbytes) == (values.size, values.ndim, values.nbytes)
    assert array.itemsize == values.itemsize
    assert array.address % 256 == 0


@pytest.mark.parametrize(
    ("array", "order", "c", "f"),
    [
        (MATRIX, "C", True, False),
        (MATRIX.T, "F", False, True),
        (MATRIX[:1], "C", True, True),
        (np.zeros((0, 3), F), "C", True, True),
        (np.zeros(()), "C", True, True),
    ],
    ids=["C", "F", "a row", "empty", "0-d"],
)
def test_the_order(array, order, c, f):
    there = device.asarray(array)
    flags = there.flags
    assert (there.order, flags.c_contiguous, flags.f_contiguous, flags.forc) == (order, c, f, True)
    assert (flags.aligned, flags.writeable, flags.carray) == (True, True, c)
    flags.writeable = False
    assert not flags.carray
    assert not there[:0].flags.writeable if order == "C" and array.ndim else True


def test_other_shapes_are_views():
    array = device.asarray(MATRIX)
    flat = array.reshape(-1)
    assert (flat.shape, flat.address, flat.owner) == ((6,), array.address, array.owner)
    np.testing.assert_array_equal(array.reshape((3, -1)).copy_to_host(), MATRIX.reshape(3, -1))
    np.testing.assert_array_equal(
        flat.reshape((2, 3), order="F").copy_to_host(), MATRIX.reshape(-1).reshape(2, 3, order="F")
    )
    f = fortran()
    np.testing.assert_array_equal(f.reshape(-1, order="F").copy_to_host(), MATRIX.reshape(-1, order="F"))
    np.testing.assert_array_equal(f.reshape(-1, "A").copy_to_host(), MATRIX.reshape(-1, order="F"))
    assert f.reshape(6, "F").order == "C"
    assert device.zeros(0, F).reshape((-1, 0)).shape == (0, 0)


def test_shapes_that_it_does_not_have():
    with pytest.raises(ValueError, match=r"^an array of the shape \(2, 3\) has no shape \(4,\)$"):
        device.asarray(MATRIX).reshape(4)
    with pytest.raises(ValueError, match=r"^an array of the shape \(2, 3\) has no shape \(4, 1\)$"):
        device.asarray(MATRIX).reshape((4, -1))
    with pytest.raises(
        ValueError, match="^an array in F order on a CUDA device is not copied to one in C order$"
    ):
        fortran().reshape(-1)


def test_other_dtypes_are_views():
    array = device.asarray(np.array([1.0, -2.0], ml_dtypes.bfloat16))
    bits = array.view(np.uint16)
    np.testing.assert_array_equal(bits.copy_to_host(), [0x3F80, 0xC000])
    assert bits.address == array.address
    with pytest.raises(ValueError, match="^a view of bfloat16 must be of a dtype of its size, got float32$"):
        array.view(F)


def test_slices():
    array = device.asarray(MATRIX)
    np.testing.assert_array_equal(array[1:].copy_to_host(), MATRIX[1:])
    np.testing.assert_array_equal(array[:-1].copy_to_host(), MATRIX[:-1])
    flat = array.reshape(-1)
    np.testing.assert_array_equal(flat[2:5:1].copy_to_host(), MATRIX.reshape(-1)[2:5])
    assert flat[4:2].shape == (0,)
    assert device.zeros((0, 3), F)[:5].shape == (0, 3)
    for bad, key in [
        (array, 0),
        (flat, slice(None, None, 2)),
        (fortran(), slice(1)),
        (device.asarray(1.0), slice(1)),
    ]:
        with pytest.raises(TypeError, match="has slices of step 1 of the first axis, in C order; got "):
            bad[key]


def test_filling():
    array = device.asarray(MATRIX)
    array[1:].fill(0)
    np.testing.assert_array_equal(array.copy_to_host(), [[0, 1, 2], [0, 0, 0]])
    array.fill(-0.0)
    assert np.signbit(array.copy_to_host()).all()
    array.fill(1.5)
    assert (array.copy_to_host() == 1.5).all()
    half = device.zeros(3, ml_dtypes.bfloat16)
    half.fill(1.5)
    assert (half.copy_to_host() == 1.5).all()


def test_what_is_read_only_is_not_written():
    array = device.asarray(MATRIX)
    array.flags.writeable = False
    for write in (lambda: array.fill(0), lambda: array.fill(1), lambda: array.copy_to_device(MATRIX)):
        with pytest.raises(
            ValueError, match=r"^<DeviceArray of float32, shape \(2, 3\), on a CUDA device> is read-only$"
        ):
            write()
    np.testing.assert_array_equal(array.copy_to_host(), MATRIX)


@pytest.mark.parametrize("make", [lambda: device.asarray(MATRIX), fortran], ids=["C", "F"])
def test_copies(make):
    array = make()
    other = array.copy()
    assert other.order == array.order
    array.fill(0)
    np.testing.assert_array_equal(other.copy_to_host(), MATRIX)


def test_copying_to_it():
    array = device.zeros((2, 3), F)
    array.copy_to_device(MATRIX.astype(np.float64))
    np.testing.assert_array_equal(array.copy_to_host(), MATRIX)
    array.copy_to_device([1, 2, 3])
    np.testing.assert_array_equal(array.copy_to_host(), [[1, 2, 3]] * 2)
    array.copy_to_device(fortran())  # of another order
    np.testing.assert_array_equal(array.copy_to_host(), MATRIX)
    array.copy_to_device(device.asarray(2 * MATRIX))
    np.testing.assert_array_equal(array.copy_to_host(), 2 * MATRIX)
    array.copy_to_device(device.asarray(np.float64(7.0)))  # of another dtype and shape
    np.testing.assert_array_equal(array.copy_to_host(), np.full((2, 3), 7))
    with pytest.raises(TypeError, match="Cannot cast"):
        array.copy_to_device(MATRIX.astype(complex))
    with pytest.raises(ValueError, match="could not broadcast"):
        array.copy_to_device(MATRIX.T)
    device.zeros(0, F).copy_to_device(MATRIX[:0, 0])


def test_copies_between_places():
    there, here = device.zeros((2, 3), F), np.zeros((2, 3), F)
    device.copyto(there, MATRIX)
    device.copyto(here, there)
    np.testing.assert_array_equal(here, MATRIX)
    other = np.zeros((2, 3), np.int64)
    device.copyto(other, there, casting="unsafe")
    device.copyto(here, 2 * other, casting="unsafe")
    np.testing.assert_array_equal(here, 2 * MATRIX)
    with pytest.raises(TypeError, match="Cannot cast"):
        device.copyto(other, there)


def test_numpy_has_copies():
    array = fortran()
    np.testing.assert_array_equal(np.asarray(array), MATRIX)
    assert np.asarray(array, np.float64).dtype == np.float64
    assert np.array(array, order="C").flags.c_contiguous
    with pytest.raises(
        ValueError, match="^NumPy reads an array on a CUDA device as a copy only, and copy=False"
    ):
        np.asarray(array, copy=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda array: pickle.loads(pickle.dumps(array))])
def test_pickles_go_back_to_the_device(copied):
    array = fortran()
    array.flags.writeable = False
    other = copied(array)
    assert isinstance(other, DeviceArray)
    assert other.address != array.address
    assert (other.order, other.flags.writeable) == ("F", False)
    np.testing.assert_array_equal(other.copy_to_host(), MATRIX)


def test_its_text_and_length():
    assert repr(device.asarray(MATRIX)) == "<DeviceArray of float32, shape (2, 3), on a CUDA device>"
    assert len(device.asarray(MATRIX)) == 2
    with pytest.raises(TypeError, match="unsized"):
        len(device.asarray(1.0))
    assert device.is_on_device(device.asarray(1.0))
    assert not device.is_on_device(MATRIX)


def test_how_others_see_it():
    array = device.asarray(MATRIX)
    shown = array.__cuda_array_interface__
    data = array.address, False
    assert shown == {
        "version": 3,
        "shape": (2, 3),
        "typestr": "<f4",
        "data": data,
        "strides": None,
        "stream": 1,
    }
    f = fortran()
    f.flags.writeable = False
    with cuda.on_stream(7):
        shown = f.__cuda_array_interface__
    assert (shown["strides"], shown["stream"], shown["data"][1]) == ((4, 8), 7, True)


# Arrays of other libraries.


def test_it_shows_the_memory_of_others():
    theirs = Foreign(MATRIX)
    array = device.of(theirs, "x")
    assert (array.address, array.owner) == (theirs.memory.address, theirs)
    array.fill(0)
    assert not theirs.get().any()
    assert device.of(array, "x") is array
    assert not device.of(Foreign(MATRIX, data=(theirs.memory.address, True)), "x").flags.writeable


@pytest.mark.parametrize(
    ("shape", "strides", "order"),
    [
        ((2, 3), None, "C"),
        ((2, 3), (12, 4), "C"),
        ((2, 3), (4, 8), "F"),
        ((2, 1, 3), (12, 999, 4), "C"),
        ((1, 6), (999, 4), "C"),
        ((0, 6), (0, 0), "C"),
        ((), (), "C"),
    ],
)
def test_strides(shape, strides, order):
    assert device.of(Foreign(np.zeros(6, F), shape=shape, strides=strides), "x").order == order


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"strides": (24, 4)}, ValueError,
         "x must be contiguous, in C or Fortran order, because it is on a CUDA device; got strides (24, 4) for "
         "the shape (2, 3) of float32"),
        ({"strides": (0, 4)}, ValueError,
         "x must be contiguous, in C or Fortran order, because it is on a CUDA device; got strides (0, 4) for "
         "the shape (2, 3) of float32"),
        ({"data": (4097, False)}, ValueError, "x must be aligned: 0x1001 is no multiple of 4 bytes"),
        ({"typestr": "nonsense"}, TypeError,
         "x cannot be seen as an array on a CUDA device, Foreign says: data type 'nonsense' not understood"),
        ({"shape": None}, TypeError,
         "x cannot be seen as an array on a CUDA device, Foreign says: 'NoneType' object is not iterable"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_shown(changed, error, message):
    with pytest.raises(error) as caught:
        device.of(Foreign(MATRIX, **changed), "x")
    assert str(caught.value) == message


def test_a_library_that_refuses():
    class Refusing:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("detach it")

    with pytest.raises(
        TypeError, match="^x cannot be seen as an array on a CUDA device, Refusing says: detach it$"
    ):
        device.of(Refusing(), "x")


# Streams.


def test_the_stream_of_the_caller():
    arrays = [
        None,
        MATRIX,
        device.asarray(MATRIX),
        Foreign(MATRIX),
        Foreign(MATRIX, stream=7),
        Foreign(MATRIX, stream=8),
    ]
    assert device.stream_of(arrays) == 7
    assert device.stream_of(arrays[:4]) == 0
    with device.on_stream(9):
        assert device.stream_of(arrays[:4]) == 9
        assert device.stream_of(arrays) == 7
    assert device.stream_of([]) == 0


def test_the_stream_of_torch(monkeypatch):
    class Tensor:
        def __init__(self, device):
            self.device, self.is_cuda = device, device is not None

    current = {"cuda:0": SimpleNamespace(cuda_stream=11), "cuda:1": SimpleNamespace(cuda_stream=12)}
    torch = SimpleNamespace(Tensor=Tensor, cuda=SimpleNamespace(current_stream=current.get))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert device.stream_of([Tensor(None), Tensor("cuda:1"), Tensor("cuda:0")]) == 12
    assert device.stream_of([Tensor(None)]) == 0


# What the rest of the engine knows of memory.


def test_shared_memory():
    array = device.zeros(10, F)
    assert address(array[3:]) == array.address + 12
    assert overlapping([array[:5], array[5:]]) is None
    assert overlapping([array[5:], array[:6]]) == (0, 1)
    assert shares_memory(array, array[3:4])
    assert not shares_memory(array[:3], array[3:])
    assert not self_overlapping(array)
    new = aligned_zeros(5, np.float64, like=array)
    assert isinstance(new, DeviceArray)
    assert (new.shape, new.dtype) == ((5,), np.float64)
    assert not new.copy_to_host().any()


def test_importing_it_imports_no_package_for_cuda():
    code = (
        "import sys, fastopt, fastopt.engine.device as d; x = d.DeviceArray(None, 4096, (2,), 'f4'); x[1:].reshape(1);"
        "print([name for name in sys.modules if name.startswith(('numba.cuda', 'numba_cuda'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
