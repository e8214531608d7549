import math
import re

import numpy as np
import pytest

from fastopt.__main__ import main
from fastopt.demos.methods import settled
from fastopt.demos.regression.contestants import METHODS, TEXTBOOK
from fastopt.demos.regression.fitting import fit, least_squares, make_points, mean_squared_error

POINTS = make_points(seed=0)


def textbook_adam(x, y, lr, epochs):
    """Return slope and intercept, at zero and after each epoch, as a textbook's loop computes them."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    slope = intercept = 0.0
    m_slope = v_slope = m_intercept = v_intercept = 0.0
    path = [(slope, intercept)]
    for t in range(1, epochs + 1):
        predicted = slope * x + intercept
        d_slope = -2.0 / len(x) * np.sum(x * (y - predicted))
        d_intercept = -2.0 / len(x) * np.sum(y - predicted)
        m_slope = beta1 * m_slope + (1 - beta1) * d_slope
        v_slope = beta2 * v_slope + (1 - beta2) * d_slope**2
        slope -= lr * (m_slope / (1 - beta1**t)) / (math.sqrt(v_slope / (1 - beta2**t)) + eps)
        m_intercept = beta1 * m_intercept + (1 - beta1) * d_intercept
        v_intercept = beta2 * v_intercept + (1 - beta2) * d_intercept**2
        intercept -= lr * (m_intercept / (1 - beta1**t)) / (math.sqrt(v_intercept / (1 - beta2**t)) + eps)
        path.append((slope, intercept))
    return np.array(path)


@pytest.mark.parametrize(("dtype", "eps"), [(np.float64, 4), (np.float32, 32)])
def test_adam_is_the_textbook_s_at_every_epoch(dtype, eps):
    path = fit(TEXTBOOK, POINTS, 1000, dtype).path
    expected = textbook_adam(POINTS.x, POINTS.y, lr=0.001, epochs=1000)
    assert path.dtype == dtype
    assert path.shape == expected.shape == (1001, 2)
    np.testing.assert_allclose(path, expected, rtol=0, atol=eps * np.finfo(dtype).eps)


def test_the_textbook_s_loop_stops_on_its_way():
    path, losses = fit(TEXTBOOK, POINTS, 1000)
    assert path[-1, 0] <= 1.0  # 1000 steps of at most about 0.001, and the slope is 2.5
    assert (np.diff(losses) < 0.0).all()
    assert losses[-1] > 10.0 * mean_squared_error(POINTS, *least_squares(POINTS))


def test_least_squares_is_the_formula_of_the_books():
    slope = np.cov(POINTS.x, POINTS.y)[0, 1] / POINTS.x.var(ddof=1)
    assert least_squares(POINTS) == pytest.approx(
        (slope, POINTS.y.mean() - slope * POINTS.x.mean()), rel=1e-12
    )
    assert slope == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: method.label)
def test_every_other_method_finds_the_line(method):
    path, losses = fit(method, POINTS, 1000)
    best = least_squares(POINTS)
    # AdamW decays the line towards zero, and RMSprop's last steps are as long as its lr.
    allowed = {"AdamW": 0.01, "RMSprop": 0.01}.get(method.label, 1e-5)
    assert path[-1] == pytest.approx(best, abs=allowed)
    assert settled(losses, 1.01 * mean_squared_error(POINTS, *best)) is not None


def test_float64_by_default_and_losses_of_the_path():
    path, losses = fit(METHODS[1], POINTS, 3)
    assert path.dtype == np.float64
    assert losses == pytest.approx([mean_squared_error(POINTS, *line) for line in path], rel=1e-14)


def test_the_demo(tmp_path, capsys):
    for package in ("matplotlib", "tqdm"):
        pytest.importorskip(package)
    assert main(["demo", "regression", "--epochs", "150", "--seed", "3", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^(\d+) +\d+\.\d{4} ", shown, re.MULTILINE) == ["0", "100", "150"]
    for method in METHODS:
        row = rf"^{re.escape(method.label)} +{method.settings['lr']:g}( +-?\d+\.\d+){{3}} +(> 150|\d+)$"
        assert re.search(row, shown, re.MULTILINE), method.label
    assert re.search(r"^least squares +2\.\d+ +-?0\.\d+ +0\.\d+$", shown, re.MULTILINE)
    assert (tmp_path / "fastopt-regression.png").read_bytes().startswith(b"\x89PNG")
