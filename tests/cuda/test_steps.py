"""What a step says to the device, and that it asks it nothing: no copy to the host, no waiting."""

import copy

import numpy as np
import pytest

import fastopt
from fastopt.engine import cuda, device
from tests.algorithms.cases import BY_ID
from tests.cuda.foreign import Foreign, foreign, host
from tests.cuda.pairs import Pair

F = np.float32
ARRAYS = {"w": (5, 7), "b": (3,)}


@pytest.fixture
def busy(monkeypatch):
    """Have the device be too busy to answer: what asks it raises an error."""

    def refuse(*args):
        raise AssertionError("the host waits for the device")

    def stop():
        for name in ("to_host", "to_device", "synchronize"):
            monkeypatch.setattr(cuda, name, refuse)
        monkeypatch.setattr(device, "wait", refuse)

    return stop


@pytest.fixture
def uploads(monkeypatch):
    """Return the list of the bytes of each copy to the device."""
    found = []

    def run(upload):
        found.append(upload.values.nbytes)
        launched(upload)

    launched = cuda.Upload.run
    monkeypatch.setattr(cuda.Upload, "run", run)
    return found


@pytest.fixture
def launches(monkeypatch):
    """Return the list of the kernels that are launched."""
    found = []

    def run(kernel, blocks, *arguments):
        found.append(kernel)
        launched(kernel, blocks, *arguments)

    launched = cuda.run
    monkeypatch.setattr(cuda, "run", run)
    return found


