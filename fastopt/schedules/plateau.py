"""Less, whenever a metric stops improving. The one schedule with state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, SupportsFloat

from fastopt.hyperparameters import Range, as_number
from fastopt.schedules import _checks
from fastopt.schedules.schedule import Schedule


@dataclass
class _State:
    """What has been seen so far."""

    value: float
    best: float
    num_bad_reports: int = 0
    cooldown_counter: int = 0


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    r"""A value that is reduced when a metric has stopped improving.

    Give it to an optimizer, and tell it the metric now and then, such as the validation loss after each
    epoch. A metric is better than the best so far if it is below ``best * (1 - threshold)``, or, with the
    threshold mode "abs", ``best - threshold``; with the mode "max", if it is above the same with plus. After
    more than ``patience`` reports in a row without a better one,

    .. math::
        \eta \leftarrow \max(\mathrm{factor} \cdot \eta,\ \mathrm{min\_value})

    Parameters
    ----------
    initial : float
        The value at first, at least 0.
    factor : float
        In [0, 1).
    patience : int
        How many reports in a row may bring nothing better.
    threshold : float
        What an improvement must exceed, at least 0.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is a share of the best metric.
    cooldown : int
        How many reports after a reduction are not counted.
    min_value : float
        What the value is not reduced below, at least 0.
    mode : {"min", "max"}
        Whether less is better, or more.
    eps : float
        The least change: a reduction by no more than that is left out.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    Notes
    -----
    As ``torch.optim.lr_scheduler.ReduceLROnPlateau``, with NaN, too: it is never better than anything. The
    value does not depend on the step, but on what was reported. This state is saved and restored by
    :meth:`state_dict` and :meth:`load_state_dict`; an optimizer's checkpoint calls these two for any schedule
    that has them. Optimizers and groups that hold the same object share its value. A copy, also of an
    optimizer, has a state of its own: take the copy's schedule from its ``param_groups``.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> plateau = ReduceOnPlateau(0.1, factor=0.5, patience=1)
    >>> opt = fastopt.SGD(np.ones(3), lr=plateau)
    >>> for loss in (1.0, 0.9, 0.9, 0.9):
    ...     plateau.report(loss)
    >>> plateau.value
    0.05
    """

    initial: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_value: float = 0.0
    mode: str = "min"
    eps: float = 1e-8
    _state: _State = field(init=False, repr=False)

    def __post_init__(self) -> None:
        initial = _checks.number("initial", self.initial, _checks.NOT_NEGATIVE)
        mode = _checks.choice("mode", self.mode, ("min", "max"))
        self._set(
            initial=initial,
            factor=_checks.number("factor", self.factor, Range(0, 1, below=True)),
            patience=_checks.whole("patience", self.patience),
            threshold=_checks.number("threshold", self.threshold, _checks.NOT_NEGATIVE),
            threshold_mode=_checks.choice("threshold_mode", self.threshold_mode, ("rel", "abs")),
            cooldown=_checks.whole("cooldown", self.cooldown),
            min_value=_checks.number("min_value", self.min_value, _checks.NOT_NEGATIVE),
            mode=mode,
            eps=_checks.number("eps", self.eps, _checks.NOT_NEGATIVE),
            _state=_State(initial, math.inf if mode == "min" else -math.inf),
        )

    def __call__(self, step: int) -> float:
        return self._state.value

    @property
    def value(self) -> float:
        """The value now."""
        return self._state.value

    @property
    def best(self) -> float:
        """The best metric so far: infinite before the first report."""
        return self._state.best

    def report(self, metric: SupportsFloat) -> None:
        """Take note of a metric, and reduce the value if it is time.

        Parameters
        ----------
        metric : float
            What is to get better. NaN is allowed, and is never better.

        Raises
        ------
        TypeError
            If it is no number.
        """
        if isinstance(metric, str) or not isinstance(metric, SupportsFloat):
            raise TypeError(f"metric must be a number; got {metric!r}")
        current = float(metric)
        state = self._state
        if self._is_better(current):
            state.best, state.num_bad_reports = current, 0
        else:
            state.num_bad_reports += 1
        if state.cooldown_counter > 0:
            state.cooldown_counter -= 1
            state.num_bad_reports = 0
        if state.num_bad_reports > self.patience:
            reduced = max(state.value * self.factor, self.min_value)
            if state.value - reduced > self.eps:
                state.value = reduced
            # torch starts over also where the value was left as it is.
            state.cooldown_counter, state.num_bad_reports = self.cooldown, 0

    def _is_better(self, metric: float) -> bool:
        best, sign = self._state.best, -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            goal = best * (1.0 + sign * self.threshold)
        else:
            goal = best + sign * self.threshold
        return metric < goal if self.mode == "min" else metric > goal

    def state_dict(self) -> dict[str, float]:
        """Return the state as plain numbers, under ``value``, ``best`` and two counters.

        Examples
        --------
        >>> plateau = ReduceOnPlateau(0.1)
        >>> plateau.report(2.5)
        >>> plateau.state_dict()
        {'value': 0.1, 'best': 2.5, 'num_bad_reports': 0, 'cooldown_counter': 0}
        """
        return asdict(self._state)

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Take over what :meth:`state_dict` returned. The arguments stay as they are.

        Parameters
        ----------
        state_dict : mapping of str to float
            The state.

        Raises
        ------
        ValueError
            If names are missing or too many.
        TypeError, ValueError
            If a value is of another kind, or out of range. Nothing is changed then, either.
        """
        known = asdict(self._state)
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(known):
            raise ValueError(
                f"state_dict must have {', '.join(known)}, as ReduceOnPlateau.state_dict() returns them; "
                f"got {_shown(state_dict)}"
            )
        best = as_number(state_dict["best"])
        if best is None or math.isnan(best):  # infinity is what it starts with
            error = TypeError if best is None else ValueError
            raise error(f"best must be a number; got {state_dict['best']!r}")
        loaded = _State(
            value=_checks.number("value", state_dict["value"], _checks.NOT_NEGATIVE),
            best=best,
            num_bad_reports=_checks.whole("num_bad_reports", state_dict["num_bad_reports"]),
            cooldown_counter=_checks.whole("cooldown_counter", state_dict["cooldown_counter"]),
        )
        self._state.__dict__.update(asdict(loaded))


def _shown(state: Any) -> str:
    return ", ".join(map(str, state)) or "nothing" if isinstance(state, Mapping) else repr(state)
