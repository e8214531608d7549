"""Any options, groups, shapes and numbers of fewer bytes together: the same as on the CPU."""

import math

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastopt
from fastopt.engine import cuda
from tests.cuda.pairs import Pair, flattened

#: One that goes by elements, one that measures tensors, one that measures all; one that carries numbers.
ALGORITHMS = {
    "AdamW": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.07},
    "SGD": {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    "LAMB": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.07},
    "DoG": {"lr": 1.0, "reps_rel": 0.1},
    "NAdam": {"lr": 0.02, "eps": 1e-2},
}
SHAPES = st.sampled_from([(), (1,), (3,), (0, 2), (5, 7), (2, 3, 2), (33,)])


@st.composite
def plans(draw_from):
    """Draw what to train, and how."""
    name = draw_from(st.sampled_from(list(ALGORITHMS)))
    arrays = st.lists(SHAPES, min_size=1, max_size=3).map(
        lambda found: {f"p{i}": s for i, s in enumerate(found)}
    )
    groups = draw_from(st.lists(arrays, min_size=1, max_size=2))
    optional = {
        "max_grad_norm": st.sampled_from([0.3, 50.0, lambda step: 0.1 + 0.1 * step]),
        "grad_norm_over": st.sampled_from(["all", "tensor"]),
        "skip_nonfinite": st.just(True),
        "accumulate": st.just(2),
        "zero_grads": st.just(True),
        "max_grad_value": st.sampled_from([0.05, 2.0]),
        "maximize": st.just(True),
        "ema_decay": st.sampled_from([0.5, lambda step: 0.5 + 0.1 * step]),
        "swa_start": st.integers(0, 2),
    }
    options = draw_from(st.fixed_dictionaries({}, optional=optional))
    packed = draw_from(st.booleans())
    dtype, grad_dtype = np.float32, np.float32
    if name in ("AdamW", "LAMB"):
        dtype = draw_from(st.sampled_from([np.float32, np.float32, ml_dtypes.bfloat16, np.float64]))
        grad_dtype = dtype
        # What is rounded at random depends on the number of the step, which the host may not know.
        if dtype == ml_dtypes.bfloat16:
            options["master_weights"] = draw_from(st.sampled_from(["split", "float32"]))
            if "accumulate" in options:
                grad_dtype = np.float32
        elif dtype == np.float32 and not options.get("skip_nonfinite") and draw_from(st.booleans()):
            form = draw_from(st.sampled_from(["bfloat16", "float8"]))
            options["overrides"] = {"*p0": {"state_dtype": form}}
    return {
        "make": getattr(fastopt, name),
        "shapes": groups,
        "dtype": dtype,
        "grad_dtype": grad_dtype,
        "packed": packed,
        "groups": [{"lr": ALGORITHMS[name]["lr"] / (1 + k)} for k in range(len(groups))],
        "seed": draw_from(st.integers(0, 2**16)),
        **{key: value for key, value in ALGORITHMS[name].items() if key != "lr"},
        **options,
    }


@settings(
    max_examples=30 if cuda.SIMULATED else 60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(plans(), st.sampled_from([1.0, 1.0, 3.0, 1024.0]), st.booleans(), st.booleans())
def test_any_options_are_those_of_the_cpu(plan, scale, missing, looks):
    both = Pair(plan.pop("make"), exact=False, **plan)
    skips, steps = plan.get("skip_nonfinite"), plan.get("accumulate", 1)
    # Schedules are asked for the number of the step, of which the host may not know.
    looks |= any(map(callable, plan.values()))
    for step in range(5):
        grads = both.draw(scale)
        if skips and step in (1, 2):
            filled = [grad for grad in flattened(grads) if grad.size]
            if filled:
                filled[0].flat[-1] = math.nan
        if missing and not both.packed:
            grads = [
                {key: None if both.rng.random() < 0.3 else grad for key, grad in own.items()} for own in grads
            ]
        both.step(grads, adds=step % steps > 0, grad_scale=scale)
        if looks:
            both.check()
    both.check(grads=bool(plan.get("zero_grads")))
