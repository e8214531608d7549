import numpy as np
import pytest

from fastopt.benchmark import checks
from fastopt.benchmark.checks import WrongAnswer, check
from fastopt.benchmark.subjects import NAMES, Subject
from tests import reference

#: One of each kind: by element, with carried numbers, measured by tensor and over all, with a look ahead, ...
SEVERAL = (
    "SGD",
    "AdamW",
    "AdamAtan2",
    "NAdam",
    "NAG",
    "LAMB",
    "AdamMini",
    "DoG",
    "Prodigy",
    "Adagrad",
    "Muon",
)


@pytest.fixture(autouse=True)
def each_alone():
    checks._check_small.cache_clear()


@pytest.mark.parametrize("name", SEVERAL)
def test_right_answers_pass(name):
    check(Subject(name, 100, "float32"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_right_answers_of_all_pass(name, dtype):
    check(Subject(name, 1000, dtype))


def test_the_rule_in_double_agrees_with_the_reference():
    subject = Subject("AdamW", 20, "float64")
    (group,) = subject.optimizer.param_groups
    p, g = subject.pack.flat.copy(), subject.pack.flat_grads.copy()
    hyper = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "amsgrad")}
    run = reference.Run(reference.adamw, p, **hyper)
    for _ in range(checks.STEPS):
        run.step(g)
    found = checks.exact(subject.rule, group, {}, p, g)
    np.testing.assert_allclose(found, run.params, rtol=1e-13)
    assert (found != p).all()


def spoilt(name, spoil):
    """Return a subject whose steps are followed by a mistake."""
    subject = Subject(name, 200, "float32")
    step = subject.step

    def spoilt_step():
        step()
        spoil(subject.pack.flat)

    subject.step = spoilt_step
    return subject


def shift_the_last(p):
    p[-1] += 1e-3


def shift_one_between(p):
    p[checks._sample(p.size)[40]] += 1e-3


def not_a_number(p):
    p[0] = np.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shift_the_last, "AdamW: 1 of 86 results of 3 steps differ from those in double, by up to 0.003"),
        (shift_one_between, "AdamW: 1 of 86 results of 3 steps differ from those in double, by up to 0.003"),
        (not_a_number, "AdamW: 1 of 86 results of 3 steps differ from those in double"),
    ],
)
def test_wrong_elements_are_found(spoil, message):
    with pytest.raises(WrongAnswer) as raised:
        check(spoilt("AdamW", spoil))
    assert str(raised.value).startswith(message)


def test_a_wrong_learning_rate_is_found():
    subject = Subject("SGD", 100, "float32")
    (group,) = subject.optimizer.param_groups
    subject.step = lambda: subject.optimizer.step(lr=1.01 * group["lr"])
    with pytest.raises(WrongAnswer, match="^SGD: .* of 75 results of 3 steps differ from those in double"):
        check(subject)


def test_a_mistake_in_what_is_measured_is_found(monkeypatch):
    real = checks._measured
    monkeypatch.setattr(checks, "_measured", lambda *args: [1.001 * real(*args)[0], *real(*args)[1:]])
    with pytest.raises(WrongAnswer, match="LARS: .* of 300 results of 3 steps differ from those in double"):
        check(Subject("LARS", 100, "float64"))


def test_parameters_that_stay_are_found():
    subject = Subject("LAMB", 100, "float32")
    subject.step = lambda: None
    with pytest.raises(WrongAnswer, match=r"^LAMB: the parameters did not move$"):
        check(subject)


def test_a_matrix_rule_must_go_downhill_and_stay_finite():
    subject = Subject("Muon", 100, "float32")
    subject.pack.flat_grads[:] = -subject.pack.flat_grads
    step = subject.step
    before = subject.pack.flat.copy()

    def uphill():
        step()
        subject.pack.flat[:] = 2 * before - subject.pack.flat

    subject.step = uphill
    with pytest.raises(WrongAnswer, match=r"^Muon: 3 steps did not go downhill$"):
        check(subject)
    with pytest.raises(WrongAnswer, match=r"^Muon: 3 steps did not go downhill$"):
        check(spoilt("Muon", not_a_number))
    subject.pack.flat[-1] = np.inf
    with pytest.raises(WrongAnswer, match=r"^Muon: parameters are not finite$"):
        checks.require_finite(subject)
