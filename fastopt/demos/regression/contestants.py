"""The methods that fit a line, and their settings."""

from __future__ import annotations

from fastopt import NAG, SGD, Adadelta, Adagrad, Adam, AdamW, Momentum, RMSprop
from fastopt.demos.methods import Method

TEXTBOOK = Method("Adam, the textbook's lr", Adam, {"lr": 0.001})

METHODS = (
    TEXTBOOK,
    Method("SGD", SGD, {"lr": 0.1}),
    Method("Momentum", Momentum, {"lr": 0.02, "momentum": 0.9}),
    Method("NAG", NAG, {"lr": 0.02, "momentum": 0.9}),
    Method("Adagrad", Adagrad, {"lr": 0.5}),
    Method("Adadelta", Adadelta, {"lr": 1.0}),
    Method("RMSprop", RMSprop, {"lr": 0.01, "alpha": 0.9}),
    Method("Adam", Adam, {"lr": 0.05}),
    Method("AdamW", AdamW, {"lr": 0.05, "weight_decay": 0.01}),
)
