"""How an optimizer arranges its leaves for the gradients of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastopt.accumulation import Accumulator
from fastopt.arrangement import Arrangement
from fastopt.averaging import Averaging
from fastopt.engine.storage import Format
from fastopt.gradients import gradients_for, stage
from fastopt.hyperparameters import check_value
from fastopt.options import StepOptions

_NOTHING: list[Any] = []


class Arranging(Averaging):
    """The part of a step that comes before the update: its arguments, and where the gradients are."""

    def _begin(self, defaults: dict[str, Any], options: StepOptions, sole: bool) -> None:
        super()._begin(defaults, options, sole)
        self._accumulator = Accumulator(options.accumulate, options.zero_grads)

    def _checked_lr(self, lr: float) -> float:
        if "lr" not in self.defaults:
            raise TypeError(f"{type(self).__name__} has no lr")
        checked: float = check_value("lr", lr, 0.0, schedule=False)
        return checked

    def _arranged(
        self, grads: Any, grad_scale: float
    ) -> tuple[Arrangement, float, list[Any] | None, list[Any]] | None:
        """Check the arguments of a step, and arrange the leaves for it; None if gradients are added up still.

        Returns also what the gradients are to be multiplied by; the gradients, where they are not the packs';
        and what of them was copied.
        """
        options = self._options
        scale = 1.0 if grad_scale == 1.0 else check_value("grad_scale", grad_scale, 1.0, schedule=False)
        if options.grad_scaler is not None and not self._on_device:
            scale *= options.grad_scaler.scale
        given = None if grads is None else self._leaves_of(grads, "grads")
        if options.accumulate > 1:
            if given is None:
                self._check_packed()
            if not self._accumulator.take(self._leaves(), given, scale, self._grad_places, self.max_threads):
                return None
            given = self._accumulator.sums(self._leaves())
            scale *= options.accumulate
        copies = _NOTHING
        if given is None:
            arrangement = self._arrangement
            if arrangement is None or arrangement.present is not None:
                arrangement = self._arrange_own()
        else:  # it is held until the end: what follows knows only addresses
            arrangement, copies = self._arrange_given(given)
            if copies:
                stage(copies)
        return arrangement, 1.0 / scale, given, copies

    def _too_large(self, multiplier: float, lr: float | None) -> ValueError:
        return ValueError(
            f"{type(self).__name__}: a scalar of this step is too large for the dtype of the "
            f"parameters, with {self.param_groups}, lr={lr}, and gradients multiplied by {multiplier}"
        )

    def _arrange_own(self) -> Arrangement:
        """Arrange the leaves for the gradients that their packs hold."""
        self._check_packed()
        return self._arrange(None)

    def _check_packed(self) -> None:
        for leaf in self._leaves():
            if leaf.grad is None:
                raise TypeError(
                    f"step() needs gradients: {leaf.place} is not in a pack. "
                    f"Call step(grads), or give {type(self).__name__} a fastopt.pack(...)"
                )

    def _arrange_given(self, given: list[Any]) -> tuple[Arrangement, list[Any]]:
        """Arrange the leaves for gradients that are given, and say which must be copied first."""
        if self._given is None:
            self._given = gradients_for(self._leaves(), self._options.zero_grads, reads_halves=True)
        found = self._given
        moved = found.take(given, self._grad_places, allow_rows=True)
        if found.sparse:
            self._check_rows(found.sparse)
        arrangement = self._arrangement
        kind = found.present, found.sparse, found.halves
        if arrangement is None or (arrangement.present, arrangement.sparse, arrangement.halves) != kind:
            arrangement = self._arrange(*kind)
            moved = True
        if moved:
            arrangement.set_gradients(found.addresses, found.touched)
            found.touched = {}
        return arrangement, found.copies

    def _arrange(
        self,
        present: list[int] | None,
        sparse: Sequence[int] = (),
        halves: Mapping[int, Format] = MappingProxyType({}),
    ) -> Arrangement:
        if self.rows_only:
            for i in range(len(self._leaves())) if present is None else present:
                if i not in sparse:
                    place = self._grad_places()[i]
                    raise TypeError(f"{place} must be Rows: {type(self).__name__} takes no arrays")
        self._settle()
        wanted = self._leaves(), present, self.max_threads, sparse, self._options, halves
        self._arrangement = self._new_arrangement(*wanted)
        return self._arrangement

    def _new_arrangement(self, *wanted: Any) -> Arrangement:
        return Arrangement(*wanted)

    def _check_rows(self, sparse: Sequence[int]) -> None:
        """Raise an error unless the leaves of these numbers can be given rows."""
        leaves, places = self._leaves(), self._grad_places()
        for number in sparse:
            leaf = leaves[number]
            self.check_rows(leaf.group, leaf.rule, places[number])
            if any(form.block > 1 for form in leaf.formats.values()):
                raise ValueError(
                    f"{places[number]} cannot be Rows: the state of {leaf.place} is stored in blocks, by "
                    f"state_dtype={leaf.group['state_dtype']!r}, and a row is no whole number of them"
                )

    def _grad_places(self) -> list[str]:
        """Return the place of each gradient, as errors shall name it."""
        return self._places("grads")
