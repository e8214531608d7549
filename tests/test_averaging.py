"""Averages of the parameters: what they hold, as views, and in the parameters' place."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from fastopt.averaged import idle
from fastopt.engine import MatrixRule, threads
from fastopt.engine.kernel import compile_clearing, compile_launch
from tests.algorithms.cases import (
    BY_ID,
    LAYOUTS,
    assert_same,
    assert_same_history,
    draw,
    each_dtype,
    history,
    leaves,
    parameters,
    step,
    values,
)
from tests.modified import UNCOMPILED

AVERAGES = {
    "ema_decay": 0.9, "ema_warmup": True, "swa_start": 1, "swa_every": 2, "lookahead_steps": 3, "max_grad_value": 1.0,
}  # fmt: skip
NAMES = ["ema", "swa", "slow"]
#: Of every kind: elementwise, measured by row and all together, and matrices.
KINDS = [BY_ID[name] for name in ("adamw", "adam_mini_by_row", "prodigy", "muon")]
each_kind = pytest.mark.parametrize("case", KINDS, ids=lambda case: case.id)


def descend(p, g, lr):
    return p - lr * g


class Fused(fastopt.Optimizer):
    """Gradient descent whose averages are kept in the update."""

    rule = fastopt.Rule(descend)
    defaults = {"lr": 0.1}


def descend_whole(p, g, state, workspace, lr):
    p -= lr * g


class Apart(fastopt.Optimizer):
    """The same as a rule for matrices: its averages are kept in passes of their own."""

    defaults = {"lr": 0.1}

    @classmethod
    def choose_rule(cls, group):
        return MatrixRule(descend_whole)


# What they hold.


@each_dtype
@pytest.mark.parametrize(("start", "every"), [(0, 1), (2, 1), (0, 3), (3, 2)])
def test_swa_is_the_mean_of_what_counts(start, every, dtype):
    rng = np.random.default_rng(0)
    w = draw(rng, 9, dtype)
    opt = fastopt.SGD(w, lr=0.1, swa_start=start, swa_every=every)
    kept = []
    for i in range(9):
        opt.step(draw(rng, 9, dtype))
        if i >= start and (i - start) % every == 0:
            kept.append(w.astype(float))
        assert opt.state[0]["n_averaged"] == len(kept)
        if len(kept) == 1:
            assert np.array_equal(opt.averages(), kept[0])  # a copy, bit for bit
        if kept:
            scale = np.abs(kept).max(axis=0) * np.finfo(dtype).eps
            assert (np.abs(opt.averages() - np.mean(kept, axis=0)) <= 4 * scale).all()
        else:
            assert opt.averages() is None


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=UNCOMPILED)])
def test_the_update_and_the_passes_average_alike(dtype, warm):
    """Bit for bit; also of what is subnormal, infinite or no number."""
    start = np.array([1.0, -0.0, 3e-38, np.inf, 5.0, 1e-3], dtype)
    start[2] = np.finfo(dtype).smallest_normal
    grads = [np.array([0.5, 0.0, 0.0, 1.0, np.nan if i == 3 else 1.0, 1e-3], dtype) for i in range(7)]
    for every in (1, 2):
        changes = {"ema_warmup": warm, "swa_every": every, "max_grad_value": 0.75}
        found = [history(cls(start.copy(), **{**AVERAGES, **changes}), grads) for cls in (Fused, Apart)]
        assert_same_history(*found)


@pytest.mark.parametrize("cls", [Fused, Apart, fastopt.DoG])
def test_each_array_counts_its_own_steps(cls):
    w = [np.full(2, float(i)) for i in range(3)]
    opt = cls(w, lr=1.0, swa_start=1)
    for present in ([0, 1], [0], [0, 1], [1]):
        opt.step([np.ones(2) if i in present else None for i in range(3)])
    assert [int(n) for n in opt.state[0]["n_averaged"]] == [2, 2, 0]
    assert opt.averages()[2] is None
    if cls is not fastopt.DoG:
        assert opt.averages()[0].tolist() == [-2.5, -2.5]  # of -2 and -3
        assert opt.averages()[1].tolist() == [-1.5, -1.5]  # of 1 - 2 and 1 - 3


@pytest.mark.parametrize("cls", [Fused, Apart])
def test_it_begins_when_it_is_switched_on(cls):
    w = np.zeros(2)
    opt = cls(w, lr=1.0)
    for _ in range(5):
        opt.step(np.ones(2))
    group = opt.param_groups[0]
    group["swa_start"] = 2
    for _ in range(3):
        opt.step(np.ones(2))
    assert opt.averages().tolist() == [-7.0, -7.0]  # of -6, -7, -8
    group["swa_start"] = 9  # goes on from there
    opt.step(np.ones(2))
    assert opt.averages().tolist() == [-7.0, -7.0]
    opt.step(np.ones(2))
    assert opt.averages().tolist() == [-7.75, -7.75]
    group["swa_start"] = None
    opt.step(np.ones(2))
    assert "swa" not in opt.state[0]
    assert "n_averaged" not in opt.state[0]


@pytest.mark.jit
@pytest.mark.parametrize("zero_grads", [False, True])
def test_steps_that_do_not_count_cost_nothing(zero_grads):
    pack = fastopt.pack(np.zeros(9))
    opt = fastopt.SGD(pack, swa_start=1, swa_every=2, zero_grads=zero_grads)
    for i in range(6):
        pack.flat_grads[:] = 1.0
        opt.step()
        (launch,) = opt._arrangement.launches
        rule = launch.rule if i % 2 else idle(launch.rule)
        compiled = compile_clearing if zero_grads else compile_launch
        assert launch.batch.launch is compiled(rule, np.dtype(float))
        assert pack.flat_grads.any() != zero_grads
    assert opt.state[0]["n_averaged"] == 3


def test_a_part_of_a_launch_can_be_due():
    w = [np.zeros(2), np.zeros(2)]
    opt = Fused([{"params": w[0]}, {"params": w[1], "swa_every": 2}], lr=1.0, swa_start=0)
    opt.step([np.ones(2), np.ones(2)])
    w[1][:] = np.nan, np.inf
    opt.step([np.ones(2), np.ones(2)])
    assert len(opt._arrangement.launches) == 1
    assert [each.tolist() for each in opt.averages()] == [[-1.5, -1.5], [-1.0, -1.0]]


def test_a_skipped_step_does_not_count():
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, swa_start=0, skip_nonfinite=True)
    for grad in (1.0, np.nan, 1.0):
        opt.step(np.full(2, grad))
    assert opt.state[0]["n_averaged"] == 2
    assert opt.averages().tolist() == [-1.5, -1.5]


def test_warm_up():
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=1.0, ema_decay=lambda count: 0.9 if count < 100 else 0.5, ema_warmup=True)
    ema = 0.0
    for t in range(1, 103):
        opt.step(np.ones(1))
        decay = min(0.9 if t <= 100 else 0.5, (1 + t) / (10 + t))
        ema = decay * ema + (1 - decay) * -t
        np.testing.assert_allclose(opt.averages(), [ema], rtol=1e-14)


# As views.


def test_averages_have_the_structure_of_the_parameters():
    params = {"w": np.ones((2, 3)), "more": [np.ones(2), np.asfortranarray(np.ones((3, 2)))]}
    opt = fastopt.SGD(params, lr=0.5, ema_decay=0.5)
    ema = opt.averages("ema")
    assert list(ema) == ["w", "more"]
    assert ema["more"][1].flags.f_contiguous
    opt.step({"w": np.ones((2, 3)), "more": [np.ones(2), np.ones((3, 2))]})
    assert ema["w"].tolist() == [[0.75] * 3] * 2  # later steps are seen: they are views
    assert all(map(np.shares_memory, leaves(ema), leaves(opt.state[0]["ema"])))


def test_averages_of_groups():
    w = [np.ones(2), np.ones(3), np.ones(4)]
    groups = [{"params": w[:2]}, {"params": w[2], "ema_decay": 0.0}]
    opt = fastopt.SGD(groups, lr=0.5, ema_decay=0.5, frozen="1")
    opt.step([[np.ones(2), None], np.ones(4)])
    (first, second), third = opt.averages()
    assert first.tolist() == [0.75, 0.75]
    assert second is None  # it is frozen
    assert third is None
    with opt.averaged_parameters() as shown:
        assert [[each.tolist() for each in shown[0]], shown[1].tolist()] == [[[0.75] * 2, [1] * 3], [0.5] * 4]
    opt.add_param_group({"params": np.ones(1)})
    assert opt.averages()[2].tolist() == [1.0]


@pytest.mark.parametrize("name", ["ema", "slow"])
def test_before_the_first_step_they_are_the_parameters(name):
    w = np.zeros(3)
    opt = fastopt.SGD(w, ema_decay=0.5, lookahead_steps=2)
    w[:] = [1.0, 2.0, 3.0]  # loaded after the optimizer was made
    assert opt.averages(name).tolist() == [1, 2, 3]
    w[:] = 4.0
    with opt.averaged_parameters(name):
        assert w.tolist() == [4, 4, 4]
    assert w.tolist() == [4, 4, 4]


def test_what_was_just_switched_on_is_there():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(np.ones(3))
    opt.param_groups[0]["ema_decay"] = 0.5
    assert opt.averages().tolist() == [-1.0] * 3


# In the parameters' place.


def made(case, options, layout="C", dtype="float64", **more):
    """Return an optimizer, its arrays, and gradients for some steps."""
    rng = np.random.default_rng(1)
    shapes = [(6, 5), (4, 4), (7, 1)]
    params = [LAYOUTS[layout](draw(rng, shape, dtype)) for shape in shapes]
    grads = [[draw(rng, shape, dtype) for shape in shapes] for _ in range(6)]
    return case.optimizer(params, **options, **more), params, grads


@each_kind
@pytest.mark.parametrize("name", NAMES)
def test_they_change_places_and_back(case, name):
    opt, params, grads = made(case, AVERAGES)
    history(opt, grads)
    before, averages = values(opt), [average.copy() for average in opt.averages(name)]
    with opt.averaged_parameters(name) as shown:
        assert shown is params
        assert all(map(np.array_equal, params, averages))
    assert_same(values(opt), before)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "misaligned"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_layout(layout, dtype):
    opt, params, grads = made(BY_ID["sgd"], {"ema_decay": 0.9}, layout, dtype)
    history(opt, grads)
    before, averages = values(opt), [average.copy() for average in opt.averages()]
    with opt.averaged_parameters():
        assert all(map(np.array_equal, params, averages))
    assert_same(values(opt), before)


def bits(array):
    return array.view(f"u{array.itemsize}").tolist()


@given(
    w=st.sampled_from(["float32", "float64"]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.integers(1, 40), elements={"allow_subnormal": True})
    ),
    strided=st.booleans(),
)
@settings(max_examples=50)
def test_bit_for_bit(w, strided):
    """Subnormals, signed zeros, infinities and every NaN come back."""
    array = LAYOUTS["strided"](w) if strided else w.copy()
    opt = fastopt.SGD(array, lr=0.0, ema_decay=0.5)
    with np.errstate(all="ignore"):
        opt.step(np.zeros_like(w))
    array[...] = w
    before, average = bits(array), bits(opt.averages())
    with opt.averaged_parameters():
        assert bits(array) == average
        assert bits(opt.state[0]["ema"]) == before
    assert bits(array) == before
    assert bits(opt.state[0]["ema"]) == average


@pytest.mark.jit
def test_threads_and_packs(monkeypatch):
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    monkeypatch.setattr(threads, "CHUNK", 1 << 10)
    rng = np.random.default_rng(0)
    pack = fastopt.pack([draw(rng, n, "float32") for n in (5000, 3, 1025, 0)])
    opt = fastopt.SGD(pack, threads=3, ema_decay=0.5)
    pack.flat_grads[:] = draw(rng, pack.size, "float32")
    opt.step()
    before = values(opt)
    with opt.averaged_parameters() as shown:
        assert shown is pack
        assert all(map(np.array_equal, pack.params, [one["ema"] for one in before]))
    assert_same(values(opt), before)


def test_an_exception_brings_the_parameters_back():
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, ema_decay=0.5)
    opt.step(np.ones(2))
    seen = []
    with pytest.raises(KeyError, match="lost"), opt.averaged_parameters():
        raise KeyError("lost", seen.append(w.tolist()))
    assert seen == [[-0.5, -0.5]]
    assert w.tolist() == [-1.0, -1.0]
    opt.step(np.ones(2))
    assert w.tolist() == [-2.0, -2.0]


@each_kind
def test_evaluation_changes_nothing_of_what_follows(case):
    opt, _, grads = made(case, AVERAGES)
    want = history(opt, grads)
    opt, _, grads = made(case, AVERAGES)
    found = []
    for given_grads in grads:
        step(opt, given_grads)
        found.append(values(opt))
        for name in NAMES:
            with opt.averaged_parameters(name):
                pass
    assert_same_history(found, want)


def test_arrays_without_an_average_keep_their_values():
    w = [np.zeros(2), np.zeros(2)]
    opt = fastopt.SGD(w, lr=1.0, swa_start=1)
    opt.step([np.ones(2), np.ones(2)])
    opt.step([np.ones(2), None])
    opt.step([np.ones(2), None])
    with opt.averaged_parameters():
        assert [each.tolist() for each in w] == [[-2.5, -2.5], [-1.0, -1.0]]
    assert [each.tolist() for each in w] == [[-3.0, -3.0], [-1.0, -1.0]]


@pytest.mark.parametrize(
    ("what", "does"),
    [
        ("step() cannot be called", lambda opt: opt.step(np.ones(2))),
        ("state_dict() cannot be called", lambda opt: opt.state_dict()),
        ("load_state_dict() cannot be called", lambda opt: opt.load_state_dict({})),
        ("save() cannot be called", lambda opt: opt.save("nowhere.npz")),
        ("SGD cannot be copied", copy.deepcopy),
        ("SGD cannot be copied", pickle.dumps),
        ("add_param_group() cannot be called", lambda opt: opt.add_param_group({"params": np.ones(1)})),
        ("averages() cannot be called", lambda opt: opt.averages()),
        ("averaged_parameters() cannot be called", lambda opt: opt.averaged_parameters().__enter__()),
    ],
    ids=lambda value: value.split("()")[0] if isinstance(value, str) else "",
)
def test_what_needs_the_parameters_is_refused(what, does):
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, ema_decay=0.5)
    opt.step(np.ones(2))
    with opt.averaged_parameters(), pytest.raises(RuntimeError) as caught:
        does(opt)
    assert str(caught.value) == f"{what} inside averaged_parameters(): leave the block first"
    assert w.tolist() == [-1.0, -1.0]
    assert opt.step_count == 1


# Going on elsewhere.


@each_kind
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict"])
def test_a_copy_goes_on_as_the_original_does(case, way):
    opt, params, grads = made(case, AVERAGES)
    for given_grads in grads[:4]:
        step(opt, [given_grads[0], None, given_grads[2]])
    if way == "pickle":
        twin = pickle.loads(pickle.dumps(opt))
    elif way == "deepcopy":
        twin = copy.deepcopy(opt)
    else:
        twin, twins, _ = made(case, AVERAGES)
        for mine, other in zip(twins, params, strict=True):
            mine[...] = other
        twin.load_state_dict(opt.state_dict())
    assert [float(np.max(n)) for n in twin.state[0]["n_averaged"]] == [2, 0, 2]
    assert_same_history(history(twin, grads), history(opt, grads))


# What cannot be.


@pytest.mark.parametrize(
    ("options", "which", "why"),
    [
        (
            {}, None,
            "SGD keeps no averages here: ask for some with ema_decay, swa_start or lookahead_steps",
        ),
        ({}, "ema", "SGD keeps no averages here: ask for some with ema_decay, swa_start or lookahead_steps"),
        (AVERAGES, None, "which must say which averages are meant: there are 'ema', 'swa', 'slow'"),
        ({"ema_decay": 0.5}, "swa", "which must name averages that are kept: 'ema'; got 'swa'"),
        (AVERAGES, "z", "which must be one of 'ema', 'swa', 'slow', or None; got 'z'"),
        (AVERAGES, 1, "which must be one of 'ema', 'swa', 'slow', or None; got 1"),
    ],
)  # fmt: skip
def test_which(options, which, why):
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, **options)
    for ask in (opt.averages, lambda which: opt.averaged_parameters(which).__enter__()):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            ask(which)
        assert str(caught.value) == why


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"swa_start": -1}, ValueError, "swa_start must be a whole number >= 0, or None; got -1"),
        ({"swa_start": 1.5}, ValueError, "swa_start must be a whole number >= 0, or None; got 1.5"),
        ({"swa_start": "3"}, TypeError, "swa_start must be a whole number >= 0, or None; got '3'"),
        ({"swa_every": 0}, ValueError, "swa_every must be a whole number >= 1; got 0"),
        ({"swa_every": None}, TypeError, "swa_every must be a whole number >= 1; got None"),
        ({"ema_warmup": 2000}, TypeError, "ema_warmup must be True or False, got 2000"),
    ],
)
def test_values_are_checked(options, error, why):
    with pytest.raises(error) as caught:
        fastopt.SGD(np.ones(3), **options)
    assert str(caught.value) == why


@pytest.mark.parametrize("name", ["swa_start", "swa_every"])
def test_no_schedules(name):
    with pytest.raises(TypeError, match=f"{name} must be a whole number"):
        fastopt.SGD(np.ones(3), **{name: lambda count: 3})


@pytest.mark.parametrize(
    "make", [fastopt.ScheduleFreeSGD, lambda w, **options: fastopt.ScheduleFreeSGD.kernel(**options)]
)
@pytest.mark.parametrize("option", ["ema_decay", "swa_start"])
def test_schedule_free_methods_average_already(make, option):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make(np.ones(3), **{option: 0.0 if option == "swa_start" else 0.5})
    assert str(caught.value) == f"ScheduleFreeSGD averages already: no {option}, which would average y"


@pytest.mark.parametrize("option", ["ema_decay", "swa_start", "lookahead_steps"])
def test_no_averages_of_rows(option):
    opt = fastopt.SGD(np.ones((3, 2)), **{option: 0 if option == "swa_start" else 1})
    why = f"grads cannot be Rows: SGD takes them without {option} only, got {option}="
    with pytest.raises(ValueError, match=why):
        opt.step(fastopt.Rows([1], np.ones((1, 2))))


# Kernels.


def test_a_kernel_averages_too():
    rng = np.random.default_rng(0)
    w, grads = rng.standard_normal(99), rng.standard_normal((7, 99))
    options = {"ema_decay": 0.9, "ema_warmup": True, "swa_start": 2, "swa_every": 2, "max_grad_value": 1.0}
    kernel = fastopt.SGD.kernel(lr=0.1, **options)
    v, ema, swa, n = w.copy(), w.copy(), np.zeros(99), np.zeros(1)
    opt = fastopt.SGD(w, lr=0.1, **options)
    for i, grad in enumerate(grads):
        opt.step(grad)
        kernel(v, grad, ema, swa, n, i + 1)
    assert np.array_equal(v, w)
    assert np.array_equal(ema, opt.averages("ema"))
    assert np.array_equal(swa, opt.averages("swa"))
    assert n == 3


def test_no_kernel_where_it_would_not_average():
    why = "a kernel cannot have swa_start: it takes place outside of the update"
    with pytest.raises(ValueError, match=why):
        fastopt.Prodigy.kernel(swa_start=3)


def test_the_parameters_are_those_of_the_optimizer():
    w = np.zeros(2)
    opt = fastopt.SGD(w, ema_decay=0.5)
    assert parameters(opt)[0] is w
    with opt.averaged_parameters() as shown:
        assert shown is w
