import copy
import json
import math
import pickle

import numpy as np
import pytest

from fastopt.schedules import ReduceOnPlateau


def reported(plateau, *metrics):
    """Report metrics; return the value after each."""
    found = []
    for metric in metrics:
        plateau.report(metric)
        found.append(plateau(0))
    return found


def test_patience():
    plateau = ReduceOnPlateau(1.0, factor=0.5, patience=2)
    assert reported(plateau, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    assert plateau.best == 1.0
    assert plateau(10**6) == plateau.value == 0.25


def test_an_improvement_starts_the_count_anew():
    assert reported(ReduceOnPlateau(1.0, 0.5, patience=1), 1.0, 1.0, 0.9, 0.9, 0.9) == [1.0] * 4 + [0.5]


@pytest.mark.parametrize(
    ("mode", "threshold_mode", "better", "not_better"),
    [("min", "rel", 8.9, 9.1), ("min", "abs", 9.8, 9.95), ("max", "rel", 11.1, 10.9), ("max", "abs", 10.2, 10.05)],
)  # fmt: skip
def test_thresholds(mode, threshold_mode, better, not_better):
    def fresh():
        return ReduceOnPlateau(1.0, 0.5, 0, threshold=0.1, mode=mode, threshold_mode=threshold_mode)

    assert reported(fresh(), 10.0, better) == [1.0, 1.0]
    assert reported(fresh(), 10.0, not_better) == [1.0, 0.5]


def test_cooldown_and_the_least_value():
    plateau = ReduceOnPlateau(1.0, 0.5, patience=0, cooldown=2, min_value=0.3)
    assert reported(plateau, *[1.0] * 8) == [1.0, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]
    assert reported(ReduceOnPlateau(0.1, 0.5, 0, min_value=0.3), 1.0, 1.0) == [0.1, 0.1]


def test_small_changes_are_left_out():
    assert reported(ReduceOnPlateau(1e-8, 0.5, 0), 1.0, 1.0) == [1e-8, 1e-8]
    assert reported(ReduceOnPlateau(1e-8, 0.5, 0, eps=0), 1.0, 1.0) == [1e-8, 5e-9]


def test_nan_is_never_better():
    plateau = ReduceOnPlateau(1.0, 0.5, patience=1)
    assert reported(plateau, math.nan, 2.0, math.nan, math.nan) == [1.0, 1.0, 1.0, 0.5]
    assert plateau.best == 2.0


@pytest.mark.parametrize("metric", [1, np.float32(1), np.array(1.0), np.int64(1)], ids=type)
def test_metrics_may_be_any_numbers(metric):
    plateau = ReduceOnPlateau(1.0)
    plateau.report(metric)
    assert type(plateau.best) is float


@pytest.mark.parametrize("metric", ["1", None, 1j, [1.0]])
def test_other_metrics_are_errors(metric):
    plateau = ReduceOnPlateau(1.0)
    with pytest.raises(TypeError) as caught:
        plateau.report(metric)
    assert str(caught.value) == f"metric must be a number; got {metric!r}"
    assert plateau == ReduceOnPlateau(1.0)


METRICS = [3.0, 2.0, 2.5, math.nan, 1.0, 1.1, 1.2, 1.3, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize("stop", range(len(METRICS)))
@pytest.mark.parametrize(
    "renewed",
    [
        copy.deepcopy,
        lambda plateau: pickle.loads(pickle.dumps(plateau)),
        lambda plateau: loaded(plateau.state_dict()),
        lambda plateau: loaded(json.loads(json.dumps(plateau.state_dict()))),
        lambda plateau: loaded({name: np.float64(v) for name, v in plateau.state_dict().items()}),
    ],
    ids=["deepcopy", "pickle", "state", "json", "arrays"],
)
def test_it_goes_on_where_it_was(renewed, stop):
    straight, stopped = fresh(), fresh()
    expected = reported(straight, *METRICS)
    reported(stopped, *METRICS[:stop])
    again = renewed(stopped)
    assert again == stopped
    assert reported(again, *METRICS[stop:]) == expected[stop:]
    assert again == straight
    assert stop == len(METRICS) or again != stopped  # the copy has a state of its own
    types = {name: type(value) for name, value in again.state_dict().items()}
    assert types == {"value": float, "best": float, "num_bad_reports": int, "cooldown_counter": int}


def fresh():
    return ReduceOnPlateau(1.0, factor=0.5, patience=1, cooldown=1)


def loaded(state):
    plateau = fresh()
    plateau.load_state_dict(state)
    return plateau


def test_state_is_part_of_equality():
    plateau = ReduceOnPlateau(1.0)
    plateau.report(1.0)
    assert plateau != ReduceOnPlateau(1.0)
    assert repr(plateau) == repr(ReduceOnPlateau(1.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"value": -1.0}, ValueError, "value must be a finite number >= 0; got -1.0"),
        ({"value": "1"}, TypeError, "value must be a finite number >= 0; got '1'"),
        ({"best": math.nan}, ValueError, "best must be a number; got nan"),
        ({"best": None}, TypeError, "best must be a number; got None"),
        ({"num_bad_reports": 0.5}, ValueError, "num_bad_reports must be a whole number >= 0; got 0.5"),
        ({"cooldown_counter": -1}, ValueError, "cooldown_counter must be a whole number >= 0; got -1"),
        (
            {"more": 1}, ValueError,
            "state_dict must have value, best, num_bad_reports, cooldown_counter, as "
            "ReduceOnPlateau.state_dict() returns them; "
            "got value, best, num_bad_reports, cooldown_counter, more",
        ),
    ],
)  # fmt: skip
def test_state_that_does_not_fit(change, error, message):
    plateau = ReduceOnPlateau(1.0)
    with pytest.raises(error) as caught:
        plateau.load_state_dict(
            {"value": 0.5, "best": 1.0, "num_bad_reports": 2, "cooldown_counter": 0, **change}
        )
    assert str(caught.value) == message
    assert plateau == ReduceOnPlateau(1.0)


@pytest.mark.parametrize(("state", "got"), [({}, "nothing"), ({"value": 1.0}, "value"), (None, "None")])
def test_state_that_lacks_something(state, got):
    with pytest.raises(ValueError, match=f"^state_dict must have value, best, .*; got {got}$"):
        ReduceOnPlateau(1.0).load_state_dict(state)
