"""Values are those of torch's schedulers, driven over an optimizer, to 1e-12 and mostly to the last digits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastopt.schedules import (
    Chain,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    Polynomial,
    ReduceOnPlateau,
    Sequence,
    Step,
    Warmup,
    WarmupStableDecay,
)

torch = pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[parity]")
lr_scheduler = torch.optim.lr_scheduler

LR = 0.3
STEPS = 300


def optimizer(lr=LR):
    return torch.optim.SGD([torch.zeros(1)], lr=lr, momentum=0.9)


def peer(make, steps=STEPS, name="lr"):
    """Return the values that torch's optimizer uses at each step."""
    opt = optimizer()
    scheduler = make(opt)
    found = [opt.param_groups[0][name]]
    for _ in range(steps - 1):
        opt.step()
        scheduler.step()
        found.append(opt.param_groups[0][name])
    return found


def closed_form(make, steps=STEPS):
    """Return the values of the formula that a scheduler has beside its recursion."""
    scheduler = make(optimizer())
    found = []
    for scheduler.last_epoch in range(steps):
        found += scheduler._get_closed_form_lr()
    return found


def ours(schedule, steps=STEPS):
    return [schedule(step) for step in range(steps)]


def close(expected, rel=1e-12):
    return pytest.approx(expected, rel=rel, abs=rel * LR)


def each(*cases):
    return pytest.mark.parametrize(("schedule", "make"), cases, ids=[repr(case[0])[:90] for case in cases])


@each(
    *[
        (Warmup(LR, n, factor, shape="constant"), lambda o, n=n, f=factor: lr_scheduler.ConstantLR(o, f, n))
        for n in (1, 2, 50, 400)
        for factor in (1 / 3, 0.1, 1.0)
    ],
    (Constant(LR), lambda o: lr_scheduler.ConstantLR(o, 1.0, 7)),
    *[
        (Linear(LR * f, n, LR * g), lambda o, n=n, f=f, g=g: lr_scheduler.LinearLR(o, f, g, n))
        for n in (1, 2, 50, 299, 400)
        for f, g in ((1 / 3, 1.0), (1.0, 0.0), (1e-3, 1.0), (0.5, 0.5), (1.0, 0.1))
    ],
    *[
        (Warmup(LR, n, f), lambda o, n=n, f=f: lr_scheduler.LinearLR(o, f, 1.0, n))
        for n in (1, 50)
        for f in (0.25, 1.0)
    ],
    *[
        (Polynomial(LR, n, power=power), lambda o, n=n, p=power: lr_scheduler.PolynomialLR(o, n, p))
        for n in (1, 2, 50, 299, 400)
        for power in (0.5, 0.9, 1.0, 2.0, 3.5)
    ],
    *[
        (Exponential(LR, gamma), lambda o, g=gamma: lr_scheduler.ExponentialLR(o, g))
        for gamma in (0.5, 0.95, 1.0, 1.01)
    ],
    *[
        (Step(LR, size, gamma), lambda o, n=size, g=gamma: lr_scheduler.StepLR(o, n, g))
        for size in (1, 2, 30, 400)
        for gamma in (0.1, 0.9, 1.0, 1.02, 0.0)
    ],
    *[
        (MultiStep(LR, m, gamma), lambda o, m=m, g=gamma: lr_scheduler.MultiStepLR(o, m, g))
        for m in ([], [0], [1], [30, 80], [80, 30], [30, 30], [299], [400], range(0, 90, 9))
        for gamma in (0.1, 0.9)
    ],
    *[
        (CosineRestarts(LR, n, m, f), lambda o, n=n, m=m, f=f: lr_scheduler.CosineAnnealingWarmRestarts(o, n, m, f))
        for n in (1, 2, 7, 50, 400)
        for m in (1, 2, 3)
        for f in (0.0, 0.01, 0.5)
    ],
)  # fmt: skip
def test_schedulers(schedule, make):
    assert ours(schedule) == close(peer(make))


