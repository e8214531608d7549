"""The kernels of the GPU that compute scalars: what an update needs to know beside the elements.

They do what the host does for arrays in its own memory, in double too, where only the device knows: what was
measured there, and so by what the gradients are clipped, whether a step is left out, how many were taken. The
host is never asked and never waits.
"""

from __future__ import annotations

import math
import types as python_types
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fastopt.engine import cuda as gpu
from fastopt.engine.cache import sources
from fastopt.engine.columns import END, ROW, START
from fastopt.engine.compiled import defined
from fastopt.engine.cuda_access import ITEMSIZES
from fastopt.engine.cuda_source import Elements, names
from fastopt.engine.formats import Storage
from fastopt.engine.kernel import BLOCK
from fastopt.engine.rule import Rule, digest

#: What the device knows of the steps, in slots of eight bytes: whether this one is taken (an integer); how
#: many were; what all gradients are multiplied by; their norm; how many steps were left out because that was
#: not finite, or an outlier, and how many in a row; the scale of the loss, how many finite steps there were
#: since it changed, and the scale as a float32; how many norms the window of outliers has seen; the window.
GO, TAKEN, FACTOR, NORM, NONFINITE, OUTLIERS, IN_A_ROW, SCALE, GOOD, SCALE32, SEEN, WINDOW = range(12)

#: What the host says of a step, in doubles: what the gradients are multiplied by; the greatest norm (NaN:
#: any), and whether it is each tensor's; whether steps that are not finite are left out, and from how many
#: deviations on those that are outliers (NaN: none). Of the scale of the loss: whether there is one, by what
#: it grows and shrinks, after how many steps it grows, and between what it stays.
MULTIPLIER, LIMIT, APART, SKIPS, DEVIATIONS, SCALES, GROWTH, BACKOFF, INTERVAL, LEAST, GREATEST = range(11)

# Bound for each kernel.
_reduce: Any = None
_share: Any = None
_one: Any = None
_plus: Any = None
cuda: Any = None
load_i64: Any = None
load_f64: Any = None
store_i64: Any = None
store_f32: Any = None
store_f64: Any = None
N_COLUMNS = SUMS = ITEMSIZE = N_SCALARS = N_INPUTS = N_CARRY = 0
N_WINDOW: Any = 0
EPS: Any = 0.0


def rows(inputs, n, carry, scalars, control):
    """Compute rows of scalars from rows of inputs."""
    r = np.int64(cuda.grid(1))
    goes = control == 0 or load_i64(control) != 0
    if r < n:
        taken = load_f64(control + TAKEN * 8) if control != 0 else 0.0
        own = scalars + r * (N_SCALARS * ITEMSIZE)
        _one((), 0.0, taken, inputs + r * (N_INPUTS * 8), carry + r * (N_CARRY * 8), own, goes)


def spread(scalars, first, n, own):
    """Copy rows of scalars to the rows of single tensors, which follow them."""
    i = np.int64(cuda.grid(1))
    if i < n:
        source = scalars + load_i64(own + i * 8) * (N_SCALARS * ITEMSIZE)
        target = scalars + (first + i) * (N_SCALARS * ITEMSIZE)
        for k in range(N_SCALARS):
            _copy(target + k * ITEMSIZE, source + k * ITEMSIZE)


_copy: Any = None


def finish(table, segments, carry, inputs, scalars, control):
    """Compute the scalars of each segment's update from its sums and what it carries."""
    goes = control == 0 or load_i64(control) != 0
    taken = load_f64(control + TAKEN * 8) if control != 0 else 0.0
    s = np.int64(cuda.blockIdx.x)
    while s < segments:
        line = table + s * (N_COLUMNS * 8)
        size = load_i64(line + END * 8) - load_i64(line + START * 8)
        blocks = (size + BLOCK - 1) // BLOCK
        total = _reduce(_share(load_i64(line + SUMS * 8), blocks))
        if cuda.threadIdx.x == 0:
            values = inputs + load_i64(line + ROW * 8) * (N_INPUTS * 8)
            own = scalars + s * (N_SCALARS * ITEMSIZE)
            _one(total, np.float64(size), taken, values, carry + s * (N_CARRY * 8), own, goes)
        s += cuda.gridDim.x


