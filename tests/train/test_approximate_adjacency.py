"""The adjacency between the stages against the dense count matrix."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elias_idx.config import Config
from elias_idx.train import approximate_adjacency as module
from elias_idx.train.approximate_adjacency import AdjacencyPattern, approximate_adjacency
from elias_idx.train.epoch import Trainee
from elias_idx.train.network import Adjacency, EliasNetwork, top_clusters
from elias_idx.train.ragged import Ragged
from elias_idx.train.stage2 import first_logits, start_stage2

NUM_TEXTS, NUM_LABELS, NUM_CLUSTERS, DIM = 60, 30, 5, 4


class FixedEmbeddings(nn.Module):
    def __init__(self, embeddings):
        super().__init__()
        self.embeddings = embeddings

    def forward(self, rows):
        return self.embeddings[rows]

    def row_tables(self):
        return []


@pytest.fixture
def trained():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    labels = sp.random(NUM_TEXTS, NUM_LABELS, 0.15, "csr", np.float32, rng)
    labels.data[:] = 1
    labels.sort_indices()
    clusters = np.split(rng.permutation(NUM_LABELS), NUM_CLUSTERS)
    network = EliasNetwork(DIM, Adjacency(clusters, NUM_LABELS), alpha=2.0, label_bias=0.0)
    embeddings = torch.randn(NUM_TEXTS, DIM)
    config = Config(labels_per_cluster=9, train_beam_size=2, beta=5.0)
    trainee = Trainee(FixedEmbeddings(embeddings), network, Ragged.from_scipy(labels, torch.device("cpu")), config)
    return trainee, labels, clusters, embeddings


@pytest.mark.parametrize("kappa", [3, 9, 30])
@pytest.mark.parametrize("products_at_once", [1, 60, 2**24])
def test_pattern_holds_own_labels_and_the_largest_counts(trained, monkeypatch, kappa, products_at_once):
    monkeypatch.setattr(module, "PRODUCTS_AT_ONCE", products_at_once)
    trainee, labels, clusters, embeddings = trained
    pattern = approximate_adjacency(replace(trainee, config=replace(trainee.config, labels_per_cluster=kappa)), labels)
    scores = trainee.network.cluster_scores(embeddings).detach()
    beam = top_clusters(scores, 2)
    kept = torch.zeros_like(scores).scatter_(1, beam, scores.gather(1, beam)).numpy()
    counts = kept.T @ labels.toarray()
    frequency = np.maximum(1, labels.toarray().sum(0))
    for cluster in range(NUM_CLUSTERS):
        entries = slice(pattern.indptr[cluster], pattern.indptr[cluster + 1])
        found, own = pattern.labels[entries], pattern.own[entries]

        def order(label, counts=counts[cluster]):
            return -counts[label], label

        others = [label for label in range(NUM_LABELS) if label not in clusters[cluster] and counts[cluster, label] > 0]
        assert found[own].tolist() == sorted(clusters[cluster], key=order)
        assert found[~own].tolist() == sorted(others, key=order)[: max(0, kappa - own.sum())]
        assert own.tolist() == sorted(own, reverse=True)
        assert pattern.share[entries] == pytest.approx(counts[cluster, found] / frequency[found], abs=1e-6)


def test_a_share_is_of_the_relevance_of_all_texts(trained):
    trainee, labels = trained[:2]
    full, partial = approximate_adjacency(trainee, labels), approximate_adjacency(trainee, labels * 0.3)
    assert partial.labels.tolist() == full.labels.tolist()
    assert partial.share == pytest.approx(full.share, abs=1e-6)


def test_of_equal_counts_the_smaller_labels_are_kept():
    labels, counts = np.array([7, 3, 9, 5, 1], np.int32), np.array([1, 2, 1, 1, 3], np.float32)
    for size, expected in [(0, []), (2, [1, 3]), (3, [1, 3, 5]), (4, [1, 3, 5, 7]), (9, [1, 3, 5, 7, 9])]:
        assert module._largest(labels, counts, size).labels.tolist() == expected


def test_partition_start_puts_own_labels_ahead(trained):
    trainee, labels, _, _ = trained
    pattern = approximate_adjacency(trainee, labels)
    logits = first_logits(pattern, "partition", beta=1.0, seed=0)
    assert not logits[pattern.own].any()
    assert (logits[~pattern.own] < np.log(0.11)).all()


def test_counts_start_orders_by_the_share_of_texts(trained):
    trainee, labels, _, _ = trained
    pattern = approximate_adjacency(trainee, labels)
    for beta in (1.0, 6.0):
        logits = first_logits(pattern, "counts", beta, seed=0)
        for row, share in zip(pattern.split(logits), pattern.split(pattern.share), strict=True):
            assert (np.diff(row[np.argsort(share)]) >= 0).all()
            assert (row.min() < row.max()) == (share.min() < share.max())


@pytest.mark.parametrize("start", ["partition", "counts", "uniform"])
@settings(deadline=None)
@given(seed=st.integers(0, 1000), beta=st.floats(0.5, 60))
def test_no_start_is_at_the_clamp_where_rows_are_long_enough(start, seed, beta):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, 6)
    indptr = np.concatenate([[0], sizes.cumsum()])
    share = (rng.random(indptr[-1]) * (rng.random(indptr[-1]) < 0.8)).astype(np.float32)
    own = np.concatenate([np.arange(size) < rng.integers(1, size + 1) for size in sizes])
    pattern = AdjacencyPattern(indptr, np.arange(indptr[-1], dtype=np.int32), own, share)
    flattened = first_logits(pattern, start, beta, seed)
    # So small a β that no row is changed.
    unchanged = first_logits(pattern, start, 1e-3, seed)
    for row, first in zip(pattern.split(flattened), pattern.split(unchanged), strict=True):
        weights = np.exp(row.astype(np.float64))
        largest = beta * weights.max() / weights.sum()
        assert largest <= 0.8001 or np.array_equal(row, first)
        assert np.array_equal(row, first) or len(row) > beta / 0.8


def test_uniform_start_lies_between_0_and_1_and_follows_the_seed(trained):
    trainee, labels, _, _ = trained
    pattern = approximate_adjacency(trainee, labels)
    first, again, other = (first_logits(pattern, "uniform", 1.0, seed) for seed in (0, 0, 1))
    assert ((first >= 0) & (first < 1)).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_stage_2_learns_this_pattern(trained):
    trainee, labels, _, _ = trained
    pattern = approximate_adjacency(trainee, labels)
    classifiers = trainee.network.label_classifiers.weight.clone()
    start_stage2(trainee, pattern, labels)
    assert torch.equal(trainee.network.label_classifiers.weight, classifiers)
    adjacency = trainee.network.adjacency
    indptr, indices, _ = adjacency.to_csr()
    assert np.array_equal(indptr, pattern.indptr)
    assert np.array_equal(indices, pattern.labels)
    assert adjacency.logits.weight.requires_grad


def test_label_classifiers_may_start_over_as_centroids(trained):
    trainee, labels, _, embeddings = trained
    trainee = replace(trainee, config=replace(trainee.config, stage2_label_start="centroids", label_bias=-3.0))
    with torch.no_grad():
        trainee.network.label_classifiers.weight.normal_()
        trainee.network.label_classifiers.bias.normal_()
    start_stage2(trainee, approximate_adjacency(trainee, labels), labels)
    directions = torch.nn.functional.normalize(embeddings, dim=1).numpy()
    expected = labels.T @ (directions - directions.mean(0))
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    assert trainee.network.label_classifiers.weight.detach().numpy() == pytest.approx(expected, abs=1e-5)
    assert (trainee.network.label_classifiers.bias == -3.0).all()