def pack(shapes=None, dtype=F, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ARRAYS if shapes is None else shapes
    return fastopt.pack(
        {k: rng.standard_normal(shape).astype(dtype) for k, shape in shapes.items()}, device="cuda"
    )


def grads(seed):
    rng = np.random.default_rng(seed)
    return {key: rng.standard_normal(shape).astype(F) for key, shape in ARRAYS.items()}


def set_grads(own, seed):
    own.flat_grads.copy_to_device(np.random.default_rng(seed).standard_normal(own.size).astype(F))


# Nothing is asked.


OPTIONS = {
    "none": {},
    "schedules": {"lr": lambda count: 0.1 / (1 + count)},
    "max_grad_norm": {"max_grad_norm": 0.5},
    "each": {"max_grad_norm": 0.5, "grad_norm_over": "tensor"},
    "skip_nonfinite": {"skip_nonfinite": True},
    "skip_outliers": {"skip_outliers": 2.0},
    "grad_scaler": {"grad_scaler": fastopt.GradScaler()},
    "averages": {"ema_decay": 0.5, "ema_warmup": True, "swa_start": 1},
    "lookahead": {"lookahead_steps": 2},
    "ema of what may be left out": {"ema_decay": 0.5, "ema_warmup": True, "skip_nonfinite": True},
    "cautious": {"cautious": True},
    "zero_grads": {"zero_grads": True, "frozen": "b"},
    "accumulate": {"accumulate": 2},
    "fewer bytes": {"overrides": {"w": {"state_dtype": "float8"}, "b": {"state_dtype": "bfloat16"}}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("packed", [True, False])
def test_no_step_waits(options, packed, busy):
    own, given = pack(), foreign(grads(1))
    opt = fastopt.AdamW(own if packed else own.params, **copy.deepcopy(options))
    given = () if packed else (given,)
    opt.step(*given)
    opt.step(*given)
    busy()
    for _ in range(4):
        opt.step(*given)


@pytest.mark.parametrize("name", ["LAMB", "Prodigy", "ADOPT", "AdamMini", "ScheduleFreeSGD", "NAdam", "MARS"])
@pytest.mark.parametrize("options", [{}, {"skip_nonfinite": True}], ids=["plain", "skipping"])
def test_no_step_of_others_waits(name, options, busy):
    opt = getattr(fastopt, name)(pack(), **options)
    opt.step()
    opt.step()
    busy()
    opt.step()
    opt.step()


def test_the_first_steps_wait_only_to_begin():
    """State that starts with numbers is copied when it is made; the steps themselves find it there."""
    own = pack()
    opt = fastopt.AdamW(own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "to_host", None)
        opt.step()


def test_new_arrays_of_gradients_need_no_waiting(busy):
    own = pack()
    opt = fastopt.SGD(own.params, momentum=0.9)
    given = [foreign(grads(seed)) for seed in range(3)]
    opt.step(given[0])
    busy()
    opt.step(given[1])
    opt.step(given[2])


@pytest.mark.parametrize(
    "options",
    [{"max_skips": 2}, {"swa_start": 1}, {"lookahead_steps": 2}],
    ids=lambda options: ", ".join(options),
)
def test_what_waits(options, busy):
    """The host must know whether steps were left out."""
    opt = fastopt.SGD(pack(), skip_nonfinite=True, **options)
    opt.step()
    opt.step()
    busy()
    with pytest.raises(AssertionError, match="waits"):
        opt.step()


@pytest.mark.parametrize(
    "ask",
    [
        lambda opt: opt.grad_norm,
        lambda opt: opt.step_count,
        lambda opt: opt.skipped_nonfinite,
        lambda opt: opt.grad_scaler.scale,
        lambda opt: opt.state_dict(),
    ],
)
def test_who_asks_waits(ask, busy):
    opt = fastopt.SGD(pack(), grad_scaler=fastopt.GradScaler())
    opt.step()
    busy()
    with pytest.raises(AssertionError, match="waits"):
        ask(opt)


# What is copied, and launched.


def test_a_step_is_one_small_copy_and_one_launch(uploads, launches):
    opt = fastopt.AdamW(pack({"w": (5, 7), "b": (3,), "k": (2, 2, 2)}))
    opt.step()
    uploads.clear()
    launches.clear()
    for _ in range(3):
        opt.step()
    assert len(uploads) == len(launches) == 3
    assert max(uploads) <= 64


def test_the_copy_does_not_grow_with_the_arrays(uploads):
    sizes = []
    for n in (2, 20):
        opt = fastopt.AdamW(pack({str(i): (3,) for i in range(n)}))
        opt.step()
        uploads.clear()
        opt.step()
        sizes.append(list(uploads))
    assert sizes[0] == sizes[1]


def test_the_same_gradients_again_are_not_copied_anew(uploads):
    own, given = pack(), foreign(grads(0))
    opt = fastopt.AdamW(own.params)
    opt.step(given)
    opt.step(given)
    uploads.clear()
    opt.step(given)
    assert len(uploads) == 1
    uploads.clear()
    opt.step(foreign(grads(1)))
    assert len(uploads) == 2


@pytest.mark.parametrize(
    ("options", "copies", "kernels"),
    [
        ({"max_grad_norm": 1.0}, 2, 4),
        ({"skip_nonfinite": True}, 2, 5),
        ({"ema_decay": 0.5}, 1, 1),
        ({"zero_grads": True}, 1, 1),
        ({"cautious": True}, None, 3),
    ],
    ids=lambda given: ", ".join(given) if isinstance(given, dict) else "",
)
def test_how_many_copies_and_launches(options, copies, kernels, uploads, launches):
    opt = fastopt.AdamW(pack(), **options)
    opt.step()
    uploads.clear()
    launches.clear()
    opt.step()
    assert copies is None or len(uploads) <= copies
    assert len(launches) == kernels
    assert sum(uploads) <= 512


# Prepared steps.


def both(make=fastopt.AdamW, **options):
    """Return optimizers of the same parameters; one of them is to be prepared."""
    packs = [pack(), pack()]
    return packs, [make(own, **copy.deepcopy(options)) for own in packs]


PREPARED = {
    "none": {},
    "schedules": {"lr": lambda count: 0.1 / (1 + count)},
    "max_grad_norm": {"max_grad_norm": 0.5},
    "a schedule of norms": {"max_grad_norm": lambda count: 0.1 + count},
    "skip_nonfinite": {"skip_nonfinite": True},
    "grad_scaler": {"grad_scaler": fastopt.GradScaler(init_scale=8.0)},
    "ema": {"ema_decay": 0.5, "ema_warmup": True},
    "zero_grads": {"zero_grads": True},
}


def check_both(opts):
    dicts = [opt.state_dict(params=True) for opt in opts]
    assert dicts[0]["step_count"] == dicts[1]["step_count"]
    for one, other in zip(*(each["param_groups"] for each in dicts), strict=True):
        assert one["steps"] == other["steps"]
        for a, b in zip(
            flat(one["params"], one["state"]), flat(other["params"], other["state"]), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def flat(*trees):
    for tree in trees:
        if isinstance(tree, dict):
            yield from flat(*(tree[key] for key in tree if key not in ("format", "order")))
        elif isinstance(tree, list):
            yield from flat(*tree)
        elif tree is not None:
            yield tree


@pytest.mark.parametrize("form", ["bfloat16", "float8"])
def test_prepared_steps_are_steps(form):
    packs, (opt, prepared) = both(max_grad_norm=1.0, overrides={"*": {"state_dtype": form}})
    for step in range(4):
        for own in packs:
            set_grads(own, step)
        opt.step()
        prepared.prepare_step()
        prepared.launch_step()
    check_both((opt, prepared))


class Recorded:
    """What was launched, to be launched again: a CUDA graph knows the kernels and their arguments."""

    def __init__(self, monkeypatch):
        self.calls = []
        self.patch = monkeypatch

    def record(self, launch):
        def run(*arguments):
            self.calls.append(arguments)

        with self.patch.context() as there:
            there.setattr(cuda, "run", run)
            for name in ("to_host", "to_device", "synchronize", "on_device", "clear"):
                there.setattr(cuda, name, None)
            there.setattr(cuda.Upload, "run", None)
            launch()

    def replay(self):
        for arguments in self.calls:
            cuda.run(*arguments)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(pytest.param("AdamW", own, id=f"AdamW-{what}") for what, own in PREPARED.items()),
        *(
            pytest.param(name, PREPARED[what], id=f"{name}-{what}")
            for name in ("LAMB", "DoG", "Prodigy", "ADOPT")
            for what in ("schedules", "skip_nonfinite", "a schedule of norms")
        ),
    ],
)
def test_launches_that_are_recorded(name, options, monkeypatch):
    """Kernels with their arguments are all that a step launches: what changes, is told by prepare_step()."""
    packs, (opt, prepared) = both(getattr(fastopt, name), **options)
    graph = Recorded(monkeypatch)
    for step in range(5):
        for own in packs:
            set_grads(own, step)
            if step == 3 and "skip_nonfinite" in options:
                own.flat_grads[:1].copy_to_device(np.full(1, np.nan, F))
        lr = 0.25 if step == 4 else None
        opt.step(lr=lr)
        if step == 0:
            prepared.step()
            continue
        if step == 2:
            for each in (opt, prepared):
                each.state_dict()  # to look is allowed
        prepared.prepare_step(lr=lr)
        if step == 1:
            graph.record(prepared.launch_step)
        graph.replay()
    check_both((opt, prepared))


def test_prepared_steps_of_given_gradients():
    rng = np.random.default_rng(0)
    params = rng.standard_normal(5).astype(F)
    arrays = [Foreign(params), Foreign(params)]
    opt, prepared = (fastopt.AdamW([array]) for array in arrays)
    given = Foreign(np.ones(5, F))
    for _ in range(3):
        given.set(rng.standard_normal(5).astype(F))
        opt.step([given])
        prepared.prepare_step([given], grad_scale=1.0)
        prepared.launch_step()
    np.testing.assert_array_equal(host(arrays[0]), host(arrays[1]))
    assert prepared.step_count == 3


def test_launching_again_takes_the_same_step():
    own = pack()
    opt = fastopt.SGD(own, lr=1.0)
    own.flat_grads.fill(1.0)
    before = own.flat.copy_to_host()
    opt.prepare_step()
    opt.launch_step()
    opt.launch_step()
    np.testing.assert_allclose(own.flat.copy_to_host(), before - 2, 1e-6)


def test_the_rate_and_the_scale_of_a_prepared_step():
    own = pack()
    opt = fastopt.SGD(own, lr=1.0)
    own.flat_grads.fill(1.0)
    before = own.flat.copy_to_host()
    opt.prepare_step(lr=0.5, grad_scale=2.0)
    opt.launch_step()
    np.testing.assert_allclose(own.flat.copy_to_host(), before - 0.25, 1e-6)


# Errors.


def test_prepared_steps_are_for_a_device():
    opt = fastopt.SGD(np.ones(3))
    message = r"^prepare_step\(\) is for arrays on a CUDA device; those of SGD are not: call step\(\)$"
    with pytest.raises(TypeError, match=message):
        opt.prepare_step()
    with pytest.raises(
        RuntimeError, match=r"^launch_step\(\) needs a step that was prepared: call prepare_step"
    ):
        opt.launch_step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"accumulate": 2},
            r"^prepare_step\(\) cannot be called with accumulate or max_skips: call step\(\)$",
        ),
        (
            {"skip_nonfinite": True, "max_skips": 2},
            r"^prepare_step\(\) cannot be called with accumulate or max_skips: call step\(\)$",
        ),
        (
            {"lookahead_steps": 2},
            r"^prepare_step\(\) cannot be called with lookahead_steps or swa_start, with",
        ),
        ({"swa_start": 2}, r"^prepare_step\(\) cannot be called with lookahead_steps or swa_start, with"),
    ],
)
def test_steps_that_cannot_be_prepared(options, message):
    opt = fastopt.SGD(pack(), **options)
    with pytest.raises(ValueError, match=message):
        opt.prepare_step()
    assert opt.step_count == 0
    opt.step()


