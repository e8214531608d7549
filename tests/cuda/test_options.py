"""The options that all optimizers take, on a device: the same as on the CPU."""

import copy
import math
import pickle

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt.engine import cuda
from tests.algorithms.cases import draw
from tests.cuda.foreign import foreign, host
from tests.cuda.pairs import SHAPES, Pair, flattened

ADAMW = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.07}
#: A block of float8 and a part of another, in a tile of the simulator's and a part of another.
BLOCKS = {"w": (3, 110), "b": (7,)}


def pair(make=fastopt.AdamW, *args, **options):
    hyper = ADAMW if make in (fastopt.AdamW, fastopt.LAMB) else {"lr": 0.1}
    return Pair(make, *args, **{**hyper, **options})


def spoilt(grads, bad=math.nan):
    """Return gradients one element of which is not finite."""
    flattened(grads)[-3].flat[-1] = bad  # the last one but those that have no element, or one
    return grads


# One by one.

OPTIONS = {
    "maximize": {"maximize": True},
    "a schedule": {"lr": lambda count: 0.1 / (1 + count)},
    "no_decay": {"no_decay": "b"},
    "frozen": {"frozen": "b"},
    "lr_scale": {"overrides": {"w": {"lr_scale": 0.5}}},
    "overrides": {"overrides": {"w": {"lr": 0.5, "betas": (0.5, 0.6)}, "b": {"frozen": True}}},
    "max_grad_value": {"max_grad_value": 0.1},
    "max_grad_norm": {"max_grad_norm": 0.5},
    "a great max_grad_norm": {"max_grad_norm": 1e3},
    "an infinite max_grad_norm": {"max_grad_norm": math.inf},
    "a schedule of max_grad_norm": {"max_grad_norm": lambda count: 0.1 + count},
    "each max_grad_norm": {"max_grad_norm": 0.5, "grad_norm_over": "tensor"},
    "each, infinite": {"max_grad_norm": math.inf, "grad_norm_over": "tensor"},
    "each, sometimes infinite": {
        "max_grad_norm": lambda count: 0.5 if count % 2 else math.inf,
        "grad_norm_over": "tensor",
    },
    "zero_grads": {"zero_grads": True},
    "zero_grads and frozen": {"zero_grads": True, "frozen": "b", "max_grad_norm": 0.5},
    "ema": {"ema_decay": 0.9, "ema_warmup": True},
    "a schedule of ema": {"ema_decay": lambda count: 0.5 + 0.1 * count},
    "swa": {"swa_start": 1},
    "swa, every other": {"swa_start": 0, "swa_every": 2},
    "lookahead": {"lookahead_steps": 2, "lookahead_alpha": 0.3},
    "lookahead and averages": {"lookahead_steps": 2, "ema_decay": 0.9, "swa_start": 1},
    "cautious": {"cautious": True},
    "cautious_weight_decay": {"cautious_weight_decay": True},
    "corrected_weight_decay": {"corrected_weight_decay": 0.02, "lr": lambda count: 0.02 / (1 + count)},
    "skip_outliers": {"skip_outliers": 3.0},
    "both": {"max_grad_norm": 0.5, "skip_nonfinite": True, "max_grad_value": 0.3, "ema_decay": 0.5},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def exact(options):
    """Tell whether nothing is added up."""
    return not options.keys() & {"max_grad_norm", "cautious"}


@each_option
def test_options(options):
    both = pair(exact=exact(options), **options)
    both.run(4).check(grads=True)


@each_option
def test_options_with_given_gradients(options):
    both = pair(packed=False, exact=exact(options), **options)
    for missing in ((), ("w",), (), ("b", "s")):
        both.step({key: None if key in missing else grad for key, grad in both.draw().items()})
        both.check(grads=True)


@pytest.mark.parametrize(
    "make", [fastopt.LAMB, fastopt.Prodigy, fastopt.ASGD], ids=lambda make: make.__name__
)
@pytest.mark.parametrize(
    "options",
    [
        {"max_grad_norm": 0.5, "grad_norm_over": "tensor"},
        {"max_grad_norm": lambda count: 0.1 + count, "skip_nonfinite": True},
        {"skip_nonfinite": True, "zero_grads": True},
        {"maximize": True, "max_grad_norm": 0.5},
        {"ema_decay": 0.5, "frozen": "b"},
        {"overrides": {"w": {"lr_scale": 0.5}}, "grad_norm_over": "tensor", "max_grad_norm": 1.0},
    ],
    ids=lambda options: ", ".join(options),
)
def test_rules_that_measure_or_carry(make, options):
    both = Pair(make, exact=False, lr=0.02, **options)
    both.run(3).check(grads=True)


def test_the_rate_and_the_scale_of_a_step():
    both = pair()
    both.step(lr=0.5)
    both.step(grad_scale=8.0)
    both.step(lr=0.25, grad_scale=3.0)
    both.check()


def test_hyperparameters_that_are_changed():
    both = pair(skip_nonfinite=True)
    both.run(1)
    for opt in both.both:
        opt.param_groups[0]["lr"] = 0.3
        opt.param_groups[0]["betas"] = 0.5, 0.6
    both.run(1)
    for opt in both.both:
        opt.param_groups[0]["maximize"] = True
    both.run(1).check()


# Groups.


GROUPS = [{"lr": 0.1}, {"lr": 0.2, "maximize": True, "weight_decay": 0.0}]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_grad_norm": 0.3},
        {"max_grad_norm": 0.3, "grad_norm_over": "tensor"},
        {"skip_nonfinite": True, "zero_grads": True},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
@pytest.mark.parametrize("make", [fastopt.AdamW, fastopt.LAMB, fastopt.DoG], ids=lambda make: make.__name__)
def test_groups(make, packed, options):
    hyper = {} if make is fastopt.DoG else ADAMW
    both = Pair(make, [SHAPES, {"v": (9,)}], groups=GROUPS, packed=packed, exact=False, **hyper, **options)
    both.run(2).check(grads=True)


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.5, "skip_nonfinite": True}])
@pytest.mark.parametrize("make", [fastopt.LAMB, fastopt.DoG, fastopt.Prodigy], ids=lambda make: make.__name__)
def test_groups_of_two_dtypes(make, options):
    rng = np.random.default_rng(0)
    arrays, grads = ([draw(rng, 5, "float32"), draw(rng, 4, "float64")] for _ in range(2))
    found = []
    for place in (lambda tree: tree, foreign):
        opt = make([{"params": place(array.copy())} for array in arrays], lr=0.1, **options)
        for _ in range(3):
            opt.step(place(grads))
        found.append([host(group["params"]) for group in opt.param_groups])
    for want, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, 1e-6)


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.5, "skip_nonfinite": True, "ema_decay": 0.5}])
@pytest.mark.parametrize("make", [fastopt.AdamW, fastopt.DoG, fastopt.LAMB], ids=lambda make: make.__name__)
def test_nothing_to_update(make, options):
    both = Pair(make, {"none": (0, 2), "w": (3,)}, packed=False, exact=False, **options)
    both.step({"none": both.draw()["none"], "w": None})
    both.step({"none": None, "w": None})
    both.check()
    both.run(1).check()
    both = Pair(make, {"none": (0, 2)}, exact=False, **options)
    both.run(2).check()
    both = Pair(make, {"none": (0, 2), "w": (3,)}, frozen="*", **options)
    both.run(2).check()


