"""Stage 0: the balanced hierarchy of label clusters."""

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.train.clustering import cluster_labels, default_num_clusters, label_centroids


@pytest.mark.parametrize(
    ("num_labels", "expected"), [(1, 1), (100, 1), (101, 2), (200, 2), (46_881, 512), (670_091, 8192)]
)
def test_default_number_of_clusters_follows_the_paper(num_labels, expected):
    assert default_num_clusters(num_labels) == expected


@pytest.mark.parametrize(("num_labels", "num_clusters"), [(64, 8), (61, 8), (10, 10), (23, 5), (7, 1)])
@pytest.mark.parametrize("dense", [False, True])
def test_clusters_are_a_balanced_partition(num_labels, num_clusters, dense):
    rng = np.random.default_rng(1)
    features = sp.random(200, 40, 0.2, "csr", np.float32, rng)
    labels = sp.random(200, num_labels, 0.1, "csr", np.float32, rng)
    clusters = cluster_labels(labels, features.toarray() if dense else features, num_clusters, seed=0)
    assert len(clusters) == num_clusters
    assert sorted(np.concatenate(clusters)) == list(range(num_labels))
    sizes = [len(cluster) for cluster in clusters]
    assert min(sizes) >= 1
    if num_clusters & (num_clusters - 1) == 0:
        assert max(sizes) - min(sizes) <= 1


def test_labels_with_the_same_texts_stay_together():
    # Labels 0-3 occur with feature 0, labels 4-7 with feature 1.
    features = sp.csr_matrix(np.repeat(np.eye(2, dtype=np.float32), 4, axis=0))
    labels = sp.csr_matrix(np.eye(8, dtype=np.float32))
    found = {tuple(cluster) for cluster in cluster_labels(labels, features, 2, seed=3)}
    assert found == {(0, 1, 2, 3), (4, 5, 6, 7)}


def test_the_same_seed_gives_the_same_clusters_and_another_one_others():
    rng = np.random.default_rng(2)
    features, labels = (
        sp.random(300, 50, 0.1, "csr", np.float32, rng),
        sp.random(300, 64, 0.05, "csr", np.float32, rng),
    )
    first, again, other = (cluster_labels(labels, features, 8, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_centroids_are_unit_sums_and_zero_without_texts():
    features = sp.csr_matrix(np.array([[3.0, 0], [0, 4.0]], np.float32))
    labels = sp.csr_matrix(np.array([[1.0, 0, 1], [1, 0, 0]], np.float32))
    assert label_centroids(labels, features).toarray() == pytest.approx(np.array([[0.6, 0.8], [0, 0], [1, 0]]))
