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

    M [N, C] holds each text's scores of its top-B clusters, without teacher forcing. A label always keeps its own
    cluster, also where a cluster has more than κ labels, so that none becomes unreachable.

    Args:
        trainee: the model after stage 1.
        labels: Y, CSR [N, L].
    """
    counts = sp.csr_matrix(_beam_scores(trainee).T @ labels)
    own_cluster = trainee.network.adjacency.best_cluster.cpu().numpy()
    # Every entry of the counts and of the partition, whose entries are told apart again below.
    union = sp.csr_matrix(counts.astype(np.float64) + _partition(own_cluster, counts.shape))
    clusters = np.repeat(np.arange(union.shape[0]), np.diff(union.indptr))
    own = own_cluster[union.indices] == clusters
    count = union.data - own
    order = np.lexsort((union.indices, -count, ~own, clusters))
    rank = np.arange(len(order)) - np.repeat(union.indptr[:-1], np.diff(union.indptr))
    kept = order[own[order] | (rank < trainee.config.labels_per_cluster)]
    entry_labels = union.indices[kept].astype(np.int64)
    frequency = np.maximum(1, np.asarray((labels != 0).sum(0)).ravel())
    indptr = np.concatenate([[0], np.bincount(clusters[kept], minlength=union.shape[0]).cumsum()])
    share = (count[kept] / frequency[entry_labels]).astype(np.float32)
    return AdjacencyPattern(indptr, entry_labels, own[kept], share)


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


def _partition(own_cluster: npt.NDArray[np.int64], shape: tuple[int, int]) -> sp.csr_matrix:
    """The initial clusters as a CSR matrix of ones, [C, L]."""
    return sp.csr_matrix((np.ones(len(own_cluster)), (own_cluster, np.arange(len(own_cluster)))), shape=shape)
