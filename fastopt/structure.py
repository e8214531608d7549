"""Nested dicts and lists of numbers and arrays as a text and a flat dict of arrays, and back, exactly."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

#: The version of the text's form, which is not that of what it holds.
FORMAT = 1

#: The dtypes that every format can hold.
DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
)

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(content: Mapping[str, Any]) -> tuple[str, dict[str, NDArray[Any]]]:
    """Return nested dicts as JSON, and the arrays in them by name.

    JSON knows no tuples, no NumPy scalars, no NaN and no infinity. They, and the arrays, are dicts whose
    first key starts with a dollar sign.

    Parameters
    ----------
    content : dict
        Dicts with keys that are strings, lists, tuples, strings, numbers, None, and arrays of numbers.

    Returns
    -------
    text : str
        Strict JSON, in ASCII.
    arrays : dict of str to ndarray
        The arrays, in C order: those that are so already are not copied.

    Raises
    ------
    TypeError
        If it holds anything else; the message says where.

    Examples
    --------
    >>> import numpy as np
    >>> text, arrays = encode({"eps": 1e-8, "betas": (0.9, float("inf")), "w": np.zeros(2)})
    >>> arrays
    {'w': array([0., 0.])}
    >>> decode(text, arrays.__getitem__)
    {'eps': 1e-08, 'betas': (0.9, inf), 'w': array([0., 0.])}
    """
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps({"fastopt": FORMAT, "content": _encode(content, (), arrays)}, allow_nan=False)
    return text, arrays


def decode(text: str, fetch: Callable[[str], NDArray[Any]]) -> Any:
    """Return what was encoded.

    Parameters
    ----------
    text : str
        The JSON.
    fetch : callable
        Returns an array by its name. It is called once for each, in the order of :func:`encode`.

    Raises
    ------
    ValueError
        If the text is none that :func:`encode` made, or an array is not of the dtype and shape it was of.
    """
    whole = json.loads(text, parse_constant=_refuse)
    if not isinstance(whole, dict) or whole.keys() != {"fastopt", "content"}:
        raise ValueError("its text is not fastopt's")
    if whole["fastopt"] != FORMAT:
        raise ValueError(f"its format must be {FORMAT}, got {whole['fastopt']!r}")
    return _decode(whole["content"], fetch)


def _encode(node: Any, way: tuple[str | int, ...], arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(node, np.ndarray | np.generic):
        _check_dtype(node.dtype, way)
        if isinstance(node, np.generic):
            return {"$scalar": _encode(node.item(), way, arrays), "dtype": node.dtype.name}
        name = re.sub(r"[^A-Za-z0-9_.]", "_", ".".join(map(str, way)))
        while name in arrays:
            name += "_"
        arrays[name] = np.asarray(node, order="C")
        return {"$array": name, "dtype": node.dtype.name, "shape": list(node.shape)}
    if node is None or isinstance(node, bool | int | str):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else {"$float": str(node)}
    if isinstance(node, list | tuple):
        items = [_encode(item, (*way, i), arrays) for i, item in enumerate(node)]
        return {"$tuple": items} if isinstance(node, tuple) else items
    if isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(f"the keys of {_place(way)} must be strings without a leading $, got {key!r}")
        return {key: _encode(item, (*way, key), arrays) for key, item in node.items()}
    raise TypeError(
        f"{_place(way)} must be a number, a string, None, an array, or a dict, list or tuple of such; "
        f"got {type(node).__name__}"
    )


def _check_dtype(dtype: np.dtype[Any], way: tuple[str | int, ...]) -> None:
    if dtype.name not in DTYPES or not dtype.isnative:
        raise TypeError(f"{_place(way)} must be of integers, bools or floats of up to 64 bits, got {dtype}")


def _place(way: tuple[str | int, ...]) -> str:
    return "state_dict" + "".join(f"[{key!r}]" for key in way)


def _decode(node: Any, fetch: Callable[[str], NDArray[Any]]) -> Any:
    if isinstance(node, list):
        return [_decode(item, fetch) for item in node]
    if not isinstance(node, dict):
        return node
    match node:
        case {"$array": str(name), "dtype": str(dtype), "shape": list(shape), **rest} if not rest:
            array = fetch(name)
            if (array.dtype.name, list(array.shape)) != (dtype, shape):
                raise ValueError(
                    f"its array {name!r} must be of {dtype} and of shape {tuple(shape)}, "
                    f"got {array.dtype} and {array.shape}"
                )
            return array
        case {"$tuple": list(items), **rest} if not rest:
            return tuple(_decode(item, fetch) for item in items)
        case {"$float": str(name), **rest} if not rest and name in _NOT_FINITE:
            return _NOT_FINITE[name]
        case {"$scalar": value, "dtype": str(dtype), **rest} if not rest and dtype in DTYPES:
            return np.dtype(dtype).type(_decode(value, fetch))
    for key in node:
        if key.startswith("$"):
            raise ValueError(f"its text has an unknown entry {key!r}")
    return {key: _decode(item, fetch) for key, item in node.items()}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"its text has a number that is none: {constant}")
