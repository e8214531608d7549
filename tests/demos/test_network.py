import numpy as np
import pytest

from fastopt.demos.digits.network import Network


@pytest.mark.parametrize("sizes", [(5, 4), (5, 7, 4), (5, 7, 6, 4)])
def test_gradients_are_those_of_the_loss(sizes):
    network = Network(sizes, seed=0, dtype=np.float64)
    rng = np.random.default_rng(1)
    network.pack.flat[:] += 0.1 * rng.standard_normal(network.pack.size)  # biases that are not zero
    x, labels = rng.standard_normal((9, 5)), rng.integers(0, 4, 9)
    network.backward(x, labels)
    flat, h = network.pack.flat, 1e-6
    for i in range(flat.size):
        kept = flat[i]
        flat[i] = kept + h
        above = network.loss(x, labels)
        flat[i] = kept - h
        below = network.loss(x, labels)
        flat[i] = kept
        assert network.pack.flat_grads[i] == pytest.approx((above - below) / (2 * h), abs=1e-8)


def test_weights_have_he_s_variance_and_biases_are_zero():
    network = Network((400, 300, 10), seed=0)
    first, last = network.pack.params
    assert network.pack.dtype == np.float32
    assert first["w"].std() == pytest.approx(np.sqrt(2 / 400), rel=0.01)
    assert last["w"].std() == pytest.approx(np.sqrt(2 / 300), rel=0.05)
    assert not first["b"].any()
    assert not last["b"].any()


def test_loss_and_accuracy_of_known_logits():
    network = Network((2, 2), seed=0, dtype=np.float64)
    network.pack.params[0]["w"][:] = np.eye(2)
    x = np.array([[1000.0, 0.0], [0.0, 0.0], [0.0, 3.0]])  # 1000 would overflow in a naive softmax
    labels = np.array([0, 1, 1])
    expected = (0.0 + np.log(2.0) + np.log1p(np.exp(-3.0))) / 3
    assert network.loss(x, labels) == pytest.approx(expected, rel=1e-14)
    assert network.accuracy(x, labels) == pytest.approx(2 / 3)  # a tie goes to the first class
