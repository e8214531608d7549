"""``max_grad_value`` is a clip of each element of the gradient, before anything else sees it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from tests.algorithms.cases import (
    BY_ID,
    LAYOUTS,
    Closeness,
    assert_same,
    assert_same_history,
    draw,
    history,
    step,
    values,
)
from tests.modified import fast

LIMIT = 0.75
#: Of every kind: elementwise, measured by tensor, by row and all together, and matrices.
KINDS = [
    BY_ID[name]
    for name in (
        "adamw",
        "nag",
        "lamb",
        "adam_mini_by_row",
        "prodigy",
        "muon",
        "soap",
        "adafactor",
    )
]


def last_step(gradient, dtype="float64", **options):
    """Return how far a step of gradient descent goes."""
    w = np.zeros(np.shape(gradient), dtype)
    fastopt.SGD(w, lr=1.0, **options).step(np.asarray(gradient, dtype))
    return (-w).tolist()


@fast(KINDS, "nag", "lamb", "prodigy", "muon", "soap", "adafactor")
def test_the_same_as_a_gradient_that_was_clipped(case):
    """Bit for bit, but for sums: the compiler chooses their order."""
    rng = np.random.default_rng(0)
    shape = (5, 4) if case.axes == 2 else (20,)
    w = draw(rng, shape, "float64")
    grads = [draw(rng, shape, "float64") for _ in range(6)]
    assert np.abs(grads).max() > LIMIT
    clipped = history(case.optimizer(w.copy(), max_grad_value=LIMIT), grads)
    plain = history(case.optimizer(w.copy()), [np.clip(grad, -LIMIT, LIMIT) for grad in grads])
    if case.over in ("element", "matrix"):
        assert_same_history(clipped, plain)
        return
    close = Closeness(100, [w])
    for got, want in zip(clipped, plain, strict=True):
        close.check(got, want)


@pytest.mark.parametrize("options", [{"cautious": True}, {"ema_decay": 0.5, "lookahead_steps": 2}])
def test_other_modifiers_see_what_is_clipped(options):
    rng = np.random.default_rng(0)
    w, grads = draw(rng, 20, "float64"), [draw(rng, 20, "float64") for _ in range(6)]
    clipped = history(fastopt.AdamW(w.copy(), **options, max_grad_value=LIMIT), grads)
    plain = history(fastopt.AdamW(w.copy(), **options), [np.clip(grad, -LIMIT, LIMIT) for grad in grads])
    assert_same_history(clipped, plain)


@given(
    grad=st.sampled_from(["float32", "float64"]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.integers(1, 40), elements={"allow_subnormal": True})
    ),
    limit=st.floats(2**-120, 2**100, width=32),
    strided=st.booleans(),
)
@settings(max_examples=50)
def test_any_gradient(grad, limit, strided):
    """NaN stays, and infinity becomes the limit; what is within is not changed by a bit."""
    w = np.zeros_like(grad)
    given_grad = LAYOUTS["strided"](grad) if strided else grad
    fastopt.SGD(w, lr=1.0, max_grad_value=limit).step(given_grad)
    want = np.zeros_like(grad) - np.clip(grad, grad.dtype.type(-limit), grad.dtype.type(limit))
    np.testing.assert_array_equal(w, want)


def test_what_is_not_finite():
    assert last_step([np.inf, -np.inf, 3.0, -3.0, 1.0], max_grad_value=2.0) == [2, -2, 2, -2, 1]
    assert np.isnan(last_step([np.nan], max_grad_value=2.0)).all()


def test_after_the_scale_and_the_sign():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0, max_grad_value=2.0, maximize=True)
    opt.step(np.array([100.0, 10.0, -100.0]), grad_scale=10.0)
    assert w.tolist() == [2, 1, -2]


def test_after_the_norm():
    assert last_step([30.0, -40.0], max_grad_norm=5.0, max_grad_value=3.5) == pytest.approx([3.0, -3.5])


def test_groups_and_schedules():
    w = [np.zeros(1), np.zeros(1), np.zeros(1)]
    groups = [
        {"params": w[0]},
        {"params": w[1], "max_grad_value": lambda count: 3.0 - count},
        {"params": w[2]},
    ]
    opt = fastopt.SGD(groups, lr=1.0, max_grad_value=0.5)
    opt.param_groups[2]["max_grad_value"] = None
    for _ in range(2):
        opt.step([np.full(1, 9.0)] * 3)
    assert [float(each[0]) for each in w] == [-1.0, -5.0, -18.0]
    opt.param_groups[0]["max_grad_value"] = 2.0
    opt.step([np.full(1, 9.0), None, None])
    assert float(w[0][0]) == -3.0


@pytest.mark.parametrize(
    ("cls", "hyper"), [(fastopt.SGD, {}), (fastopt.SparseAdam, {}), (fastopt.FTRL, {"l1": 0.1})]
)
def test_rows(cls, hyper):
    """What is given for one row several times is added up first."""
    rng = np.random.default_rng(0)
    start, found = rng.standard_normal((4, 3)), []
    for rows, numbers, options in (
        ([1, 3, 1], [0.3, -9.0, 0.6], {"max_grad_value": LIMIT}),
        ([1, 3], [LIMIT, -LIMIT], {}),
    ):
        opt = cls(start.copy(), lr=0.1, **hyper, **options)
        opt.step(fastopt.Rows(rows, np.array(numbers)[:, None] * np.ones((1, 3))))
        found.append(values(opt))
    assert_same(*found)


def test_a_kernel_clips():
    kernel = fastopt.SGD.kernel(lr=1.0, max_grad_value=2.0)
    w = np.zeros(3)
    kernel(w, np.array([5.0, -5.0, 1.0]), 1)
    kernel(w, np.array([5.0, -5.0, 1.0]), 2, max_grad_value=1.0)
    assert w.tolist() == [-3.0, 3.0, -2.0]


def test_measured_values_are_clipped_in_a_kernel():
    rng = np.random.default_rng(0)
    w, grad = rng.standard_normal(99), 9 * rng.standard_normal(99)
    v, state = w.copy(), [np.zeros(99), np.zeros(99)]
    opt = fastopt.LAMB(w, max_grad_value=1.0)
    step(opt, grad)
    fastopt.LAMB.kernel(max_grad_value=1.0)(v, grad, *state, 1)
    np.testing.assert_allclose(v, w, rtol=1e-13)


# Errors.


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0.0, ValueError),
        (-1, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_values_are_checked(value, error):
    with pytest.raises(error) as caught:
        fastopt.SGD(np.ones(3), max_grad_value=value)
    wanted = "max_grad_value must be a finite number > 0, or a schedule of such, or None"
    assert str(caught.value) == f"{wanted}; got {value!r}"


@pytest.mark.parametrize(("value", "error"), [(None, TypeError), (0.0, ValueError)])
def test_a_schedule_gives_limits_always(value, error):
    w = np.ones(3)
    opt = fastopt.SGD(w, max_grad_value=lambda count: value)
    with pytest.raises(error) as caught:
        opt.step(np.ones(3))
    assert str(caught.value) == f"max_grad_value must be a finite number > 0; got {value!r}"
    assert w.tolist() == [1, 1, 1]


def test_too_large_for_the_dtype():
    w = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="a scalar of this step is too large for the dtype"):
        fastopt.SGD(w, max_grad_value=1e39).step(np.ones(3, np.float32))
    assert w.tolist() == [1, 1, 1]


def test_lbfgs_takes_none():
    with pytest.raises(ValueError, match="LBFGS takes no max_grad_value"):
        fastopt.LBFGS(np.ones(2), max_grad_value=1.0)
