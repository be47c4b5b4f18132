"""Stage 0: a balanced hierarchy of spherical 2-means splits the labels into clusters.

N texts, L labels, F sparse features, D dimensions, C clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import _core
from elias_idx.errors import ConfigError
from elias_idx.train.core import core_csr, share_bar

# Sparse features that a label's centroid keeps, the largest ones. Those of many texts have thousands, nearly all tiny:
# without these, clusters are better (docs/experiments.md), and much faster to find.
MAX_CENTROID_ENTRIES = 32

# The label ids of each cluster, ascending.
Clusters: TypeAlias = "list[npt.NDArray[np.int64]]"


@dataclass(frozen=True)
class ClusteringFeatures:
    """What labels are clustered by: their texts' features, of one kind or both.

    Attributes:
        sparse: such as weights of n-grams, CSR [N, F].
        dense: embeddings, float32 [N, D].
    """

    sparse: sp.csr_matrix | None = None
    dense: npt.NDArray[np.float32] | None = None


class HasFeatures(Protocol):
    """The part of a trainable encoder that clustering asks for."""

    @property
    def sparse_features(self) -> sp.csr_matrix | None:
        """[N, F]."""

    def dense_features(self) -> npt.NDArray[np.float32] | None:
        """[N, D], as they are before training."""


def default_num_clusters(num_labels: int) -> int:
    """2^ceil(log2(L / 100)): the published choice, about 50 to 100 labels a cluster."""
    return 2 ** max(0, math.ceil(math.log2(num_labels / 100)))


def features_of(encoder: HasFeatures, cluster_by: str | None) -> ClusteringFeatures:
    """The features that the encoder's texts have before training.

    Args:
        encoder: over the N training inputs.
        cluster_by: "sparse", "dense" or "both"; None takes the sparse ones if there are any.

    Raises:
        ConfigError: the encoder lacks the features that `cluster_by` names.
    """
    sparse = encoder.sparse_features if cluster_by != "dense" else None
    if cluster_by is None:
        cluster_by = "dense" if sparse is None else "sparse"
    dense = encoder.dense_features() if cluster_by != "sparse" else None
    if cluster_by != "dense" and sparse is None:
        raise ConfigError(f"cluster_by is {cluster_by}, but the encoder has no n-grams: use dense")
    if cluster_by != "sparse" and dense is None:
        raise ConfigError(f"cluster_by is {cluster_by}, but the encoder has no embeddings before training: use sparse")
    return ClusteringFeatures(sparse, dense)


def cluster_labels(
    labels: sp.csr_matrix, features: ClusteringFeatures, num_clusters: int, seed: int, num_threads: int | None = None
) -> Clusters:
    """Splits the labels into clusters of nearly equal size.

    A label is known by the normalised sum of its texts' features. Of both kinds each is normalised, so that they
    count alike.

    Args:
        labels: the texts' labels, CSR [N, L].
        features: the texts' features.
        num_clusters: C, at most L.
        seed: of the random starting points.
        num_threads: CPU threads, on which the result does not depend; by default all that the process may use.

    Returns:
        The label ids of each cluster, ascending: a partition of 0 to L−1 into C parts, whose sizes differ by
        at most one when C is a power of two.
    """
    with share_bar("clustering") as report:
        cluster_of = _core.cluster_labels(
            texts=core_csr(sp.csr_matrix(labels.T)),
            sparse=None if features.sparse is None else core_csr(features.sparse),
            dense=None if features.dense is None else np.ascontiguousarray(features.dense, np.float32),
            num_clusters=num_clusters,
            max_entries=MAX_CENTROID_ENTRIES,
            seed=seed,
            num_threads=num_threads,
            report=report,
        )
    return members(cluster_of, num_clusters)


def members(cluster_of: npt.NDArray[np.integer], num_clusters: int) -> Clusters:
    """The label ids of each cluster, ascending.

    Args:
        cluster_of: the cluster of each label, [L].
        num_clusters: C.
    """
    by_cluster = np.argsort(cluster_of, kind="stable")
    return np.split(by_cluster, np.bincount(cluster_of, minlength=num_clusters).cumsum()[:-1])
