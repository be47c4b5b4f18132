"""Fitting scores to evidence, and judging them by cross-validation over the held-out texts.

Q held-out texts, P columns of evidence, n candidates of all texts, C columns that are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from elias_idx import EVIDENCE, Evidence, FusionTrees

FOLDS = 5
# Candidates that are always learned from: the first of each kind, and the right ones. Of the others one in OTHERS is,
# with that weight: there are many, and nearly all are wrong and easy to tell.
FIRST, OTHERS = 20, 10
# Numbers of trees that are tried.
ROUNDS = (0, 20, 40, 80, 160, 320)
_BOOSTING = {
    "objective": "binary",
    "num_leaves": 8,
    "learning_rate": 0.1,
    "min_data_in_leaf": 50,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "boost_from_average": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
# P@k and R@k of these, and their mean, are what fusions are compared by.
PRECISIONS, RECALLS = (1, 3, 5), (10, 100)

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Texts and their candidates.

    Attributes:
        values: the evidence [n, P].
        texts: the texts' numbers [n], ascending.
        found: whether the dense search found the label [n].
        right: whether it is the text's [n].
        weights: what a pair counts in learning, 0 for not at all [n].
        folds: the fold of the text [n].
        num_true: labels of each text, candidates or not [Q].
    """

    values: npt.NDArray[np.float32]
    texts: npt.NDArray[np.int64]
    found: Mask
    right: Mask
    weights: Array
    folds: npt.NDArray[np.int64]
    num_true: npt.NDArray[np.int64]

    @classmethod
    def of(cls, evidence: Evidence, labels: sp.csr_matrix, seed: int) -> Pairs:
        """The candidates of texts with these labels, CSR [Q, L]."""
        random = np.random.default_rng(seed)
        counts = np.diff(evidence.offsets)
        folds = random.permutation(len(counts)) % FOLDS
        texts = np.repeat(np.arange(len(counts)), counts)
        found = evidence.values[:, EVIDENCE.index("found")] > 0
        num_true, width = np.diff(labels.indptr).astype(np.int64), max(labels.shape[1], 1)
        true = np.repeat(np.arange(len(counts)), num_true) * width + labels.indices
        right = np.isin(texts * width + evidence.labels, true)
        # Those that were found come first, so that the others' places count from where they end.
        place = np.arange(len(texts)) - evidence.offsets[texts]
        place = np.where(found, place, place - np.bincount(texts, found, len(counts)).astype(np.int64)[texts])
        near = right | (place < FIRST)
        weights = np.where(near, 1.0, np.where(random.random(len(texts)) < 1 / OTHERS, float(OTHERS), 0.0))
        return cls(evidence.values, texts, found, right, weights, folds[texts], num_true)

    def scored(self, neighbours: bool) -> Mask:
        """Which pairs get scores: all, or without the neighbours those of labels that were found."""
        return np.full(len(self.found), True) if neighbours else self.found


class Score(NamedTuple):
    """A linear function of some columns of evidence, and trees of the same columns that are added."""

    columns: tuple[int, ...]
    weights: Array
    bias: float
    booster: lightgbm.Booster | None

    def linear(self, values: npt.NDArray[np.float32]) -> Array:
        """The linear part for evidence [n, P]."""
        return values[:, self.columns] @ self.weights + self.bias

    def staged(self, values: npt.NDArray[np.float32], rounds: tuple[int, ...]) -> Array:
        """Scores after some numbers of trees, ascending [n, rounds]; none of trees that there are no more of."""
        score, stages = self.linear(values), []
        for start, end in zip((0, *rounds), rounds, strict=False):
            if self.booster is not None and start < min(end, self.booster.num_trees()):
                score = score + self.booster.predict(
                    values[:, self.columns], start_iteration=start, num_iteration=end - start, raw_score=True
                )
            stages.append(score)
        return np.stack(stages, axis=1)


