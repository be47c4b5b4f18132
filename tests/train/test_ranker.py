"""The sparse ranker, held to scikit-learn's linear classifiers."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from elias_idx.train.ranker import train_ranker

COST = 3.0


@pytest.fixture(scope="module")
def problem():
    """Features [N, F], labels [N, L] that follow from them, and shortlists [N, K] that hold some of each."""
    rng = np.random.default_rng(0)
    features = normalize(sp.random(400, 60, 0.2, "csr", np.float32, rng))
    scores = features @ sp.random(60, 8, 0.3, "csr", np.float32, rng)
    labels = sp.csr_matrix((scores.toarray() > 0.35).astype(np.float32))
    shortlists = np.stack([rng.permutation(8)[:5] for _ in range(400)])
    shortlists[rng.random(shortlists.shape) < 0.2] = -1
    return features, labels, shortlists


def examples(problem, label):
    """The texts that a label is trained on, by definition: those that have it or whose shortlist holds it."""
    features, labels, shortlists = problem
    own = labels[:, [label]].toarray()[:, 0]
    texts = np.flatnonzero((own > 0) | (shortlists == label).any(1))
    known = np.asarray(features[own > 0].sum(0))[0] != 0
    return features[texts].toarray() * known, own[texts]


def objective(weights, bias, inputs, relevances, negative_cost=COST):
    signs = np.where(relevances > 0, 1, -1)
    costs = np.where(relevances > 0, COST * relevances, negative_cost)
    slack = np.maximum(0, 1 - signs * (inputs @ weights + bias))
    return (weights @ weights + bias**2) / 2 + (costs * slack**2).sum()


def test_classifiers_are_nearly_those_of_liblinear(problem):
    features, labels, shortlists = problem
    ranker = train_ranker(features, labels, shortlists, cost=COST, weights_per_label=60)
    assert ranker.weights.dtype == ranker.bias.dtype == np.float32
    for label in range(8):
        inputs, relevances = examples(problem, label)
        oracle = LinearSVC(C=COST, loss="squared_hinge", dual=True, tol=1e-6, max_iter=100_000)
        oracle.fit(inputs, relevances > 0)
        best = objective(oracle.coef_[0], oracle.intercept_[0], inputs, relevances)
        weights = ranker.weights[label].toarray()[0]
        assert objective(weights, ranker.bias[label], inputs, relevances) <= 1.05 * best


def test_relevances_and_costs_weigh_the_texts(problem):
    features, labels, shortlists = problem
    relevances = labels.copy()
    relevances.data = np.random.default_rng(1).choice([0.25, 1.0], labels.nnz).astype(np.float32)
    weighted = (features, relevances, shortlists)
    ranker = train_ranker(*weighted, cost=COST, negative_cost=0.5, weights_per_label=60)
    inputs, of_texts = examples(weighted, 3)
    costs = np.where(of_texts > 0, COST * of_texts, 0.5)
    oracle = LinearSVC(C=1, loss="squared_hinge", dual=True, tol=1e-6, max_iter=100_000)
    oracle.fit(inputs, of_texts > 0, sample_weight=costs)
    best = objective(oracle.coef_[0], oracle.intercept_[0], inputs, of_texts, 0.5)
    assert objective(ranker.weights[3].toarray()[0], ranker.bias[3], inputs, of_texts, 0.5) <= 1.05 * best


def test_the_number_of_threads_changes_no_bit_but_seeds_do(problem):
    one, two, other = (
        train_ranker(*problem, cost=COST, weights_per_label=20, num_threads=threads, seed=seed)
        for threads, seed in ((1, 0), (2, 0), (2, 1))
    )
    assert (one.weights != two.weights).nnz == 0
    assert np.array_equal(one.bias, two.bias)
    assert not np.array_equal(one.bias, other.bias)


def test_rare_cases_give_a_classifier(problem):
    features, labels, shortlists = problem
    features, labels = features.tolil(), labels.tolil()
    features[:5] = 0  # empty texts, all that label 0 has
    labels[:, 0] = 0
    labels[:5, 0] = 1
    labels[:, 1] = 0  # label 1 has no text, label 2 is in no shortlist, label 3 has one text
    labels[:, 3] = 0
    labels[9, 3] = 1
    shortlists = np.where(shortlists == 2, -1, shortlists)
    ranker = train_ranker(features.tocsr(), labels.tocsr(), shortlists, cost=COST, weights_per_label=60)
    assert ranker.weights[0].nnz == ranker.weights[1].nnz == 0
    assert ranker.bias[1] == -1
    assert -1 < ranker.bias[0] < 0
    margins = (features.tocsr() @ ranker.weights.T).toarray() + ranker.bias
    own = labels.toarray() > 0
    assert (margins[own[:, 2], 2] > 0.5).all()
    assert margins[9, 3] > margins[np.arange(400) != 9, 3].max()
    assert np.isfinite(margins).all()


def test_no_more_weights_are_kept_than_asked_for(problem):
    ranker = train_ranker(*problem, cost=COST, weights_per_label=7)
    assert ranker.weights.nnz == 7 * 8
    assert ranker.weights.has_sorted_indices


def test_what_does_not_fit_is_refused(problem):
    features, labels, shortlists = problem
    with pytest.raises(ValueError, match="cost must be finite and positive, got 0"):
        train_ranker(features, labels, shortlists, cost=0, weights_per_label=60)
    with pytest.raises(ValueError, match="shortlists must hold labels below 8"):
        train_ranker(features, labels, shortlists + 8, cost=COST, weights_per_label=60)
    with pytest.raises(ValueError, match="shortlists must have 400 rows, one a text, got 800"):
        train_ranker(features, labels, np.vstack([shortlists, shortlists]), cost=COST, weights_per_label=60)
    with pytest.raises(ValueError, match="labels' rows must have 400 values, got 399"):
        train_ranker(features, labels[1:], shortlists, cost=COST, weights_per_label=60)
