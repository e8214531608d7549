"""A whole training step, naively: one thing after the other, over copies, in float64."""

import math

import numpy as np

from tests.reference.run import Run


class Averaged(Run):
    """A run with averages of its parameters: the exponential one, and the mean of those of some steps."""

    def __init__(
        self, function, params, *, ema_decay=0.0, ema_warmup=False, swa_start=None, swa_every=1, **others
    ):
        super().__init__(function, params, **others)
        self.ema_decay, self.ema_warmup = ema_decay, ema_warmup
        self.swa_start, self.swa_every = swa_start, swa_every
        self.ema = self.params.copy()
        self.seen = []

    def step(self, grad, **options):
        super().step(grad, **options)
        kept = self.ema_decay
        if self.ema_warmup:
            kept = min(kept, (1 + self.steps) / (10 + self.steps))
        self.ema = kept * self.ema + (1 - kept) * self.params
        number = self.steps - 1  # of the step just taken, from 0
        begun = self.swa_start is not None and number >= self.swa_start
        if begun and (number - self.swa_start) % self.swa_every == 0:
            self.seen.append(self.params.copy())

    @property
    def averages(self):
        found = {"ema": self.ema} if self.ema_decay else {}
        if self.swa_start is not None:
            found["n_averaged"] = np.array(float(len(self.seen)))
            found["swa"] = np.mean(self.seen, axis=0) if self.seen else np.zeros_like(self.params)
        return found


class WholeStep:
    """Several arrays, with what is done to their gradients before they are updated.

    ``runs`` are the arrays' own; None for one that is frozen.
    """

    def __init__(
        self, runs, *, max_grad_norm=None, grad_norm_over="all", limits=None, skip_nonfinite=False, accumulate=1,
        scale=1.0,
    ):  # fmt: skip
        self.runs, self.accumulate, self.scale = runs, accumulate, scale
        self.max_grad_norm, self.over = max_grad_norm, grad_norm_over
        self.limits = limits or [None] * len(runs)
        self.skip_nonfinite = skip_nonfinite
        self.count = self.skipped = 0
        self.norm = None
        self.waiting = []

    def step(self, grads):
        self.waiting.append(grads)
        if len(self.waiting) < self.accumulate:
            return
        means = []
        for given in zip(*self.waiting, strict=True):
            there = [np.asarray(grad, float) for grad in given if grad is not None]
            means.append(sum(there) / self.accumulate if there else None)
        self.waiting = []
        means = [
            None if mean is None or run is None else mean / self.scale
            for mean, run in zip(means, self.runs, strict=True)
        ]
        norms = [0.0 if mean is None else math.sqrt(float((mean**2).sum())) for mean in means]
        self.norm = math.sqrt(sum(norm**2 for norm in norms))
        if self.skip_nonfinite and not math.isfinite(self.norm):
            self.skipped += 1
            return
        limit = self.max_grad_norm
        if callable(limit):
            limit = limit(self.count)
        for mean, norm, run, value in zip(means, norms, self.runs, self.limits, strict=True):
            if mean is None:
                continue
            if limit is not None:
                mean = mean * min(1.0, limit / ((self.norm if self.over == "all" else norm) + 1e-6))
            if value is not None:
                mean = np.clip(mean, -value, value)
            run.step(mean)
        self.count += 1
