"""The perceptrons against scikit-learn's own, on digits and diabetes."""

import copy
import functools
import inspect
import pickle
import sys
import types
from subprocess import run

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.4")

from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastopt
from fastopt.adapters.sklearn import MLPClassifier, MLPRegressor, check_host
from tests.processes import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = IMAGES[:500] / 16
LABELS = LABELS[:500]
PATIENTS, DISEASE = map(scale, load_diabetes(return_X_y=True))
SMALL = {"hidden_layer_sizes": (12, 7), "max_iter": 6, "random_state": 0, "batch_size": 64}


def pair(kind, **settings):
    """Return scikit-learn's model, ours, and their data."""
    cls, data = (
        (MLPClassifier, (IMAGES, LABELS)) if kind == "classifier" else (MLPRegressor, (PATIENTS, DISEASE))
    )
    stock = getattr(neural_network, cls.__name__)
    common = {name: value for name, value in settings.items() if not name.startswith("optimizer")}
    return stock(**SMALL | common), cls(**SMALL | settings), data


def parameters(model):
    return [*model.coefs_, *model.intercepts_]


def assert_close(ours, theirs, rtol=1e-10, atol=1e-12):
    for own, other in zip(parameters(ours), parameters(theirs), strict=True):
        np.testing.assert_allclose(own, other, rtol, atol)


@pytest.mark.jit  # wide layers, many epochs
@parametrize_with_checks(
    [
        MLPClassifier(max_iter=100),
        MLPRegressor(max_iter=100, optimizer="AdamW", optimizer_params={"weight_decay": 0.1}),
    ]
)
def test_it_is_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("classifier", {}),
        ("classifier", {"max_iter": 40, "n_iter_no_change": 3, "tol": 0.05}),
        ("classifier", {"optimizer": fastopt.Adam, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3}),
        ("classifier", {"optimizer_params": {"betas": (0.8, 0.99)}}),
        ("classifier", {"optimizer_params": {"betas": (0.8, 0.99), "max_grad_norm": np.inf}}),
        ("classifier", {"early_stopping": True}),
        ("classifier", {"activation": "tanh", "alpha": 0.0, "shuffle": False}),
        ("regressor", {"activation": "logistic", "alpha": 0.5}),
        ("regressor", {"activation": "identity", "hidden_layer_sizes": 5, "learning_rate_init": 0.01}),
        ("regressor", {"solver": "sgd"}),
        ("regressor", {"solver": "sgd", "nesterovs_momentum": False, "learning_rate": "invscaling"}),
        ("regressor", {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1}),
        ("regressor", {"solver": "lbfgs"}),
    ],
)
def test_the_loss_curve_is_scikit_learns(kind, settings):
    theirs, ours, data = pair(kind, **settings)
    if "optimizer_params" in settings:
        theirs.set_params(beta_1=0.8, beta_2=0.99)
    theirs.fit(*data)
    ours.fit(*data)
    assert ours.n_iter_ == theirs.n_iter_
    assert_close(ours, theirs)
    np.testing.assert_allclose(ours.predict(data[0]), theirs.predict(data[0]), 1e-9)
    if settings.get("solver") != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, 1e-12)
        assert ours.validation_scores_ == theirs.validation_scores_
        if settings.get("solver") == "sgd":
            assert ours._optimizer.learning_rate == theirs._optimizer.learning_rate
            assert ours.optimizer_.param_groups[0]["lr"] == theirs._optimizer.learning_rate


def test_float32_stays_float32():
    theirs, ours, (images, labels) = pair("classifier")
    images = images.astype(np.float32)
    for model in (theirs, ours):
        model.fit(images, labels)
    assert {array.dtype for array in parameters(ours)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, 1e-4)
    ours.partial_fit(images.astype(float), labels)  # as scikit-learn does: gradients are cast
    assert ours.coefs_[0].dtype == np.float32


def test_data_may_be_sparse():
    theirs, ours, (images, labels) = pair("classifier")
    for model in (theirs, ours):
        model.fit(sparse.csr_matrix(images), labels)
    assert_close(ours, theirs)


@pytest.mark.parametrize("labels", [LABELS % 2, np.c_[LABELS % 2, LABELS > 4]], ids=["binary", "multilabel"])
def test_other_outputs(labels):
    theirs, ours, (images, _) = pair("classifier")
    for model in (theirs, ours):
        model.fit(images, labels)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, 1e-12)


