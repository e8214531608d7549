"""optax: the whole step compiled by XLA for the CPU, its buffers donated, as its users are told to do."""

from __future__ import annotations

from typing import Any

import numpy as np
from contest import KEPT, MAX_NORM, Contestant, Task, need, refuse
from workloads import Arrays


def jitted(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    optax = need("optax")
    # Its arrays cannot be changed: there are no gradients to set to zero.
    refuse(task, list(TRANSFORMATIONS), ("update", "clip", "clip + EMA"))
    update = TRANSFORMATIONS[task.algorithm](optax, **task.settings)
    chain = optax.chain(optax.clip_by_global_norm(MAX_NORM), update) if task.clips else update
    return taken(chain, params, grads, task.averages)


def taken(transformation: Any, params: Arrays, grads: Arrays, with_averages: bool = False) -> Contestant:
    """Return the step of a transformation."""
    jax, optax = need("jax"), need("optax")

    def whole(params: Any, state: Any, averages: Any, grads: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        if with_averages:
            averages = optax.incremental_update(params, averages, 1 - KEPT)
        return params, state, averages

    compiled = jax.jit(whole, donate_argnums=(0, 1, 2))
    own = [jax.numpy.array(array) for array in params]
    averages = [jax.numpy.array(array) for array in params] if with_averages else []
    held = [(own, transformation.init(own), averages)]
    given = [[jax.numpy.array(array) for array in grads]]

    def step() -> None:
        new = compiled(*held.pop(), given[0])
        new[0][-1].block_until_ready()  # with it, all: they come from one call
        held.append(new)

    def write(new: Arrays) -> None:
        given[:] = [[jax.numpy.array(array) for array in new]]

    def read() -> tuple[Arrays, Arrays]:
        params, _, averages = held[0]
        return list(map(np.asarray, params)), list(map(np.asarray, averages))

    return Contestant(step, write, read)


def _adagrad(optax: Any, lr: float, eps: float) -> Any:
    # Its epsilon stands under the root.
    return optax.adagrad(lr, initial_accumulator_value=0.0, eps=eps**2)


#: What makes the transformation, by fastopt's names.
TRANSFORMATIONS: dict[str, Any] = {
    "AdamW": lambda optax, lr, betas, eps, weight_decay: optax.adamw(
        lr, *betas, eps=eps, weight_decay=weight_decay
    ),
    "SGD": lambda optax, lr, momentum: optax.sgd(lr, momentum),
    "Adagrad": _adagrad,
    "Lion": lambda optax, lr, betas, weight_decay: optax.lion(lr, *betas, weight_decay=weight_decay),
    "Adam": lambda optax, lr, betas, eps: optax.adam(lr, *betas, eps=eps),
    "RMSprop": lambda optax, lr, alpha, eps: optax.rmsprop(lr, alpha, eps, eps_in_sqrt=False),
    "Adadelta": lambda optax, lr, rho, eps: optax.adadelta(lr, rho, eps),
}