@pytest.mark.parametrize("final", [0.0, 0.01, LR, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 50, 299, 400])
def test_cosine_is_annealing_until_its_end(steps, final):
    def make(opt):
        return lr_scheduler.CosineAnnealingLR(opt, steps, final)

    schedule = Cosine(LR, steps, final)
    expected = closed_form(make, 2 * steps + 1)
    assert ours(schedule, steps + 1) == close(expected[: steps + 1])
    assert ours(schedule, steps + 1) == close(peer(make, steps + 1))
    assert expected[2 * steps] == pytest.approx(LR)  # torch's rises again
    assert schedule(2 * steps) == final


@pytest.mark.parametrize("make", [Linear, Polynomial])
def test_no_steps_are_over_at_once_and_torch_never_starts(make):
    assert make(LR, 0)(0) == 0.0
    assert peer(lambda o: lr_scheduler.PolynomialLR(o, 0), 3) == [LR] * 3


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.5])
@pytest.mark.parametrize("steps", [3, 9, 100, 250])
@pytest.mark.parametrize(("div", "final_div"), [(25.0, 1e4), (10.0, 1.0)])
def test_one_cycle(steps, share, shape, three_phase, div, final_div):
    def make(opt):
        return lr_scheduler.OneCycleLR(
            opt,
            max_lr=LR,
            total_steps=steps,
            pct_start=share,
            anneal_strategy=shape.removesuffix("ine"),
            div_factor=div,
            final_div_factor=final_div,
            three_phase=three_phase,
        )

    schedule = OneCycle(LR, steps, share, LR / div, LR / div / final_div, shape, three_phase)
    if (div, final_div) == (25.0, 1e4):
        assert schedule == OneCycle(LR, steps, share, shape=shape, three_phase=three_phase)
    assert ours(schedule, steps) == close(peer(make, steps))
    assert ours(schedule.momentum(), steps) == close(peer(make, steps, "momentum"))
    assert schedule(steps) == schedule(steps - 1)


def test_one_cycle_that_goes_up_only():
    expected = peer(lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=20, pct_start=1.0), 20)
    assert ours(OneCycle(LR, 20, 1.0), 20) == close(expected)


def test_a_phase_without_length_is_an_error_of_torch():
    with pytest.raises(ZeroDivisionError):
        peer(lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=10, pct_start=0.1), 1)
    assert OneCycle(LR, 10, 0.1)(0) == LR


