"""What the clusters of an index hold, and how labels hang on them.

C clusters, L labels, nnz edges of the adjacency.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from elias_idx.index import Index

# A label with more clusters is counted with these.
MOST_CLUSTERS = 10


class Related(NamedTuple):
    """Labels of a cluster that are like another label, the nearest first."""

    labels: npt.NDArray[np.uint32]
    cosines: npt.NDArray[np.float32]
    """Of their classifiers and its."""


class DividedLabel(NamedTuple):
    """A label that hangs on other clusters than the one that it began in, which is its home."""

    label: int
    home: int
    home_weight: float
    other: int
    """The best of the others."""
    other_weight: float


class Hanging(NamedTuple):
    """How labels hang on clusters: at the start of training on one each, until it learns which others lead to them."""

    indptr: npt.NDArray[np.int64]
    """Where each label's clusters start and end [L + 1]."""
    clusters: npt.NDArray[np.int32]
    """Those that lead to each label, by descending weight, of equal ones the first [nnz]."""
    best: npt.NDArray[np.int64]
    """The one with the largest weight, of equal ones the first; -1 for a label without any [L]."""
    homes: npt.NDArray[np.int64]
    """The cluster that each label began in; -1 where that isn't known, or the label was added later [L]."""
    home_weights: npt.NDArray[np.float32]
    """Its weight; 0 for a label that it no longer leads to [L]."""
    others: npt.NDArray[np.int64]
    """The best of the other clusters; -1 for a label without any [L]."""
    other_weights: npt.NDArray[np.float32]
    """Its weight; 0 for a label without any [L]."""

    @property
    def is_divided(self) -> npt.NDArray[np.bool_]:
        """Whether a label hangs on other clusters than the one that it began in [L]."""
        return (self.homes >= 0) & (self.others >= 0)

    @property
    def has_moved(self) -> npt.NDArray[np.bool_]:
        """Whether another cluster leads to a label more than the one that it began in [L]."""
        return self.is_divided & (self.other_weights > self.home_weights)

    def by_number(self) -> npt.NDArray[np.int64]:
        """Labels by the number of their clusters [MOST_CLUSTERS + 1]; the last are those with as many or more."""
        return np.bincount(np.minimum(np.diff(self.indptr), MOST_CLUSTERS), minlength=MOST_CLUSTERS + 1)

    def most_divided(self, count: int) -> list[DividedLabel]:
        """The labels with the largest weights of other clusters than they began in, at most `count`."""
        divided = np.flatnonzero(self.is_divided)
        labels = divided[np.argsort(-self.other_weights[divided], kind="stable")[:count]]
        columns = [labels, *(part[labels] for part in (self.homes, self.home_weights, self.others, self.other_weights))]
        return [DividedLabel(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def of_home(self, cluster: int) -> npt.NDArray[np.int64]:
        """The labels that began in a cluster."""
        return np.flatnonzero(self.homes == cluster)

    def sharing(self, cluster: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The other clusters that lead to the most labels which began in one, at most `count`, and to how many."""
        parts = [self.clusters[self.indptr[label] : self.indptr[label + 1]] for label in self.of_home(cluster)]
        found, numbers = np.unique(np.concatenate([[cluster], *parts]), return_counts=True)
        numbers[found == cluster] = 0
        order = np.argsort(-numbers, kind="stable")[:count]
        order = order[numbers[order] > 0]
        return found[order], numbers[order]


def hanging(index: Index, initial_clusters: npt.NDArray[np.int32] | None) -> Hanging:
    """How labels hang on the clusters of an index.

    Args:
        index: the index.
        initial_clusters: the cluster that each label began in, -1 for none [L]; None if that isn't known.
    """
    indptr, labels, weights = index.adjacency
    clusters = np.repeat(np.arange(index.num_clusters, dtype=np.int32), np.diff(indptr))
    # A label's edges stand together, the best first.
    order = np.lexsort((clusters, -weights, labels))
    clusters, labels, weights = clusters[order], labels[order], weights[order]
    by_label = np.concatenate([[0], np.bincount(labels, minlength=index.num_labels).cumsum()])

    def first_of(edges: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        at = np.flatnonzero(edges)
        at = at[np.concatenate([[True], labels[at][1:] != labels[at][:-1]])[: len(at)]]
        firsts, first_weights = np.full(index.num_labels, -1), np.zeros(index.num_labels, np.float32)
        firsts[labels[at]], first_weights[labels[at]] = clusters[at], weights[at]
        return firsts, first_weights

    best, _ = first_of(np.ones(len(labels), bool))
    homes = np.full(index.num_labels, -1) if initial_clusters is None else initial_clusters.astype(np.int64)
    at_home = clusters == homes[labels]
    return Hanging(by_label, clusters, best, homes, first_of(at_home)[1], *first_of(~at_home))


def related(index: Index, cluster: int, label: int, count: int) -> Related:
    """The other labels of a cluster whose classifiers are nearest to a label's.

    Args:
        index: the index.
        cluster: a cluster's id.
        label: a label's id.
        count: labels at most.
    """
    labels = index.labels(cluster).labels
    labels = labels[labels != label]
    own, others = index.label_rows(label), index.label_rows(labels)
    norms = np.linalg.norm(others, axis=1) * np.linalg.norm(own)
    cosines = (others @ own / np.where(norms > 0, norms, 1)).astype(np.float32)
    nearest = np.argsort(-cosines, kind="stable")[:count]
    return Related(labels[nearest], cosines[nearest])


def top_labels(
    index: Index, cluster: int, label_counts: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """The labels of a cluster with the largest weights, of equal ones the more frequent, and these weights.

    Args:
        index: the index.
        cluster: a cluster's id.
        label_counts: training texts of each label [L].
        count: labels at most.
    """
    labels, weights = index.labels(cluster)
    order = np.lexsort((-label_counts[labels], -weights))[:count]
    return labels[order], weights[order]
