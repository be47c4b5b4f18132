"""Inputs and their labels. N inputs, L labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data.contents import Inputs, is_sparse, num_rows
from elias_idx.data.groups import Group, group_numbers
from elias_idx.data.label_texts import LabelText, LabelTexts, texts_of_labels
from elias_idx.data.labels import LabelCollector, LabelVocabulary, checked_matrix
from elias_idx.errors import DataError

_ROWS_AT_ONCE = 65536


class TrainingSet:
    """Inputs and their labels, to train or evaluate on.

    Attributes:
        inputs: N texts, a float array of embeddings [N, D] for the precomputed encoder, or sparse features as a
            float32 CSR matrix [N, F] for the bag encoder.
        labels: how relevant each label is to each input, in (0, 1]: float32 CSR [N, L], canonical.
        label_names: the L labels' names, each once.
        groups: a number for each input, int64 [N], the same one for inputs that belong together (of one patient, of one
            author, ...), which are held out together or not at all; None if each stands alone.
        label_texts: what the labels are called; None if they have no texts.
    """

    inputs: Inputs
    labels: sp.csr_matrix
    label_names: Sequence[str]
    groups: npt.NDArray[np.int64] | None
    label_texts: LabelTexts | None

    def __init__(
        self,
        inputs: Inputs,
        labels: Sequence[Sequence[str]] | sp.csr_matrix,
        relevances: Sequence[Sequence[float]] | None = None,
        *,
        label_names: Sequence[str] | None = None,
        groups: Sequence[Group] | npt.NDArray[np.int64] | None = None,
        label_texts: LabelTexts | None = None,
    ) -> None:
        """Takes labels as names or as a matrix.

        Args:
            inputs: see `TrainingSet.inputs`.
            labels: the names of each input's labels; or, with `label_names`, relevances as a CSR matrix [N, L].
            relevances: of the labels where they are given by name; without, all are 1.
            label_names: of the matrix' columns.
            groups: what each input's group is called by; None for an input that stands alone, or for all of them.
            label_texts: see `TrainingSet.label_texts`; `with_label_texts` makes them of texts by label.

        Raises:
            DataError: nothing has a label, or something is of the wrong type or number.
        """
        if label_names is None:
            self.labels, self.label_names = labels_by_name(labels, relevances)
        else:
            if relevances is not None:
                raise DataError("relevances go with labels by name: a matrix of labels holds its own")
            self.labels, self.label_names = checked_matrix(labels, label_names), label_names
        self.inputs = _checked_inputs(inputs)
        if num_rows(self.inputs) != self.labels.shape[0]:
            raise DataError(f"there are {num_rows(self.inputs)} inputs, but labels for {self.labels.shape[0]}")
        self.groups = None if groups is None else group_numbers(groups)
        if self.groups is not None and len(self.groups) != len(self):
            raise DataError(f"there are {len(self)} inputs, but groups for {len(self.groups)}")
        self.label_texts = label_texts
        if label_texts is not None and any(len(texts) != len(self.label_names) for texts in label_texts):
            raise DataError(f"there are {len(self.label_names)} labels, but texts for another number of them")
        if not self.labels.nnz:
            raise DataError("the data set is empty: there is no row with a label")

    def __len__(self) -> int:
        return self.labels.shape[0]

    def fingerprint(self) -> str:
        """SHA-256 of all inputs, labels, names, groups and label texts; another set has another one."""
        digest = hashlib.sha256()
        groups = [] if self.groups is None else [self.groups]
        for part in (self.inputs, self.labels, self.label_names, *groups, *(self.label_texts or [])):
            _update(digest, part)
        return digest.hexdigest()

    def without_unused_labels(self) -> TrainingSet:
        """This set, but without the labels that no input has: nothing can be learned of them."""
        used = np.bincount(self.labels.indices, minlength=len(self.label_names)) > 0
        if used.all():
            return self
        names = [name for name, kept in zip(self.label_names, used, strict=True) if kept]
        column = np.cumsum(used, dtype=np.int32) - 1
        parts = (self.labels.data, column[self.labels.indices], self.labels.indptr)
        labels = sp.csr_matrix(parts, shape=(len(self), len(names)))
        texts = None if self.label_texts is None else self.label_texts.take(np.flatnonzero(used))
        return TrainingSet(self.inputs, labels, label_names=names, groups=self.groups, label_texts=texts)

    def with_label_texts(self, texts: Mapping[str, LabelText]) -> TrainingSet:
        """This set with texts for its labels; see `elias_idx.data.read_label_texts`.

        Raises:
            DataError: none of its labels has a text.
        """
        label_texts = texts_of_labels(texts, self.label_names)
        return TrainingSet(
            self.inputs, self.labels, label_names=self.label_names, groups=self.groups, label_texts=label_texts
        )

    def subset(self, rows: npt.NDArray[np.int64]) -> TrainingSet:
        """The set of some inputs, by their numbers; all labels keep their columns.

        Raises:
            DataError: none of them has a label.
        """
        whole = self.inputs
        inputs = whole[rows] if is_sparse(whole) or isinstance(whole, np.ndarray) else [whole[row] for row in rows]
        groups = None if self.groups is None else self.groups[rows]
        return TrainingSet(
            inputs, self.labels[rows], label_names=self.label_names, groups=groups, label_texts=self.label_texts
        )

    def joined(self, other: TrainingSet) -> TrainingSet:
        """This set's inputs and then another's; labels that only the other one has come after this one's.

        Where this set's labels have texts, those that only the other one has keep theirs.

        Raises:
            DataError: the inputs are of two kinds or sizes, or one of the sets has groups, whose numbers are its own.
        """
        if self.groups is not None or other.groups is not None:
            raise DataError("sets with groups can't be joined: give the groups of the joined set")
        theirs, unseen = LabelVocabulary(self.label_names).renumber(other.labels, other.label_names)
        parts = (self.labels.data, self.labels.indices, self.labels.indptr)
        ours = sp.csr_matrix(parts, shape=(len(self), theirs.shape[1]))
        texts = self.label_texts
        if texts is not None:
            texts = LabelTexts(*([*ours, *new] for ours, new in zip(texts, other._texts_of(unseen), strict=True)))
        return TrainingSet(
            _joined_inputs(self.inputs, other.inputs),
            sp.vstack([ours, theirs], format="csr"),
            label_names=[*self.label_names, *unseen],
            label_texts=texts,
        )

    def _texts_of(self, labels: Sequence[str]) -> LabelTexts:
        """The texts of some of its labels, by name; empty ones where it has none."""
        if self.label_texts is None:
            return LabelTexts([""] * len(labels), [""] * len(labels))
        column = {name: number for number, name in enumerate(self.label_names)}
        return self.label_texts.take(column[name] for name in labels)


def _joined_inputs(first: Inputs, second: Inputs) -> Inputs:
    kinds = [(type(inputs), inputs.shape[1:]) if hasattr(inputs, "shape") else str for inputs in (first, second)]
    if kinds[0] != kinds[1]:
        raise DataError("the inputs of sets that are joined must be of one kind and size")
    if is_sparse(first):
        return sp.vstack([first, second], format="csr")
    return np.concatenate([first, second]) if isinstance(first, np.ndarray) else [*first, *second]


def labels_by_name(
    labels: Sequence[Sequence[str]], relevances: Sequence[Sequence[float]] | None = None
) -> tuple[sp.csr_matrix, list[str]]:
    """Lists of names as relevances, float32 CSR [N, L], and the L names in order.

    Raises:
        DataError: something is of the wrong type or number; the message says in which row.
    """
    if is_sparse(labels):
        raise DataError("a matrix of labels needs the names of its columns: give label_names too")
    if relevances is not None and len(relevances) != len(labels):
        raise DataError(f"there are labels for {len(labels)} inputs, but relevances for {len(relevances)}")
    collector = LabelCollector()
    for number, row in enumerate(labels):
        if isinstance(row, str):
            raise DataError(f"row {number}: labels must be a list of strings, got the string {row!r}")
        collector.add(row, None if relevances is None else relevances[number], f"row {number}")
    return collector.finish()


def _checked_inputs(inputs: Inputs) -> Inputs:
    if is_sparse(inputs):
        return sp.csr_matrix(inputs, dtype=np.float32)
    if isinstance(inputs, str):
        raise DataError("inputs must be a sequence of strings: put a single text in a list")
    if not isinstance(inputs, np.ndarray):
        for number, text in enumerate(inputs):
            if not isinstance(text, str):
                raise DataError(f"row {number}: the text must be a string, got {type(text).__name__}")
    return inputs


def _update(digest: hashlib._Hash, part: Inputs) -> None:
    """Adds a matrix or strings to a digest piece by piece, each preceded by its kind and size."""
    if is_sparse(part):
        digest.update(f"sparse {part.shape} {part.nnz}".encode())
        for array in (part.indptr.astype(np.int64), part.indices, part.data):
            _update(digest, array)
    elif isinstance(part, np.ndarray):
        digest.update(f"array {part.dtype} {part.shape}".encode())
        for start in range(0, len(part), _ROWS_AT_ONCE):
            digest.update(np.ascontiguousarray(part[start : start + _ROWS_AT_ONCE]).data)
    else:
        digest.update(f"strings {len(part)}".encode())
        for text in part:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
