"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.metrics import (
    evaluate,
    evaluate_groups,
    frequency_groups,
    inverse_propensities,
    without_entries,
    without_excluded,
)

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
    # A query's gains are relative to hits at all of the places that it has labels for: two, and one.
    second = 1 / math.log2(3)
    gained = 2 / (1 + second) + 5 * second / 1
    best = (3 + 2 * second) / (1 + second) + 5 / 1
    assert result["PSnDCG@2"] == pytest.approx(100 * gained / best)


def test_inverse_propensities_follow_jain_et_al():
    c = (math.log(1000) - 1) * 2.5**0.55
    expected = [1 + c * (0 + 1.5) ** -0.55, 1 + c * (10 + 1.5) ** -0.55]
    assert inverse_propensities([0, 10], 1000) == pytest.approx(expected)
    amazon = 1 + (math.log(1000) - 1) * 3.6**0.6 * (10 + 2.6) ** -0.6
    assert inverse_propensities([10], 1000, 0.6, 2.6) == pytest.approx([amazon])


# Three queries with the labels {0, 1}, {0} and {2}.
LABELS = sp.csr_matrix(np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]))
BEST_TWO = np.array([[0, 2], [1, 0], [0, 2]])


def test_macro_averages_are_over_the_labels_that_some_query_has():
    result = evaluate(BEST_TWO, LABELS, ks=(1, 2), recall_ks=())
    # At 1, label 0 is predicted for the first and the last query and right once; its queries are the first two. Label
    # 1 is predicted once and wrong, label 2 not at all. Label 3 counts nowhere.
    assert result["macro P@1"] == pytest.approx(100 * (1 / 2 + 0 + 0) / 3)
    assert result["macro R@1"] == pytest.approx(100 * (1 / 2 + 0 + 0) / 3)
    assert result["macro F1@1"] == pytest.approx(100 * (1 / 2 + 0 + 0) / 3)
    # At 2, label 0 is right twice of three times, label 2 once of twice.
    assert result["macro P@2"] == pytest.approx(100 * (2 / 3 + 0 + 1 / 2) / 3)
    assert result["macro R@2"] == pytest.approx(100 * (1 + 0 + 1) / 3)
    assert result["macro F1@2"] == pytest.approx(100 * (4 / 5 + 0 + 2 / 3) / 3)


def test_groups_have_a_third_of_the_uses_each():
    # Of 12 uses label 0 has the first 6, label 2 the next 3: it begins in the second third.
    assert frequency_groups([6, 1, 3, 2, 0]).tolist() == [0, 2, 1, 2, 2]
    assert frequency_groups([4, 4, 4]).tolist() == [0, 1, 2]
    assert frequency_groups([1, 1, 1, 1]).tolist() == [0, 0, 1, 2]
    assert frequency_groups([0, 0]).tolist() == [0, 0]


def test_groups_share_the_precision_and_have_a_recall_each():
    # Label 0 is head, label 2 torso, the others are tail; the hits are labels 1 and 0 (third place), and label 2.
    groups = evaluate_groups(PREDICTED, RELEVANT, [6, 1, 3, 2, 0], ks=(1, 3), recall_ks=(2,))
    third = pytest.approx(100 / 3 / 2)
    assert groups["head"] == {"labels": 1, "uses": 1, "P@1": 0, "P@3": third, "R@2": 0}
    assert groups["torso"] == {"labels": 1, "uses": 1, "P@1": 0, "P@3": third, "R@2": 100}
    assert groups["tail"] == {"labels": 3, "uses": 2, "P@1": 50, "P@3": third, "R@2": 50}
    total = evaluate(PREDICTED, RELEVANT, ks=(3,), recall_ks=())["P@3"]
    assert sum(group["P@3"] for group in groups.values()) == pytest.approx(total)


