"""Runs code in processes of its own, for what may kill one or needs a fresh one."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(cache: Path, **extra: str) -> dict[str, str]:
    """Return this process's environment with a cache folder of its own and no settings of fastopt's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FASTOPT_", "NUMBA_CACHE"))}
    return {**kept, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), **extra}


def start(code: str, cache: Path, *args: str, **extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *args]
    env = environment(cache, **extra)
    return subprocess.Popen(
        command, env=env, cwd=cache, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(code: str, cache: Path, *args: str, **extra: str) -> str:
    """Run Python code in a new process; return what it printed. Fails if it dies or writes to stderr."""
    process = start(code, cache, *args, **extra)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{err}"
    assert err == ""
    return out.strip()
