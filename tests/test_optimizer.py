"""What holds for every algorithm, shown with one or two of them: tests/algorithms goes through all."""

import numpy as np
import pytest

import fastopt

F = np.float32


def sgd(w, g, lr=0.5):
    return w - F(lr) * g


# --- how parameters may come


def layouts():
    base = np.arange(60, dtype=F).reshape(6, 10)
    yield "C", base.copy()
    yield "F", np.asfortranarray(base)
    yield "strided", np.repeat(base, 2, axis=1)[:, ::2]
    yield "reversed", base.copy()[::-1, ::-1]
    yield "transposed slice", np.zeros((10, 12), F).T[::2]
    yield "axes swapped", np.zeros((3, 4, 5), F).transpose(1, 0, 2)
    yield "0-d", np.array(3, F)
    yield "empty", np.zeros((0, 4), F)
    yield "unaligned", np.frombuffer(bytearray(41), np.uint8)[1:].view(F)
    yield "matrix subclass", base.copy().view(type("Sub", (np.ndarray,), {}))


@pytest.mark.parametrize("name", [name for name, _ in layouts()])
@pytest.mark.parametrize("grad_layout", ["C", "F", "strided", "read-only"])
def test_any_layout_is_updated_in_place(name, grad_layout):
    w = dict(layouts())[name]
    g = (np.arange(w.size, dtype=F) - 7).reshape(w.shape)
    expected = sgd(np.array(w), g)
    if grad_layout == "F":
        g = np.array(g, order="F")
    elif grad_layout == "strided" and w.ndim:
        g = np.repeat(g, 3, axis=-1)[..., ::3]
    elif grad_layout == "read-only":
        g.flags.writeable = False
    kept = g.copy()
    fastopt.SGD(w, lr=0.5).step(g)
    np.testing.assert_array_equal(w, expected)
    np.testing.assert_array_equal(g, kept)  # gradients are only read


def test_memory_map(tmp_path):
    w = np.memmap(tmp_path / "w", F, "w+", shape=(4, 3))
    fastopt.SGD(w, lr=0.5).step(np.ones((4, 3), F))
    w.flush()
    assert np.all(np.fromfile(tmp_path / "w", F) == -0.5)


def test_broadcast_gradient():
    w = np.zeros((3, 4), F)
    fastopt.SGD(w, lr=1.0).step(np.broadcast_to(F(2), (3, 4)))
    assert np.all(w == -2)


def test_scalar_gradient_of_a_0d_parameter():
    w = np.array(1.0)
    fastopt.SGD(w, lr=0.5).step(np.ones(4).sum())  # a NumPy scalar
    assert w == -1.0


def test_float32_and_float64_together():
    params = {"a": np.ones(3, F), "b": np.ones(2), "c": [np.ones(1, F)]}
    opt = fastopt.Adam(params, lr=0.1)
    for _ in range(3):
        opt.step({"a": np.ones(3, F), "b": np.ones(2), "c": [np.ones(1, F)]})
    assert params["a"].dtype == F
    np.testing.assert_allclose(params["b"], 0.7, rtol=1e-7)
    np.testing.assert_allclose(params["a"], 0.7, rtol=1e-6)
    assert params["c"][0] == params["a"][0]


def test_all_empty():
    opt = fastopt.AdamW([np.zeros(0), np.zeros((2, 0))])
    opt.step([np.zeros(0), np.zeros((2, 0))])
    assert opt.step_count == 1
    fastopt.AdamW(fastopt.pack([np.zeros(0)])).step()


def test_no_parameters_at_all():
    opt = fastopt.SGD([])
    opt.step([])


def test_views_of_a_pack_as_parameters():
    pack = fastopt.pack({"w": np.ones(3, F)})
    fastopt.SGD(pack.params, lr=1.0).step(pack.grads)
    pack.grads["w"][:] = 1
    fastopt.SGD(pack.params, lr=1.0).step(pack.grads)
    assert pack.flat.tolist() == [0, 0, 0]


