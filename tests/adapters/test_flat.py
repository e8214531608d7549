"""Flat vectors: any algorithm, and the two of evolution-strategies-starter against their formulas."""

import copy
import math
import pickle

import numpy as np
import pytest

import fastopt
from fastopt.adapters import flat
from fastopt.adapters.flat import Flat

F = np.float32


class Vector:
    """A policy as evolution-strategies-starter has it."""

    def __init__(self, theta):
        self.theta, self.num_params = theta, theta.size

    def get_trainable_flat(self):
        return self.theta

    def set_trainable_flat(self, theta):
        self.theta = theta


def starter_adam(theta, stepsize, beta1=0.9, beta2=0.999, epsilon=1e-08):
    """Yield the parameters and the ratio, as the starter's formulas have them; send the next gradient."""
    m = v = np.zeros_like(theta)
    result, t = None, 0
    while True:
        g = yield result
        t += 1
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        step = -stepsize * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + epsilon)
        ratio = np.linalg.norm(step) / np.linalg.norm(theta)
        theta = theta + step
        result = theta, ratio


def starter_sgd(theta, stepsize, momentum=0.9):
    velocity, result = np.zeros_like(theta), None
    while True:
        g = yield result
        velocity = momentum * velocity + (1 - momentum) * g
        step = -stepsize * velocity
        ratio = np.linalg.norm(step) / np.linalg.norm(theta)
        theta = theta + step
        result = theta, ratio


CASES = [
    (flat.Adam, starter_adam, {"stepsize": 0.05}),
    (flat.Adam, starter_adam, {"stepsize": 0.1, "beta1": 0.5, "beta2": 0.9, "epsilon": 0.1}),
    (flat.SGD, starter_sgd, {"stepsize": 0.3}),
    (flat.SGD, starter_sgd, {"stepsize": 0.1, "momentum": 0.0}),
]


