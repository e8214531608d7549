from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastopt.tree import Tree

trees = st.recursive(
    st.integers(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


@given(trees)
def test_build_is_the_inverse_of_leaves(container):
    tree = Tree(container)
    leaves = tree.leaves(container, "x")
    assert len(leaves) == len(tree.names)
    assert tree.build(leaves) == container
    for name, leaf in zip(tree.names, leaves, strict=True):
        assert eval(f"x{name}", {"x": container}) == leaf  # a name is the way to its leaf


def test_containers():
    Layer = namedtuple("Layer", "w b")
    built = Tree(OrderedDict(a=Layer(1, 2), c=[3])).build([10, 20, 30])
    assert built == {"a": Layer(10, 20), "c": [30]}
    assert type(built["a"]) is Layer


def test_paths_are_the_keys_with_dots_between():
    tree = Tree({"layer1": {"w": 1}, "layers": [(2, 3), {"b": 4}], 5: {"a.b": 6}})
    assert tree.paths == ["layer1.w", "layers.0.0", "layers.0.1", "layers.1.b", "5.a.b"]
    assert Tree(1).paths == [""]


def test_keys_may_come_in_any_order_and_lists_be_tuples():
    assert Tree({"a": 1, "b": [2, 3]}).leaves({"b": (20, 30), "a": 10}, "x") == [10, 20, 30]


@pytest.mark.parametrize(
    ("container", "error", "message"),
    [
        ([1], TypeError, "grads must be a dict with the keys ['a', 'b'], got a list"),
        (None, TypeError, "grads must be a dict with the keys ['a', 'b'], got None"),
        ({"a": 1}, ValueError, "grads must have the keys ['a', 'b'], got ['a']"),
        ({"a": 1, "c": 1}, ValueError, "grads must have the keys ['a', 'b'], got ['a', 'c']"),
        ({"a": 1, "b": 2}, TypeError, "grads['b'] must be a list or tuple of 2, got an int"),
        ({"a": 1, "b": [2]}, ValueError, "grads['b'] must have 2 items, got 1"),
        ({"a": 1, "b": [2, 3]}, TypeError, "grads['b'][1] must be a list or tuple of 1, got an int"),
    ],
)
def test_errors(container, error, message):
    with pytest.raises(error) as caught:
        Tree({"a": 1, "b": [2, (3,)]}).leaves(container, "grads")
    assert str(caught.value) == message


def test_build_wants_all_leaves():
    with pytest.raises(ValueError, match="expected 2 leaves, got 1"):
        Tree([1, 2]).build([1])
