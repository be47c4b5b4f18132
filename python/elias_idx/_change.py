"""The part of an index that changes which labels there are.

Shapes: C clusters, L labels, n new ones, D' label dim, F sparse features, N training texts.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from elias_idx import _arrays
from elias_idx import _core as core
from elias_idx._fusion import as_counts, as_neighbours, as_ranker

_Self = TypeVar("_Self", bound="WithChanges")


class NewEvidence(NamedTuple):
    """What an index with evidence is told of n new labels, as `Index.with_evidence` is of all.

    What is left out is that of labels without training texts.
    """

    label_counts: npt.ArrayLike | None = None
    """Training texts that have each label [n]."""
    ranker: tuple[Any, npt.ArrayLike] | None = None
    """Weights, a CSR matrix [n, F], and biases [n]."""
    label_texts: Any = None
    """The features of the labels' own texts, CSR [n, F]."""
    cooccurrence: Any = None
    """Which labels go together, CSR [L + n, L + n], of pairs with a new label alone."""
    neighbours: tuple[Any, Any] | None = None
    """Further training texts' features, CSR [N, F], and their labels, CSR [N, L + n]."""


class WithChanges:
    """What `Index` has for labels that leave it or join it."""

    __slots__ = ()

    _core: core.Index

    @classmethod
    def _of(cls: type[_Self], inner: core.Index) -> _Self:
        raise NotImplementedError

    def remove_labels(
        self: _Self, labels: Any, *, path: str | os.PathLike[str] | None = None, overwrite: bool = False
    ) -> _Self:
        """Makes the same index without some labels.

        All that is known of the others stays as it is, and they keep their order: their ids close up, so that
        the label that followed a removed one has its id. Training texts that vote stay, too, without these labels.

        Args:
            labels: The labels to remove: ids, in any order and repeated or not; or names; or a boolean mask [L].
            path: A folder to write the new index to, from which it is mapped then; else it is made in memory.
            overwrite: Whether an index at `path` may be replaced, this one too.

        Raises:
            ValueError: an id or a name that no label has, a mask of another length, all labels there are.
            TypeError: neither ids, names nor a mask.
            OSError: as `save`.
            FormatError: this index was loaded from files that are damaged.
        """
        folder = None if path is None else os.fspath(path)
        return self._of(self._core.remove_labels(self._label_ids(labels), folder, bool(overwrite)))

    def add_labels(
        self: _Self,
        weights: npt.ArrayLike,
        bias: npt.ArrayLike,
        edges: Any,
        names: Sequence[str] | None = None,
        *,
        evidence: NewEvidence | None = None,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> _Self:
        """Makes the same index with n more labels, whose ids are L, L + 1, ...

        All that is known of the others stays as it is; so does the fusion. Classifiers are stored in the index's dtype.

        Args:
            weights: The new labels' classifiers [n, D'].
            bias: Their biases [n].
            edges: The edges that lead to them, a CSR matrix [C, n] of weights in (0, 1]: columns to be added to the
                adjacency. A label without any is only found where it has votes of neighbours.
            names: n strings, for an index with label names, each another one than those that there are.
            evidence: For searches with sparse features, what there is to say of the new labels beside the dense model.
            path: A folder to write the new index to, from which it is mapped then; else it is made in memory.
            overwrite: Whether an index at `path` may be replaced, this one too.

        Raises:
            ValueError: shapes that don't fit together, weights that aren't finite or that the dtype can't hold, rows
                whose columns don't ascend, names for an index without names or none for one with them, names that
                aren't unique, evidence of parts that the index lacks.
            TypeError: values that aren't numbers, names that aren't strings.
            OSError: as `save`.
            FormatError: this index was loaded from files that are damaged.
        """
        rows = _arrays.to_float32("weights", _arrays.as_array("weights", weights, ndim=(2,)))
        biases = _arrays.to_float32("bias", _arrays.as_array("bias", bias, ndim=(1,)))
        if rows.shape != (expected := (len(biases), self._core.label_dim)):
            raise ValueError(f"weights must be [new labels, label dim] = {list(expected)}, got {list(rows.shape)}")
        added = self._core.add_labels(
            (rows, biases, _arrays.as_sparse("edges", edges, (self._core.num_clusters, len(biases)))),
            None if names is None else _arrays.as_name_list("names", names, len(biases)),
            self._as_evidence(evidence or NewEvidence(), len(biases)),
            None if path is None else os.fspath(path),
            bool(overwrite),
        )
        return self._of(added)

    def _label_ids(self, labels: Any) -> _arrays.IntArray:
        """The ids of labels that are given by ids, names or a mask."""
        given = _arrays.as_labels(labels)
        if isinstance(given, list):
            return self._core.find_labels(given)
        if given.dtype != bool:
            return given
        _arrays.check_mask(given, self._core.num_labels)
        return np.flatnonzero(given)

    def _as_evidence(self, given: NewEvidence, num_new: int) -> Any:
        """What the core takes."""
        # Of an index without evidence, which refuses what is given, no shape says anything.
        num_features, num_labels = self._core.num_features or 1, self._core.num_labels + num_new
        of_labels = (num_new, num_features)
        square = (num_labels, num_labels)
        return (
            None if given.label_counts is None else as_counts(given.label_counts),
            None if given.ranker is None else as_ranker(given.ranker, of_labels),
            None if given.label_texts is None else _arrays.as_sparse("label_texts", given.label_texts, of_labels),
            None if given.cooccurrence is None else _arrays.as_sparse("cooccurrence", given.cooccurrence, square),
            None if given.neighbours is None else as_neighbours(given.neighbours, num_features, num_labels),
        )
