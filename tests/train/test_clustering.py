"""Stage 0: the balanced hierarchy of label clusters."""

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.errors import ConfigError
from elias_idx.train.clustering import ClusteringFeatures, cluster_labels, default_num_clusters, features_of, members


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
    given = ClusteringFeatures(dense=features.toarray()) if dense else ClusteringFeatures(features)
    clusters = cluster_labels(labels, given, num_clusters, seed=0)
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
    found = {tuple(cluster) for cluster in cluster_labels(labels, ClusteringFeatures(features), 2, seed=3)}
    assert found == {(0, 1, 2, 3), (4, 5, 6, 7)}


def test_the_same_seed_gives_the_same_clusters_and_another_one_others():
    rng = np.random.default_rng(2)
    features, labels = (
        sp.random(300, 50, 0.1, "csr", np.float32, rng),
        sp.random(300, 64, 0.05, "csr", np.float32, rng),
    )
    first, again, other = (cluster_labels(labels, ClusteringFeatures(features), 8, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_relevances_weigh_the_texts():
    # Label 2 is more like label 0 by its first text and more like label 1 by its second; label 3 is as label 1.
    features = sp.csr_matrix(np.eye(2, dtype=np.float32))
    for weights, together in (([0.9, 0.1], {0, 2}), ([0.1, 0.9], {1, 3})):
        labels = sp.csr_matrix(np.array([[1, 0, weights[0], 0], [0, 1, weights[1], 1]], np.float32))
        found = [set(cluster) for cluster in cluster_labels(labels, ClusteringFeatures(features), 2, seed=0)]
        assert together in found


def test_both_kinds_count_alike_whatever_their_scale():
    rng = np.random.default_rng(3)
    sparse = sp.random(200, 30, 0.2, "csr", np.float32, rng)
    labels = sp.random(200, 64, 0.1, "csr", np.float32, rng)
    dense = rng.normal(size=(200, 6)).astype(np.float32)
    plain, scaled, alone = (
        cluster_labels(labels, given, 8, seed=0)
        for given in (
            ClusteringFeatures(sparse, dense),
            ClusteringFeatures(sparse * 4, dense * 1024),
            ClusteringFeatures(sparse),
        )
    )
    assert all(np.array_equal(a, b) for a, b in zip(plain, scaled, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(plain, alone, strict=True))


def test_members_are_ascending_and_may_be_none():
    assert [list(ids) for ids in members(np.array([2, 0, 2, 0]), 4)] == [[1, 3], [], [0, 2], []]


class Encoder:
    def __init__(self, sparse, dense):
        self.sparse_features, self.dense = sparse, dense

    def dense_features(self):
        return self.dense


@pytest.mark.parametrize(
    ("has", "cluster_by", "takes"),
    [
        ("sparse", None, "sparse"),
        ("dense", None, "dense"),
        ("sparse dense", None, "sparse"),
        ("sparse dense", "dense", "dense"),
        ("sparse dense", "both", "sparse dense"),
    ],
)
def test_the_settings_choose_the_features(has, cluster_by, takes):
    sparse, dense = sp.csr_matrix((3, 4)), np.zeros((3, 2), np.float32)
    found = features_of(Encoder(sparse if "sparse" in has else None, dense if "dense" in has else None), cluster_by)
    assert found.sparse is (sparse if "sparse" in takes else None)
    assert found.dense is (dense if "dense" in takes else None)


@pytest.mark.parametrize(
    ("has", "cluster_by"), [("sparse", "dense"), ("sparse", "both"), ("dense", "sparse"), ("dense", "both")]
)
def test_features_that_the_encoder_lacks_are_refused(has, cluster_by):
    encoder = Encoder(sp.csr_matrix((3, 4)), None) if has == "sparse" else Encoder(None, np.zeros((3, 2), np.float32))
    with pytest.raises(ConfigError, match=f"cluster_by is {cluster_by}.*use {has}"):
        features_of(encoder, cluster_by)
