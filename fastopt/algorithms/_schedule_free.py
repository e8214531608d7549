"""What the Schedule-Free methods share: the weights of their average, and the two points of view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.averaged import AVERAGES, wanted_averages
from fastopt.engine import Batch, MatrixRule, Rule, Segment
from fastopt.optimizer import Optimizer

#: What the rules carry: the sum of the weights, the greatest learning rate, and the beta that y is made with.
CARRY = ("weight_sum", "lr_max", "beta")


# What is carried, the step's learning rate, and the shares by which y goes to z and downhill.
def average(step, weight_sum, lr_max, beta_before, lr, beta, warmup_steps, r, weight_lr_power):
    lr = lr * step / warmup_steps if step < warmup_steps else lr
    lr_max = max(lr, lr_max)
    weight = step**r * lr_max**weight_lr_power
    weight_sum = weight_sum + weight
    share = weight / weight_sum if weight_sum > 0.0 else 0.0
    turn = beta / beta_before if beta_before > 0.0 else 1.0  # not 1 only where beta is changed
    return (
        (weight_sum, lr_max, beta),
        lr,
        share + (1.0 - share) * (1.0 - turn),
        lr * (1.0 - beta * (1.0 - share)),
    )


def interpolate(p, g, factor):  # z in the place of the gradient
    return g + factor * (p - g)


_INTERPOLATE = Rule(interpolate)


class ScheduleFree(Optimizer):
    """An optimizer that takes its gradients at one point, y, and returns an average, x."""

    _training = True
    #: To move from the points of the gradients to their average and back, half precision is not exact enough.
    takes_halves = False

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float | str]:
        return {"z": "params"}

    @classmethod
    def _modified(cls, rule: Rule | MatrixRule, group: Mapping[str, Any]) -> Rule | MatrixRule:
        if group["lookahead_steps"] != 0.0:
            raise ValueError(f"{cls.__name__} averages already: no lookahead_steps, which would move y alone")
        for name in wanted_averages(group):
            raise ValueError(f"{cls.__name__} averages already: no {AVERAGES[name]}, which would average y")
        return super()._modified(rule, group)

    def eval(self) -> None:
        """Have the parameters be the average, x, to evaluate or to save them.

        They are moved in place; :meth:`train` moves them back. A second call does nothing.
        """
        if self._training:
            with self._on_stream():
                self._move(to_average=True)
        self._training = False

    def train(self) -> None:
        """Have the parameters be the point where gradients are taken, y, as they are at the beginning.

        They are moved in place. A second call does nothing.
        """
        if not self._training:
            with self._on_stream():
                self._move(to_average=False)
        self._training = True

    def step(self, grads: Any = None, *, lr: float | None = None, grad_scale: float = 1.0) -> None:
        """Update all parameters once, in place. See :meth:`fastopt.Optimizer.step`.

        Raises
        ------
        RuntimeError
            After :meth:`eval`.
        """
        if not self._training:
            raise RuntimeError(
                f"{type(self).__name__} cannot step after eval(): call train(), and take the gradients then"
            )
        super().step(grads, lr=lr, grad_scale=grad_scale)

    def state_dict(self, params: bool = False) -> dict[str, Any]:
        """Return what :meth:`fastopt.Optimizer.state_dict` does, and whether the parameters are y or x."""
        return {**super().state_dict(params), "training": self._training}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned. See :meth:`fastopt.Optimizer.load_state_dict`.

        The parameters of that moment belong to it: x after :meth:`eval`, else y.
        """
        if isinstance(state_dict, Mapping) and not isinstance(state_dict.get("training"), bool):
            raise ValueError("state_dict must be what state_dict() returned; state_dict has no 'training'")
        super().load_state_dict(state_dict)
        self._training = state_dict["training"]

    def _move(self, *, to_average: bool) -> None:
        self._settle()
        # Arrays that have not been updated are all three points at once.
        leaves = [leaf for leaf in self._leaves() if leaf.flat.size and leaf.extra["beta"] > 0.0]
        for leaf in leaves:
            if leaf.staged:
                leaf.stage()
        for dtype in {leaf.dtype for leaf in leaves}:
            mine = [leaf for leaf in leaves if leaf.dtype == dtype]
            betas = list(dict.fromkeys(float(leaf.extra["beta"]) for leaf in mine))
            segments: list[Segment] = [
                (leaf.flat, leaf.state["z"], [], betas.index(float(leaf.extra["beta"]))) for leaf in mine
            ]
            batch = Batch(_INTERPOLATE, segments, len(betas), self.max_threads)
            for row, beta in enumerate(betas):
                batch.set_scalars(row, 1.0, (1.0 / beta if to_average else beta,))
            batch.run()
        for leaf in leaves:
            if leaf.staged:
                leaf.unstage()