# --- construction


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([1.0], TypeError, "params[0] must be a NumPy array of float32 or float64 (or float16, bfloat16), got float"),
        (np.arange(3), TypeError, "params must be a NumPy array of float32 or float64 (or float16, bfloat16), got an array of int64"),
        ({"w": np.ones(3, np.int8)}, TypeError,
         "params['w'] must be a NumPy array of float32 or float64 (or float16, bfloat16), got an array of int8"),
        ([np.broadcast_to(F(1), (2, 3)).copy()[:0], "x"], TypeError,
         "params[1] must be a NumPy array of float32 or float64 (or float16, bfloat16), got str"),
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_updated(params, error, message):
    with pytest.raises(error) as caught:
        fastopt.SGD(params)
    assert str(caught.value) == message


def test_read_only_broadcast_and_shared_parameters():
    w = np.ones((3, 3), F)
    frozen = w.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^params\['w'\] must be writeable, got a read-only array$"):
        fastopt.SGD({"w": frozen})
    shared = np.lib.stride_tricks.as_strided(w, (3, 3), (4, 4))
    with pytest.raises(ValueError, match=r"params must hold each element once, got .* share memory \(shape"):
        fastopt.SGD(shared)
    with pytest.raises(ValueError, match=r"^params\[0\] and params\[1\] are the same array; each"):
        fastopt.SGD([w, w])
    with pytest.raises(ValueError, match=r"^params\['a'\] and params\['b'\]\[0\] share memory; each"):
        fastopt.SGD({"a": w[0], "b": [w[:, 1]]})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -1}, ValueError, "lr must be a finite number >= 0, or a schedule of such; got -1"),
        ({"learning_rate": 1}, TypeError, "AdamW has no hyperparameter 'learning_rate'; it has lr, betas, eps, "
         "weight_decay, amsgrad; and every optimizer has accumulate, cautious, cautious_weight_decay, "
         "corrected_weight_decay, ema_decay, ema_warmup, frozen, grad_norm_over, grad_scaler, "
         "lookahead_alpha, lookahead_steps, master_weights, max_grad_norm, max_grad_value, max_skips, maximize, no_decay, overrides, "
         "seed, skip_nonfinite, skip_outliers, state_dtype, swa_every, swa_start, threads, zero_grads"),
        ({"threads": 0}, ValueError, "threads must be a whole number >= 1, or None; got 0"),
        ({"threads": 1.5}, TypeError, "threads must be a whole number >= 1, or None; got 1.5"),
        ({"threads": True}, TypeError, "threads must be a whole number >= 1, or None; got True"),
        ({"maximize": 1}, TypeError, "maximize must be True or False, got 1"),
    ],
)  # fmt: skip
def test_options_that_are_wrong(options, error, message):
    with pytest.raises(error) as caught:
        fastopt.AdamW(np.ones(3), **options)
    assert str(caught.value) == message


def test_the_base_has_no_rule():
    with pytest.raises(TypeError, match="Optimizer has no rule; use one of its subclasses, or write one"):
        fastopt.Optimizer(np.ones(3))


def test_a_rule_needs_defaults():
    with pytest.raises(TypeError, match="Mine: its rule takes 'size', which has no default"):

        class Mine(fastopt.Optimizer):
            rule = fastopt.Rule(lambda p, g, size: p - size * g)
            defaults = {"lr": 1.0}


# --- hyperparameters and the arguments of a step


def test_schedules_are_asked_for_the_steps_taken():
    asked = []

    def lr(step):
        asked.append(step)
        return 1.0 / (1 + step)

    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=lr)
    for _ in range(3):
        opt.step(np.ones(1))
    assert asked == [0, 1, 2]
    assert w[0] == -(1 + 1 / 2 + 1 / 3)


