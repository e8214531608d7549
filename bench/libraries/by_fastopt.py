"""fastopt: in a pack, over arrays that stay where they are, and as an optimizer of torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from contest import KEPT, MAX_NORM, Contestant, Task, Unavailable, need, refilled
from workloads import Array, Arrays

import fastopt


def packed(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    pack = fastopt.pack(list(params))
    opt = getattr(fastopt, task.algorithm)(pack, **options(task))

    def write(given: Arrays) -> None:
        _copy(pack.grads, given)

    write(grads)
    step = refilled(opt.step, write, grads) if task.zeroes else opt.step
    return Contestant(step, write, lambda: (pack.params, _averages(task, opt)), lambda: pack.grads)


def unpacked(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """The caller's own arrays, and gradients in the same arrays at each step."""
    if len(params) == 1:
        raise Unavailable("one array needs no pack")
    own, given = [array.copy() for array in params], [array.copy() for array in grads]
    opt = getattr(fastopt, task.algorithm)(own, **options(task))

    def write(new: Arrays) -> None:
        _copy(given, new)

    def step() -> None:
        opt.step(given)

    again = refilled(step, write, grads) if task.zeroes else step
    return Contestant(again, write, lambda: (own, _averages(task, opt)), lambda: given)


def unpacked_anew(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """The caller's own arrays, and gradients in other arrays than in the step before."""
    if len(params) < 1000 or task.kind != "update":
        raise Unavailable("is about the cost of many new arrays")
    own = [array.copy() for array in params]
    given = [[array.copy() for array in grads] for _ in range(2)]
    opt = getattr(fastopt, task.algorithm)(own, **options(task))
    turns = itertools.cycle(given)

    def write(new: Arrays) -> None:
        for each in given:
            _copy(each, new)

    return Contestant(lambda: opt.step(next(turns)), write, lambda: (own, _averages(task, opt)))


def in_torch(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    torch = need("torch")
    from fastopt.adapters import torch as adapters

    own = [torch.nn.Parameter(torch.tensor(array)) for array in params]
    for parameter in own:
        parameter.grad = torch.empty_like(parameter)
    opt = getattr(adapters, task.algorithm)(own, **options(task))

    def write(given: Arrays) -> None:
        _copy([parameter.grad.numpy() for parameter in own], given)

    write(grads)
    step = refilled(opt.step, write, grads) if task.zeroes else opt.step
    return Contestant(
        step,
        write,
        lambda: (
            [parameter.detach().numpy() for parameter in own],
            [opt.state[parameter]["ema"].numpy() for parameter in own] if task.averages else [],
        ),
        lambda: [parameter.grad.numpy() for parameter in own],
    )


def options(task: Task) -> dict[str, Any]:
    found = dict(task.settings)
    if task.clips:
        found["max_grad_norm"] = MAX_NORM
    if task.averages:
        found["ema_decay"] = KEPT
    if task.zeroes:
        found["zero_grads"] = True
    return found


def _averages(task: Task, opt: Any) -> Arrays:
    return list(opt.averages("ema")) if task.averages else []


def _copy(to: Sequence[Array], given: Arrays) -> None:
    for own, array in zip(to, given, strict=True):
        own[...] = array
