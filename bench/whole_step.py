"""The whole step of a training loop, by fastopt in one call and by torch: clip, AdamW, average, zero.

torch's part is its best: ``clip_grad_norm_``, the fused AdamW, ``_foreach_lerp_`` and
``zero_grad(set_to_none=False)``. The shapes are those of GPT-2 small, and 1000 arrays of 1000.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import _measure  # first: it says which fastopt is measured
import numpy as np
from _measure import Times, duration, interleaved, median, ratio
from contestants import Array, torch_or_none

import fastopt

SMOKE = os.environ.get("FASTOPT_BENCH_SMOKE", "") not in ("", "0")
LR, DECAY, MAX_NORM, KEPT, EPS = 1e-4, 0.1, 1.0, 0.999, 1e-8
#: So slow that state does not fade within the benchmark. Once the gradients are zeroed it would, into
#: subnormal numbers, with which torch is many times slower; bench/slowdown.py is about that.
BETAS = (1 - 2e-6, 1 - 1e-6)
#: The steps that are compared: what is done beside AdamW.
KINDS = ("AdamW", "clip + AdamW", "clip + AdamW + EMA + zero")

Shapes = Sequence[tuple[int, ...]]


def gpt2_small() -> Shapes:
    """Return the shapes of GPT-2 small's 148 arrays: 124 million parameters."""
    width = 768
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    inner = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    block = [*norm, *attention, *norm, *inner]
    return [(50257, width), (1024, width), *(12 * block), *norm]


def workloads(quick: bool) -> dict[str, Shapes]:
    many = [(1000,)] * 1000
    if SMOKE:
        return {"1000 arrays of 1000": many[:10]}
    if quick:
        return {"1000 arrays of 1000": many}
    return {"GPT-2 small, 148 arrays": gpt2_small(), "1000 arrays of 1000": many}


def start(shapes: Shapes) -> tuple[list[Array], list[Array]]:
    """Return parameters and gradients; the gradients are so large that they are clipped."""
    rng = np.random.default_rng(0)
    params = [0.02 * rng.standard_normal(shape, np.float32) for shape in shapes]
    return params, [rng.standard_normal(shape, np.float32) for shape in shapes]


def by_fastopt(
    kind: str, params: list[Array], grads: list[Array]
) -> tuple[Callable[[], object], list[Array]]:
    options: dict[str, Any] = {}
    if "clip" in kind:
        options["max_grad_norm"] = MAX_NORM
    if "EMA" in kind:
        options |= {"ema_decay": KEPT, "zero_grads": True}
    pack = fastopt.pack(params)
    for own, grad in zip(pack.grads, grads, strict=True):
        own[...] = grad
    opt = fastopt.AdamW(pack, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, **options)
    return opt.step, [*pack.params, *(opt.state[0]["ema"] if "EMA" in kind else ())]


def by_torch(
    torch: Any, kind: str, params: list[Array], grads: list[Array]
) -> tuple[Callable[[], object], list[Array]]:
    own = [torch.nn.Parameter(torch.tensor(param)) for param in params]
    for parameter, grad in zip(own, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    opt = torch.optim.AdamW(own, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)
    averages = [parameter.detach().clone() for parameter in own] if "EMA" in kind else []
    values = [parameter.detach() for parameter in own]

    def step() -> None:
        if "clip" in kind:
            torch.nn.utils.clip_grad_norm_(own, MAX_NORM)
        opt.step()
        if averages:
            torch._foreach_lerp_(averages, values, 1.0 - KEPT)
            opt.zero_grad(set_to_none=False)

    return step, [array.numpy() for array in [*values, *averages]]


def check(name: str, kind: str, params: list[Array], grads: list[Array], updated: list[Array]) -> None:
    """Raise an error unless one step from the start gave what float64 gives."""
    norm = np.sqrt(sum(float((grad.astype(float) ** 2).sum()) for grad in grads))
    factor = min(1.0, MAX_NORM / (norm + 1e-6)) if "clip" in kind else 1.0
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        g = grad * factor
        move = LR * g / (abs(g) + EPS)  # the first step: m and v are corrected to g and its square
        wanted = param * (1.0 - LR * DECAY) - move
        pairs = [(updated[i], wanted)]
        if "EMA" in kind:
            pairs.append((updated[len(params) + i], KEPT * param + (1.0 - KEPT) * wanted))
        for got, want in pairs:
            # Where a clipped gradient is not far from eps, its rounding shows.
            if not np.allclose(got, want, rtol=1e-5, atol=1e-7):
                raise AssertionError(f"{name}, {kind}: array {i} is off by {abs(got - want).max()}")


def measure(shapes: Shapes, rounds: int, seconds: float) -> dict[str, Times]:
    """Return the times of each kind of step."""
    torch = torch_or_none()
    found = {}
    for kind in KINDS:
        params, grads = start(shapes)
        made = {"fastopt": by_fastopt(kind, params, grads)}
        if torch is not None:
            made["torch"] = by_torch(torch, kind, params, grads)
        for name, (step, updated) in made.items():
            step()
            check(name, kind, params, grads, updated)
        del params, grads
        found[kind] = interleaved({name: step for name, (step, _) in made.items()}, rounds, seconds)
    return found


def main() -> None:
    args = _measure.arguments(__doc__, "whole_step.json").parse_args()
    about = _measure.describe()
    rounds, seconds = (3, 0.02) if args.quick or SMOKE else (9, 0.2)
    cases = []
    for name, shapes in workloads(args.quick).items():
        for kind, times in measure(shapes, rounds, seconds).items():
            found = {peer: median(values) for peer, values in times.items()}
            speed = ratio(times, "torch", "fastopt") if "torch" in times else None
            cases.append({"shapes": name, "step": kind, "seconds": found, "speed": speed})
            words = ", ".join(f"{peer} {duration(value)}" for peer, value in found.items())
            print(f"{name}: {kind}: {words}" + (f": {speed:.2f} times" if speed else ""))
    _measure.save(args, about, {"cases": cases})


if __name__ == "__main__":
    main()
