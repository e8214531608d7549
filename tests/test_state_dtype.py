"""State that is stored in fewer bytes: where, how, and that everything else goes on as it did."""

import numpy as np
import pytest

import fastopt
from fastopt.engine import threads
from fastopt.formats import SMALLEST
from tests.algorithms.cases import BY_ID, CASES, LAYOUTS, assert_same, draw, parameters, step, values
from tests.small_model import launches
from tests.stored import LOW, SHAPE, assert_near, each_form, gradients, model, stored, trained


def follow(case, form, count=3, shape=SHAPE, options=None):
    """Hold an optimizer to one in float32 that begins each step with the same state."""
    options = {} if options is None else options
    rng = np.random.default_rng(0)
    array = draw(rng, shape, "float32")
    opt = case.optimizer(array, state_dtype=form, **options)
    plain = array.copy()
    twin = case.optimizer(plain, **options)
    assert any(stored(opt)), "nothing is stored in fewer bytes"
    names, measure = stored(opt)[0], opt._leaves()[0].rule.measure
    for _ in range(count):
        grad = draw(rng, shape, "float32")
        np.copyto(plain, array)
        before = array.copy()
        twin.load_state_dict(opt.state_dict())
        step(twin, grad.copy())
        step(opt, grad)
        if measure is not None and measure.writes:  # the second pass reads what the first has stored
            assert np.abs(array - plain).max() <= 0.15 * np.abs(plain - before).max()
        else:
            np.testing.assert_array_equal(array, plain)
        (got,), (want,) = values(opt), values(twin)
        assert got.keys() == want.keys()
        for name, exact in want.items():
            if name == "params":  # compared above
                continue
            if name in names:
                assert_near(got[name], exact, form)
            elif name in opt._leaves()[0].rule.carry:  # sums in double, which are added up block by block
                np.testing.assert_allclose(got[name], exact, rtol=1e-12, err_msg=name)
            else:
                np.testing.assert_array_equal(got[name], exact, name)
    return opt


# --- the update


@each_form
@pytest.mark.parametrize("name", ["adamw", pytest.param("sgd_nesterov", marks=pytest.mark.slow)])
@pytest.mark.jit
def test_the_arithmetic_is_that_of_float32(name, form):
    opt = follow(BY_ID[name], form)
    assert opt.state[0] != {}


def storable(case, form):
    """Tell whether an algorithm has state that can be stored so; the errors of the others are below."""
    try:
        return any(stored(case.optimizer(np.ones(case.shape(5000), np.float32), state_dtype=form)))
    except ValueError:
        return False


@each_form
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.slow
@pytest.mark.jit
def test_of_all_algorithms(case, form):
    if not storable(case, form):
        pytest.skip("its state cannot be stored so")
    follow(case, form, shape=case.shape(5000))


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1023])
@each_form
@pytest.mark.jit
def test_any_length(form, count):
    options = {"overrides": {"*": {"state_dtype": form}}}
    rng = np.random.default_rng(count)
    w = draw(rng, count, "float32")
    opt = fastopt.AdamW(w, **options)
    plain = w.copy()
    twin = fastopt.AdamW(plain)
    for _ in range(2):
        grad = draw(rng, count, "float32")
        twin.load_state_dict(opt.state_dict())
        twin.step(grad)
        opt.step(grad)
        np.testing.assert_array_equal(w, plain)
        for name in ("exp_avg", "exp_avg_sq"):
            assert_near(opt.state[0][name], twin.state[0][name], form)


@each_form
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.jit
def test_layouts(layout, form):
    rng = np.random.default_rng(0)
    start, grad = draw(rng, SHAPE, "float32"), draw(rng, SHAPE, "float32")
    w, plain = LAYOUTS[layout](start), start.copy()
    opt, twin = fastopt.AdamW(w, state_dtype=form), fastopt.AdamW(plain)
    for _ in range(2):
        twin.load_state_dict(opt.state_dict())
        twin.step(grad)
        opt.step(grad)
        np.testing.assert_array_equal(w, plain)


OPTIONS = {
    "norm": {"max_grad_norm": 0.5},
    "tensor": {"max_grad_norm": 0.5, "grad_norm_over": "tensor"},
    "value": {"max_grad_value": 0.5},
    "ema": {"ema_decay": 0.9, "ema_warmup": True},
    "swa": {"swa_start": 1, "swa_every": 2},
    "lookahead": {"lookahead_steps": 2.0},
    "cautious": {"cautious": True},
    "cautious_weight_decay": {"cautious_weight_decay": True},
    "skip": {"skip_nonfinite": True},
    "zero": {"zero_grads": True},
    "maximize": {"maximize": True},
}


def each_of(options, others, quick):
    """Have a test run with each option and each of others; those that are not ``quick`` are slow."""
    cases = [
        pytest.param(option, other, marks=() if (option, str(other)) in quick else pytest.mark.slow)
        for option in options
        for other in others
    ]
    return pytest.mark.parametrize(("option", "form"), cases)


