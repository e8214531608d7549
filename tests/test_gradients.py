"""Gradients that are given to a step: any arrays that fit, and none that does not."""

import numpy as np
import pytest

import fastopt

F = np.float32


def test_the_gradients_of_a_pack():
    pack = fastopt.pack({"w": np.ones((2, 2), F), "b": np.zeros(2, F)})
    opt = fastopt.SGD(pack, lr=0.5)
    pack.grads["b"][:] = 4
    opt.step()
    assert pack.flat.tolist() == [1, 1, 1, 1, -2, -2]
    opt.step({"w": np.ones((2, 2), F), "b": np.zeros(2, F)})  # or others, for once
    assert pack.flat.tolist() == [0.5, 0.5, 0.5, 0.5, -2, -2]
    opt.step(pack.grads)
    opt.step()
    assert pack.flat.tolist() == [0.5, 0.5, 0.5, 0.5, -6, -6]
    opt.zero_grad()
    opt.step()
    assert pack.flat.tolist() == [0.5, 0.5, 0.5, 0.5, -6, -6]


def test_gradients_in_new_arrays_at_each_step():
    w = [np.zeros(3, F), np.zeros((2, 2), F)]
    opt = fastopt.SGD(w, lr=1.0)
    for k in range(1, 30):
        opt.step([np.full(3, k, F), np.full((2, 2), -k, F)])
    assert np.all(w[0] == -sum(range(30)))
    assert np.all(w[1] == sum(range(30)))


def test_gradients_filled_anew_in_the_same_arrays():
    w, g = np.zeros(3, F), np.zeros(3, F)
    strided, gs = np.zeros((3, 2), F)[:, 0], np.zeros((3, 2), F)[:, 0]
    opt = fastopt.SGD([w, strided], lr=1.0)
    for k in range(1, 30):
        g[:] = gs[:] = k
        opt.step([g, gs])
    assert np.all(w == -sum(range(30)))
    assert np.all(strided == -sum(range(30)))


def test_large_gradients_are_not_kept_alive(monkeypatch):
    import weakref

    monkeypatch.setattr("fastopt.gradients.REMEMBERED_BYTES", 1000)
    opt = fastopt.SGD(np.zeros(1000, F))
    grad = np.ones(1000, F)
    seen = weakref.ref(grad)
    opt.step(grad)
    del grad
    assert seen() is None


@pytest.mark.jit  # else it takes long
def test_gradients_that_nobody_else_holds(monkeypatch):
    from collections.abc import Mapping

    class Lazy(Mapping):
        def __getitem__(self, key):
            return np.full(1_000_000, key, F)

        def __iter__(self):
            return iter([1, 2, 3])

        def __len__(self):
            return 3

    monkeypatch.setattr("fastopt.gradients.REMEMBERED_BYTES", 0)
    params = {key: np.zeros(1_000_000, F) for key in (1, 2, 3)}
    fastopt.SGD(params, lr=1.0).step(Lazy())
    assert all(np.all(w == -key) for key, w in params.items())


def test_missing_gradients_leave_parameter_state_and_count():
    params = {"a": np.ones(2), "b": np.ones(2)}
    opt = fastopt.Adam(params, lr=0.1)
    alone = {"a": np.ones(2)}
    reference = fastopt.Adam(alone, lr=0.1)
    g = np.array([1.0, -2.0])
    for present in (True, False, False, True, True):
        before = params["b"].copy(), opt.state[0]["exp_avg"]["b"].copy()
        opt.step({"a": g * (1 + present), "b": g if present else None})
        reference.step({"a": g * (1 + present)})
        if not present:
            np.testing.assert_array_equal(params["b"], before[0])
            np.testing.assert_array_equal(opt.state[0]["exp_avg"]["b"], before[1])
    assert opt.state_dict()["param_groups"][0]["steps"] == [5, 3]
    np.testing.assert_array_equal(params["a"], alone["a"])
    three = np.ones(2)
    fresh = fastopt.Adam(three, lr=0.1)
    for _ in range(3):
        fresh.step(g)
    np.testing.assert_array_equal(params["b"], three)  # as if the steps it missed had not been


def test_no_gradient_at_all():
    w = np.ones(2)
    opt = fastopt.Adam([w])
    opt.step([None])
    assert w.tolist() == [1, 1]
    assert (opt.step_count, opt.state_dict()["param_groups"][0]["steps"]) == (1, [0])


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (None, TypeError, "step() needs gradients: params['a'] is not in a pack. "
         "Call step(grads), or give SGD a fastopt.pack(...)"),
        ([1], TypeError, "grads must be a dict with the keys ['a', 'b'], got a list"),
        ({"a": np.ones(3, F), "b": [np.ones(2, F)], "c": 1}, ValueError,
         "grads must have the keys ['a', 'b'], got ['a', 'b', 'c']"),
        ({"a": np.ones(4, F), "b": [np.ones(2, F)]}, ValueError,
         "grads['a'] must have its parameter's shape (3,), got (4,)"),
        ({"a": np.ones((3, 1), F), "b": [np.ones(2, F)]}, ValueError,
         "grads['a'] must have its parameter's shape (3,), got (3, 1)"),
        ({"a": np.ones(3), "b": [np.ones(2, F)]}, TypeError,
         "grads['a'] must be of float32, like its parameter; got float64"),
        ({"a": np.ones(3, F), "b": [[1.0, 2.0]]}, TypeError,
         "grads['b'][0] must be an array of float32, or None where there is no gradient; got list"),
    ],
)  # fmt: skip
def test_gradients_that_do_not_fit(grads, error, message):
    params = {"a": np.ones(3, F), "b": [np.ones(2, F)]}
    opt = fastopt.SGD(params, lr=1.0)
    for _ in range(2):  # the second time, too
        with pytest.raises(error) as caught:
            opt.step(grads)
        assert str(caught.value) == message
    assert params["a"].tolist() == [1, 1, 1]
    assert opt.step_count == 0
    opt.step({"a": np.ones(3, F), "b": [np.ones(2, F)]})
    assert params["a"].tolist() == [0, 0, 0]


def test_gradients_must_not_share_the_parameters_memory():
    base = np.ones(10, F)
    opt = fastopt.SGD({"w": base[:5]}, lr=1.0)
    with pytest.raises(ValueError, match=r"grads\['w'\] shares memory with a parameter; it must be apart"):
        opt.step({"w": base[2:7]})
    opt.step({"w": base[5:]})
    assert base.tolist() == [0] * 5 + [1] * 5
    columns = np.zeros((4, 2), F)
    columns[:, 1] = 3
    fastopt.SGD(columns[:, 0], lr=1.0).step(columns[:, 1])  # interleaved, but apart
    assert columns[:, 0].tolist() == [-3] * 4


def test_gradients_are_named_once_a_step(monkeypatch):
    """Not each by a walk over all: a thousand arrays, one without a gradient, would take a thousand walks."""
    calls = []
    monkeypatch.setattr(fastopt.SGD, "_grad_places", lambda self: calls.append(1) or [""] * 50)
    opt = fastopt.SGD([np.zeros((2, 2)) for _ in range(50)])
    rows = fastopt.Rows([1], np.ones((1, 2)))
    opt.step([None, *([rows, np.ones((2, 2))] * 25)[:49]])
    assert len(calls) <= 2