@pytest.mark.parametrize(
    "options", [{}, {"max_grad_norm": 0.3, "skip_nonfinite": True}], ids=["plain", "guarded"]
)
def test_a_group_is_added(options):
    both = pair(fastopt.AdamW, [SHAPES], groups=[{}], exact=False, **options)
    both.run(1)
    both.step(spoilt(both.draw()) if options else None)
    assert both.there.step_count == (1 if options else 2)
    both.run(0 if not options else 1)
    extra = np.linspace(-1, 1, 9, dtype="float32")
    both.here.add_param_group({"params": fastopt.pack({"v": extra}), "lr": 0.3})
    both.there.add_param_group({"params": fastopt.pack({"v": extra}, device="cuda"), "lr": 0.3})
    both.shapes = [SHAPES, {"v": (9,)}]
    both.run(2).check()
    taken = [group["steps"] for group in both.there.state_dict()["param_groups"]]
    assert taken == [[4, 4, 4, 4], [2]]


# Steps that are left out.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("packed", [False, True])
def test_steps_that_are_left_out_are_not_counted(packed, bad):
    """The correction of Adam's bias is that of the steps that were taken."""
    both = pair(packed=packed, skip_nonfinite=True, zero_grads=True)
    for step in range(5):
        grads = both.draw()
        both.step(spoilt(grads, bad) if step in (0, 2, 3) else grads)
    both.check(grads=True)
    for opt in both.both:
        assert (opt.step_count, opt.skipped_nonfinite) == (2, 3)
    both.run(1).check()