def test_excluded_pairs_are_left_out_and_later_predictions_move_up():
    excluded = sp.csr_matrix(np.array([[0, 1, 0, 0, 0], [1, 0, 0, 1, 0]]))
    assert without_excluded(PREDICTED, excluded).tolist() == [[3, 0, -1], [2, -1, -1]]
    assert without_excluded(PREDICTED, sp.csr_matrix((2, 5))).tolist() == PREDICTED.tolist()
    assert without_entries(RELEVANT, excluded).toarray().tolist() == [[1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]
    assert RELEVANT.nnz == 4


def test_queries_without_labels_count_in_no_metric():
    relevant = sp.vstack([RELEVANT, sp.csr_matrix((1, 5))]).tocsr()
    predicted = np.vstack([PREDICTED, [0, 1, 2]])
    gain = np.ones(5)
    assert evaluate(predicted, relevant, inverse_propensity=gain) == pytest.approx(
        evaluate(PREDICTED, RELEVANT, inverse_propensity=gain)
    )


def test_queries_without_labels_can_count_as_zeros():
    """What the extreme classification repository's tools compute: means over all queries, or ratios of them."""
    relevant = sp.vstack([RELEVANT, sp.csr_matrix((1, 5))]).tocsr()
    predicted = np.vstack([PREDICTED, [0, 1, 2]])
    gain = np.array([1.0, 2.0, 5.0, 1.0, 3.0])
    without = evaluate(PREDICTED, RELEVANT, inverse_propensity=gain)
    found = evaluate(predicted, relevant, inverse_propensity=gain, all_queries=True)
    for name, value in found.items():
        averaged = name.split("@")[0] in ("P", "nDCG", "R")
        assert value == pytest.approx(without[name] * (2 / 3 if averaged else 1)), name
    groups = evaluate_groups(predicted, relevant, [6, 1, 3, 2, 0], ks=(3,), all_queries=True)
    assert sum(group["P@3"] for group in groups.values()) == pytest.approx(found["P@3"])


def test_cutoffs_beyond_all_labels_take_no_memory():
    gain = np.array([1.0, 2.0, 5.0, 1.0, 3.0])
    far = evaluate(PREDICTED, RELEVANT, ks=(3, 10**20), recall_ks=(10**20,), inverse_propensity=gain)
    for name in ("nDCG", "PSP", "PSnDCG"):
        assert far[f"{name}@{10**20}"] == pytest.approx(far[f"{name}@3"])
    assert far[f"R@{10**20}"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert far[f"P@{10**20}"] == pytest.approx(far["P@3"] * 3 / 1e20)


def test_a_hit_beyond_as_many_places_as_there_are_labels_counts():
    one = sp.csr_matrix(np.array([[0, 0, 1]]))
    found = evaluate([[0, 1, 2]], one, ks=(3,), inverse_propensity=np.ones(3))
    assert found["nDCG@3"] == found["PSnDCG@3"] == pytest.approx(100 / math.log2(4))


@pytest.mark.parametrize(
    "call",
    [
        lambda predicted: evaluate(predicted, RELEVANT),
        lambda predicted: evaluate_groups(predicted, RELEVANT, np.ones(5)),
        lambda predicted: without_excluded(np.asarray(predicted), RELEVANT),
    ],
)
def test_labels_that_there_are_none_of_are_an_error(call):
    # Label 5 of the first query would otherwise pass for label 0 of the second.
    with pytest.raises(ValueError, match="predicted has label 7, but there are 5 labels"):
        call([[7, 3, 0], [3, 2, -1]])
    with pytest.raises(ValueError, match="must be whole numbers"):
        call(PREDICTED.astype(float))
    call(PREDICTED.astype(np.int8))


def test_repeats_count_once():
    repeated = sp.csr_matrix((np.ones(6), np.array([0, 1, 1, 4, 2, 2]), np.array([0, 4, 6])), shape=(2, 5))
    gain = np.array([1.0, 2.0, 5.0, 1.0, 3.0])
    once = evaluate(PREDICTED, RELEVANT, inverse_propensity=gain)
    assert evaluate(PREDICTED, repeated, inverse_propensity=gain) == pytest.approx(once)
    assert repeated.nnz == 6


def test_stored_zeros_and_unsorted_indices_do_not_matter():
    shuffled = sp.csr_matrix((np.array([1, 0, 1, 1, 1]), np.array([4, 3, 0, 1, 2]), np.array([0, 4, 5])), shape=(2, 5))
    assert evaluate(PREDICTED, shuffled) == pytest.approx(evaluate(PREDICTED, RELEVANT))


def test_matches_a_direct_implementation_on_random_data():
    rng = np.random.default_rng(0)
    dense = rng.random((50, 30)) < 0.1
    dense[:, 0] |= ~dense.any(1)
    predicted = np.array([rng.permutation(30)[:8] for _ in range(50)])
    gain = rng.random(30) + 1
    result = evaluate(predicted, sp.csr_matrix(dense), ks=(1, 5), recall_ks=(3, 8), inverse_propensity=gain)
    hits = np.take_along_axis(dense, predicted, 1)
    assert result["P@5"] == pytest.approx(100 * hits[:, :5].mean())
    assert result["R@3"] == pytest.approx(100 * np.mean(hits[:, :3].sum(1) / dense.sum(1)))
    best = np.sort(dense * gain)[:, :-6:-1]
    gained = (hits * gain[predicted])[:, :5]
    assert result["PSP@5"] == pytest.approx(100 * gained.sum() / best.sum())
    places = 1 / np.log2(np.arange(5) + 2)
    ideal = np.array([places[: min(5, count)].sum() for count in dense.sum(1)])
    assert result["PSnDCG@5"] == pytest.approx(100 * (gained @ places / ideal).sum() / (best @ places / ideal).sum())
    assert result["R@8"] == pytest.approx(100 * np.mean(hits.sum(1) / dense.sum(1)))


def test_nothing_to_evaluate_and_wrong_shapes_are_errors():
    with pytest.raises(ValueError, match="no query has a relevant label"):
        evaluate(PREDICTED, sp.csr_matrix((2, 5)))
    with pytest.raises(ValueError, match=r"must be whole numbers \[2, K\], got int64 of shape \(1, 3\)"):
        evaluate(PREDICTED[:1], RELEVANT)
    with pytest.raises(ValueError, match=r"inverse_propensity must be \[5\]"):
        evaluate(PREDICTED, RELEVANT, inverse_propensity=np.ones(4))
    with pytest.raises(ValueError, match=r"label_counts must be \[5\]"):
        evaluate_groups(PREDICTED, RELEVANT, np.ones(4))