@pytest.mark.skipif(
    "sample_weight" not in inspect.signature(neural_network.MLPRegressor.fit).parameters, reason="since 1.7"
)
def test_samples_may_have_weights():
    theirs, ours, (patients, disease) = pair("regressor", loss="poisson")
    weight = np.linspace(0.1, 3, len(patients))
    for model in (theirs, ours):
        model.fit(patients, disease + 3, weight)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, 1e-12)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_goes_on(solver):
    theirs, ours, (images, labels) = pair("classifier", solver=solver)
    for part in np.array_split(np.arange(len(images)), 3):
        for model in (theirs, ours):
            model.partial_fit(images[part], labels[part], classes=np.arange(10))
        ours = pickle.loads(pickle.dumps(ours))
        assert_close(ours, theirs)
        ours = copy.deepcopy(ours)
    assert ours.optimizer_.step_count == 9
    assert ours.t_ == theirs.t_ == 500


def test_a_pickle_that_nothing_was_done_with_can_be_pickled_again():
    _, model, data = pair("classifier", optimizer="ScheduleFreeAdamW")
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model.fit(*data)))))
    assert_close(twice.partial_fit(*data), model.partial_fit(*data), 0, 0)


def test_a_copy_is_on_its_own():
    _, model, data = pair("classifier")
    other = copy.deepcopy(model.fit(*data))
    before = [array.copy() for array in parameters(model)]
    other.partial_fit(*data)
    for array, old, new in zip(parameters(model), before, parameters(other), strict=True):
        np.testing.assert_array_equal(array, old)
        assert not np.array_equal(array, new)


def test_warm_start_begins_with_the_parameters_and_a_new_optimizer():
    theirs, ours, data = pair("classifier", warm_start=True)
    for model in (theirs, ours):
        model.fit(*data)
        model.fit(*data)
    assert_close(ours, theirs)
    assert len(ours.loss_curve_) == 12
    assert ours.optimizer_.step_count == 48


def test_what_early_stopping_brings_back_is_trained_on():
    theirs, ours, data = pair("classifier", early_stopping=True, n_iter_no_change=1, tol=0.5)
    for model in (theirs, ours):
        model.fit(*data)
        assert model.n_iter_ < 6
        model.set_params(early_stopping=False)
        model.best_loss_ = np.inf
        model.partial_fit(*data)
    assert_close(ours, theirs)
    assert ours.optimizer_.param_groups[0]["params"].params["coefs"][0] is ours.coefs_[0]


def test_parameters_that_the_user_sets_are_trained_on():
    theirs, ours, data = pair("regressor")
    for model in (theirs, ours):
        model.partial_fit(*data)
        model.coefs_[1] = np.full_like(model.coefs_[1], 0.1)
        model.partial_fit(*data)
    assert_close(ours, theirs)
    ours.coefs_[1] = np.ones((12, 1))
    with pytest.raises(
        ValueError, match=r"^coefs_ has other shapes than when the training began; call fit\(\)"
    ):
        ours.partial_fit(*data)


def ways():
    return {
        "name": "AdamW",
        "class": fastopt.AdamW,
        "partial": functools.partial(fastopt.AdamW, weight_decay=0.5, lr=1.0),
        "instance": fastopt.AdamW(np.zeros(3), lr=1.0, weight_decay=0.5, max_grad_norm=1e9, amsgrad=False),
    }


@pytest.mark.parametrize("way", list(ways()))
def test_all_ways_to_name_an_optimizer(way):
    settings = {"weight_decay": 0.1, "lr": 2e-3}
    chosen = ways()[way]
    model = MLPClassifier(**SMALL, optimizer=chosen, optimizer_params=settings)
    other = MLPClassifier(**SMALL, optimizer="AdamW", optimizer_params={"weight_decay": 0.1})
    model.fit(IMAGES, LABELS)
    other.set_params(learning_rate_init=2e-3).fit(IMAGES, LABELS)
    assert type(model.optimizer_) is fastopt.AdamW
    assert_close(model, other, 0, 0)
    assert model.optimizer is chosen
    assert settings == {"weight_decay": 0.1, "lr": 2e-3}
    assert (model.optimizer_.grad_norm is not None) == (way == "instance")


