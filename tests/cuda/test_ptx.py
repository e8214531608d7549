"""The GPU's code, without a GPU: vectors, the parameters' precision throughout, nothing kept in memory."""

import dis
import re
from collections import Counter

import numpy as np
import pytest

from fastopt import Rule
from fastopt.device_guard import EPS, WINDOW
from fastopt.engine import cuda, cuda_kernels, cuda_scalars
from fastopt.engine.formats import BFLOAT16, FLOAT8, FLOAT8_SQUARES, FLOAT16, FLOAT32, Storage
from fastopt.engine.plain import SQUARES
from fastopt.modifiers import DEFAULTS, modified
from tests.algorithms.cases import BY_ID, CASES, each_dtype
from tests.cuda.ptx import assembled, assembler, instructions, missing, ptx
from tests.modified import ALL, COMPILED, EVERYWHERE

REASON = missing()
pytestmark = [pytest.mark.slow, pytest.mark.jit, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

RULES = {case.rule: case for case in reversed(CASES) if case.scalar}
each_rule = pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.name) for rule in RULES])
MEASURING = [rule for rule in RULES if rule.measure is not None]
each_measuring = pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.name) for rule in MEASURING])
each_target = pytest.mark.parametrize("target", [(8, 0), (9, 0), (10, 0)])

ADAMW, LAMB = BY_ID["adamw"].rule, BY_ID["lamb"].rule
STORAGES = {
    "half_gradients": Storage(FLOAT32, FLOAT16, (FLOAT32, FLOAT32)),
    "float16": Storage(FLOAT16, FLOAT16, (FLOAT32, FLOAT32)),
    "bfloat16": Storage(BFLOAT16, BFLOAT16, (BFLOAT16, BFLOAT16)),
    "nearest": Storage(BFLOAT16, BFLOAT16, (BFLOAT16, BFLOAT16), nearest=True),
    "master": Storage(FLOAT16, FLOAT16, (FLOAT32, BFLOAT16), rest="master"),
    "split": Storage(BFLOAT16, BFLOAT16, (FLOAT32, FLOAT32), rest="split"),
    "float8": Storage(FLOAT32, FLOAT32, (FLOAT8, FLOAT8_SQUARES)),
    "split_float8": Storage(BFLOAT16, BFLOAT16, (FLOAT8, BFLOAT16), rest="split"),
}
each_storage = pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)


def update(rule, dtype="float32", *options, target=(9, 0)):
    return ptx(cuda_kernels.update_kernel(rule, np.dtype(dtype), *options), target)


def measure(rule, dtype="float32", *options, target=(9, 0)):
    return ptx(cuda_kernels.measure_kernel(rule, np.dtype(dtype), *options), target)


def matching(code, pattern):
    return [each for each in instructions(code) if re.fullmatch(pattern, each)]


def read(function, n):
    """Return how many of a function's first arguments it reads."""
    used = {each.argval for each in dis.get_instructions(function)}
    used = {name for each in used for name in (each if isinstance(each, tuple) else (each,))}
    return sum(name in used for name in function.__code__.co_varnames[:n])


def check_registers(code):
    """Raise an AssertionError if something is kept in memory, or a function is called."""
    assert ".local" not in code
    assert matching(code, r"call\b.*") == []


def check_rounding(code):
    """Raise an AssertionError unless quotients and roots are rounded to nearest, and subnormals kept."""
    assert matching(code, r"(?:div|sqrt)\.rn\.f(?:32|64)") == matching(code, r"(?:div|sqrt)\..*f(?:32|64)")
    assert matching(code, r".*\.(?:approx|ftz)\b.*") == []


def check_vectors(code, dtype, loads, stores):
    """Raise an AssertionError unless so many buffers are read and written by vectors of 16 bytes."""
    form, each = ("v4.f32", 1) if dtype == "float32" else ("v2.f64", 2)
    found = [len(matching(code, rf"{what}\.global\.{form}")) for what in ("ld", "st")]
    times = found[0] // (each * loads)  # short loops are unrolled
    assert times > 0
    assert found == [times * each * loads, times * each * stores]


@each_dtype
@each_rule
def test_update(rule, dtype):
    code = update(rule, dtype)
    check_registers(code)
    check_rounding(code)
    check_vectors(code, dtype, read(rule.function, 2 + len(rule.state)), 1 + len(rule.written))
    if dtype == "float32":
        assert matching(code, r".*f64.*") == []


@each_dtype
@each_rule
def test_four_elements_are_computed_as_one_is(rule, dtype):
    # There is a loop over fours, and one over what is left. What of a multiplication and an addition is one
    # instruction is the same in both, so a result does not depend on where its element falls.
    found = Counter(matching(update(rule, dtype), r"(?:fma|div|sqrt)\.rn\.f(?:32|64)"))
    assert [count % 5 for count in found.values()] == [0] * len(found), found


@each_dtype
@each_rule
def test_a_nan_is_not_lost(rule, dtype):
    # The GPU's max and min return the other number.
    assert matching(update(rule, dtype), r"(?:max|min)\.f(?:32|64)") == []


