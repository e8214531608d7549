import math

import pytest

from fastopt.schedules import Chain, Cosine, Linear, ReduceOnPlateau, Sequence, Tuple, Warmup


def values(schedule, steps):
    return [schedule(step) for step in range(steps)]


def test_a_warm_up_of_a_number():
    assert values(Warmup(2.0, 4), 6) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert values(Warmup(2.0, 4, start_factor=0.5), 6) == [1.0, 1.25, 1.5, 1.75, 2.0, 2.0]
    assert values(Warmup(2.0, 2, start_factor=0.5, shape="constant"), 4) == [1.0, 1.0, 2.0, 2.0]
    assert values(Warmup(2.0, 0), 2) == [2.0, 2.0]


def test_what_is_behind_a_warm_up_starts_then_or_at_once():
    line = Linear(1.0, 4)
    assert values(Warmup(line, 2), 7) == [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    assert values(Warmup(line, 2, delay=False), 5) == [0.0, 0.375, 0.5, 0.25, 0.0]


def test_a_warm_up_of_a_function():
    assert values(Warmup(lambda step: 1.0 / (step + 1), 1, start_factor=0.5), 4) == [0.5, 1.0, 0.5, 1 / 3]


def test_a_sequence():
    sequence = Sequence([1.0, Linear(1.0, 2), Cosine(3.0, 2)], milestones=[2, 4])
    assert values(sequence, 8) == pytest.approx([1.0, 1.0, 1.0, 0.5, 3.0, 1.5, 0.0, 0.0])
    assert values(Sequence([0.5], []), 2) == [0.5, 0.5]
    assert values(Sequence([1.0, 2.0, 3.0], [1, 1]), 3) == [1.0, 3.0, 3.0]
    assert values(Sequence([1.0, 2.0], [0]), 2) == [2.0, 2.0]


def test_a_tuple():
    assert Tuple([Linear(0.5, 2, final=0.9), 0.999])(1) == pytest.approx((0.7, 0.999))


def stateful():
    plateau = ReduceOnPlateau(1.0, factor=0.5, patience=0)
    return plateau, {
        "warmup": Warmup(plateau, 3),
        "sequence": Sequence([0.1, plateau], [2]),
        "chain": 2 * plateau,
        "tuple": Tuple([plateau, 0.9]),
        "nested": Chain([Warmup(plateau, 3), Cosine(1.0, 10)]),
        "two": Chain([plateau, ReduceOnPlateau(3.0)]),
    }


@pytest.mark.parametrize("name", stateful()[1])
def test_the_state_of_a_part_is_that_of_the_whole(name):
    plateau, whole = stateful()
    for loss in (1.0, 2.0, 0.5):
        plateau.report(loss)
    saved = whole[name].state_dict()
    assert 0.5 in saved.values()
    assert all(type(key) is str and type(value) in (int, float) for key, value in saved.items())
    other, fresh = stateful()
    assert fresh[name] != whole[name]
    fresh[name].load_state_dict(saved)
    assert other == plateau
    assert fresh[name] == whole[name]
    assert values(fresh[name], 12) == values(whole[name], 12)


def test_names_of_the_state():
    assert list(Chain([Warmup(ReduceOnPlateau(1.0), 3), 2.0]).state_dict()) == [
        f"schedules[0].schedule.{name}" for name in ("value", "best", "num_bad_reports", "cooldown_counter")
    ]


def test_without_a_part_that_has_state_there_is_none():
    for whole in (Warmup(Cosine(1.0, 10), 3), Sequence([1.0], []), Chain([2.0]), Tuple([0.9, 0.999])):
        assert whole.state_dict() == {}
        whole.load_state_dict({})
    assert not hasattr(Cosine(1.0, 10), "state_dict")


def test_state_that_does_not_fit_changes_nothing():
    first, second = ReduceOnPlateau(1.0), ReduceOnPlateau(2.0)
    chain = Chain([first, Warmup(second, 3)])
    before = chain.state_dict()
    saved = {**before, "schedules[0].value": 0.5, "schedules[1].schedule.value": -1.0}
    with pytest.raises(ValueError, match="value must be a finite number >= 0; got -1.0"):
        chain.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"state_dict must have value, best, .*; got nothing"):
        chain.load_state_dict({k: v for k, v in saved.items() if k.startswith("schedules[0]")})
    with pytest.raises(
        ValueError,
        match=r"state_dict must be what state_dict\(\) returned; this Chain has no state 'schedules\[2\]\.value'",
    ):
        chain.load_state_dict({**before, "schedules[2].value": 1.0})
    assert chain.state_dict() == before
    assert math.isinf(before["schedules[0].best"])
