"""Any options, groups, dtypes and shapes together: the same as one thing after the other, in float64."""

import numba
import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import fastopt
from tests.algorithms.cases import BY_ID, Closeness, draw, leaves, step, values
from tests.reference.whole import Averaged, WholeStep

#: One that goes by elements, one that measures tensors, one that measures all, one for matrices.
ALGORITHMS = ["adamw", "sgd_nesterov", "lamb", "nadam", "muon"]


@st.composite
def plans(draw_from):
    """Draw what to train, and how."""
    case = BY_ID[draw_from(st.sampled_from(ALGORITHMS))]
    shapes = st.lists(st.integers(1, 9).map(case.shape), min_size=1, max_size=4)
    groups = draw_from(st.lists(shapes, min_size=1, max_size=3))
    optional = {
        "max_grad_norm": st.sampled_from([0.3, 50.0, lambda step: 0.1 + 0.1 * step]),
        "grad_norm_over": st.sampled_from(["all", "tensor"]),
        "skip_nonfinite": st.just(True),
        "accumulate": st.integers(2, 3),
        "zero_grads": st.just(True),
        "max_grad_value": st.sampled_from([0.05, 2.0]),
        "ema_decay": st.sampled_from([0.5, 0.9]),
        "ema_warmup": st.just(True),
        "swa_start": st.integers(0, 3),
        "swa_every": st.integers(1, 2),
        "maximize": st.just(True),
        "threads": st.integers(1, 3),
    }
    options = draw_from(st.fixed_dictionaries({}, optional=optional))
    if "ema_decay" not in options:
        options.pop("ema_warmup", None)
    return {
        "case": case,
        "groups": groups,
        "options": options,
        "dtype": draw_from(st.sampled_from(["float32", "float32", "float64"])),
        "packed": draw_from(st.booleans()),
        "scale": draw_from(st.sampled_from([1.0, 1.0, 3.0, 1024.0])),
        "lrs": draw_from(st.lists(st.sampled_from([1.0, 0.5]), min_size=len(groups), max_size=len(groups))),
        "frozen": draw_from(st.booleans()),
        "slower": draw_from(st.booleans()),
        "missing": draw_from(st.booleans()),
        "interrupted": draw_from(st.booleans()),
        "seed": draw_from(st.integers(0, 2**16)),
    }


