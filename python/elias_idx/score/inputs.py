"""The files that a job reads: paths, folders and globs, local or remote, in a fixed order."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pyarrow import fs

from elias_idx.errors import DataError, MissingExtraError

Format = Literal["parquet", "jsonl", "csv", "npy"]

_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".npy": "npy",
}
_PACKED = (".gz", ".xz")
_KNOWN = "Parquet (.parquet), JSON lines (.jsonl, .json, .ndjson), CSV (.csv) and embeddings (.npy)"


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Attributes:
        name: what messages and the manifest call it: its path, or its URI.
        format: how its rows are stored.
        size: bytes.
        modified: when it was changed last, in nanoseconds since 1970; None if the file system doesn't know.
        system: the file system that it is in.
        path: where it is in there.
    """

    name: str
    format: Format
    size: int
    modified: int | None
    system: Any
    path: str


def find_inputs(inputs: Iterable[str]) -> list[InputFile]:
    """The files that paths and URIs name; folders and globs stand for the files in them, by name.

    A folder is searched with all folders in it; what begins with `_` or `.`, and files of other formats, are left out.
    In a glob `*`, `?` and `[...]` stand for parts of names, not for a `/`; in a URI `?` begins its options instead.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file is of no format that can be read, or nothing is left.
        MissingExtraError: a package for that kind of URI is missing.
    """
    found = [file for given in inputs for file in _find(given)]
    if not found:
        raise DataError("there are no inputs: name a file, a folder or a glob")
    return found


class _Place(NamedTuple):
    """A path, or a glob, in a file system.

    Attributes:
        system: the file system.
        path: the path there.
        base: how paths in the file system begin,
        shown: and what stands for that in names.
    """

    system: Any
    path: str
    base: str = ""
    shown: str = ""

    def name(self, path: str) -> str:
        """What a path in the file system is called."""
        return self.shown + path.removeprefix(self.base)


def _find(given: str) -> Iterator[InputFile]:
    place = _place(given)
    info = place.system.get_file_info(place.path)
    if info.type == fs.FileType.File:
        yield _input_file(info, place)
        return
    if info.type == fs.FileType.Directory:
        files = _files_below(place, place.path)
    elif glob.has_magic(place.path):
        files = [info for info in _files_below(place, _fixed_part(place.path)) if _matches(info.path, place.path)]
    else:
        raise FileNotFoundError(f"there is no file or folder {given}")
    known = [info for info in files if _format_of(info.path) is not None]
    if not known:
        raise DataError(f"{given}: there are no files that can be read, which are {_KNOWN}")
    for info in known:
        yield _input_file(info, place)


def _place(given: str) -> _Place:
    """The file system of a path or URI."""
    scheme, is_uri, rest = given.partition("://")
    if not is_uri:
        return _Place(fs.LocalFileSystem(), Path(given).absolute().as_posix())
    rest, has_options, options = rest.partition("?")
    # A glob's characters have no place in a URI, so the file system is found without the parts that have them.
    fixed = _fixed_part(rest)
    system, base = _file_system(f"{scheme}://{fixed}{has_options}{options}")
    secret, _, host = fixed.rpartition("@")
    shown = fixed if "/" in secret else host
    return _Place(system, base + rest.removeprefix(fixed), base, f"{scheme}://{shown}")


def _file_system(uri: str) -> tuple[Any, str]:
    """A URI's file system, Arrow's own or else fsspec's, and its path there."""
    try:
        return fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as unknown:
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise MissingExtraError("fsspec", "score") from error
        try:
            system, path = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            raise DataError(f"{uri}: {unknown}; {error}") from error
        return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def _files_below(place: _Place, folder: str) -> list[Any]:
    """All files in a folder and in those in it, by path; but for hidden ones."""
    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    found = [info for info in place.system.get_file_info(selector) if info.type == fs.FileType.File]
    below = len(folder.rstrip("/")) + 1
    shown = [info for info in found if not any(part[:1] in "_." for part in info.path[below:].split("/"))]
    return sorted(shown, key=lambda info: info.path)


def _fixed_part(pattern: str) -> str:
    """The folder of a glob before its first part with a wild card."""
    parts = pattern.split("/")
    fixed = next((at for at, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return "/".join(parts[:fixed]) or "/"


def _matches(path: str, pattern: str) -> bool:
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatchcase, names, wanted))


def _format_of(path: str) -> Format | None:
    file = PurePosixPath(path.lower())
    if file.suffix not in _PACKED:
        return _FORMATS.get(file.suffix)
    found = _FORMATS.get(PurePosixPath(file.stem).suffix)
    return found if found in ("jsonl", "csv") else None


def _input_file(info: Any, place: _Place) -> InputFile:
    name = place.name(info.path)
    if (kind := _format_of(info.path)) is None:
        raise DataError(
            f"{name} is of no format that can be read, which are {_KNOWN}; JSON lines and CSV may be packed (.gz, .xz)"
        )
    return InputFile(name, kind, info.size, info.mtime_ns, place.system, info.path)
