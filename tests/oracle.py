"""ELIAS search in plain NumPy and float64, written from the model's equations, to hold the others to.

Shapes: Q queries, D dim, C clusters, L labels, D' label dim, B beam, S shortlist.

1. cluster scores s_c = min(1, α · softmax(W_C e + b_C))
2. beam: the B clusters of the highest s_c
3. path scores s_l = max over the beam's clusters of s_c · a_{c,l}
4. shortlist: the S labels of the highest s_l
5. final score p_l = s_l · sigmoid(w_l · T e + b_l); the top k

Everywhere the smaller id comes first among equals. Missing results are −1 and 0.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parts:
    """What an index is built from; the adjacency is dense here, [C, L] with 0 for no edge."""

    cluster_weights: Array
    cluster_bias: Array
    adjacency: Array
    label_weights: Array
    label_bias: Array
    label_projection: Array | None = None
    alpha: float = 10.0
    queries: Array = field(default_factory=lambda: np.zeros((0, 1), dtype=np.float32))

    @property
    def csr(self) -> tuple[Array, Array, Array]:
        """The adjacency as (indptr, indices, data)."""
        rows, indices = np.nonzero(self.adjacency)
        indptr = np.searchsorted(rows, np.arange(len(self.adjacency) + 1))
        return indptr, indices, self.adjacency[rows, indices]

    def build_args(self) -> dict[str, Any]:
        """Keyword arguments for `Index.build`."""
        return {
            "cluster_weights": self.cluster_weights,
            "cluster_bias": self.cluster_bias,
            "adjacency": self.csr,
            "label_weights": self.label_weights,
            "label_bias": self.label_bias,
            "label_projection": self.label_projection,
            "alpha": self.alpha,
        }


def best(scores: Array, allowed: Array, count: int) -> Array:
    """The ids of the `count` highest scores among the allowed ones, smaller ids first among equals."""
    ids = np.flatnonzero(allowed)
    return ids[np.argsort(-scores[ids], kind="stable")][:count]


def padded(ids: Array, scores: Array, width: int) -> tuple[Array, Array]:
    """One row of results, filled up with −1 and 0."""
    missing = width - len(ids)
    return np.pad(ids, (0, missing), constant_values=-1), np.pad(scores, (0, missing))


def sigmoid(z: Array) -> Array:
    """The logistic function, without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


def cluster_scores(parts: Parts, query: Array) -> Array:
    """Step 1 for one query: s_c [C].

    Scores that underflow to 0 in float32 tie there, which decides the beam, so they are 0 here too.
    """
    logits = parts.cluster_weights.astype(np.float64) @ query + parts.cluster_bias
    exps = np.exp(logits - logits.max())
    scores = np.minimum(1.0, parts.alpha * exps / exps.sum())
    return np.where(scores < 1e-37, scores.astype(np.float32), scores)


def path_scores(parts: Parts, query: Array, beam_size: int) -> tuple[Array, Array]:
    """Steps 2 and 3 for one query: s_l [L], and which labels are reached at all [L]."""
    scores = cluster_scores(parts, query)
    clusters = best(scores, np.ones(len(scores), dtype=bool), beam_size)
    weights = parts.adjacency[clusters].astype(np.float64)
    return (scores[clusters, None] * weights).max(axis=0), (weights > 0).any(axis=0)


def beam(parts: Parts, queries: Array, beam_size: int) -> tuple[Array, Array]:
    """Clusters and scores [Q, min(B, C)]."""
    rows = []
    for query in queries.astype(np.float64):
        scores = cluster_scores(parts, query)
        clusters = best(scores, np.ones(len(scores), dtype=bool), beam_size)
        rows.append((clusters, scores[clusters]))
    return _stack(rows, min(beam_size, len(parts.cluster_bias)))


def shortlist(parts: Parts, queries: Array, beam_size: int, shortlist_size: int) -> tuple[Array, Array]:
    """Labels and path scores [Q, min(S, L)]."""
    width = min(shortlist_size, len(parts.label_bias))
    rows = []
    for query in queries.astype(np.float64):
        scores, reached = path_scores(parts, query, beam_size)
        labels = best(scores, reached, width)
        rows.append(padded(labels, scores[labels], width))
    return _stack(rows, width)


def search(parts: Parts, queries: Array, k: int, beam_size: int, shortlist_size: int) -> tuple[Array, Array]:
    """Labels and final scores [Q, k]."""
    rows = []
    for query in queries.astype(np.float64):
        paths, reached = path_scores(parts, query, beam_size)
        labels = best(paths, reached, shortlist_size)
        projected = query if parts.label_projection is None else parts.label_projection.astype(np.float64) @ query
        logits = parts.label_weights[labels].astype(np.float64) @ projected + parts.label_bias[labels]
        final = np.full(len(parts.label_bias), -1.0)
        final[labels] = paths[labels] * sigmoid(logits)
        top = best(final, final >= 0, k)
        rows.append(padded(top, final[top], k))
    return _stack(rows, k)


