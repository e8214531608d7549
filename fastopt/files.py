"""Files of an optimizer's state: written whole or not at all, read without running anything in them."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.structure import decode, encode

#: The entry that says, as JSON, what the arrays of a file are. No array has this name: they have no hyphens.
TEXT = "fastopt-state"

#: Seconds after which a folder that a killed process has left behind is removed.
_ABANDONED = 24 * 3600.0


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state dict in a file that :meth:`fastopt.Optimizer.save` wrote.

    Nothing in the file is ever run: pickles are refused.

    Parameters
    ----------
    path : path
        The file. If its name ends in ``.safetensors`` it is read as such a file, with the package
        safetensors; else as NumPy's ``.npz``.

    Returns
    -------
    dict
        For :meth:`fastopt.Optimizer.load_state_dict`, equal to what was saved, to the bit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, cut short, or no such file; the message says in what.
    ModuleNotFoundError
        If the file is a ``.safetensors`` one and the package is missing.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastopt
    >>> w = np.ones(2)
    >>> opt = fastopt.SGD(w, lr=0.25, momentum=0.9)
    >>> opt.step(np.ones(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.npz")
    ...     opt.save(path)
    ...     opt.step(np.ones(2))  # as if in vain
    ...     opt.load_state_dict(fastopt.load(path))
    >>> w, opt.step_count
    (array([0.75, 0.75]), 1)
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be a file, got a {_kind(path)}")
    with open(path, "rb"):  # what the system says of it, such as FileNotFoundError
        pass
    tensors = _safetensors() if _is_safetensors(path) else None
    try:
        found = _read_npz(path) if tensors is None else _read_safetensors(path, tensors)
        if not isinstance(found, dict):
            raise ValueError("its text is not fastopt's")
        return found
    except Exception as error:  # damaged files make zipfile, NumPy and safetensors raise some ten kinds
        raise ValueError(f"{path} is damaged, or is not a file that save() wrote: {error}") from error


def save(path: str | os.PathLike[str], state_dict: Mapping[str, Any]) -> None:
    """Write a state dict to a file; see :meth:`fastopt.Optimizer.save`."""
    path = Path(path)
    tensors = _safetensors() if _is_safetensors(path) else None
    text, arrays = encode(state_dict)
    with replacing(path) as new:
        if tensors is None:
            _write_npz(new, text, arrays)
        else:
            metadata = {TEXT: text, "crc32": f"{_checksum(text, arrays):08x}"}
            import_module("safetensors.numpy").save_file(arrays, new, metadata=metadata)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a file that then takes the place of another, all at once.

    It is written in a hidden folder beside the other, flushed to the disk, given the other's permissions
    and renamed. Of a symbolic link, the file that it points to is replaced. If anything fails,
    the other stays, and the new file is removed. A process that is killed leaves the hidden folder behind;
    a day later it is removed by the next save beside it.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{path} must be a file, or not exist; got a {_kind(target)}")
    folder = target.parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
    _remove_abandoned(folder)
    room = folder / f".fastopt-{secrets.token_hex(8)}.tmp"
    try:
        room.mkdir()
        new = room / target.name
        yield new
        _flush(new, os.O_RDWR)
        old = target if target.exists() else room  # whose mode is what the umask leaves to new files
        os.chmod(new, stat.S_IMODE(old.stat().st_mode) & (0o7777 if old is target else 0o666))
        os.replace(new, target)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    with suppress(OSError):  # not all systems can
        _flush(folder, os.O_RDONLY)


def _remove_abandoned(folder: Path) -> None:
    for room in folder.glob(".fastopt-*.tmp"):
        with suppress(OSError):
            if time.time() - room.stat().st_mtime > _ABANDONED:
                shutil.rmtree(room)


def _flush(path: Path, flags: int) -> None:
    """Have the system write a file or a folder to the disk."""
    number = os.open(path, flags)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _kind(path: Path) -> str:
    return "directory" if path.is_dir() else "device, pipe or socket"


# NumPy's own format. The arrays are written in blocks, and zipfile checks their checksums.


def _write_npz(path: Path, text: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    named = {TEXT: np.frombuffer(text.encode("ascii"), np.uint8), **arrays}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in named.items():
            # Without the time of day, equal states make equal files.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _read_npz(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:

        def fetch(name: str) -> NDArray[Any]:
            if f"{name}.npy" not in archive.namelist():
                raise ValueError(f"it has no entry {name!r}")
            with archive.open(f"{name}.npy") as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
                if stream.read(1):  # the end of an entry is also where its checksum is looked at
                    raise ValueError(f"its entry {name!r} is too long")
            return array

        return decode(fetch(TEXT).tobytes().decode("ascii"), fetch)


# safetensors. Its files have no checksum, so ours is in their metadata, beside the text.


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _safetensors() -> Any:
    try:
        return import_module("safetensors")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "files named .safetensors need the package safetensors, which is missing: "
            'pip install "fastopt[safetensors]"; other names, such as .npz, need nothing',
            name="safetensors",
        ) from None


def _checksum(text: str, arrays: Mapping[str, NDArray[Any]]) -> int:
    value = zlib.crc32(text.encode("ascii"))
    for array in arrays.values():
        value = zlib.crc32(array.data, value)
    return value


def _read_safetensors(path: Path, tensors: Any) -> Any:
    with tensors.safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        if TEXT not in metadata or "crc32" not in metadata:
            raise ValueError(f"it has no entry {TEXT!r}")
        arrays: dict[str, NDArray[Any]] = {}

        def fetch(name: str) -> NDArray[Any]:
            arrays[name] = file.get_tensor(name)
            return arrays[name]

        found = decode(metadata[TEXT], fetch)
    if f"{_checksum(metadata[TEXT], arrays):08x}" != metadata["crc32"]:
        raise ValueError("its checksum does not fit its content")
    return found
