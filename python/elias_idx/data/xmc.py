"""Data sets of the extreme classification repository (Bhatia et al. 2016), as they are downloaded.

Bag of words: a text file whose first line is "N F L" (rows, features, labels), each other one a row's labels and
features, "3,17 0:0.25 8:1.5". Raw text: `trn.json.gz` and `tst.json.gz`, JSON lines of title, content, target_ind
(label numbers) and perhaps target_rel (relevances). Sets whose names begin with LF have `lbl.json.gz` too, whose lines
name the labels by their "uid", and `filter_labels_*.txt`, pairs "row label" that don't count in an evaluation.
Files may be packed by xz instead of gzip, or not at all.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data.contents import Contents
from elias_idx.data.groups import Group, group_of
from elias_idx.data.labels import CsrBuilder, check_relevances
from elias_idx.data.lines import check_text, numbered_lines, parse_object
from elias_idx.errors import DataError

_LINES_AT_ONCE = 4096
# Rows, features or labels at most.
_MOST = 2**31 - 1
# Labels that are believed to be there whoever says so; more than that must occur in some number.
_LABELS_BELIEVED = 1 << 24
# Of labels, and of training and test rows: a name for each way to pack the file.
_RAW_TEXT_FILES = {part: (f"{part}.json.gz", f"{part}.json.xz", f"{part}.json") for part in ("lbl", "trn", "tst")}
# A raw-text file's name is how it is told from other JSON lines.
_OTHER_NAME = "a file of 'text' and 'labels' needs another name than trn.json or tst.json"
_ALL_BUT_SPACES_AND_COLONS = bytes(set(range(256)) - set(b" :"))


def is_raw_text(path: Path) -> bool:
    """Whether the file is one of a raw-text data set, by its name."""
    return any(path.name in _RAW_TEXT_FILES[split] for split in ("trn", "tst"))


def raw_text_file(folder: Path, split: str) -> Path | None:
    """The file of a raw-text data set's "trn" or "tst" rows; None if the folder has none."""
    return _existing(folder, _RAW_TEXT_FILES[split])


