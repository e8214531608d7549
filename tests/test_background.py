"""Steps that run while Python goes on: the same updates, errors where one waits, and nobody in between."""

import copy
import gc
import os
import pickle
import threading
import weakref

import numpy as np
import pytest

import fastopt
from fastopt.background import PendingStep
from tests.algorithms.cases import BY_ID, assert_same, draw, step, values
from tests.processes import run


class Held:
    """A learning rate that a step waits for, to be caught under way."""

    def __init__(self, value=1.0):
        self.value = value
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, count):
        self.reached.set()
        assert self.go.wait(20)
        return self.value

    def __reduce__(self):  # a copy holds nobody up
        return float, (self.value,)


def under_way(cls=fastopt.SGD, **options):
    """Return an optimizer whose step is under way, the step, and what lets it end."""
    held = Held()
    w = np.zeros(3)
    opt = cls(w, lr=held, **options)
    pending = opt.step_async(-np.ones(3))
    assert held.reached.wait(20)
    assert not pending.done()
    return opt, w, pending, held


def let_go_soon(held):
    threading.Timer(0.05, held.go.set).start()


@pytest.mark.parametrize("name", ["adamw", "lamb", "prodigy", "muon", "nadam"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_updates_are_those_of_step(name, packed):
    case, rng = BY_ID[name], np.random.default_rng(0)
    params = [draw(rng, case.shape(30), "float32") for _ in range(3)]
    options = {"max_grad_norm": 0.5, "ema_decay": 0.9, "zero_grads": True}
    makers = [lambda arrays: arrays, fastopt.pack][packed]
    given, plain = (makers([array.copy() for array in params]) for _ in range(2))
    opt, other = case.optimizer(given, **options), case.optimizer(plain, **options)
    for _ in range(4):
        grads = [draw(rng, array.shape, "float32") for array in params]
        copies = [grad.copy() for grad in grads]
        if packed:
            for pack, mine in ((given, grads), (plain, copies)):
                for own, grad in zip(pack.grads, mine, strict=True):
                    own[...] = grad
        pending = opt.step_async(None if packed else grads)
        step(other, None if packed else copies)
        pending.wait()
        assert pending.done()
        assert_same(values(opt), values(other))
    assert opt.step_count == 4


def test_python_goes_on_meanwhile():
    opt, w, pending, held = under_way()
    held.go.set()
    pending.wait()
    np.testing.assert_array_equal(w, [1, 1, 1])
    assert threading.current_thread() is threading.main_thread()


def test_a_second_step_waits():
    opt, w, pending, held = under_way()
    let_go_soon(held)
    opt.step(-np.ones(3))
    assert pending.done()
    np.testing.assert_array_equal(w, [2, 2, 2])
    for _ in range(20):
        last = opt.step_async(-np.ones(3))
    last.wait()
    np.testing.assert_array_equal(w, [22, 22, 22])


@pytest.mark.parametrize(
    "use",
    [
        lambda opt, folder: opt.state_dict(),
        lambda opt, folder: opt.save(folder / "a.npz"),
        lambda opt, folder: opt.state,
        lambda opt, folder: opt.step_count,
        lambda opt, folder: opt.grad_norm,
        lambda opt, folder: opt.skipped_nonfinite,
        lambda opt, folder: opt.skipped_outliers,
        lambda opt, folder: opt.averages(),
        lambda opt, folder: opt.averaged_parameters().__enter__(),
        lambda opt, folder: opt.add_param_group({"params": np.ones(1)}),
        lambda opt, folder: opt.param_groups[0].update(momentum=0.5),
        lambda opt, folder: opt.load_state_dict(fastopt.SGD(np.zeros(3), ema_decay=0.9, skip_nonfinite=True).state_dict()),
        lambda opt, folder: copy.deepcopy(opt),
    ],
)  # fmt: skip
def test_whatever_needs_the_optimizer_waits(use, tmp_path):
    opt, w, pending, held = under_way(ema_decay=0.9, skip_nonfinite=True)
    let_go_soon(held)
    use(opt, tmp_path)
    assert pending.done()


def test_pickling_and_zeroing_wait():
    pack = fastopt.pack(np.zeros(3))
    held = Held()
    opt = fastopt.SGD(pack, lr=held)
    pack.flat_grads[:] = -1
    pending = opt.step_async()
    assert held.reached.wait(20)
    let_go_soon(held)
    opt.zero_grad()
    assert pending.done()
    np.testing.assert_array_equal(pack.flat, [1, 1, 1])
    opt.param_groups[0]["lr"] = 1.0
    opt.step_async()
    assert pickle.loads(pickle.dumps(opt)).step_count == 2


def test_look_ahead_and_the_other_point_of_view_wait():
    w = np.ones(3)
    opt = fastopt.NAG(w)
    with opt.lookahead():
        pass
    opt.step_async(np.ones(3))
    with opt.lookahead():
        assert opt.step_count == 1
    free = fastopt.ScheduleFreeSGD(np.ones(3), lr=1.0)
    pending = free.step_async(np.ones(3))
    free.eval()
    assert pending.done()


# Errors.


def test_errors_surface_at_the_wait():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0)
    pending = opt.step_async(np.ones(2))
    with pytest.raises(ValueError, match="grads must have its parameter's shape"):
        pending.wait()
    assert pending.done()
    with pytest.raises(ValueError, match="grads must have"):  # whoever asks is told
        pending.wait()
    opt.step(-np.ones(3))  # which has been told already
    np.testing.assert_array_equal(w, [1, 1, 1])


def test_an_error_that_nobody_waits_for_surfaces_at_the_next_step():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0)
    opt.step_async(np.ones(2))
    with pytest.raises(ValueError, match="grads must have its parameter's shape"):
        opt.step(-np.ones(3))
    np.testing.assert_array_equal(w, [0, 0, 0])
    opt.step(-np.ones(3))
    np.testing.assert_array_equal(w, [1, 1, 1])


