"""Files: whole or not at all, the same comes back, and nothing else is read."""

import os
import pickle
import stat
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastopt
from fastopt import files
from tests.processes import run
from tests.test_structure import EVERYTHING, assert_same

NEEDS_LINKS = pytest.mark.skipif(os.name == "nt", reason="links and modes are POSIX's")

CONTENT = {"version": 2, "w": [np.arange(6, dtype=np.float32).reshape(2, 3), None], "lr": 0.1}


@pytest.fixture(params=["npz", "safetensors"])
def path(request, tmp_path):
    """A path in an empty folder, in each of the formats."""
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"run.{request.param}"


def saved(path, content=CONTENT):
    files.save(path, content)
    return path


def left(path):
    """Return what else is in a file's folder."""
    return sorted(each.name for each in path.parent.iterdir() if each != path)


# What comes back.


def test_everything_comes_back_exactly(path):
    assert_same(fastopt.load(saved(path, EVERYTHING)), EVERYTHING)
    assert left(path) == []


def test_a_path_may_be_a_string(path):
    assert_same(fastopt.load(str(saved(str(path)))), CONTENT)


def test_a_path_without_an_extension_is_npz(tmp_path):
    with np.load(saved(tmp_path / "run"), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["w.0"], CONTENT["w"][0])
        assert set(archive) == {"fastopt-state", "w.0"}


def test_others_can_read_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    found = safetensors.load_file(saved(tmp_path / "run.SafeTensors"))
    assert_same(found, {"w.0": CONTENT["w"][0]})


def test_equal_states_make_equal_npz_files(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    before = saved(path).read_bytes()
    monkeypatch.setattr(time, "localtime", lambda *_: (2030, 1, 1, 0, 0, 0, 0, 0, 0))
    assert saved(path).read_bytes() == before


def test_what_is_loaded_can_be_written_to(path):
    found = fastopt.load(saved(path))
    found["w"][0][:] = 1
    assert_same(fastopt.load(path), CONTENT)


def test_arrays_are_written_in_blocks(tmp_path):
    w = np.zeros(1 << 24)  # 128 MB
    tracemalloc.start()
    try:
        files.save(tmp_path / "run.npz", {"w": w})
        assert tracemalloc.get_traced_memory()[1] < w.nbytes / 3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["run.safetensors", "RUN.SAFETENSORS"])
def test_the_package_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    message = (
        "files named .safetensors need the package safetensors, which is missing: "
        'pip install "fastopt[safetensors]"; other names, such as .npz, need nothing'
    )
    with pytest.raises(ModuleNotFoundError) as caught:
        files.save(tmp_path / name, CONTENT)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModuleNotFoundError) as caught:
        fastopt.load(tmp_path / name)
    assert str(caught.value) == message


# What is not read.


