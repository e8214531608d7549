"""Optimizers that a user writes: they have all that the built-in ones have, wherever they are written."""

import copy
import math
import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastopt
from fastopt import Optimizer, Rule
from tests.processes import environment, run


def signum(p, g, momentum_buffer, lr, momentum):
    momentum_buffer = momentum * momentum_buffer + g
    return p - math.copysign(lr, momentum_buffer), momentum_buffer


class Signum(Optimizer):
    rule = Rule(signum, state=("momentum_buffer",))
    defaults = {"lr": 1e-3, "momentum": 0.9}


def qhm(p, g, momentum_buffer, lr, momentum, fresh, nu, plain):
    momentum_buffer = momentum * momentum_buffer + fresh * g
    return p - lr * (nu * momentum_buffer + plain * g), momentum_buffer


def qhm_scalars(step, lr, momentum, nu):
    return lr, momentum, 1 - momentum, nu, 1 - nu


class QHM(Optimizer):
    rule = Rule(qhm, state=("momentum_buffer",), scalars=qhm_scalars, decay="none")
    defaults = {"lr": 1.0, "momentum": 0.999, "nu": 0.7}
    rows_without = ()


def rolling(p, g, velocity, lr, momentum):
    velocity = momentum * velocity - lr * g
    return p + velocity, velocity


