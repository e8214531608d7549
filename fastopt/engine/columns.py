"""How a kernel reads and writes its buffers: functions that are made for a rule's state and its storage.

A column is a buffer as a kernel sees it: an array of numbers, or of their bits; where a format has scales, a
pair of codes and scales. There the update goes block by block. It writes the numbers to scratch memory, which
stays in the cache; once all of a block are known, they are encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from fastopt.engine import codec
from fastopt.engine.compiled import add, defined, flush, jitable, scratch, view, view_as
from fastopt.engine.formats import BFLOAT16, FLOAT8, FLOAT16, SHARED, Format, Storage

#: Columns of a table of segments. The addresses of the state, and of the rest, follow them. After those,
#: where something is not stored as it is computed: the place of the first element among all of the
#: optimizer's, and the key of the random bits. Where a tensor is measured, the address of its sums is last.
START, END, ROW, PARAM, GRAD, STATE = range(6)

_READ = {BFLOAT16: "from_bfloat16({})", FLOAT16: "from_float16({})"}
_WRITE = {BFLOAT16: "bfloat16", FLOAT16: "float16"}
_KIND = {True: "signed", False: "squares"}

#: What the source of the functions refers to.
_NAMES = {
    "np": np,
    "view": view,
    "view_as": view_as,
    "flush": flush,
    "add": add,
    "u32": codec.u32,
    "bits": codec.bits,
    **{name: getattr(codec, name) for name in ("draw", "draw_again", "to_halves", "from_halves")},
    **{name: getattr(codec, name) for name in ("scale_of", "inverse_of", "from_signed", "from_squares")},
    **{
        f"{to}_{kind}": getattr(codec, f"{to}_{kind}")
        for to in ("to", "to_nearest")
        for kind in _KIND.values()
    },
    **{
        f"{to}_{kind}": getattr(codec, f"{to}_{kind}")
        for to in ("to", "to_nearest", "from")
        for kind in _WRITE.values()
    },
}


def _made(name: str, arguments: str, lines: Sequence[str]) -> Callable[..., Any]:
    return _defined_once(name, arguments, tuple(lines))


@cache
def _defined_once(name: str, arguments: str, lines: tuple[str, ...]) -> Callable[..., Any]:
    """Return a function of these lines: the same for all rules, which then is compiled once."""
    return jitable(defined(name, arguments, list(lines), **_NAMES))


def _listed(items: Sequence[str]) -> str:
    return "(" + "".join(f"{item}, " for item in items) + ")"


class Columns:
    """The functions for one kind of storage.

    Parameters
    ----------
    n_state : int
        How many state buffers there are.
    storage : Storage or None
        How they are stored; None if all are of one dtype, float32 or float64.
    """

    def __init__(self, n_state: int, storage: Storage | None) -> None:
        self._storage = storage
        self._state: Sequence[Format | None] = storage.state if storage else [None] * n_state
        self._blocks = [k for k, each in enumerate(self._state) if each is not None and each.block > 1]
        rest = storage is not None and storage.rest is not None
        self.n_buffers = n_state + rest
        self._rest = f"state[{n_state}]"

    def names(self) -> dict[str, Any]:
        """Return what the kernels' templates call, apart from what writes."""
        made: dict[str, Any] = {
            "_columns": self._columns(),
            "_key": _made("key_of", "line, at", [f"return {self._key()}"]),
            "_ahead": _made(
                "ahead", "key, n", [f"return {'(key[0] + n, key[1])' if self._draws() else 'key'}"]
            ),
            "_part": _made("part", "state, i, j", [f"return {_listed(self._parts())}"]),
            "_param": _made("param", "p, state, i", [f"return {self._param()}"]),
            "_grad": _made("grad", "g, i", [f"return {self._read(self._grad_format(), 'g[i]')}"]),
            "_load": _made("load", "state, i", [f"return {self._loaded()}"]),
            "N_BUFFERS": self.n_buffers,
            "N_KEYS": 0 if self._storage is None else 2,
        }
        if self._blocks:
            made["_scratch"] = scratch(SHARED * len(self._blocks))
            made["_opened"] = self._opened()
        return made

    # Where they are.

    def _columns(self) -> Callable[..., Any]:
        storage = self._storage
        formats: Sequence[Format | None] = [None] * (2 + self.n_buffers)
        if storage is not None:
            formats = [storage.param, storage.grad, *storage.buffers]
        p, g, *state = (self._view(PARAM + k, form) for k, form in enumerate(formats))
        lines = ["padded = (line[1] - line[0] + 3) // 4 * 4"] if self._blocks else []
        lines.append(f"return {p}, {g}, {_listed(state)}")
        return _made("columns", "line, at, size, like", lines)

    def _view(self, column: int, form: Format | None) -> str:
        if form is None or form.native:
            return f"view(line[{column}] + at * like.itemsize, size, like)"
        if form.block == 1:
            return f"view_as(line[{column}] + at * 2, size, np.uint16)"
        codes = f"view_as(line[{column}] + at, size, np.uint8)"
        place = f"line[{column}] + padded + at // {SHARED} * 4"
        return f"({codes}, view_as({place}, (size + {SHARED - 1}) // {SHARED}, np.float32))"

    def _key(self) -> str:
        place = STATE + self.n_buffers
        return f"(line[{place}] + at, line[{place + 1}])" if self._draws() else "None"

    def _draws(self) -> bool:
        return self._storage is not None and bool(self._storage.rounded)

    def _parts(self) -> list[str]:
        parts = [f"state[{k}][i:j]" for k in range(self.n_buffers)]
        for k in self._blocks:
            scales = f"state[{k}][1][i // {SHARED} : (j + {SHARED - 1}) // {SHARED}]"
            parts[k] = f"(state[{k}][0][i:j], {scales})"
        return parts

    # What is read.

    def _read(self, form: Format | None, item: str) -> str:
        return item if form is None else _READ.get(form, "{}").format(item)

    def _grad_format(self) -> Format | None:
        return None if self._storage is None else self._storage.grad

    def _param(self) -> str:
        storage = self._storage
        if storage is None:
            return "p[i]"
        if storage.rest == "master":
            return f"{self._rest}[i]"
        if storage.rest == "split":
            return f"from_halves(p[i], {self._rest}[i])"
        return self._read(storage.param, "p[i]")

    def _loaded(self) -> str:
        items = [self._read(form, f"state[{k}][i]") for k, form in enumerate(self._state)]
        for k in self._blocks:
            items[k] = f"from_{_KIND[self._state[k] == FLOAT8]}(state[{k}][0][i], state[{k}][1])"
        return _listed(items)

    def _opened(self) -> Callable[..., Any]:
        """Return what returns the columns of a block: codes, their scale and scratch memory, or numbers."""
        parts = [f"state[{k}][begin : begin + n]" for k in range(self.n_buffers)]
        for k in self._blocks:
            scale = f"state[{k}][1][begin // {SHARED}]"
            parts[k] = f"(state[{k}][0][begin : begin + n], {scale}, scratch)"
        return _made("opened", "state, scratch, begin, n", [f"return {_listed(parts)}"])

    # What is written.

    def _noise(self, column: int) -> str | None:
        """Return the source of a column's random bits; None where it is rounded to nearest."""
        storage = self._storage
        if storage is None or column not in storage.rounded:
            return None
        number, low = divmod(storage.rounded.index(column), 2)
        if column > 0 and column - 1 in self._blocks:  # of 20 bits
            return f"x{number} & 0xFFFFF" if low else f"x{number} >> 12"
        return f"x{number} & 0xFFFF" if low else f"x{number} >> 16"

    def _place(self, k: int) -> str:
        """Return where a column's number is in scratch memory."""
        return f"{SHARED * self._blocks.index(k)} + i"

    def _drawn(self, columns: Sequence[int]) -> list[str]:
        """Return lines that draw the random bits of some columns."""
        storage = self._storage
        rounded = () if storage is None else storage.rounded
        numbers = [rounded.index(column) // 2 for column in columns if column in rounded]
        if not numbers:
            return []
        lines = ["x0 = draw(key[0], i, key[1])"]
        return lines + [f"x{k + 1} = draw_again(x{k})" for k in range(max(numbers))]

    def _rounded(self, form: Format, column: int, item: str) -> str:
        noise = self._noise(column)
        if noise is None:
            return f"to_nearest_{_WRITE[form]}({item})"
        return f"to_{_WRITE[form]}({item}, {noise})"

    def _state_line(self, k: int, item: str) -> str:
        """Return a line that writes a new value of the state; to scratch memory if it has scales."""
        form = self._state[k]
        if k in self._blocks:  # the codes have no subnormal numbers
            return f"state[{k}][2][{self._place(k)}] = {item}"
        if form is None:
            return f"state[{k}][i] = flush(state[{k}].dtype.type({item}))"
        flushed = f"flush(np.float32({item}))"
        return f"state[{k}][i] = {self._rounded(form, k + 1, flushed) if form in _WRITE else flushed}"

    def _param_lines(self, item: str) -> list[str]:
        storage = self._storage
        if storage is None or storage.param.native:
            return [f"p[i] = {item}"]
        if storage.rest == "split":
            return [f"p[i], {self._rest}[i] = to_halves({item})"]
        lines = [f"{self._rest}[i] = {item}"] if storage.rest else []
        if storage.rest:
            return [*lines, f"p[i] = to_nearest_{_WRITE[storage.param]}({item})"]
        return [f"p[i] = {self._rounded(storage.param, 0, item)}"]

    def store(self, written: Sequence[int]) -> Callable[..., Any]:
        """Return what stores the results of a rule that writes some of the state."""
        names = [f"new{k}" for k in range(1 + len(written))]
        lines = [f"{', '.join(names)} = new"] if written else ["new0 = new"]
        columns = [0, *(k + 1 for k in written if k not in self._blocks)]
        lines += [*self._drawn(columns), *self._param_lines("new0")]
        lines += [self._state_line(k, name) for k, name in zip(written, names[1:], strict=True)]
        return _made("store", "p, state, i, new, key", lines)

    def encode(self, written: Sequence[int]) -> Callable[..., Any]:
        """Return what takes a block from scratch memory to what is written of the columns with scales."""
        before, looking, between = [], [], []
        taking = self._drawn([k + 1 for k in self._blocks if k in written])
        for k in self._blocks:
            if k not in written:
                continue
            kind, noise = _KIND[self._state[k] == FLOAT8], self._noise(k + 1)
            constants = "{}, {}".format(*codec.BLOCKS[kind])
            own = f"scratch[{self._place(k)}]"
            before.append(f"top{k} = u32(0)")
            looking.append(f"    top{k} = max(top{k}, u32(bits({own}) & 0x7FFFFFFF))")
            between += [
                f"state[{k}][1][begin // {SHARED}] = scale_of(top{k}, {constants})",
                f"inverse{k}, codes{k} = inverse_of(top{k}, {constants}), state[{k}][0][begin : begin + n]",
            ]
            to, last = ("to_nearest", "") if noise is None else ("to", f", {noise}")
            taking.append(f"codes{k}[i] = {to}_{kind}({own}, inverse{k}{last})")
        lines = []
        if before:
            lines = [*before, "for i in range(n):", *looking, *between, "for i in range(n):"]
            lines += [f"    {line}" for line in taking]
        return _made("encode", "state, scratch, begin, n, key", lines or ["pass"])

    def collect(self, written: Sequence[int], kinds: Sequence[str]) -> Callable[..., Any]:
        """Return what stores the state that a measure returned, and returns the sums with its terms."""
        n_terms = sum(KINDS[kind][1] for kind in kinds)
        n = len(written) + n_terms
        plural = "s" if n > 1 else ""
        wrong = f"the measure must return {n} value{plural}: the state that it writes, then its terms"
        lines = self._drawn([k + 1 for k in written if k not in self._blocks])
        lines += [self._state_line(k, f"new[{number}]") for number, k in enumerate(written)]
        for k in range(n_terms):
            lines.append(f"t{k} = np.float64({f'new[{len(written) + k}]' if n > 1 else 'new'})")
        sums, taken = [], 0
        for k, kind in enumerate(kinds):
            form, count = KINDS[kind]
            sums.append(f"add(sums[{k}], {form.format(*(f't{taken + j}' for j in range(count)))})")
            taken += count
        function = _made("collect", "state, sums, i, new, key", [*lines, f"return {_listed(sums)}"])

        def collect(state, sums, i, new, key):  # type: ignore[no-untyped-def]
            if (len(new) if isinstance(new, tuple) else 1) != n:
                raise TypeError(wrong)
            return function(state, sums, i, new, key)

        @overload(collect)
        def collect_compiled(state, sums, i, new, key):  # type: ignore[no-untyped-def]
            if (len(new) if isinstance(new, types.BaseTuple) else 1) != n:
                raise TypeError(wrong)
            return function

        return collect


#: How terms are added to a sum, and how many of them it takes.
KINDS = {"square": ("{0} * {0}", 1), "abs": ("abs({0})", 1), "sum": ("{0}", 1), "product": ("{0} * {1}", 2)}


def zeros(n: int) -> Callable[..., Any]:
    """Return a function that returns sums of nothing."""
    return _made("zeros", "", [f"return {_listed(['0.0'] * n)}"])


def plus(n: int) -> Callable[..., Any]:
    """Return a function that adds sums."""
    return _made("plus", "one, other", [f"return {_listed([f'one[{k}] + other[{k}]' for k in range(n)])}"])


def keeper(n: int) -> Callable[..., Any]:
    """Return a function that writes sums to an array."""
    return _made("keep", "sums, at, new", [f"sums[at + {k}] = new[{k}]" for k in range(n)])
