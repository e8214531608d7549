"""thinc's optimizers: the same numbers as the host's own, in one pass."""

import copy
import importlib
import pickle
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fastopt.foreign import as_numpy

pytest.importorskip("thinc")

from thinc import optimizers as host
from thinc.api import Config, Relu, Softmax, chain, fix_random_seed, registry
from thinc.schedules import Schedule, warmup_linear

from fastopt.adapters import thinc as own

F = np.float32
KEY = (3, "W")

SETTINGS = [
    ("Adam", {}),
    ("Adam", {"L2": 0.1, "eps": 0.01}),
    ("Adam", {"L2": 0.1, "L2_is_weight_decay": False, "grad_clip": 0.5}),
    ("Adam", {"use_averages": False, "grad_clip": 0.0, "beta1": 0.5, "beta2": 0.7}),
    ("RAdam", {}),
    ("RAdam", {"L2": 0.1, "beta2": 0.9, "use_averages": False}),
    ("SGD", {}),
    ("SGD", {"L2": 0.1, "grad_clip": 0.5}),
    ("SGD", {"L2": 0.1, "L2_is_weight_decay": False, "use_averages": False}),
]


def near(actual, expected, eps=8):
    np.testing.assert_allclose(actual, expected, rtol=eps * np.finfo(F).eps, atol=eps * np.finfo(F).eps)


def updated(optimizer, steps, shape=(17, 5), lr_scale=1.0, between=None, size=1.0):
    """Return the weights, and all state, after each of some updates."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(shape).astype(F)
    seen = []
    for step in range(steps):
        gradient = (size * rng.standard_normal(shape)).astype(F)
        weights, cleared = optimizer(KEY, weights, gradient, lr_scale=lr_scale)
        assert not cleared.any()
        assert cleared.shape == shape
        state = [kept[KEY] for kept in (optimizer.mom1, optimizer.mom2, optimizer.averages or {}) if kept]
        seen.append([array.copy() for array in (weights, *state)])
        optimizer.step_schedules()
        if between is not None:
            between(optimizer, step)
    return seen


def check_equal(one, other):
    assert len(one) == len(other)
    for found, expected in zip(one, other, strict=True):
        assert [array.shape for array in found] == [array.shape for array in expected]
        for array, wanted in zip(found, expected, strict=True):
            near(array, wanted)


@pytest.mark.parametrize("lr_scale", [1.0, 0.5])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda value: str(value))
def test_the_updates_of_thinc(name, settings, lr_scale):
    mine = updated(getattr(own, name)(0.05, **settings), 12, lr_scale=lr_scale)
    check_equal(mine, updated(getattr(host, name)(0.05, **settings), 12, lr_scale=lr_scale))
    assert abs(mine[-1][0] - mine[0][0]).max() > 0.01


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_small_and_large_gradients(size):
    settings = {"learn_rate": 0.1, "L2": 0.01}
    check_equal(updated(own.Adam(**settings), 5, size=size), updated(host.Adam(**settings), 5, size=size))


@pytest.mark.parametrize(
    "make",
    [
        lambda: [0.5, 0.3, 0.1],
        lambda: (0.5 / n for n in range(1, 100)),
        lambda: warmup_linear(0.5, 3, 10),
    ],
    ids=["list", "generator", "Schedule"],
)
def test_schedules(make):
    mine = updated(own.Adam(make(), L2=warmup_linear(0.1, 2, 9)), 8)
    check_equal(mine, updated(host.Adam(make(), L2=warmup_linear(0.1, 2, 9)), 8))
    constant = updated(own.Adam(0.5), 8)
    assert abs(mine[-1][0] - constant[-1][0]).max() > 0.01


def test_schedules_see_the_key_and_the_last_score():
    calls = []

    def rate(schedule, step, *, key, last_score):
        calls.append((step, key, last_score))
        return 0.1 if last_score is None else 0.1 * last_score[1]

    def score(optimizer, step):
        if step == 1:
            optimizer.last_score = 0.5

    mine = updated(own.SGD(Schedule("by score", rate)), 4, between=score)
    assert calls == [(0, KEY, None), (1, KEY, None), (2, KEY, (2, 0.5)), (3, KEY, (2, 0.5))]
    check_equal(mine, updated(host.SGD(Schedule("by score", rate)), 4, between=score))


def digits(n=300):
    x, y = load_digits(return_X_y=True)
    return (x[:n] / 16).astype(F), np.eye(10, dtype=F)[y[:n]]


def train(optimizer, epochs=10):
    """Return the losses of a small network of thinc's, and the network."""
    x, y = digits()
    fix_random_seed(0)
    model = chain(Relu(nO=24, dropout=0.0), Softmax())
    model.initialize(X=x, Y=y)
    losses = []
    for _ in range(epochs):
        for rows in np.split(np.arange(len(x)), 6):
            found, backprop = model.begin_update(x[rows])
            difference = (found - y[rows]) / len(rows)
            losses.append(float((difference**2).sum()))
            backprop(difference)
            model.finish_update(optimizer)
            optimizer.step_schedules()
    return losses, model