def conclude(parts, n_parts, size, inputs, n, carry, scalars, control):
    """Compute rows of scalars from the sums over all tensors, of which each part has some."""
    goes = control == 0 or load_i64(control) != 0
    taken = load_f64(control + TAKEN * 8) if control != 0 else 0.0
    total = _reduce(_share(load_i64(parts), load_i64(parts + 8)))
    for part in range(1, n_parts):
        found = _reduce(_share(load_i64(parts + part * 16), load_i64(parts + part * 16 + 8)))
        total = _plus(total, found)
    if cuda.threadIdx.x == 0:
        for r in range(n):
            own = scalars + r * (N_SCALARS * ITEMSIZE)
            values = inputs + r * (N_INPUTS * 8)
            _one(total, np.float64(size), taken, values, carry + r * (N_CARRY * 8), own, goes)


def roots(table, segments, places, norms):
    """Put the norm of each segment, the root of its sum of squares, to its place."""
    s = np.int64(cuda.blockIdx.x)
    while s < segments:
        line = table + s * (N_COLUMNS * 8)
        size = load_i64(line + END * 8) - load_i64(line + START * 8)
        total = _reduce(_share(load_i64(line + SUMS * 8), (size + BLOCK - 1) // BLOCK))
        if cuda.threadIdx.x == 0:
            store_f64(norms + load_i64(places + s * 8) * 8, math.sqrt(total[0]))
        s += cuda.gridDim.x


def guard(norms, n, inputs, control, factors):
    """Decide whether a step is taken, and what its gradients are multiplied by.

    See :class:`fastopt.guard.Guard`, which does the same on the host.
    """
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    each = (n + threads - 1) // threads
    i, squares = each * thread, 0.0
    while i < min(each * thread + each, n):
        squares += load_f64(norms + i * 8) * load_f64(norms + i * 8)
        i += 1
    size = abs(load_f64(inputs + MULTIPLIER * 8))
    limit, scales = load_f64(inputs + LIMIT * 8), load_f64(inputs + SCALES * 8) != 0.0
    unscaled = 1.0 / load_f64(control + SCALE * 8) if scales else 1.0
    norm = math.sqrt(_reduce((squares,))[0]) * size * unscaled
    if load_f64(inputs + APART * 8) != 0.0:
        i = np.int64(thread)
        while i < n:
            factor = limit / (load_f64(norms + i * 8) * size * unscaled + EPS)
            any_norm = limit != limit
            store_f64(factors + i * 8, unscaled * (1.0 if any_norm or factor >= 1.0 else factor))
            i += threads
    cuda.syncthreads()
    if thread == 0:
        factor = limit / (norm + EPS)
        clips = limit == limit and not factor >= 1.0  # of a norm that is NaN, NaN
        store_f64(control + FACTOR * 8, unscaled * factor if clips else unscaled)
        store_f64(control + NORM * 8, norm)
        finite = norm - norm == 0.0
        bad = not finite and load_f64(inputs + SKIPS * 8) != 0.0
        deviations = load_f64(inputs + DEVIATIONS * 8)
        far = False
        if finite and deviations == deviations:
            far = _is_outlier(control, norm, deviations)
            seen = load_f64(control + SEEN * 8)
            store_f64(control + (WINDOW + np.int64(seen) % N_WINDOW) * 8, norm)
            store_f64(control + SEEN * 8, seen + 1.0)
        if scales:
            _adapt(inputs, control, finite)
        goes = not (bad or far)
        store_i64(control, np.int64(goes))
        store_f64(control + TAKEN * 8, load_f64(control + TAKEN * 8) + goes)
        store_f64(control + NONFINITE * 8, load_f64(control + NONFINITE * 8) + bad)
        store_f64(control + OUTLIERS * 8, load_f64(control + OUTLIERS * 8) + far)
        in_a_row = 0.0 if goes else load_f64(control + IN_A_ROW * 8) + 1.0
        store_f64(control + IN_A_ROW * 8, in_a_row)


def is_outlier(control, norm, deviations):
    """Tell whether a norm is far above those of the steps before."""
    n = min(np.int64(load_f64(control + SEEN * 8)), N_WINDOW)
    if n < N_WINDOW // 2:
        return False
    mean, squares = 0.0, 0.0
    for k in range(n):
        mean += load_f64(control + (WINDOW + k) * 8)
    mean /= n
    for k in range(n):
        squares += (load_f64(control + (WINDOW + k) * 8) - mean) ** 2
    return norm > mean + max(deviations * math.sqrt(squares / (n - 1)), 1e-6 * mean)


def adapt(inputs, control, finite):
    """Change the scale of the loss. See :class:`fastopt.GradScaler`."""
    scale, good = load_f64(control + SCALE * 8), load_f64(control + GOOD * 8) + 1.0
    if not finite:
        scale = max(scale * load_f64(inputs + BACKOFF * 8), load_f64(inputs + LEAST * 8))
        good = 0.0
    elif good == load_f64(inputs + INTERVAL * 8):
        grown = scale * load_f64(inputs + GROWTH * 8)
        scale = grown if grown <= load_f64(inputs + GREATEST * 8) else scale
        good = 0.0
    store_f64(control + SCALE * 8, scale)
    store_f64(control + GOOD * 8, good)
    store_f32(control + SCALE32 * 8, np.float32(scale))


_is_outlier: Any = None
_adapt: Any = None


# How they are made.


def sum_functions(n: int) -> dict[str, Any]:
    """Return ``_reduce``, which adds up threads' sums, and ``_share``, a thread's part of blocks' sums."""
    threads, around = gpu.THREADS, {**gpu.names(), "np": np}
    reduce = [f"shared = cuda.shared.array({threads * n}, np.float64)", "thread = cuda.threadIdx.x"]
    reduce += [f"shared[{threads * k} + thread] = sums[{k}]" for k in range(n)]
    reduce += ["cuda.syncthreads()", f"half = {threads // 2}", "while half > 0:", "    if thread < half:"]
    reduce += [
        f"        shared[{threads * k} + thread] += shared[{threads * k} + thread + half]" for k in range(n)
    ]
    reduce += ["    cuda.syncthreads()", "    half //= 2"]
    reduce += [f"total = {_listed(f'shared[{threads * k}]' for k in range(n))}"]
    reduce += ["cuda.syncthreads()", "return total"]
    share = [f"each = (blocks + {threads - 1}) // {threads}", "block = each * cuda.threadIdx.x"]
    share += ["last = min(block + each, blocks)", *(f"t{k} = np.float64(0.0)" for k in range(n))]
    share += ["while block < last:"]
    share += [f"    t{k} += load_f64(sums + (block * {n} + {k}) * 8)" for k in range(n)]
    share += ["    block += 1", f"return {_listed(f't{k}' for k in range(n))}"]
    plus = [f"return {_listed(f'one[{k}] + other[{k}]' for k in range(n))}"]
    return {
        "_reduce": gpu.device(defined("reduce", "sums", reduce, **around)),
        "_share": gpu.device(defined("share", "sums, blocks", share, **around)),
        "_plus": gpu.device(defined("plus", "one, other", plus, **around)),
    }


def _listed(items: Any) -> str:
    return "(" + "".join(f"{item}, " for item in items) + ")"


@cache
def finish_kernel(
    rule: Rule, dtype: np.dtype[np.floating], kinds: tuple[int, ...], storage: Storage | None = None
) -> Any:
    """Return the kernel for what follows from what was measured of each tensor.

    It takes ``(table, segments, carry, inputs, scalars, control)``; see
    :func:`fastopt.engine.finish.compile_finish`.
    """
    assert rule.measure is not None
    measured = Elements(rule, dtype, storage, measuring=True)
    bound = _bound(rule.scalars, rule.n_scalars, dtype, kinds, len(rule.carry), len(measured.sums), True)
    bound |= {"N_COLUMNS": measured.n_columns, "SUMS": measured.sums_column}
    own = digest(rule.scalars, len(rule.carry), kinds, measured.n_columns)
    return gpu.kernel(
        finish, f"cuda_finish_{rule.name}_{own}_{dtype.name}_{sources(cuda=True)}", bound, rule.in_files
    )


@cache
def conclude_kernel(rule: Rule, dtype: np.dtype[np.floating], kinds: tuple[int, ...]) -> Any:
    """Return the kernel for what follows from what was measured of all tensors together.

    It takes ``(parts, n_parts, size, inputs, n, carry, scalars, control)``: addresses of sums, each with the
    number of its blocks.
    """
    assert rule.measure is not None
    n_sums = len(rule.measure.sums)
    bound = _bound(rule.scalars, rule.n_scalars, dtype, kinds, len(rule.carry), n_sums, True)
    own = digest(rule.scalars, len(rule.carry), kinds, n_sums)
    return gpu.kernel(
        conclude, f"cuda_conclude_{rule.name}_{own}_{dtype.name}_{sources(cuda=True)}", bound, rule.in_files
    )


@cache
def rows_kernel(
    rule: Rule, dtype: np.dtype[np.floating], kinds: tuple[int, ...], measuring: bool = False
) -> Any:
    """Return the kernel for rows of scalars that follow from the number of the step.

    They are those of the rule, or of its measure. It takes ``(inputs, n, carry, scalars, control)``.
    """
    if measuring:
        assert rule.measure is not None
        function, n, carries = rule.measure.scalars, rule.n_measure_scalars, False
        carry = len(rule.carry) if rule.measure.over == "all" else 0
    else:
        function, n, carries, carry = rule.scalars, rule.n_scalars, True, len(rule.carry)
    bound = _bound(function, n, dtype, kinds, carry, 0, carries)
    own = digest(function, carry, kinds, n)
    return gpu.kernel(
        rows, f"cuda_rows_{rule.name}_{own}_{dtype.name}_{sources(cuda=True)}", bound, rule.in_files
    )


def _bound(
    function: Callable[..., Any] | None,
    n_scalars: int,
    dtype: np.dtype[np.floating],
    kinds: tuple[int, ...],
    n_carry: int,
    n_sums: int,
    carries: bool,
) -> dict[str, Any]:
    """Return what is bound in the templates: ``_one`` calls a rule's scalars, and keeps what comes back."""
    assert function is not None
    place, hyper = 2, ""
    for kind in kinds:
        numbers = "".join(f"load_f64(values + {8 * (place + k)}), " for k in range(max(kind, 1)))
        hyper += f"({numbers}), " if kind else numbers
        place += max(kind, 1)
    total = "size, " + "".join(f"total[{k}], " for k in range(n_sums)) if n_sums else ""
    carry = "".join(f"load_f64(load_i64(carry + {8 * k})), " for k in range(n_carry))
    real = "f64" if dtype == np.float64 else "f32"
    cast = f"np.{dtype.name}"
    itemsize = ITEMSIZES[real]
    keeps = bool(n_carry) and carries
    lines = [
        "step = load_f64(values + 8) + taken",
        f"{'kept, ' if keeps else ''}new = scalars_of(step, {total}{carry}{hyper})",
        f"store_{real}(scalars, {cast}(load_f64(values)))",
        *(f"store_{real}(scalars + {(k + 1) * itemsize}, {cast}(new[{k}]))" for k in range(n_scalars)),
    ]
    if keeps:
        lines += [
            f"store_f64(load_i64(carry + {8 * k}), flush_f64(np.float64(kept[{k}])))" for k in range(n_carry)
        ]
    # Of a step that is left out nothing is computed: its number, and the sums, may be out of range.
    lines = ["if goes:", *(f"    {line}" for line in lines)]
    arguments = "total, size, taken, values, carry, scalars, goes"
    one = defined("one", arguments, lines, **names(), scalars_of=gpu.device(function))
    return {
        **gpu.names(),
        **(sum_functions(n_sums) if n_sums else {}),
        "_one": gpu.device(one),
        "N_SCALARS": 1 + n_scalars,
        "N_INPUTS": place,
        "N_CARRY": n_carry,
        "ITEMSIZE": itemsize,
    }


@cache
def spread_kernel(n_scalars: int, dtype: np.dtype[np.floating]) -> Any:
    """Return the kernel that copies rows of scalars: ``(scalars, first, n, own)``."""
    real = "f64" if dtype == np.float64 else "f32"
    around = gpu.names()
    copy = defined("copy_one", "to, source", [f"store_{real}(to, load_{real}(source))"], **around)
    bound = {**around, "N_SCALARS": n_scalars, "ITEMSIZE": ITEMSIZES[real], "_copy": gpu.device(copy)}
    return gpu.kernel(spread, f"cuda_spread_{n_scalars}_{dtype.name}_{sources(cuda=True)}", bound, True)


@cache
def roots_kernel(rule: Rule, dtype: np.dtype[np.floating], storage: Storage | None = None) -> Any:
    """Return the kernel that makes norms of sums of squares: ``(table, segments, places, norms)``."""
    measured = Elements(rule, dtype, storage, measuring=True)
    bound = {**gpu.names(), **sum_functions(1)}
    bound |= {"N_COLUMNS": measured.n_columns, "SUMS": measured.sums_column}
    return gpu.kernel(roots, f"cuda_roots_{measured.n_columns}_{sources(cuda=True)}", bound, True)


@cache
def guard_kernel(window: int, eps: float) -> Any:
    """Return the kernel that decides on a step: ``(norms, n, inputs, control, factors)``."""
    bound = {**gpu.names(), **sum_functions(1), "N_WINDOW": window, "EPS": eps}
    for template in (is_outlier, adapt):
        around = {**template.__globals__, **bound}
        plain = python_types.FunctionType(template.__code__, around, template.__name__)
        bound[f"_{template.__name__}"] = gpu.device(plain)
    return gpu.kernel(guard, f"cuda_guard_{window}_{sources(cuda=True)}", bound, True)
