"""What is computed from the training inputs once, kept beside the checkpoint until the run ends."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from elias_idx.files import written_to


def cached(folder: Path, name: str, fingerprint: str, write: Callable[[Path], None]) -> Path:
    """The folder `folder / name`, whose content stands for the fingerprint.

    Args:
        folder: of the run.
        name: of what is kept.
        fingerprint: of all that the content follows from; another one than that of the content there replaces it.
        write: writes the content into an empty folder.
    """
    path, partial = folder / name, folder / f".{name}.partial"
    mark = path / "fingerprint"
    if mark.is_file() and mark.read_text(encoding="ascii") == fingerprint:
        return path
    for leftover in (path, partial):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    with written_to(path):
        write(partial)
        (partial / mark.name).write_text(fingerprint, encoding="ascii")
    # On disk before the name says that they are: a lost machine must not leave holes.
    for file in partial.iterdir():
        with file.open("rb") as content:
            os.fsync(content.fileno())
    partial.rename(path)
    return path


def fingerprint(*parts: Iterable[bytes] | str) -> str:
    """A hash that differs if any of the parts does, in its content or in where it is divided."""
    digest = hashlib.sha256()
    for part in parts:
        pieces = [part.encode()] if isinstance(part, str) else part
        inner = hashlib.sha256()
        for piece in pieces:
            inner.update(len(piece).to_bytes(8, "little"))
            inner.update(piece)
        digest.update(inner.digest())
    return digest.hexdigest()
