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


class Hanging(NamedTuple):
    """How labels hang on clusters: at the start of training on one each, until it learns which others lead to them."""

    num_clusters: npt.NDArray[np.int64]
    """Clusters that lead to each label [L]."""
    homes: npt.NDArray[np.int64]
    """The one with the largest weight, of equal ones the first; -1 for a label without any [L]."""
    second_weights: npt.NDArray[np.float32]
    """The weight of the second-best; 0 for a label with fewer [L]."""

    def by_number(self) -> npt.NDArray[np.int64]:
        """Labels by the number of their clusters [MOST_CLUSTERS + 1]; the last are those with as many or more."""
        return np.bincount(np.minimum(self.num_clusters, MOST_CLUSTERS), minlength=MOST_CLUSTERS + 1)

    def most_divided(self, count: int) -> npt.NDArray[np.int64]:
        """The labels that hang on a second cluster most, at most `count`."""
        order = np.argsort(-self.second_weights, kind="stable")[:count]
        return order[self.second_weights[order] > 0]


def hanging(index: Index) -> Hanging:
    """How labels hang on the clusters of an index."""
    indptr, labels, weights = index.adjacency
    clusters = np.repeat(np.arange(index.num_clusters), np.diff(indptr))
    # A label's edges stand together, the best first.
    order = np.lexsort((clusters, -weights, labels))
    counts = np.bincount(labels, minlength=index.num_labels)
    first = np.cumsum(counts) - counts
    homes, second_weights = np.full(index.num_labels, -1), np.zeros(index.num_labels, np.float32)
    homes[counts > 0] = clusters[order[first[counts > 0]]]
    second_weights[counts > 1] = weights[order[first[counts > 1] + 1]]
    return Hanging(counts, homes, second_weights)


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