@each_of(OPTIONS, LOW, {("norm", "bfloat16"), ("maximize", "bfloat16")})
@pytest.mark.jit
def test_with_other_options(option, form):
    opt = follow(BY_ID["adamw"], form, options=OPTIONS[option], count=4)
    for name in {"ema", "swa", "slow"} & opt.state[0].keys():
        assert name not in stored(opt)[0]  # averages of parameters are as exact as those


@each_form
@pytest.mark.jit
@pytest.mark.slow
def test_gradients_that_are_added_up(form):
    w, plain = model(), model()
    opt = fastopt.AdamW(w, state_dtype=form, accumulate=2)
    twin = fastopt.AdamW(plain, state_dtype=form)
    for first, second in zip(gradients(2), gradients(2, seed=5), strict=True):
        opt.step(first)
        opt.step(second)
        twin.step({name: (first[name] + second[name]) for name in first}, grad_scale=2.0)
    assert_same(values(opt), values(twin))


@each_form
@pytest.mark.jit
def test_a_step_that_is_left_out_changes_nothing(form):
    opt = fastopt.AdamW(model(), state_dtype=form, skip_nonfinite=True)
    first, second = gradients(2)
    opt.step(first)
    before = values(opt)
    second["w"][3, 3] = np.nan
    opt.step(second)
    assert_same(values(opt), before)


@pytest.mark.jit
def test_nan_stays_where_it_is():
    w = np.ones(SHAPE, np.float32)
    opt = fastopt.AdamW(w, state_dtype="bfloat16")
    grad = np.ones(SHAPE, np.float32)
    grad[2, 3] = np.nan
    opt.step(grad)
    for array in (w, *opt.state[0].values()):
        assert np.isnan(array[2, 3])
        assert np.isfinite(array).sum() == array.size - 1


@each_form
@pytest.mark.jit
def test_what_never_had_a_gradient_stays_exactly_as_it_is(form):
    w = np.ones(SHAPE, np.float32)
    opt = fastopt.AdamW(w, state_dtype=form, weight_decay=0.0)
    grad = np.ones(SHAPE, np.float32)
    grad[:, ::3] = 0
    for _ in range(20):
        opt.step(grad)
    assert (w[:, ::3] == 1).all()
    assert all((array[:, ::3] == 0).all() for array in opt.state[0].values())


# --- random bits


@each_form
@pytest.mark.jit
def test_the_seed_decides(form):
    one, opt = trained(state_dtype=form, seed=3)
    same, twin = trained(state_dtype=form, seed=3)
    assert_same(values(opt), values(twin))
    other, third = trained(state_dtype=form, seed=4)
    differing = (third.state[0]["exp_avg"]["w"] != opt.state[0]["exp_avg"]["w"]).mean()
    assert 0.1 < differing < 0.9
    assert not np.array_equal(one["w"], other["w"])


@each_form
@pytest.mark.parametrize("how", [{"packed": True}, {"groups": True}, {"threads": 4}], ids=str)
@pytest.mark.jit
def test_the_same_bits_however_it_is_done(how, form, monkeypatch):
    one, opt = trained(state_dtype=form, threads=1)
    if "threads" in how:
        monkeypatch.setattr(threads, "CHUNK", 1000)
        monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    other, twin = trained(state_dtype=form, **how)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    mine, theirs = values(opt), values(twin)
    assert_same(mine, theirs)


@each_form
@pytest.mark.parametrize("name", ["lamb", "prodigy"])
@pytest.mark.jit
@pytest.mark.slow
def test_rules_that_measure_have_the_same_bits_for_any_number_of_threads(name, form, monkeypatch):
    def run(**options):
        w = draw(np.random.default_rng(0), 20_000, "float32")
        opt = BY_ID[name].optimizer(w, state_dtype=form, **options)
        for seed in range(3):
            opt.step(draw(np.random.default_rng(seed), 20_000, "float32"))
        return values(opt)

    one = run(threads=1)
    monkeypatch.setattr(threads, "CHUNK", 1000)
    monkeypatch.setattr(threads, "cutoff_bytes", lambda: 0)
    assert_same(run(threads=4), one)


# --- what is stored how


def test_by_default_all_is_float32():
    opt = fastopt.Adam(model())
    assert stored(opt) == [{}, {}]
    assert stored(fastopt.Adam(model(), state_dtype="float32")) == [{}, {}]
    assert opt.nbytes == 8 * (61 * 83 + 83)