@pytest.mark.parametrize("name", ["AdamW", "Adagrad"])
def test_it_does_what_the_optimizer_does(name):
    """One step, with gradients taken from scikit-learn's: it divides them by the number of samples."""
    settings = SMALL | {"max_iter": 1, "batch_size": 500, "alpha": 300.0, "solver": "sgd", "momentum": 0.0}
    decay = {"no_decay": "intercepts.*", "weight_decay": 7.0}
    start = neural_network.MLPClassifier(**settings, learning_rate_init=1e-300).fit(IMAGES, LABELS)
    moved = neural_network.MLPClassifier(**settings, learning_rate_init=0.5).fit(IMAGES, LABELS)
    params = {"coefs": start.coefs_, "intercepts": start.intercepts_}
    gradients = [2 * (old - new) for old, new in zip(parameters(start), parameters(moved), strict=True)]
    getattr(fastopt, name)(params, lr=0.1, **decay).step(
        {"coefs": gradients[:3], "intercepts": gradients[3:]}
    )
    model = MLPClassifier(**settings, optimizer=name, learning_rate_init=0.1, optimizer_params=decay)
    assert_close(model.fit(IMAGES, LABELS), start, 1e-6, 1e-7)


def test_the_learning_rate_falls_with_any_optimizer():
    settings = {"learning_rate": "invscaling", "power_t": 1.0, "optimizer_params": {"lr": 0.1}}
    _, model, data = pair("classifier", optimizer="AdamW", **settings)
    model.fit(*data)
    assert model.optimizer_.param_groups[0]["lr"] == pytest.approx(0.1 / (6 * 500 + 1))
    _, model, data = pair("classifier", learning_rate="invscaling")
    assert model.fit(*data).optimizer_.param_groups[0]["lr"] == 1e-3  # as with scikit-learn's Adam


class Halving:
    """A schedule that does not look at the step."""

    value = 0.1

    def __call__(self, count):
        self.value /= 2
        return self.value


def test_schedules_begin_anew_with_each_fit():
    lr = Halving()
    _, model, data = pair("classifier", optimizer="AdamW", optimizer_params={"lr": lr})
    first = [array.copy() for array in parameters(model.fit(*data))]
    for own, want in zip(parameters(model.fit(*data)), first, strict=True):
        np.testing.assert_array_equal(own, want)
    assert lr.value == 0.1


@pytest.mark.slow
def test_every_algorithm_trains_or_says_why_not():
    refused = {"LBFGS", "Sophia", "SparseAdam"}
    for name in fastopt.algorithms.__all__:
        rate = 1.0 if getattr(fastopt, name).defaults.get("lr") == 1.0 else 0.01
        model = MLPClassifier((8,), optimizer=name, learning_rate_init=rate, max_iter=3, random_state=0)
        if name in refused:
            with pytest.raises(ValueError, match=rf"^optimizer cannot be {name}: it "):
                model.fit(IMAGES, LABELS)
        else:
            assert model.fit(IMAGES, LABELS).loss_ < model.loss_curve_[0], name


def test_nag_takes_its_gradient_at_the_point_ahead():
    """So it is SGD's Nesterov, seen from that point: the same losses."""
    settings = {"learning_rate_init": 0.05, "batch_size": 500, "alpha": 0.01}
    model = MLPClassifier(**SMALL | settings, optimizer="NAG").fit(IMAGES, LABELS)
    other = MLPClassifier(**SMALL | settings, optimizer="SGD")
    other.set_params(optimizer_params={"nesterov": True, "momentum": 0.9}).fit(IMAGES, LABELS)
    np.testing.assert_allclose(model.loss_curve_, other.loss_curve_, 1e-9)


def test_schedule_free_models_are_their_average():
    model = MLPClassifier(**SMALL, optimizer="ScheduleFreeAdamW", learning_rate_init=0.01)
    average = [array.copy() for array in parameters(model.fit(IMAGES, LABELS))]
    model.optimizer_.train()
    assert not np.array_equal(average[0], model.coefs_[0])
    model.optimizer_.eval()
    np.testing.assert_allclose(model.coefs_[0], average[0], 1e-9)
    before = model.score(IMAGES, LABELS)
    for _ in range(4):  # each moves to where gradients are taken, and back
        model.partial_fit(IMAGES, LABELS)
    assert model.score(IMAGES, LABELS) > before + 0.1


def test_early_stopping_scores_the_average_of_schedule_free_models():
    class Watched(MLPClassifier):
        def _score(self, *args, **kwargs):
            self.seen = [array.copy() for array in parameters(self)]
            with pytest.raises(RuntimeError, match="cannot step after eval"):
                self.optimizer_.step()
            return len(self.validation_scores_)  # each is better than all before

    model = Watched(**SMALL, optimizer="ScheduleFreeAdamW", learning_rate_init=0.01, early_stopping=True)
    model.fit(IMAGES, LABELS)
    assert model.validation_scores_ == [0, 1, 2, 3, 4, 5]
    for own, seen in zip(parameters(model), model.seen, strict=True):
        np.testing.assert_array_equal(own, seen)
    assert model.loss_ < model.loss_curve_[0]


