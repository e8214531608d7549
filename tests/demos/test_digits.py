import re

import numpy as np
import pytest

from fastopt.__main__ import main
from fastopt.demos.digits.contestants import FAMILIES, METHODS
from fastopt.demos.digits.training import batches, load, sample_gradients, train

pytest.importorskip("sklearn")

HIDDEN, EPOCHS = [256, 128], 30  # the defaults of the command line


@pytest.fixture(scope="module")
def data():
    return load()


def test_the_split_is_fixed_and_stratified(data):
    assert data.train_x.shape == (1437, 64)
    assert data.test_x.shape == (360, 64)
    assert data.train_x.dtype == np.float32
    assert (data.train_x.min(), data.train_x.max()) == (0.0, 1.0)
    assert set(np.bincount(data.test_labels)) <= {35, 36, 37}
    assert np.array_equal(load().test_x, data.test_x)


def test_batches_are_shuffled_and_cover_each_image_at_most_once():
    first = batches(200, np.random.default_rng(0))
    assert [len(batch) for batch in first] == [64, 64, 64]
    seen = np.concatenate(first)
    assert len(np.unique(seen)) == len(seen)
    assert not np.array_equal(seen, np.sort(seen))
    assert [len(batch) for batch in batches(5, np.random.default_rng(0))] == [5]


@pytest.mark.jit
def test_adam_recognises_97_percent(data):
    (adam,) = [method for method in METHODS if method.label == "Adam"]
    run = train(adam, data, HIDDEN, EPOCHS, seed=0)
    assert len(run.losses) == EPOCHS + 1
    assert run.losses[-1] < 0.005
    assert run.accuracy >= 0.97


@pytest.mark.jit
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_every_method_learns(method, data):
    run = train(method, data, HIDDEN, 8, seed=0)
    assert run.losses[0] > 2.0
    assert run.losses[-1] < 0.15
    assert run.accuracy >= 0.93


def test_training_is_reproducible(data):
    small = data._replace(train_x=data.train_x[:200], train_labels=data.train_labels[:200])
    one, other, another = (train(METHODS[1], small, [4], 2, seed) for seed in (0, 0, 1))
    assert one == other
    assert one != another
    assert one.losses[-1] < one.losses[0]


def test_momentum_is_sgd_with_momentum(data):
    small = data._replace(train_x=data.train_x[:200], train_labels=data.train_labels[:200])
    by_label = {method.label: method for method in METHODS}
    one, other = (train(by_label[label], small, [4], 3, seed=0) for label in ("SGD, momentum", "Momentum"))
    assert one.losses == pytest.approx(other.losses, rel=1e-5)


def test_sampled_gradients(data):
    params, gradients = sample_gradients(data, [4], seed=0, number=30)  # more than an epoch has
    assert len(gradients) == 30
    assert all(g.shape == params.shape for g in gradients)
    assert not np.array_equal(gradients[0], gradients[22])


def test_families_fit_the_colours_and_dashes():
    figures = pytest.importorskip("fastopt.demos.figures")
    assert max(map(len, FAMILIES.values())) <= min(len(figures.COLOURS), len(figures.DASHES))
    assert len({method.label for method in METHODS}) == len(METHODS)


@pytest.mark.jit
def test_the_demo(tmp_path, capsys):
    for package in ("matplotlib", "tqdm"):
        pytest.importorskip(package)
    assert main(["demo", "--epochs", "1", "--hidden", "8", "6", "--out", str(tmp_path / "new")]) == 0
    shown = capsys.readouterr().out
    assert "Network 64-8-6-10: 644 parameters, float32. 1 epochs in batches of 64." in shown
    for method in METHODS:
        row = rf"^{re.escape(method.label)} +{method.settings['lr']:g} +[\d.]+ +[\d.]+%( +[\d.]+){{3}}$"
        assert re.search(row, shown, re.MULTILINE), method.label
    picture = tmp_path / "new" / "fastopt-digits.png"
    assert f"Losses: {picture}" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
