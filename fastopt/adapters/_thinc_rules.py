"""The updates of thinc's optimizers, each in one pass, and their scalars."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastopt.engine import Rule


def thinc_sgd(p: Any, g: Any, step_size: Any, decay: Any) -> Any:
    """Return what plain gradient descent makes of a weight, and then the decay."""
    p = p - step_size * g
    return p - decay * p


def thinc_sgd_averaged(p: Any, g: Any, average: Any, step_size: Any, decay: Any, share: Any) -> Any:
    """Return the same, and the average."""
    p = p - step_size * g
    p = p - decay * p
    return p, average - share * (average - p)


def thinc_adam(
    p: Any, g: Any, mom1: Any, mom2: Any,
    step_size: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any, highest: Any, added: Any, decay: Any,
) -> Any:  # fmt: skip
    """Return what Adam makes of a weight, and then the decay."""
    mom1 = beta1 * mom1 + rest1 * g
    mom2 = beta2 * mom2 + rest2 * (g * g)
    p = p - step_size * (mom1 / (min(math.sqrt(mom2), highest) + added))
    return p - decay * p, mom1, mom2


def thinc_adam_averaged(
    p: Any, g: Any, mom1: Any, mom2: Any, average: Any,
    step_size: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any, highest: Any, added: Any, decay: Any,
    share: Any,
) -> Any:  # fmt: skip
    """Return the same, and the average."""
    mom1 = beta1 * mom1 + rest1 * g
    mom2 = beta2 * mom2 + rest2 * (g * g)
    p = p - step_size * (mom1 / (min(math.sqrt(mom2), highest) + added))
    p = p - decay * p
    return p, mom1, mom2, average - share * (average - p)


#: The rules, by whether there are moments and averages.
RULES = {
    (False, False): Rule(thinc_sgd),
    (False, True): Rule(thinc_sgd_averaged, ("average",)),
    (True, False): Rule(thinc_adam, ("mom1", "mom2")),
    (True, True): Rule(thinc_adam_averaged, ("mom1", "mom2", "average")),
}


def adam_scalars(step: int, lr: float, beta1: float, beta2: float, eps: float) -> tuple[float, ...]:
    """Return the scalars of Adam's moments and step, in double."""
    step_size = lr * (1.0 - beta2**step) ** 0.5 / (1.0 - beta1**step)
    # thinc has the betas in float32, and takes what they lack to 1 from those: 1e-5 more than in double.
    beta1, beta2 = float(np.float32(beta1)), float(np.float32(beta2))
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, math.inf, eps


def radam_scalars(step: int, lr: float, beta1: float, beta2: float, eps: float) -> tuple[float, ...]:
    """Return those of RAdam's."""
    share = 1.0 - beta2**step
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * step * (1.0 - share) / share
    step_size = lr / (1.0 - beta1**step)
    highest, added = 0.0, 1.0  # at first the step is not divided: the root is cut to 0, and 1 is added
    if length >= 5.0:
        rest = (longest - 4.0) * (longest - 2.0) * length
        step_size *= math.sqrt(share * (length - 4.0) * (length - 2.0) * longest / rest)
        highest, added = math.inf, eps
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, highest, added
