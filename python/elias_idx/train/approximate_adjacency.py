"""Between the stages: which labels each cluster may lead to, from how the trained clusters spread the texts.

N texts, L labels, C clusters, κ labels kept per cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from elias_idx.train.clustering import members
from elias_idx.train.epoch import Trainee
from elias_idx.train.network import top_clusters

_Scalar = TypeVar("_Scalar", bound=np.generic)

# What bounds the memory: products that make a part of the count matrix (8 bytes each), and scores of clusters.
PRODUCTS_AT_ONCE = 2**24
SCORES_AT_ONCE = 2**22


@dataclass(frozen=True)
class AdjacencyPattern:
    """The entries that stage 2 learns, cluster by cluster; E in all.

    Attributes:
        indptr: where each cluster's entries start and end, [C + 1].
        labels: the label of each entry, int32 [E].
        own: whether the label is in the cluster by the initial partition, bool [E].
        share: the part of the label's texts (by score) that the cluster receives, float32 [E].
    """

    indptr: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    own: npt.NDArray[np.bool_]
    share: npt.NDArray[np.float32]

    def split(self, values: npt.NDArray[_Scalar]) -> list[npt.NDArray[_Scalar]]:
        """One value an entry ([E]) as a list of rows."""
        return np.split(values, self.indptr[1:-1])


def approximate_adjacency(trainee: Trainee, labels: sp.csr_matrix) -> AdjacencyPattern:
    """The κ largest entries of each row of the count matrix (Yᵀ M)ᵀ (section 3.2 of the paper).

    M [N, C] holds each text's scores of its top-B clusters, without teacher forcing. A label always keeps its own
    cluster, also where a cluster has more than κ labels, so that none becomes unreachable. The count matrix is made
    some clusters at a time, for it has many more entries than are kept.

    Args:
        trainee: the model after stage 1.
        labels: Y, CSR [N, L].
    """
    texts = sp.csr_matrix(_beam_scores(trainee).T)
    own_cluster = trainee.network.adjacency.best_cluster.cpu().numpy()
    own_labels = members(own_cluster, texts.shape[0])
    rows: list[_Row] = []
    with tqdm(total=texts.shape[0], desc="adjacency", unit="cluster", disable=None) as progress:
        for first, last in _blocks(texts, np.diff(labels.indptr)):
            counts = sp.csr_matrix(texts[first:last] @ labels)
            for cluster, (start, end) in enumerate(pairwise(counts.indptr.tolist()), start=first):
                found, count = counts.indices[start:end], counts.data[start:end]
                foreign = (own_cluster[found] != cluster) & (count > 0)
                room = max(0, trainee.config.labels_per_cluster - len(own_labels[cluster]))
                own = _own_row(own_labels[cluster], found[~foreign], count[~foreign])
                rows.append(own.followed_by(_largest(found[foreign], count[foreign], room)))
            progress.update(last - first)
    return _joined(rows, [len(own) for own in own_labels], np.asarray(labels.sum(0)).ravel())


@dataclass(frozen=True)
class _Row:
    """Some labels of a cluster, by descending count, the smaller label first where equal."""

    labels: npt.NDArray[np.int32]
    counts: npt.NDArray[np.float32]

    @classmethod
    def sorted(cls, labels: npt.NDArray[np.integer], counts: npt.NDArray[np.float32]) -> _Row:
        order = np.lexsort((labels, -counts))
        return cls(labels[order].astype(np.int32, copy=False), counts[order])

    def followed_by(self, other: _Row) -> _Row:
        return _Row(np.concatenate([self.labels, other.labels]), np.concatenate([self.counts, other.counts]))


def _own_row(own: npt.NDArray[np.int64], found: npt.NDArray[np.int32], counts: npt.NDArray[np.float32]) -> _Row:
    """A cluster's own labels (ascending), also those that no count was found of."""
    own_counts = np.zeros(len(own), np.float32)
    own_counts[np.searchsorted(own, found)] = counts
    return _Row.sorted(own, own_counts)


def _largest(labels: npt.NDArray[np.int32], counts: npt.NDArray[np.float32], size: int) -> _Row:
    """The `size` labels with the largest counts."""
    if size < len(counts):
        # Those equal to the last one compete by their ids.
        least = np.partition(counts, len(counts) - size)[len(counts) - size] if size else np.inf
        kept = counts >= least
        labels, counts = labels[kept], counts[kept]
    row = _Row.sorted(labels, counts)
    return _Row(row.labels[:size], row.counts[:size])


def _joined(rows: Sequence[_Row], num_own: Sequence[int], relevance: npt.NDArray[np.float32]) -> AdjacencyPattern:
    """The pattern of all rows, each of which begins with the cluster's own labels.

    Args:
        rows: of all clusters.
        num_own: how many of each row's labels are the cluster's own.
        relevance: each label's relevance to all texts together, [L].
    """
    sizes = np.array([len(row.labels) for row in rows])
    indptr = np.concatenate([[0], sizes.cumsum()])
    entries = np.concatenate([row.labels for row in rows])
    own = np.arange(len(entries)) - np.repeat(indptr[:-1], sizes) < np.repeat(num_own, sizes)
    share = np.concatenate([row.counts for row in rows])
    share /= np.where(relevance > 0, relevance, 1)[entries]
    return AdjacencyPattern(indptr, entries, own, share)


def _blocks(texts: sp.csr_matrix, num_labels: npt.NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Ranges of clusters whose rows of the count matrix are made of few enough products to hold them all.

    Args:
        texts: the texts of each cluster, CSR [C, N].
        num_labels: of each text.
    """
    products = np.concatenate([[0], num_labels[texts.indices].cumsum(dtype=np.int64)])[texts.indptr]
    first = 0
    while first < texts.shape[0]:
        fitting = int(np.searchsorted(products, products[first] + PRODUCTS_AT_ONCE, side="right")) - 1
        last = min(max(fitting, first + 1), texts.shape[0])
        yield first, last
        first = last


@torch.no_grad()
def _beam_scores(trainee: Trainee) -> sp.csr_matrix:
    """M: each text's scores of its top-B clusters, CSR [N, C]."""
    num_clusters = trainee.network.adjacency.num_clusters
    beam_size = min(trainee.config.train_beam_size, num_clusters)
    columns = np.empty((trainee.num_texts, beam_size), np.int32)
    values = np.empty((trainee.num_texts, beam_size), np.float32)
    at = 0
    for embeddings in trainee.embed_all():
        for part in embeddings.split(max(1, SCORES_AT_ONCE // num_clusters)):
            cluster_scores = trainee.network.cluster_scores(part)
            beam = top_clusters(cluster_scores, beam_size)
            rows = slice(at, at + len(part))
            columns[rows] = beam.cpu().numpy()
            values[rows] = cluster_scores.gather(1, beam).cpu().numpy()
            at += len(part)
    indptr = np.arange(len(columns) + 1) * beam_size
    return sp.csr_matrix((values.ravel(), columns.ravel(), indptr), shape=(len(columns), num_clusters))
