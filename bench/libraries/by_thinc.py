"""thinc's Adam, called for each parameter as its models call it."""

from __future__ import annotations

import warnings

from contest import Contestant, Task, need, refilled, refuse
from workloads import Arrays


def thinc(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    with warnings.catch_warnings():  # of what it imports
        warnings.simplefilter("ignore")
        optimizers = need("thinc.optimizers")
    # Its clipping is one of each array alone, and its average another one.
    refuse(task, ("Adam", "AdamW"), ("update",))
    own, given = [array.copy() for array in params], [array.copy() for array in grads]
    settings = task.settings
    opt = optimizers.Adam(
        settings["lr"],
        L2=settings.get("weight_decay", 0.0),
        beta1=settings["betas"][0],
        beta2=settings["betas"][1],
        eps=settings["eps"],
        grad_clip=0.0,
        L2_is_weight_decay=True,
        use_averages=False,
    )
    keys = [(i, "W") for i in range(len(own))]

    def step() -> None:
        for key, weights, gradient in zip(keys, own, given, strict=True):
            opt(key, weights, gradient)

    def write(new: Arrays) -> None:
        for to, array in zip(given, new, strict=True):
            to[...] = array

    return Contestant(refilled(step, write, grads), write, lambda: (own, []))  # it zeroes the gradients