@pytest.mark.parametrize("form", ["float32", "bfloat16", "float8"])
def test_what_is_counted_by_steps_does_not_depend_on_whether_the_host_looks(form):
    """The host does not wait to know of a step that is left out: schedules and random bits go on without it."""
    found, told = [], []
    for looks in (False, True):
        counts = []
        both = pair(
            fastopt.AdamW, BLOCKS, skip_nonfinite=True, overrides={"*": {"state_dtype": form}}, seed=3,
            lr=lambda count, told=counts: told.append(count) or 0.1 / (1 + count),
        )  # fmt: skip
        opt = both.there
        for step in range(3):
            grads = both.draw()
            if step == 1:
                grads["w"][0, 0] = math.nan
            counts.clear()
            both.step(grads)
            told.append(counts[-1])  # the device's is the latter of both
            if looks:
                assert opt.step_count == (1, 1, 2)[step]
        saved = opt.state_dict(params=True)
        assert saved["step_count"] == opt.step_count == 2
        assert "2 steps taken" in repr(opt)
        resumed = pair(fastopt.AdamW, BLOCKS, skip_nonfinite=True, lr=0.1).there
        resumed.load_state_dict(saved)
        assert (resumed.step_count, resumed._count) == (2, 3)
        found.append(saved)
    assert told == [0, 1, 2] * 2
    one, other = (saved["param_groups"][0]["state"]["exp_avg"][0] for saved in found)
    if form != "float32":
        one, other = one["stored"], other["stored"]
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (fastopt.AdamW, {"lookahead_steps": 2}),
        (fastopt.AdamW, {"swa_start": 1}),
        (fastopt.AdamW, {"swa_start": 0, "swa_every": 2}),
        (fastopt.AdamW, {"ema_decay": 0.5, "ema_warmup": True}),
        (fastopt.AdamW, {"cautious": True, "swa_start": 1}),
        (fastopt.DoG, {"swa_start": 0}),
        (fastopt.DoG, {"lookahead_steps": 2, "ema_decay": 0.5}),
    ],
    ids=lambda given: ", ".join(given) if isinstance(given, dict) else given.__name__,
)
def test_what_follows_the_update_is_left_out_too(make, options):
    both = Pair(make, skip_nonfinite=True, max_grad_norm=0.5, exact=False, lr=0.1, **options)
    for step in range(6):
        grads = both.draw()
        both.step(spoilt(grads) if step in (1, 2) else grads)
    both.check()


@pytest.mark.parametrize("known", [62, 125])
def test_outliers_once_the_window_is_full(known):
    """Or half full: then there are outliers."""
    both = pair(fastopt.SGD, {"w": (2,)}, skip_outliers=2.0)
    saved = both.here.state_dict()
    saved["options"]["guard"]["norms"] = np.linspace(1, 2, known)
    for opt in both.both:
        opt.load_state_dict(saved)
    for size in (1, 100, 1, 1, 1, 100, 2, 1):
        both.step({"w": np.full(2, size, "float32")})
    both.check()
    assert both.there.skipped_outliers == both.here.skipped_outliers == (1 if known == 62 else 2)
    norms = both.there.state_dict()["options"]["guard"]["norms"]
    np.testing.assert_array_equal(norms, both.here.state_dict()["options"]["guard"]["norms"])


