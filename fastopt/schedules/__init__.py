"""Schedules: hyperparameters that depend on the step.

Any hyperparameter of any optimizer may be a callable of the number of steps already taken. These are the
usual ones, in closed form: the value depends on the step alone, so a run that is resumed needs no schedule's
state. They take values, not factors, and so serve every hyperparameter; they are computed in double.
:class:`ReduceOnPlateau` alone depends on what it is told.

>>> import numpy as np, fastopt
>>> from fastopt.schedules import Cosine, Linear, Warmup
>>> opt = fastopt.AdamW(
...     np.ones(3),
...     lr=Warmup(Cosine(1e-3, steps=9_000, final=1e-5), steps=1_000),
...     weight_decay=Linear(0.1, steps=10_000),
... )
>>> lr = opt.param_groups[0]["lr"]
>>> lr(0), lr(500), lr(1_000), lr(10_000)
(0.0, 0.0005, 0.001, 1e-05)
"""

from fastopt.schedules.cosine import Cosine, CosineRestarts
from fastopt.schedules.cycles import Cyclic, OneCycle
from fastopt.schedules.decay import Constant, Exponential, InverseSqrt, Linear, Polynomial
from fastopt.schedules.joined import Sequence, Tuple, Warmup
from fastopt.schedules.plateau import ReduceOnPlateau
from fastopt.schedules.schedule import Chain, Schedule
from fastopt.schedules.stairs import MultiStep, Piecewise, Step
from fastopt.schedules.warmup_stable_decay import WarmupStableDecay

__all__ = [
    "Chain",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Sequence",
    "Step",
    "Tuple",
    "Warmup",
    "WarmupStableDecay",
]
