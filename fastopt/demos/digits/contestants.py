"""The methods that learn the digits, in families of at most five, and their settings."""

from __future__ import annotations

from fastopt import NAG, SGD, Adadelta, Adagrad, Adam, AdamW, Momentum, RMSprop
from fastopt.demos.methods import Method

#: Learning rates that train well, in round numbers. Those with momentum have one rate, to be compared.
FAMILIES: dict[str, tuple[Method, ...]] = {
    "Gradient descent, momentum": (
        Method("SGD", SGD, {"lr": 0.5}),
        Method("SGD, momentum", SGD, {"lr": 0.05, "momentum": 0.9}),
        Method("Momentum", Momentum, {"lr": 0.05, "momentum": 0.9}),
        Method("SGD, nesterov", SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
        Method("NAG", NAG, {"lr": 0.05, "momentum": 0.9}),
    ),
    "A rate for each parameter": (
        Method("Adagrad", Adagrad, {"lr": 0.05}),
        Method("Adadelta", Adadelta, {"lr": 1.0}),
        Method("RMSprop", RMSprop, {"lr": 0.001}),
        Method("RMSprop, centered, momentum", RMSprop, {"lr": 0.0003, "momentum": 0.9, "centered": True}),
    ),
    "Adam": (
        Method("Adam", Adam, {"lr": 0.002}),
        Method("Adam, amsgrad", Adam, {"lr": 0.002, "amsgrad": True}),
        Method("AdamW", AdamW, {"lr": 0.002, "weight_decay": 0.01}),
    ),
}

METHODS = tuple(method for family in FAMILIES.values() for method in family)
