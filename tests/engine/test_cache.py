"""The compile cache: hits, stale entries, races, and places where nothing can be written."""

import shutil
import textwrap
from pathlib import Path

import pytest

from tests.processes import ROOT, run, start

pytestmark = pytest.mark.jit

STEP = """
    import sys; import numpy as np, fastopt
    from fastopt.engine.kernel import compile_launch
    name, dtype = sys.argv[1:3]
    w = np.linspace(-1, 1, 1001).astype(dtype)
    opt = getattr(fastopt, name)(w, lr=0.1)
    grad = np.cos(np.arange(1001)).astype(dtype)
    for _ in range(3):
        opt.step(grad)
    (rule,) = [leaf.rule for group in opt._groups for leaf in group.leaves]
    launch = compile_launch(rule, np.dtype(dtype))
    hits = sum(launch.stats.cache_hits.values())
    print("hit" if hits else "compiled", w.sum(dtype="f8").hex())
"""


def kernels(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*.nbi"))


def test_second_process_compiles_nothing(tmp_path):
    first = run(STEP, tmp_path, "AdamW", "float32").split()
    second = run(STEP, tmp_path, "AdamW", "float32").split()
    assert first[0] == "compiled"
    assert second == ["hit", first[1]]


def test_each_rule_and_dtype_has_a_name_of_its_own(tmp_path):
    for dtype in ("float32", "float64"):
        run(STEP, tmp_path, "SGD", dtype)
    names = kernels(tmp_path)
    assert len(names) == 2
    assert names[0] != names[1]


def test_result_is_the_same_without_a_cache(tmp_path):
    with_cache = run(STEP, tmp_path, "Adam", "float32").split()
    run(STEP, tmp_path, "Adam", "float32")
    without = run(STEP, tmp_path / "..", "Adam", "float32", FASTOPT_CACHE="0").split()
    assert without == ["compiled", with_cache[1]]


def test_variable_switches_the_cache_off(tmp_path):
    run(STEP, tmp_path, "SGD", "float32", FASTOPT_CACHE="0")
    assert kernels(tmp_path) == []


RULE = """
    from fastopt import Optimizer, Rule
    from helper import direction
    def follow(p, g, lr):
        return p {sign} lr * direction(g)
    class Follow(Optimizer):
        rule = Rule(follow)
        defaults = {{"lr": 1.0}}
"""
HELPER = """
    from numba.extending import register_jitable
    @register_jitable
    def direction(g):
        return {direction}
"""
FOLLOW = """
    import sys; sys.path.insert(0, "."); sys.dont_write_bytecode = True
    import numpy as np, mine
    w = np.zeros(2)
    mine.Follow(w).step(np.array([3.0, -4.0]))
    print(w)
"""


def test_an_edited_rule_is_noticed(tmp_path):
    def write(sign: str, direction: str) -> None:
        (tmp_path / "mine.py").write_text(textwrap.dedent(RULE.format(sign=sign)))
        (tmp_path / "helper.py").write_text(textwrap.dedent(HELPER.format(direction=direction)))

    write("-", "g")
    assert run(FOLLOW, tmp_path) == "[-3.  4.]"
    write("+", "g")  # as many bytes, and within the same second
    assert run(FOLLOW, tmp_path) == "[ 3. -4.]"
    write("+", "g * g")  # a function that the rule calls, in another file
    assert run(FOLLOW, tmp_path) == "[ 9. 16.]"
    assert len(kernels(tmp_path)) == 3


@pytest.mark.slow
def test_eight_processes_on_an_empty_cache(tmp_path):
    pairs = [
        (name, dtype) for name in ("SGD", "Adam", "AdamW", "RMSprop") for dtype in ("float32", "float64")
    ]
    expected = {pair: run(STEP, tmp_path / "..", *pair, FASTOPT_CACHE="0").split()[1] for pair in pairs}
    for attempt in range(3):
        cache = tmp_path / str(attempt)
        cache.mkdir()
        processes = {pair: start(STEP, cache, *pair) for pair in pairs}
        for pair, process in processes.items():
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            assert out.split()[1] == expected[pair]
        for pair in pairs:  # and what they left behind is right
            assert run(STEP, cache, *pair).split() == ["hit", expected[pair]]


@pytest.mark.slow
def test_eight_processes_with_one_algorithm(tmp_path):
    expected = run(STEP, tmp_path / "..", "AdamW", "float32", FASTOPT_CACHE="0").split()[1]
    processes = [start(STEP, tmp_path, "AdamW", "float32") for _ in range(8)]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.split()[1] == expected
    assert run(STEP, tmp_path, "AdamW", "float32").split() == ["hit", expected]


def test_damaged_cache_only_costs_time(tmp_path):
    good = run(STEP, tmp_path, "SGD", "float64").split()[1]
    for path in [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]:
        path.write_bytes(path.read_bytes()[:40])
    assert run(STEP, tmp_path, "SGD", "float64").split()[1] == good


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_read_only_installation_without_home(tmp_path, name):
    site = tmp_path / "site"
    shutil.copytree(ROOT / "fastopt", site / "fastopt", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "fastopt" / "engine" / "__pycache__").touch()  # a file: no folder can be made, even by root
    nowhere = {"PYTHONPATH": str(site), "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache"}
    got = run(
        "import os; del os.environ['NUMBA_CACHE_DIR']" + textwrap.dedent(STEP),
        tmp_path,
        name,
        "float32",
        **nowhere,
    )
    assert got.split()[0] == "compiled"
    assert got.split()[1] == run(STEP, tmp_path, name, "float32").split()[1]


COUNTED = """
    import sys; import numpy as np, fastopt
    for kind in sys.argv[1:]:
        g = np.ones(2)
        if kind == "clearing":
            fastopt.SGD(np.ones(2), zero_grads=True).step(g)
        elif kind == "plain":
            fastopt.SGD(np.ones(2)).step(g)
        else:
            opt = fastopt.SGD(np.ones(2), lr=1.0, **{kind: 0.5 if kind == "ema_decay" else 0})
            opt.step(g)
            g = opt.averages()
        print(g.tolist(), end=" ")
"""


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("clearing", "plain"), "[0.0, 0.0] [1.0, 1.0]"),
        (("ema_decay", "swa_start"), "[0.5, 0.5] [0.0, 0.0]"),
    ],
)
def test_kernels_of_different_processes_do_not_call_each_others_parts(tmp_path, kinds, expected):
    """Each is compiled in a process of its own, in which Numba counts from the beginning; then both are loaded."""
    for kind in kinds:
        run(COUNTED, tmp_path, kind)
    assert run(COUNTED, tmp_path, *kinds) == expected
    assert run(COUNTED, tmp_path, *reversed(kinds)) == " ".join(
        reversed(expected.replace("] [", "]|[").split("|"))
    )
