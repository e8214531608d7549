import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numba.misc.appdirs
import pytest

from fastopt import engine, info
from fastopt.__main__ import main
from tests.processes import ROOT


@pytest.fixture
def empty(monkeypatch):
    """Take the settings out of the environment."""
    for name in [name for name in os.environ if name.startswith(info.PREFIXES)]:
        monkeypatch.delenv(name)


def test_the_text_has_all_that_a_report_needs(capsys, monkeypatch, empty):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    monkeypatch.setenv("UNRELATED", "x")
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split("  ")[0]: line for line in lines}
    names = [
        "versions",
        "python",
        "installed in",
        "BLAS",
        "system",
        "CPU",
        "caches",
        "cores",
        "memory",
        "load",
    ]
    assert list(shown)[: len(names)] == names
    for package in ("python", "fastopt", "numpy", "numba", "llvmlite"):
        assert f"{package} {info.versions()[package]}" in shown["versions"]
    assert "threads" in shown
    assert "cache" in shown
    assert "GPU" in shown
    assert "NUMBA_NUM_THREADS=3" in shown["environment"]
    assert "UNRELATED" not in "".join(lines)


def test_the_json_is_the_same(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    keys = ["date", "machine", "versions", "installed", "threads", "cache", "extras", "gpus", "cuda"]
    assert list(found) == [*keys, "environment"]
    assert found["versions"] == info.versions()
    assert found["machine"].keys() >= info.describe()["machine"].keys()
    assert found["threads"] == info.threads()


def test_the_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, packages in info.EXTRAS.items():
        named = project["optional-dependencies"][extra]
        assert tuple(re.split(r"[>\[]", each)[0] for each in named) == packages
    developers = {"test", "bench", "parity"}
    assert info.EXTRAS.keys() == project["optional-dependencies"].keys() - developers


def test_a_missing_extra_says_how_to_get_it(monkeypatch):
    real = info._version
    monkeypatch.setattr(info, "_version", lambda package: None if package == "thinc" else real(package))
    about = info.everything()
    assert about["extras"]["thinc"] == {"thinc": None}
    assert '[thinc] thinc (missing): pip install "fastopt[thinc]"' in info.text(about)
    monkeypatch.setattr(info, "_version", lambda package: "1.0")
    assert "missing" not in info.text(info.everything())


def test_threads(monkeypatch, empty):
    monkeypatch.setenv("FASTOPT_NUM_THREADS", "3")
    monkeypatch.setattr(info, "cutoff_bytes", lambda: 5 << 19)
    found = info.threads()
    assert found == {"most": 3, "cutoff_bytes": 5 << 19, "error": None}
    assert info._threads_text(found) == "up to 3 for steps over more than 2.5 MiB, 1 for others"
    monkeypatch.setenv("FASTOPT_NUM_THREADS", "1")
    assert info._threads_text(info.threads()) == "1 for each step"
    monkeypatch.setenv("FASTOPT_NUM_THREADS", "many")
    error = "FASTOPT_NUM_THREADS must be a whole number >= 1, got 'many'"
    assert info.threads()["error"] == error
    assert f"threads       none: {error}" in info.text(info.everything())


def test_the_cache_that_was_chosen(monkeypatch, tmp_path, empty):
    folder = tmp_path / "kernels"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    assert info.cache() == {"folder": str(folder), "writable": True, "files": 0, "mib": 0.0}
    (folder / "engine_1").mkdir(parents=True)
    for name in ("kernel.a-1.py311.nbi", "kernel.a-1.py311.1.nbc", "other.b-1.py311.nbi", "kernel.txt"):
        (folder / "engine_1" / name).write_bytes(bytes(1 << 20))
    assert info.cache() == {"folder": str(folder), "writable": True, "files": 2, "mib": 2.0}
    assert info._cache_text(info.cache()) == f"{folder} (writable; 2 files, 2.0 MiB)"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder / "engine_1" / "kernel.txt"))  # a file
    assert not info.cache()["writable"]
    assert "not writable: each process compiles for itself" in info._cache_text(info.cache())
    monkeypatch.setenv("FASTOPT_CACHE", "0")
    assert info._cache_text(info.cache()) == "none (FASTOPT_CACHE=0)"


