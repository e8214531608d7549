"""NAG: the gradient is that of the point ahead."""

import copy

import numpy as np
import pytest

import fastopt
from fastopt import NAG, SGD
from tests import reference
from tests.algorithms.cases import LAYOUTS, Closeness, draw, each_dtype, run_values, values

HESSIAN = np.diag([1.0, 10.0, 100.0]) + 0.5
TARGET = np.array([1.0, -2.0, 3.0])


def slope(w):
    return (HESSIAN @ (w - TARGET)).astype(w.dtype)


@each_dtype
def test_follows_the_reference_that_looks_ahead(dtype):
    w = np.array([3.0, 2.0, 1.0], dtype)
    hyper = {"lr": 0.003, "momentum": 0.9, "weight_decay": 0.1}
    opt, run = NAG(w, **hyper), reference.Run(reference.nag, w, **hyper)
    close = Closeness(200, [w])  # rounding errors come back through the slope, a hundredfold
    for _ in range(50):
        ahead = reference.nag_ahead(run.params, run.state, momentum=0.9)
        with opt.lookahead():
            np.testing.assert_allclose(w, ahead, rtol=0, atol=200 * np.finfo(dtype).eps)
            grad = slope(w)
        opt.step(grad)
        run.step(HESSIAN @ (ahead - TARGET))
        close.check(values(opt), [run_values(run)])


def test_sgd_nesterov_walks_through_the_points_ahead():
    """At a constant rate torch's form is the same iteration, written for p - gamma * v."""
    w, ahead = np.array([3.0, 2.0, 1.0]), np.array([3.0, 2.0, 1.0])
    same = {"lr": 0.003, "momentum": 0.9, "weight_decay": 0.1}
    opt, torchs = NAG(w, **same), SGD(ahead, **same, nesterov=True)
    for _ in range(100):
        with opt.lookahead():
            np.testing.assert_allclose(w, ahead, rtol=0, atol=1e-13)
            grad = slope(w)
        opt.step(grad)
        torchs.step(slope(ahead))


def test_converges_faster_than_gradient_descent_as_nesterov_proved():
    condition = 1000.0
    eigenvalues = np.linspace(1.0, condition, 20)
    root = np.sqrt(condition)
    w, v = np.ones(20), np.ones(20)
    fast = NAG(w, lr=1 / condition, momentum=(root - 1) / (root + 1))
    slow = SGD(v, lr=1 / condition)
    for _ in range(300):
        with fast.lookahead():
            grad = eigenvalues * w
        fast.step(grad)
        slow.step(eigenvalues * v)
    assert (eigenvalues * w**2).sum() <= (eigenvalues + 1).sum() * (1 - 1 / root) ** 300
    assert (eigenvalues * v**2).sum() > 1e-1


# Looking ahead.


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_looks_at_p_minus_gamma_v_and_comes_back_bit_for_bit(dtype, layout):
    rng = np.random.default_rng(0)
    params = {"w": LAYOUTS[layout](draw(rng, (17, 5), dtype)), "b": LAYOUTS[layout](draw(rng, (), dtype))}
    opt = NAG(params, lr=0.1, momentum=0.7)
    for _ in range(3):
        before = {name: w.copy() for name, w in params.items()}
        velocity = opt.state[0]["velocity"]
        with opt.lookahead() as ahead:
            assert ahead is params
            for name, w in params.items():
                assert np.array_equal(w, before[name] - np.dtype(dtype).type(0.7) * velocity[name])
        assert all(np.array_equal(w, before[name]) for name, w in params.items())
        opt.step({name: draw(rng, w.shape, dtype) for name, w in params.items()})


def test_groups_look_ahead_each_with_its_momentum_and_packs_too():
    pack, w = fastopt.pack(np.ones(4)), np.ones(3)
    opt = NAG([{"params": pack, "momentum": 0.5}, {"params": w}], lr=1.0, momentum=lambda count: 0.25 * count)
    with opt.lookahead() as (first, second):
        assert first is pack
        assert second is w
    opt.step([np.ones(4), np.ones(3)])
    with opt.lookahead():
        assert (pack.flat == 0.0 - 0.5).all()
        assert (w == 0.0 - 0.25).all()
    assert (pack.flat == 0.0).all()
    assert (w == 0.0).all()


def test_comes_back_after_an_error_and_wants_another_look():
    w = np.ones(3)
    opt = NAG(w, lr=0.5)
    with opt.lookahead():
        pass
    opt.step(np.ones(3))

    def failing():
        with opt.lookahead():
            assert (w != 0.5).all()
            raise KeyError("batch")

    with pytest.raises(KeyError, match="batch"):
        failing()
    assert (w == 0.5).all()
    with pytest.raises(RuntimeError, match="lookahead"):
        opt.step(np.ones(3))


def test_a_step_needs_a_look_of_its_own():
    w = np.ones(3)
    opt = NAG(w)
    with pytest.raises(RuntimeError, match=r"compute it inside `with opt.lookahead\(\):`"):
        opt.step(np.ones(3))
    with opt.lookahead():
        with pytest.raises(RuntimeError, match="cannot be called inside lookahead"):
            opt.step(np.ones(3))
        with (
            pytest.raises(RuntimeError, match=r"lookahead\(\) cannot be called inside lookahead"),
            opt.lookahead(),
        ):
            pass
    with pytest.raises(TypeError, match="grads"):
        opt.step([np.ones(3)])
    opt.step(np.ones(3))  # a step that was refused does not use up the look
    with pytest.raises(RuntimeError, match="compute it inside"):
        opt.step(np.ones(3))
    assert opt.step_count == 1


def test_a_copy_between_the_look_and_the_step_remembers_the_look():
    opt = NAG(np.ones(2))
    with opt.lookahead(), pytest.raises(RuntimeError, match="NAG cannot be copied inside lookahead"):
        copy.deepcopy(opt)
    twin = copy.deepcopy(opt)
    twin.step(np.ones(2))
    with pytest.raises(RuntimeError, match="NAG needs the gradient at the point ahead"):
        copy.deepcopy(twin).step(np.ones(2))


def test_averages_and_files_wait_for_the_end_of_a_look_ahead(tmp_path):
    w = np.ones(2)
    opt = fastopt.NAG(w, ema_decay=0.9)
    with opt.lookahead():
        with pytest.raises(RuntimeError, match=r"averaged_parameters\(\) cannot be called inside lookahead"):
            opt.averaged_parameters().__enter__()
        for name in ("state_dict", "save"):
            with pytest.raises(RuntimeError, match=f"{name}.. cannot be called inside lookahead"):
                getattr(opt, name)(*([tmp_path / "a.npz"] if name == "save" else []))
    with (
        opt.averaged_parameters(),
        pytest.raises(RuntimeError, match=r"lookahead\(\) cannot be called inside averaged_parameters"),
    ):
        opt.lookahead().__enter__()
