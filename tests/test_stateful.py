"""What survives: copies, pickles, state dicts and files go on as the original does."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from fastopt.schedules import Linear, ReduceOnPlateau, Warmup
from tests.algorithms.cases import (
    BY_ID,
    LAYOUTS,
    assert_same,
    assert_same_history,
    draw,
    each_case,
    history,
    parameters,
    values,
)
from tests.modified import ALL

F = np.float32


def lr_schedule(step):
    return 0.01 * (step + 1)


def make_groups():
    rng = np.random.default_rng(0)
    a = {"w": rng.random((3, 4)), "f": np.asfortranarray(rng.random((2, 3)))}
    b = [rng.random(5, F), np.array(1.0)]
    opt = fastopt.Adam([{"params": a, "lr": 0.1}, {"params": b, "amsgrad": True}], lr=lr_schedule)
    return opt, (a, b)


def grads_at(step):
    rng = np.random.default_rng(step)
    some = None if step % 3 == 1 else rng.random((3, 4)) - 0.5
    return [
        {"w": some, "f": rng.random((2, 3)) - 0.5},
        [rng.random(5, F) - F(0.5), np.array(rng.random())],
    ]


# State dicts, pickles, copies.


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict"])
def test_a_copy_goes_on_as_the_original_does(way):
    opt, params = make_groups()
    opt.param_groups[1]["lr"] = lr_schedule
    for step in range(5):
        opt.step(grads_at(step))
    if way == "pickle":
        twin = pickle.loads(pickle.dumps(opt))
    elif way == "deepcopy":
        twin = copy.deepcopy(opt)
    else:
        twin, _ = make_groups()
        twin.load_state_dict(opt.state_dict(params=True))
    assert twin.step_count == 5
    for step in range(5, 9):
        before = values(twin)
        opt.step(grads_at(step))
        assert_same(values(twin), before)
        twin.step(grads_at(step))
        assert_same(values(twin), values(opt))


def test_copies_are_independent():
    w = np.ones(3)
    opt = fastopt.Adam(w)
    opt.step(np.ones(3))
    before = w.copy()
    twin = copy.deepcopy(opt)
    twin.step(np.ones(3))
    np.testing.assert_array_equal(w, before)
    assert not np.shares_memory(twin.state[0]["exp_avg"], opt.state[0]["exp_avg"])


def test_a_pickled_pack_stays_the_optimizers():
    pack = fastopt.pack({"w": np.ones(3, F), "b": np.ones(1, F)})
    pack.flat_grads[:] = 1
    opt = fastopt.SGD([{"params": pack["w"]}, {"params": pack["b"], "lr": 0.5}], lr=1.0)
    twin_pack, twin = pickle.loads(pickle.dumps((pack, opt)))
    twin.step()
    assert twin_pack.flat.tolist() == [0, 0, 0, 0.5]
    assert pack.flat.tolist() == [1, 1, 1, 1]


def test_state_has_the_structure_of_the_parameters():
    opt, _ = make_groups()
    opt.step(grads_at(0))
    first, second = opt.state
    assert set(first) == {"exp_avg", "exp_avg_sq"}
    assert set(second) == {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    assert first["exp_avg"]["f"].shape == (2, 3)
    np.testing.assert_allclose(first["exp_avg"]["f"], 0.1 * grads_at(0)[0]["f"])
    assert second["exp_avg"][0].dtype == F


def test_state_dict_is_plain_and_a_copy():
    opt, params = make_groups()
    opt.step(grads_at(0))
    saved = opt.state_dict(params=True)
    kept = copy.deepcopy(saved)
    opt.step(grads_at(1))
    np.testing.assert_equal(saved, kept)
    assert list(saved) == ["version", "algorithm", "step_count", "param_groups", "options"]
    assert (saved["version"], saved["algorithm"], saved["step_count"]) == (2, "Adam", 1)
    first, second = saved["param_groups"]
    assert first["names"] == ["['w']", "['f']"]
    assert first["shapes"] == [(3, 4), (2, 3)]
    assert second["dtypes"] == ["float32", "float64"]
    assert second["steps"] == [1, 1]
    assert type(second["steps"][0]) is int
    assert first["hyperparameters"]["lr"] == 0.1
    assert "lr" not in second["hyperparameters"]  # a schedule
    assert first["state"]["exp_avg"][1].flags.c_contiguous
    assert [array.dtype for array in second["params"]] == [F, float]
    assert "params" not in opt.state_dict()["param_groups"][0]


def test_steps_stay_whole_numbers(tmp_path):
    opt, _ = make_groups()
    opt.step(grads_at(0))
    opt.save(tmp_path / "run.npz")
    opt.load_state_dict(fastopt.load(tmp_path / "run.npz"))
    opt.step(grads_at(1))
    saved = opt.state_dict()
    steps = [saved["step_count"], *(n for group in saved["param_groups"] for n in group["steps"])]
    assert (steps, {type(n) for n in steps}) == ([2, 1, 2, 2, 2], {int})


# Parameters in a state dict.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_are_restored_in_place(layout):
    rng = np.random.default_rng(0)
    w = LAYOUTS[layout](rng.random((3, 4)))
    opt = fastopt.SGD([w, np.array(2.0)], momentum=0.9)
    opt.step([np.ones((3, 4)), np.array(1.0)])
    saved, expected = opt.state_dict(params=True), w.copy()
    opt.step([np.ones((3, 4)), np.array(1.0)])
    assert not np.array_equal(w, expected)
    opt.load_state_dict(saved)
    np.testing.assert_array_equal(w, expected)
    assert opt.param_groups[0]["params"][0] is w


def test_the_views_of_a_pack_are_restored():
    pack = fastopt.pack({"w": np.ones((2, 2)), "b": np.zeros(3)})
    view = pack.params["w"]
    opt = fastopt.SGD(pack, lr=1.0)
    saved = opt.state_dict(params=True)
    pack.flat_grads[:] = 1
    opt.step()
    opt.load_state_dict(saved)
    assert pack.params["w"] is view
    assert pack.flat.tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert pack.flat_grads.tolist() == [1] * 7


def test_without_parameters_they_are_left_alone(tmp_path):
    w = np.ones(3)
    opt = fastopt.SGD(w, lr=1.0, momentum=0.5)
    opt.step(np.ones(3))
    opt.save(tmp_path / "run.npz", params=False)
    opt.step(np.ones(3))
    opt.load_state_dict(fastopt.load(tmp_path / "run.npz"))
    assert w.tolist() == [-1.5] * 3
    assert opt.state[0]["momentum_buffer"].tolist() == [1.0] * 3


def test_frozen_parameters():
    """They have no state; those that cannot be written must be what they were."""
    fixed = np.full(2, 7.0)
    opt = fastopt.SGD({"w": np.ones(3), "b": np.ones(2), "fixed": fixed}, momentum=0.9, frozen=["b", "fixed"])
    opt.step({"w": np.ones(3), "b": None, "fixed": None})
    saved = opt.state_dict(params=True)
    (group,) = saved["param_groups"]
    assert group["steps"] == [1, 0, 0]
    assert [a is None for a in group["state"]["momentum_buffer"]] == [False, True, True]
    fixed.setflags(write=False)
    others = {"w": np.zeros(3), "b": np.zeros(2), "fixed": fixed}
    twin = fastopt.SGD(others, momentum=0.9, frozen=["b", "fixed"])
    twin.load_state_dict(saved)
    assert_same(values(twin), values(opt))
    assert others["b"].tolist() == [1, 1]
    group["params"][2] = np.array([7.0, 8.0])
    others["w"][:] = 5
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        twin.load_state_dict(saved)
    assert str(caught.value) == (
        "state_dict does not fit: param_groups[0]['params'] of params['fixed'] differs, and params['fixed'] is read-only"
    )
    assert others["w"].tolist() == [5] * 3
    with pytest.raises(ValueError, match="must be an array, got None"):
        fastopt.SGD({"w": np.zeros(3), "b": np.zeros(2), "fixed": np.zeros(2)}, momentum=0.9).load_state_dict(
            opt.state_dict()
        )


# Files.

EXTENSIONS = ["npz", "safetensors"]


@each_case
def test_resuming_from_a_file_is_not_stopping(case, tmp_path):
    """Bit for bit: two groups, two dtypes, gradients that are missing now and then."""
    rng = np.random.default_rng(0)
    shapes = [[("float32", (5, 3)), ("float32", (7,))], [("float64", (2, 3, 4)), ("float64", ())]]

    def new():
        return [[draw(rng, shape, dtype) for dtype, shape in group] for group in shapes]

    def optimizer(arrays, **changes):
        first, second = arrays
        groups = [{"params": {"w": first[0], "b": first[1]}}, {"params": second, "maximize": True}]
        return case.optimizer(groups, **changes)

    params, steps = new(), [new() for _ in range(6)]
    grads = [[{"w": w, "b": None if i == 1 else b}, others] for i, ((w, b), others) in enumerate(steps)]
    opt = optimizer(params)
    history(opt, grads[:3])
    for extension in EXTENSIONS:
        if extension == "safetensors":
            pytest.importorskip("safetensors")
        opt.save(tmp_path / f"run.{extension}")
    want = history(opt, grads[3:])
    for path in tmp_path.iterdir():
        other = optimizer([[np.zeros_like(w) for w in group] for group in params], lr=123.0)
        other.load_state_dict(fastopt.load(path))
        assert other.step_count == 3
        assert_same_history(history(other, grads[3:]), want)


@pytest.mark.jit
@pytest.mark.parametrize("packed", [False, True], ids=["arrays", "pack"])
def test_resuming_with_everything_that_is_added_to_a_rule(packed, tmp_path):
    rng = np.random.default_rng(0)
    params = [draw(rng, shape, F) for shape in ((5, 3), (7,), (0, 2), ())]
    grads = [[draw(rng, w.shape, F) for w in params] for _ in range(12)]
    opt = BY_ID["adamw_amsgrad"].optimizer(fastopt.pack(params) if packed else params, **ALL)
    history(opt, grads[:6])
    opt.save(tmp_path / "run")
    want = history(opt, grads[6:])
    fresh = [np.zeros_like(w) for w in params]
    other = fastopt.AdamW(fastopt.pack(fresh) if packed else fresh)  # the file says what is on
    other.load_state_dict(fastopt.load(tmp_path / "run"))
    assert_same_history(history(other, grads[6:]), want)


@pytest.mark.parametrize("stop", [5, 6])
def test_resuming_with_options(stop, tmp_path):
    """Also between two updates, with gradients added up, and after steps that were left out."""
    rng = np.random.default_rng(0)
    shapes = [((5, 3), "float32"), ((7,), "float64")]
    grads = [[draw(rng, shape, dtype) * F(1024) for shape, dtype in shapes] for _ in range(14)]
    grads[2][1][3] = np.inf
    options = {"max_grad_norm": 0.5, "skip_outliers": 4.0, "accumulate": 2, "max_skips": 3}

    def optimizer(arrays):
        scaler = fastopt.GradScaler(init_scale=1024.0, growth_interval=3)
        groups = [{"params": [w]} for w in arrays]
        return BY_ID["adam"].optimizer(groups, grad_scaler=scaler, **options)

    def run(opt, steps):
        for given in steps:
            opt.step([[grad] for grad in given])
        return [*values(opt), {"scale": np.array(opt.grad_scaler.scale), "norm": np.array(opt.grad_norm)}]

    opt = optimizer([draw(rng, shape, dtype) for shape, dtype in shapes])
    run(opt, grads[:stop])
    assert opt.skipped_nonfinite == 1
    opt.save(tmp_path / "run")
    other = optimizer([np.zeros(shape, dtype) for shape, dtype in shapes])
    other.load_state_dict(fastopt.load(tmp_path / "run"))
    np.testing.assert_equal(other.state_dict(params=True), opt.state_dict(params=True))
    assert_same(run(other, grads[stop:]), run(opt, grads[stop:]))
    np.testing.assert_equal(other.state_dict(params=True), opt.state_dict(params=True))


def there_and_back(opt, path):
    """Return a fresh optimizer with what a file holds of another, and check that the file holds it all."""
    opt.save(path)
    found = fastopt.load(path)
    np.testing.assert_equal(found, opt.state_dict(params=True))
    other = type(opt)(np.zeros_like(opt.param_groups[0]["params"]))
    other.load_state_dict(found)
    np.testing.assert_equal(other.state_dict(params=True), found)
    return other


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lbfgs_in_a_file(dtype, tmp_path):
    def closure_of(opt):
        w = opt.param_groups[0]["params"]
        scale = np.arange(1, 10, dtype=dtype)
        return lambda: (float((scale * w**2).sum() + (w**4).sum()), 2 * scale * w + 4 * w**3)

    opt = fastopt.LBFGS(np.ones(9, dtype), max_iter=3, history_size=4, line_search_fn="strong_wolfe")
    for _ in range(3):
        other = there_and_back(opt, tmp_path / "run.npz")
        assert opt.step(closure_of(opt)) == other.step(closure_of(other))
        assert_same([{"w": parameters(other)[0]}], [{"w": parameters(opt)[0]}])
        np.testing.assert_equal(other.state_dict(), opt.state_dict())


@pytest.mark.parametrize("evaluating", [False, True])
def test_schedule_free_in_a_file(evaluating, tmp_path):
    opt = fastopt.ScheduleFreeAdamW(np.ones(9), lr=0.1)
    opt.step(np.arange(9.0))
    if evaluating:
        opt.eval()
    other = there_and_back(opt, tmp_path / "run.npz")
    for each in (opt, other):
        each.train()
        each.step(np.ones(9))
    assert_same(values(other), values(opt))


# Schedules that have state.


class Countdown:
    """A schedule that goes by what it is told."""

    def __init__(self, value):
        self.told = [value]

    def __call__(self, step):
        return self.told[-1]

    def state_dict(self):
        return vars(self)

    def load_state_dict(self, state):
        self.told = state["told"]
        if self.told[-1] < 0:
            raise ValueError("must be >= 0")


def test_the_state_of_a_schedule_is_saved_and_restored(tmp_path):
    def optimizer():
        plateau = ReduceOnPlateau(0.5, patience=0)
        groups = [
            {"params": [np.ones(2)], "momentum": Countdown(0.9)},
            {"params": [np.ones(3)], "lr": plateau},
        ]
        return fastopt.SGD(groups, lr=lr_schedule), plateau

    opt, plateau = optimizer()
    for metric in (1.0, 2.0):
        plateau.report(metric)
    opt.param_groups[0]["momentum"].told.append(0.25)
    opt.save(tmp_path / "run.npz")
    saved = fastopt.load(tmp_path / "run.npz")
    first, second = saved["param_groups"]
    assert first["schedules"] == {"momentum": {"told": [0.9, 0.25]}}
    assert second["schedules"] == {"lr": plateau.state_dict()}
    assert not {"lr", "momentum"} & set(first["hyperparameters"])
    twin, other = optimizer()
    twin.load_state_dict(saved)
    assert (other.value, other.best) == (0.05, 1.0)
    assert twin.param_groups[0]["momentum"].told == [0.9, 0.25]
    assert twin.param_groups[1]["lr"] is other
    for grads in ([[np.ones(2)], [np.ones(3)]],) * 3:
        opt.step(grads)
        twin.step(grads)
    assert_same(values(twin), values(opt))


def test_the_state_of_a_schedule_is_copied():
    opt, twin = (fastopt.SGD(np.ones(3), lr=Countdown(0.5)) for _ in range(2))
    saved = opt.state_dict()
    twin.load_state_dict(saved)
    for each in (opt, twin):
        each.param_groups[0]["lr"].told.append(0.25)
    assert saved["param_groups"][0]["schedules"] == {"lr": {"told": [0.5]}}


def test_the_state_of_a_schedule_of_one_array():
    def optimizer(keys):
        schedule = Countdown(0.5)
        params = {key: np.ones(2) for key in keys}
        return fastopt.SGD(params, lr=0.1, overrides={"b": {"lr": schedule}}), schedule

    opt, schedule = optimizer("ab")
    schedule.told.append(0.25)
    assert opt.state_dict()["param_groups"][0]["own_schedules"] == [{}, {"lr": {"told": [0.5, 0.25]}}]
    twin, other = optimizer("ba")
    twin.load_state_dict(opt.state_dict())
    assert other.told == [0.5, 0.25]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fastopt.SGD({"a": np.ones(2), "b": np.ones(2)}).load_state_dict(opt.state_dict())
    assert str(caught.value) == (
        "state_dict does not fit: param_groups[0] has the state of a schedule for lr of params['b'], which must "
        "be a schedule with load_state_dict() here too; got None"
    )


def test_a_schedule_whose_state_has_nowhere_to_go():
    saved = fastopt.SGD(np.ones(3), lr=Countdown(0.5)).state_dict()
    message = (
        "state_dict does not fit: param_groups[0] has the state of a schedule for lr, which must be a schedule "
        "with load_state_dict() here too; got "
    )
    for lr, shown in ((0.25, "0.25"), (lr_schedule, repr(lr_schedule))):
        opt = fastopt.SGD(np.zeros(3), lr=lr)
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            opt.load_state_dict(saved)
        assert str(caught.value) == message + shown
        assert opt.param_groups[0]["lr"] == lr


def test_a_schedule_for_which_nothing_was_saved_stays_as_it_is():
    schedule = Countdown(0.5)
    opt = fastopt.SGD(np.ones(3), lr=schedule)
    opt.load_state_dict(fastopt.SGD(np.ones(3), lr=0.25).state_dict())
    assert opt.param_groups[0]["lr"] is schedule
    assert schedule.told == [0.5]


def test_schedules_without_state_have_none_to_save():
    """Those made of others have the methods, whatever they are made of."""
    lr = Warmup(Linear(0.5, steps=10), steps=5)
    assert lr.state_dict() == {}
    saved = fastopt.SGD(np.ones(3), lr=lr).state_dict()
    assert saved["param_groups"][0]["schedules"] == {}
    fastopt.SGD(np.ones(3), lr=0.25).load_state_dict(saved)


def test_a_schedule_that_refuses_its_state_changes_nothing():
    def optimizer(value):
        groups = [
            {"params": np.zeros(2), "lr": Countdown(value)},
            {"params": np.zeros(2), "lr": Countdown(value)},
        ]
        return fastopt.SGD(groups, momentum=0.9)

    opt, other = optimizer(0.5), optimizer(0.25)
    other.step([np.ones(2), np.ones(2)])
    saved = other.state_dict(params=True)
    saved["param_groups"][1]["schedules"]["lr"]["told"] = [-1.0]
    before = opt.state_dict(params=True)
    with pytest.raises(ValueError, match="must be >= 0"):
        opt.load_state_dict(saved)
    np.testing.assert_equal(opt.state_dict(params=True), before)
    assert [group["lr"].told for group in opt.param_groups] == [[0.5], [0.5]]


# Options that have state.


class Counting(fastopt.SGD):
    """An optimizer with an option that counts."""

    counted = 0

    def _options_state(self):
        return {"counted": self.counted, "norms": np.arange(3.0)}

    def _check_options_state(self, saved):
        if saved["counted"] < 0:
            raise ValueError("counted must be >= 0")

    def _load_options_state(self, saved):
        self.counted = saved["counted"]


def test_the_state_of_options(tmp_path):
    opt = Counting(np.ones(3))
    opt.counted = 7
    opt.step(np.ones(3))
    opt.save(tmp_path / "run.npz")
    twin = Counting(np.ones(3))
    twin.load_state_dict(fastopt.load(tmp_path / "run.npz"))
    assert twin.counted == copy.deepcopy(twin).counted == 7
    saved = {**opt.state_dict(), "options": {"counted": -1}}
    fresh = Counting(np.ones(3))
    with pytest.raises(ValueError, match="counted must be >= 0"):
        fresh.load_state_dict(saved)
    assert fresh.step_count == fresh.counted == 0
