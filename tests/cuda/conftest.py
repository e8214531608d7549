"""Tests of what runs on a CUDA device: on one, or in Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``)."""

import functools
import sys

import pytest

from fastopt.engine import Batch, cuda
from fastopt.engine.device import DeviceArray

if cuda.SIMULATED:  # it looks at its threads in a busy loop, which would keep them waiting for 5 ms each time
    sys.setswitchinterval(1e-4)

#: What needs no device.
ANYWHERE = {"test_ptx.py"}


@functools.cache
def missing():
    """Return why nothing can run, or None."""
    try:
        cuda.package()
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


class LeftOut(pytest.Module):
    """A module that needs a device where there is none; it is said once, not of each test."""

    def collect(self):
        pytest.skip(missing())


def pytest_pycollect_makemodule(module_path, parent):
    if module_path.name not in ANYWHERE and missing():
        return LeftOut.from_parent(parent, path=module_path)
    return None


@pytest.fixture(autouse=True)
def not_in_the_simulator(request):
    if cuda.SIMULATED and request.node.get_closest_marker("gpu"):
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def no_kernels_of_the_host(monkeypatch):
    """Fail where a kernel of the CPU is run on memory of the device: in the simulator it would work."""

    def run(batch):
        for param, grad, state, _ in getattr(batch, "_alive", ()):
            assert not any(isinstance(array, DeviceArray) for array in (param, grad, *state))
        launched(batch)

    launched = Batch.run
    monkeypatch.setattr(Batch, "run", run)
