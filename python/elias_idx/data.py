"""Labelled texts: reading JSON lines, and the sparse matrix of their labels.

N texts, L labels.
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from elias_idx.errors import DataError
from elias_idx.files import replacing

if TYPE_CHECKING:
    from elias_idx.model import Inputs

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Row:
    """One text and its labels."""

    text: str = ""
    labels: list[str] = field(default_factory=list)


def read_rows(path: str | PathLike[str], fields: Sequence[str] = ("text", "labels")) -> Iterator[Row]:
    """Reads JSON lines, one object `{"text": ..., "labels": [...]}` a line; `.gz` and `.xz` are unpacked.

    Args:
        path: the file.
        fields: which of "text" and "labels" each row must have; the rest of a row is ignored.

    Raises:
        DataError: a line is no such object; the message says which line and what is wrong with it.
        OSError: the file can't be read.
    """
    path = Path(path)
    number = 0
    try:
        # Bytes, decoded line by line, so that an error names its line.
        with _open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _parse_row(line, fields, f"{path}:{number}")
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: can't be unpacked: {error}") from error


def write_rows(path: str | PathLike[str], rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line; the file appears when it is whole. `.gz` and `.xz` are packed."""
    with replacing(Path(path)) as partial, _open(partial, "wb") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _open(path: Path, mode: str) -> IO[bytes]:
    opener: Callable[..., IO[bytes]] = _OPENERS.get(path.suffix, open)
    return opener(path, mode)


def _parse_row(line: bytes, fields: Sequence[str], where: str) -> Row:
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
    for name in fields:
        if name not in row:
            raise DataError(f"{where}: the row has no {name!r}; it has {sorted(row)}")
    text = row["text"] if "text" in fields else ""
    if not isinstance(text, str):
        raise DataError(f"{where}: 'text' must be a string, got {type(text).__name__}")
    if not _is_utf8(text):
        raise DataError(f"{where}: 'text' has a lone surrogate, which UTF-8 can't hold")
    labels = row["labels"] if "labels" in fields else []
    if not isinstance(labels, list):
        raise DataError(f"{where}: 'labels' must be a list of strings, got {type(labels).__name__}")
    check_labels(labels, where)
    return Row(text, labels)


def check_labels(labels: Iterable[Any], where: str) -> None:
    """Raises a DataError unless all labels are strings that UTF-8 can hold."""
    for label in labels:
        if not isinstance(label, str):
            raise DataError(f"{where}: labels must be strings, got {label!r}")
        if not _is_utf8(label):
            raise DataError(f"{where}: label {label!r} has a lone surrogate, which UTF-8 can't hold")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class TrainingSet:
    """Inputs and their labels.

    Attributes:
        inputs: N texts, or a float array of embeddings [N, D] for the precomputed encoder.
        labels: the labels of each.

    Raises:
        DataError: nothing has a label, or something is of the wrong type or number.
    """

    inputs: Inputs
    labels: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(f"there are {len(self.inputs)} inputs, but labels for {len(self.labels)}")
        if not any(len(row) for row in self.labels):
            raise DataError("the training set is empty: there is no row with a label")
        for number, row in enumerate(self.labels):
            if isinstance(row, str):
                raise DataError(f"row {number}: labels must be a list of strings, got the string {row!r}")
            check_labels(row, f"row {number}")
        if not isinstance(self.inputs, np.ndarray):
            for number, text in enumerate(self.inputs):
                if not isinstance(text, str):
                    raise DataError(f"row {number}: the text must be a string, got {type(text).__name__}")


class LabelVocabulary:
    """Label names and their ids, 0 to L−1 in the order of the names.

    Args:
        names: each once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names: list[str] = list(names)
        self._ids = {name: number for number, name in enumerate(self.names)}

    @classmethod
    def of_rows(cls, labels: Iterable[Iterable[str]]) -> LabelVocabulary:
        """All labels that occur, sorted, so that ids don't depend on the order of the rows."""
        return cls(sorted({name for row in labels for name in row}))

    def __len__(self) -> int:
        return len(self.names)

    def matrix(self, labels: Sequence[Sequence[str]]) -> sp.csr_matrix:
        """The labels as a float32 CSR matrix [N, L] of ones, each row's ids sorted and without repeats.

        Raises:
            KeyError: a label is not in the vocabulary.
        """
        return _indicator([{self._ids[name] for name in row} for row in labels], len(self))

    def matrix_with_unseen(self, labels: Sequence[Sequence[str]]) -> tuple[sp.csr_matrix, list[str]]:
        """Like `matrix`, but labels outside the vocabulary get columns of their own, after the known ones.

        Returns:
            The CSR matrix [N, L + U] and the U names that the vocabulary lacks.
        """
        unseen = sorted({name for row in labels for name in row} - self._ids.keys())
        ids = self._ids | {name: len(self) + number for number, name in enumerate(unseen)}
        return _indicator([{ids[name] for name in row} for row in labels], len(ids)), unseen


def _indicator(ids: Sequence[set[int]], num_columns: int) -> sp.csr_matrix:
    indptr = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    indices = np.fromiter((i for row in ids for i in sorted(row)), np.int64, count=indptr[-1])
    return sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(ids), num_columns))