def rising(step, lr, max_momentum):
    return lr, min(1 - 0.5 / ((step - 1) // 250 + 1), max_momentum)


class RisingMomentum(Optimizer):
    rule = Rule(rolling, state=("velocity",), scalars=rising)
    defaults = {"lr": 0.01, "max_momentum": 0.99}


def in_numpy(name, step, p, g, m):
    """The same as the papers have it, in double: the new parameters, and the new state."""
    if name == "Signum":
        m = 0.9 * m + g
        return p - 0.01 * np.sign(m), m
    if name == "QHM":
        m = 0.999 * m + (1 - 0.999) * g
        return p - 0.01 * ((1 - 0.7) * g + 0.7 * m), m
    m = min(1 - 2.0 ** (-1 - math.log2(step // 250 + 1)), 0.99) * m - 0.01 * g
    return p + m, m


each_class = pytest.mark.parametrize("cls", [Signum, QHM, RisingMomentum], ids=lambda cls: cls.__name__)


def gradients(n, shape, dtype=np.float64):
    return [np.asarray(grad, dtype) for grad in np.random.default_rng(1).standard_normal((n, *shape))]


@each_class
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_numpy(cls, dtype):
    w = np.random.default_rng(0).standard_normal((5, 7)).astype(dtype)
    opt, want, m = cls(w, lr=0.01), w.astype(float), np.zeros((5, 7))
    for i, grad in enumerate(gradients(300, (5, 7), dtype)):
        opt.step(grad)
        want, m = in_numpy(cls.__name__, i, want, grad.astype(float), m)
    assert np.abs(w - want).max() < 2000 * np.finfo(dtype).eps
    (state,) = opt.state[0].values()
    assert np.abs(state - m).max() < 2000 * np.finfo(dtype).eps


@each_class
def test_everything_at_once(cls, tmp_path):
    """Groups, overrides, schedules, modifiers, one pass for a pack or arrays, files, copies."""

    def make(params, **more):
        groups = [{"params": params["a"], "lr": 0.02}, {"params": params["b"]}]
        return cls(
            groups,
            lr=lambda step: 0.01 / (1 + step),
            overrides={"w": {"lr_scale": 0.5}},
            max_grad_norm=1.0,
            ema_decay=0.9,
            zero_grads=True,
            **more,
        )

    def model():
        return {"a": {"w": np.ones((3, 4)), "x": np.ones(2)}, "b": [np.ones(5)]}

    def grads_of(i):
        return [{"w": np.full((3, 4), i + 1.0), "x": np.full(2, -1.0)}, [np.arange(5.0)]]

    def same(one, other):
        return np.array_equal(one["a"]["w"], other["a"]["w"]) and np.array_equal(one["b"][0], other["b"][0])

    params, packed = model(), fastopt.pack(model())
    opt, of_pack = make(params), make({"a": packed["a"], "b": packed["b"]}, threads=2)
    for i in range(4):
        if i == 2:
            opt.save(tmp_path / "own.npz")
        grads = grads_of(i)
        packed.grads["a"]["w"][...], packed.grads["a"]["x"][...] = grads[0]["w"], grads[0]["x"]
        packed.grads["b"][0][...] = grads[1][0]
        opt.step(grads)
        of_pack.step()
        assert not grads[0]["w"].any()
    assert same(params, packed.params)

    again = model()
    loaded = make(again)
    loaded.load_state_dict(fastopt.load(tmp_path / "own.npz"))
    for i in (2, 3):
        loaded.step(grads_of(i))
    assert same(again, params)
    copied = copy.deepcopy(loaded)
    copied.step(grads_of(4))
    loaded.step(grads_of(4))
    assert same(copied._params()[0] and {"a": copied._params()[0], "b": copied._params()[1]}, again)


def test_pickle():
    w = np.ones(3)
    opt = Signum(w, lr=0.1)
    opt.step(np.ones(3))
    copied = pickle.loads(pickle.dumps(opt))
    assert isinstance(copied, Signum)
    assert copied.step_count == 1
    assert (copied.state[0]["momentum_buffer"] == 1).all()


@each_class
def test_kernel(cls):
    kernel, w = cls.kernel(lr=0.05), np.linspace(-1, 1, 9)
    of_kernel, state = w.copy(), np.zeros(9)
    opt = cls(w, lr=0.05)
    for i, grad in enumerate(gradients(3, (9,))):
        opt.step(grad)
        kernel(of_kernel, grad, state, i + 1)
    assert np.array_equal(of_kernel, w)


def test_rows():
    table, dense = np.ones((6, 2)), np.ones((6, 2))
    QHM(table, lr=0.1).step(fastopt.Rows(np.array([4, 1]), np.full((2, 2), 0.5)))
    grad = np.zeros((6, 2))
    grad[[1, 4]] = 0.5
    QHM(dense, lr=0.1).step(grad)
    assert np.array_equal(table, dense)
    with pytest.raises(TypeError, match="cannot be Rows: Signum takes whole arrays only"):
        Signum(np.ones((2, 2))).step(fastopt.Rows(np.array([0]), np.ones((1, 2))))


def test_cautious():
    w, m = np.array([1.0, 1.0]), np.array([-4000.0, 4000.0])
    opt = QHM(w, lr=0.1, nu=1.0, cautious=True)
    opt.step(np.ones(2))
    opt.state[0]["momentum_buffer"][:] = m
    before = w.copy()
    opt.step(np.ones(2))
    assert w[0] == before[0]  # its step and its gradient disagree
    assert w[1] < before[1]
    with pytest.raises(
        ValueError, match="RisingMomentum has no step apart from its parameters: no cautious=True"
    ):
        RisingMomentum(w, cautious=True)


# Where rules are written.

SOURCE = """
import numpy as np, fastopt, pathlib, sys
def descend(p, g, m, lr, momentum):
    m = momentum * m + g
    return p - lr * m, m
class Descend(fastopt.Optimizer):
    rule = fastopt.Rule(descend, state=("m",))
    defaults = {"lr": 0.5, "momentum": 0.5}
w = np.ones(2)
Descend(w).step(np.ones(2))
assert w.tolist() == [0.5, 0.5], w
"""
WRONG = """
def halve(p, g, lr):
    return p - 0.5 * lr * g
class Halve(fastopt.Optimizer):
    rule = fastopt.Rule(halve)
    defaults = {"lr": 0.5}
try:
    Halve(np.ones(2, np.float32)).step(np.ones(2, np.float32))
except TypeError as error:
    print(error)
"""


def kept(cache):
    """Return how many compiled functions are on disk."""
    return len(list(cache.rglob("*.nbi")))


@pytest.mark.jit
def test_in_a_script_and_a_module(tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "code"
    cache.mkdir()
    folder.mkdir()
    (folder / "module.py").write_text(SOURCE.replace("descend", "roll").replace("0.5 * lr", "lr"))
    (folder / "script.py").write_text("import module\n" + SOURCE + WRONG + HITS)
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[1] + '/script.py', run_name='__main__')"
    first, second = (run(code, cache, str(folder)).splitlines() for _ in range(2))
    where = f"rule 'halve' ({folder / 'script.py'}, line 15: `return p - 0.5 * lr * g`) computes float32 in double: "
    assert first[0] == second[0] == where + "0.5 is a double; pass it as a hyperparameter or scalar"
    assert first[1:] == ["0 hits"]
    assert second[1:] == ["2 hits"]
    assert kept(cache) == 2


HITS = """
from fastopt.engine.kernel import compile_launch
rules = [Descend.rule, module.Descend.rule]
print(sum(sum(compile_launch(r, np.dtype(float)).stats.cache_hits.values()) for r in rules), "hits")
"""

PROMPT = """
import linecache, sys
source, wrong = sys.argv[1:]
exec(source + wrong)  # a string; and this file is one too
cell, name = source.replace("+ g", "+ g + g * (p - p)") + wrong, "/tmp/ipykernel_1/23.py"  # a cell of a notebook
linecache.cache[name] = len(cell), None, cell.splitlines(True), name
exec(compile(cell, name, "exec"), {"__name__": "__main__", "__spec__": None})
"""

#: The source as one types it: a block ends with an empty line.
TYPED = re.sub(r"\n(?=class|w =|try)", "\n\n", SOURCE + WRONG) + "\n"

CONSOLE = """
import code, sys
console = code.InteractiveConsole()  # a prompt: lines that are nowhere
for line in sys.argv[1].splitlines():
    console.push(line)
assert console.locals["w"].tolist() == [0.5, 0.5]
"""


@pytest.mark.jit
def test_in_a_string_and_in_a_notebook(tmp_path):
    got = run(PROMPT, tmp_path, SOURCE, WRONG).splitlines()
    what = " computes float32 in double: 0.5 is a double; pass it as a hyperparameter or scalar"
    assert got[0] == "rule 'halve' (<string>, line 14)" + what  # there is no source to show
    assert got[1] == "rule 'halve' (/tmp/ipykernel_1/23.py, line 14: `return p - 0.5 * lr * g`)" + what
    assert kept(tmp_path) == 0


@pytest.mark.jit
@pytest.mark.slow
def test_at_a_prompt(tmp_path):
    got = run(CONSOLE, tmp_path, TYPED)
    assert re.search(r"rule 'halve' \(<console>, line \d+\) computes float32 in double", got)
    assert kept(tmp_path) == 0


@pytest.mark.jit
@pytest.mark.slow
def test_in_ipython(tmp_path):
    pytest.importorskip("IPython")
    code = """
        import sys
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell()
        shell.history_manager.enabled = False
        for cell in sys.argv[1:]:
            assert shell.run_cell(cell).success
    """
    got = run(code, tmp_path, SOURCE, WRONG, IPYTHONDIR=str(tmp_path / "ipython"))
    assert "rule 'halve' (" in got
    assert "line 2: `return p - 0.5 * lr * g`) computes float32 in double" in got
    assert kept(tmp_path) == 0


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-"], ["-i", "-q", "-"]])
def test_from_standard_input(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        input=TYPED if "-i" in arguments else SOURCE + WRONG,
        env=environment(tmp_path),
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"rule 'halve' \(<stdin>, line \d+\) computes float32 in double", done.stdout)
    assert kept(tmp_path) == 0


def test_an_edited_notebook_cell_is_compiled_anew():
    def cell(sign):
        scope = {"fastopt": fastopt}
        exec(
            textwrap.dedent(f"""
                def follow(p, g, lr):
                    return p {sign} lr * g
                class Follow(fastopt.Optimizer):
                    rule = fastopt.Rule(follow)
                    defaults = {{"lr": 0.5}}
            """),
            scope,
        )
        w = np.ones(2)
        scope["Follow"](w).step(np.ones(2))
        return w[0]

    assert [cell("-"), cell("+")] == [0.5, 1.5]
