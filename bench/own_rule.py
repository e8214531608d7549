"""Measures rules that a user writes beside built-in ones that read and write as much.

The rules are those of the README, and AdamW as a user would write it. Each takes turns with the built-in
method, over memory of its own; what they do is checked first, against NumPy in double.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import _measure
import numpy as np
from _measure import duration, interleaved
from contestants import Array, start

import fastopt

SIZES = (1_000, 100_000, 1_000_000, 20_000_000)


def signum(p, g, momentum_buffer, lr, momentum):
    momentum_buffer = momentum * momentum_buffer + g
    return p - math.copysign(lr, momentum_buffer), momentum_buffer


class Signum(fastopt.Optimizer):
    rule = fastopt.Rule(signum, state=("momentum_buffer",))
    defaults = {"lr": 1e-3, "momentum": 0.9}  # noqa: RUF012


def qhm(p, g, momentum_buffer, lr, momentum, fresh, nu, plain):
    momentum_buffer = momentum * momentum_buffer + fresh * g
    return p - lr * (nu * momentum_buffer + plain * g), momentum_buffer


def qhm_scalars(step, lr, momentum, nu):
    return lr, momentum, 1 - momentum, nu, 1 - nu


class QHM(fastopt.Optimizer):
    rule = fastopt.Rule(qhm, state=("momentum_buffer",), scalars=qhm_scalars, decay="none")
    defaults = {"lr": 1.0, "momentum": 0.999, "nu": 0.7}  # noqa: RUF012


def rolling(p, g, velocity, lr, momentum):
    velocity = momentum * velocity - lr * g
    return p + velocity, velocity


def rising(step, lr, max_momentum):
    return lr, min(1 - 0.5 / ((step - 1) // 250 + 1), max_momentum)


class RisingMomentum(fastopt.Optimizer):
    rule = fastopt.Rule(rolling, state=("velocity",), scalars=rising, decay="none")
    defaults = {"lr": 0.01, "max_momentum": 0.99}  # noqa: RUF012


def adam(p, g, m, v, step_size, beta1, fresh1, beta2, fresh2, correction, eps, shrink):
    m = beta1 * m + fresh1 * g
    v = beta2 * v + fresh2 * (g * g)
    return shrink * p - step_size * m / (math.sqrt(v) * correction + eps), m, v


def adam_scalars(step, lr, betas, eps, weight_decay):
    step_size, correction = lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** -0.5
    return step_size, betas[0], 1 - betas[0], betas[1], 1 - betas[1], correction, eps, 1 - lr * weight_decay


class OwnAdamW(fastopt.Optimizer):
    rule = fastopt.Rule(adam, state=("m", "v"), scalars=adam_scalars, decay="decoupled")
    defaults = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}  # noqa: RUF012


def signum_in_numpy(step: int, p: Array, g: Array, m: Array, v: Array) -> Array:
    m[:] = 0.9 * m + g
    return p - 1e-3 * np.sign(m)


def qhm_in_numpy(step: int, p: Array, g: Array, m: Array, v: Array) -> Array:
    m[:] = 0.999 * m + 0.001 * g
    return p - 1.0 * (0.7 * m + 0.3 * g)


def rising_in_numpy(step: int, p: Array, g: Array, m: Array, v: Array) -> Array:
    m[:] = min(1 - 2.0 ** (-1 - math.log2((step - 1) // 250 + 1)), 0.99) * m - 0.01 * g
    return p + m


def adamw_in_numpy(step: int, p: Array, g: Array, m: Array, v: Array) -> Array:
    m[:] = 0.9 * m + 0.1 * g
    v[:] = 0.999 * v + 0.001 * g**2
    return p * (1 - 1e-5) - 1e-3 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)


#: A rule, the same in NumPy, and a built-in method with as much traffic, with its settings.
PAIRS: list[tuple[type[Any], Callable[..., Array], type[Any], dict[str, float]]] = [
    (Signum, signum_in_numpy, fastopt.Signum, {}),
    (QHM, qhm_in_numpy, fastopt.SGD, {"momentum": 0.9}),
    (RisingMomentum, rising_in_numpy, fastopt.SGD, {"momentum": 0.9}),
    (OwnAdamW, adamw_in_numpy, fastopt.AdamW, {}),
]


def check(own: type[Any], in_numpy: Callable[..., Array]) -> None:
    """Compare some steps with NumPy's in double, also where a schedule moves on."""
    p, g = start(1003)
    opt, want, m, v = own(p), p.astype(float), np.zeros(1003), np.zeros(1003)
    for step in range(1, 261):
        grad = np.cos(step * g)
        opt.step(grad)
        want = in_numpy(step, want, grad.astype(float), m, v)
    np.testing.assert_allclose(p, want, rtol=1e-4, atol=1e-4)


def packed(cls: type[Any], p: Array, g: Array, **options: float) -> Callable[[], None]:
    pack = fastopt.pack(p)
    pack.flat_grads[:] = g
    step: Callable[[], None] = cls(pack, lr=1e-6, **options).step
    return step


def beside(
    own: type[Any], built_in: type[Any], options: dict[str, float], size: int, rounds: int
) -> dict[str, Any]:
    """Return the times of both, and the quotient: above 1, the user's own is slower.

    The times are those of the fastest quarter of many short rounds: what disturbs a measurement only adds.
    """
    theirs = built_in.rule_for({**built_in._known_defaults(), **options}, (size,))
    assert own.rule.traffic == theirs.traffic
    p, g = start(size)
    times = interleaved(
        {"own": packed(own, p, g), "built-in": packed(built_in, p, g, **options)}, rounds, 0.004
    )
    found = {name: float(np.quantile(values, 0.25)) for name, values in times.items()}
    return {**found, "quotient": found["own"] / found["built-in"]}


def main() -> None:
    args = _measure.arguments(__doc__, "own_rule.json").parse_args()
    about = _measure.describe()
    results: dict[str, Any] = {}
    for own, in_numpy, built_in, options in PAIRS:
        check(own, in_numpy)
        for size in SIZES[:2] if args.quick else SIZES:
            name = f"{own.__name__} beside {built_in.__module__.split('.')[0]}.{built_in.__name__}"
            found = beside(own, built_in, options, size, 9 if args.quick else 101)
            results.setdefault(name, {})[str(size)] = found
            print(
                f"{name:45} {size:>11,}: {duration(found['own']):>8}, built-in "
                f"{duration(found['built-in']):>8}, quotient {found['quotient']:.3f}"
            )
    # Of a thousand parameters, a step is mostly Python: of `scalars` too, which every rule has for itself.
    greatest = max(sizes[size]["quotient"] for sizes in results.values() for size in sizes if size != "1000")
    print(f"greatest quotient from 100,000 parameters on: {greatest:.3f}; promised: 1.02")
    _measure.save(args, about, {"results": results, "greatest_quotient": greatest})


if __name__ == "__main__":
    main()