@pytest.mark.parametrize("down", [None, 1, 33])
@pytest.mark.parametrize("up", [1, 2, 20, 400])
@pytest.mark.parametrize(("mode", "gamma"), [("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.99)])
def test_cyclic(up, down, mode, gamma):
    def make(opt):
        return lr_scheduler.CyclicLR(opt, 0.02, LR, up, down, mode, gamma)

    schedule = Cyclic(0.02, LR, up, down, mode, gamma)
    assert ours(schedule) == close(peer(make))
    assert ours(schedule.momentum()) == close(peer(make, name="momentum"))


def test_cyclic_without_a_way_down():
    assert ours(Cyclic(0.02, LR, 5, 0)) == close(peer(lambda o: lr_scheduler.CyclicLR(o, 0.02, LR, 5, 0)))


@each(
    (
        Warmup(Polynomial(LR, 100, power=2.0), 20, 0.1),
        lambda o: [lr_scheduler.LinearLR(o, 0.1, 1.0, 20), lr_scheduler.PolynomialLR(o, 100, 2.0), [20]],
    ),
    (
        Warmup(CosineRestarts(LR, 30, 2), 20, 1 / 3),
        lambda o: [lr_scheduler.LinearLR(o, 1 / 3, 1.0, 20), lr_scheduler.CosineAnnealingWarmRestarts(o, 30, 2), [20]],
    ),
    (
        Warmup(Exponential(LR, 0.98), 10, 0.5, shape="constant"),
        lambda o: [lr_scheduler.ConstantLR(o, 0.5, 10), lr_scheduler.ExponentialLR(o, 0.98), [10]],
    ),
    (
        Sequence([Exponential(LR, 0.9), Step(LR, 10, 0.5), Linear(LR, 40, 0.1 * LR)], [25, 100]),
        lambda o: [
            lr_scheduler.ExponentialLR(o, 0.9),
            lr_scheduler.StepLR(o, 10, 0.5),
            lr_scheduler.LinearLR(o, 1.0, 0.1, 40),
            [25, 100],
        ],
    ),
    (
        Sequence([Exponential(LR, 0.9), Step(LR, 10, 0.5), Linear(LR, 40, 0.1 * LR)], [25, 25]),
        lambda o: [
            lr_scheduler.ExponentialLR(o, 0.9),
            lr_scheduler.StepLR(o, 10, 0.5),
            lr_scheduler.LinearLR(o, 1.0, 0.1, 40),
            [25, 25],
        ],
    ),
    (
        WarmupStableDecay(LR, 20, 100, 50, initial=0.01 * LR, final=0.1 * LR),
        lambda o: [
            lr_scheduler.LinearLR(o, 0.01, 1.0, 20),
            lr_scheduler.ConstantLR(o, 1.0, 100),
            lr_scheduler.LinearLR(o, 1.0, 0.1, 50),
            [20, 120],
        ],
    ),
)  # fmt: skip
def test_sequences(schedule, make):
    def joined(opt):
        *schedulers, milestones = make(opt)
        return lr_scheduler.SequentialLR(opt, schedulers, milestones)

    assert ours(schedule) == close(peer(joined))


@each(
    (
        Chain([Exponential(LR, 0.9), Piecewise(0.1, {20: 1.0})]),
        lambda o: [lr_scheduler.ConstantLR(o, 0.1, 20), lr_scheduler.ExponentialLR(o, 0.9)],
    ),
    (
        Warmup(Step(LR, 30, 0.5), 50, 0.2, delay=False),
        lambda o: [lr_scheduler.LinearLR(o, 0.2, 1.0, 50), lr_scheduler.StepLR(o, 30, 0.5)],
    ),
    (
        LR * MultiStep(1.0, [40, 90], 0.3) * Polynomial(1.0, 200, power=2.0),
        lambda o: [lr_scheduler.MultiStepLR(o, [40, 90], 0.3), lr_scheduler.PolynomialLR(o, 200, 2.0)],
    ),
    (
        Warmup(LR * Exponential(1.0, 0.99) * Linear(1.0, 100, 0.5), 10, 0.5, "constant", delay=False),
        lambda o: [
            lr_scheduler.ExponentialLR(o, 0.99),
            lr_scheduler.LinearLR(o, 1.0, 0.5, 100),
            lr_scheduler.ConstantLR(o, 0.5, 10),
        ],
    ),
)
def test_chains(schedule, make):
    expected = peer(lambda opt: lr_scheduler.ChainedScheduler(make(opt), opt))
    assert ours(schedule) == close(expected)


metrics = st.lists(
    st.sampled_from([1.0, 1.0, 0.9, 0.99995, 0.5, 1.5, 0.0, -1.0, math.nan, math.inf, -math.inf])
    | st.floats(-2.0, 2.0),
    max_size=60,
)


@given(
    metrics,
    st.sampled_from([0.1, 0.5, 0.9, 0.0]),
    st.integers(0, 4),
    st.sampled_from([1e-4, 0.0, 0.1, 1.0, 2.0]),
    st.sampled_from(["rel", "abs"]),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.05, 1.0]),
    st.sampled_from(["min", "max"]),
    st.sampled_from([1e-8, 0.0, 0.02]),
)
def test_plateau(reports, factor, patience, threshold, threshold_mode, cooldown, least, mode, eps):
    opt = optimizer()
    theirs = lr_scheduler.ReduceLROnPlateau(
        opt, mode, factor, patience, threshold, threshold_mode, cooldown, least, eps
    )
    plateau = ReduceOnPlateau(LR, factor, patience, threshold, threshold_mode, cooldown, least, mode, eps)
    for metric in reports:
        theirs.step(metric)
        plateau.report(metric)
        assert plateau.state_dict() == {
            "value": opt.param_groups[0]["lr"],
            "best": theirs.best,
            "num_bad_reports": theirs.num_bad_epochs,
            "cooldown_counter": theirs.cooldown_counter,
        }


def test_plateau_has_torch_s_defaults():
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer())
    plateau = ReduceOnPlateau(LR)
    for name in ("factor", "patience", "threshold", "threshold_mode", "cooldown", "mode", "eps"):
        assert getattr(plateau, name) == getattr(theirs, name)
    assert [plateau.min_value] == theirs.min_lrs
    plateau.report(torch.tensor(0.5))
    assert plateau.best == 0.5
