"""The torch model's steps against direct computations, one query at a time."""

import numpy as np
import pytest
import torch

from elias_idx.train.network import (
    Adjacency,
    EliasNetwork,
    _largest_distinct,
    pack,
    top_clusters,
    unpack_id,
    unpack_score,
)
from elias_idx.train.ragged import Ragged
from elias_idx.train.teacher_forcing import EXTRA_CLUSTERS, expanded_beam

NUM_LABELS, NUM_CLUSTERS, DIM = 40, 8, 6


def learned_adjacency(seed=0, beta=4.0):
    rng = np.random.default_rng(seed)
    rows = [rng.choice(NUM_LABELS - 1, size=size, replace=False) for size in (9, 12, 5, 0, 12, 1, 7, 10)]
    logits = [rng.normal(size=len(row)).astype(np.float32) for row in rows]
    return rows, logits, Adjacency(rows, NUM_LABELS, logits, beta)


def positives_of(lists):
    indptr = torch.tensor([0, *np.cumsum([len(row) for row in lists])])
    indices = torch.tensor([label for row in lists for label in row], dtype=torch.int64)
    return Ragged(indptr, indices, NUM_LABELS)


def test_packed_keys_order_by_score_then_by_smaller_id():
    scores = torch.tensor([0.5, 0.25, 0.5, 0.0, 1.0, 1e-42])
    ids = torch.tensor([7, 1, 3, 2**32 - 2, 0, 9])
    keys = pack(scores, ids)
    order = keys.argsort(descending=True)
    assert ids[order].tolist() == [0, 3, 7, 1, 9, 2**32 - 2]
    assert unpack_id(keys).tolist() == ids.tolist()
    assert torch.equal(unpack_score(keys), scores)
    assert bool((keys >= 0).all())


@pytest.mark.parametrize("count", [1, 3, 8, 50])
@pytest.mark.parametrize("num_ids", [2, 9, 100])
def test_the_largest_distinct_keys_are_found_exactly(count, num_ids):
    rng = np.random.default_rng(count * num_ids)
    ids = torch.from_numpy(rng.integers(0, num_ids, size=(6, 60)))
    scores = torch.from_numpy(rng.integers(0, 5, size=(6, 60)).astype(np.float32))
    keys = pack(scores, ids).masked_fill(torch.from_numpy(rng.random((6, 60)) < 0.2), -1)
    best, position = _largest_distinct(keys, count, disjoint=False)
    for row in range(6):
        by_id = {}
        for key in keys[row][keys[row] >= 0].tolist():
            by_id[int(unpack_id(torch.tensor(key)))] = max(key, by_id.get(int(unpack_id(torch.tensor(key))), -1))
        expected = sorted(by_id.values(), reverse=True)[:count]
        found = best[row][best[row] >= 0].tolist()
        assert found == expected
        assert keys[row, position[row][: len(found)]].tolist() == found


def test_weights_are_the_clamped_softmax_of_each_row():
    _rows, logits, adjacency = learned_adjacency()
    weights = adjacency.weights().detach()
    for cluster, row in enumerate(logits):
        exact = np.exp(row.astype(np.float64))
        expected = np.minimum(1, 4.0 * exact / exact.sum())
        assert weights[cluster, : len(row)].numpy() == pytest.approx(expected, rel=1e-5)
        assert not weights[cluster, len(row) :].any()


def test_empty_rows_leave_finite_gradients():
    _, _, adjacency = learned_adjacency()
    adjacency.weights(torch.arange(8)[None]).square().sum().backward()
    [gradient] = adjacency.logits.gradients
    assert bool(gradient.weight.isfinite().all())
    assert not gradient.weight[3].any()


def test_the_best_cluster_has_the_largest_weight_and_the_smaller_id():
    rows, _, adjacency = learned_adjacency()
    weights = adjacency.weights().detach().numpy()
    for label in range(NUM_LABELS):
        options = [(-weights[c, list(row).index(label)], c) for c, row in enumerate(rows) if label in row]
        assert adjacency.best_cluster[label] == (min(options)[1] if options else -1)
    tied = Adjacency([np.array([1]), np.array([0, 1])], 3)
    assert tied.best_cluster.tolist() == [1, 0, -1]


def test_csr_drops_padding_and_keeps_every_entry():
    rows, _, adjacency = learned_adjacency()
    indptr, indices, data = adjacency.to_csr()
    assert np.diff(indptr).tolist() == [len(row) for row in rows]
    assert indices.tolist() == np.concatenate(rows).tolist()
    assert ((data > 0) & (data <= 1)).all()


def test_top_clusters_prefers_the_smaller_id_among_equals():
    scores = torch.tensor([[0.2, 1.0, 1.0, 0.2, 1.0]])
    assert top_clusters(scores, 4).tolist() == [[1, 2, 4, 0]]
    assert top_clusters(scores, 9).shape == (1, 5)


