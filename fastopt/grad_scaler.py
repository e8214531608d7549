"""The dynamic loss scale: as large as the gradients allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastopt.hyperparameters import check_value

#: The least and the greatest scale. The gradients are multiplied by its inverse: a normal float32.
LEAST, GREATEST = 1e-37, 1e37


class GradScaler:
    """Finds a factor for the loss that keeps small gradients from vanishing in half precision.

    Multiply the loss, or its gradient, by :attr:`scale`. The optimizer that the scaler is given to divides
    the gradients by it, leaves out the step where one of them is not finite, and then lowers the scale. After
    ``growth_interval`` steps in a row that were not left out, it raises it. The rules are those of
    torch.amp.GradScaler.

    A scaler belongs to one optimizer, whose checkpoints keep its state.

    Parameters
    ----------
    init_scale : float
        The first scale, > 0.
    growth_factor : float
        What raises it, > 1.
    backoff_factor : float
        What lowers it, between 0 and 1.
    growth_interval : int
        After how many steps it is raised.

    Attributes
    ----------
    scale : float
        What the loss is to be multiplied by now.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or out of range.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.ones(2, np.float32)
    >>> scaler = fastopt.GradScaler(init_scale=1024.0)
    >>> opt = fastopt.SGD(w, lr=0.5, grad_scaler=scaler)
    >>> opt.step(np.array([1, 2], np.float32) * np.float32(scaler.scale))
    >>> w
    array([0.5, 0. ], dtype=float32)
    >>> opt.step(np.array([np.inf, 2], np.float32))  # left out
    >>> w, scaler.scale
    (array([0.5, 0. ], dtype=float32), 512.0)
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        self._scale: float = _checked("init_scale", init_scale)
        self.growth_factor: float = _checked("growth_factor", growth_factor)
        self.backoff_factor: float = _checked("backoff_factor", backoff_factor)
        self.growth_interval = int(_checked("growth_interval", growth_interval))
        self._good_steps = 0
        self._pull: Callable[[], None] | None = None
        self._push: Callable[[], None] | None = None
        self._on_device: Any = None

    @property
    def scale(self) -> float:
        """What the loss is to be multiplied by.

        Where the arrays are on a CUDA device, so is the scale: to read it here waits for the device, and
        :attr:`scale_array` does not.
        """
        if self._pull is not None:
            self._pull()
        return self._scale

    @property
    def scale_array(self) -> Any:
        """The scale as a float32 array without axes on the CUDA device, which changes with each step.

        None unless it is given to an optimizer of arrays on a device. Other libraries take it without a copy,
        by ``__cuda_array_interface__``.
        """
        return self._on_device

    def attach(self, pull: Callable[[], None], push: Callable[[], None], array: Any) -> None:
        """Have the scale be on a device: :meth:`learn` is told of it by ``pull``, and ``push`` sets it."""
        self._pull, self._push, self._on_device = pull, push, array

    def learn(self, scale: float, good_steps: int) -> None:
        """Take over what a device knows."""
        self._scale, self._good_steps = scale, good_steps

    def known(self) -> tuple[float, int]:
        """Return the scale and the number of finite steps, as the host knows them."""
        return self._scale, self._good_steps

    def update(self, finite: bool) -> None:
        """Adapt the scale to a step. The optimizer does it.

        Parameters
        ----------
        finite : bool
            Whether all gradients of the step were finite.
        """
        if not finite:
            self._scale = max(self._scale * self.backoff_factor, LEAST)
            self._good_steps = 0
            return
        self._good_steps += 1
        if self._good_steps == self.growth_interval:
            grown = self._scale * self.growth_factor
            self._scale = grown if grown <= GREATEST else self._scale
            self._good_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and how many steps in a row were finite."""
        return {"scale": self.scale, "good_steps": self._good_steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._scale, self._good_steps = float(state_dict["scale"]), int(state_dict["good_steps"])
        if self._push is not None:
            self._push()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: its scale is not that of an optimizer on a device."""
        if self._pull is not None:
            self._pull()
        return {**vars(self), "_pull": None, "_push": None, "_on_device": None}

    def __repr__(self) -> str:
        return (
            f"GradScaler(init_scale={self.scale!r}, growth_factor={self.growth_factor!r}, "
            f"backoff_factor={self.backoff_factor!r}, growth_interval={self.growth_interval!r})"
        )


def _checked(name: str, value: Any) -> Any:
    return check_value(name, value, 1.0, schedule=False)