def test_a_schedule_out_of_range_writes_nothing():
    w = np.ones(3)
    opt = fastopt.SGD(w, lr=lambda step: -1.0)
    with pytest.raises(ValueError, match="lr must be a finite number >= 0; got -1.0"):
        opt.step(np.ones(3))
    assert (w.tolist(), opt.step_count) == ([1, 1, 1], 0)


def test_hyperparameters_can_be_set():
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(np.ones(1))
    opt.param_groups[0]["lr"] = 0.25
    opt.step(np.ones(1))
    opt.param_groups[0]["lr"] = lambda step: step  # 2 steps are taken
    opt.step(np.ones(1))
    opt.step(np.ones(1), lr=0.5)  # once
    opt.step(np.ones(1))  # the schedule again: 4
    assert w[0] == -(1 + 0.25 + 2 + 0.5 + 4)


def test_setting_momentum_changes_the_rule_and_the_state():
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(np.ones(1))
    assert opt.state == [{}]
    opt.param_groups[0]["momentum"] = 0.5
    opt.step(np.ones(1))
    opt.step(np.ones(1))
    assert opt.state[0]["momentum_buffer"].tolist() == [1.5]
    assert w[0] == -(1 + 1 + 1.5)
    opt.param_groups[0]["nesterov"] = True
    opt.step(np.ones(1))  # the buffer is kept: b = 1.75
    assert opt.state[0]["momentum_buffer"].tolist() == [1.75]
    opt.param_groups[0].update(nesterov=False, momentum=0)
    opt.step(np.ones(1))
    assert opt.state == [{}]


def test_combinations_are_checked_before_the_step():
    with pytest.raises(ValueError, match="nesterov needs a momentum and zero dampening; got momentum=0.0"):
        fastopt.SGD(np.ones(1), nesterov=True)
    w = np.ones(1)
    opt = fastopt.SGD(w, momentum=0.9, nesterov=True)
    opt.step(w * 2)
    opt.param_groups[0]["dampening"] = 0.5
    for _ in range(2):
        with pytest.raises(ValueError, match="dampening=0.5"):
            opt.step(w * 2)


@pytest.mark.parametrize("grad_scale", [2.0, 65536, np.float32(0.5)])
def test_grad_scale_divides(grad_scale):
    w, scaled = np.ones(5, F), np.ones(5, F)
    g = np.linspace(-1, 1, 5, dtype=F)
    fastopt.AdamW(w, lr=0.1).step(g)
    fastopt.AdamW(scaled, lr=0.1).step(g * F(grad_scale), grad_scale=grad_scale)
    np.testing.assert_array_equal(w, scaled)


@pytest.mark.parametrize("grad_scale", [0.0, -1.0, np.nan, np.inf, 1e300, 1e-310])
def test_grad_scale_must_be_positive(grad_scale):
    with pytest.raises(ValueError, match="grad_scale must be a (finite number;|number in)"):
        fastopt.SGD(np.ones(1)).step(np.ones(1), grad_scale=grad_scale)


def test_lr_of_a_step_is_checked():
    opt = fastopt.SGD(np.ones(1))
    with pytest.raises(ValueError, match="lr must be a finite number >= 0; got -1"):
        opt.step(np.ones(1), lr=-1)


def test_a_scalar_too_large_for_float32():
    w = np.ones(1, F)
    opt = fastopt.SGD(w, lr=1e39)
    with pytest.raises(
        ValueError, match="SGD: a scalar of this step is too large for the dtype of the parameters"
    ):
        opt.step(np.ones(1, F))
    assert (w[0], opt.step_count) == (1, 0)


def test_maximize_by_group():
    a, b = np.zeros(1), np.zeros(1)
    opt = fastopt.SGD([{"params": a}, {"params": b, "maximize": True}], lr=1.0)
    opt.step([np.ones(1), np.ones(1)])
    assert (a[0], b[0]) == (-1, 1)


# --- groups