@pytest.mark.parametrize(("size", "skipped"), [(1.004, 0), (1.012, 1)])
def test_the_deviation_is_that_of_a_sample(size, skipped):
    both = pair(fastopt.SGD, {"w": (1,)}, "float64", skip_outliers=2.0)
    saved, norms = both.here.state_dict(), np.linspace(1, 2, 64)
    saved["options"]["guard"]["norms"] = norms
    for opt in both.both:
        opt.load_state_dict(saved)
    both.step({"w": np.array([norms.mean() + size * 2 * norms.std()])})
    both.check()
    assert both.there.skipped_outliers == skipped


def test_too_many_steps_are_left_out():
    both = pair(fastopt.SGD, {"w": (3,)}, skip_nonfinite=True, max_skips=1)
    bad = {"w": np.full(3, math.nan, "float32")}
    both.step(bad)
    both.run(1)
    both.step(bad)
    message = (
        "^2 steps in a row were left out, more than max_skips=1: the gradients were not finite, or outliers; "
    )
    for opt in both.both:  # the gradients of their packs are what they were
        with pytest.raises(FloatingPointError, match=message):
            opt.step()
    both.check()


# The scale of the loss.


def test_the_scaler_of_the_loss():
    scaler = fastopt.GradScaler(init_scale=256.0, growth_interval=2)
    both = pair(exact=False, grad_scaler=scaler)
    here, there = (opt.grad_scaler for opt in both.both)
    assert here is not there
    for step in range(7):
        grads = {key: grad * np.float32(here.scale) for key, grad in both.draw().items()}
        both.step(spoilt(grads) if step in (1, 2, 5) else grads)
        assert float(there.scale_array.copy_to_host()) == here.scale
        assert there.scale_array.dtype == np.float32
        assert there.scale_array.shape == ()
    both.check()
    assert there.scale == here.scale
    assert here.scale_array is None
    assert there.scale_array.__cuda_array_interface__["typestr"] == "<f4"
    assert both.there.skipped_nonfinite == 3


@pytest.mark.parametrize(
    "options", [{"max_grad_norm": 0.1}, {"max_grad_norm": 0.1, "grad_norm_over": "tensor"}]
)
def test_the_scaler_and_clipping(options):
    scaler = fastopt.GradScaler(init_scale=1024.0, growth_interval=1)
    both = pair(exact=False, grad_scaler=scaler, **options)
    for _ in range(3):
        scale = np.float32(both.here.grad_scaler.scale)
        both.step({key: grad * scale for key, grad in both.draw().items()})
    both.check()


def test_the_scale_stays_within_bounds():
    both = pair(fastopt.SGD, {"w": (3,)}, grad_scaler=fastopt.GradScaler(init_scale=4e-37, growth_interval=1))
    for _ in range(4):
        both.step({"w": np.full(3, math.nan, "float32")})
    both.check()
    assert both.there.grad_scaler.scale == both.here.grad_scaler.scale == 1e-37
    both = pair(fastopt.SGD, {"w": (3,)}, grad_scaler=fastopt.GradScaler(init_scale=4e36, growth_interval=1))
    both.run(3).check()
    assert both.there.grad_scaler.scale == both.here.grad_scaler.scale == 8e36


def test_the_scaler_goes_on():
    both = pair(grad_scaler=fastopt.GradScaler(init_scale=256.0, growth_interval=2))
    both.run(1)
    saved = both.there.state_dict(params=True)
    both.step(spoilt(both.draw()))
    both.here.load_state_dict(saved)
    both.there.load_state_dict(saved)
    both.run(2).check()
    assert both.there.grad_scaler.scale == 512.0


