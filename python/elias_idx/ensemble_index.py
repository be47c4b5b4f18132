"""Several indexes over the same label names, searched at once; the scores are the means of theirs.

Shapes: Q queries, D dim, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elias_idx import _arrays
from elias_idx import _core as core
from elias_idx._arrays import IntArray, SparseArrays
from elias_idx._core import LabelFilter
from elias_idx.index import Index, _empty_results, _first_if
from elias_idx.results import SearchResult

if TYPE_CHECKING:
    from elias_idx._core import _Filter

MIN_DEPTH = 200
"""Labels that each index finds, at least: see docs/experiments.md for what fewer or more change."""

# What the members find for so many queries is in memory at once.
_QUERIES_AT_ONCE = 16384


@dataclass(frozen=True)
class EnsembleFilter:
    """Labels that a search of an `EnsembleIndex` may return; made by its `label_filter`. Its length is their number.

    Attributes:
        members: the same as filters of the members, each of the labels that it knows.
        count: how many labels there are.
    """

    members: tuple[LabelFilter, ...]
    count: int

    def __len__(self) -> int:
        return self.count


class EnsembleIndex:
    """Indexes over the same label names, in any order; immutable and thread-safe.

    The ensemble's labels are those of the first index with their ids, and after them those that only others know. A
    label's score is the mean of its scores in all indexes. It is 0 in one that doesn't know it, and in one that doesn't
    find it among its best 2k labels, or `MIN_DEPTH` if these are more; that far down scores are near 0 anyway. With
    sparse features it is the best R that count, the candidates of the index's fusion, or k if these are more.

    Args:
        indexes: two or more, with label names.

    Raises:
        ValueError: there are fewer, or one has no label names.
        FormatError: label names are damaged.
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        if len(indexes) < 2:
            raise ValueError(f"an ensemble has at least 2 members, got {len(indexes)}")
        self.indexes = tuple(indexes)
        self._labels, self._further = core.shared_labels(indexes[0]._core, [index._core for index in indexes[1:]])
        # In the members' own ids, −1 for labels that one lacks.
        self._own = [None if labels is None else self._inverse(labels) for labels in self._labels]

    def _inverse(self, labels: npt.NDArray[np.uint32]) -> IntArray:
        own = np.full(self.num_labels, -1, np.int64)
        own[labels] = np.arange(len(labels))
        return own

    def _of_member(self, member: int, ids: IntArray) -> IntArray:
        """Labels in the ids of one of the indexes; −1 for those that it lacks."""
        own = self._own[member]
        return np.where(ids < self.indexes[member].num_labels, ids, -1) if own is None else own[ids]

    @property
    def num_labels(self) -> int:
        """L, labels that any index knows."""
        return self.indexes[0].num_labels + len(self._further)

    @property
    def num_shared_labels(self) -> int:
        """How many labels all indexes know."""
        ids = np.arange(self.num_labels)
        known = [self._of_member(member, ids) >= 0 for member in range(len(self.indexes))]
        return int(np.logical_and.reduce(known).sum())

    @property
    def dim(self) -> int:
        """D, the size of a query embedding.

        Raises:
            ValueError: it differs between the indexes.
        """
        dims = {index.dim for index in self.indexes}
        if len(dims) > 1:
            raise ValueError(f"the indexes take embeddings of different dims: {', '.join(map(str, sorted(dims)))}")
        return self.indexes[0].dim

    @property
    def nbytes(self) -> int:
        """Bytes of all indexes' tensors, mapped or in memory."""
        return sum(index.nbytes for index in self.indexes)

    def names(self, labels: npt.ArrayLike) -> Any:
        """The names of labels; as `Index.names`."""
        ids = _arrays.as_label_ids(labels, self.num_labels)
        flat, first = ids.ravel(), self.indexes[0]
        names = np.asarray(first.names(np.where(flat < first.num_labels, flat, -1)))
        for at in np.flatnonzero(flat >= first.num_labels):
            names[at] = self._further[flat[at] - first.num_labels]
        return names.reshape(ids.shape) if ids.ndim else names[0]

    @property
    def label_names(self) -> list[str]:
        """The names of all labels."""
        first = self.indexes[0]
        return [*first.names(np.arange(first.num_labels)), *self._further]

    def labels_of(self, member: int) -> npt.NDArray[np.uint32]:
        """The ensemble's ids of the labels of one of the indexes, in that one's order."""
        labels = self._labels[member]
        return np.arange(self.indexes[member].num_labels, dtype=np.uint32) if labels is None else labels

    def search(
        self,
        embeddings: npt.ArrayLike,
        k: int = 10,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        filter: Any = None,
        min_score: float | None = None,
        sparse: Any = None,
    ) -> SearchResult:
        """Finds the k labels of each query with the best mean scores.

        Args:
            embeddings: queries [Q, D], or one [D], which all indexes take.
            k: labels to return; as in `Index.search`.
            beam_size: B of each index; by default its own.
            shortlist_size: S of each index; by default its own.
            num_threads: as in `Index.search`.
            filter: as in `Index.search`, of this ensemble's labels.
            min_score: labels with a lower mean score are left out.
            sparse: the queries' sparse features, a CSR matrix [Q, F], as in `Index.search`: indexes with fusion give
                its scores then, others those of the dense model.

        Returns:
            Labels and scores, best first, equal scores by the smaller label.

        Raises:
            ValueError: as `Index.search`, or the indexes' dims differ, or `sparse` is given and none has fusion.
            TypeError: as `Index.search`.
            MemoryError: as `Index.search`.
        """
        queries, single = _arrays.as_embeddings(embeddings, self.dim)
        if sparse is not None and not any(index.has_fusion for index in self.indexes):
            raise ValueError("none of the indexes takes sparse features: leave sparse out")
        found = self.search_each(
            [queries] * len(self.indexes),
            k,
            beam_size=beam_size,
            shortlist_size=shortlist_size,
            num_threads=num_threads,
            filter=filter,
            min_score=min_score,
            sparse=[sparse if index.has_fusion else None for index in self.indexes],
        )
        return SearchResult(*_first_if(single, found))

    def search_each(
        self,
        embeddings: Sequence[npt.ArrayLike],
        k: int = 10,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        filter: Any = None,
        min_score: float | None = None,
        sparse: Sequence[Any] | None = None,
    ) -> SearchResult:
        """Searches each index for its own embeddings of the same queries; else as `search`.

        Args:
            embeddings: [Q, D] for each index.
            k: as in `search`, like what follows.
            beam_size: B.
            shortlist_size: S.
            num_threads: threads to use at most.
            filter: the labels that may be returned.
            min_score: the least mean score.
            sparse: for each index the queries' features [Q, F] for its fusion, or None for its dense model.
        """
        queries = [
            _arrays.as_embeddings(given, index.dim)[0] for given, index in zip(embeddings, self.indexes, strict=True)
        ]
        num_queries = len(queries[0])
        if any(len(own) != num_queries for own in queries):
            raise ValueError(f"all indexes need as many embeddings, got {', '.join(str(len(own)) for own in queries)}")
        k = _arrays.as_count("k", k)
        sizes = (
            _arrays.as_count_if_given("beam_size", beam_size),
            _arrays.as_count_if_given("shortlist_size", shortlist_size),
            _arrays.as_count_if_given("num_threads", num_threads),
        )
        least = None if min_score is None else _arrays.as_float("min_score", min_score)
        depth = max(MIN_DEPTH, 2 * k)
        filters = self._member_filters(filter, num_queries)
        features = [
            None if given is None else index._as_features(given, num_queries)
            for given, index in zip(sparse or [None] * len(self.indexes), self.indexes, strict=True)
        ]
        results = _empty_results(num_queries, k)
        # A search for nothing looks at all arguments.
        for start in range(0, max(num_queries, 1), _QUERIES_AT_ONCE):
            rows = slice(start, start + _QUERIES_AT_ONCE)
            members = [
                (index._core, own[rows], labels, _rows_of(allowed, rows), _sparse_rows(values, rows))
                for index, own, labels, allowed, values in zip(
                    self.indexes, queries, self._labels, filters, features, strict=True
                )
            ]
            core.search_ensemble(members, (results[0][rows], results[1][rows]), depth, *sizes, least)
        return SearchResult(*results)

    def label_filter(self, labels: Any) -> EnsembleFilter:
        """Makes a filter of labels for searches; as `Index.label_filter`, with this ensemble's ids, names or mask."""
        ids = self._label_ids(labels)
        filters = [index.label_filter(own) for index, own in zip(self.indexes, self.by_member(ids), strict=True)]
        return EnsembleFilter(tuple(filters), len(ids))

    def by_member(self, labels: Any) -> list[IntArray]:
        """For each member its ids of some labels, those that it knows; they are given as to `label_filter`."""
        ids = self._label_ids(labels)
        own = [self._of_member(member, ids) for member in range(len(self.indexes))]
        return [known[known >= 0] for known in own]

    def _label_ids(self, labels: Any) -> IntArray:
        """The ids of labels, each once, that are given by ids, names or a mask."""
        given = _arrays.as_labels(labels)
        if isinstance(given, list):
            return self._ids(given)
        if given.dtype != bool:
            return np.unique(_arrays.as_label_ids(given, self.num_labels, lowest=0))
        _arrays.check_mask(given, self.num_labels)
        return np.flatnonzero(given)

    def _ids(self, names: list[str]) -> IntArray:
        """The ids of labels, each once, by name."""
        further = {name: self.indexes[0].num_labels + at for at, name in enumerate(self._further)}
        first = [name for name in names if name not in further]
        ids = self.indexes[0]._core.find_labels(first)
        return np.unique(np.concatenate([ids, [further[name] for name in names if name in further]]).astype(np.int64))

    def _member_filters(self, given: Any, num_queries: int) -> list[_Filter | None]:
        """What the core takes for each member for the filter that the caller gives."""
        if given is None:
            return [None] * len(self.indexes)
        if isinstance(given, EnsembleFilter):
            return list(self._checked(given).members)
        if isinstance(given, (list, tuple)) and any(item is None or isinstance(item, EnsembleFilter) for item in given):
            return self._filters_of_queries(given, num_queries)
        if _arrays.is_csr(given):
            return self._filters_of_rows(given, num_queries)
        return list(self.label_filter(given).members)

    def _filters_of_queries(self, given: Sequence[Any], num_queries: int) -> list[_Filter | None]:
        for at, item in enumerate(given):
            if not (item is None or isinstance(item, EnsembleFilter)):
                raise TypeError(f"filter[{at}] must be an EnsembleFilter or None, got {type(item).__name__}")
        if len(given) != num_queries:
            raise ValueError(f"filter must have {num_queries} filters, one a query, got {len(given)}")
        return [
            [None if item is None else self._checked(item).members[member] for item in given]
            for member in range(len(self.indexes))
        ]

    def _checked(self, given: EnsembleFilter) -> EnsembleFilter:
        """The filter; of other indexes of the same number the core refuses it."""
        if len(given.members) != len(self.indexes):
            raise ValueError("the filter was made by another ensemble: make it again by this one's label_filter")
        return given

    def _filters_of_rows(self, given: Any, num_queries: int) -> list[_Filter | None]:
        indptr, labels, allowed = _arrays.as_filter_rows(given, (num_queries, self.num_labels))
        labels = _arrays.as_label_ids(labels, self.num_labels, lowest=0)
        filters: list[_Filter | None] = []
        for member in range(len(self.indexes)):
            own = self._of_member(member, labels)
            filters.append((indptr, np.maximum(own, 0), allowed & (own >= 0)))
        return filters

    def __repr__(self) -> str:
        return f"<elias_idx.EnsembleIndex of {len(self.indexes)} indexes: {self.num_labels} labels>"


def _rows_of(allowed: _Filter | None, rows: slice) -> _Filter | None:
    """The filters of some of the queries."""
    if isinstance(allowed, list):
        return allowed[rows]
    if isinstance(allowed, tuple):
        indptr, labels, counts = allowed
        offsets, entries = _cut(indptr, rows)
        return offsets, labels[entries], counts[entries]
    return allowed


def _sparse_rows(features: SparseArrays | None, rows: slice) -> SparseArrays | None:
    """The features of some of the queries."""
    if features is None:
        return None
    indptr, columns, values, num_columns = features
    offsets, entries = _cut(indptr, rows)
    return offsets, columns[entries], values[entries], num_columns


def _cut(indptr: IntArray, rows: slice) -> tuple[IntArray, slice]:
    """The offsets of some rows of a CSR matrix, from 0, and where their entries are."""
    offsets = indptr[rows.start : rows.stop + 1]
    return offsets - offsets[0], slice(offsets[0], offsets[-1])
