"""The launches of a step whose arrays are on a CUDA device. See :mod:`fastopt.arrangement`."""

from __future__ import annotations

from typing import Any

from fastopt.arrangement import Arrangement
from fastopt.device_guard import DeviceGuard, DeviceNorms
from fastopt.device_launch import DeviceGlobalLaunch, DeviceLaunch, Totals
from fastopt.engine.device import asarray
from fastopt.engine.device_batch import OnDevice
from fastopt.launch import Factors
from fastopt.norms import GradientNorms


class DeviceArrangement(Arrangement):
    """The launches of a step on a device: what the host prepares and what is launched are apart.

    Parameters
    ----------
    guard : DeviceGuard or None
        What decides on the steps, if the options ask for it.
    leaves, present, threads, sparse, options, halves
        As of :class:`fastopt.arrangement.Arrangement`.
    """

    launches: list[DeviceLaunch]  # type: ignore[assignment]
    norms: DeviceNorms | None

    def __init__(self, guard: DeviceGuard | None, *args: Any) -> None:
        super().__init__(*args)
        self._guard, self._taken, self._uncertain = guard, 0.0, False
        if guard is not None and self.norms is not None:
            self._taken, self._uncertain = guard.taken, guard.control != 0
            for each in self.launches:
                each.guard(guard, self.norms.factors(guard))
            if self._passes is not None and self._uncertain:
                self._one = asarray(1.0)  # nothing is clipped there
                for batch in self._passes.batches:
                    assert isinstance(batch, OnDevice)
                    batch.guard(guard.control, self._one.address)
        together = [each for each in self.launches if isinstance(each, DeviceGlobalLaunch)]
        self._totals = Totals(together) if together else None

    def set_scalars(
        self, count: int, multiplier: float, lr: float | None, factors: Factors | None = None
    ) -> None:
        """See :meth:`fastopt.arrangement.Arrangement.set_scalars`."""
        if self._uncertain and not self.alone:
            self.settle()  # what follows the update depends on its number: the host waits to know it
        super().set_scalars(count, multiplier, lr, factors)

    def _norms_of(self, *members: Any) -> GradientNorms:
        return DeviceNorms(*members)

    def send(self) -> None:
        """Let the device know what has changed."""
        for each in self.launches:
            each.send()
        if self.norms is not None:
            self.norms.send()

    def launch(self) -> None:
        """Run the kernels of a step, and nothing else."""
        if self.norms is not None and self._guard is not None:
            self.norms.run(self._guard)
        for measuring in self._measuring:
            measuring.measure()
        if self._totals is not None:
            self._totals.run()
        for each in self.launches:
            each.run()
        if self._passes is not None:
            self._passes.run()

    def advance(self) -> None:
        """Take note of a step, unless only the device knows whether it is taken."""
        if not self._uncertain:
            for cohort in self._updated:
                cohort.step += 1
            if self._carrying:
                self._carry_on()

    def settle(self) -> None:
        """Have the leaves know what the device does: it waits for it."""
        if self._guard is not None and self._uncertain:
            self._guard.pull()
            taken = int(self._guard.taken - self._taken)
            for cohort in self._updated:
                cohort.step += taken
            self._taken = self._guard.taken
            if self._passes is not None and not taken:
                self._passes.take_back()
        for each in self.launches:
            each.settle()
        self._share_carry()
        super().settle()
