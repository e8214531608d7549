"""The algorithms: one file each, named as users say it."""

from fastopt.algorithms.adadelta import Adadelta
from fastopt.algorithms.adagrad import Adagrad
from fastopt.algorithms.adam import Adam
from fastopt.algorithms.adamw import AdamW
from fastopt.algorithms.momentum import Momentum
from fastopt.algorithms.nag import NAG
from fastopt.algorithms.rmsprop import RMSprop
from fastopt.algorithms.sgd import SGD

__all__ = ["NAG", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Momentum", "RMSprop"]
