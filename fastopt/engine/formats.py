"""The forms in which numbers are stored, and which of them each buffer of an update has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Elements that share a scale, in a format that has scales.
SHARED = 256


@dataclass(frozen=True)
class Format:
    """A form in which numbers are stored.

    Attributes
    ----------
    name : str
        Its name.
    stored : str
        The dtype of the array that holds it.
    block : int
        How many elements share a scale, or 1 where there is none. Then the array holds the elements' codes,
        bytes up to the next multiple of four, and a float32 for each block.
    """

    name: str
    stored: str
    block: int = 1

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The dtype of the array that holds it."""
        return np.dtype(self.stored)

    @property
    def native(self) -> bool:
        """Whether it is one that is computed in."""
        return self.stored == self.name and self.dtype.itemsize >= 4


FLOAT32, FLOAT64 = Format("float32", "float32"), Format("float64", "float64")
FLOAT16, BFLOAT16 = Format("float16", "float16"), Format("bfloat16", "uint16")
#: A sign, four bits of exponent and three of mantissa, relative to a power of two for each block.
FLOAT8 = Format("float8", "uint8", SHARED)
#: What is never negative: five bits of exponent and three of mantissa, likewise.
FLOAT8_SQUARES = Format("float8_squares", "uint8", SHARED)

#: All, by name.
FORMATS = {each.name: each for each in (FLOAT32, FLOAT64, FLOAT16, BFLOAT16, FLOAT8, FLOAT8_SQUARES)}


def native(dtype: np.dtype[np.floating]) -> Format:
    """Return the format of a dtype that is computed in: float32 or float64."""
    return FLOAT64 if dtype == np.float64 else FLOAT32


@dataclass(frozen=True)
class Storage:
    """How each buffer of an update is stored. It is computed in float32, or in float64 if all buffers are.

    State in another format than float32 and float64 is rounded stochastically, and so are such parameters,
    unless their rest is kept: up or down, at random, so that the mean is exact.

    Parameters
    ----------
    param : Format
        Of the parameters.
    grad : Format
        Of the gradients.
    state : tuple of Format
        Of each state buffer of the rule.
    rest : {None, "master", "split"}
        What is kept of parameters of half precision beside them, in a further buffer that follows the
        state: nothing; a "master" copy in float32, from which the parameters are rounded to nearest; or the
        low 16 bits of float32 numbers, as uint16, whose high ones, rounded to nearest, the parameters are.
    nearest : bool
        Whether all is rounded to nearest.

    Raises
    ------
    ValueError
        If there is no such update.

    Examples
    --------
    >>> from fastopt.engine.formats import BFLOAT16, FLOAT32, Storage
    >>> storage = Storage(BFLOAT16, BFLOAT16, (BFLOAT16, FLOAT32), rest="master")
    >>> [each.name for each in storage.buffers]
    ['bfloat16', 'float32', 'float32']
    >>> storage.dtype
    dtype('float32')
    """

    param: Format
    grad: Format
    state: tuple[Format, ...] = ()
    rest: str | None = None
    nearest: bool = False

    def __post_init__(self) -> None:
        every = {self.param, self.grad, *self.state}
        if FLOAT64 in every and len(every) > 1:
            names = ", ".join(sorted(each.name for each in every))
            raise ValueError(f"float64 goes with float64 alone, in all of a rule's buffers; got {names}")
        for what, form in (("param", self.param), ("grad", self.grad)):
            if form.block > 1:
                raise ValueError(f"{what} must not be stored in blocks, got {form.name}")
        if self.rest not in (None, "master", "split"):
            raise ValueError(f"rest must be None, 'master' or 'split', got {self.rest!r}")
        if self.rest is not None and self.param.native:
            raise ValueError(f"rest={self.rest!r} is for parameters of half precision, got {self.param.name}")
        if self.rest == "split" and self.param != BFLOAT16:
            raise ValueError(f"rest='split' is for parameters in bfloat16, got {self.param.name}")

    @cached_property
    def native(self) -> bool:
        """Whether all is stored as it is computed in."""
        return all(each.native for each in (self.param, self.grad, *self.state))

    @cached_property
    def dtype(self) -> np.dtype[np.floating]:
        """What is computed in."""
        return np.dtype(np.float64 if self.param == FLOAT64 else np.float32)

    @cached_property
    def buffers(self) -> tuple[Format, ...]:
        """The format of each buffer beside parameters and gradients: the state, then the rest."""
        if self.rest is None:
            return self.state
        return (*self.state, FLOAT32 if self.rest == "master" else _LOW)

    @cached_property
    def in_blocks(self) -> bool:
        """Whether some state has scales."""
        return any(each.block > 1 for each in self.state)

    @cached_property
    def itemsizes(self) -> tuple[int, ...]:
        """Bytes of an element in each column of a table of segments: parameters, gradients, buffers."""
        return tuple(each.dtype.itemsize for each in (self.param, self.grad, *self.buffers))

    @cached_property
    def rounded(self) -> tuple[int, ...]:
        """The columns that are rounded stochastically: 0 for the parameters, k + 1 for state k."""
        if self.nearest:
            return ()
        param = () if self.param.native or self.rest is not None else (0,)
        return (*param, *(k + 1 for k, each in enumerate(self.state) if not each.native))

    @cached_property
    def name(self) -> str:
        """A name for compiled code."""
        every = [self.param.name, self.grad.name, *(each.name for each in self.buffers)]
        return "_".join([*every, self.rest or "alone", "nearest" if self.nearest else "stochastic"])


_LOW = Format("low", "uint16")
