"""Gradients that are scaled by their rows and columns: the passes, wherever the numbers lie."""

import numpy as np
import pytest

from fastopt import Adafactor
from fastopt.engine import MatrixRule, Rule, Workspace, threads
from fastopt.engine.plain import COPY
from fastopt.engine.scaled import Scaled
from fastopt.engine.tiles import Scaling, compile_scaled
from tests.algorithms.cases import each_dtype
from tests.compiled_here import compiled_here

SCALING = Adafactor.of_matrices.scaling
LARGEST, SHARES, EPS = 3.0, (0.75, 0.25), (0.01,)


def doubled(p, g, factor):
    return factor * g


DOUBLED = Rule(doubled)


def arrays(shape, dtype, order="C"):
    """Return parameters, a gradient, and averages of rows and columns."""
    rng = np.random.default_rng(0)
    param, grad = (np.asarray(rng.standard_normal(shape), dtype, order=order) for _ in range(2))
    rows, columns = (rng.uniform(0.1, 1.0, own) for own in ((*shape[:-1], 1), (*shape[:-2], 1, shape[-1])))
    return param, grad, rows.astype(dtype), columns.astype(dtype)


def flat(array):
    return array.reshape(-1, order="A")


def step(
    param,
    grad,
    rows,
    columns,
    max_threads=1,
    gather=COPY,
    scalars=(),
    clears=False,
    largest=LARGEST,
    shares=SHARES,
):
    """Take a step in place, and return the norms."""
    scaled = Scaled(gather, SCALING, param, flat(grad), Workspace(max_threads), clears)
    scaled.set_scalars(-1.0, scalars)
    with np.errstate(all="ignore"):
        norms = scaled.ready().average(rows, columns, shares, EPS, largest)
        scaled.apply((0.5, 0.125))
    return norms


def wanted(param, grad, rows, columns, largest=LARGEST):
    """Return what a step makes of float64 copies, and the norms."""
    param, grad, rows, columns = (np.asarray(each, float) for each in (param, -grad, rows, columns))
    rows = 0.75 * rows + 0.25 * (grad**2).mean(-1, keepdims=True)
    columns = 0.75 * columns + 0.25 * (grad**2).mean(-2, keepdims=True)
    factor = np.sqrt(np.maximum(rows.mean(-2, keepdims=True), EPS[0]) / (rows * columns))
    scaled = grad * np.minimum(factor, largest)
    return (param - (0.125 * param + 0.5 * scaled), rows, columns), (
        np.linalg.norm(param),
        np.linalg.norm(scaled),
    )


SHAPES = [
    (1, 1), (5, 3), (1, 17), (17, 1), (9, 64), (2, 3, 4), (2, 1, 3, 5), (3, 2, 4, 1), (1, 1, 2, 3)
]  # fmt: skip
#: Of several tiles: below each other, beside each other, and both; in groups of matrices.
LARGE = [(300, 700), (20_000, 9), (3, 40_000), (70, 4100), (2, 50, 3000), (2000, 8, 9)]


@each_dtype
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [*SHAPES, *(pytest.param(shape, marks=pytest.mark.jit) for shape in LARGE)])
def test_a_step(shape, order, dtype):
    given = arrays(shape, dtype, order)
    want, norms = wanted(*given)
    found = step(*given)
    param, _, rows, columns = given
    rtol = 1e-5 if dtype == "float32" else 1e-13
    for got, exact in zip((param, rows, columns), want, strict=True):
        np.testing.assert_allclose(got, exact, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found, norms, rtol=rtol)


@each_dtype
@pytest.mark.jit
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", LARGE)
def test_any_number_of_threads_gives_the_same(shape, order, dtype, monkeypatch):
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    launches, run = [], threads.run
    monkeypatch.setattr(threads, "run", lambda *given: launches.append(given[3]) or run(*given))
    found = []
    for count in (1, 2, 3):
        param, grad, rows, columns = arrays(shape, dtype, order)
        norms = step(param, grad, rows, columns, max_threads=count)
        found.append((param.tobytes(), rows.tobytes(), columns.tobytes(), norms))
    assert found[1] == found[0]
    assert found[2] == found[0]
    assert launches.count(2) >= 4


