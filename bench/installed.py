"""How large an installation is: a package and all that it needs, in bytes on the disk."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import _measure
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = _measure.BENCH.parent


def sizes(name: str) -> dict[str, int]:
    """Return the bytes of a package and of each that it needs, without ``.pyc``: those come and go.

    What is needed on other systems, or for extras that nothing asks for, is left out, and so is what is not
    installed. fastopt is the checkout around this file, as everywhere here.
    """
    found: dict[str, int] = {}
    waiting = [Requirement(name)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = str(canonicalize_name(requirement.name))
        if (key, frozenset(requirement.extras)) in seen:
            continue
        seen.add((key, frozenset(requirement.extras)))
        try:
            found[key], needed = _package(key)
        except PackageNotFoundError:
            continue
        for each in map(Requirement, needed):
            contexts = [{"extra": extra} for extra in ("", *requirement.extras)]
            if each.marker is None or any(each.marker.evaluate(context) for context in contexts):
                waiting.append(each)
    return found


def _package(name: str) -> tuple[int, list[str]]:
    """Return the bytes of a package, and what it says that it needs."""
    if name == "fastopt":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        files = (ROOT / "fastopt").rglob("*")  # where Numba's cache is, too
        return _bytes([path for path in files if "__pycache__" not in path.parts]), project["dependencies"]
    package = distribution(name)
    return _bytes([Path(str(file.locate())) for file in package.files or []]), package.requires or []


def _bytes(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc" and path.is_file())