def test_too_many_steps_that_are_left_out():
    opt = fastopt.SGD(np.zeros(1), skip_nonfinite=True, max_skips=0)
    with pytest.raises(FloatingPointError, match="max_skips=0"):
        opt.step_async(np.array([np.nan])).wait()


def test_lbfgs_has_a_closure():
    with pytest.raises(TypeError, match="LBFGS cannot step while Python goes on: its closure is Python"):
        fastopt.LBFGS(np.ones(2)).step_async(lambda: 0.0)


# Threads, processes, memory.


@pytest.mark.jit  # else it takes long
def test_several_optimizers_and_threads():
    arrays = [np.zeros(50_000) for _ in range(6)]
    optimizers = [fastopt.SGD(w, lr=1.0) for w in arrays]
    grad = -np.ones(50_000)

    def many(opt):
        for _ in range(25):
            opt.step_async(grad)
        opt.step_count  # noqa: B018  # waits

    threads = [threading.Thread(target=many, args=(opt,)) for opt in optimizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for w in arrays:
        np.testing.assert_array_equal(w, 25.0)


def test_a_step_that_is_done_keeps_nothing_alive():
    w, grad = np.zeros(3), np.ones(3)
    opt = fastopt.SGD(w)
    pending = opt.step_async(grad)
    pending.wait()
    step(opt, np.ones(3))  # gradients of the latest step are remembered
    optimizer, gradient = weakref.ref(opt), weakref.ref(grad)
    del opt, grad
    assert optimizer() is None  # without the garbage collector: its state may be large
    assert gradient() is None
    assert pending.done()
    gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_wait_for_ever(tmp_path):
    code = """
        import os, threading, numpy as np, fastopt
        reached, go = threading.Event(), threading.Event()
        def held(count):
            reached.set(); go.wait(20); return 1.0
        w = np.zeros(3)
        opt = fastopt.SGD(w, lr=held)
        pending = opt.step_async(-np.ones(3))
        reached.wait(20)
        child = os.fork()
        if child == 0:
            try:
                pending.wait()
            except RuntimeError as error:
                assert "was under way when this process was forked" in str(error)
                other = np.zeros(3)
                fastopt.SGD(other, lr=1.0).step_async(-np.ones(3)).wait()
                os._exit(0 if other.all() else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        go.set()
        pending.wait()
        print(w.tolist())
    """
    assert run(code, tmp_path, PYTHONWARNINGS="ignore") == "[1.0, 1.0, 1.0]"


@pytest.mark.jit  # else it takes long
def test_a_process_ends_when_its_steps_have(tmp_path):
    code = """
        import numpy as np, fastopt
        w = np.zeros(3_000_000, np.float32)
        opt = fastopt.AdamW(w)
        grad = np.ones(3_000_000, np.float32)
        for _ in range(20):
            opt.step_async(grad)
        print("end")
    """
    assert run(code, tmp_path) == "end"


def test_wait_returns_nothing_and_done_is_known():
    pending = fastopt.SGD(np.ones(1)).step_async(np.ones(1))
    assert isinstance(pending, PendingStep)
    assert pending.wait() is None
    assert pending.done()