def test_groups_have_hyperparameters_of_their_own():
    a, b, c = np.zeros(2), np.zeros((2, 2)), np.zeros(1, F)
    opt = fastopt.SGD([{"params": {"a": a}, "lr": 0.1}, {"params": [b, c]}], lr=1.0)
    opt.step([{"a": np.ones(2)}, [np.ones((2, 2)), np.ones(1, F)]])
    assert (a[0], b[0, 0], c[0]) == (-0.1, -1, -1)
    opt.param_groups[1]["lr"] = 2
    opt.step(({"a": np.ones(2)}, [np.ones((2, 2)), None]))
    assert (a[0], b[0, 0], c[0]) == (-0.2, -3, -1)


def test_groups_of_a_pack_are_one_launch():
    pack = fastopt.pack({"w": np.zeros((2, 2), F), "b": np.zeros(2, F), "c": np.zeros(2, F)})
    groups = [{"params": pack["w"], "lr": 2.0}, {"params": pack["b"]}, {"params": pack["c"], "momentum": 0.5}]
    opt = fastopt.SGD(groups, lr=1.0)
    pack.flat_grads[:] = 1
    opt.step()
    opt.step()
    assert pack.flat.tolist() == [-4, -4, -4, -4, -2, -2, -2.5, -2.5]
    assert len(opt._arrangement.launches) == 2  # without momentum, and with
    with pytest.raises(
        TypeError, match=r"grads must be a list of 3 trees, one a parameter group; got a dict"
    ):
        opt.step(pack.grads)


def test_add_param_group():
    a, b = np.ones(2), np.ones(2)
    opt = fastopt.Adam([a], lr=0.1)
    for _ in range(3):
        opt.step([np.ones(2)])
    opt.add_param_group({"params": b, "lr": 0.5})
    opt.step([[np.ones(2)], np.ones(2)])
    assert [g["steps"] for g in opt.state_dict()["param_groups"]] == [[4], [1]]
    np.testing.assert_allclose(b, 0.5, rtol=1e-7)  # the first step of Adam is lr
    np.testing.assert_allclose(a, 0.6, rtol=1e-7)
    with pytest.raises(
        ValueError, match=r"^params\[0\] and params\[2\]\['params'\]\['x'\] are the same array"
    ):
        opt.add_param_group({"params": {"x": a}})
    with pytest.raises(TypeError, match="a parameter group must be a dict with a key 'params', got"):
        opt.add_param_group([np.ones(3)])
    with pytest.raises(ValueError, match="unknown hyperparameter 'rate' of a parameter group"):
        opt.add_param_group({"params": np.ones(3), "rate": 1})
    assert len(opt.param_groups) == 2
    opt.step([[np.ones(2)], np.ones(2)])


def test_zero_grad_needs_a_pack():
    with pytest.raises(TypeError, match="zero_grad\\(\\) needs a pack: gradients given to step"):
        fastopt.SGD(np.ones(1)).zero_grad()


def test_repr():
    opt = fastopt.SGD(np.ones((2, 3)), lr=0.1)
    opt.step(np.ones((2, 3)))
    assert repr(opt) == (
        "<SGD(lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False: "
        "6 parameters in 1 array), 1 step taken>"
    )
    groups = [{"params": np.ones(2)}, {"params": [np.ones(3), np.ones(4)]}]
    assert repr(fastopt.SGD(groups)).count("\n    lr=") == 2


@pytest.mark.jit
def test_import_is_quick_and_compiles_nothing(tmp_path):
    from tests.processes import run

    code = """
        import sys, numba
        from numba.core import event
        before = set(sys.modules)
        with event.install_recorder("numba:compile") as recorder:
            import fastopt
        print(len(recorder.buffer), sorted({"sklearn", "matplotlib", "torch", "scipy"} & (set(sys.modules) - before)))
    """
    assert run(code, tmp_path) == "0 []"
