"""References with modifiers around them, naively; and optimizers that are held to them."""

import numba
import numpy as np
import pytest

from fastopt.modifiers import DEFAULTS
from tests.algorithms.cases import CASES, Closeness, draw, step, values
from tests.algorithms.interpreted import Interpreted
from tests.reference import Run

LR_MAX = 0.5
ALL = {
    "max_grad_value": 2.0,
    "cautious": True,
    "cautious_weight_decay": True,
    "corrected_weight_decay": LR_MAX,
    "ema_decay": 0.8,
    "ema_warmup": True,
    "swa_start": 2,
    "swa_every": 3,
    "lookahead_steps": 3,
    "lookahead_alpha": 0.3,
}
#: What every rule can have.
EVERYWHERE = {
    name: value for name, value in ALL.items() if "cautious" not in name and "weight_decay" not in name
}
#: The rules that have a step apart from the parameters.
APART = [case for case in CASES if getattr(case.rule, "decay", None) is not None and not case.rule.carry]
#: Some of them, of every kind: these are compiled.
COMPILED = [
    case
    for case in APART
    if case.id in ("sgd", "sgd_nesterov", "adam", "adamw_amsgrad", "lion", "rprop", "sophia")
]
#: Where there is time. Each has kernels of its own for each set of modifiers: without them, it is fast.
UNCOMPILED = () if numba.config.DISABLE_JIT else pytest.mark.slow


def fast(cases, *ids):
    """Return a mark for cases, of which only some are compiled in every run."""
    given = [pytest.param(case, id=case.id, marks=() if case.id in ids else UNCOMPILED) for case in cases]
    return pytest.mark.parametrize("case", given)


class Modified(Run):
    """A reference with the modifiers around it, naively."""

    def __init__(
        self, function, params, decay, *, max_grad_value=None, cautious=False, cautious_weight_decay=False,
        corrected_weight_decay=0.0, ema_decay=0.0, ema_warmup=False, swa_start=None, swa_every=1,
        lookahead_steps=0, lookahead_alpha=0.5, **others,
    ):  # fmt: skip
        super().__init__(function, params, **others)
        self.decay, self.cautious, self.by_sign = decay, cautious, cautious_weight_decay
        self.limit, self.corrected = max_grad_value, corrected_weight_decay
        self.ema_decay, self.warm = ema_decay, ema_warmup
        self.swa_start, self.swa_every = swa_start, swa_every
        self.k, self.alpha = lookahead_steps, lookahead_alpha
        self.averages = {}
        if ema_decay:
            self.averages["ema"] = self.params.copy()
        if swa_start is not None:
            self.averages["swa"] = np.zeros_like(self.params)
        if lookahead_steps:
            self.averages["slow"] = self.params.copy()
        self.averaged = []  # all that "swa" is the mean of

    def step(self, grad):
        old, sign = self.params.copy(), -1.0 if self.maximize else 1.0
        hyper, grad = dict(self.hyperparameters), sign * np.asarray(grad, float)
        if self.limit is not None:
            grad = np.clip(grad, -self.limit, self.limit)
        if self.corrected:
            hyper["weight_decay"] *= hyper["lr"] / self.corrected
        if self.cautious or self.by_sign:
            weight_decay = hyper.get("weight_decay", 0.0)
            if "weight_decay" in hyper:
                hyper["weight_decay"] = 0.0
            if self.decay == "coupled":
                grad, weight_decay = grad + weight_decay * old, 0.0
            self.steps += 1
            new, self.state = self.function(self.steps, np.zeros_like(old), grad, self.state, **hyper)
            u, shrink = -new, hyper["lr"] * weight_decay * old
            if self.by_sign:
                shrink = np.where(u * old >= 0, shrink, 0.0)
            if self.cautious:
                mask = (u * grad > 0).astype(float)
                u = u * mask / max(mask.mean(), 1e-3)
            self.params = old - shrink - u
        else:
            self.steps += 1
            self.params, self.state = self.function(self.steps, old, grad, self.state, **hyper)
        self.average()

    def average(self):
        if self.ema_decay:
            t = self.steps
            decay = min(self.ema_decay, (1 + t) / (10 + t)) if self.warm else self.ema_decay
            self.averages["ema"] = decay * self.averages["ema"] + (1 - decay) * self.params
        if self.swa_start is not None:
            i = self.steps - 1
            if i >= self.swa_start and (i - self.swa_start) % self.swa_every == 0:
                self.averaged.append(self.params)
                self.averages["swa"] = np.mean(self.averaged, axis=0)
        if self.k and self.steps % self.k == 0:
            self.averages["slow"] = self.averages["slow"] + self.alpha * (self.params - self.averages["slow"])
            self.params = self.averages["slow"].copy()

    def values(self):
        counts = {"n_averaged": np.float64(len(self.averaged))} if self.swa_start is not None else {}
        return {"params": self.params, **self.state, **self.averages, **counts}


def suitable(case, options):
    """Return those of the options that a case's rule can have."""
    chosen = dict(options)
    if case.rule.decay != "decoupled":
        chosen.pop("cautious_weight_decay", None)
    if "weight_decay" not in case.hyper:
        chosen.pop("corrected_weight_decay", None)
    if case.id == "sophia":  # its test takes the squares of gradients that are not clipped
        chosen.pop("max_grad_value", None)
    return chosen


def assert_follows(case, dtype, options, *, steps=12, tol=60, size=33, interpreted=False, **changes):
    """Hold an optimizer with modifiers to the reference: parameters and state, after every step."""
    rng = np.random.default_rng(3)
    shape, draw_gradient = case.shape(size), case.gradients or draw
    w = draw(rng, shape, dtype)
    hyper = {**case.hyper, **changes}
    run = Modified(case.reference, w, getattr(case.rule, "decay", None), **hyper, **options)
    opt = case.optimizer(w, **options, **changes)
    if interpreted:
        (rule,) = (leaf.rule for group in opt._groups for leaf in group.leaves)
        opt = Interpreted(rule, w, opt=opt, **{**DEFAULTS, **hyper, **options})
    close = Closeness(tol, [run.params], whole=case.over == "matrix")
    close.peaks |= {(0, name): np.abs(run.params) for name in run.averages}
    for i in range(steps):
        grad = draw_gradient(rng, shape, dtype)
        if i == 0:
            grad = np.copysign(grad, w)
        step(opt, grad)
        run.step(grad)
        close.check(values(opt), [run.values()])
