"""Stage 0: a balanced hierarchy of spherical 2-means splits the labels into clusters.

N texts, L labels, F features (sparse) or dimensions (dense), C clusters.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.preprocessing import normalize
from tqdm import tqdm

Features: TypeAlias = "sp.csr_matrix | npt.NDArray[np.float32]"

_MAX_ITERATIONS = 10


def default_num_clusters(num_labels: int) -> int:
    """2^ceil(log2(L / 100)): the published choice, about 50 to 100 labels a cluster."""
    return 2 ** max(0, math.ceil(math.log2(num_labels / 100)))


def cluster_labels(
    labels: sp.csr_matrix, features: Features, num_clusters: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Splits the labels into clusters of nearly equal size.

    Args:
        labels: the texts' labels, CSR [N, L].
        features: the texts' features, [N, F].
        num_clusters: C, at most L.
        seed: of the random starting points.

    Returns:
        The label ids of each cluster, ascending: a partition of 0 to L−1 into C parts, whose sizes differ by
        at most one when C is a power of two.
    """
    rng = np.random.default_rng(seed)
    centroids = label_centroids(labels, features)
    clusters = []
    with tqdm(total=num_clusters, desc="clustering", unit="cluster", disable=None) as progress:
        # Depth first, so that only the centroids along one path of the hierarchy are held.
        pending = [(np.arange(centroids.shape[0]), centroids, num_clusters)]
        while pending:
            ids, rows, parts = pending.pop()
            if parts == 1:
                clusters.append(np.sort(ids))
                progress.update()
                continue
            left_parts = parts // 2
            left, right = _split(rows, len(ids) * left_parts // parts, rng)
            pending.append((ids[right], rows[right], parts - left_parts))
            pending.append((ids[left], rows[left], left_parts))
    return clusters


def label_centroids(labels: sp.csr_matrix, features: Features) -> Features:
    """The normalised sum of the features of each label's texts, [L, F]; zeros for a label without texts."""
    return normalize(sp.csr_matrix(labels.T) @ features, copy=False)


def _split(
    rows: Features, num_left: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Spherical 2-means with `num_left` rows on the left: positions of the left and of the right rows."""
    first, second = rng.choice(rows.shape[0], 2, replace=False)
    direction = _dense(rows[[first]]) - _dense(rows[[second]])
    left: npt.NDArray[np.intp] = np.empty(0, np.intp)
    for _ in range(_MAX_ITERATIONS):
        # The rows nearest to the left mean relative to the right one go left, as many as fit.
        order = np.argsort(-(rows @ direction), kind="stable")
        previous, left, right = left, np.sort(order[:num_left]), np.sort(order[num_left:])
        if np.array_equal(previous, left):
            break
        direction = _mean_direction(rows[left]) - _mean_direction(rows[right])
    return left, right


def _mean_direction(rows: Features) -> npt.NDArray[np.float32]:
    total = np.asarray(rows.sum(axis=0)).ravel()
    return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)


def _dense(row: Any) -> npt.NDArray[np.float32]:
    return np.asarray(row.toarray() if sp.issparse(row) else row).ravel()
