"""The machine: its processor, caches, memory and graphics processors, as far as the system tells."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

#: The vector instructions that make a difference, the widest first, as Linux calls them.
_VECTORS = ("avx512f", "avx2", "avx", "sse2", "sve", "asimd", "neon", "v")


class Cache(NamedTuple):
    """A cache of the first processor."""

    level: int
    kind: str
    size: int

    def __str__(self) -> str:
        size = f"{self.size >> 10}K" if self.size % (1 << 20) else f"{self.size >> 20}M"
        return f"L{self.level} {self.kind} {size}"


def cpu(root: Path = ROOT) -> str:
    """Return the processor's name, with its family and model where they are known.

    Examples
    --------
    >>> from fastopt import machine
    >>> len(machine.cpu()) > 0
    True
    """
    found = _cpuinfo(root)
    name = found.get("model name") or found.get("Model") or _sysctl("machdep.cpu.brand_string")
    name = name or platform.processor() or platform.machine() or "unknown"
    if "cpu family" in found:
        name += f" (family {found['cpu family']}, model {found['model']})"
    return name


def vectors(root: Path = ROOT) -> str | None:
    """Return the widest vector instructions that the processor has."""
    found = _cpuinfo(root)
    flags = (found.get("flags") or found.get("Features") or "").split()
    return next((name for name in _VECTORS if name in flags), None)


def caches(root: Path = ROOT) -> list[Cache]:
    """Return the caches that the first processor uses, the smallest first; an empty list if none is known."""
    found = []
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            found.append(Cache(int(level), kind.lower(), int(size[:-1]) * _UNITS[size[-1]]))
        except (OSError, ValueError, KeyError, IndexError):  # virtual machines leave some of it out
            continue
    if not found:
        for number, what, name in ((1, "data", "l1d"), (2, "unified", "l2"), (3, "unified", "l3")):
            told = _sysctl(f"hw.{name}cachesize")
            if told.isdecimal() and int(told):
                found.append(Cache(number, what, int(told)))
    return found


def cores() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_bytes() -> int | None:
    """Return the size of the memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def free_bytes(root: Path = ROOT) -> int | None:
    """Return the memory that can be taken without swapping, and without passing a container's limit.

    On systems that do not tell, it is half of all.
    """
    total = total_bytes()
    free = None if total is None else total // 2
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) << 10
    except (OSError, StopIteration):
        pass
    left = _control_group_left(root)
    return left if free is None else free if left is None else min(free, left)


def load() -> float | None:
    """Return how many processes have wanted to run in the last minute, on average."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def gpus(root: Path = ROOT) -> list[str]:
    """Return NVIDIA's graphics processors: each with its memory and driver, as far as it is told.

    They are asked of ``nvidia-smi``, or read from the driver's files: no library is loaded for it.
    """
    program = shutil.which("nvidia-smi")
    if program is not None:
        told = _output(program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
        rows = [[part.strip() for part in line.split(",")] for line in told.splitlines()]
        return [f"{row[0]}, {row[1]}, driver {row[2]}" for row in rows if len(row) == 3]
    names = []
    for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return names


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return what Linux tells of the first processor."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


def _sysctl(name: str) -> str:
    """Return what macOS tells under a name; an empty string on other systems."""
    return _output("sysctl", "-n", name)


def _output(*command: str) -> str:
    """Return what a program prints; an empty string if it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _control_group_left(root: Path) -> int | None:
    """Return the memory that this process's control groups still allow, or None for any."""
    mount = root / "sys/fs/cgroup"
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    left: list[int] = []
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, names = mount, ("memory.max", "memory.current")
        if controllers:
            folder, names = mount / controllers, ("memory.limit_in_bytes", "memory.usage_in_bytes")
        own = Path(path.lstrip("/"))
        for group in (own, *own.parents):  # in a container, the path may be the host's: look above it
            try:
                limit, used = ((folder / group / name).read_text().strip() for name in names)
            except OSError:
                continue
            if limit.isdecimal():  # "max" is none
                left.append(max(0, int(limit) - int(used)))
    return min(left, default=None)
