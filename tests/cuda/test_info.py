"""What the command ``info`` says where there is a device."""

from fastopt import info
from fastopt.engine import cuda


def test_devices_are_named():
    found = info.cuda()
    assert found["package"] == cuda.distribution() is not None
    assert found["version"] == info._version(found["package"])
    assert found["error"] is None
    device = found["devices"][cuda.device_number()]
    assert tuple(map(int, device["compute_capability"].split("."))) >= (5, 0)
    assert f"{device['name']} (compute capability {device['compute_capability']})" in info._cuda_text(found)
    assert not cuda.SIMULATED or device["name"] == "Numba's simulator"
