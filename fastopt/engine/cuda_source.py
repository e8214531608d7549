"""What a thread of the GPU does with the elements of a tile: functions made for a rule and its storage.

The counterpart of :mod:`fastopt.engine.columns`, with the same conversions. Where all buffers are aligned, a
thread takes four elements at once: all that it reads is asked for before the first number is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastopt.engine import codec
from fastopt.engine import cuda as gpu
from fastopt.engine.columns import END, GRAD, KINDS, PARAM, ROW, START, STATE
from fastopt.engine.compiled import defined
from fastopt.engine.cuda_access import ITEMSIZES, WIDTH
from fastopt.engine.formats import (
    BFLOAT16,
    FLOAT8,
    FLOAT16,
    FLOAT64,
    SHARED,
    Format,
    Storage,
    native,
)
from fastopt.engine.rule import Rule

_READ = {BFLOAT16: "from_bfloat16({})", FLOAT16: "from_float16({})"}
_WRITE = {BFLOAT16: "bfloat16", FLOAT16: "float16"}
_SCALED = {True: "signed", False: "squares"}


def kind_of(form: Format) -> str:
    """Return how a format's items are read; see :mod:`fastopt.engine.cuda`."""
    return {"float32": "f32", "float64": "f64", "uint8": "u8"}.get(form.stored, "u16")


def _flush32(x: Any) -> Any:
    return _ZERO32 if abs(x) < _SMALLEST32 else x


def _flush64(x: Any) -> Any:
    return _ZERO64 if abs(x) < _SMALLEST64 else x


_ZERO32, _SMALLEST32 = np.float32(0), np.finfo(np.float32).smallest_normal
_ZERO64, _SMALLEST64 = np.float64(0), np.finfo(np.float64).smallest_normal

_CODEC = (
    *("from_bfloat16", "to_bfloat16", "to_nearest_bfloat16", "from_float16", "to_float16"),
    *("to_nearest_float16", "from_halves", "to_halves", "scale_of", "inverse_of", "from_signed"),
    *("to_signed", "to_nearest_signed", "from_squares", "to_squares", "to_nearest_squares"),
    *("draw", "draw_again"),
)


def names() -> dict[str, Any]:
    """Return what the functions refer to, beside the rule."""
    made = {name: gpu.device(getattr(codec, name)) for name in _CODEC}
    flushes = {"flush_f32": gpu.device(_flush32), "flush_f64": gpu.device(_flush64)}
    return {**gpu.names(), **made, **flushes, "np": np}


def _listed(items: Sequence[str]) -> str:
    return "(" + "".join(f"{item}, " for item in items) + ")"


