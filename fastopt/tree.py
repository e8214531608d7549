"""Nested dicts, lists and tuples of arrays: their structure, apart from their leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Tree:
    """The structure of a nested container, and the names of its leaves.

    Parameters
    ----------
    example : array, or dict, list or tuple, nested
        The container whose structure is taken. Whatever is no container is a leaf.

    Attributes
    ----------
    names : list of str
        The way to each leaf, as Python would spell it: ``"['layer1']['w']"``; empty for a sole leaf.
    paths : list of str
        The same with dots: ``"layer1.w"``, ``"layers.0.w"``.

    Examples
    --------
    >>> tree = Tree({"w": 1, "layers": [2, 3]})
    >>> tree.names
    ["['w']", "['layers'][0]", "['layers'][1]"]
    >>> tree.paths
    ['w', 'layers.0', 'layers.1']
    >>> tree.leaves({"layers": (20, 30), "w": 10}, "grads")
    [10, 20, 30]
    >>> tree.build([10, 20, 30])
    {'w': 10, 'layers': [20, 30]}
    """

    def __init__(self, example: Any) -> None:
        keys = list(_walk(example, ()))
        self.names = ["".join(f"[{key!r}]" for key in way) for way in keys]
        self.paths = [".".join(map(str, way)) for way in keys]
        self._shape = _shape(example)

    def leaves(self, container: Any, name: str) -> list[Any]:
        """Return the leaves of a container that has this structure, in its order.

        Dict keys may come in any order, and a list may stand where a tuple does. What is in the place
        of a leaf is returned as it is: the caller checks the leaves.

        Raises
        ------
        TypeError, ValueError
            If the structure differs; the message says where, starting at ``name``.
        """
        found: list[Any] = []
        _collect(self._shape, container, name, found)
        return found

    def build(self, leaves: list[Any]) -> Any:
        """Return a container of this structure that holds ``leaves``."""
        if len(leaves) != len(self.names):
            raise ValueError(f"expected {len(self.names)} leaves, got {len(leaves)}")
        return _build(self._shape, iter(leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self._shape == other._shape

    __hash__ = None  # type: ignore[assignment]


# A structure is None (a leaf), or a triple: the container's type, its keys, its children's structures.


def _children(node: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(node, Mapping):
        return list(node.items())
    if isinstance(node, list | tuple):
        return list(enumerate(node))
    return None


def _walk(node: Any, way: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the keys on the way to each leaf."""
    children = _children(node)
    if children is None:
        yield way
    else:
        for key, child in children:
            yield from _walk(child, (*way, key))


def leaves_in(node: Any) -> Iterator[Any]:
    """Yield the leaves of any container."""
    children = _children(node)
    if children is None:
        yield node
    else:
        for _, child in children:
            yield from leaves_in(child)


def _shape(node: Any) -> Any:
    children = _children(node)
    if children is None:
        return None
    return type(node), [key for key, _ in children], [_shape(child) for _, child in children]


def _collect(shape: Any, node: Any, name: str, found: list[Any]) -> None:
    if shape is None:
        found.append(node)
        return
    kind, keys, shapes = shape
    if issubclass(kind, Mapping):
        if not isinstance(node, Mapping):
            raise TypeError(f"{name} must be a dict with the keys {keys}, got {describe(node)}")
        if node.keys() != set(keys):
            raise ValueError(f"{name} must have the keys {keys}, got {list(node)}")
        children = [node[key] for key in keys]
    else:
        if not isinstance(node, list | tuple):
            raise TypeError(f"{name} must be a list or tuple of {len(keys)}, got {describe(node)}")
        if len(node) != len(keys):
            raise ValueError(f"{name} must have {len(keys)} items, got {len(node)}")
        children = list(node)
    if shapes.count(None) == len(shapes):
        found += children  # the usual case, without a call for each
        return
    for key, child, inner in zip(keys, children, shapes, strict=True):
        _collect(inner, child, f"{name}[{key!r}]", found)


def describe(node: Any) -> str:
    """Return what kind of object something is, for an error's text."""
    name = type(node).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if name != "NoneType" else "None"


def plural(number: int, noun: str) -> str:
    """Return a number and what it counts: "1 array", "2 arrays"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _build(shape: Any, leaves: Iterator[Any]) -> Any:
    if shape is None:
        return next(leaves)
    kind, keys, shapes = shape
    values = [_build(child, leaves) for child in shapes]
    if issubclass(kind, Mapping):
        return dict(zip(keys, values, strict=True))
    if hasattr(kind, "_make"):  # a namedtuple
        return kind._make(values)
    return tuple(values) if issubclass(kind, tuple) else values
