"""L-BFGS as a torch optimizer: it evaluates the closure at several points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastopt.adapters._torch_core import host, plain
from fastopt.adapters._torch_optimizer import TorchOptimizer
from fastopt.algorithms.lbfgs import LBFGS, _check_settings
from fastopt.tree import describe

#: What torch has in the parameter group, and fastopt in attributes.
_SETTINGS: Mapping[str, Any] = {
    "max_iter": 20,
    "max_eval": None,
    "history_size": 100,
    "line_search_fn": None,
}


class TorchLBFGS(TorchOptimizer):
    """The methods of :class:`fastopt.adapters.torch.LBFGS`."""

    @classmethod
    def _group_defaults(cls) -> dict[str, Any]:
        return {**super()._group_defaults(), **_SETTINGS}

    @classmethod
    def _given(cls, args: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
        found = super()._given(args, options)
        return {**found, **_check_settings(_settings({**_SETTINGS, **found}))}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make up to ``max_iter`` moves.

        Parameters
        ----------
        closure : callable
            Clears the gradients, computes the loss and its gradients, and returns the loss. Where a parameter
            has no gradient then, it is taken for zero, as in torch.

        Returns
        -------
        The loss at the start of the step, as ``closure`` returned it.

        Raises
        ------
        TypeError, ValueError
            If ``closure`` is none, or a gradient or a hyperparameter is not what it can be.
        """
        if not callable(closure):
            raise TypeError(
                f"LBFGS.step() needs a closure, which computes the loss and its gradients, because it "
                f"evaluates them at several points; got {describe(closure)}"
            )
        losses: list[Any] = []

        def evaluate() -> tuple[float, list[Any]]:
            self._written()  # it has moved since the last evaluation
            with host().enable_grad():
                loss = closure()
            losses.append(loss)
            number = loss.detach() if isinstance(loss, host().Tensor) else loss
            return float(number), [self._dense(param) for param in self._params]

        self._prepare()
        self._stale = True
        self._core.step(evaluate)
        self._written()
        return losses[0]

    def _dense(self, param: Any) -> Any:
        if param.grad is None:
            return np.zeros(param.shape, str(param.dtype).removeprefix("torch."))
        grad = param.grad.detach()
        return (grad.to_dense() if grad.layout != host().strided else grad).resolve_neg().numpy()

    def _prepare(self, added: int = 0) -> None:
        super()._prepare(added)
        vars(self._core).update(_check_settings(_settings(self.param_groups[0])))

    def _refresh(self) -> None:
        super()._refresh()
        (memory,) = self._core.state
        if memory["n_iter"]:
            vectors = {name: list(map(host().from_numpy, memory[name])) for name in ("old_stps", "old_dirs")}
            single = {name: host().from_numpy(memory[name]) for name in ("d", "prev_flat_grad")}
            ro = [float(number) for number in memory["ro"]]
            self._state[self._params[0]].update({**memory, **vectors, **single, "ro": ro})

    def _more(self, groups: list[dict[str, Any]], entries: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the settings and the memory, from the group and the state of the first parameter."""
        memory: dict[str, Any] = dict(self._begun(), fresh=True)
        entry = entries[0]
        if entry.get("n_iter"):
            missing = [name for name in memory if name not in entry and name != "fresh"]
            if missing:
                raise ValueError(
                    f"the state of the first parameter must have {', '.join(map(repr, memory))} for LBFGS; "
                    f"the state_dict has {', '.join(map(repr, entry))}"
                )
            memory = {name: _arrays(entry.get(name, False)) for name in memory}
        return {"settings": _check_settings(_settings(groups[0])), "memory": memory}

    def _begun(self) -> dict[str, Any]:
        """Return the memory of an optimizer that has made no move."""
        size, dtype = sum(param.numel() for param in self._params), self._core._leaves()[0].dtype
        zeros = np.zeros(size, dtype)
        numbers = {"n_iter": 0, "func_evals": 0, "t": 0.0, "H_diag": 1.0}
        return {**numbers, "d": zeros, "prev_flat_grad": zeros, "old_stps": [], "old_dirs": [], "ro": []}


TorchLBFGS.algorithm = LBFGS


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: group[name] for name in _SETTINGS}


def _arrays(value: Any) -> Any:
    """Return numbers for tensors of one element without axes, and arrays for the others."""
    if isinstance(value, list):
        return [_arrays(item) for item in value]
    if isinstance(value, host().Tensor) and value.ndim:
        return value.detach().cpu().numpy()
    return plain(value)
