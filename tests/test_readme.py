"""The README is run, and its tables are those that its command writes."""

import re
import sys
from subprocess import run

import pytest

import fastopt
from tests.processes import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.jit
def test_the_code_runs_as_it_stands():
    # What needs torch, optax or JAX runs beside the other comparisons: tests/exchange/test_parity_readme.py.
    shown = re.sub(r"(?s)\n## Moving from and to torch and optax\n.*?(?=\n## |\Z)", "", README)
    shown = re.sub(r"(?s)\n### (?:PyTorch|JAX, and other arrays)\n.*?(?=\n##)", "", shown)
    # And that of the GPU where there is one: tests/cuda/test_readme.py.
    shown = re.sub(r"(?s)\n## On the GPU\n.*?(?=\n## )", "", shown)
    blocks = re.findall(r"```python\n(.*?)```", shown, flags=re.S)
    assert len(blocks) >= 22
    names: dict[str, object] = {}
    for block in blocks:  # one after the other, as a reader would type them
        exec(compile(block, "README.md", "exec"), names)


def test_the_tables_are_in_date():
    """Of the algorithms, from the classes; of what was measured, from the results."""
    done = run(
        [sys.executable, "bench/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in fastopt.algorithms.__all__:
        assert f"| `{name}` |" in README


def test_every_schedule_is_in_the_table():
    for name in set(fastopt.schedules.__all__) - {"Schedule"}:
        assert f"| `{name}(" in README
