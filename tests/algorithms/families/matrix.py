"""Methods that treat a matrix as one."""

import numpy as np
from hypothesis import strategies as st

import fastopt
from tests import reference
from tests.algorithms.case import Case

MUON = {"lr": 0.5, "weight_decay": 0.07, "momentum": 0.8}
ADAMW = {"lr": 0.02, "betas": (0.8, 0.95), "adamw_eps": 1e-2, "weight_decay": 0.07, "adamw_lr_ratio": 0.7}
ADAFACTOR = {"lr": 0.5, "beta2_decay": -0.7, "eps": (0.3, 5.0), "d": 1.1, "weight_decay": 0.07}
SOAP = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.5, "weight_decay": 0.07}
ADAM = {**SOAP, "eps": 1e-2, "max_precond_dim": 0}
TURNING = {"shampoo_beta": 0.9, "precondition_frequency": 3}


def apart(rng, shape, dtype):
    """Return a matrix whose singular values are far apart, and stay so in an average of several."""
    return np.asarray(np.eye(*shape) * np.arange(2.0, shape[1] + 2) + 0.5 * rng.standard_normal(shape), dtype)


FIRST = dict.fromkeys(("test_descends", "test_maximize_ascends"), "the first gradient is no step")
EIGENVECTORS = dict.fromkeys(
    ("test_agrees_with_the_reference", "test_missing_gradients", "test_extreme_gradients_in_float32"),
    "eigenvectors of nearly equal eigenvalues are not determined: see test_soap.py",
)
ROTATED = {"axes": 2, "longest": 4, "gradients": apart, "lasting": ("Q_left", "Q_right")}

f, ref = fastopt, reference
CASES = [
    Case("muon", f.Muon, {**MUON, "nesterov": True}, ref.muon, axes=2),
    Case("muon_plain", f.Muon, {**MUON, "nesterov": False, "eps": 30.0}, ref.muon, axes=2),
    Case(
        "muon_matched", f.Muon,
        {**MUON, "match_rms_adamw": True, "ns_coefficients": (3.0, -3.2, 1.2), "ns_steps": 4}, ref.muon, axes=2,
    ),
    Case("muon_adamw", f.Muon, {**ADAMW, "use_muon": False}, ref.muon),
    Case("adafactor", f.Adafactor, ADAFACTOR, ref.adafactor, axes=2, lasting=("row_var", "col_var")),
    Case(
        "adafactor_vector", f.Adafactor, {**ADAFACTOR, "beta2_decay": -1.5}, ref.adafactor, lasting=("variance",),
    ),
    Case(
        "adafactor_small", f.Adafactor, {**ADAFACTOR, "beta2_decay": -1.5, "eps": (0.3, 7.0)}, ref.adafactor,
        lasting=("variance",),
    ),
    Case("soap", f.SOAP, {**SOAP, **TURNING}, ref.soap, exempt={**FIRST, **EIGENVECTORS}, **ROTATED),
    Case(
        "soap_normalized", f.SOAP, {**SOAP, **TURNING, "normalize_grads": True, "correct_bias": False}, ref.soap,
        exempt={**FIRST, **EIGENVECTORS}, **ROTATED,
    ),
    Case("soap_adam", f.SOAP, {**ADAM, "correct_bias": True}, ref.soap, exempt=FIRST),
    Case("soap_adam_raw", f.SOAP, {**ADAM, "correct_bias": False}, ref.soap, exempt=FIRST),
    Case("soap_adam_normalized", f.SOAP, {**ADAM, "correct_bias": True, "normalize_grads": True}, ref.soap, exempt=FIRST),
    Case(
        "soap_adam_raw_normalized", f.SOAP, {**ADAM, "correct_bias": False, "normalize_grads": True}, ref.soap,
        exempt=FIRST,
    ),
]  # fmt: skip

