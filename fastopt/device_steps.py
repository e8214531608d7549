"""The steps of an optimizer whose arrays are on a device: what the host says of them, what is launched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastopt.arrangement import Arrangement
from fastopt.arranging import Arranging
from fastopt.engine.device import HERE, on_stream
from fastopt.gradients import clear_rest
from fastopt.group import Group
from fastopt.guard import Guard
from fastopt.options import StepOptions

if TYPE_CHECKING:
    from fastopt.device_guard import DeviceGuard


class DeviceSteps(Arranging):
    """What optimizers of arrays on a device have beside :meth:`fastopt.Optimizer.step`."""

    def _begin(self, defaults: dict[str, Any], options: StepOptions, sole: bool) -> None:
        super()._begin(defaults, options, sole)
        self._guard = Guard(options)
        self._device_guard: DeviceGuard | None = None
        self._prepared: tuple[Any, list[Any] | None] | None = None  # the latter is kept alive
        self._stepping = 0  # the thread that is on the stream of a step

    def prepare_step(self, grads: Any = None, *, lr: float | None = None, grad_scale: float = 1.0) -> None:
        """Do of a step what the host does; :meth:`launch_step` does the rest.

        For CUDA graphs: the launches are recorded once, and before the graph is launched again,
        this tells the device what is new: the learning rate, the schedules, the number of the step. It is one
        small copy a launch, on the stream of the arrays, and waits for nothing.

        Parameters
        ----------
        grads, lr, grad_scale
            As of :meth:`step`. A recorded launch reads the gradients where they were then.

        Raises
        ------
        TypeError
            If the arrays are not on a CUDA device.
        ValueError
            With ``accumulate``, ``max_skips``, ``swa_start`` or ``lookahead_steps``: the launches of steps
            differ, or depend on what the host learns.

        Examples
        --------
        With torch; CuPy's streams record likewise::

            opt.step()  # compiles
            graph = torch.cuda.CUDAGraph()
            opt.prepare_step()
            with torch.cuda.graph(graph):
                opt.launch_step()
            graph.replay()  # takes the step that was prepared
            for _ in range(1000):
                ...  # writes new gradients to the same arrays
                opt.prepare_step(lr=0.1)
                graph.replay()
        """
        if not self._on_device:
            raise TypeError(
                f"prepare_step() is for arrays {HERE}; those of {type(self).__name__} are not: call step()"
            )
        options = self._options
        if options.accumulate > 1 or options.max_skips is not None:
            raise ValueError("prepare_step() cannot be called with accumulate or max_skips: call step()")
        self._require_parameters("prepare_step() cannot be called")
        with on_stream(self._stream(grads)):
            self._take_notes()
            if lr is not None:
                lr = self._checked_lr(lr)
            found = self._arranged(grads, grad_scale)
            assert found is not None
            arrangement, multiplier, given, copies = found
            if not arrangement.alone:
                raise ValueError(
                    "prepare_step() cannot be called with lookahead_steps or swa_start, with which the "
                    "launches of steps differ: call step()"
                )
            if copies:
                raise ValueError("prepare_step() needs gradients that lie in memory as their parameters do")
            self._prepare(arrangement, multiplier, lr)
            self._count += 1
        self._prepared = arrangement, given

    def launch_step(self) -> None:
        """Launch the kernels of the step that :meth:`prepare_step` has prepared, on the arrays' stream.

        Raises
        ------
        RuntimeError
            If no step was prepared since groups, options or the gradients' arrays were others.
        """
        if self._prepared is None or self._prepared[0] is not self._arrangement:
            raise RuntimeError("launch_step() needs a step that was prepared: call prepare_step() first")
        arrangement, given = self._prepared
        with self._on_stream():
            arrangement.launch()
            if self._options.zero_grads:
                clear_rest(self._all_leaves(), given, [])

    def _step_on_stream(self, stream: int, step: Callable[[], None]) -> None:
        self._stepping = threading.get_ident()
        try:
            with on_stream(stream):
                step()
        finally:
            self._stepping = 0

    def _take_step(self, arrangement: Any, multiplier: float, lr: float | None) -> None:
        """Update the leaves, or have the device decide not to."""
        self._prepare(arrangement, multiplier, lr)
        arrangement.launch()

    def _prepare(self, arrangement: Any, multiplier: float, lr: float | None) -> None:
        """Let the device know all that a step depends on, and take note of the step."""
        guard = self._device_guard
        limit = None if guard is None else self._guard.limit(self._count)
        try:
            arrangement.set_scalars(self._count, multiplier, lr)
        except OverflowError:
            raise self._too_large(multiplier, lr) from None
        if guard is not None:
            guard.prepare(multiplier, limit)
        arrangement.begin()
        arrangement.send()
        arrangement.advance()

    def _new_arrangement(self, *wanted: Any) -> Arrangement:
        if not self._on_device:
            return super()._new_arrangement(*wanted)
        arrange = import_module("fastopt.device_arrangement").DeviceArrangement
        arrangement: Arrangement = arrange(self._device_guard, *wanted)
        return arrangement

    def _join(self, added: Group, own: Sequence[Mapping[str, Any]]) -> None:
        super()._join(added, own)
        if self._on_device and self._device_guard is None and self._options.looks_at_norm:
            with self._on_stream():
                made = import_module("fastopt.device_guard").DeviceGuard(self._guard, self._options)
            self._device_guard = made
            if self._options.grad_scaler is not None:
                self._options.grad_scaler.attach(self._pull, self._push_scale, made.scale)

    def _pull(self) -> None:
        """Have the host know what the device knows of the steps."""
        if self._device_guard is not None:
            with self._on_stream():
                self._device_guard.pull()
            self._skipped += self._device_guard.take_skipped()

    def _push_scale(self) -> None:
        """Have the device know the scale of the loss that the host has set."""
        if self._device_guard is not None:
            with self._on_stream():
                self._device_guard.push_scale()

    def _settle(self) -> None:
        super()._settle()
        if self._device_guard is not None:
            self._skipped += self._device_guard.take_skipped()