def refusal(path):
    """Return what the error says of a file that is refused."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fastopt.load(path)
    start = f"{path} is damaged, or is not a file that save() wrote: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def test_there_is_no_file(path):
    with pytest.raises(FileNotFoundError):
        fastopt.load(path)


def test_a_directory(path):
    path.mkdir()
    with pytest.raises(ValueError, match=r"run\.\w+ must be a file, got a directory"):
        fastopt.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"hello\n" * 100, bytes(1000), b"\xff" * 1000])
def test_something_else(path, content):
    path.write_bytes(content)
    assert refusal(path)


def test_the_other_format(tmp_path):
    pytest.importorskip("safetensors")
    for name, other in (("a.npz", "b.safetensors"), ("a.safetensors", "b.npz")):
        os.replace(saved(tmp_path / name), tmp_path / other)
        assert refusal(tmp_path / other)


def test_an_npz_of_something_else(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, w=np.ones(3))
    assert refusal(path) == "it has no entry 'fastopt-state'"
    np.savez(path, **{"fastopt-state": np.frombuffer(b'{"a": 1}', np.uint8)})
    assert refusal(path) == "its text is not fastopt's"
    np.savez(path, **{"fastopt-state": np.frombuffer(b'{"fastopt": 1, "content": []}', np.uint8)})
    assert refusal(path) == "its text is not fastopt's"
    np.savez(path, **{"fastopt-state": np.frombuffer(b"[" * 100_000, np.uint8)})
    assert "recursion" in refusal(path)


def test_safetensors_of_something_else(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "other.safetensors"
    safetensors.save_file({"w": np.ones(3)}, path)
    assert refusal(path) == "it has no entry 'fastopt-state'"
    safetensors.save_file({"w": np.ones(3)}, path, metadata={"fastopt-state": "{}"})
    assert refusal(path) == "it has no entry 'fastopt-state'"
    safetensors.save_file({"w": np.ones(3)}, path, metadata={"fastopt-state": "{}", "crc32": "0"})
    assert refusal(path) == "its text is not fastopt's"


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore::UserWarning")  # zipfile's, of the second entry of a name
@pytest.mark.parametrize("place", ["fastopt-state", "w.0"])
def test_pickles_are_never_read(tmp_path, place):
    path, harm = tmp_path / "run.npz", tmp_path / "harm"
    harmful = np.array([Harmful(harm)], dtype=object)
    with pytest.raises(TypeError, match="got object"):
        files.save(path, {"w": [harmful]})
    with np.load(saved(path)) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, place: harmful})
    assert refusal(path) == "Object arrays cannot be loaded when allow_pickle=False"
    assert not harm.exists()
    with np.load(path, allow_pickle=True) as archive:  # it does harm
        archive[place]
    assert harm.exists()


@pytest.mark.parametrize("name", ["run.npz", "run"])
def test_a_pickle_in_the_place_of_a_file(tmp_path, name):
    path, harm = tmp_path / name, tmp_path / "harm"
    path.write_bytes(pickle.dumps(Harmful(harm)))
    assert refusal(path) == "File is not a zip file"
    with open(path, "wb") as stream:
        np.save(stream, np.array([Harmful(harm)], dtype=object))
    assert refusal(path) == "File is not a zip file"
    assert not harm.exists()


def test_arrays_that_are_not_as_the_text_says(tmp_path):
    path = tmp_path / "run.npz"
    with np.load(saved(path)) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "w.0": np.ones(5, np.float32)})
    assert refusal(path) == "its array 'w.0' must be of float32 and of shape (2, 3), got float32 and (5,)"
    np.savez(path, **{**arrays, "w.0": np.ones((2, 3))})
    assert refusal(path) == "its array 'w.0' must be of float32 and of shape (2, 3), got float64 and (2, 3)"
    del arrays["w.0"]
    np.savez(path, **arrays)
    assert refusal(path) == "it has no entry 'w.0'"


def test_an_entry_that_is_too_long(tmp_path):
    path = saved(tmp_path / "run.npz")
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content + b"more" if name == "w.0.npy" else content)
    assert refusal(path) == "its entry 'w.0' is too long"


def test_a_file_that_is_cut_short(path):
    whole = saved(path).read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert refusal(path)


def test_a_file_in_which_a_bit_is_flipped(path):
    """No flipped bit goes unnoticed that makes a difference: some are in what no one reads, such as dates."""
    rng = np.random.default_rng(0)
    whole = bytearray(saved(path).read_bytes())
    noticed = 0
    for place, bit in enumerate(rng.integers(0, 8, len(whole))):
        whole[place] ^= 1 << bit
        path.write_bytes(whole)
        whole[place] ^= 1 << bit
        try:
            found = fastopt.load(path)
        except ValueError:
            noticed += 1
        else:
            assert_same(found, CONTENT)
    assert noticed > 0.7 * len(whole)


# How it is written.


@NEEDS_LINKS
def test_permissions(path):
    before = os.umask(0o027)
    try:
        assert stat.S_IMODE(saved(path).stat().st_mode) == 0o640  # as of any file
        for mode in (0o600, 0o664, 0o444):
            path.chmod(mode)
            assert stat.S_IMODE(saved(path).stat().st_mode) == mode
    finally:
        os.umask(before)


@NEEDS_LINKS
@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays(path, exists):
    target = path.with_name("there") / "target"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    path.symlink_to(target)
    saved(path)
    assert path.is_symlink()
    assert not target.is_symlink()
    assert_same(fastopt.load(path), CONTENT)
    assert left(target) == []


@NEEDS_LINKS
def test_a_hard_link_keeps_the_old_file(path):
    path.write_text("old")
    os.link(path, path.with_name("other"))
    saved(path)
    assert path.with_name("other").read_text() == "old"


def test_what_cannot_be_replaced(path):
    path.mkdir()
    with pytest.raises(ValueError, match=r"run\.\w+ must be a file, or not exist; got a directory"):
        saved(path)
    assert left(path) == []
    with pytest.raises(FileNotFoundError, match=r"no such folder: '.*missing'"):
        saved(path.parent / "missing" / path.name)


@NEEDS_LINKS
def test_pipes_and_devices_are_not_replaced(tmp_path):  # a pipe of our own: a device would be the system's
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="or not exist; got a device, pipe or socket"):
        saved(pipe)
    with pytest.raises(ValueError, match="must be a file, got a device, pipe or socket"):
        fastopt.load(pipe)
    assert left(pipe) == []


def test_what_cannot_be_saved_leaves_the_old_file(path):
    saved(path)
    with pytest.raises(TypeError, match="got set"):
        saved(path, {"w": set()})
    assert_same(fastopt.load(path), CONTENT)
    assert left(path) == []


@pytest.mark.parametrize("where", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failure_leaves_the_old_file_and_nothing_else(path, where, error, monkeypatch):
    def fail(*_):
        raise error

    saved(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises(type(error)):
            saved(path, {"w": np.ones(5)})
    assert_same(fastopt.load(path), CONTENT)
    assert left(path) == []


def test_a_failure_in_the_middle_of_an_array(tmp_path, monkeypatch):
    path = saved(tmp_path / "run.npz")

    def fail(stream, array, **_):
        stream.write(b"half of it")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(OSError, match="no space left"):
            saved(path, {"w": np.ones(5)})
    assert_same(fastopt.load(path), CONTENT)
    assert left(path) == []


def test_the_file_is_on_the_disk_before_it_takes_its_place(path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number):
        done.append(("flushed", os.fstat(number).st_ino))
        fsync(number)

    def noted_replace(new, target):
        done.append(("renamed", os.stat(new).st_ino, target))
        replace(new, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    saved(path)
    number, folder = path.stat().st_ino, path.parent.stat().st_ino
    expected = [("flushed", number), ("renamed", number, path)]
    assert done == expected + ([] if os.name == "nt" else [("flushed", folder)])


def test_a_folder_that_cannot_be_flushed(path, monkeypatch):
    fsync = os.fsync

    def picky(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError("not of folders")
        fsync(number)

    monkeypatch.setattr(os, "fsync", picky)
    assert_same(fastopt.load(saved(path)), CONTENT)


def test_what_killed_processes_left_behind_is_removed_after_a_day(path):
    new, old, others = (path.with_name(n) for n in (".fastopt-1.tmp", ".fastopt-2.tmp", "fastopt-3.tmp"))
    for each in (new, old, others):
        each.mkdir()
        (each / path.name).write_text("half")
    for each in (old, others):
        os.utime(each, (0, time.time() - 25 * 3600))
    saved(path)
    assert left(path) == [new.name, others.name]


# The killer.

KILLER = """
    import os, random, signal, sys, time
    from pathlib import Path
    import numpy as np
    from fastopt import files

    path, kills, naive = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "naive"

    def save(i):
        content = {"i": i, "w": [np.full(100_000, i, np.float32), np.full(1000, i)]}
        if naive:
            files._write_npz(path, *files.encode(content))
        else:
            files.save(path, content)

    def last_said(pipe):
        with open(pipe, "rb") as stream:
            return int.from_bytes(stream.read()[-4:], "little")

    rng = random.Random(0)
    for known in (1, 2):
        started = time.perf_counter()
        save(known)
    took = time.perf_counter() - started
    for _ in range(kills):
        ends = os.pipe()
        child = os.fork()
        if child == 0:
            while True:
                known += 1
                save(known)
                os.write(ends[1], known.to_bytes(4, "little"))
        os.close(ends[1])
        time.sleep(rng.uniform(0, 8 * took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        complete = max(last_said(ends[0]), known)
        found = files.load(path)
        known = found["i"]
        assert known in (complete, complete + 1), (known, complete)
        for array in found["w"]:
            assert (array == known).all()
    # The kills that came while a file was being written.
    print(known - 2, len(list(path.parent.glob(".fastopt-*.tmp"))))
"""


def kill(path, kills, how="whole"):
    """Kill savers; return how many files they wrote, and how often they were killed at it."""
    out = run(KILLER, path.parent, str(path), str(kills), how, OPENBLAS_NUM_THREADS="1")
    return [int(number) for number in out.split()]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_fork
@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_saver_that_is_killed_leaves_the_old_file_or_the_new_one(path, kills):
    written, interrupted = kill(path, kills)
    # That it was caught at it: on a busy machine seldom.
    assert written + interrupted > 0
    assert kills < 100 or min(written, interrupted) >= kills / 20


@needs_fork
def test_the_killer_finds_a_torn_file(tmp_path):
    with pytest.raises(AssertionError, match="is damaged, or is not a file that save"):
        kill(tmp_path / "run.npz", 50, "naive")
