"""Evidence and fusion in plain NumPy and float64, written from the specification, to hold the index to.

Everything is dense here. Shapes: Q queries, L labels, F sparse features, N training texts, P columns of evidence.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

import oracle
from elias_idx import FusionTrees, Index
from oracle import Array, Parts

COLUMNS = [
    "logit",
    "log_path",
    "found",
    "log_dense",
    "log_dense_gap",
    "margin",
    "log_hinge",
    "margin_gap",
    "vote_share",
    "log_votes",
    "nearest",
    "best_neighbour",
    "log_frequency",
    "name_overlap",
    "log_cooccurrence",
]


@dataclass(frozen=True)
class FusionParts:
    """What evidence is computed from beside the dense model; matrices are dense, parts that are missing None."""

    sparse: Array
    """The queries' features [Q, F]."""
    label_counts: Array
    ranker: Array | None = None
    """[L, F]"""
    ranker_bias: Array | None = None
    texts: Array | None = None
    """[N, F]"""
    text_labels: Array | None = None
    """[N, L]"""
    label_texts: Array | None = None
    """[L, F]"""
    cooccurrence: Array | None = None
    """[L, L]"""
    num_candidates: int = 10
    num_neighbours: int = 5

    def evidence_args(self) -> dict[str, Any]:
        """Keyword arguments for `Index.with_evidence`."""
        return {
            "num_features": self.sparse.shape[1],
            "num_candidates": self.num_candidates,
            "num_neighbours": self.num_neighbours,
            "label_counts": self.label_counts,
            "ranker": None if self.ranker is None else (sp.csr_matrix(self.ranker), self.ranker_bias),
            "neighbours": None if self.texts is None else (sp.csr_matrix(self.texts), sp.csr_matrix(self.text_labels)),
            "label_texts": None if self.label_texts is None else sp.csr_matrix(self.label_texts),
            "cooccurrence": None if self.cooccurrence is None else sp.csr_matrix(self.cooccurrence),
        }

    def add_to(self, index: Index) -> Index:
        return index.with_evidence(**self.evidence_args())


class Candidates(NamedTuple):
    """Those of one query."""

    labels: Array
    values: Array
    """[n, P]"""


def evidence(
    parts: Parts,
    fusion: FusionParts,
    query: int,
    *,
    beam_size: int,
    shortlist_size: int,
    num_candidates: int,
    allowed: Array | None = None,
    like: Array | None = None,
) -> Candidates:
    """The candidates of a query, and what is known of them.

    Labels that they shall be `like` are taken for them if their scores are the same but for rounding.
    """
    num_labels = len(parts.label_bias)
    embedding, x = parts.queries[query].astype(np.float64), fusion.sparse[query].astype(np.float64)
    projection = np.eye(len(embedding)) if parts.label_projection is None else parts.label_projection
    logits = parts.label_weights.astype(np.float64) @ (projection @ embedding) + parts.label_bias
    paths, reached = oracle.path_scores(parts, embedding, beam_size, shortlist_size, allowed)
    shortlist = np.zeros(num_labels, dtype=bool)
    shortlist[oracle.best(paths, reached, shortlist_size)] = True
    dense_scores = paths * oracle.sigmoid(logits)
    dense = oracle.best(dense_scores, shortlist, min(num_candidates, num_labels))
    dense = _alike(dense, like[: len(dense)], dense_scores, shortlist) if like is not None else dense

    cosines, votes, nearest = np.zeros(0), np.zeros(num_labels), np.zeros(num_labels)
    labels = dense
    if fusion.texts is not None and fusion.text_labels is not None:
        products = fusion.texts.astype(np.float64) @ x
        near = oracle.best(products, products > 0, fusion.num_neighbours)
        cosines, has = products[near], fusion.text_labels[near] != 0
        votes = (cosines[:, None] ** 3 * has).sum(axis=0)
        nearest = (cosines[:, None] * has).max(axis=0, initial=0)
        others = (votes > 0) & ~np.isin(np.arange(num_labels), dense)
        others &= True if allowed is None else allowed
        voted = oracle.best(votes, others, num_candidates)
        voted = _alike(voted, like[len(dense) :], votes, others) if like is not None else voted
        labels = np.concatenate([dense, voted])

    logit = np.clip(logits[labels], -30, 30)
    found = np.arange(len(labels)) < len(dense)
    with np.errstate(divide="ignore"):
        log_path = np.clip(np.log(paths[labels]), -20, 0)
    log_path[~found] = log_path[found].min(initial=0) - 1
    log_dense = np.maximum(log_path - np.logaddexp(0, -logit), -40)
    zeros = np.zeros(len(labels))
    margin = log_hinge = margin_gap = vote_share = log_votes = best_neighbour = overlap = together = zeros
    if fusion.ranker is not None:
        margin = np.clip(fusion.ranker[labels].astype(np.float64) @ x + fusion.ranker_bias[labels], -30, 30)
        log_hinge = np.maximum(-(np.maximum(0, 1 - margin) ** 3), -27)
        margin_gap = margin - margin.max(initial=-np.inf)
    if fusion.texts is not None:
        vote_share = votes[labels] / max((cosines**3).sum(), 1e-30)
        log_votes = np.log(votes[labels] + 1e-3)
        best_neighbour = zeros + cosines.max(initial=0)
    if fusion.label_texts is not None:
        overlap = fusion.label_texts[labels].astype(np.float64) @ x
    if fusion.cooccurrence is not None:
        companions = np.flatnonzero(found)[:10]
        shares = fusion.cooccurrence[labels[companions]][:, labels].astype(np.float64)
        together = np.log(np.exp(log_dense[companions]) @ shares + 1e-3)
    columns = [logit, log_path, found, log_dense, log_dense - log_dense.max(initial=-np.inf)]
    columns += [margin, log_hinge, margin_gap]
    columns += [vote_share, log_votes, nearest[labels], best_neighbour, np.log1p(fusion.label_counts[labels])]
    columns += [overlap, together]
    return Candidates(labels, np.stack(columns, axis=1))


