"""Steps of fastopt's torch optimizers, and of torch.optim's: by default, foreach, and fused where it can.

At a million parameters in one tensor and in eight, and on the host at 148 tensors of 100, where the gradients
of each step are other tensors than before: that is what ``zero_grad()`` makes of a training loop. torch has
no Lion: there, it is one of torch's operations, in place, and of its ``_foreach_`` operations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import _measure  # first: it says which fastopt is measured
import numpy as np
import torch
from _measure import Times, duration, fastest, interleaved, median, ratio
from libraries.by_torch import lion

import fastopt.adapters.torch as adapters

SMOKE = os.environ.get("FASTOPT_BENCH_SMOKE", "") not in ("", "0")
LR = 1e-6
#: Settings under which no shortcut is taken, and no state fades away while the same steps are repeated.
SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "weight_decay": 1e-3},
    "Adagrad": {},
    "Adam": {},
    "AdamW": {},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adadelta": {},
    "Rprop": {},
    "ASGD": {},
    "Adafactor": {},
    "Lion": {"weight_decay": 1e-2},
}
#: Those with a fused kernel for the CPU in torch: there, nothing is promised.
FUSED = ("SGD", "Adagrad", "Adam", "AdamW")

Shapes = Sequence[tuple[int, ...]]


def contestants(name: str) -> dict[str, Callable[[Any], Any]]:
    """Return what makes an optimizer of a list of parameters, by who does it."""
    own = {"lr": LR, **SETTINGS[name]}
    peer = lion() if name == "Lion" else getattr(torch.optim, name)
    made = {
        "fastopt": lambda params: getattr(adapters, name)(params, **own),
        "torch": lambda params: peer(params, **own),
        "torch foreach": lambda params: peer(params, **own, foreach=True),
    }
    if name in FUSED:
        made["torch fused"] = lambda params: peer(params, **own, fused=True)
    return made


def workloads(quick: bool) -> dict[str, Shapes]:
    if SMOKE:
        return {"8 tensors, 1000 parameters": [(125,)] * 8}
    # A perceptron: 784-896-256-128, and its biases.
    layers = [(896, 784), (896,), (256, 896), (256,), (256, 128), (128,), (128, 64), (64,)]
    every = {"1 tensor, 1e6 parameters": [(1_000_000,)], "8 tensors, 1e6 parameters": layers}
    return {**every, **({} if quick else {"148 tensors of 100": [(100,)] * 148})}


def start(shapes: Shapes, seed: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.standard_normal(shape), dtype=torch.float32) for shape in shapes]


def stepper(make: Callable[[Any], Any], shapes: Shapes) -> tuple[Callable[[], object], list[Any]]:
    """Return a step, and the parameters after three of them."""
    params = [torch.nn.Parameter(tensor) for tensor in start(shapes, 0)]
    grads = [start(shapes, 1)] * 2  # a second one would not fit into the cache too
    if sum(param.numel() for param in params) < 100_000:
        grads[1] = start(shapes, 2)
    opt = make(params)
    turn = 0

    def step() -> None:
        nonlocal turn
        turn ^= 1
        for param, grad in zip(params, grads[turn], strict=True):
            param.grad = grad
        opt.step()

    for _ in range(3):
        step()
    return step, [param.detach().clone() for param in params]


def measure(name: str, shapes: Shapes, rounds: int, seconds: float) -> Times:
    """Return the times of the steps, after a look at whether all have the same results."""
    steps, wanted = {}, None
    for who, make in contestants(name).items():
        steps[who], got = stepper(make, shapes)
        wanted = got if wanted is None else wanted
        moved = [(one - before).abs().max() for one, before in zip(got, start(shapes, 0), strict=True)]
        if not all(move > 0 for move in moved):
            raise AssertionError(f"{name}, {who}: nothing moved")
        for one, other in zip(got, wanted, strict=True):
            if not torch.allclose(one, other, rtol=1e-5, atol=1e-6):
                raise AssertionError(f"{name}, {who}: off by {(one - other).abs().max()}")
    return interleaved(steps, rounds, seconds)


def main() -> None:
    parser = _measure.arguments(__doc__, "torch_adapter.json")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, help="these algorithms")
    args = parser.parse_args()
    about = _measure.describe()
    rounds, seconds = (3, 0.02) if args.quick or SMOKE else (9, 0.1)
    cases, rows = [], []
    for title, shapes in workloads(args.quick).items():
        for name in args.only or SETTINGS:
            times = measure(name, shapes, rounds, seconds)
            found = {who: median(values) for who, values in times.items()}
            best = fastest(times, [who for who in times if who != "fastopt"])
            speed = ratio(times, best, "fastopt")
            cases.append({"shapes": title, "algorithm": name, "seconds": found, "speed": speed})
            rows.append(
                [title, name, *(duration(found[who]) if who in found else "" for who in WHO), f"{speed:.1f}"]
            )
            print(rows[-1], flush=True)
    print(_measure.table(["Parameters", "Algorithm", *WHO, "fastopt against the best"], rows))
    _measure.save(args, about, {"cases": cases})


WHO = ("fastopt", "torch", "torch foreach", "torch fused")


if __name__ == "__main__":
    main()
