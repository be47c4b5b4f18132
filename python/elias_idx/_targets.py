"""What scikit-learn users give as y: one label a row, an indicator, or lists of labels. N rows, L labels."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from elias_idx.data import is_sparse
from elias_idx.data.labels import CsrBuilder
from elias_idx.errors import DataError

TargetKind = Literal["single", "lists", "dense", "sparse"]


class Targets(NamedTuple):
    """The labels of N rows.

    Attributes:
        kind: one label a row, lists of labels, or an indicator, dense or sparse.
        classes: the labels, ascending, [L]; of an indicator, the numbers of its columns.
        matrix: which row has which of them, float32 CSR [N, L].
    """

    kind: TargetKind
    classes: npt.NDArray[Any]
    matrix: sp.csr_matrix


def read_targets(y: Any) -> Targets:
    """Reads y in whichever form it is.

    A list (or another one-dimensional sequence) of collections holds the labels of each row, whatever is in them; an
    indicator is an array of two dimensions or a sparse matrix.

    Raises:
        ValueError: y is None, no indicator, or continuous.
        DataError: a list holds something that can't be a label.
    """
    match kind := _kind(y):
        case "lists":
            return _of_lists(y)
        case "single":
            classes, ids = np.unique(_single(y), return_inverse=True)
            matrix = sp.csr_matrix((np.ones(len(ids)), ids, np.arange(len(ids) + 1)), (len(ids), len(classes)))
        case _:
            matrix = _indicator(y)
            classes = np.arange(matrix.shape[1])
    return Targets(kind, classes, matrix.astype(np.float32))


def labels_by_row(y: Any) -> Iterator[Collection[Any]]:
    """The labels of each row; those of an indicator are the numbers of its columns.

    Raises:
        ValueError: as `read_targets`.
    """
    match _kind(y):
        case "lists":
            yield from y
        case "single":
            yield from ([label] for label in _single(y).tolist())
        case _:
            matrix = _indicator(y)
            yield from (row.tolist() for row in np.split(matrix.indices, matrix.indptr[1:-1]))


def label_names(classes: npt.NDArray[Any]) -> list[str]:
    """A name for each label: itself as a string where that tells them all apart."""
    names = [str(label) for label in classes.tolist()]
    if len(set(names)) == len(names):
        return names
    return [f"{number}: {name}" for number, name in enumerate(names)]


def _kind(y: Any) -> TargetKind:
    if y is None:
        raise ValueError("EliasClassifier requires y to be passed, but the target y is None")
    if is_sparse(y):
        return "sparse"
    if (isinstance(y, Sequence) or getattr(y, "ndim", 0) == 1) and _is_labels(next(iter(y), None)):
        return "lists"
    array = np.asarray(y)
    return "dense" if array.ndim == 2 and array.shape[1] > 1 else "single"


def _is_labels(row: Any) -> bool:
    """Whether a row of y holds labels rather than being one."""
    return isinstance(row, Collection) and not isinstance(row, (str, bytes))


def _single(y: Any) -> npt.NDArray[Any]:
    array = column_or_1d(y, warn=True)
    check_classification_targets(array)
    return array


def _indicator(y: Any) -> sp.csr_matrix:
    """A canonical CSR matrix of ones."""
    if not is_sparse(y) and (kind := type_of_target(y)) != "multilabel-indicator":
        raise ValueError(f"y of two dimensions must be an indicator of 0 and 1, got {kind} targets")
    matrix = sp.csr_matrix(y, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if not (matrix.data == 1).all():
        raise ValueError("a sparse y must be an indicator of 0 and 1: it holds other numbers")
    return matrix


def _of_lists(y: Sequence[Collection[Hashable]]) -> Targets:
    ids: dict[Hashable, int] = {}
    builder = CsrBuilder()
    for number, row in enumerate(y):
        if not _is_labels(row):
            raise DataError(f"row {number} of y must be a list of labels, as in the first row, got {row!r}")
        try:
            builder.add_row([ids.setdefault(label, len(ids)) for label in dict.fromkeys(row)])
        except TypeError as error:
            raise DataError(f"row {number} of y holds something that can't be a label: {error}") from error
    labels = _ascending(ids)
    classes = np.empty(len(labels), np.int64 if all(type(label) is int for label in labels) else object)
    # One by one, since NumPy takes tuples for rows.
    for column, label in enumerate(labels):
        classes[column] = label
    renumbered = np.empty(len(labels), np.int32)
    renumbered[[ids[label] for label in labels]] = np.arange(len(labels))
    return Targets("lists", classes, builder.finish(len(labels), renumbered))


def _ascending(labels: Collection[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:  # of several kinds
        return sorted(labels, key=lambda label: (type(label).__name__, repr(label)))
