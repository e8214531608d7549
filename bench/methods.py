"""Measures the whole catalogue: what a step moves against what memory allows, and against other libraries.

Each algorithm takes turns with AdamW at a size that no cache holds: its bytes a second over AdamW's says
how near it comes to the memory's speed, whatever it reads and writes. Methods that work on matrices, and
L-BFGS, are bound by other things and are not compared so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _measure
import numpy as np
from _measure import interleaved, median, ratio
from contest import Unavailable, need
from contestants import Array, start, torch_or_none
from libraries import by_optax

import fastopt
from fastopt import Rule

#: What is read and written in one step, in numbers a parameter; of what the table needs, nothing is typed.
Step = Callable[[], object]


def elementwise() -> list[str]:
    """Return the names of the algorithms whose steps are passes over all elements."""
    names = []
    for name in fastopt.algorithms.__all__:
        cls = getattr(fastopt, name)
        if isinstance(_rule(cls), Rule) and name != "SparseAdam":
            names.append(name)
    return names


def _rule(cls: Any) -> Any:
    return None if cls is fastopt.LBFGS else cls.rule_for(cls._known_defaults(), (2, 2))


def by_fastopt(name: str, p: Array, g: Array) -> tuple[Step, Array]:
    pack = fastopt.pack(p)
    pack.flat_grads[:] = g
    opt = getattr(fastopt, name)(pack)
    if hasattr(opt, "lookahead"):

        def step() -> None:
            opt._has_looked = True  # what comes before a step is not part of it
            opt.step()

        return step, pack.flat
    return opt.step, pack.flat


def bandwidths(size: int, rounds: int, seconds: float, names: list[str]) -> dict[str, Any]:
    """Return the bytes a second of each algorithm, and over AdamW's in the same rounds."""
    p, g = start(size)
    adamw, _ = by_fastopt("AdamW", p, g)
    moved = 4 * size * _rule(fastopt.AdamW).traffic
    found = {}
    for name in names:
        step, _ = by_fastopt(name, p, g)
        step()  # the state's memory is new: the first step pays for it
        times = interleaved({"AdamW": adamw, name + " ": step}, rounds, seconds)
        own = 4 * size * _rule(getattr(fastopt, name)).traffic
        of_adamw = ratio(times, "AdamW", name + " ") * own / moved
        found[name] = {
            "seconds": median(times[name + " "]),
            "gb_per_s": own / median(times[name + " "]) / 1e9,
            "of_adamw": of_adamw,
            "bytes": own // size,
        }
        print(f"{name:18} {own // size:3} B {found[name]['gb_per_s']:6.1f} GB/s, {of_adamw:.2f} of AdamW's")
    return found


# The same by others.


def optax_step(name: str, p: Array, g: Array) -> Step:
    """Return optax's step, as peers.py has it."""
    optax, contrib = need("optax"), need("optax.contrib")
    made = {
        "Lion": lambda: optax.lion(1e-4, weight_decay=0.0),
        "Adan": lambda: optax.adan(1e-3),
        "AdEMAMix": lambda: contrib.ademamix(1e-3),
        "LAMB": lambda: optax.lamb(1e-3),
    }[name]()
    return by_optax.taken(made, [p], [g]).step