def test_averages_can_predict():
    model = MLPClassifier(**SMALL, optimizer_params={"ema_decay": 0.9}).fit(IMAGES, LABELS)
    own = model.predict_proba(IMAGES)
    with model.optimizer_.averaged_parameters():
        averaged = model.predict_proba(IMAGES)
    assert not np.allclose(own, averaged)
    np.testing.assert_array_equal(model.predict_proba(IMAGES), own)


def test_gradients_that_are_accumulated():
    """Two batches of 250 are one of 500, but for the shuffling."""
    settings = SMALL | {"shuffle": False, "alpha": 0.0, "max_iter": 5}
    model = MLPClassifier(**settings | {"batch_size": 250}, optimizer_params={"accumulate": 2})
    whole = MLPClassifier(**settings | {"batch_size": 500})
    assert_close(model.fit(IMAGES, LABELS), whole.fit(IMAGES, LABELS), 1e-7, 1e-9)


class Rates(fastopt.Optimizer):
    """Without a learning rate of its own."""

    rule = fastopt.Rule(lambda p, g, speed: p - speed * g)
    defaults = {"speed": 0.1}


def test_ones_own_optimizer():
    model = MLPClassifier(**SMALL, optimizer=Rates, optimizer_params={"speed": 0.5}).fit(IMAGES, LABELS)
    other = MLPClassifier(**SMALL, optimizer="SGD", learning_rate_init=0.5).fit(IMAGES, LABELS)
    assert_close(model, other)
    with pytest.raises(
        ValueError, match=r"^learning_rate must be 'constant' where .*, or where it has none; got 'adaptive'$"
    ):
        model.set_params(learning_rate="adaptive").fit(IMAGES, LABELS)


class Decaying(fastopt.Optimizer):
    """With a coupled weight decay by default, to which the L2 penalty is added."""

    rule = fastopt.Rule(lambda p, g, lr, weight_decay: p - lr * (g + weight_decay * p), decay="coupled")
    defaults = {"lr": 0.1, "weight_decay": 0.5}


def test_the_penalty_comes_beside_weight_decay():
    settings = SMALL | {"alpha": 30.0, "learning_rate_init": 0.1}
    model = MLPClassifier(**settings, optimizer=Decaying).fit(IMAGES, LABELS)
    other = MLPClassifier(**settings, optimizer="SGD", optimizer_params={"weight_decay": 0.5})
    assert_close(model, other.fit(IMAGES, LABELS))


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_the_penalty_is_the_same_within_the_step_and_before_it(name):
    settings = SMALL | {"alpha": 30.0, "learning_rate_init": 0.1, "optimizer": name}
    within = MLPClassifier(**settings).fit(IMAGES, LABELS)
    before = MLPClassifier(**settings, optimizer_params={"max_grad_norm": np.inf}).fit(IMAGES, LABELS)
    assert_close(within, before, 1e-9)
    without = MLPClassifier(**settings | {"alpha": 0.0}).fit(IMAGES, LABELS)
    assert not np.allclose(within.coefs_[0], without.coefs_[0], 1e-2)


def test_grid_search_over_optimizers_and_their_settings():
    model = MLPClassifier((8,), max_iter=5, random_state=0)
    grid = {
        "optimizer": ["Lion", functools.partial(fastopt.AdamW, lr=0.02), fastopt.Lion(np.zeros(1), lr=1e-9)],
        "optimizer_params": [None, {"weight_decay": 0.1}],
    }
    search = GridSearchCV(model, grid, cv=2).fit(IMAGES, LABELS)
    scores = search.cv_results_["mean_test_score"]
    assert scores[4] == scores[5] == min(scores)
    assert type(search.best_estimator_.optimizer_) is fastopt.AdamW
    again = clone(search.best_estimator_)
    assert again.get_params()["optimizer"].keywords == {"lr": 0.02}
    assert not hasattr(again, "optimizer_")


