"""Arrays of another library on a CUDA device."""

import numpy as np

from fastopt.engine import device


class Foreign:
    """Memory on the device, shown by ``__cuda_array_interface__``; ``changed`` is what that says otherwise."""

    def __init__(self, values, **changed):
        self.memory, self.changed = device.asarray(values), changed
        self.asked = 0

    @property
    def __cuda_array_interface__(self):
        self.asked += 1
        return {**self.memory.__cuda_array_interface__, "stream": None, **self.changed}

    def get(self):
        return self.memory.copy_to_host()

    def set(self, values):
        self.memory.copy_to_device(values)


def foreign(tree):
    """Return a tree of arrays as one on the device."""
    if isinstance(tree, dict):
        return {key: foreign(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [foreign(value) for value in tree]
    return None if tree is None else Foreign(tree)


def host(tree):
    """Return a tree of arrays as one of copies in the memory of the CPU."""
    if isinstance(tree, dict):
        return {key: host(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [host(value) for value in tree]
    if isinstance(tree, Foreign):
        return tree.get()
    return tree if tree is None else np.array(tree)


def assert_equal(one, other):
    """Compare trees of arrays bit for bit, wherever they are."""
    one, other = host(one), host(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif one is None or other is None:
        assert one is other
    else:
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes(), f"{one} != {other}"