#: Mistakes that people make: case, what, and the text of the rule that is replaced.
MISTAKES = [
    ("muon", "no look ahead", "return momentum * momentum_buffer + rest * g,", "return momentum_buffer,"),
    ("muon", "looks ahead undamped", "return momentum * momentum_buffer + rest * g,", "return momentum * momentum_buffer + g,"),
    ("muon", "scaled when wide", "rows / columns)", "columns / rows)"),
    ("muon", "no root", "math.sqrt(max(1.0,", "(max(1.0,"),
    ("muon", "decay scaled too", "lr * scale, lr * weight_decay", "lr * scale, lr * scale * weight_decay"),
    ("muon", "an iteration too few", "range(steps)", "range(steps - 1)"),
    ("muon", "no square", "np.matmul(gram, gram.T, out=square)", "np.copyto(square, gram)"),
    ("muon", "not normalized", "    divide(x,", "    (x,"),
    ("muon", "squared norm", "max(workspace.norm(x),", "max(workspace.norm(x) ** 2,"),
    ("muon", "not of p", "MOVE, p, direction", "MOVE, g, direction"),
    ("muon_plain", "eps added", "max(workspace.norm(x), eps, 1e-307)", "workspace.norm(x) + eps"),
    ("muon_plain", "undamped", "+ rest * g\n    return momentum_buffer,", "+ g\n    return momentum_buffer,"),
    ("muon_matched", "the other side", "max(shape)", "min(shape)"),
    ("muon_matched", "coefficients swapped", "a, b, c = coefficients", "a, c, b = coefficients"),
    ("muon_adamw", "learning rate of the matrices", "lr * adamw_lr_ratio", "lr"),
    ("adafactor", "not divided by the mean", "(eps1 if mean < eps1 else mean) / variance", "1.0 / variance"),
    ("adafactor", "no root", "math.sqrt(1.0 / variance)", "(1.0 / variance)"),
    ("adafactor", "sums", "keep * variance + share * mean", "variance + share * mean"),
    ("adafactor", "no limit of the factors", "1.0 / eps1 if eps1 else math.inf", "math.inf"),
    ("adafactor", "norm, not root mean square", "max(eps2, norm / root)", "max(eps2, norm)"),
    ("adafactor", "shares swapped", "step**beta2_decay, eps, d", "1.0 - step**beta2_decay, eps, d"),
    ("adafactor", "no limit of the rate", "return min(lr, 1.0 / math.sqrt(step)),", "return lr,"),
    ("adafactor", "never clipped", "max(1.0, update_norm / (root * d))", "1.0"),
    ("adafactor", "always clipped", "max(1.0, update_norm / (root * d))", "update_norm / (root * d)"),
    ("adafactor", "decay without lr", "d, lr * weight_decay", "d, weight_decay"),
    ("adafactor_vector", "eps added", "/ max(math.sqrt(variance), eps1)", "/ (math.sqrt(variance) + eps1)"),
    ("adafactor_vector", "sum", "math.sqrt(update_sq / size)", "math.sqrt(update_sq)"),
    ("adafactor_vector", "never clipped", "max(1.0, math.sqrt(update_sq / size) / d)", "1.0"),
    ("adafactor_vector", "no limit of the rate", "min(lr, 1.0 / math.sqrt(step))", "lr"),
    ("adafactor_vector", "shares swapped", "1.0 - share, share", "share, 1.0 - share"),
    ("adafactor_vector", "decay without lr", "lr * weight_decay", "weight_decay"),
    ("soap", "rotated back first", "product(None if left is None else left.T, g, right,", "product(left, g, right,"),
    ("soap", "not rotated back", "product(left, found, None if right is None else right.T,", "product(None, found, right.T,"),
    ("soap", "momentum not turned", "exp_avg[...], exp_avg_sq[...] = turned.T @ exp_avg,", "exp_avg[...], exp_avg_sq[...] = exp_avg,"),
    ("soap", "momentum turned back", "exp_avg @ turned", "exp_avg @ turned.T"),
    ("soap", "turned a step early", "(step - 1) % precondition_frequency", "step % precondition_frequency"),
    ("soap", "the first gradient is a step", "1.0 if step > 1 else 0.0, rate(", "1.0, rate("),
    ("soap", "counts the first gradient", "max(step - 1.0, 1.0)", "step"),
    ("soap", "shares swapped", "share = 1.0 - (", "share = ("),
    ("soap", "no power iteration", "np.linalg.qr(power[:, order])", "np.linalg.qr(basis[:, order])"),
    ("soap", "eps inside", "return exp_avg / (math.sqrt(exp_avg_sq) + eps), exp_avg", "return exp_avg / math.sqrt(exp_avg_sq + eps), exp_avg"),
    ("soap", "decay before the step", "    step = step_size * g\n    return p - (step + decay * (p - step))", "    return p - (step_size * g + decay * p)"),
    ("soap_normalized", "norm for root mean square", "/ math.sqrt(step.size)", ""),
    ("soap_normalized", "bias corrected", "if correct_bias else lr", ""),
    ("soap_adam", "the first gradient counts", "g = used * g", "g = g"),
    ("soap_adam", "decay of the first", "used * lr * weight_decay", "lr * weight_decay"),
    ("soap_adam", "eps corrected", "(math.sqrt(exp_avg_sq) + eps)", "(math.sqrt(exp_avg_sq) + eps * step_size)"),
    ("soap_adam", "decay before the step", "decay * (p - step)", "decay * p"),
    ("soap_adam_normalized", "norm for root mean square", "update_sq / size", "update_sq"),
    ("soap_adam_normalized", "not normalized", "/ (1e-30 + math.sqrt(update_sq / size))", ""),
]  # fmt: skip

#: What hypothesis draws hyperparameters from that have names of their own.
RANGES = {
    "adamw_lr_ratio": st.floats(0.1, 10.0),
    "adamw_eps": st.floats(1e-3, 1.0),
    "beta2_decay": st.floats(-2.0, 0.0),
    "d": st.floats(1.0, 3.0),
}

#: Changes that make no difference: (module.function, old, new).
EQUIVALENT: set[tuple[str, str, str]] = set()
