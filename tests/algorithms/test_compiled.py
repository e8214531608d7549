"""The machine code: vectors, the parameters' precision throughout, and nothing that rounds differently."""

import inspect
import math
import platform
import re
from functools import cache

import numpy as np
import pytest

import fastopt
from fastopt import Rule
from fastopt.algorithms import nag
from fastopt.engine import kernel
from fastopt.engine.plain import SQUARES
from tests.algorithms.cases import CASES, each_dtype
from tests.compiled_here import compiled_here, fresh

pytestmark = pytest.mark.jit

X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")
knows_machine = pytest.mark.skipif(not (X86 or ARM), reason="neither x86-64 nor AArch64")


def four(p, g, m, v, d, n, lr, keep, rest, eps):  # more state than any of the built-in ones
    d = keep * d + rest * (g - n)
    m = keep * m + rest * g
    v = keep * v + rest * (d * d)
    return p - lr * (m + d) / (math.sqrt(v) + eps), m, v, d, g


#: With the name of a case, whose process has compiled it; see conftest.py.
RULES = {case.rule: case.id for case in reversed(CASES) if case.scalar}
RULES |= {Rule(nag.move, ("velocity",), writes=()): "nag", Rule(four, ("m", "v", "d", "n")): "four"}


def each(rules):
    given = [pytest.param(rule, id=f"{RULES.get(rule)}-{rule.name}") for rule in rules]
    return pytest.mark.parametrize("rule", given)


each_rule = each(RULES)
each_measuring = each([SQUARES, *(rule for rule in RULES if rule.measure is not None)])


def inspected(launch):
    """Return LLVM's code and the machine's of a launch."""
    (signature,) = launch.signatures
    return launch.inspect_llvm(signature), launch.inspect_asm(signature)


@cache
def code(rule, dtype, compiled=kernel.compile_launch):
    return inspected(compiled_here(compiled, rule, np.dtype(dtype)))


def doubles(llvm):
    return re.findall(r"\bdouble\b", llvm)


def relaxed(llvm):
    """Return the operations that LLVM may reorder or contract, and those that it has contracted."""
    flag = r"\b(?:fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)\b"
    return re.findall(rf"\bf(?:add|sub|mul|div|neg|cmp) {flag}.*|call {flag}.*|llvm\.fma.*", llvm)


def fused(asm):
    """Return the instructions that multiply and add with one rounding."""
    x86, arm = r"\bvfn?m(?:add|sub)\w*", r"\bfn?m(?:add|sub|la|ls)\b"
    return re.findall(x86 if X86 else arm, asm)


def vectors(asm, operation, dtype):
    """Return the instructions that do an operation to as many numbers as a register holds."""
    single = dtype == "float32"
    if X86:
        return re.findall(rf"\bv{operation}p{'s' if single else 'd'}\s.*%[yz]mm", asm)
    return re.findall(rf"\bf{operation}\s+v\d+\.{'4s' if single else '2d'}", asm)


@each_rule
def test_float32_holds_no_double(rule):
    llvm, _ = code(rule, "float32")
    assert "float" in llvm
    assert doubles(llvm) == []


@each_dtype
@each_rule
@knows_machine
def test_no_operation_is_fused_or_reordered(rule, dtype):
    llvm, asm = code(rule, dtype)
    assert relaxed(llvm) == []
    assert fused(asm) == []


@each_dtype
@each_rule
@knows_machine
def test_vectors(rule, dtype):
    _, asm = code(rule, dtype)
    assert vectors(asm, "mul", dtype)
    assert vectors(asm, "sub", dtype)
    assert bool(vectors(asm, "sqrt", dtype)) == ("sqrt" in rule.function.__code__.co_names)
    divides = "/" in inspect.getsource(rule.function) or "sqrt" in rule.function.__code__.co_names
    assert bool(vectors(asm, "div", dtype)) == divides


@each_dtype
@each_measuring
@knows_machine
def test_sums_alone_are_reordered_and_in_vectors(rule, dtype):
    llvm, asm = code(rule, dtype, kernel.compile_measure)
    operations = relaxed(llvm)
    assert operations
    assert all(re.match(r"fadd reassoc (?:double|<\d+ x double>) ", each) for each in operations), operations
    assert fused(asm) == []
    assert vectors(asm, "add", "float64")


@knows_machine
def test_gradients_are_cleared_in_vectors():
    llvm, asm = code(fastopt.SGD.plain, "float32", kernel.compile_clearing)
    assert doubles(llvm) == relaxed(llvm) == fused(asm) == []
    cleared = r"store <\d+ x float> zeroinitializer"
    assert re.search(cleared, llvm)
    plain, _ = code(fastopt.SGD.plain, "float32")
    assert not re.search(cleared, plain)


# That these would notice.


@pytest.mark.parametrize("text", ["0.5 * lr", "lr * 0.1", "lr * (1 - g)", "lr * math.pi"])
def test_a_literal_is_noticed(text):
    names = {"math": math}
    exec(f"def literal(p, g, lr): return p - {text} * g", names)
    with pytest.raises(TypeError, match="rule 'literal' .* computes float32 in double"):
        fresh(kernel.compile_launch, Rule(names["literal"]), np.dtype("float32"))
    llvm, _ = inspected(fresh(kernel.compile_launch, Rule(names["literal"]), np.dtype("float64")))
    assert doubles(llvm)


@knows_machine
def test_fast_math_is_noticed(monkeypatch):
    monkeypatch.setattr(kernel, "OPTIONS", {**kernel.OPTIONS, "fastmath": True})
    llvm, asm = inspected(fresh(kernel.compile_launch, fastopt.Adam.plain, np.dtype("float32")))
    assert relaxed(llvm)
    assert fused(asm)


@knows_machine
def test_scalar_code_is_noticed():
    def sequential(p, g, s, lr):  # a call that LLVM knows no vectors of
        return p - lr * math.erf(g), s

    _, asm = inspected(fresh(kernel.compile_launch, Rule(sequential, ("s",)), np.dtype("float32")))
    assert vectors(asm, "mul", "float32") == []
