"""Lines of text files, packed or not, each with the place that errors name."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from elias_idx._wording import OBEYED
from elias_idx.errors import DataError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


_UNSAFE = re.compile(f"[{OBEYED}]")


def open_packed(path: Path, mode: str) -> IO[bytes]:
    """Opens a file in a binary mode; `.gz` and `.xz` are packed or unpacked on the way."""
    opener: Callable[..., IO[bytes]] = _OPENERS.get(path.suffix, open)
    return opener(path, mode)


def numbered_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line with its place, "FILE:NUMBER"; as bytes, so that what can't be decoded has a place too.

    Raises:
        DataError: the file can't be unpacked.
        OSError: it can't be read.
    """
    number = 0
    try:
        with open_packed(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield f"{path}:{number}", line
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: can't be unpacked: {error}") from error


def parse_object(where: str, line: bytes) -> dict[str, Any]:
    """The JSON object that a line is.

    Raises:
        DataError: it is none.
    """
    if not line.strip():
        raise DataError(f"{where}: the line is empty: remove it")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a JSON object: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}")
    return row


def json_line(row: dict[str, Any]) -> str:
    """The row as JSON on one line, whatever its strings hold and whoever splits or shows it."""
    return _UNSAFE.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(row, ensure_ascii=False))


def rows_by_label(path: Path, other: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of JSON lines of `{"label": ..., OTHER: ...}`, both of them texts, with their places.

    Raises:
        DataError: a line is no such object, or names a label again.
        OSError: the file can't be read.
    """
    seen: set[str] = set()
    for where, line in numbered_lines(path):
        row = parse_object(where, line)
        if missing := {"label", other} - row.keys():
            raise DataError(f"{where}: the row has no {' and no '.join(map(repr, sorted(missing)))}")
        label, _ = (check_text(row[name], name, where) for name in ("label", other))
        if label in seen:
            raise DataError(f"{where}: label {label!r} has a {other} already")
        seen.add(label)
        yield where, row


def check_text(text: Any, name: str, where: str) -> str:
    """The text, if it is a string that UTF-8 can hold; else a DataError."""
    if not isinstance(text, str):
        raise DataError(f"{where}: {name!r} must be a string, got {type(text).__name__}")
    if not is_utf8(text):
        raise DataError(f"{where}: {name!r} has a lone surrogate, which UTF-8 can't hold")
    return text


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold the string: it can't hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
