"""Kernels in a user's own compiled code: training that never leaves it, alone and in several threads."""

import inspect
import threading

import numba
import numpy as np
import pytest

import fastopt

pytestmark = pytest.mark.jit


@numba.njit(nogil=True)
def gradient(x, y, w, grad):
    """Put the gradient of the mean logistic loss into ``grad``; return the loss."""
    grad[:] = 0.0
    loss = 0.0
    for i in range(len(y)):
        score = 0.0
        for j in range(len(w)):
            score += x[i, j] * w[j]
        loss += np.logaddexp(0.0, score) - y[i] * score
        error = 1.0 / (1.0 + np.exp(-score)) - y[i]
        for j in range(len(w)):
            grad[j] += error * x[i, j] / len(y)
    return loss / len(y)


def cancer(dtype=np.float64):
    """Return the standardized features with a one for the bias, and the labels, of real patients."""
    data = pytest.importorskip("sklearn.datasets").load_breast_cancer()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    return np.c_[x, np.ones(len(x))].astype(dtype), data.target.astype(dtype)


def trainer(kernel):
    @numba.njit
    def train(x, y, w, steps):
        m, v, grad = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
        loss = 0.0
        for step in range(1, steps + 1):
            loss = gradient(x, y, w, grad)
            kernel(w, grad, m, v, step)
        return loss

    return train


def accuracy(x, y, w):
    return ((x @ w > 0) == (y > 0.5)).mean()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logistic_regression_wholly_in_compiled_code(dtype):
    x, y = cancer(dtype)
    train, w = trainer(fastopt.AdamW.kernel(lr=0.05)), np.zeros(x.shape[1], dtype)
    loss = train(x, y, w, 200)
    assert loss < 0.06  # from log(2) = 0.69
    assert accuracy(x, y, w) > 0.98
    assert len(train.nopython_signatures) == 1  # no object mode: not one step through Python

    same, grad = np.zeros_like(w), np.zeros_like(w)
    opt = fastopt.AdamW(same, lr=0.05)
    for _ in range(200):
        gradient(x, y, same, grad)
        opt.step(grad)
    assert np.array_equal(same, w)  # bit for bit what the optimizer does


def test_a_rule_of_ones_own_in_compiled_code():
    def heavy(p, g, velocity, lr, momentum):
        velocity = momentum * velocity - lr * g
        return p + velocity, velocity

    class Heavy(fastopt.Optimizer):
        rule = fastopt.Rule(heavy, state=("velocity",))
        defaults = {"lr": 0.5, "momentum": 0.9}

    kernel = Heavy.kernel()
    assert str(inspect.signature(kernel.py_func)) == "(p, g, velocity, step, lr=0.5, momentum=0.9)"

    @numba.njit
    def train(x, y, w, steps):
        velocity, grad = np.zeros_like(w), np.zeros_like(w)
        for step in range(1, steps + 1):
            gradient(x, y, w, grad)
            kernel(w, grad, velocity, step, lr=0.5 / step**0.5)  # a schedule of one's own

    x, y = cancer()
    w = np.zeros(x.shape[1])
    train(x, y, w, 100)
    assert accuracy(x, y, w) > 0.98


def hogwild(kernel):
    """Return a loop that several threads run at once, over parameters and state that they share."""

    @numba.njit(nogil=True)
    def work(x, y, w, total, order, batch):
        grad = np.zeros_like(w)
        for step in range(1, len(order) // batch + 1):
            rows = order[(step - 1) * batch : step * batch]
            gradient(x[rows], y[rows], w, grad)
            kernel(w, grad, total, step)

    return work


def test_hogwild():
    x, y = cancer()
    work = hogwild(fastopt.Adagrad.kernel(lr=0.1))
    # Without races it is an ordinary loop. One thread: the same bits each time.
    once, again = (np.zeros(x.shape[1]) for _ in range(2))
    for w in (once, again):
        work(x, y, w, np.zeros_like(w), np.arange(len(y)), 16)
    assert np.array_equal(once, again)

    n_threads = 4
    w, total = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    orders = [np.random.default_rng(seed).integers(0, len(y), 2000) for seed in range(n_threads)]
    threads = [threading.Thread(target=work, args=(x, y, w, total, order, 16)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.isfinite(w).all()
    assert accuracy(x, y, w) > 0.97
    assert (total > 0).all()  # all of them wrote to the same state


def test_threads_are_not_held_up_by_the_lock():
    """While compiled training runs in a thread, Python code goes on in another."""
    x, y = cancer()
    work = hogwild(fastopt.Adagrad.kernel(lr=0.1))
    w, total = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    work(x, y, w, total, np.arange(16), 16)  # compiles
    order = np.arange(len(y)).repeat(400)
    thread = threading.Thread(target=work, args=(x, y, w, total, order, 16))
    counted = 0
    thread.start()
    while thread.is_alive():
        counted += 1
    assert counted > 1000
