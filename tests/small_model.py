"""A small model of arrays in a tree, for tests of what is said of single arrays by their names."""

import numpy as np

from tests.algorithms.cases import draw

SHAPES = {"embedding": {"w": (5, 2)}, "layers": [{"w": (2, 3), "b": (3,)}], "head": {"w": (3, 2), "b": (2,)}}
NAMES = ["embedding.w", "layers.0.w", "layers.0.b", "head.w", "head.b"]


def fill(rng, shapes, dtype):
    if isinstance(shapes, dict):
        return {key: fill(rng, inner, dtype) for key, inner in shapes.items()}
    if isinstance(shapes, list):
        return [fill(rng, inner, dtype) for inner in shapes]
    return draw(rng, shapes, dtype)


def model(dtype=np.float32, seed=0):
    return fill(np.random.default_rng(seed), SHAPES, dtype)


def flat(tree):
    """Return the arrays of a model, in the order of the names."""
    return [tree["embedding"]["w"], *tree["layers"][0].values(), *tree["head"].values()]


def small(name, array):
    return array.ndim < 2


def large(name, array):
    return array.size > 5 and name != "embedding.w"


def falling(count):
    return 0.1 / (1 + count)


def launches(opt):
    return opt._arrangement.launches


def set_gradients(pack, grads):
    """Write the gradients of a model to those of its pack."""
    for view, grad in zip(flat(pack.grads), flat(grads), strict=True):
        view[...] = grad
