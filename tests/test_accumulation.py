"""Gradients of several steps make one update, by their mean."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from tests.algorithms.cases import LAYOUTS, assert_same, draw, each_dtype, values

SHAPES = {"a": (4, 3), "b": (), "c": (0,), "d": (9000,)}


def arrays(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return {name: draw(rng, shape, dtype) for name, shape in SHAPES.items()}


def exact_mean(given):
    """Return the mean of the gradients of several steps, in double."""
    return {name: sum(grads[name].astype(float) for grads in given) / len(given) for name in SHAPES}


@each_dtype
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_given_gradients(dtype, packed, k):
    params, plain = arrays(dtype), arrays(dtype)
    given = fastopt.pack(params) if packed else params
    opt, other = fastopt.Adam(given, accumulate=k, eps=0.1), fastopt.Adam(plain, eps=0.1)
    for i in range(3):
        grads = [arrays(dtype, seed=10 * i + j) for j in range(k)]
        before = values(opt)
        for part in grads[:-1]:
            opt.step(part)
            assert_same(values(opt), before)
        opt.step(grads[-1])
        other.step({name: mean.astype(dtype) for name, mean in exact_mean(grads).items()})
        assert opt.step_count == i + 1
        for one, two in zip(values(opt), values(other), strict=True):
            for name in one:
                np.testing.assert_allclose(one[name], two[name], rtol=100 * np.finfo(dtype).eps, atol=1e-6)


def test_a_packs_gradients_are_added_to_by_whoever_computes_them():
    pack = fastopt.pack({"w": np.zeros(3, np.float32)})
    opt = fastopt.SGD(pack, lr=1.0, accumulate=2, zero_grads=True)
    for i in range(4):
        opt.zero_grad()  # as loops do: between updates it must not take the sums away
        pack.grads["w"] += np.float32(i)
        opt.step()
        assert (pack.flat_grads == (i if i % 2 == 0 else 0)).all()
    np.testing.assert_array_equal(pack.flat, np.full(3, -(0 + 1) / 2 - (2 + 3) / 2))
    assert opt.step_count == 2


def test_the_sums_of_a_pack_are_in_its_gradients():
    """No further buffer."""
    pack = fastopt.pack({"w": np.zeros(3, np.float32)})
    pack.flat_grads.fill(77)  # what is there does not count
    opt = fastopt.SGD(pack, lr=1.0, accumulate=2)
    opt.step({"w": np.full(3, 1, np.float32)})
    opt.step({"w": np.full(3, 5, np.float32)})
    np.testing.assert_array_equal(pack.flat_grads, [6, 6, 6])
    np.testing.assert_array_equal(pack.flat, [-3, -3, -3])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    w, plain = (draw(np.random.default_rng(0), (4, 5), "float32") for _ in range(2))
    made = LAYOUTS[layout](w)
    opt, other = fastopt.SGD(made, lr=1.0, accumulate=2), fastopt.SGD(plain, lr=1.0)
    rng = np.random.default_rng(1)
    for _ in range(2):
        first, second = (LAYOUTS[layout](draw(rng, (4, 5), "float32")) for _ in range(2))
        opt.step(first)
        opt.step(second)
        other.step((first + second) / 2)
    np.testing.assert_allclose(made, plain, rtol=1e-5, atol=1e-6)


def test_missing_gradients_count_as_zero_and_as_missing_where_all_are():
    params = [np.zeros(1), np.zeros(1), np.zeros(1)]
    opt = fastopt.SGD(params, lr=1.0, momentum=0.5, accumulate=2)
    one, two = np.array([2.0]), np.array([4.0])
    opt.step([one, None, None])
    opt.step([None, two, None])
    assert [float(w[0]) for w in params] == [-1.0, -2.0, 0.0]
    assert opt.state_dict()["param_groups"][0]["steps"] == [1, 1, 0]
    opt.step([None, None, one])
    opt.step([one, None, one])
    assert [float(w[0]) for w in params] == [-1.0 - (0.5 + 1.0), -2.0, -2.0]


def test_groups_and_other_options():
    """The mean is what is clipped, and what is refused."""
    a, b = np.zeros(2), np.zeros(1)
    opt = fastopt.SGD(
        [{"params": a}, {"params": b, "lr": 2.0}],
        lr=1.0,
        accumulate=2,
        max_grad_norm=2.5,
        skip_nonfinite=True,
    )
    opt.step([np.array([6.0, 0.0]), np.array([4.0])])
    opt.step([np.array([0.0, 0.0]), np.array([4.0])])
    assert opt.grad_norm == pytest.approx(5.0)
    np.testing.assert_allclose(a, [-1.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(b, [-4.0], rtol=1e-6)
    opt.step([np.array([np.nan, 0.0]), np.array([4.0])])
    opt.step([np.array([0.0, 0.0]), np.array([4.0])])
    assert (opt.step_count, opt.skipped_nonfinite) == (1, 1)
    opt.step([np.array([1.0, 0.0]), np.array([0.0])])
    opt.step([np.array([1.0, 0.0]), np.array([0.0])])
    np.testing.assert_allclose(a, [-2.5, 0.0], rtol=1e-6)


def test_the_scaler_moves_once_an_update():
    scaler = fastopt.GradScaler(init_scale=4.0, growth_interval=1)
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=1.0, accumulate=3, grad_scaler=scaler)
    for _ in range(3):
        opt.step(np.array([8.0]))
    assert scaler.scale == 8.0
    assert w == [-2.0]


@pytest.mark.parametrize("clone", ["pickle", "deepcopy", "state_dict"])
@pytest.mark.parametrize("packed", [False, True])
def test_copies_in_between_go_on_alike(clone, packed):
    def make():
        params = arrays()
        return fastopt.Adam(fastopt.pack(params) if packed else params, accumulate=3)

    opt = make()
    for i in range(4):
        opt.step(arrays(seed=i))
    if clone == "state_dict":
        other = make()
        other.load_state_dict(opt.state_dict(params=True))
    else:
        other = copy.deepcopy(opt) if clone == "deepcopy" else pickle.loads(pickle.dumps(opt))
    for i in range(4, 8):
        opt.step(arrays(seed=i))
        other.step(arrays(seed=i))
        assert_same(values(opt), values(other))
    assert opt.step_count == other.step_count == 2


def test_own_gradients_of_a_pack_are_saved_in_between():
    def make():
        return fastopt.pack({"w": np.zeros(2)})

    pack, again = make(), make()
    opt, other = fastopt.SGD(pack, lr=1.0, accumulate=2), fastopt.SGD(again, lr=1.0, accumulate=2)
    pack.flat_grads += 3.0
    opt.step()
    other.load_state_dict(opt.state_dict())
    again.flat_grads += 1.0
    other.step()
    np.testing.assert_array_equal(again.flat, [-2.0, -2.0])


# Errors.


def test_they_must_be_given_always_or_never():
    pack = fastopt.pack(np.zeros(2))
    opt = fastopt.SGD(pack, accumulate=3)
    opt.step(np.ones(2))
    with pytest.raises(ValueError, match="the gradients of all accumulate=3 steps must be given to step"):
        opt.step()


def test_one_scale_for_all():
    opt = fastopt.SGD(np.zeros(2), accumulate=2)
    opt.step(np.ones(2), grad_scale=2.0)
    with pytest.raises(
        ValueError, match="grad_scale must be the same for all accumulate=2 steps: it was 2.0"
    ):
        opt.step(np.ones(2))


def test_no_rows():
    opt = fastopt.SGD(np.zeros((4, 2)), accumulate=2)
    with pytest.raises(TypeError, match="grads cannot be Rows: they are not added up, with accumulate > 1"):
        opt.step(fastopt.Rows([1], np.ones((1, 2))))


def test_a_gradient_cannot_be_its_own_sum():
    pack = fastopt.pack({"w": np.zeros(2)})
    opt = fastopt.SGD(pack, accumulate=2)
    with pytest.raises(ValueError, match=r"grads\['w'\] is the pack's gradient, in which the sum is kept"):
        opt.step(pack.grads)


def test_without_a_pack_they_must_be_given():
    with pytest.raises(TypeError, match=r"step\(\) needs gradients: params is not in a pack"):
        fastopt.SGD(np.zeros(2), accumulate=2).step()


def test_a_bad_gradient_adds_nothing():
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, accumulate=2)
    opt.step(np.ones(2))
    with pytest.raises(ValueError, match="grads must have its parameter's shape"):
        opt.step(np.ones(3))
    opt.step(np.ones(2))
    np.testing.assert_array_equal(w, [-1, -1])


def test_an_update_that_fails_takes_its_sums_with_it():
    rate = [-1.0]
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=lambda step: rate[0], accumulate=2)
    opt.step(np.array([4.0]))
    with pytest.raises(ValueError, match="lr must be"):
        opt.step(np.array([4.0]))
    rate[0] = 1.0
    opt.step(np.array([1.0]))
    opt.step(np.array([3.0]))
    assert w == [-2.0]


@pytest.mark.parametrize(
    ("k", "kind"), [(0, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)]
)
def test_bad_numbers_of_steps(k, kind):
    with pytest.raises(kind, match="accumulate must be a whole number >= 1; got"):
        fastopt.SGD(np.ones(2), accumulate=k)


def test_a_state_dict_must_fit():
    opt = fastopt.SGD({"w": np.ones(2)}, accumulate=4)
    for _ in range(3):
        opt.step({"w": np.ones(2)})
    saved = opt.state_dict()
    with pytest.raises(ValueError, match="the gradients of 3 steps are added up in it, and accumulate is 2"):
        fastopt.SGD({"w": np.ones(2)}, accumulate=2).load_state_dict(saved)
    saved["options"]["accumulated"]["sums"]["params['w']"] = np.ones(3)
    with pytest.raises(ValueError, match=r"it has gradients added up for params\['w'\], unlike here"):
        opt.load_state_dict(saved)


def test_reordered_parameters_keep_their_sums():
    opt = fastopt.SGD({"w": np.zeros(2), "b": np.zeros(1)}, lr=1.0, accumulate=2)
    opt.step({"w": np.full(2, 3.0), "b": np.ones(1)})
    params = {"b": np.zeros(1), "w": np.zeros(2)}
    other = fastopt.SGD(params, lr=1.0, accumulate=2)
    other.load_state_dict(opt.state_dict())
    other.step({"b": np.ones(1), "w": np.ones(2)})
    np.testing.assert_array_equal(params["w"], [-2, -2])
    np.testing.assert_array_equal(params["b"], [-1])


def test_sums_do_not_follow_groups_that_change_places():
    def make(first, second):
        groups = [{"params": {name: np.zeros(2)}} for name in (first, second)]
        return fastopt.SGD(groups, lr=1.0, accumulate=2)

    opt = make("a", "b")
    opt.step([{"a": np.ones(2)}, {"b": np.ones(2)}])
    with pytest.raises(
        ValueError, match=r"it has gradients added up for params\[0\]\['params'\]\['a'\], unlike here"
    ):
        make("b", "a").load_state_dict(opt.state_dict())
