"""Between the stages: which labels each cluster may lead to, from how the trained clusters spread the texts.

N texts, L labels, C clusters, κ labels kept per cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from elias_idx.train.epoch import Trainee
from elias_idx.train.network import top_clusters

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class AdjacencyPattern:
    """The entries that stage 2 learns, cluster by cluster; E in all.

    Attributes:
        indptr: where each cluster's entries start and end, [C + 1].
        labels: the label of each entry, [E].
        own: whether the label is in the cluster by the initial partition, bool [E].
        share: the part of the label's texts (by score) that the cluster receives, float32 [E].
    """

    indptr: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    own: npt.NDArray[np.bool_]
    share: npt.NDArray[np.float32]

    def split(self, values: npt.NDArray[_Scalar]) -> list[npt.NDArray[_Scalar]]:
        """One value an entry ([E]) as a list of rows."""
        return np.split(values, self.indptr[1:-1])


def approximate_adjacency(trainee: Trainee, labels: sp.csr_matrix) -> AdjacencyPattern:
    """The κ largest entries of each row of the count matrix (Yᵀ M)ᵀ (section 3.2 of the paper).

    M [N, C] holds each text's scores of its top-B clusters, without teacher forcing. A label's own cluster is
    always kept, so that no label becomes unreachable.

    Args:
        trainee: the model after stage 1.
        labels: Y, CSR [N, L].
    """
    counts = sp.csr_matrix(_beam_scores(trainee).T @ labels)
    own = _partition(trainee)
    frequency = np.maximum(1, np.asarray((labels != 0).sum(0)).ravel())
    # Own entries rank above all others: no count exceeds the number of texts times α's clamp of 1.
    ranked = sp.csr_matrix(counts + own * np.float32(labels.shape[0] + 1))
    clusters = np.repeat(np.arange(ranked.shape[0]), np.diff(ranked.indptr))
    order = np.lexsort((ranked.indices, -ranked.data, clusters))
    rank = np.arange(len(order)) - np.repeat(ranked.indptr[:-1], np.diff(ranked.indptr))
    kept = order[rank < trainee.config.labels_per_cluster]
    entry_labels, is_own = ranked.indices[kept].astype(np.int64), ranked.data[kept] > labels.shape[0]
    count = ranked.data[kept] - is_own * np.float32(labels.shape[0] + 1)
    indptr = np.concatenate([[0], np.bincount(clusters[kept], minlength=ranked.shape[0]).cumsum()])
    return AdjacencyPattern(indptr, entry_labels, is_own, (count / frequency[entry_labels]).astype(np.float32))


@torch.no_grad()
def _beam_scores(trainee: Trainee) -> sp.csr_matrix:
    """M: each text's scores of its top-B clusters, CSR [N, C]."""
    clusters, scores = [], []
    for embeddings in trainee.embed_all():
        cluster_scores = trainee.network.cluster_scores(embeddings)
        beam = top_clusters(cluster_scores, trainee.config.train_beam_size)
        clusters.append(beam.cpu().numpy())
        scores.append(cluster_scores.gather(1, beam).cpu().numpy())
    columns, values = np.concatenate(clusters), np.concatenate(scores)
    indptr = np.arange(len(columns) + 1) * columns.shape[1]
    shape = (len(columns), trainee.network.adjacency.num_clusters)
    return sp.csr_matrix((values.ravel(), columns.ravel(), indptr), shape=shape)


def _partition(trainee: Trainee) -> sp.csr_matrix:
    """The initial clusters as a CSR matrix of ones, [C, L]."""
    indptr, indices, data = trainee.network.adjacency.to_csr()
    return sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, trainee.network.adjacency.num_labels))