@pytest.mark.parametrize("name", ["Adam", "RAdam", "SGD"])
def test_a_network_learns_digits_with_the_same_losses(name):
    rate = {"Adam": 0.01, "RAdam": 0.02, "SGD": 1.0}[name]
    optimizer, peer = getattr(own, name)(rate, L2=1e-4), getattr(host, name)(rate, L2=1e-4)
    losses, model = train(optimizer)
    expected, theirs = train(peer)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[-1] < 0.75 * losses[0]
    for node, other in zip(model.walk(), theirs.walk(), strict=True):
        for parameter in node.param_names:
            near(node.get_param(parameter), other.get_param(parameter), eps=100)
    x, y = digits()
    plain = model.predict(x)
    with model.use_params(optimizer.averages):
        averaged = model.predict(x)
    assert np.array_equal(model.predict(x), plain)
    assert abs(averaged - plain).max() > 1e-6
    assert (averaged.argmax(axis=1) == y.argmax(axis=1)).mean() > 0.5


def test_the_arrays_that_are_given_are_updated():
    optimizer = own.Adam(0.1)
    weights, gradient = np.zeros((2, 3), F), np.ones((2, 3), F)
    for _ in range(2):
        gradient[:] = 1
        assert [id(array) for array in optimizer(KEY, weights, gradient)] == [id(weights), id(gradient)]
    np.testing.assert_allclose(weights, -0.2, rtol=1e-4)
    assert not gradient.any()
    assert optimizer.nr_update == {KEY: 2}
    assert optimizer.averages[KEY].shape == (2, 3)


def test_arrays_that_are_not_in_c_order():
    memory = np.zeros((4, 6), F)
    weights, gradient = memory[::2, ::2], np.ones((3, 2), F).T
    assert own.SGD(0.1, grad_clip=0.0)(KEY, weights, gradient)[0] is weights
    near(weights, np.full((2, 3), -0.1))
    assert abs(memory).sum() == pytest.approx(0.6)
    assert not gradient.any()


def test_other_arrays_for_a_key_go_on_with_its_state():
    one, other = own.Adam(0.1), own.Adam(0.1)
    weights = np.zeros(4, F)
    for k in range(3):
        one(KEY, weights, np.full(4, k + 1, F))
    moved = np.zeros(4, F)
    for k in range(3):
        moved = other(KEY, moved.copy(), np.full(4, k + 1, F))[0]
    assert np.array_equal(weights, moved)


def test_averages_that_are_put_in_another_s_place():
    optimizer = own.SGD(0.0)
    optimizer(KEY, np.ones(2, F), np.zeros(2, F))
    near(optimizer.averages[KEY], [9 / 11, 9 / 11])
    optimizer.averages = {}
    optimizer(KEY, np.ones(2, F), np.zeros(2, F))
    near(optimizer.averages[KEY], [9 / 12, 9 / 12])


