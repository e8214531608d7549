"""scikit-learn's optimizers of MLPClassifier, called as it calls them."""

from __future__ import annotations

from contest import Contestant, Task, need, refuse
from workloads import Arrays


def sklearn(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """Return Adam or SGD; Adam where AdamW is asked for, which does less: there is no weight decay."""
    found = need("sklearn.neural_network._stochastic_optimizers")
    refuse(task, ("SGD", "Momentum", "Adam", "AdamW"), ("update",))
    own, given = [array.copy() for array in params], [array.copy() for array in grads]
    settings = task.settings
    if "momentum" in settings:
        opt = found.SGDOptimizer(own, settings["lr"], momentum=settings["momentum"], nesterov=False)
    else:
        opt = found.AdamOptimizer(own, settings["lr"], *settings["betas"], epsilon=settings["eps"])

    def write(new: Arrays) -> None:
        for to, array in zip(given, new, strict=True):
            to[...] = array

    algorithm = "Adam" if task.algorithm == "AdamW" else None
    return Contestant(lambda: opt.update_params(own, given), write, lambda: (own, []), algorithm=algorithm)
