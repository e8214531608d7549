import numpy as np
import pytest

import fastopt
from fastopt import modifiers
from fastopt.hyperparameters import check_value

STATE_DTYPES = "state_dtype must be 'float32', 'bfloat16', 'float8', or None"


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5)])
def test_numbers_become_plain(value):
    assert type(check_value("lr", value, 1e-3)) is float
    assert check_value("betas", [value, 0], (0.9, 0.9)) == (0.5, 0.0)


def test_schedules_and_flags():
    schedule = lambda step: 0.1  # noqa: E731
    assert check_value("lr", schedule, 1e-3) is schedule
    assert check_value("amsgrad", np.True_, False) is True


@pytest.mark.parametrize(
    ("name", "value", "default", "error", "message"),
    [
        ("lr", -1, 0.1, ValueError, "lr must be a finite number >= 0, or a schedule of such; got -1"),
        ("lr", np.nan, 0.1, ValueError, "lr must be a finite number >= 0, or a schedule of such; got nan"),
        ("lr", np.inf, 0.1, ValueError, "lr must be a finite number >= 0, or a schedule of such; got inf"),
        ("lr", "1", 0.1, TypeError, "lr must be a finite number >= 0, or a schedule of such; got '1'"),
        ("lr", True, 0.1, TypeError, "lr must be a finite number >= 0, or a schedule of such; got True"),
        ("lr", None, 0.1, TypeError, "lr must be a finite number >= 0, or a schedule of such; got None"),
        ("dampening", "a", 0.0, TypeError, "dampening must be a finite number, or a schedule of such; got 'a'"),
        (
            "betas", (0.9, 1.0), (0.9, 0.999), ValueError,
            "betas must be 2 values, each a number in [0, 1), or a schedule of such; got (0.9, 1.0)",
        ),
        (
            "betas", 0.9, (0.9, 0.999), TypeError,
            "betas must be 2 values, each a number in [0, 1), or a schedule of such; got 0.9",
        ),
        (
            "betas", (0.9, "x"), (0.9, 0.999), TypeError,
            "betas must be 2 values, each a number in [0, 1), or a schedule of such; got (0.9, 'x')",
        ),
        ("rho", 1.5, 0.9, ValueError, "rho must be a number in [0, 1], or a schedule of such; got 1.5"),
        ("amsgrad", 1, False, TypeError, "amsgrad must be True or False, got 1"),
        (
            "initial_accumulator_value", abs, 0.0, TypeError,
            "initial_accumulator_value must be a finite number >= 0; got <built-in function abs>",
        ),
        ("state_dtype", abs, None, TypeError, f"{STATE_DTYPES}; got <built-in function abs>"),
        ("state_dtype", "fp8", None, ValueError, f"{STATE_DTYPES}; got 'fp8'"),
    ],
)  # fmt: skip
def test_errors(name, value, default, error, message):
    with pytest.raises(error) as caught:
        check_value(name, value, default)
    assert str(caught.value) == message


def group():
    return fastopt.AdamW(np.ones(3)).param_groups[0]


def test_a_group_is_a_mapping():
    g = group()
    own = ["params", "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"]
    assert list(g) == [*own, *modifiers.DEFAULTS]
    assert len(g) == 7 + len(modifiers.DEFAULTS)
    g.update(lr=1, betas=[0.8, 0.9])
    assert (g["lr"], g["betas"]) == (1.0, (0.8, 0.9))
    assert dict(g)["eps"] == 1e-8
    assert repr(g).startswith("ParamGroup(lr=1.0, betas=(0.8, 0.9), ")


def test_values_are_checked_when_they_are_set():
    g = group()
    with pytest.raises(ValueError, match=r"lr must be a finite number >= 0, or a schedule of such; got -2"):
        g["lr"] = -2
    with pytest.raises(
        ValueError, match="unknown hyperparameter 'learning_rate' of a parameter group; known are lr, betas"
    ):
        g["learning_rate"] = 1
    with pytest.raises(ValueError, match="the params of a group cannot be replaced"):
        g["params"] = np.ones(3)
    with pytest.raises(TypeError, match="'lr' cannot be taken out"):
        del g["lr"]
    assert g["lr"] == 1e-3