def beside_optax(sizes: list[int], rounds: int, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for size in sizes:
        for name in ("Lion", "Adan", "AdEMAMix", "LAMB"):
            p, g = start(size)
            try:
                theirs = optax_step(name, p, g)
            except Unavailable as reason:
                print(f"skipped: optax ({reason})")
                return found
            step, _ = by_fastopt(name, p, g)
            times = interleaved({"fastopt": step, "optax": theirs}, rounds, seconds)
            speed = ratio(times, "optax", "fastopt")
            seconds_of = {peer: median(times[peer]) for peer in times}
            found.setdefault(str(size), {})[name] = {**seconds_of, "speed": speed}
            print(f"{name:10} {size:>10,}: {speed:.2f} times optax's speed", seconds_of)
    return found


def lamb_in_numpy(p: Array, g: Array) -> Step:
    """LAMB as an array programmer writes it, in place."""
    m, v, a, b = (np.zeros_like(p) for _ in range(4))
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        np.multiply(m, 0.9, out=m)
        np.multiply(g, 0.1, out=a)
        np.add(m, a, out=m)
        np.multiply(v, 0.999, out=v)
        np.multiply(g, g, out=a)
        np.multiply(a, 0.001, out=a)
        np.add(v, a, out=v)
        np.sqrt(v, out=a)
        np.multiply(a, (1 - 0.999**count) ** -0.5, out=a)
        np.add(a, 1e-6, out=a)
        np.divide(m, a, out=a)
        np.divide(a, 1 - 0.9**count, out=a)
        trust = np.linalg.norm(p) / np.linalg.norm(a)
        np.multiply(a, 1e-3 * trust, out=b)
        np.subtract(p, b, out=p)

    return step


def lars_in_numpy(p: Array, g: Array) -> Step:
    v, a = np.zeros_like(p), np.zeros_like(p)

    def step() -> None:
        trust = 1e-3 * np.linalg.norm(p) / np.linalg.norm(g)
        np.multiply(g, 1e-3 * trust, out=a)
        np.multiply(v, 0.9, out=v)
        np.add(v, a, out=v)
        np.subtract(p, v, out=p)

    return step


def lamb_in_torch(torch: Any, p: Array, g: Array) -> Step:
    p, g = torch.tensor(p), torch.tensor(g)
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        m.lerp_(g, 0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        update = (v / (1 - 0.999**count)).sqrt_().add_(1e-6)
        torch.div(m, update, out=update)
        update.div_(1 - 0.9**count)
        trust = p.norm() / update.norm()
        p.sub_(update.mul_(1e-3 * trust))

    return step


def lars_in_torch(torch: Any, p: Array, g: Array) -> Step:
    p, g = torch.tensor(p), torch.tensor(g)
    v = torch.zeros_like(p)

    def step() -> None:
        trust = 1e-3 * p.norm() / g.norm()
        v.mul_(0.9).add_(g * (1e-3 * trust))
        p.sub_(v)

    return step


def trust_ratios(sizes: list[int], rounds: int, seconds: float) -> dict[str, Any]:
    """Return how much faster LAMB and LARS are than the same in NumPy and in torch."""
    torch, found = torch_or_none(), {}
    for size in sizes:
        for name, by_numpy, by_torch in (
            ("LAMB", lamb_in_numpy, lamb_in_torch),
            ("LARS", lars_in_numpy, lars_in_torch),
        ):
            p, g = start(size)
            own, flat = by_fastopt(name, p, g)
            mine = p.copy()
            steps = {"fastopt": own, "NumPy": by_numpy(mine, g)}
            if torch is not None:
                steps["torch"] = by_torch(torch, p, g)
            own()
            steps["NumPy"]()
            if name == "LAMB":  # the default settings of LARS have other factors, which take no time
                np.testing.assert_allclose(flat, mine, rtol=1e-4, atol=1e-6)
            times = interleaved(steps, rounds, seconds)
            speeds = {peer: ratio(times, peer, "fastopt") for peer in steps if peer != "fastopt"}
            found.setdefault(str(size), {})[name] = speeds
            print(f"{name} {size:>10,}:", {peer: f"{speed:.2f} times" for peer, speed in speeds.items()})
    return found


def main() -> None:
    parser = _measure.arguments(__doc__, "catalogue.json")
    parser.add_argument("--only", nargs="*", help="algorithms")
    args = parser.parse_args()
    about = _measure.describe()
    size, rounds, seconds = (2 * 10**7, 3, 0.02) if args.quick else (5 * 10**7, 7, 0.05)
    found: dict[str, Any] = {"size": size}
    found["bandwidth"] = bandwidths(size, rounds, seconds, args.only or elementwise())
    if not args.only:
        found["optax"] = beside_optax([10**4, size], rounds, seconds)
        found["trust"] = trust_ratios([10**4, 10**6, size], rounds, seconds)
    _measure.save(args, about, found)


if __name__ == "__main__":
    main()
