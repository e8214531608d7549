"""In which form the state of an array is stored: in its own precision, or in fewer bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.averaged import AVERAGES
from fastopt.engine import MatrixRule, Rule
from fastopt.engine.storage import BFLOAT16, FLOAT8, FLOAT8_SQUARES, FLOAT16, FLOAT32, Format
from fastopt.hyperparameters import Settings

#: What each ``state_dtype`` stores: what has a sign, and means of squares.
FORMATS: Mapping[str, tuple[Format, Format]] = {
    "bfloat16": (BFLOAT16, BFLOAT16),
    "float8": (FLOAT8, FLOAT8_SQUARES),
}

#: Half precision, by the names of dtypes: NumPy knows no bfloat16, but names that of the package ml_dtypes.
_HALVES = {"float16": FLOAT16, "bfloat16": BFLOAT16}

#: For each ``rest`` that a storage can have: the name of its state, and how that is stored.
REST: Mapping[str, tuple[str, Format]] = {
    "master": ("master_weights", FLOAT32),
    "split": ("low_bits", Format("low", "uint16")),
}
#: The ``rest`` of each ``master_weights``.
RESTS: Mapping[str | None, str | None] = {None: None, "float32": "master", "split": "split"}

#: How an array's state is stored where it is not in its precision, by name; and its ``rest``.
Form = tuple[Mapping[str, Format], str | None]
#: All in the array's precision.
PLAIN: Form = ({}, None)

#: Arrays of fewer elements keep float32 unless an override names them: there is little to save, and they are
#: mostly biases and the weights of normalizations.
SMALLEST = 4096


def is_half(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is float16, or bfloat16 as of the package ml_dtypes."""
    return dtype.name in _HALVES


def format_of(dtype: np.dtype[Any]) -> Format:
    """Return the format of arrays of a half precision."""
    return _HALVES[dtype.name]


def plain_bits(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view of an array of bfloat16 as the engine takes it, and any other as it is.

    Arrays of the dtypes that NumPy does not know show their memory to nobody else.
    """
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def state_formats(
    rule: Rule | MatrixRule, fill: Mapping[str, float | str], group: Settings, size: int
) -> dict[str, Format]:
    """Return the format of each state of an array that is not stored in its own precision.

    Parameters
    ----------
    rule : Rule or MatrixRule
        Its rule.
    fill : mapping
        What its state starts with: a copy of the parameters is kept as they are.
    group : Settings
        What holds for it.
    size : int
        How many elements it has.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> opt = fastopt.Adam(np.zeros(5000, np.float32), state_dtype="float8")
    >>> (leaf,) = opt._leaves()
    >>> for name, format in state_formats(leaf.rule, {}, leaf.group, 5000).items():
    ...     print(name, format.name)
    exp_avg float8
    exp_avg_sq float8_squares
    """
    wanted = group["state_dtype"]
    if wanted not in FORMATS or not isinstance(rule, Rule):
        return {}
    if "state_dtype" not in group.own and size < SMALLEST:
        return {}
    signed, squares = FORMATS[wanted]
    return {name: squares if name in rule.squares else signed for name in _stored(rule, fill)}


def _stored(rule: Rule, fill: Mapping[str, float | str]) -> list[str]:
    """Return the state that may be stored in fewer bytes."""
    exact = {*rule.exact, *AVERAGES}
    return [name for name in rule.state if name not in exact and fill.get(name) != "params"]


def check_half(
    rule: Rule | MatrixRule, group: Settings, array: NDArray[Any], place: str, algorithm: str
) -> None:
    """Raise an error unless an array of half precision, or one with such gradients, can be updated so."""
    if isinstance(rule, MatrixRule):
        raise TypeError(
            f"{algorithm} updates {place} as a whole, in NumPy: parameters and gradients must be of float32 "
            f"or float64 for that, one of them is half precision"
        )
    if not is_half(array.dtype):
        return
    if group["lookahead_steps"] != 0.0:
        raise TypeError(
            f"lookahead_steps needs parameters of float32 or float64, {place} is of {array.dtype}"
        )
    if group["master_weights"] == "split" and array.dtype == np.float16:
        raise ValueError(
            f"master_weights='split' is for bfloat16, whose bits are the high half of float32's; {place} is "
            f"of float16: take master_weights='float32'"
        )


def check_formats(
    rule: Rule | MatrixRule,
    fill: Mapping[str, float | str],
    group: Settings,
    dtype: np.dtype[np.floating],
    place: str,
    algorithm: str,
    rows_only: bool,
) -> None:
    """Raise a ValueError unless an array, ``place``, can have the ``state_dtype`` of its group."""
    wanted = group["state_dtype"]
    if wanted is None:
        return
    if dtype == np.float64:
        raise ValueError(
            f"{place} is of float64, whose state has no state_dtype: it is in float64 too; got {wanted!r}"
        )
    if wanted == "float32":
        return
    if isinstance(rule, MatrixRule):
        raise ValueError(
            f"{algorithm} updates {place} as a whole, in NumPy: no state_dtype={wanted!r}; "
            f'overrides={{...: {{"state_dtype": None}}}} can leave it out'
        )
    by_row = rule.measure is not None and rule.measure.over == "row"
    if (by_row or rows_only) and FORMATS[wanted][0].block > 1:
        raise ValueError(f"{algorithm} goes by rows, which are no whole blocks: no state_dtype={wanted!r}")
    if rule.state and not _stored(rule, fill):
        raise ValueError(f"{algorithm} needs all of its state in float32: no state_dtype={wanted!r}")