def test_the_state_of_a_scaler_by_itself():
    both = pair(grad_scaler=fastopt.GradScaler(init_scale=256.0, growth_interval=2))
    both.run(1)
    for opt in both.both:
        opt.grad_scaler.load_state_dict({"scale": 4.0, "good_steps": 1})
        assert opt.grad_scaler.scale == 4.0
    both.run(1).check()
    assert both.there.grad_scaler.scale == 8.0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_of_what_the_device_knows(copied):
    both = pair(grad_scaler=fastopt.GradScaler(init_scale=16.0), skip_outliers=3.0)
    both.run(1)
    both.step(spoilt(both.draw()))
    both.here, both.there = copied(both.here), copied(both.there)
    both.check()
    both.run(1).check()
    assert both.there.grad_scaler.scale == 8.0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_of_scalers(copied):
    both = pair(grad_scaler=fastopt.GradScaler(init_scale=16.0))
    both.run(1)
    other = copied(both.there.grad_scaler)
    both.step(spoilt(both.draw()))
    assert (both.there.grad_scaler.scale, other.scale) == (8.0, 16.0)


# Norms.


def test_norms_of_doubles_overflow():
    """Unlike those of the CPU, which looks a second time: so that nothing has to wait."""
    both = pair(fastopt.SGD, {"w": (3,), "b": (2,)}, "float64", max_grad_norm=5.0, skip_nonfinite=True)
    both.step({"w": np.array([3e200, 0.0, 4e200]), "b": np.ones(2)})
    assert both.here.grad_norm == pytest.approx(5e200)
    assert both.there.grad_norm == math.inf
    assert both.there.skipped_nonfinite == 1


@pytest.mark.parametrize("skips", [False, True])
def test_gradients_that_are_not_finite_and_clipped(skips):
    for over in ("all", "tensor"):
        both = pair(max_grad_norm=0.5, grad_norm_over=over, skip_nonfinite=skips, exact=False)
        both.step(spoilt(both.draw()))
        both.step()
        both.check()


# Gradients of several steps.


@pytest.mark.parametrize(
    "options", [{}, {"zero_grads": True}, {"max_grad_norm": 0.5}, {"skip_nonfinite": True}]
)
def test_accumulation_in_a_pack(options):
    both = pair(accumulate=3, exact=False, **options)
    for step in range(6):
        grads = both.draw()
        if "skip_nonfinite" in options and step == 1:
            spoilt(grads)
        both.step(grads, adds=step % 3 > 0, grad_scale=4.0)
    both.check(grads=True)


@pytest.mark.parametrize("options", [{}, {"zero_grads": True}, {"max_grad_norm": 0.5}])
@pytest.mark.parametrize("grad_dtype", ["float32", "float16"])
def test_accumulation_of_given_gradients(options, grad_dtype):
    both = pair(accumulate=2, packed=False, grad_dtype=grad_dtype, exact=False, **options)
    for missing in ((), ("w",), ("w", "b"), ("b",)):
        both.step({key: None if key in missing else grad for key, grad in both.draw().items()})
    both.check(grads=True)


# Fewer bytes.


FORMS = {
    "bfloat16": {"overrides": {"*": {"state_dtype": "bfloat16"}}},
    "float8": {"overrides": {"*": {"state_dtype": "float8"}}},
    "one of each": {"overrides": {"w": {"state_dtype": "float8"}, "b": {"state_dtype": "bfloat16"}}},
}
each_form = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)


class Seeded:
    """A class of optimizers with a seed: the pair has one of its own."""

    def __init__(self, make, seed):
        self.make, self.seed = make, seed

    def __call__(self, params, **options):
        return self.make(params, seed=self.seed, **options)


@each_form
@pytest.mark.parametrize("packed", [False, True])
def test_random_bits_are_those_of_the_cpu(options, packed):
    both = Pair(Seeded(fastopt.AdamW, 12345), BLOCKS, packed=packed, **ADAMW, **options)
    both.run(3).check()


@pytest.mark.parametrize("make", [fastopt.LAMB, fastopt.SGD, fastopt.Lion], ids=lambda make: make.__name__)
@pytest.mark.parametrize("form", ["bfloat16", "float8"])
def test_state_of_others_in_fewer_bytes(make, form):
    options = {"momentum": 0.9} if make is fastopt.SGD else {}
    overrides = {"*": {"state_dtype": form}}
    both = Pair(
        Seeded(make, 7), BLOCKS, overrides=overrides, exact=make is not fastopt.LAMB, lr=0.01, **options
    )
    both.run(2).check()