def test_the_cache_is_beside_the_engine_or_with_the_user(monkeypatch, empty):
    beside = Path(engine.__file__).parent / "__pycache__"
    monkeypatch.setattr(info, "_is_writable", lambda folder: True)
    assert info.cache()["folder"] == str(beside)
    monkeypatch.setattr(info, "_is_writable", lambda folder: folder != beside)
    expected = numba.misc.appdirs.AppDirs(appname="numba", appauthor=False).user_cache_dir
    assert info.cache()["folder"] == expected


@pytest.mark.parametrize(
    ("system", "expected"),
    [("darwin", "Library/Caches/numba"), ("win32", "AppData/Local/numba/Cache"), ("linux", ".cache/numba")],
)
def test_the_users_folder_of_each_system(monkeypatch, tmp_path, system, expected):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert info._users_cache() == tmp_path / expected


def test_a_system_that_tells_nothing(monkeypatch, capsys):
    for name in ("total_bytes", "free_bytes", "load", "vectors"):
        monkeypatch.setattr(info.machine, name, lambda: None)
    monkeypatch.setattr(info.machine, "caches", list)
    monkeypatch.setattr(info.machine, "gpus", list)
    monkeypatch.setattr(info.np, "show_config", lambda mode: {})
    monkeypatch.setattr(os, "environ", {"PATH": ""})
    assert info.run(argparse.Namespace(json=False)) == 0
    shown = capsys.readouterr().out
    assert "\ncaches        unknown\n" in shown
    assert "\nmemory        unknown\n" in shown
    assert "\nload          unknown\n" in shown
    assert "\nBLAS          unknown\n" in shown
    assert "\nGPU           none found\n" in shown
    assert shown.endswith("\nenvironment   nothing set\n")


def test_files_that_vanish_meanwhile_do_not_count(monkeypatch, tmp_path, empty):
    gone = tmp_path / "kernel.a-1.py311.nbi"
    gone.symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert info.cache()["mib"] == 0.0


def line(name):
    return next(line for line in info.text(info.everything()).splitlines() if line.startswith(name))


def test_gpus_that_the_system_knows(monkeypatch):
    monkeypatch.setattr(info.machine, "gpus", lambda: ["NVIDIA H200", "NVIDIA A100"])
    assert line("GPU") == "GPU           NVIDIA H200; NVIDIA A100"


def test_cuda_devices(monkeypatch):
    monkeypatch.setattr(info.gpu, "distribution", lambda: "numba")
    monkeypatch.setattr(info.gpu, "devices", lambda: [("NVIDIA H200", (9, 0)), ("NVIDIA A100", (8, 0))])
    assert info.cuda()["devices"][0] == {"name": "NVIDIA H200", "compute_capability": "9.0"}
    shown = "NVIDIA H200 (compute capability 9.0); NVIDIA A100 (compute capability 8.0)"
    assert line("CUDA") == f"CUDA          numba {info.versions()['numba']}; {shown}"


def test_no_cuda_device(monkeypatch):
    monkeypatch.setattr(info.gpu, "distribution", lambda: "numba")
    monkeypatch.setattr(info.gpu, "devices", list)
    assert line("CUDA").endswith("; no device")

    def fails():
        raise OSError("libcuda.so is of another kind")

    monkeypatch.setattr(info.gpu, "devices", fails)
    assert line("CUDA").endswith("; no device can be used: libcuda.so is of another kind")
    monkeypatch.setattr(info.gpu, "distribution", lambda: None)
    assert line("CUDA") == "CUDA          no package that compiles for it; no device"


def test_nothing_of_cuda_is_imported_before_it_is_asked_for():
    code = (
        "import sys, fastopt.__main__; print([name for name in sys.modules if name.startswith('numba.cuda')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
