"""What the README shows of other libraries runs as it stands, where they are installed."""

import os
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fastopt
from tests.processes import ROOT

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # do not look for accelerators, nor warn that there are none
pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")
pytest.importorskip("optax", reason="optax is not installed: pip install fastopt[parity]")


def test_the_section_on_torch_and_optax_runs():
    section = (
        (ROOT / "README.md").read_text().split("## Moving from and to torch and optax")[1].split("\n## ")[0]
    )
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    assert len(blocks) == 4
    names = {"fastopt": fastopt, "np": np}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    for name, tensor in names["model"].named_parameters():
        assert names["theirs"].state[tensor]["step"] == 3, name
    np.testing.assert_array_equal(names["params"]["w"], names["arrays"]["w"])


@pytest.mark.parametrize("host", ["PyTorch", "JAX, and other arrays"])
def test_the_blocks_of_hosts_run(host):
    section = (ROOT / "README.md").read_text().split(f"### {host}\n")[1].split("\n##")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    x, y = load_digits(return_X_y=True)  # as in the blocks before
    x, y = (x / 16).astype(np.float32), np.eye(10, dtype=np.float32)[y]
    exec(compile(block, "README.md", "exec"), {"fastopt": fastopt, "np": np, "x": x, "y": y})