def test_prepared_steps_of_half_precision():
    packs, (opt, prepared) = both()
    del packs
    given = {key: device.asarray(grad.astype(np.float16)) for key, grad in grads(0).items()}
    opt.step(given)
    prepared.prepare_step(given)
    prepared.launch_step()
    check_both((opt, prepared))


def test_what_was_prepared_is_gone():
    opt = fastopt.SGD(pack(), lr=0.5)
    with pytest.raises(RuntimeError, match=r"^launch_step\(\) needs a step that was prepared"):
        opt.launch_step()
    opt.prepare_step()
    opt.load_state_dict(opt.state_dict())
    with pytest.raises(RuntimeError, match=r"^launch_step\(\) needs a step that was prepared"):
        opt.launch_step()
    opt.prepare_step()
    opt.param_groups[0]["momentum"] = 0.5
    opt.step()  # with another kernel
    with pytest.raises(RuntimeError, match=r"^launch_step\(\) needs a step that was prepared"):
        opt.launch_step()


def test_errors_come_before_anything_is_said(uploads):
    opt = fastopt.SGD(pack(), lr=0.5)
    opt.step()
    uploads.clear()
    for error, options in (
        (ValueError, {"lr": -1.0}),
        (ValueError, {"grad_scale": 0.0}),
        (TypeError, {"lr": "a"}),
    ):
        with pytest.raises(error):
            opt.prepare_step(**options)
        with pytest.raises(error):
            opt.step(**options)
    assert not uploads
    assert opt.step_count == 1


def test_a_scalar_that_is_too_large():
    case = BY_ID["adamw"]
    pair = Pair(case.optimizer, {"w": (3,)}, lr=lambda count: 0.1 if count != 1 else 1e300)
    pair.run(1)
    for opt in pair.both:
        with pytest.raises(ValueError, match="^AdamW: a scalar of this step is too large for the dtype"):
            opt.step()
    pair.check()