@pytest.mark.parametrize(
    ("kind", "reference", "settings"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
@pytest.mark.parametrize("whole", [False, True], ids=["array", "policy"])
def test_the_starter_s_updates(kind, reference, settings, whole):
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(33)
    expected = reference(theta.copy(), **settings)
    next(expected)
    holder = Vector(theta) if whole else theta
    optimizer = kind(holder, **settings)
    for _ in range(8):
        g = rng.standard_normal(33)
        ratio = optimizer.update(g)
        wanted, wanted_ratio = expected.send(g)
        np.testing.assert_allclose(holder.theta if whole else theta, wanted, rtol=1e-13, atol=1e-14)
        assert ratio == pytest.approx(wanted_ratio, rel=1e-12)
    assert optimizer.t == 8


def test_the_starter_s_defaults_and_the_step_size():
    optimizer = flat.Adam(np.zeros(2), 0.5)
    (group,) = optimizer.optimizer.param_groups
    assert [group[name] for name in ("lr", "beta1", "beta2", "epsilon")] == [0.5, 0.9, 0.999, 1e-8]
    optimizer.stepsize *= 0.5
    assert group["lr"] == optimizer.stepsize == 0.25
    assert optimizer.update(np.ones(2)) == math.inf
    np.testing.assert_allclose(optimizer.theta, [-0.25, -0.25], rtol=1e-6)
    assert flat.SGD(np.zeros(2), 1.0).optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("algorithm", [fastopt.SGD, fastopt.AdamW])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_algorithm(algorithm, dtype):
    rng = np.random.default_rng(0)
    theta, plain = (np.linspace(-1, 1, 50, dtype=dtype) for _ in range(2))
    optimizer, own = Flat(algorithm, theta, lr=0.01), algorithm(plain, lr=0.01)
    for _ in range(3):
        g = rng.standard_normal(50).astype(dtype)
        before = plain.copy()
        own.step(g)
        assert optimizer.update(g) == pytest.approx(
            np.linalg.norm(plain - before) / np.linalg.norm(before), rel=1e-5
        )
        assert np.array_equal(theta, plain)
    assert optimizer.theta is theta


def test_a_gradient_of_another_dtype():
    theta = np.ones(2, F)
    optimizer = Flat(fastopt.SGD, theta, lr=0.5)
    optimizer.update(np.array([1.0, 2.0]))
    optimizer.update([0, 2])
    assert theta.tolist() == [0.5, -1.0]


def test_a_part_of_a_pack_is_a_vector_too():
    pack = fastopt.pack({"w": np.ones((2, 2), F), "b": np.zeros(2, F)})
    Flat(fastopt.SGD, pack.flat, lr=1.0).update(np.arange(6, dtype=F))
    assert pack.params["w"].tolist() == [[1, 0], [-1, -2]]
    assert pack.params["b"].tolist() == [-4, -5]


def test_a_policy_may_change_its_parameters_between_updates():
    policy = Vector(np.ones(2, F))
    optimizer = Flat(fastopt.SGD, policy, lr=0.5)
    optimizer.update([1, 1])
    given = policy.theta
    policy.theta = np.full(2, 8, F)
    assert optimizer.update([1, 1]) == pytest.approx(0.5 / 8)
    assert policy.theta.tolist() == [7.5, 7.5]
    assert given.tolist() == [0.5, 0.5]  # what the policy was given is its own


def test_ratios_at_zero():
    optimizer = Flat(fastopt.SGD, np.zeros(2), lr=1.0)
    assert optimizer.update(np.zeros(2)) == 0.0
    assert optimizer.update(np.ones(2)) == math.inf
    assert optimizer.update(np.zeros(2)) == 0.0


@pytest.mark.parametrize(
    "move", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("whole", [False, True], ids=["array", "policy"])
def test_copies_go_on(move, whole):
    theta = np.linspace(1, 2, 5)
    straight = flat.Adam(theta.copy(), 0.1)
    optimizer = flat.Adam(Vector(theta) if whole else theta, 0.1)
    for k in range(4):
        optimizer = move(optimizer)
        assert optimizer.update(np.full(5, k - 1.5)) == straight.update(np.full(5, k - 1.5))
        assert np.array_equal(optimizer.theta, straight.theta)


@pytest.mark.parametrize(
    ("algorithm", "theta", "settings", "error", "message"),
    [
        (fastopt.Adam(np.zeros(2)), np.zeros(2), {}, TypeError,
         "algorithm must be a class of fastopt's optimizers, got <Adam("),
        (fastopt.Adam, np.zeros((2, 2)), {}, ValueError, "theta must have one axis, got the shape (2, 2)"),
        (fastopt.Adam, np.zeros(2, int), {}, TypeError,
         "theta must be a NumPy array of float32 or float64, got an array of int64"),
        (fastopt.Adam, [0.0, 0.0], {}, TypeError,
         "theta must be a NumPy array of float32 or float64, got list"),
        (fastopt.Adam, np.zeros(2), {"lr": -1}, ValueError, "lr must be a finite number >= 0"),
    ],
)  # fmt: skip
def test_what_is_refused(algorithm, theta, settings, error, message):
    with pytest.raises(error) as caught:
        Flat(algorithm, theta, **settings)
    assert str(caught.value).startswith(message)


def test_gradients_and_policies_of_another_shape():
    theta = np.ones(3)
    optimizer = Flat(fastopt.SGD, theta, lr=1.0)
    with pytest.raises(ValueError, match=r"^globalg must have the parameters' shape \(3,\), got \(3, 1\)$"):
        optimizer.update(np.ones((3, 1)))
    policy = Vector(theta)
    optimizer = Flat(fastopt.SGD, policy, lr=1.0)
    policy.theta = np.ones(4)
    with pytest.raises(
        ValueError, match=r"^the policy's parameters must keep their shape \(3,\), got \(4,\)$"
    ):
        optimizer.update(np.ones(3))
    assert theta.tolist() == [1, 1, 1]
    assert optimizer.t == 0
