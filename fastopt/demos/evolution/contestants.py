"""The methods that evolve a policy, and their settings."""

from __future__ import annotations

from fastopt import SGD, Adagrad, Adam, Lion, RMSprop
from fastopt.demos.methods import Method

METHODS = (
    Method("SGD", SGD, {"lr": 0.1}),
    Method("SGD, momentum", SGD, {"lr": 0.05, "momentum": 0.9}),
    Method("Adagrad", Adagrad, {"lr": 0.3}),
    Method("RMSprop", RMSprop, {"lr": 0.05}),
    Method("Adam", Adam, {"lr": 0.1}),
    Method("Lion", Lion, {"lr": 0.05}),
)
