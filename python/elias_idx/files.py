"""Files that appear whole or not at all, and safetensors files with errors of the usual kinds."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from elias_idx.errors import FormatError

# What a disk says that takes no more.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Says of errors amid writing, such as that of a full disk, which don't say where: at `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _UNWRITABLE:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes the place of `path` when the block ends well.

    The file is synced first, then its folder; it is removed if the block fails.
    """
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        with written_to(path):
            yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes sure that what was renamed in a folder stays so; Windows has no such call."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def is_plain_path(name: Any) -> bool:
    """Whether a relative path that a file names can't lead out of that file's folder."""
    if not isinstance(name, str):
        return False
    # Of Windows too, so that a folder is as good or bad on all systems.
    path = PureWindowsPath(name)
    return bool(path.parts) and not path.anchor and ".." not in path.parts and "\0" not in name


def save_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes a safetensors file.

    Raises:
        OSError: it can't be written.
    """
    # Not by `save_file`, which makes files that only their owner can read.
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))


def load_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads a safetensors file.

    Raises:
        FormatError: it is damaged.
        OSError: it can't be read.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FormatError(f"{path} is damaged: {error}") from error


def map_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The float32 tensors of a safetensors file, mapped: read-only, and in memory once for all processes.

    Raises:
        FormatError: it is damaged, or holds other numbers.
        OSError: it can't be read.
    """
    try:
        with safe_open(path, "numpy"):  # checks the header
            pass
    except SafetensorError as error:
        raise FormatError(f"{path} is damaged: {error}") from error
    whole = np.asarray(np.memmap(path, np.uint8, mode="r"))
    start = 8 + int(whole[:8].view("<u8")[0])
    header = json.loads(whole[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, tensor in header.items():
        first, last = tensor["data_offsets"]
        if tensor["dtype"] != "F32" or (start + first) % 4:
            raise FormatError(f"{path} is damaged: {name} must be aligned float32 numbers")
        tensors[name] = whole[start + first : start + last].view("<f4").reshape(tensor["shape"])
    return tensors