def fit_score(pairs: Pairs, rows: Mask, columns: tuple[int, ...], rounds: int = 0) -> Score:
    """Fits a logistic regression and, from its scores on, as many trees as there are rounds.

    Pairs of one class alone teach nothing; then the score is the sum of the columns.
    """
    rows = rows & (pairs.weights > 0)
    values, right, weights = pairs.values[rows][:, columns].astype(np.float64), pairs.right[rows], pairs.weights[rows]
    if right.all() or not right.any():
        return Score(columns, np.ones(len(columns)), 0.0, None)
    scaler = StandardScaler().fit(values)
    model = LogisticRegression(solver="newton-cholesky", max_iter=200)
    model.fit(scaler.transform(values), right, weights)
    linear = model.coef_[0] / scaler.scale_
    score = Score(columns, linear, float(model.intercept_[0] - linear @ scaler.mean_), None)
    if not rounds:
        return score
    start = values @ score.weights + score.bias
    data = lightgbm.Dataset(values, right, weight=weights, init_score=start, params=_BOOSTING)
    # LightGBM would otherwise replace the booster by a copy of itself, and free the first one twice if an interruption
    # came between.
    booster = lightgbm.train(_BOOSTING, data, num_boost_round=rounds, keep_training_booster=True)
    return score._replace(booster=booster)


def cross_validated(pairs: Pairs, columns: tuple[int, ...], neighbours: bool, trees: bool) -> tuple[int, Array]:
    """The best number of trees, 0 if there shall be none, and with it each text's metrics [Q, 5].

    Each text is scored by what was fitted without it. The number of trees is the one of the largest likelihood.
    """
    rounds, scored = ROUNDS if trees else (0,), pairs.scored(neighbours)
    scores = np.full((len(scored), len(rounds)), -np.inf)
    for fold in range(FOLDS):
        rest, own = scored & (pairs.folds != fold), scored & (pairs.folds == fold)
        scores[own] = fit_score(pairs, rest, columns, rounds[-1]).staged(pairs.values[own], rounds)
    judged = scored & (pairs.weights > 0)
    signs = np.where(pairs.right[judged], 1.0, -1.0)[:, None]
    losses = pairs.weights[judged] @ np.logaddexp(0, -signs * scores[judged])
    best = int(np.argmin(losses))
    return rounds[best], text_metrics(pairs, scores[:, best])


def text_metrics(pairs: Pairs, scores: Array) -> Array:
    """P@k and R@k of each text in percent, [Q, 5]; 0 for texts without labels."""
    order = np.lexsort((-scores, pairs.texts))
    num_texts = len(pairs.num_true)
    places = np.arange(len(order)) - np.searchsorted(pairs.texts, pairs.texts)
    hits = pairs.right[order] & np.isfinite(scores[order])
    rows = [np.bincount(pairs.texts[hits & (places < k)], minlength=num_texts) for k in (*PRECISIONS, *RECALLS)]
    totals = [np.full(num_texts, k) for k in PRECISIONS] + [np.maximum(pairs.num_true, 1)] * len(RECALLS)
    return 100 * np.stack(rows, axis=1) / np.stack(totals, axis=1)


def exported(score: Score) -> FusionTrees | None:
    """The trees of a score as an index takes them; None if there are none."""
    if score.booster is None or not score.booster.num_trees():
        return None
    nodes: list[_Node] = []
    offsets = [0]
    for tree in score.booster.dump_model()["tree_info"]:
        _append(nodes, tree["tree_structure"], score.columns)
        offsets.append(len(nodes))
    columns, thresholds, left, right, values = zip(*nodes, strict=True)
    return FusionTrees(
        np.array(offsets, np.int64),
        np.array(columns, np.int32),
        np.array(thresholds, np.float64),
        np.stack([left, right], axis=1).astype(np.int32),
        np.array(values, np.float32),
    )


_Node = tuple[int, float, int, int, float]


def _append(nodes: list[_Node], tree: dict[str, Any], columns: tuple[int, ...]) -> int:
    """Appends a tree's root and what is below it; returns the root's place."""
    at = len(nodes)
    if "leaf_value" in tree:
        nodes.append((-1, 0.0, 0, 0, tree["leaf_value"]))
        return at
    nodes.append((-1, 0.0, 0, 0, 0.0))
    left = _append(nodes, tree["left_child"], columns)
    right = _append(nodes, tree["right_child"], columns)
    nodes[at] = (columns[tree["split_feature"]], tree["threshold"], left, right, 0.0)
    return at