def _existing(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_raw_text(path: Path, fields: Container[str], group_field: str | None = None) -> Contents:
    """A file of a raw-text data set: texts are title and content, labels are called by uid, or by number without any.

    Raises:
        DataError: a line is no such object; the message says which line and what is wrong with it.
        OSError: a file can't be read.
    """
    label_file = _existing(path.parent, _RAW_TEXT_FILES["lbl"]) if "labels" in fields else None
    names = None if label_file is None else _label_uids(label_file)
    texts: list[str] = []
    groups: list[Group] = []
    labels, num_labels = CsrBuilder(), 0
    for where, line in numbered_lines(path):
        row = parse_object(where, line)
        if "text" in fields:
            texts.append(_text(row, where))
        if "labels" in fields:
            targets, relevances = _targets(row, _MOST if names is None else len(names), where)
            labels.add_row(targets, relevances)
            num_labels = max(num_labels, 1 + max(targets, default=-1))
        if group_field is not None:
            groups.append(group_of(row, group_field, where))
    names = _numbers_as_names(labels, num_labels, path) if names is None else names
    return Contents.of(fields, texts, _as_relevances(labels, len(names)), names, groups)


def _label_uids(path: Path) -> list[str]:
    uids: dict[str, None] = {}
    for where, line in numbered_lines(path):
        # Some titles in these files are not UTF-8; uids are plain.
        row = parse_object(where, line.decode("utf-8", "replace").encode())
        if "uid" not in row:
            raise DataError(f"{where}: the label has no 'uid'; it has {sorted(row)}")
        uid = str(row["uid"]) if type(row["uid"]) is int else check_text(row["uid"], "uid", where)
        if uid in uids:
            raise DataError(f"{where}: the uid {uid!r} stands there twice")
        uids[uid] = None
    return list(uids)


def _text(row: dict[str, Any], where: str) -> str:
    if "title" not in row and "content" not in row:
        raise DataError(f"{where}: the row has neither 'title' nor 'content', but {sorted(row)}; {_OTHER_NAME}")
    parts = [check_text(row.get(name, ""), name, where) for name in ("title", "content")]
    return "\n".join(filter(None, parts))


def _targets(row: dict[str, Any], num_labels: int, where: str) -> tuple[Sequence[int], Sequence[float] | None]:
    labels, relevances = row.get("target_ind"), row.get("target_rel")
    if not isinstance(labels, list):
        raise DataError(f"{where}: 'target_ind' must be a list of label numbers, got {labels!r}; {_OTHER_NAME}")
    for label in labels:
        if type(label) is not int or not 0 <= label < num_labels:
            raise DataError(f"{where}: label {label!r} is none of the numbers 0 to {num_labels - 1}")
    if relevances is not None:
        check_relevances(relevances, len(labels), where)
    return labels, relevances


def read_pairs(path: Path, shape: tuple[int, int]) -> sp.csr_matrix:
    """The pairs "row label" of a `filter_labels_*.txt`, which don't count in an evaluation, as a CSR matrix of ones.

    Args:
        path: the file.
        shape: N and L of the data set.

    Raises:
        DataError: the file has something else than such pairs.
        OSError: it can't be read.
    """
    try:
        with warnings.catch_warnings():
            # There may be none.
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            pairs = np.loadtxt(path, np.int64, ndmin=2, comments=None)
    except ValueError as error:
        raise DataError(f"{path}: expected two whole numbers a line, a row and a label: {error}") from error
    if not pairs.size:
        return sp.csr_matrix(shape, dtype=np.float32)
    if pairs.shape[1] != 2:
        raise DataError(f"{path}: expected two whole numbers a line, a row and a label; there are {pairs.shape[1]}")
    if len(bad := np.flatnonzero((pairs < 0).any(1) | (pairs >= shape).any(1))):
        row, label = pairs[bad[0]]
        raise DataError(
            f"{path}:{bad[0] + 1}: there is no row {row} with a label {label} in a set of {shape[0]} rows and "
            f"{shape[1]} labels: is this another data set's file, or of its other half?"
        )
    return sp.csr_matrix((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), shape=shape)


class _Header(NamedTuple):
    num_rows: int
    num_features: int
    num_labels: int


def read_bag_of_words(path: Path, fields: Container[str]) -> Contents:
    """A file of the bag-of-words format: features as they are in the file; labels are called by their numbers.

    Raises:
        DataError: a line is not of the format; the message says which and why.
        OSError: the file can't be read.
    """
    lines = numbered_lines(path)
    header = _read_header(path, lines)
    features, labels = CsrBuilder(), CsrBuilder()
    count = 0
    while block := list(islice(lines, _LINES_AT_ONCE)):
        count += len(block)
        _add_block(block, header, features if "text" in fields else None, labels)
    if count != header.num_rows:
        raise DataError(f"{path}: the first line says {header.num_rows} rows, but {count} follow: is the file whole?")
    return Contents.of(
        fields,
        features.finish(header.num_features),
        _as_relevances(labels, header.num_labels),
        _numbers_as_names(labels, header.num_labels, path) if "labels" in fields else [],
    )


def _read_header(path: Path, lines: Iterator[tuple[str, bytes]]) -> _Header:
    _, line = next(lines, ("", b""))
    parts = line.split()
    # Of more digits Python makes no integers.
    if len(parts) != 3 or not all(part.isdigit() and len(part) <= 10 and int(part) <= _MOST for part in parts):
        raise DataError(
            f"{path}:1: expected 'N F L', the numbers of rows, features and labels of a bag-of-words file, "
            f"each at most {_MOST:,}, got {line[:60]!r}; JSON lines end in .jsonl"
        )
    return _Header(*map(int, parts))


def _numbers_as_names(labels: CsrBuilder, num_labels: int, path: Path) -> list[str]:
    """Names of labels that have only numbers; these take memory, which a few bytes must not ask for."""
    if num_labels > max(_LABELS_BELIEVED, 16 * len(labels)):
        raise DataError(
            f"{path}: there should be {num_labels:,} labels, but all rows together have {len(labels):,}: "
            f"are the numbers of labels right? Above {_LABELS_BELIEVED:,}, one in 16 must occur; "
            "a few rows of so large a set can be given as JSON lines"
        )
    return list(map(str, range(num_labels)))


def _as_relevances(labels: CsrBuilder, num_labels: int) -> sp.csr_matrix:
    matrix = labels.finish(num_labels)
    np.minimum(matrix.data, 1, out=matrix.data)
    return matrix


def _add_block(
    block: Sequence[tuple[str, bytes]], header: _Header, features: CsrBuilder | None, labels: CsrBuilder
) -> None:
    """Adds some lines, all at once, which is many times faster than number by number."""
    try:
        parts = [line.rstrip().partition(b" ") for _, line in block]
        label_rows = _parse_labels([part for part, _, _ in parts], header.num_labels)
        if features is not None:
            feature_rows = _parse_features([part for _, _, part in parts], header.num_features)
    except ValueError as error:
        where, _ = block[0]
        if len(block) == 1:
            raise DataError(f"{where}: {error}") from error
        for line in block:
            _add_block([line], header, features, labels)
        raise AssertionError(f"{where}: a block is wrong, but none of its lines") from error
    labels.add_rows(*label_rows)
    if features is not None:
        features.add_rows(*feature_rows)


_Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]