def test_no_elements():
    optimizer = own.Adam(0.1)
    for shape in ((0,), (0, 3), (2, 0)):
        weights, gradient = optimizer((0, str(shape)), np.zeros(shape, F), np.zeros(shape, F))
        assert weights.shape == gradient.shape == shape


@pytest.mark.parametrize(
    "move", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"]
)
def test_copies_go_on(move):
    straight = updated(own.RAdam(0.05, L2=0.1), 6)
    optimizer = own.RAdam(0.05, L2=0.1)
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((17, 5)).astype(F)
    for step in range(6):
        optimizer(KEY, weights, rng.standard_normal((17, 5)).astype(F))
        assert np.array_equal(weights, straight[step][0])
        optimizer = move(optimizer)
    assert isinstance(optimizer, host.Optimizer)


def test_configurations_name_it():
    text = '[optimizer]\n@optimizers = "fastopt.{}.v1"\nlearn_rate = 0.5\nL2 = 0.25\n'
    for name in ("Adam", "RAdam", "SGD"):
        optimizer = registry.resolve(Config().from_str(text.format(name)))["optimizer"]
        assert isinstance(optimizer, own.Optimizer)
        assert optimizer.L2(0) == 0.25
        assert optimizer.use_radam == (name == "RAdam")
        assert (optimizer.b1(0) == 0.0) == (name == "SGD")


def test_defaults_are_thinc_s():
    for name in ("Adam", "RAdam"):
        mine, theirs = getattr(own, name)(), getattr(host, name)()
        for each in ("learn_rate", "b1", "b2", "eps", "L2", "grad_clip"):
            assert getattr(mine, each)(0) == getattr(theirs, each)(0)
        assert (mine.L2_is_weight_decay, mine.averages) == (theirs.L2_is_weight_decay, theirs.averages)


class OnCuda:
    shape, __cuda_array_interface__ = (2,), {"version": 3}

    def __len__(self):
        return 2


@pytest.mark.parametrize(
    ("weights", "gradient", "error", "message"),
    [
        (np.zeros(2), np.zeros(2, F), TypeError,
         "weights of (3, 'W') must be a NumPy array of float32, got an array of float64"),
        (np.zeros(2, F), [0.0, 0.0], TypeError,
         "gradient of (3, 'W') must be a NumPy array of float32, got a list"),
        (np.zeros(2, F), OnCuda(), TypeError,
         "gradient of (3, 'W') must be in the memory of the CPU, got OnCuda on a CUDA device: "
         "copy it to the CPU first"),
        (np.broadcast_to(F(0), (2,)), np.zeros(2, F), ValueError,
         "weights of (3, 'W') must be writeable, got a read-only array"),
        (np.zeros(2, F), np.zeros(3, F), ValueError,
         "gradient of (3, 'W') must have the shape of its weights, (2,); got (3,)"),
    ],
    ids=["dtype", "list", "cuda", "read-only", "shape"],
)  # fmt: skip
def test_arrays_that_cannot_be_updated(weights, gradient, error, message):
    optimizer = own.Adam(0.1)
    with pytest.raises(error) as caught:
        optimizer(KEY, weights, gradient)
    assert str(caught.value) == message
    assert not optimizer.nr_update
    assert not as_numpy(weights, "weights").any()


def test_settings_without_an_update():
    with pytest.raises(NotImplementedError, match=r"^thinc has no update for beta1=0.0 and beta2=0.9$"):
        own.Optimizer(0.1, beta1=0.0, beta2=0.9)(KEY, np.zeros(2, F), np.ones(2, F))


def test_without_thinc(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "thinc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "thinc", None)
    monkeypatch.delitem(sys.modules, "fastopt.adapters.thinc")
    wanted = r'^fastopt\.adapters\.thinc needs thinc, which is missing: pip install "fastopt\[thinc\]"$'
    with pytest.raises(ModuleNotFoundError, match=wanted):
        importlib.import_module("fastopt.adapters.thinc")