def test_bytes_of_the_state():
    size = 61 * 83
    assert fastopt.Adam(model(), state_dtype="bfloat16").nbytes == 4 * size + 8 * 83
    blocks = -(-size // 256)
    assert fastopt.Adam(model(), state_dtype="float8").nbytes == 2 * (size + 1 + 4 * blocks) + 8 * 83
    assert fastopt.SGD(model(), state_dtype="float8").nbytes == 0


def test_small_arrays_keep_float32():
    params = {"a": np.ones(SMALLEST - 1, np.float32), "b": np.ones(SMALLEST, np.float32)}
    named = {"exp_avg": "bfloat16", "exp_avg_sq": "bfloat16"}
    assert stored(fastopt.Adam(params, state_dtype="bfloat16")) == [{}, named]


def test_overrides_name_small_arrays_too():
    params = {"a": np.ones(3, np.float32), "b": np.ones(9000, np.float32), "c": np.ones(9000, np.float32)}
    chosen = {"a": {"state_dtype": "bfloat16"}, "b": {"state_dtype": None}}
    opt = fastopt.Adam(params, state_dtype="float8", overrides=chosen)
    assert stored(opt) == [
        {"exp_avg": "bfloat16", "exp_avg_sq": "bfloat16"},
        {},
        {"exp_avg": "float8", "exp_avg_sq": "float8_squares"},
    ]
    assert opt.param_groups[0].overrides == chosen


@pytest.mark.jit
def test_groups_have_forms_of_their_own():
    a, b = np.ones(5000, np.float32), np.ones(5000, np.float32)
    opt = fastopt.AdamW([{"params": a, "state_dtype": "bfloat16"}, {"params": b}])
    opt.step([np.ones(5000, np.float32)] * 2)
    assert len(launches(opt)) == 2
    np.testing.assert_array_equal(a, b)  # the first step of both begins with zeros


def test_state_is_a_copy_that_cannot_be_written_to():
    opt = fastopt.Adam(model(), state_dtype="bfloat16")
    low, plain = (opt.state[0]["exp_avg"][name] for name in ("w", "b"))
    assert low.dtype == plain.dtype == np.float32
    assert plain.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        low[...] = 1


def test_state_that_does_not_start_with_zero():
    opt = fastopt.Adagrad(np.ones(5000, np.float32), initial_accumulator_value=0.1, state_dtype="bfloat16")
    assert stored(opt) == [{"sum": "bfloat16"}]
    np.testing.assert_array_equal(opt.state[0]["sum"], np.float32(0.10009765625))


@pytest.mark.jit
def test_the_form_can_be_changed():
    params, opt = trained(state_dtype="bfloat16")
    before = opt.state[0]["exp_avg"]["w"]
    opt.param_groups[0]["state_dtype"] = None
    assert stored(opt)[0] != {}  # it counts from the next look on
    np.testing.assert_array_equal(opt.state[0]["exp_avg"]["w"], before)
    assert opt.state[0]["exp_avg"]["w"].flags.writeable
    assert stored(opt) == [{}, {}]
    opt.step(gradients(1)[0])
    opt.param_groups[0]["state_dtype"] = "float8"
    opt.step(gradients(1)[0])
    assert stored(opt)[0] == {"exp_avg": "float8", "exp_avg_sq": "float8_squares"}


# --- what rules declare


def keeping(p, g, m, v, anchor, lr):
    return p - lr * g, m, v, anchor


class Keeping(fastopt.Optimizer):
    """An optimizer of a user's own."""

    rule = fastopt.Rule(keeping, ("m", "v", "anchor"), squares=("v",), exact=("anchor",))
    defaults = {"lr": 0.1}


def test_rules_say_what_is_never_negative_and_what_must_be_exact():
    opt = Keeping(np.ones(5000, np.float32), state_dtype="float8")
    assert stored(opt) == [{"m": "float8", "v": "float8_squares"}]


@pytest.mark.parametrize("what", ["squares", "exact"])
def test_what_they_say_must_be_state(what):
    with pytest.raises(TypeError, match=rf"^rule 'keeping' has 'w' in its {what}, which is not in its state"):
        fastopt.Rule(keeping, ("m", "v", "anchor"), **{what: ("w",)})


# --- rows


@pytest.mark.jit
@pytest.mark.slow
def test_rows():
    rng = np.random.default_rng(0)
    table = draw(rng, (700, 8), "float32")
    plain = table.copy()
    opt, twin = fastopt.Adagrad(table, state_dtype="bfloat16"), fastopt.Adagrad(plain)
    for _ in range(3):
        rows = fastopt.Rows(rng.integers(0, 700, 50), draw(rng, (50, 8), "float32"))
        before = opt.state[0]["sum"]
        twin.load_state_dict(opt.state_dict())
        twin.step(rows)
        opt.step(rows)
        np.testing.assert_array_equal(table, plain)
        after = opt.state[0]["sum"]
        assert_near(after, twin.state[0]["sum"], "bfloat16")
        untouched = np.setdiff1d(np.arange(700), rows.indices)
        np.testing.assert_array_equal(after[untouched], before[untouched])


def test_rows_are_no_blocks():
    opt = fastopt.Adagrad(np.ones((700, 8), np.float32), state_dtype="float8")
    rows = fastopt.Rows([3], np.ones((1, 8), np.float32))
    message = (
        "^grads cannot be Rows: the state of params is stored in blocks, by state_dtype='float8', and a row"
    )
    with pytest.raises(ValueError, match=message):
        opt.step(rows)
    assert parameters(opt)[0].all()