def _parse_labels(parts: Sequence[bytes], num_labels: int) -> _Rows:
    counts = np.array([part.count(b",") + 1 if part else 0 for part in parts], np.int64)
    numbers = _numbers(b",".join(filter(None, parts)), np.dtype(np.int64), ",")
    if len(numbers) != counts.sum():
        raise ValueError("labels must be whole numbers with a comma between each two, and a space behind the last")
    _check_range("label", numbers, num_labels)
    return counts, numbers.astype(np.int32), np.ones(len(numbers), np.float32)


def _parse_features(parts: Sequence[bytes], num_features: int) -> _Rows:
    counts = np.array([part.count(b":") for part in parts], np.int64)
    spaced = b" ".join(b" ".join(parts).split())
    numbers = _numbers(spaced.replace(b":", b" "), np.dtype(np.float64), " ")
    # What is neither a number nor between two: a colon, a space, a colon, and so on.
    between = spaced.translate(None, _ALL_BUT_SPACES_AND_COLONS)
    if len(numbers) != 2 * counts.sum() or between != b" ".join([b":"] * counts.sum()):
        raise ValueError("features must be pairs NUMBER:VALUE with a space between each two")
    ids, values = numbers[::2], numbers[1::2]
    if (ids != np.floor(ids)).any():
        raise ValueError(f"feature {ids[ids != np.floor(ids)][0]} is no whole number")
    _check_range("feature", ids, num_features)
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a feature's value is not finite as float32")
    return counts, ids.astype(np.int32), values


def _numbers(text: bytes, dtype: np.dtype[Any], separator: str) -> npt.NDArray[Any]:
    if not text.strip():
        return np.empty(0, dtype)
    with warnings.catch_warnings():
        # How NumPy says that something is no number.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return np.fromstring(text, dtype, sep=separator)
        except (ValueError, DeprecationWarning):
            kind = "whole numbers" if dtype.kind == "i" else "numbers"
            shown = json.dumps(text[:60].decode("utf-8", "replace"))
            raise ValueError(f"expected {kind}, got {shown}") from None


def _check_range(what: str, numbers: npt.NDArray[Any], count: int) -> None:
    if len(outside := numbers[(numbers < 0) | (numbers >= count)]):
        raise ValueError(f"{what} {outside[0]:g} is none of the numbers 0 to {count - 1} that the first line allows")
