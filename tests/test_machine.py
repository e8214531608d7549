import os
import platform
import subprocess

import pytest

from fastopt import machine
from fastopt.machine import Cache


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def answers(monkeypatch):
    """Have programs answer from a dict of their arguments; those that are not in it are not there."""
    found = {}

    def run(command, **options):
        if command not in found:
            raise FileNotFoundError(2, "No such file or directory", command[0])
        return subprocess.CompletedProcess(command, 0, found[command], "")

    monkeypatch.setattr(subprocess, "run", run)
    return found


CPUINFO = """\
processor\t: 0
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Gold 6230
flags\t\t: fpu sse2 avx avx2

processor\t: 1
model name\t: another
"""


def test_the_name_of_the_processor(tmp_path, answers, monkeypatch):
    write(tmp_path, {"proc/cpuinfo": CPUINFO})
    assert machine.cpu(tmp_path) == "Intel(R) Xeon(R) Gold 6230 (family 6, model 85)"
    write(tmp_path, {"proc/cpuinfo": "Model\t: Raspberry Pi 5\n"})
    assert machine.cpu(tmp_path) == "Raspberry Pi 5"
    answers["sysctl", "-n", "machdep.cpu.brand_string"] = "Apple M2\n"
    assert machine.cpu(tmp_path / "none") == "Apple M2"
    answers.clear()
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6")  # Windows
    assert machine.cpu(tmp_path / "none") == "Intel64 Family 6"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert machine.cpu(tmp_path / "none") == "arm64"


def test_the_widest_vectors(tmp_path):
    write(tmp_path, {"proc/cpuinfo": CPUINFO})
    assert machine.vectors(tmp_path) == "avx2"
    write(tmp_path, {"proc/cpuinfo": "Features\t: fp asimd evtstrm\n"})
    assert machine.vectors(tmp_path) == "asimd"
    assert machine.vectors(tmp_path / "none") is None


def test_caches_of_linux(tmp_path):
    folder = "sys/devices/system/cpu/cpu0/cache/index"
    shown = (
        ("1", "Data", "48K"),
        ("1", "Instruction", "32K"),
        ("2", "Unified", "1280K"),
        ("3", "Unified", "32M"),
    )
    for number, (level, kind, size) in enumerate(shown):
        files = {"level": level, "type": kind, "size": size}
        write(tmp_path, {f"{folder}{number}/{name}": f"{text}\n" for name, text in files.items()})
    write(tmp_path, {f"{folder}4/level": "4\n"})  # incomplete, as in some virtual machines
    write(tmp_path, {f"{folder}5/{name}": "\n" for name in ("level", "type", "size")})
    found = machine.caches(tmp_path)
    assert found == [
        Cache(1, "data", 48 << 10),
        Cache(1, "instruction", 32 << 10),
        Cache(2, "unified", 1280 << 10),
        Cache(3, "unified", 32 << 20),
    ]
    assert list(map(str, found)) == [
        "L1 data 48K",
        "L1 instruction 32K",
        "L2 unified 1280K",
        "L3 unified 32M",
    ]


def test_caches_of_other_systems(tmp_path, answers):
    assert machine.caches(tmp_path) == []
    answers["sysctl", "-n", "hw.l1dcachesize"] = "65536\n"
    answers["sysctl", "-n", "hw.l2cachesize"] = "4194304\n"
    answers["sysctl", "-n", "hw.l3cachesize"] = "0\n"
    assert machine.caches(tmp_path) == [Cache(1, "data", 1 << 16), Cache(2, "unified", 4 << 20)]


def test_a_program_that_fails_or_hangs_tells_nothing(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess((), 1, "garbage", "")
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: failed)
    assert machine.caches(tmp_path) == []

    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert machine.caches(tmp_path) == []


def test_without_what_windows_lacks(monkeypatch, tmp_path):
    for name in ("sysconf", "sched_getaffinity", "getloadavg"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.cores() == 6
    assert machine.total_bytes() is None
    assert machine.free_bytes(tmp_path) is None
    assert machine.load() is None


def test_the_free_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(
        os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__, raising=False
    )
    assert machine.total_bytes() == 4096_000
    assert machine.free_bytes(tmp_path) == 2048_000  # half, where it is not told
    write(tmp_path, {"proc/meminfo": "MemTotal: 4000 kB\nMemAvailable:   3000 kB\n"})
    assert machine.free_bytes(tmp_path) == 3000 << 10


def test_a_containers_limit_is_heeded(monkeypatch, tmp_path):
    write(tmp_path, {"proc/meminfo": "MemAvailable: 3000 kB\n", "proc/self/cgroup": "0::/a/b\n"})
    group = "sys/fs/cgroup/a"
    write(tmp_path, {f"{group}/b/memory.max": "max\n", f"{group}/b/memory.current": "5\n"})
    assert machine.free_bytes(tmp_path) == 3000 << 10
    write(tmp_path, {f"{group}/memory.max": "1000000\n", f"{group}/memory.current": "400000\n"})
    assert machine.free_bytes(tmp_path) == 600_000
    write(tmp_path, {f"{group}/b/memory.max": "5\n", f"{group}/b/memory.current": "9\n"})
    assert machine.free_bytes(tmp_path) == 0

    first = "3:cpu,cpuacct:/x\n2:memory:/x\n"
    write(tmp_path, {"proc/self/cgroup": first})
    group = "sys/fs/cgroup/memory/x/memory"
    write(tmp_path, {f"{group}.limit_in_bytes": "700000\n", f"{group}.usage_in_bytes": "100000\n"})
    assert machine.free_bytes(tmp_path) == 600_000


def test_graphics_processors(monkeypatch, tmp_path, answers):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.gpus(tmp_path) == []
    write(tmp_path, {"proc/driver/nvidia/gpus/0000:01/information": "Model: \t NVIDIA A100\nIRQ: 3\n"})
    assert machine.gpus(tmp_path) == ["NVIDIA A100"]
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    query = "--query-gpu=name,memory.total,driver_version"
    told = "NVIDIA H200, 143771 MiB, 570.86\nNVIDIA H200, 143771 MiB, 570.86\n"
    answers["/usr/bin/nvidia-smi", query, "--format=csv,noheader"] = told
    assert machine.gpus(tmp_path) == ["NVIDIA H200, 143771 MiB, driver 570.86"] * 2
    answers["/usr/bin/nvidia-smi", query, "--format=csv,noheader"] = "No devices were found\n"
    assert machine.gpus(tmp_path) == []


def test_this_machine():
    assert machine.cpu()
    assert machine.cores() >= 1
    assert machine.free_bytes() is None or machine.free_bytes() > 0