def test_the_gradient_is_gathered_on_the_way_and_cleared():
    given = arrays((5, 3), "float64")
    want, _ = wanted(given[0], 2.0 * given[1], *given[2:])
    step(*given, gather=DOUBLED, scalars=(2.0,), clears=True)
    np.testing.assert_allclose(given[0], want[0], rtol=1e-13)
    assert not given[1].any()


@each_dtype
def test_averages_that_become_subnormal_are_zero(dtype):
    tiny = np.finfo(dtype).smallest_normal
    param, grad, rows, columns = arrays((3, 2), dtype)
    grad[...], rows[...], columns[...] = 0.0, tiny, [[1.25 * tiny, 8 * tiny]]
    before = param.copy()
    step(param, grad, rows, columns)
    assert rows.tolist() == [[0.0]] * 3
    assert columns.tolist() == [[0.0, 6 * tiny]]
    np.testing.assert_array_equal(param, before - 0.125 * before)


@pytest.mark.parametrize("size", [1e-250, 1e160, 1e300])
def test_norm_of_parameters_does_not_overflow(size):
    param, *rest = arrays((5, 3), "float64")
    want = size * np.linalg.norm(param)
    param *= size
    assert step(param, *rest)[0] == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize("largest", [1.0, 1e150, 1e170, 1e300])
def test_norm_of_the_gradient_does_not_overflow(largest):
    """The averages are, and stay, so small that only the limit holds."""
    param, grad, rows, columns = arrays((5, 3), "float64")
    rows[...], columns[...] = 0.0, 0.0
    want = param - (0.125 * param - 0.5 * largest * grad)
    _, norm = step(param, grad, rows, columns, largest=largest, shares=(1.0, 0.0))
    assert norm == pytest.approx(largest * np.linalg.norm(grad), rel=1e-12)
    np.testing.assert_allclose(param, want, rtol=1e-12)


@each_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays(value, dtype):
    param, grad, rows, columns = arrays((5, 3), dtype)
    grad[2, 1] = value
    step(param, grad, rows, columns)
    assert not np.isfinite(param[2, 1])
    assert not np.isfinite(rows[2, 0])
    assert not np.isfinite(columns[0, 1])
    assert np.isfinite(np.delete(rows, 2)).all()


def test_too_large_a_multiplier():
    scaled = Scaled(COPY, SCALING, np.ones((2, 2), np.float32), None, Workspace(1))
    with pytest.raises(OverflowError):
        scaled.set_scalars(1e39, ())
    with pytest.raises(TypeError, match="must come as a tuple of 0 values, all numbers"):
        scaled.set_scalars(1.0, (1.0,))


def test_rules_with_state_cannot_scale():
    with pytest.raises(
        TypeError, match="rule 'step' scales gradients: `gather` and `update` can have no state"
    ):
        MatrixRule(step, scaling=Scaling(SCALING.average, SCALING.row, SCALING.column, Rule(kept, ("s",))))


def kept(p, g, s):
    return p - g, s


@pytest.mark.jit
def test_only_sums_are_reordered():
    from tests.algorithms.test_compiled import ARM, X86, fused, relaxed, vectors

    launch = compiled_here(compile_scaled, COPY, SCALING, np.dtype("float32"), False, False)
    (signature,) = launch.signatures
    operations, asm = relaxed(launch.inspect_llvm(signature)), launch.inspect_asm(signature)
    assert operations
    assert all(each.startswith("fadd reassoc ") for each in operations)
    if X86 or ARM:
        assert fused(asm) == []
        assert vectors(asm, "mul", "float32")
        assert vectors(asm, "add", "float64")