def _stack(rows: list[tuple[Array, Array]], width: int) -> tuple[Array, Array]:
    ids = np.array([row[0] for row in rows], dtype=np.int64).reshape(-1, width)
    return ids, np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, width)


def random_parts(
    seed: int = 0,
    *,
    num_queries: int = 8,
    dim: int = 12,
    num_clusters: int = 9,
    num_labels: int = 60,
    label_dim: int | None = None,
    labels_per_cluster: int = 15,
    alpha: float = 10.0,
) -> Parts:
    """An ordinary index: each cluster leads to some random labels with random weights."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    adjacency = np.zeros((num_clusters, num_labels), dtype=np.float32)
    for row in adjacency:
        labels = rng.choice(num_labels, min(labels_per_cluster, num_labels), replace=False)
        row[labels] = rng.uniform(0.05, 1.0, len(labels))
    return Parts(
        cluster_weights=normal(num_clusters, dim),
        cluster_bias=normal(num_clusters),
        adjacency=adjacency,
        label_weights=normal(num_labels, label_dim or dim),
        label_bias=normal(num_labels),
        label_projection=None if label_dim is None else normal(label_dim, dim),
        alpha=alpha,
        queries=normal(num_queries, dim),
    )


def awkward_parts() -> dict[str, Parts]:
    """Indexes that have broken searches, by what is awkward about them."""
    plain = random_parts(1)
    holes = plain.adjacency.copy()
    holes[[0, 3, 8]] = 0
    unreachable = plain.adjacency.copy()
    unreachable[:, 10:50] = 0
    full = np.broadcast_to(np.float32(0.5), plain.adjacency.shape).copy()
    steps = (np.ceil(plain.adjacency * 2) / 2).astype(np.float32)
    constant = {
        "cluster_weights": np.zeros_like(plain.cluster_weights),
        "cluster_bias": np.zeros_like(plain.cluster_bias),
        "label_weights": np.zeros_like(plain.label_weights),
        "label_bias": np.zeros_like(plain.label_bias),
    }
    return {
        "plain": plain,
        "projection": random_parts(2, label_dim=5),
        "wide projection": random_parts(3, label_dim=31),
        "one of everything": random_parts(4, dim=1, num_clusters=1, num_labels=1),
        "odd dims": random_parts(5, dim=67, num_clusters=13, num_labels=101),
        "many clusters": random_parts(6, num_clusters=700, num_labels=40, labels_per_cluster=3),
        "empty rows": replace(plain, adjacency=holes),
        "no edges": replace(plain, adjacency=np.zeros_like(plain.adjacency)),
        "unreachable labels": replace(plain, adjacency=unreachable),
        "every path to every label": replace(plain, adjacency=full),
        "ties of weights": replace(plain, adjacency=steps),
        "ties of everything": replace(plain, adjacency=full, **constant),
        "saturated softmax": replace(plain, cluster_bias=plain.cluster_bias * 200),
        "scores all clamped to 1": replace(plain, alpha=1e6),
        "tiny alpha": replace(plain, alpha=1e-30),
        "underflow of cluster scores": replace(plain, cluster_weights=plain.cluster_weights * 300),
        "underflow of final scores": replace(plain, label_bias=np.full_like(plain.label_bias, -500)),
        "certain labels": replace(plain, label_bias=np.full_like(plain.label_bias, 500)),
        "large values": replace(plain, queries=plain.queries * 1e4),
        "zero queries": replace(plain, queries=np.zeros_like(plain.queries)),
    }


def assert_same_results(found: tuple[Array, Array], expected: tuple[Array, Array], *, tolerance: float = 1e-6) -> None:
    """Holds (ids, scores) to the oracle's.

    Scores agree to the tolerance, as does the padding. Ids agree too, except where the oracle's scores
    tie within the tolerance: there the two may order labels differently, or cut other ones off.
    """
    (ids, scores), (expected_ids, expected_scores) = found, expected
    assert ids.shape == expected_ids.shape
    assert scores.shape == expected_scores.shape
    np.testing.assert_array_equal(ids < 0, expected_ids < 0)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=tolerance)
    for row, expected_row, row_scores in zip(ids, expected_ids, expected_scores, strict=True):
        real = row[row >= 0]
        assert len(set(real.tolist())) == len(real), "an id is returned twice"
        for position in np.flatnonzero(row != expected_row):
            others = np.delete(row_scores, position)
            is_last = position == len(real) - 1 or row_scores[position] - row_scores[len(real) - 1] <= tolerance
            tied = is_last or (np.abs(others - row_scores[position]) <= tolerance).any()
            assert tied, f"id {row[position]} instead of {expected_row[position]} at {position}"