@pytest.mark.parametrize("size", [1, 4, 15, 100])
def test_the_shortlist_keeps_the_best_paths(size):
    rows, _, adjacency = learned_adjacency()
    network = EliasNetwork(DIM, adjacency, alpha=3.0, label_bias=-2.0)
    scores = torch.rand(5, NUM_CLUSTERS)
    beam = torch.tensor([[0, 1, 4], [2, 3, -1], [3, -1, -1], [7, 6, 5], [4, 1, 0]])
    weights = adjacency.weights().detach()
    found = network.shortlist(scores, beam, weights, size)
    for query in range(5):
        best = {}
        for cluster in beam[query][beam[query] >= 0].tolist():
            for position, label in enumerate(rows[cluster].tolist()):
                path = float(scores[query, cluster] * weights[cluster, position])
                best[label] = max(path, best.get(label, 0.0))
        expected = sorted(sorted(best, key=lambda label: (-best[label], label))[:size])
        mine = found.pattern.owners() == query
        assert found.pattern.indices[mine].tolist() == expected
        assert found.path_scores[mine].tolist() == pytest.approx([best[label] for label in expected])


def test_path_scores_carry_gradients_to_clusters_and_adjacency():
    _, _, adjacency = learned_adjacency()
    network = EliasNetwork(DIM, adjacency, alpha=1.0, label_bias=0.0)
    # All clusters are in the shortlist.
    scores = torch.full((2, NUM_CLUSTERS), 0.5, requires_grad=True)
    beam = torch.tensor([[0, 1], [4, -1]])
    found = network.shortlist(scores, beam, adjacency.weights(beam), 5)
    found.path_scores.sum().backward()
    assert scores.grad.abs().sum() > 0
    [gradient] = adjacency.logits.gradients
    assert gradient.rows.tolist() == [0, 1, 4]
    assert bool(gradient.weight.any(1).all())
    assert not scores.grad[0, 2:].any()


def test_gradients_are_the_same_bits_every_time():
    # Large enough that torch works on it with several threads, whose sums must not depend on their order.
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    rows = [rng.choice(2000, 800, replace=False) for _ in range(40)]
    adjacency = Adjacency(rows, 2000, [rng.normal(size=800).astype(np.float32) for _ in rows], 400.0)
    network = EliasNetwork(DIM, adjacency, alpha=3.0, label_bias=-2.0)
    logits, beam = torch.randn(256, 40), torch.rand(256, 40).topk(10, dim=1).indices
    factor = torch.randn(256 * 500)
    gradients = []
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for _ in range(6):
            scores = logits.clone().requires_grad_()
            found = network.shortlist(scores.softmax(1), beam, adjacency.weights(beam), 500)
            (found.path_scores * factor).sum().backward()
            gradients.append((scores.grad, adjacency.logits.gradients.pop().weight))
    finally:
        torch.set_num_threads(threads)
    for scores_gradient, logits_gradient in gradients[1:]:
        assert torch.equal(scores_gradient, gradients[0][0])
        assert torch.equal(logits_gradient, gradients[0][1])


def test_best_paths_of_positives_look_past_the_shortlist():
    rows, _, adjacency = learned_adjacency()
    network = EliasNetwork(DIM, adjacency, alpha=1.0, label_bias=0.0)
    scores, weights = torch.rand(2, NUM_CLUSTERS), adjacency.weights().detach()
    beam = torch.tensor([[0, 1, 4], [2, 7, -1]])
    labels = [[int(rows[0][0]), int(rows[4][3]), NUM_LABELS - 1], [int(rows[2][1])]]
    found = network.best_paths(scores, beam, weights, positives_of(labels))
    expected = []
    for query, row in enumerate(labels):
        for label in row:
            paths = [
                float(scores[query, c] * weights[c, list(rows[c]).index(label)])
                for c in beam[query].tolist()
                if c >= 0 and label in rows[c]
            ]
            expected += [max(paths)] if paths else []
    assert len(expected) == 3
    assert found.tolist() == pytest.approx(expected)


def test_the_expanded_beam_joins_the_model_s_clusters_and_the_labels_own():
    scores = torch.rand(3, NUM_CLUSTERS)
    best_cluster = torch.full((NUM_LABELS,), -1)
    best_cluster[:8] = torch.arange(8)
    labels = positives_of([[0, 1, 30], [], [5]])
    beam = expanded_beam(scores, labels, best_cluster, 2, torch.rand(3, 2 + 5))
    top = top_clusters(scores, 2).tolist()
    for row, expected in zip(beam.tolist(), [{*top[0], 0, 1}, set(top[1]), {*top[2], 5}], strict=True):
        present = [cluster for cluster in row if cluster >= 0]
        assert set(present) == expected
        assert len(present) == len(expected)


def test_more_clusters_than_fit_are_drawn_in_proportion_to_their_scores():
    torch.manual_seed(0)
    num_clusters, beam_size = 24, 1
    queries = 4000
    scores = torch.full((queries, num_clusters), 0.01)
    scores[:, 0] = 1.0
    best_cluster = torch.arange(NUM_LABELS) % num_clusters
    labels = positives_of([list(range(12))] * queries)
    beam = expanded_beam(scores, labels, best_cluster, beam_size, torch.rand(queries, beam_size + 12))
    assert beam.shape == (queries, beam_size + EXTRA_CLUSTERS)
    assert bool((beam >= 0).all())
    assert all(len(set(row)) == len(row) for row in beam.tolist())
    counts = torch.bincount(beam.flatten(), minlength=num_clusters)
    assert counts[0] > 0.99 * queries
    assert not counts[12:].any()
    assert counts[1:12].float().std() < 0.05 * counts[1:12].float().mean()
