"""The README's section on the GPU runs as it stands: in the simulator, what needs no other library."""

import re

import pytest

import fastopt
from tests.processes import ROOT

SECTION = (ROOT / "README.md").read_text().split("\n## On the GPU\n")[1].split("\n## ")[0]
PACK, CUPY, *TORCH = re.findall(r"```python\n(.*?)```", SECTION, flags=re.S)


def run(*blocks, **names):
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_a_pack():
    names = run(PACK)
    assert names["opt"].step_count == 1
    assert names["params"]["w"].all()


@pytest.mark.gpu
def test_cupy():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    assert run(PACK, CUPY)["opt"].step_count == 100


@pytest.mark.gpu
def test_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    assert len(TORCH) == 3
    assert run(*TORCH, fastopt=fastopt)["opt"].fastopt.step_count == 201