class Elements:
    """The lines for the elements of a tile.

    A table of segments has the columns of :mod:`fastopt.engine.columns`. After them are two more: the address
    of a double that the gradients are multiplied by, and whether the buffers are all aligned.

    Parameters
    ----------
    rule : Rule
        The rule.
    dtype : dtype
        What is computed in.
    storage : Storage or None
        How the buffers are stored; None if all are of that dtype.
    measuring : bool
        Whether the function is that of the rule's measure.
    guarded : bool
        Whether each segment's gradients are multiplied by a number of which only the device knows.
    """

    def __init__(
        self,
        rule: Rule,
        dtype: np.dtype[np.floating],
        storage: Storage | None,
        measuring: bool = False,
        guarded: bool = False,
    ) -> None:
        own = native(dtype)
        storage = storage or Storage(own, own, (own,) * len(rule.state))
        self._storage, self._measuring = storage, measuring
        self.real = kind_of(own)
        measure = rule.measure
        if measuring:
            assert measure is not None
            self._written = [rule.state.index(name) for name in measure.writes]
            self.sums = measure.sums
            self.n_scalars = 1 + rule.n_measure_scalars
        else:
            self._written = [rule.state.index(name) for name in rule.written]
            self.sums = ()
            self.n_scalars = 1 + rule.n_scalars
        self._n_state = len(rule.state)
        self._formats = [storage.param, storage.grad, *storage.buffers]
        self._kinds = [kind_of(form) for form in self._formats]
        self._sizes = [ITEMSIZES[kind] for kind in self._kinds]
        self._blocks = [k for k, form in enumerate(storage.state) if form.block > 1]
        self._encoded = [k for k in self._blocks if k in self._written]
        #: Where the key of the random bits, the sums, and the mark of alignment are in a line.
        after = STATE + len(storage.buffers)
        self.keyed = not storage.native
        self._origin = after
        self.sums_column = after + (2 if self.keyed else 0)
        self.factor_column = self.sums_column + bool(measuring)
        self.aligned_column = self.factor_column + 1
        self.n_columns = self.aligned_column + 1
        self._guarded = guarded

    def tile(self, clears: bool) -> list[str]:
        """Return the lines of the function for a tile: ``tile(line, begin, end, scalars, key, goes)``."""
        lines = self._opening()
        if self._blocks:
            lines += self._in_blocks(clears)
        else:
            lines += self._plain(clears)
        if clears:
            lines = ["if goes:", *_deeper(lines), "else:", *_deeper(self._only_clear())]
        else:
            lines = ["if goes:", *_deeper(lines)]
        if self.sums:
            lines += ["return " + _listed([f"sum{k}" for k in range(len(self.sums))])]
            lines = [*(f"sum{k} = np.float64(0.0)" for k in range(len(self.sums))), *lines]
        return lines

    def _opening(self) -> list[str]:
        """Return lines that find the buffers, and read the scalars."""
        lines = [f"c{k} = load_i64(line + {8 * (PARAM + k)})" for k in range(len(self._formats))]
        itemsize = ITEMSIZES[self.real]
        lines.append(f"row = scalars + load_i64(line + {8 * ROW}) * {self.n_scalars * itemsize}")
        lines += [f"s{k} = load_{self.real}(row + {k * itemsize})" for k in range(self.n_scalars)]
        if self._guarded:
            cast = "np.float32" if self.real == "f32" else "np.float64"
            lines.append(f"s0 = {cast}(s0 * load_f64(load_i64(line + {8 * self.factor_column})))")
        if self._storage.rounded:
            lines += [f"origin = load_i64(line + {8 * self._origin})", "bits_of_step = load_i64(key)"]
        return lines

    def _plain(self, clears: bool) -> list[str]:
        """Return lines for elements without scales: by fours, then one by one."""
        aligned = f"if load_i64(line + {8 * self.aligned_column}) != 0:"
        rest = f"i = end - (end - begin) % {WIDTH} + cuda.threadIdx.x"
        if self.sums:  # each thread adds up the same elements, however they are read
            lines = [aligned, *_deeper(self._by_fours(clears, True))]
            lines += ["else:", *_deeper(self._by_fours(clears, False)), rest]
        else:
            lines = ["i = begin + cuda.threadIdx.x", aligned, *_deeper([*self._by_fours(clears, True), rest])]
        return [*lines, "while i < end:", *_deeper(self._body(1, clears)), "    i += cuda.blockDim.x"]

    def _by_fours(self, clears: bool, at_once: bool) -> list[str]:
        """Return lines that take four elements after the other four, which are read at once, or not."""
        width = WIDTH
        return [
            f"i = begin + {width} * cuda.threadIdx.x",
            f"while i + {width} <= end:",
            *_deeper(self._body(width, clears, at_once)),
            f"    i += {width} * cuda.blockDim.x",
        ]

    def _in_blocks(self, clears: bool) -> list[str]:
        """Return lines for elements that share scales, block after block."""
        lines = [
            f"padded = (load_i64(line + {8 * END}) - load_i64(line + {8 * START}) + 3) // 4 * 4",
            "thread = cuda.threadIdx.x",
        ]
        if self._encoded:
            lines += [
                f"scratch = cuda.shared.array({SHARED * len(self._encoded)}, np.float32)",
                f"tops = cuda.shared.array({gpu.THREADS * len(self._encoded)}, np.uint32)",
            ]
        inside = [f"scale{k} = load_f32({self._scale(k)})" for k in self._blocks]
        inside += [f"top{k} = u32(0)" for k in self._encoded]
        inside += [f"last = min(first + {SHARED}, end)", "i = first + thread", "while i < last:"]
        inside += [*_deeper(self._body(1, clears)), "    i += cuda.blockDim.x"]
        if self._encoded:
            inside += self._encode()
        return [*lines, "first = begin", "while first < end:", *_deeper(inside), f"    first += {SHARED}"]

    def _scale(self, k: int) -> str:
        return f"c{2 + k} + padded + first // {SHARED} * 4"

    def _encode(self) -> list[str]:
        """Return lines that take a block from the shared memory to its codes, once its maxima are known."""
        threads = gpu.THREADS
        tops = [(k, f"tops[{threads * number} + thread]") for number, k in enumerate(self._encoded)]
        lines = [f"{place} = top{k}" for k, place in tops]
        lines += ["cuda.syncthreads()", f"half = {threads // 2}", "while half > 0:", "    if thread < half:"]
        for number, (_, place) in enumerate(tops):
            other = f"tops[{threads * number} + thread + half]"
            lines.append(f"        {place} = max({place}, {other})")
        lines += ["    cuda.syncthreads()", "    half //= 2"]
        taking = self._drawn([k + 1 for k in self._encoded], 0)
        for number, k in enumerate(self._encoded):
            kind = _SCALED[self._formats[2 + k] == FLOAT8]
            constants = "{}, {}".format(*codec.BLOCKS[kind])
            top = f"u32(tops[{threads * number}])"
            lines += [
                f"inverse{k} = inverse_of({top}, {constants})",
                "if thread == 0:",
                f"    store_f32({self._scale(k)}, scale_of({top}, {constants}))",
            ]
            noise = self._noise(k + 1, 0)
            to, last = ("to_nearest", "") if noise is None else ("to", f", {noise}")
            own = f"scratch[{SHARED * number} + i - first]"
            taking.append(f"store_u8(c{2 + k} + i, {to}_{kind}({own}, inverse{k}{last}))")
        lines += ["i = first + thread", "while i < last:", *_deeper(taking), "    i += cuda.blockDim.x"]
        return [*lines, "cuda.syncthreads()"]

    # A body: what happens to one element, or to four.

    def _body(self, width: int, clears: bool, at_once: bool = True) -> list[str]:
        lines = self._loaded(width, at_once)
        for lane in range(width):
            lines += self._computed(lane)
        if not self._measuring:
            lines += self._param_stored(width)
        state = [k for k in self._written if k not in self._blocks]
        for k in state:
            items = [self._stored(k, lane) for lane in range(width)]
            lines += self._store(2 + k, items, at_once)
        for number, k in enumerate(self._encoded):
            value = self._new(self._written.index(k), 0)
            lines.append(f"fresh{k} = np.float32({value})")
            lines.append(f"scratch[{SHARED * number} + i - first] = fresh{k}")
            lines.append(f"top{k} = max(top{k}, u32(bits(fresh{k}) & 0x7FFFFFFF))")
        if clears:
            lines += self._store(1, [self._zero()] * width)
        return lines

    def _place(self, column: int, lane: int = 0) -> str:
        size, i = self._sizes[column], f"(i + {lane})" if lane else "i"
        return f"c{column} + {i}" if size == 1 else f"c{column} + {i} * {size}"

    def _loaded(self, width: int, at_once: bool) -> list[str]:
        """Return lines that read all buffers, as they are stored: ``b`` with column and lane."""
        lines = []
        for column, kind in enumerate(self._kinds):
            if column == 0 and self._storage.rest == "master":
                continue
            found = [f"b{column}_{lane}" for lane in range(width)]
            if width > 1 and at_once:
                lines.append(f"{', '.join(found)} = load4_{kind}({self._place(column)})")
                continue
            for lane, item in enumerate(found):
                lines.append(f"{item} = load_{kind}({self._place(column, lane)})")
        return lines

    def _read(self, column: int, lane: int) -> str:
        form, item = self._formats[column], f"b{column}_{lane}"
        if form.block > 1:
            return f"from_{_SCALED[form == FLOAT8]}({item}, scale{column - 2})"
        return _READ.get(form, "{}").format(item)

    def _param(self, lane: int) -> str:
        rest, last = self._storage.rest, 2 + self._n_state
        if rest == "master":
            return f"b{last}_{lane}"
        if rest == "split":
            return f"from_halves(b0_{lane}, b{last}_{lane})"
        return self._read(0, lane)

    def _computed(self, lane: int) -> list[str]:
        """Return lines that apply the rule, and add to the sums."""
        state = [self._read(2 + k, lane) for k in range(self._n_state)]
        scalars = [f"s{k}" for k in range(1, self.n_scalars)]
        arguments = ", ".join([self._param(lane), f"s0 * {self._read(1, lane)}", *state, *scalars])
        lines = [f"n{lane} = rule({arguments})"]
        lines += self._drawn(self._native_rounded(), lane)
        taken = len(self._written)
        for number, kind in enumerate(self.sums):
            form, count = KINDS[kind]
            terms = [f"np.float64({self._new(taken + k, lane)})" for k in range(count)]
            taken += count
            if kind == "square":  # it is named twice
                lines.append(f"term = {terms[0]}")
                terms = ["term"]
            lines.append(f"sum{number} += {form.format(*terms)}")
        return lines

    def _new(self, number: int, lane: int) -> str:
        """Return the source of one of the values that the function returned: of the state, then the terms."""
        if self._measuring:
            n = len(self._written) + sum(KINDS[kind][1] for kind in self.sums)
            return f"n{lane}[{number}]" if n > 1 else f"n{lane}"
        return f"n{lane}[{1 + number}]"

    def _native_rounded(self) -> list[int]:
        """Return the columns, as ``Storage.rounded`` has them, that a body rounds."""
        columns = [] if self._measuring else [0]
        return columns + [k + 1 for k in self._written if k not in self._blocks]

    def _drawn(self, columns: Sequence[int], lane: int) -> list[str]:
        rounded = self._storage.rounded
        numbers = [rounded.index(column) // 2 for column in columns if column in rounded]
        if not numbers:
            return []
        lines = [f"x0_{lane} = draw(origin, i + {lane}, bits_of_step)"]
        return lines + [f"x{k + 1}_{lane} = draw_again(x{k}_{lane})" for k in range(max(numbers))]

    def _noise(self, column: int, lane: int) -> str | None:
        """Return the source of a column's random bits; None where it is rounded to nearest."""
        rounded = self._storage.rounded
        if column not in rounded:
            return None
        number, low = divmod(rounded.index(column), 2)
        own = f"x{number}_{lane}"
        if column > 0 and column - 1 in self._blocks:  # of 20 bits
            return f"u32({own} & 0xFFFFF)" if low else f"u32({own} >> 12)"
        return f"u32({own} & 0xFFFF)" if low else f"u32({own} >> 16)"

    def _rounded(self, form: Format, column: int, lane: int, item: str) -> str:
        noise = self._noise(column, lane)
        if noise is None:
            return f"to_nearest_{_WRITE[form]}({item})"
        return f"to_{_WRITE[form]}({item}, {noise})"

    def _stored(self, k: int, lane: int) -> str:
        """Return the source of what is stored of a new value of the state."""
        form, item = self._formats[2 + k], self._new(self._written.index(k), lane)
        if form == FLOAT64:
            return f"flush_f64(np.float64({item}))"
        flushed = f"flush_f32(np.float32({item}))"
        return self._rounded(form, k + 1, lane, flushed) if form in _WRITE else flushed

    def _param_stored(self, width: int) -> list[str]:
        """Return lines that store the parameters, and their rest."""
        storage, last = self._storage, 2 + self._n_state
        new = [f"n{lane}[0]" if self._written else f"n{lane}" for lane in range(width)]
        if storage.param.native:
            return self._store(0, new)
        lines = [f"q{lane} = np.float32({item})" for lane, item in enumerate(new)]
        q = [f"q{lane}" for lane in range(width)]
        if storage.rest == "split":
            lines += [f"h{lane}, l{lane} = to_halves({item})" for lane, item in enumerate(q)]
            lines += self._store(0, [f"h{lane}" for lane in range(width)])
            return lines + self._store(last, [f"l{lane}" for lane in range(width)])
        if storage.rest == "master":
            lines += self._store(last, q)
        rounded = [
            f"to_nearest_{_WRITE[storage.param]}({item})"
            if storage.rest
            else self._rounded(storage.param, 0, lane, item)
            for lane, item in enumerate(q)
        ]
        return lines + self._store(0, rounded)

    def _store(self, column: int, items: Sequence[str], at_once: bool = True) -> list[str]:
        kind = self._kinds[column]
        if len(items) > 1 and at_once:
            return [f"store4_{kind}({self._place(column)}, {', '.join(items)})"]
        return [f"store_{kind}({self._place(column, lane)}, {item})" for lane, item in enumerate(items)]

    def _zero(self) -> str:
        return {"f32": "np.float32(0)", "f64": "np.float64(0)"}.get(self._kinds[GRAD - PARAM], "u32(0)")

    def _only_clear(self) -> list[str]:
        """Return lines for a step that is left out: the gradients are set to zero all the same."""
        return [
            f"c1 = load_i64(line + {8 * GRAD})",
            "i = begin + cuda.threadIdx.x",
            "while i < end:",
            *_deeper(self._store(1, [self._zero()])),
            "    i += cuda.blockDim.x",
        ]


def _deeper(lines: Sequence[str], levels: int = 1) -> list[str]:
    return ["    " * levels + line for line in lines]


def tile_function(elements: Elements, rule: Any, clears: bool) -> Any:
    """Return the function for a tile, for kernels; ``rule`` is what it applies."""
    made = defined(
        "tile",
        "line, begin, end, scalars, key, goes",
        elements.tile(clears),
        **names(),
        rule=gpu.device(rule),
    )
    return gpu.device(made)