def test_the_parameters_are_scikit_learns_and_two_more():
    for ours, theirs in (
        (MLPClassifier(), neural_network.MLPClassifier()),
        (MLPRegressor(), neural_network.MLPRegressor()),
    ):
        assert ours.get_params() == {**theirs.get_params(), "optimizer": None, "optimizer_params": None}
    assert (
        repr(MLPClassifier((3,), optimizer="Lion"))
        == "MLPClassifier(hidden_layer_sizes=(3,), optimizer='Lion')"
    )


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"optimizer": "Adma"},
            ValueError,
            r"^optimizer must be one of ADOPT, .*, if it is a name; got 'Adma'$",
        ),
        ({"optimizer": 3}, TypeError, r"^optimizer must be a fastopt optimizer: its name, .* Got an int$"),
        ({"optimizer": dict}, TypeError, r"^optimizer must be a fastopt optimizer: .* Got dict$"),
        (
            {"optimizer": functools.partial(fastopt.Lion, np.zeros(1))},
            TypeError,
            r"^optimizer must have keyword arguments only, if it is a functools.partial$",
        ),
        (
            {"optimizer": fastopt.Lion({"w": np.zeros(1)}, no_decay="w")},
            ValueError,
            r"^optimizer must have one parameter group and no settings of single arrays, if it is an instance: ",
        ),
        (
            {"optimizer_params": [1]},
            TypeError,
            r"^optimizer_params must be a dict of the optimizer's arguments; got ",
        ),
        (
            {"optimizer_params": {"params": 1}},
            ValueError,
            r"^optimizer_params cannot have 'params': the arrays are the model's$",
        ),
        (
            {"optimizer_params": {"grad_scaler": fastopt.GradScaler()}},
            ValueError,
            r"^optimizer_params cannot have 'grad_scaler': its gradients are not scaled$",
        ),
        (
            {"optimizer_params": {"rho": 1.0}},
            TypeError,
            r"^Adam has no hyperparameter 'rho'; it has lr, betas",
        ),
        ({"optimizer_params": {"lr": "big"}}, TypeError, r"^lr must be a finite number >= 0"),
        ({"optimizer_params": {"betas": 0.9}}, TypeError, r"^betas must be 2 values"),
        ({"optimizer_params": {"frozen": "coefs.3"}}, ValueError, r"coefs\.3"),
        (
            {"solver": "lbfgs", "optimizer": "Adam"},
            ValueError,
            r"^optimizer and optimizer_params must be None with solver='lbfgs'$",
        ),
        (
            {"optimizer": "Lion", "optimizer_params": {"lr": float}, "learning_rate": "adaptive"},
            ValueError,
            r"^learning_rate must be 'constant' where the optimizer's lr is a schedule, or where it has none; got 'adaptive'$",
        ),
    ],
)
def test_mistakes_are_found_before_anything_is_set(settings, error, message):
    model = MLPClassifier(**SMALL, **settings)
    before = dict(vars(model))
    with pytest.raises(error, match=message):
        model.fit(IMAGES, LABELS)
    assert vars(model) == before
    with pytest.raises(
        AttributeError, match="has no optimizer_ before it is trained by solver='sgd' or 'adam'"
    ):
        _ = model.optimizer_


def test_gradients_of_others_are_refused():
    class Noisy(MLPClassifier):
        def _backprop(self, *args):
            loss, coef_grads, intercept_grads = super()._backprop(*args)
            return loss, [grad + 1.0 for grad in coef_grads], intercept_grads

    with pytest.raises(
        RuntimeError, match=r"^the gradients must be those that _backprop\(\) of this model returned$"
    ):
        Noisy(**SMALL).fit(IMAGES, LABELS)


def test_a_host_that_has_changed_is_refused():
    class Base:
        def _validate_params(self): ...

        def _fit_stochastic(self, X, y): ...

    message = r"^fastopt.adapters.sklearn does not know scikit-learn 9.9: the arguments of Base\._fit_stochastic should include incremental; they are self, X, y$"
    with pytest.raises(ImportError, match=message):
        check_host(Base, "9.9")
    message = r"Base\._validate_params should include self; they are nothing$"
    with pytest.raises(ImportError, match=message):
        check_host(types.new_class("Base"), "9.9")


def test_a_missing_host_is_named():
    code = "import sys; sys.modules['sklearn'] = None\nimport fastopt.adapters.sklearn"
    done = run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: fastopt.adapters.sklearn needs scikit-learn >= 1.4 (")
    assert last.endswith('): pip install "fastopt[sklearn]"')


def test_the_warnings_are_scikit_learns():
    _, model, data = pair("classifier", max_iter=1)
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        model.fit(*data)


@pytest.mark.jit
def test_state_in_fewer_bytes_is_for_data_of_float32():
    settings = {"optimizer": "Adam", "optimizer_params": {"state_dtype": "bfloat16"}, "max_iter": 3}
    model = MLPClassifier((100,), random_state=0, **settings)
    model.fit(IMAGES.astype(np.float32), LABELS)
    assert model.coefs_[0].dtype == np.float32
    with pytest.raises(
        ValueError, match=r"^params\['coefs'\]\[0\] is of float64, whose state has no state_dtype"
    ):
        model.fit(IMAGES, LABELS)