@each_dtype
@each_measuring
def test_measure(rule, dtype):
    code = measure(rule, dtype)
    check_registers(code)
    check_rounding(code)
    loads = read(rule.measure.function, 2 + len(rule.state))
    check_vectors(code, dtype, loads, len(rule.measure.writes))
    assert matching(code, r"(?:atom|red)\b.*") == []
    assert matching(code, r"bar\.sync|barrier\.sync.*")
    if dtype == "float32":  # what is added up is double, and nothing else
        assert matching(code, r"(?:div|sqrt|mul|sub)\.(?:rn\.)?f64") == []


@each_target
def test_targets(target):
    if cuda._is_numba() and target > (9, 0):
        pytest.skip("Numba's own knows no later ones")
    for code in (update(ADAMW, target=target), measure(LAMB, target=target)):
        assert f".target sm_{target[0]}{target[1]}" in code
        check_registers(code)
        check_vectors(code, "float32", 4, code.count("st.global.v4.f32"))


@each_storage
def test_storage(storage):
    for code in (update(ADAMW, "float32", False, storage), measure(LAMB, "float32", storage)):
        check_registers(code)
        check_rounding(code)
        halves = sum(each == 2 for each in storage.itemsizes)
        if not storage.in_blocks:
            assert len(matching(code, r"ld\.global\.v4\.u16")) >= min(halves, 1)
            assert len(matching(code, r"ld\.global\.v4\.f32")) <= len(storage.itemsizes) - halves
    assert matching(update(ADAMW, "float32", False, storage), r".*f64.*") == []
    assert bool(matching(update(ADAMW, "float32", False, storage), r"st\.shared.*")) == storage.in_blocks


@each_dtype
def test_gradients_are_cleared_in_vectors(dtype):
    code = update(ADAMW, dtype, True)
    check_registers(code)
    check_vectors(code, dtype, 4, 4)


@each_dtype
@pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.id)
def test_modified(case, dtype):
    allowed = {name: value for name, value in ALL.items() if name != "cautious_weight_decay"}
    for options in (EVERYWHERE, allowed):
        rule = modified(case.rule, {**DEFAULTS, **options}, case.id)
        code = update(rule, dtype)
        check_registers(code)
        check_rounding(code)
        assert matching(code, r"(?:max|min)\.f(?:32|64)") == []
        if dtype == "float32":
            assert matching(code, r".*f64.*") == []
        if rule.measure is not None:
            check_registers(measure(rule, dtype))
        ptx(scalars_kernel(rule, case, dtype, **options))


def scalars_kernel(rule, case, dtype, measuring=False, **options):
    """Return the kernel that computes the scalars of an update, or those of its measure."""
    group = {**DEFAULTS, **case.cls(np.zeros(3), **case.hyper).param_groups[0], **options}
    names = rule.measured_with if measuring else rule.scalars_of
    kinds = tuple(len(group[name]) if isinstance(group[name], tuple) else 0 for name in names)
    if measuring or rule.measure is None:
        return cuda_scalars.rows_kernel(rule, np.dtype(dtype), kinds, measuring)
    if rule.measure.over == "all":
        return cuda_scalars.conclude_kernel(rule, np.dtype(dtype), kinds)
    return cuda_scalars.finish_kernel(rule, np.dtype(dtype), kinds)


@each_rule
def test_scalars(rule):
    if rule.scalars is None:
        pytest.skip("they are the hyperparameters")
    code = ptx(scalars_kernel(rule, RULES[rule], "float32"))
    assert matching(code, r"(?:fma|add|sub|mul|div)\.(?:rn\.)?f32") == []  # in double, as on the host
    if rule.measure is not None and rule.measure.scalars is not None:
        ptx(scalars_kernel(rule, RULES[rule], "float32", measuring=True))


def test_others():
    for kernel in (
        *(cuda_kernels.measure_kernel(SQUARES, np.dtype(dtype)) for dtype in ("float32", "float64")),
        cuda_kernels.measure_kernel(SQUARES, np.dtype("float32"), Storage(FLOAT32, BFLOAT16), True),
        cuda_kernels.update_kernel(ADAMW, np.dtype("float32"), True, STORAGES["float8"], True),
        *(
            cuda_kernels.swap_kernel(BY_ID["momentum"].rule, np.dtype(name))
            for name in ("float32", "float64")
        ),
        cuda_scalars.roots_kernel(SQUARES, np.dtype("float32")),
        cuda_scalars.spread_kernel(9, np.dtype("float64")),
    ):
        check_registers(ptx(kernel))
    ptx(cuda_scalars.guard_kernel(WINDOW, EPS))


@pytest.mark.skipif(assembler() is None, reason="NVIDIA's assembler, ptxas, is not here")
@each_dtype
@each_rule
def test_registers_are_enough(rule, dtype, tmp_path):
    registers, spilled = assembled(update(rule, dtype), tmp_path)
    assert registers <= 128  # two blocks of threads at once, at the least
    assert spilled == 0


# That these would notice.


def test_a_double_is_noticed():
    def literal(p, g, lr):
        return p - 0.5 * lr * g

    assert matching(update(Rule(literal)), r"mul\.f64")


@pytest.mark.skipif(cuda._is_numba(), reason="Numba's own compiles no defaults of arguments")
def test_three_are_compared():
    def clipped(p, g, lr):
        return p - max(min(g, lr, p), -lr, -p)

    code = update(Rule(clipped))
    assert matching(code, r"(?:max|min)\.f32") == []
    assert len(matching(code, r"selp\.f32")) == 4 * 5
