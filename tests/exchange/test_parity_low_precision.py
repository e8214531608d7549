"""State in fewer bytes goes to other libraries, and comes from them, as numbers."""

import numpy as np
import pytest

import fastopt
from fastopt.exchange import from_torch, to_torch

torch = pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")

from fastopt.adapters import torch as adapters  # noqa: E402

each_form = pytest.mark.parametrize("form", ["bfloat16", "float8"])


def trained(**options):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((70, 70)).astype(np.float32)
    opt = fastopt.Adam(w, **options)
    for _ in range(2):
        opt.step(rng.standard_normal(w.shape).astype(np.float32))
    return w, opt


@pytest.mark.jit
@each_form
def test_torch_gets_float32(form):
    w, opt = trained(state_dtype=form)
    held = to_torch(opt)["state"][0]
    for name, array in opt.state[0].items():
        np.testing.assert_array_equal(held[name].numpy(), array)
    theirs = torch.optim.Adam([torch.from_numpy(w.copy())])
    theirs.load_state_dict(to_torch(opt))


@pytest.mark.jit
@each_form
def test_what_comes_from_torch_is_rounded_to_nearest(form):
    w, plain = trained()
    opt = fastopt.Adam(w.copy(), state_dtype=form)
    opt.load_state_dict(from_torch(to_torch(plain), opt))
    other = fastopt.Adam(w.copy(), state_dtype=form)
    other.load_state_dict(plain.state_dict())
    for name, array in opt.state[0].items():
        np.testing.assert_array_equal(array, other.state[0][name])


@pytest.mark.jit
def test_a_copy_in_float32_stays():
    w = np.ones((4, 4), np.float16)
    opt = fastopt.Adam(w, master_weights="float32")
    opt.step(np.ones((4, 4), np.float16))
    before = opt.state[0]["master_weights"].copy()
    opt.load_state_dict(from_torch(to_torch(opt), opt))
    np.testing.assert_array_equal(opt.state[0]["master_weights"], before)


@each_form
def test_the_state_of_torchs_own_optimizers_is_float32(form):
    message = "cannot have state_dtype=.*: torch's state is tensors that can be written to"
    with pytest.raises(ValueError, match=message):
        adapters.Adam([torch.ones(70, 70)], state_dtype=form)
    adapters.Adam([torch.ones(70, 70)], state_dtype="float32")
