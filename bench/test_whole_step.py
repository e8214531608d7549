"""The whole step, by fastopt and by torch: ``pytest bench/test_whole_step.py``; at full size, the script."""

from __future__ import annotations

import pytest
import whole_step
from contestants import torch_or_none

MANY = [(1000,)] * (10 if whole_step.SMOKE else 1000)


@pytest.mark.parametrize("kind", whole_step.KINDS)
@pytest.mark.parametrize("by", ["fastopt", "torch"])
def test_whole_step(benchmark, by, kind):
    torch = torch_or_none()
    if by == "torch" and torch is None:
        pytest.skip("torch is not installed")
    params, grads = whole_step.start(MANY)
    make = whole_step.by_fastopt if by == "fastopt" else lambda *given: whole_step.by_torch(torch, *given)
    step, updated = make(kind, params, grads)
    step()
    whole_step.check(by, kind, params, grads, updated)
    benchmark(step)