class Trial:
    """An optimizer and its reference, on the same gradients."""

    def __init__(self, plan):
        self.plan, self.case, self.options = plan, plan["case"], dict(plan["options"])
        self.rng = np.random.default_rng(plan["seed"])
        self.lrs = [lr * self.case.hyper["lr"] for lr in plan["lrs"]]
        self.params = [[draw(self.rng, shape, plan["dtype"]) for shape in group] for group in plan["groups"]]
        named = ("ema_decay", "ema_warmup", "swa_start", "swa_every", "maximize")
        own = {name: self.options.get(name) for name in named}
        own = {name: value for name, value in own.items() if value is not None}
        runs = [
            None
            if self.is_frozen(i)
            else Averaged(
                self.case.reference, array, **{**self.case.hyper, "lr": lr * self.lr_scale(i), **own}
            )
            for group, lr in zip(self.params, self.lrs, strict=True)
            for i, array in enumerate(group)
        ]
        whole = {"max_grad_norm", "grad_norm_over", "skip_nonfinite", "accumulate"}
        self.reference = WholeStep(
            runs,
            **{name: value for name, value in self.options.items() if name in whole},
            limits=[self.options.get("max_grad_value")] * len(runs),
            scale=plan["scale"],
        )
        self.containers = [fastopt.pack(group) if plan["packed"] else group for group in self.params]
        self.opt = self.new(self.containers)
        self.close = Closeness(400, [run.params for run in runs if run], whole=self.case.over == "matrix")
        self.close.peaks |= {
            (i, name): np.abs(run.params)
            for i, run in enumerate(filter(None, runs))
            for name in ("ema", "swa")
        }

    def is_frozen(self, number):
        return self.plan["frozen"] and number == 1

    def lr_scale(self, number):
        return 0.5 if self.plan["slower"] and number == 0 else 1.0

    def new(self, containers):
        groups = [{"params": each, "lr": lr} for each, lr in zip(containers, self.lrs, strict=True)]
        frozen = (lambda name, array: name == "1") if self.plan["frozen"] else None
        hyper = {name: value for name, value in self.case.hyper.items() if name != "lr"}
        overrides = {"0": {"lr_scale": 0.5}} if self.plan["slower"] else None
        return self.case.cls(groups, **hyper, **self.options, frozen=frozen, overrides=overrides)

    def gradients(self, bad):
        """Return a gradient, or None, for each array."""
        chosen, dtype, make = [], self.plan["dtype"], self.case.gradients or draw
        for array in (array for group in self.params for array in group):
            grad = np.asarray(make(self.rng, array.shape, dtype) * self.plan["scale"], dtype)
            missing = self.plan["missing"] and not self.plan["packed"] and self.rng.random() < 0.3
            chosen.append(None if missing else grad)
        there = [grad for grad in chosen if grad is not None]
        if bad and there:
            there[0].flat[-1] = self.rng.choice([np.nan, np.inf])
        return chosen

    def take_step(self, bad):
        grads = self.gradients(bad)
        copies = [None if grad is None else grad.copy() for grad in grads]
        accumulating = self.options.get("accumulate", 1) > 1
        if self.plan["packed"]:
            for own, grad in zip(leaves([pack.grads for pack in self.containers]), copies, strict=True):
                if accumulating and self.reference.waiting:
                    own += grad
                else:
                    own[...] = grad
            step(self.opt, grad_scale=self.plan["scale"])
        else:
            rest = iter(copies)
            trees = [[next(rest) for _ in group] for group in self.params]
            step(self.opt, trees, grad_scale=self.plan["scale"])
        self.reference.step(grads)
        if self.options.get("zero_grads"):
            self.check_zeroed(copies)

    def check_zeroed(self, copies):
        if not self.plan["packed"]:
            trained = [run is not None for run in self.reference.runs]
            assert not any(
                grad.any() for grad, own in zip(copies, trained, strict=True) if own and grad is not None
            )
        elif not self.reference.waiting:
            assert not any(pack.flat_grads.any() for pack in self.containers)

    def check(self):
        wanted, found = [], []
        for own, run in zip(values(self.opt), self.reference.runs, strict=True):
            if run:
                state = {**run.state, **run.averages} if run.steps else {}
                wanted.append({"params": run.params, **state})
                found.append(own if run.steps else {"params": own["params"]})
        self.close.check(found, wanted)
        assert self.opt.step_count == self.reference.count
        assert self.opt.skipped_nonfinite == self.reference.skipped
        if self.opt.grad_norm is not None:
            np.testing.assert_allclose(self.opt.grad_norm, self.reference.norm, rtol=1e-5)

    def interrupt(self):
        """Go on with another optimizer, over other arrays."""
        saved = self.opt.state_dict(params=True)
        fresh = [[np.zeros_like(array) for array in group] for group in self.params]
        self.containers = [fastopt.pack(group) if self.plan["packed"] else group for group in fresh]
        self.opt = self.new(self.containers)
        self.opt.load_state_dict(saved)


@settings(
    max_examples=10 if numba.config.DISABLE_JIT else 40,
    deadline=None,  # kernels are compiled
    suppress_health_check=[HealthCheck.too_slow],
)
@given(plans())
def test_any_options_are_the_same_as_one_after_the_other(plan):
    trial = Trial(plan)
    for i in range(7):
        if i == 4 and plan["interrupted"]:
            trial.interrupt()
        trial.take_step(bad=i in (2, 5) and "skip_nonfinite" in plan["options"])
        trial.check()
    event(f"{plan['case'].id}, {len(plan['options'])} options")
