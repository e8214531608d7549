"""A model whose state is stored in fewer bytes, and what that state must be."""

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import draw

LOW = ["bfloat16", "float8"]
each_form = pytest.mark.parametrize("form", LOW)
SHAPE = (61, 83)  # not a whole number of blocks


def model(seed=0):
    rng = np.random.default_rng(seed)
    return {"w": draw(rng, SHAPE, "float32"), "b": draw(rng, 83, "float32")}


def gradients(count, seed=1):
    rng = np.random.default_rng(seed)
    return [{"w": draw(rng, SHAPE, "float32"), "b": draw(rng, 83, "float32")} for _ in range(count)]


def stored(opt):
    """Return the formats of each array's state, by name."""
    return [{name: form.name for name, form in leaf.formats.items()} for leaf in opt._leaves()]


def assert_near(got, want, form):
    """Raise an AssertionError unless each number is one of the two between which the exact one lies."""
    if form == "bfloat16":
        mine, exact = got.view(np.uint32) >> 16, want.view(np.uint32) >> 16
        assert not (got.view(np.uint32) & 0xFFFF).any()
        assert (((mine == exact) | (mine == exact + 1)) | (want == 0) & (got == 0)).all()
        return
    flat, exact = got.ravel(), want.ravel()  # in order C, as the blocks are
    greatest = np.repeat([np.abs(exact[i : i + 256]).max() for i in range(0, exact.size, 256)], 256)
    assert (np.abs(flat - exact) <= np.abs(exact) / 8 + greatest[: exact.size] / 2**13).all()
    assert (flat[exact == 0] == 0).all()


def trained(count=3, packed=False, groups=False, **options):
    params = model()
    if packed:
        given = fastopt.pack(params)
        params = given.params
    elif groups:
        given = [{"params": {name: array}} for name, array in params.items()]
    else:
        given = params
    opt = fastopt.AdamW(given, **options)
    for grads in gradients(count):
        opt.step([{name: array} for name, array in grads.items()] if groups else grads)
    return params, opt
