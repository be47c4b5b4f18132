"""Labels of many rows as sparse matrices, without an object for each. N rows, L labels."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data.lines import is_utf8
from elias_idx.errors import DataError

# What float32 does not make 0 of.
_LEAST_RELEVANCE = float(np.finfo(np.float32).smallest_subnormal)


class CsrBuilder:
    """A float32 CSR matrix that grows by rows, 8 bytes an entry."""

    def __init__(self) -> None:
        self._counts = array("q")
        self._columns = array("i")
        self._values = array("f")

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._columns)

    def add_row(self, columns: Sequence[int], values: Sequence[float] | None = None) -> None:
        """Adds a row; without values, of ones."""
        self._counts.append(len(columns))
        self._columns.extend(columns)
        self._values.extend(values if values is not None else [1.0] * len(columns))

    def add_rows(
        self, counts: npt.NDArray[np.int64], columns: npt.NDArray[np.int32], values: npt.NDArray[np.float32]
    ) -> None:
        """Adds several rows, each of the given number of entries."""
        self._counts.frombytes(counts.tobytes())
        self._columns.frombytes(columns.tobytes())
        self._values.frombytes(values.tobytes())

    def finish(self, num_columns: int, renumbered: npt.NDArray[np.int32] | None = None) -> sp.csr_matrix:
        """The matrix, each row's columns ascending; entries that repeat are added up.

        Args:
            num_columns: how many columns there are.
            renumbered: new numbers of the columns.
        """
        columns = np.frombuffer(self._columns, np.int32)
        if renumbered is not None:
            columns = renumbered[columns]
        indptr = np.concatenate([[0], np.frombuffer(self._counts, np.int64).cumsum()])
        values = np.frombuffer(self._values, np.float32)
        matrix = sp.csr_matrix((values, columns, indptr), shape=(len(self._counts), num_columns))
        matrix.sum_duplicates()
        return matrix


class LabelCollector:
    """Labels by name, row by row; the names are found on the way."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._rows = CsrBuilder()

    def add(self, labels: Iterable[str], relevances: Sequence[float] | None, where: str) -> None:
        """Adds a row's labels and, unless all are fully relevant, their relevances in (0, 1].

        Raises:
            DataError: a label or relevance is none; `where` says in which row.
        """
        labels = list(labels)
        try:
            ids = [self._ids[label] for label in labels]
        except (KeyError, TypeError):
            check_labels(labels, where)
            ids = [self._ids.setdefault(label, len(self._ids)) for label in labels]
        if relevances is not None:
            check_relevances(relevances, len(ids), where)
        self._rows.add_row(ids, relevances)

    def finish(self) -> tuple[sp.csr_matrix, list[str]]:
        """The relevances, float32 CSR [N, L], and the L names in order; a label that repeats adds up to 1 at most."""
        names = sorted(self._ids)
        renumbered = np.empty(len(names), np.int32)
        renumbered[[self._ids[name] for name in names]] = np.arange(len(names))
        matrix = self._rows.finish(len(names), renumbered)
        np.minimum(matrix.data, 1, out=matrix.data)
        return matrix, names


def check_labels(labels: Iterable[Any], where: str) -> None:
    """Raises a DataError unless all labels are strings that UTF-8 can hold."""
    for label in labels:
        if not isinstance(label, str):
            raise DataError(f"{where}: labels must be strings, got {label!r}")
        if not is_utf8(label):
            raise DataError(f"{where}: label {label!r} has a lone surrogate, which UTF-8 can't hold")


def check_relevances(relevances: Any, num_labels: int, where: str) -> None:
    """Raises a DataError unless there is a relevance in (0, 1], also as float32, for each label."""
    if not isinstance(relevances, (list, tuple, np.ndarray)) or len(relevances) != num_labels:
        raise DataError(f"{where}: 'relevance' must be a list of {num_labels} numbers, one a label: got {relevances!r}")
    for relevance in relevances:
        is_number = isinstance(relevance, (int, float, np.number)) and not isinstance(relevance, bool)
        if not is_number or not _LEAST_RELEVANCE <= relevance <= 1:
            raise DataError(f"{where}: relevances must be over 0 and at most 1, got {relevance!r} (in float32)")


def checked_matrix(labels: Any, names: Sequence[str]) -> sp.csr_matrix:
    """Relevances as canonical float32 CSR [N, L]; entries that repeat add up to 1 at most, stored zeros are none.

    Args:
        labels: a sparse matrix, which stays as it is.
        names: of its columns.

    Raises:
        DataError: the names are not L different strings, or something is no relevance in (0, 1].
    """
    matrix = sp.csr_matrix(labels)
    if isinstance(names, str):
        raise DataError(f"label_names must be a list of strings, got the string {names!r}")
    if matrix.shape[1] != len(names):
        raise DataError(f"labels has {matrix.shape[1]} columns, but there are {len(names)} label names")
    check_labels(names, "label_names")
    if len(set(names)) != len(names):
        raise DataError("label_names must be unique: a name stands there twice")
    if not ((matrix.data >= 0) & (matrix.data <= 1)).all():
        raise DataError("labels must hold relevances over 0 and at most 1")
    if not (matrix.has_canonical_format and matrix.data.all()):
        matrix = matrix.astype(np.float64)
        matrix.eliminate_zeros()
        matrix.sum_duplicates()
        np.minimum(matrix.data, 1, out=matrix.data)
    matrix = matrix.astype(np.float32, copy=False)
    if not matrix.data.all():
        raise DataError("labels must hold relevances over 0, as float32 too")
    return matrix


class LabelVocabulary:
    """Label names and their ids, 0 to L−1 in the order of the names.

    Args:
        names: each once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names: list[str] = list(names)
        self._ids = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def renumber(self, labels: sp.csr_matrix, names: Sequence[str]) -> tuple[sp.csr_matrix, list[str]]:
        """Gives labels that are numbered by other names this vocabulary's ids.

        Labels outside the vocabulary that occur get columns of their own, after the known ones.

        Args:
            labels: CSR [N, L'].
            names: of its columns.

        Returns:
            The CSR matrix [N, L + U] and the U names that the vocabulary lacks.
        """
        occurs = np.zeros(len(names), bool)
        occurs[labels.indices] = True
        unseen = sorted(name for name, used in zip(names, occurs, strict=True) if used and name not in self._ids)
        ids = {name: len(self) + number for number, name in enumerate(unseen)}
        # What neither is known nor occurs has no entry to renumber.
        column = np.array([self._ids.get(name, ids.get(name, -1)) for name in names], np.int64)
        shape = (labels.shape[0], len(self) + len(unseen))
        renumbered = sp.csr_matrix((labels.data, column[labels.indices], labels.indptr), shape=shape)
        renumbered.sort_indices()
        return renumbered, unseen