def test_blocks_that_are_not_finite():
    both = Pair(fastopt.AdamW, BLOCKS, **ADAMW, overrides={"*": {"state_dtype": "float8"}})
    both.run(1)
    grads = both.draw()
    grads["w"][0, 3] = math.inf
    both.step(grads)
    both.run(1).check()


def test_state_of_blocks_that_is_zeroed_with_the_gradients():
    both = Pair(
        fastopt.AdamW, BLOCKS, **ADAMW, overrides={"*": {"state_dtype": "float8"}}, zero_grads=True,
        skip_nonfinite=True, max_grad_norm=1.0, exact=False,
    )  # fmt: skip
    for step in range(3):
        grads = both.draw()
        if step == 1:
            grads["b"][0] = math.nan
        both.step(grads)
        both.check(grads=True)


@pytest.mark.parametrize("master", [None, "float32", "split"])
@pytest.mark.parametrize("grad_dtype", ["bfloat16", "float32"])
def test_parameters_of_half_precision(master, grad_dtype):
    grads = ml_dtypes.bfloat16 if grad_dtype == "bfloat16" else grad_dtype
    both = Pair(
        Seeded(fastopt.AdamW, 5), BLOCKS, ml_dtypes.bfloat16, grad_dtype=grads, master_weights=master, **ADAMW
    )
    both.run(3).check()


@pytest.mark.parametrize(
    ("master", "options"),
    [
        (None, {"overrides": {"*": {"state_dtype": "float8"}}}),
        ("split", {"overrides": {"*": {"state_dtype": "bfloat16"}}, "zero_grads": True}),
        ("float32", {"skip_nonfinite": True, "max_grad_norm": 0.5}),
        ("split", {"max_grad_norm": 0.5, "grad_norm_over": "tensor"}),
        ("float32", {"ema_decay": 0.5, "swa_start": 1}),
        (None, {"ema_decay": 0.5}),
    ],
)
def test_parameters_of_half_precision_with_other_options(master, options):
    half = ml_dtypes.bfloat16 if master else np.float16
    both = Pair(
        Seeded(fastopt.AdamW, 5),
        BLOCKS,
        half,
        master_weights=master,
        exact=exact(options),
        **ADAMW,
        **options,
    )
    both.run(3).check()


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_given_gradients_of_half_precision(half):
    both = pair(fastopt.LAMB, grad_dtype=half, packed=False, exact=False, max_grad_norm=0.5)
    for missing in ((), ("w",), ()):
        both.step({key: None if key in missing else grad for key, grad in both.draw().items()})
    both.check()


@pytest.mark.parametrize("options", [{}, {"master_weights": "float32", "skip_nonfinite": True}])
def test_averages_of_parameters_of_half_precision(options):
    """They are in float32."""
    hyper = {**ADAMW, **options, "ema_decay": 0.5, "ema_warmup": True}
    both = Pair(fastopt.AdamW, BLOCKS, np.float16, **hyper)
    for step in range(4):
        grads = both.draw()
        if options and step == 1:
            grads["b"][0] = math.nan
        both.step(grads)
    both.check()


# Averages in the place of the parameters.


@pytest.mark.parametrize("which", [{"ema_decay": 0.5}, {"swa_start": 1}, {"lookahead_steps": 3}])
def test_averaged_parameters(which):
    both = pair(skip_nonfinite=True, **which)
    both.run(2)
    if "ema_decay" in which:
        both.step(spoilt(both.draw()))
    with both.here.averaged_parameters(), both.there.averaged_parameters():
        for one, other in zip(*(both.packs(opt) for opt in both.both), strict=True):
            np.testing.assert_allclose(np.array(other.flat), one.flat, 0 if cuda.SIMULATED else 1e-5)
    both.run(1).check()
