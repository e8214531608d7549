"""An optimizer's averages of its parameters: as views, and in the parameters' place for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastopt.averaged import AVERAGES, COUNT, wanted_averages
from fastopt.engine.device import copyto
from fastopt.engine.storage import encode
from fastopt.engine.swap import Swap
from fastopt.leaf import Leaf
from fastopt.stateful import Stateful


class Averaging(Stateful):
    """What an optimizer that keeps averages of its parameters offers of them."""

    _shows_average = False

    def averages(self, which: str | None = None) -> Any:
        """Return averages of the parameters, as views.

        Parameters
        ----------
        which : {"ema", "swa", "slow"}, optional
            The exponential average (``ema_decay``), the stochastic weight average (``swa_start``), or the
            slow copy (``lookahead_steps``). By default the one that there is.

        Returns
        -------
        array or tree of arrays
            In the structure of the parameters; with groups, a list of such. Later steps go on writing to
            these arrays. None in the place of an array that has no such average: its group keeps none, it
            is frozen, or "swa" has not begun.

        Raises
        ------
        ValueError
            If there is no such average, or there are several and none is chosen.
        RuntimeError
            Inside :meth:`averaged_parameters`.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> params = {"w": np.zeros(2)}
        >>> opt = fastopt.SGD(params, lr=1.0, ema_decay=0.75)
        >>> for _ in range(2):
        ...     opt.step({"w": np.array([-1.0, 1.0])})
        >>> params, opt.averages()
        ({'w': array([ 2., -2.])}, {'w': array([ 0.6875, -0.6875])})
        """
        self._require_parameters("averages() cannot be called")
        with self._on_stream():
            name = self._chosen_average(which)
            trees = [
                group.tree.build([leaf.read(name) if _has(leaf, name) else None for leaf in group.leaves])
                for group in self._groups
            ]
        return trees[0] if self._sole else trees

    @contextmanager
    def averaged_parameters(self, which: str | None = None) -> Iterator[Any]:
        """Have the parameters be their averages, for as long as the ``with`` block lasts.

        They change places in one pass, in place: whatever holds the arrays evaluates with the averages. At
        the block's end, also by an exception, the parameters are what they were, bit for bit. Arrays that
        have no such average, or whose average has not begun, keep their values. Inside the block, nothing
        can be done that needs the parameters themselves: to step, to save, to load, to copy, to add a group.

        Parameters
        ----------
        which : {"ema", "swa", "slow"}, optional
            Which averages; see :meth:`averages`.

        Yields
        ------
        The parameters that the optimizer was given; with groups, a list of them.

        Raises
        ------
        ValueError
            If there is no such average, or there are several and none is chosen.
        RuntimeError
            Inside another such block.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> w = np.zeros(2)
        >>> opt = fastopt.SGD(w, lr=1.0, ema_decay=0.75)
        >>> opt.step(np.array([-1.0, 1.0]))
        >>> with opt.averaged_parameters():
        ...     print(w)
        [ 0.25 -0.25]
        >>> w
        array([ 1., -1.])
        """
        self._require_parameters("averaged_parameters() cannot be called")
        with self._on_stream():
            name = self._chosen_average(which)
            leaves = [leaf for leaf in self._leaves() if _has(leaf, name)]
            exchange = _Exchange(leaves, name, self.max_threads)
            exchange.run()
        self._shows_average = True
        try:
            yield self._params()
        finally:
            with self._on_stream():
                exchange.run()
            self._shows_average = False

    def _add(self, group: Mapping[str, Any]) -> None:
        self._require_parameters("add_param_group() cannot be called")
        with self._on_stream():
            super()._add(group)

    def _require_parameters(self, what: str) -> None:
        super()._require_parameters(what)
        if self._shows_average:
            raise RuntimeError(f"{what} inside averaged_parameters(): leave the block first")

    def _chosen_average(self, which: str | None) -> str:
        """Return which averages are meant, up to date."""
        self._take_notes()
        self._settle()
        leaves = self._leaves()
        for leaf in leaves:
            if leaf.step == 0:
                leaf.begin()
        there = [name for name in AVERAGES if any(name in wanted_averages(leaf.group) for leaf in leaves)]
        if which is not None and which not in AVERAGES:
            raise ValueError(f"which must be one of {_listed(list(AVERAGES))}, or None; got {which!r}")
        if not there:
            raise ValueError(
                f"{type(self).__name__} keeps no averages here: ask for some with "
                f"{', '.join(list(AVERAGES.values())[:-1])} or {list(AVERAGES.values())[-1]}"
            )
        if which is None and len(there) > 1:
            raise ValueError(f"which must say which averages are meant: there are {_listed(there)}")
        if which is not None and which not in there:
            raise ValueError(f"which must name averages that are kept: {_listed(there)}; got {which!r}")
        return which or there[0]


class _Exchange:
    """Leaves whose parameters and averages change places."""

    def __init__(self, leaves: Sequence[Leaf], name: str, threads: int) -> None:
        # Half precision cannot hold an average: it stays where it is, and the parameters are copied.
        self._halves = [leaf for leaf in leaves if leaf.half is not None]
        self._name, self._kept = name, [leaf.array.copy() for leaf in self._halves]
        leaves = [leaf for leaf in leaves if leaf.half is None]
        self._staged = [leaf for leaf in leaves if leaf.staged]
        filled = [leaf for leaf in leaves if leaf.flat.size]
        self._showing = False
        self._swaps = [
            Swap([(leaf.flat, leaf.state[name]) for leaf in filled if leaf.dtype == dtype], threads)
            for dtype in dict.fromkeys(leaf.dtype for leaf in filled)
        ]

    def run(self) -> None:
        for leaf in self._staged:
            leaf.stage()
        for swap in self._swaps:
            swap.run()
        for leaf in self._staged:
            leaf.unstage()
        for leaf, kept in zip(self._halves, self._kept, strict=True):
            if self._showing:
                copyto(leaf.array, kept)
            elif leaf.half is not None and leaf.on_device:
                encode(leaf.half, leaf.state[self._name], leaf.flat)
            else:
                leaf.array[...] = leaf.read(self._name)
        self._showing = not self._showing


def _has(leaf: Leaf, name: str) -> bool:
    """Tell whether a leaf has an average, and that has begun."""
    if leaf.frozen or name not in wanted_averages(leaf.group):
        return False
    return name != "swa" or bool(np.asarray(leaf.extra[COUNT]).any())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
