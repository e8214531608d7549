"""What a program waits for, and what it carries: fastopt beside torch, jax with optax, and DeepSpeed.

Each library is imported and takes its first step of Adam in new processes: with an empty cache of compiled
code, then with the cache that this one filled. Measured are the seconds, the memory of the process after the
import and after the step, and the size of the installation with all that it needs. ``import numba`` and
``import numpy`` are measured in the same rounds: fastopt answers for what comes on top of them.

Then every method of fastopt, one after the other in a process whose compiler is warm: the seconds until
its first step is done, compiled and from the cache; jax's for the methods that optax has by the same name.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import _measure
import installed
import numpy as np
from _measure import duration, median
from _turns import SMOKE

#: Ahead of each program: what it has at its command. ``note`` prints what was measured so far, as JSON.
HEAD = """
import json, os, sys, time
start = time.perf_counter()
found = {}

def note(name):
    found[name + "_s"] = time.perf_counter() - start
    try:
        with open("/proc/self/statm") as file:
            found[name + "_bytes"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # elsewhere than on Linux: the most that there was
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        found[name + "_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
"""
TAIL = "\nprint(); print(json.dumps(found))\n"
JAX = """
import numpy as np
p, g = jax.numpy.ones(100), jax.numpy.full(100, 0.1)
def first_step(make):
    transform = make(1e-3)
    def step(params, state, grads):
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state
    jax.block_until_ready(jax.jit(step)(p, transform.init(p), g))
"""


class Library(NamedTuple):
    """How a library is imported, and how it takes a first step; what it is called where it is installed."""

    imports: str
    step: str
    distribution: str
    #: A program that takes long is not run more often than this.
    most_rounds: int = 1000
    #: Whether it is left out of short runs, unless it is asked for.
    slow: bool = False
    environment: Mapping[str, str] = {}


TORCH = "p = torch.nn.Parameter(torch.ones(100)); p.grad = torch.full((100,), 0.1); {}([p]{}).step()"
LIBRARIES = {
    "numpy": Library("import numpy", "", "numpy"),
    "numba": Library("import numba", "", "numba"),
    "fastopt": Library(
        "import fastopt",
        "import numpy as np; pack = fastopt.pack(np.ones(100, np.float32)); fastopt.AdamW(pack).step()",
        "fastopt",
    ),
    "torch": Library("import torch", TORCH.format("torch.optim.AdamW", ", fused=True"), "torch"),
    "jax and optax": Library(
        "import jax, optax",
        JAX + "first_step(optax.adamw)",
        "optax",  # which needs jax
        environment={
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": "{cache}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
    ),
    # It builds its C++ at the first use, which takes a minute.
    "deepspeed": Library(
        "import torch; from deepspeed.ops.adam import DeepSpeedCPUAdam",
        TORCH.format("DeepSpeedCPUAdam", ""),
        "deepspeed",
        most_rounds=1,
        slow=True,
        environment={"TORCH_EXTENSIONS_DIR": "{cache}/torch", "DS_ACCELERATOR": "cpu"},
    ),
}
#: What fastopt is measured against: without these, nothing is.
BASE = ("numpy", "numba", "fastopt")

#: Seconds after which a program is given up: a build can wait for another that has died.
LONGEST = 600

#: optax's names of methods that fastopt has by another.
OPTAX = {"SGD": "sgd", "Adagrad": "adagrad", "Adadelta": "adadelta", "RMSprop": "rmsprop", "Adam": "adam"} | {
    name: name.lower()
    for name in (
        *("AdamW", "Adamax", "NAdam", "RAdam", "Lion", "LAMB", "LARS", "NovoGrad", "Yogi"),
        *("AdaBelief", "Adan", "Rprop"),
    )
}


def run(library: Library, program: str, cache: str) -> dict[str, Any]:
    """Return what a program noted, in a new process.

    Raises
    ------
    RuntimeError
        If the program fails: what it said last.
    """
    given = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FASTOPT_"))}
    path = [str(_measure.BENCH.parent), given.get("PYTHONPATH", "")]
    own = {name: value.format(cache=cache) for name, value in library.environment.items()}
    env = {**given, **own, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    # Tools that came with the packages (ninja) are beside the interpreter.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        # Elsewhere than in the repository, so that a fastopt.py or numba.py there cannot be picked up.
        command = [sys.executable, "-c", HEAD + program + TAIL]
        try:
            done = subprocess.run(
                command, env=env, cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not done in {LONGEST} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"status {done.returncode}").splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def program(library: Library) -> str:
    lines = [library.imports, "note('import')"]
    return "\n".join([*lines, library.step, "note('step')"] if library.step else lines)


def available(names: Iterable[str]) -> list[str]:
    """Return the libraries that can take their first step here; the others are skipped by name."""
    found = []
    for name in names:
        library = LIBRARIES[name]
        try:
            importlib.metadata.version(library.distribution)
        except importlib.metadata.PackageNotFoundError:
            if name not in BASE:
                print(f"skipped: {name} (not installed)")
                continue
        try:
            # Reads the files from the disk, and writes the .pyc.
            with tempfile.TemporaryDirectory() as cache:
                run(library, library.imports, cache)
        except RuntimeError as error:
            if name in BASE:
                raise
            print(f"skipped: {name} ({error})")
            continue
        found.append(name)
    return found


def survey(rounds: int, names: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    """Return what the programs of each library noted, with a cold and with a warm cache, a value a round."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for i in range(rounds):
        for name, values in found.items():
            library = LIBRARIES[name]
            if i >= library.most_rounds:
                continue
            with tempfile.TemporaryDirectory() as cache:  # empty at the cold step, filled at the warm one
                try:
                    for state in ("cold", "warm") if library.step else ("warm",):
                        for key, value in run(library, program(library), cache).items():
                            kind = key if key.startswith("import") else f"{state}_{key}"
                            # Imports do not depend on the cache. The second is the one in the same state.
                            if not (key.startswith("import") and state == "cold"):
                                values.setdefault(kind, []).append(value)
                except RuntimeError as error:
                    if name in BASE:
                        raise
                    print(f"skipped: {name} ({error})")
                    values.clear()
                    break
    return {name: values for name, values in found.items() if values}


COMPILE_FASTOPT = """
import numpy as np, fastopt
fastopt.SGD(np.ones(10)).step(np.ones(10))  # what the compiler does once, in double
for name in NAMES:
    opt = getattr(fastopt, name)(pack := fastopt.pack(np.ones((10, 10), np.float32)))
    begin = time.perf_counter()
    if hasattr(opt, "lookahead"):
        with opt.lookahead():
            pack.flat_grads[:] = 0.1
    opt.step()
    found[name] = time.perf_counter() - begin
"""
COMPILE_JAX = """
import jax, optax
{JAX}
first_step(lambda rate: optax.noisy_sgd(rate, 0.1, 0.5, 0))  # what the compiler does once
for name, attribute in NAMES.items():
    begin = time.perf_counter()
    first_step(getattr(optax, attribute))
    found[name] = time.perf_counter() - begin
""".replace("{JAX}", JAX)


def compile_times(rounds: int, names: list[str], with_jax: bool) -> dict[str, dict[str, float]]:
    """Return the seconds until each method's first step is done: compiled, from the cache, and jax's."""
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in names}

    def add(kind: str, found: dict[str, float]) -> None:
        for name, value in found.items():
            rows[name].setdefault(kind, []).append(value)

    common = {name: OPTAX[name] for name in names if name in OPTAX}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            own = COMPILE_FASTOPT.replace("NAMES", repr(names))
            for kind in ("compiled", "cached"):
                add(kind, run(LIBRARIES["fastopt"], own, cache))
            if with_jax:
                add("jax", run(LIBRARIES["jax and optax"], COMPILE_JAX.replace("NAMES", repr(common)), cache))
    return {
        name: {kind: median(np.array(values)) for kind, values in row.items()} for name, row in rows.items()
    }


def methods() -> list[str]:
    """Return the methods of fastopt whose steps need gradients and nothing else."""
    import fastopt

    return [name for name in fastopt.algorithms.__all__ if not re.match("LBFGS|SparseAdam|Sophia", name)]


def main() -> None:
    parser = _measure.arguments(__doc__, "latency.json")
    parser.add_argument("--only", nargs="+", choices=list(LIBRARIES), help="these beside numpy and numba")
    args = parser.parse_args()
    about = _measure.describe()
    short = args.quick or SMOKE
    usual = [name for name, library in LIBRARIES.items() if not (short and library.slow)]
    names = available(usual if args.only is None else dict.fromkeys((*BASE, *args.only)))
    found = survey(1 if SMOKE else 3 if args.quick else 11, names)
    for package in ("optax", "jax", "deepspeed"):
        with suppress(importlib.metadata.PackageNotFoundError):
            about["versions"][package] = importlib.metadata.version(package)
    libraries: dict[str, dict[str, Any]] = {}
    rows = []
    for name, values in found.items():
        sizes = installed.sizes(LIBRARIES[name].distribution)
        medians: dict[str, Any] = {key: median(np.array(each)) for key, each in values.items()}
        libraries[name] = {**medians, "installed": sizes}
        times = [medians.get(key) for key in ("import_s", "cold_step_s", "warm_step_s")]
        memory = [medians.get(key) for key in ("import_bytes", "warm_step_bytes")]
        size = [sum(sizes.values()), sizes[LIBRARIES[name].distribution]]
        cells = ["" if t is None else duration(t) for t in times]
        rows.append([name, *cells, *("" if b is None else f"{b / 2**20:.0f}" for b in (*memory, *size))])
    head = ["", "import", "first step, cold", "warm"]
    head += ["MiB in memory: import", "step", "on disk", "of its own"]
    print(_measure.table(head, rows))
    chosen = methods()[:2] if SMOKE else methods()[:8] if args.quick else methods()
    compiled = compile_times(1 if short else 3, chosen, "jax and optax" in found)
    head = ["first step of", "compiled", "from the cache", "jax"]
    rows = [
        [name, *(duration(row[kind]) if kind in row else "" for kind in ("compiled", "cached", "jax"))]
        for name, row in compiled.items()
    ]
    print(_measure.table(head, rows))
    _measure.save(args, about, {"libraries": libraries, "compile": compiled})


if __name__ == "__main__":
    main()