def _alike(best: Array, given: Array, values: Array, allowed: Array) -> Array:
    """The given labels if they are as good as the best ones but for rounding, else these.

    Where values are exactly equal, the smaller label comes first whatever the rounding.
    """
    if len(given) != len(best) or len(np.unique(given)) < len(given) or not allowed[given].all():
        return best
    ties = np.allclose(values[given], values[best], rtol=1e-5, atol=0)
    return given if ties and (values[given] != values[best]).any() else best


def scores(found: Candidates, linear: Array, bias: float, trees: FusionTrees | None) -> Array:
    """The score of each candidate."""
    logits = bias + found.values @ linear.astype(np.float64)
    if trees is not None:
        for root in trees.offsets[:-1]:
            logits = logits + [_leaf(trees, int(root), row) for row in found.values]
    return oracle.sigmoid(logits)


def _leaf(trees: FusionTrees, node: int, row: Array) -> float:
    while trees.columns[node] >= 0:
        node = int(trees.children[node][int(row[trees.columns[node]] > trees.thresholds[node])])
    return float(trees.values[node])


def unit_rows(rng: np.random.Generator, num_rows: int, num_features: int, density: float) -> Array:
    """Sparse rows of length 1, some of them empty."""
    rows = rng.random((num_rows, num_features)) * (rng.random((num_rows, num_features)) < density)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def random_fusion(
    parts: Parts, seed: int = 0, *, num_features: int = 40, num_texts: int = 50, **sizes: int
) -> FusionParts:
    """Everything that an index can have, with random numbers."""
    rng = np.random.default_rng(seed)
    num_labels = len(parts.label_bias)
    ranker = rng.standard_normal((num_labels, num_features)) * (rng.random((num_labels, num_features)) < 0.3)
    return FusionParts(
        sparse=unit_rows(rng, len(parts.queries), num_features, 0.2),
        label_counts=rng.integers(0, 50, num_labels),
        ranker=ranker.astype(np.float32),
        ranker_bias=rng.standard_normal(num_labels).astype(np.float32),
        texts=unit_rows(rng, num_texts, num_features, 0.2),
        text_labels=rng.random((num_texts, num_labels)) < 0.06,
        label_texts=unit_rows(rng, num_labels, num_features, 0.1),
        cooccurrence=random_shares(rng, num_labels),
        **sizes,
    )


def random_shares(rng: np.random.Generator, num_labels: int) -> Array:
    """Shares of labels that go together, none of a label with itself."""
    shares = rng.random((num_labels, num_labels)) * (rng.random((num_labels, num_labels)) < 0.2)
    np.fill_diagonal(shares, 0)
    return shares.astype(np.float32)


def without(fusion: FusionParts, part: str) -> FusionParts:
    """The same without a part."""
    names = {
        "ranker": ["ranker", "ranker_bias"],
        "neighbours": ["texts", "text_labels"],
        "label_texts": ["label_texts"],
        "cooccurrence": ["cooccurrence"],
    }
    return replace(fusion, **dict.fromkeys(names[part]))


def random_trees(seed: int = 0, *, num_trees: int = 6, max_depth: int = 4) -> FusionTrees:
    """Trees of random shapes, splits and leaves; the first one is a single leaf."""
    rng = np.random.default_rng(seed)
    nodes: list[list[float]] = []

    def grow(depth: int) -> int:
        at = len(nodes)
        nodes.append([-1, 0.0, 0, 0, rng.normal()])
        if depth > 0 and rng.random() < 0.9:
            split = [float(rng.integers(len(COLUMNS))), float(np.float32(rng.normal(0, 3)))]
            nodes[at] = [*split, grow(depth - 1), grow(depth - 1), 0.0]
        return at

    offsets = [0]
    for tree in range(num_trees):
        grow(max_depth if tree else 0)
        offsets.append(len(nodes))
    table = np.array(nodes)
    return FusionTrees(
        offsets=np.array(offsets),
        columns=table[:, 0].astype(np.int32),
        thresholds=table[:, 1].astype(np.float32),
        children=table[:, 2:4].astype(np.int32),
        values=table[:, 4].astype(np.float32),
    )
