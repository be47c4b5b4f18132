"""ELIAS search in plain NumPy and float64, written from the model's equations, to hold the others to.

Shapes: Q queries, D dim, C clusters, L labels, D' label dim, B beam, S shortlist.

1. cluster scores s_c = min(1, α · softmax(W_C e + b_C))
2. beam: the B clusters of the highest s_c
3. path scores s_l = max over the beam's clusters of s_c · a_{c,l}
4. shortlist: the S labels of the highest s_l
5. final score p_l = s_l · sigmoid(w_l · T e + b_l); the top k

With a filter (the labels a query may have) only allowed labels count in steps 3 to 5, and the beam is the fewest best
clusters, at least B of them, that lead to min(S, L) distinct allowed labels; all clusters if these lead to fewer.

Everywhere the smaller id comes first among equals. Missing results are −1 and 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

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
    """Step 1 for one query: s_c [C]."""
    logits = parts.cluster_weights.astype(np.float64) @ query + parts.cluster_bias
    exps = np.exp(logits - logits.max())
    return as_in_float32(np.minimum(1.0, parts.alpha * exps / exps.sum()))


def path_scores(
    parts: Parts, query: Array, beam_size: int, shortlist_size: int, allowed: Array | None
) -> tuple[Array, Array]:
    """Steps 2 and 3 for one query: s_l [L], and which labels are reached at all [L].

    `allowed` [L] are the labels that the query may have.
    """
    scores = cluster_scores(parts, query)
    ranked = best(scores, np.ones(len(scores), dtype=bool), len(scores))
    if allowed is None:
        allowed = np.ones(len(parts.label_bias), dtype=bool)
    else:
        wanted = min(shortlist_size, len(parts.label_bias))
        found = [((parts.adjacency[ranked[:size]] > 0).any(axis=0) & allowed).sum() for size in range(len(ranked) + 1)]
        enough = (size for size, count in enumerate(found) if count >= wanted and size >= beam_size)
        beam_size = next(enough, len(ranked))
    weights = np.where(allowed, parts.adjacency[ranked[:beam_size]].astype(np.float64), 0)
    return as_in_float32((scores[ranked[:beam_size], None] * weights).max(axis=0)), (weights > 0).any(axis=0)


def as_in_float32(scores: Array) -> Array:
    """The scores; those that float32 can hold but coarsely, or as 0, rounded to it.

    Such scores tie in float32, which decides the beam and the shortlist.
    """
    return np.where(scores < 1e-37, scores.astype(np.float32), scores)


class Results(NamedTuple):
    """Ranked results and what it takes to judge another ranking of the same.

    Attributes:
        ids: [Q, k], padded with −1.
        scores: [Q, k], padded with 0.
        all_scores: the score of everything that was ranked, returned or cut off, by id; −1 for the rest. [Q, N].
        rounding: by how much, relatively, float32 logits may change the scores of each query, [Q].
    """

    ids: Array
    scores: Array
    all_scores: Array
    rounding: Array


def beam(parts: Parts, queries: Array, beam_size: int) -> Results:
    """Clusters and scores [Q, min(B, C)]."""
    queries = queries.astype(np.float64)
    scores = [cluster_scores(parts, query) for query in queries]
    return _ranked(scores, min(beam_size, len(parts.cluster_bias)), [_cluster_rounding(parts, q) for q in queries])


def shortlist(
    parts: Parts, queries: Array, beam_size: int, shortlist_size: int, allowed: Sequence[Array | None] | None = None
) -> Results:
    """Labels and path scores [Q, min(S, L)]; `allowed` has the labels [L] of each query, None for all."""
    queries = queries.astype(np.float64)
    pairs = zip(queries, allowed or [None] * len(queries), strict=True)
    found = (path_scores(parts, query, beam_size, shortlist_size, mask) for query, mask in pairs)
    paths = [np.where(reached, scores, -1.0) for scores, reached in found]
    return _ranked(paths, min(shortlist_size, len(parts.label_bias)), [_cluster_rounding(parts, q) for q in queries])


def search(
    parts: Parts,
    queries: Array,
    k: int,
    beam_size: int,
    shortlist_size: int,
    allowed: Sequence[Array | None] | None = None,
) -> Results:
    """Labels and final scores [Q, k]; `allowed` as for `shortlist`."""
    rows, rounding = [], []
    label_weights = parts.label_weights.astype(np.float64)
    projection = np.eye(queries.shape[1]) if parts.label_projection is None else parts.label_projection
    for query, mask in zip(queries.astype(np.float64), allowed or [None] * len(queries), strict=True):
        paths, reached = path_scores(parts, query, beam_size, shortlist_size, mask)
        labels = best(paths, reached, shortlist_size)
        logits = label_weights[labels] @ (projection.astype(np.float64) @ query) + parts.label_bias[labels]
        final = np.full(len(parts.label_bias), -1.0)
        final[labels] = as_in_float32(paths[labels] * sigmoid(logits))
        rows.append(final)
        sums = np.abs(label_weights) @ (np.abs(projection) @ np.abs(query)) + np.abs(parts.label_bias)
        rounding.append(_cluster_rounding(parts, query) + _EPSILONS * sums.max())
    return _ranked(rows, k, rounding)


# The error of a float32 dot product is a few half-units in the last place of the sum of its absolute summands.
_EPSILONS = 4 * 2.0**-24


def _cluster_rounding(parts: Parts, query: Array) -> float:
    """How far off a float32 logit may be: relatively, an exponential is as far off."""
    return float(_EPSILONS * (np.abs(parts.cluster_weights) @ np.abs(query) + np.abs(parts.cluster_bias)).max())


def _ranked(all_scores: list[Array], width: int, rounding: list[float]) -> Results:
    tops = [best(scores, scores >= 0, width) for scores in all_scores]
    rows = [padded(top, scores[top], width) for top, scores in zip(tops, all_scores, strict=True)]
    ids = np.array([row[0] for row in rows], dtype=np.int64).reshape(-1, width)
    scores = np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, width)
    return Results(ids, scores, np.array(all_scores), np.array(rounding))


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


def assert_same_results(found: tuple[Array, Array], expected: Results, *, tolerance: float = 1e-6) -> None:
    """Holds (ids, scores) to the oracle's.

    Scores agree to the relative tolerance, widened by what rounding does to the query's logits (and to the
    smallest normal float32, below which numbers are coarse). Ids agree too. Another id is forgiven only where
    the oracle's score of that very id ties within the tolerance with the expected one; and not where all that
    ties there is exactly equal, for then the smaller id comes first whatever the rounding.
    """
    ids, scores = found
    assert ids.shape == expected.ids.shape
    assert scores.shape == expected.scores.shape
    np.testing.assert_array_equal(ids < 0, expected.ids < 0)
    allowed = (tolerance + expected.rounding)[:, None] * expected.scores + _SMALLEST
    allowed[expected.ids < 0] = 0
    # Exact zeros come out exactly: nothing that is 0 in the oracle is more than that in float32.
    allowed[expected.scores == 0] = 0
    wrong = np.argwhere(~(np.abs(scores - expected.scores) <= allowed))
    assert not len(wrong), f"score {scores[tuple(wrong[0])]} instead of {expected.scores[tuple(wrong[0])]}"
    for row in ids:
        assert len(set(row[row >= 0])) == (row >= 0).sum(), "an id is returned twice"
    for query, position in np.argwhere(ids != expected.ids):
        every, score = expected.all_scores[query], expected.scores[query, position]
        tied = (every >= 0) & (np.abs(every - score) <= allowed[query, position])
        message = f"id {ids[query, position]} instead of {expected.ids[query, position]} at {position} of {query}"
        assert 0 <= ids[query, position] < len(every), message
        assert tied[ids[query, position]], message
        assert (every[tied] != score).any(), f"{message}, where scores are equal"


# The smallest normal float32: some functions flush what is below to 0.
_SMALLEST = 2.0**-126
