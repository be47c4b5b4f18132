"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.metrics import evaluate, inverse_propensities

# Two queries over five labels: the first has labels {0, 1, 4}, the second {2}.
RELEVANT = sp.csr_matrix(np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 0]]))
PREDICTED = np.array([[1, 3, 0], [3, 2, -1]])


def test_precision_divides_by_k_whatever_the_number_of_labels():
    result = evaluate(PREDICTED, RELEVANT, ks=(1, 3), recall_ks=())
    assert result["P@1"] == pytest.approx(100 * (1 + 0) / 2)
    assert result["P@3"] == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)


def test_recall_divides_by_the_number_of_labels():
    result = evaluate(PREDICTED, RELEVANT, ks=(1,), recall_ks=(1, 2, 100))
    assert result["R@1"] == pytest.approx(100 * (1 / 3 + 0) / 2)
    assert result["R@2"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert result["R@100"] == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_ndcg_is_relative_to_the_best_order():
    result = evaluate(PREDICTED, RELEVANT, ks=(3,), recall_ks=())
    first = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3) + 1 / math.log2(4))
    second = 1 / math.log2(3)
    assert result["nDCG@3"] == pytest.approx(100 * (first + second) / 2)


def test_propensity_scores_are_relative_to_the_best_attainable():
    gain = np.array([1.0, 2.0, 5.0, 1.0, 3.0])
    result = evaluate(PREDICTED, RELEVANT, ks=(1, 2), recall_ks=(), inverse_propensity=gain)
    assert result["PSP@1"] == pytest.approx(100 * 2 / (3 + 5))
    # Of two places the best are labels 4 and 1 for the first query, label 2 for the second.
    assert result["PSP@2"] == pytest.approx(100 * (2 + 5) / (3 + 2 + 5))
    second = 1 / math.log2(3)
    assert result["PSnDCG@2"] == pytest.approx(100 * (2 + 5 * second) / (3 + 2 * second + 5))


def test_inverse_propensities_follow_jain_et_al():
    c = (math.log(1000) - 1) * 2.5**0.55
    expected = [1 + c * (0 + 1.5) ** -0.55, 1 + c * (10 + 1.5) ** -0.55]
    assert inverse_propensities([0, 10], 1000) == pytest.approx(expected)
    amazon = 1 + (math.log(1000) - 1) * 3.6**0.6 * (10 + 2.6) ** -0.6
    assert inverse_propensities([10], 1000, 0.6, 2.6) == pytest.approx([amazon])


def test_queries_without_labels_count_in_no_metric():
    relevant = sp.vstack([RELEVANT, sp.csr_matrix((1, 5))]).tocsr()
    predicted = np.vstack([PREDICTED, [0, 1, 2]])
    gain = np.ones(5)
    assert evaluate(predicted, relevant, inverse_propensity=gain) == pytest.approx(
        evaluate(PREDICTED, RELEVANT, inverse_propensity=gain)
    )


def test_stored_zeros_and_unsorted_indices_do_not_matter():
    shuffled = sp.csr_matrix((np.array([1, 0, 1, 1, 1]), np.array([4, 3, 0, 1, 2]), np.array([0, 4, 5])), shape=(2, 5))
    assert evaluate(PREDICTED, shuffled) == pytest.approx(evaluate(PREDICTED, RELEVANT))


def test_matches_a_direct_implementation_on_random_data():
    rng = np.random.default_rng(0)
    dense = rng.random((50, 30)) < 0.1
    dense[:, 0] |= ~dense.any(1)
    predicted = np.array([rng.permutation(30)[:8] for _ in range(50)])
    result = evaluate(predicted, sp.csr_matrix(dense), ks=(1, 5), recall_ks=(3, 8))
    hits = np.take_along_axis(dense, predicted, 1)
    assert result["P@5"] == pytest.approx(100 * hits[:, :5].mean())
    assert result["R@3"] == pytest.approx(100 * np.mean(hits[:, :3].sum(1) / dense.sum(1)))
    assert result["R@8"] == pytest.approx(100 * np.mean(hits.sum(1) / dense.sum(1)))


def test_nothing_to_evaluate_and_wrong_shapes_are_errors():
    with pytest.raises(ValueError, match="no query has a relevant label"):
        evaluate(PREDICTED, sp.csr_matrix((2, 5)))
    with pytest.raises(ValueError, match=r"must be \[2, K\]"):
        evaluate(PREDICTED[:1], RELEVANT)
