"""Without torch: what its adapter says then. All else about it is in the files that compare with torch."""

import sys

import numpy as np
import pytest

import fastopt.adapters.torch
from fastopt.adapters._torch_core import host


def test_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    host.cache_clear()
    fastopt.adapters.torch.adapt.cache_clear()
    with pytest.raises(
        ImportError, match=r"needs torch, which is not installed: pip install \"fastopt\[torch\]\""
    ):
        getattr(fastopt.adapters.torch, "AdamW")  # noqa: B009


def test_names():
    assert set(fastopt.algorithms.__all__) < set(dir(fastopt.adapters.torch))
    with pytest.raises(AttributeError, match="has no attribute 'Adamm'"):
        getattr(fastopt.adapters.torch, "Adamm")  # noqa: B009


def test_adapt_wants_a_class_of_optimizers():
    for wrong in (int, fastopt.Adam(np.ones(1)), "Adam"):
        with pytest.raises(TypeError, match="algorithm must be a subclass of fastopt.Optimizer, got"):
            fastopt.adapters.torch.adapt(wrong)
