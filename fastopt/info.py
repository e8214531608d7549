"""The command ``info``: what a bug report must say of the machine and of what is installed."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastopt import engine, machine
from fastopt._version import __version__
from fastopt.engine import cuda as gpu
from fastopt.engine.threads import cutoff_bytes

#: What each extra of the package installs for its users.
EXTRAS = {
    "bfloat16": ("ml_dtypes",),
    "cuda": ("numba-cuda",),
    "demo": ("matplotlib", "scikit-learn", "tqdm"),
    "safetensors": ("safetensors",),
    "sklearn": ("scikit-learn",),
    "thinc": ("thinc",),
    "torch": ("torch",),
}

#: Settings that change what is compiled, where it is kept, or who has how many threads.
PREFIXES = ("FASTOPT_", "NUMBA_", "CUDA_", "OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_", "VECLIB_")

_WIDTH = 12


def versions(packages: Iterable[str] = ("numpy", "numba", "llvmlite")) -> dict[str, str]:
    """Return the versions of Python, of fastopt, and of those packages that are installed.

    Nothing is imported for it.

    Examples
    --------
    >>> from fastopt.info import versions
    >>> list(versions(["numpy", "no-such-package"]))
    ['python', 'fastopt', 'numpy']
    """
    found = {"python": platform.python_version(), "fastopt": __version__}
    for package in packages:
        version = _version(package)
        if version is not None:
            found[package] = version
    return found


def describe(packages: Iterable[str] = ("numpy", "numba", "llvmlite")) -> dict[str, Any]:
    """Return the date, the machine and the versions: without them a time means nothing.

    Parameters
    ----------
    packages : iterable of str
        Whose versions.

    Returns
    -------
    dict
        With "date", "machine" and "versions"; of numbers, strings and lists, as JSON has them.

    Examples
    --------
    >>> from fastopt.info import describe
    >>> about = describe()
    >>> list(about), about["machine"]["cores"] >= 1
    (['date', 'machine', 'versions'], True)
    """
    total = machine.total_bytes()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": machine.cpu(),
            "cores": machine.cores(),
            "caches": list(map(str, machine.caches())),
            "memory_gib": None if total is None else round(total / 2**30, 1),
            "os": platform.platform(),
            "load_before": machine.load(),
        },
        "versions": versions(packages),
    }


def everything() -> dict[str, Any]:
    """Return all that the command shows, as JSON has it."""
    about = describe()
    free = machine.free_bytes()
    about["machine"] |= {
        "vectors": machine.vectors(),
        "processors": os.cpu_count(),
        "free_gib": None if free is None else round(free / 2**30, 1),
        "python": f"{platform.python_implementation()}, {8 * struct.calcsize('P')} bit, {sys.executable}",
    }
    return {
        **about,
        "installed": {"folder": str(Path(__file__).parent), "blas": _blas()},
        "threads": threads(),
        "cache": cache(),
        "extras": {
            extra: {package: _version(package) for package in packages} for extra, packages in EXTRAS.items()
        },
        "gpus": machine.gpus(),
        "cuda": cuda(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES)
        },
    }


def threads() -> dict[str, Any]:
    """Return how many threads a step may use, and from which size on; or what is wrong with the settings."""
    try:
        return {"most": engine.available_threads(), "cutoff_bytes": cutoff_bytes(), "error": None}
    except ValueError as error:
        return {"most": None, "cutoff_bytes": cutoff_bytes(), "error": str(error)}


def cache() -> dict[str, Any]:
    """Return where Numba keeps the compiled kernels, by its own rules, and how much is there.

    That is ``NUMBA_CACHE_DIR`` if it is set; else beside the engine's files; else, where those are
    read-only, a folder of the user's. With ``FASTOPT_CACHE=0`` there is none.
    """
    if os.environ.get("FASTOPT_CACHE", "1") == "0":
        return {"folder": None, "writable": False, "files": 0, "mib": 0.0}
    given = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(engine.__file__).parent / "__pycache__"
    folder = Path(given) if given else beside if _is_writable(beside) else _users_cache()
    found = [file for file in folder.rglob("*") if _is_kernel(file)] if folder.is_dir() else []
    size = 0
    for file in found:
        try:
            size += file.stat().st_size
        except OSError:  # rewritten meanwhile
            continue
    return {
        "folder": str(folder),
        "writable": _is_writable(folder),
        "files": len(found),
        "mib": round(size / 2**20, 1),
    }


def cuda() -> dict[str, Any]:
    """Return what compiles for CUDA devices, and which of these it finds, or why it finds none."""
    found: dict[str, Any] = {"package": None, "version": None, "devices": [], "error": None}
    try:
        found["package"] = gpu.distribution()
        if found["package"] is not None:
            found["version"] = _version(found["package"])
            found["devices"] = [
                {"name": name, "compute_capability": ".".join(map(str, capability))}
                for name, capability in gpu.devices()
            ]
    except Exception as error:  # drivers and packages that do not fit each other raise what they like
        found["error"] = str(error) or type(error).__name__
    return found


def text(about: dict[str, Any]) -> str:
    """Return what :func:`everything` found, as the command shows it."""
    of, kept, limits = about["machine"], about["cache"], about["threads"]
    lines = [
        ("versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items())),
        ("python", of["python"]),
        ("installed in", about["installed"]["folder"]),
        ("BLAS", about["installed"]["blas"] or "unknown"),
        ("system", of["os"]),
        ("CPU", of["cpu"] + (f", {of['vectors']}" if of["vectors"] else "")),
        ("caches", ", ".join(of["caches"]) or "unknown"),
        ("cores", f"{of['cores']} for this process, {of['processors']} in all"),
        ("memory", _memory_text(of["memory_gib"], of["free_gib"])),
        ("load", "unknown" if of["load_before"] is None else f"{of['load_before']} in the last minute"),
        ("threads", _threads_text(limits)),
        ("cache", _cache_text(kept)),
    ]
    for number, (extra, packages) in enumerate(about["extras"].items()):
        have = ", ".join(f"{name} {version or '(missing)'}" for name, version in packages.items())
        missing = None in packages.values()
        hint = f': pip install "fastopt[{extra}]"' if missing else ""
        lines.append(("extras" if number == 0 else "", f"[{extra}] {have}{hint}"))
    lines += [("GPU", "; ".join(about["gpus"]) or "none found"), ("CUDA", _cuda_text(about["cuda"]))]
    settings = [f"{name}={value}" for name, value in about["environment"].items()]
    lines += [("environment" if i == 0 else "", each) for i, each in enumerate(settings or ["nothing set"])]
    return "\n".join(f"{name:{_WIDTH}}  {value}" for name, value in lines)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    parser = commands.add_parser(
        "info",
        help="what a bug report needs: versions, processor, threads, cache, extras, settings",
        description="Shows versions, the processor and its caches, how many threads a step may use and "
        "from which size on, where compiled kernels are kept, which extras and GPUs are there, and the "
        "environment variables that matter. Put it into bug reports.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found; return the exit status."""
    about = everything()
    print(json.dumps(about, indent=1) if args.json else text(about))
    return 0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _blas() -> str | None:
    """Return the name and version of NumPy's BLAS, whose threads compete with ours."""
    try:
        built = np.show_config(mode="dicts")
        blas = built["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (KeyError, TypeError):
        return None


def _is_kernel(file: Path) -> bool:
    """Tell whether a file is Numba's, and of the engine: in ``NUMBA_CACHE_DIR`` there may be others'."""
    return file.suffix in (".nbi", ".nbc") and file.name.startswith("kernel.")


def _is_writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, which may itself have to be made."""
    for each in (folder, *folder.parents):
        if each.exists():
            return each.is_dir() and os.access(each, os.W_OK | os.X_OK)
    return False


def _users_cache() -> Path:
    """Return the folder of the user's where Numba keeps what it cannot keep beside a file."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "numba" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/numba"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "numba"


def _threads_text(found: dict[str, Any]) -> str:
    if found["error"]:
        return f"none: {found['error']}"
    most, cutoff = found["most"], found["cutoff_bytes"]
    if most == 1:
        return "1 for each step"
    return f"up to {most} for steps over more than {cutoff / 2**20:.3g} MiB, 1 for others"


def _cache_text(found: dict[str, Any]) -> str:
    if found["folder"] is None:
        return "none (FASTOPT_CACHE=0)"
    state = "writable" if found["writable"] else "not writable: each process compiles for itself"
    return f"{found['folder']} ({state}; {found['files']} files, {found['mib']} MiB)"


def _cuda_text(found: dict[str, Any]) -> str:
    each = "{name} (compute capability {compute_capability})"
    devices = [each.format(**device) for device in found["devices"]]
    package = (
        f"{found['package']} {found['version']}" if found["package"] else "no package that compiles for it"
    )
    reason = f"no device can be used: {found['error']}" if found["error"] else "no device"
    return f"{package}; {'; '.join(devices) or reason}"


def _memory_text(total: float | None, free: float | None) -> str:
    text = "unknown" if total is None else f"{total} GiB"
    return text if free is None else f"{text}, {free} GiB of it free"
