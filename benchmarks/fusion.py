"""What scoring candidates by all that is known of them costs, beside the dense search and plain SciPy and NumPy.

    python benchmarks/fusion.py

Makes an index of ICD-10-CM's shape with parts of all kinds from random numbers, lets its variants take turns on one
thread, and prints microseconds a query: the median of CPU time, which other processes disturb less than the clock.

A quick look: `--labels 2000 --texts 2000 --rounds 3`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import click
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import EVIDENCE, Evidence, FusionTrees, Index

FloatArray = npt.NDArray[np.float32]

_DIM, _CLUSTERS, _FEATURES = 512, 512, 100_000
_WEIGHTS_PER_LABEL, _FEATURES_PER_TEXT, _LABELS_PER_TEXT = 200, 170, 3
_CANDIDATES, _NEIGHBOURS, _K = 100, 100, 10
_TREES, _DEPTH = 100, 3
_PLAIN_QUERIES = 20


@dataclass(frozen=True)
class Parts:
    """What the variants are made of. Shapes: Q queries, N texts, L labels, F features."""

    dense: Index
    queries: FloatArray
    """[Q, D]"""
    sparse: sp.csr_matrix
    """[Q, F]"""
    texts: sp.csr_matrix
    """[N, F]"""
    text_labels: sp.csr_matrix
    """[N, L]"""
    ranker: sp.csr_matrix
    """[L, F]"""
    linear: FloatArray

    @cached_property
    def rare(self) -> sp.csr_matrix:
        """The texts without the features that the core leaves out."""
        counts = np.bincount(self.texts.indices, minlength=_FEATURES)
        kept = counts <= max(1000, 0.05 * self.texts.shape[0])
        return sp.csr_matrix(self.texts @ sp.diags(kept.astype(np.float32)))


@click.command(context_settings={"show_default": True})
@click.option("--labels", default=46_881, help="L")
@click.option("--texts", default=58_358, help="N")
@click.option("--queries", default=256, help="Q")
@click.option("--rounds", type=click.IntRange(1), default=15)
def main(labels: int, texts: int, queries: int, rounds: int) -> None:
    """Measures searches with sparse features."""
    parts = make_parts(labels, texts, queries)
    fused = with_parts(parts, ("ranker", "neighbours"))
    trees = complete_trees()
    found = fused.evidence(parts.queries[:_PLAIN_QUERIES], parts.sparse[:_PLAIN_QUERIES])
    check(parts, found)
    variants = {
        "dense search": searching(parts.dense, parts, None),
        f"dense search, k = {_CANDIDATES}": lambda: parts.dense.search(parts.queries, _CANDIDATES, num_threads=1),
        "+ evidence of the dense model": searching(with_parts(parts, ()), parts, parts.sparse),
        "+ ranker": searching(with_parts(parts, ("ranker",)), parts, parts.sparse),
        "+ ranker, neighbours": searching(fused, parts, parts.sparse),
        "+ ranker, neighbours, trees": searching(fused.with_fusion(parts.linear, trees=trees), parts, parts.sparse),
        "SciPy: ranker, neighbours alone": lambda: plain_evidence(parts, found),
    }
    microseconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.thread_time()
            run()
            count = _PLAIN_QUERIES if name.startswith("SciPy") else queries
            microseconds[name].append((time.thread_time() - start) / count * 1e6)
    for name, times in microseconds.items():
        click.echo(f"{name:40} {np.median(times):9.1f} µs a query")


def make_parts(num_labels: int, num_texts: int, num_queries: int) -> Parts:
    """Random numbers; features are as unevenly frequent as words."""
    rng = np.random.default_rng(0)

    def rows(count: int, length: int, columns: int, uneven: bool) -> sp.csr_matrix:
        share = rng.random((count, length))
        indices = np.sort((share**3 if uneven else share) * columns, axis=1).astype(np.int32)
        matrix = sp.csr_matrix(
            (rng.random(indices.size, dtype=np.float32), indices.ravel(), np.arange(0, indices.size + 1, length)),
            shape=(count, columns),
        )
        matrix.sum_duplicates()
        lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1).A1)
        matrix.data /= np.repeat(lengths, np.diff(matrix.indptr)).astype(np.float32)
        return matrix

    def normal(*shape: int) -> FloatArray:
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[-1]))

    edges = rows(_CLUSTERS, min(500, num_labels), num_labels, uneven=False)
    edges.data = rng.uniform(0.05, 1, edges.nnz).astype(np.float32)
    queries = normal(num_queries, _DIM) * 8
    return Parts(
        dense=Index.build(
            normal(_CLUSTERS, _DIM), np.zeros(_CLUSTERS), edges, normal(num_labels, _DIM), np.zeros(num_labels)
        ),
        queries=queries,
        sparse=rows(num_queries, _FEATURES_PER_TEXT, _FEATURES, uneven=True),
        texts=rows(num_texts, _FEATURES_PER_TEXT, _FEATURES, uneven=True),
        text_labels=rows(num_texts, _LABELS_PER_TEXT, num_labels, uneven=False),
        ranker=rows(num_labels, _WEIGHTS_PER_LABEL, _FEATURES, uneven=True),
        linear=np.full(len(EVIDENCE), 0.1, dtype=np.float32),
    )


def with_parts(parts: Parts, names: tuple[str, ...]) -> Index:
    """The index with some parts and a linear fusion."""
    num_labels = parts.dense.num_labels
    given = {
        "ranker": (parts.ranker, np.zeros(num_labels)),
        "neighbours": (parts.texts, parts.text_labels),
    }
    index = parts.dense.with_evidence(
        num_features=_FEATURES,
        num_candidates=_CANDIDATES,
        num_neighbours=_NEIGHBOURS,
        label_counts=np.zeros(num_labels, dtype=np.int64),
        **{name: given[name] for name in names},
    )
    return index.with_fusion(parts.linear)


def searching(index: Index, parts: Parts, sparse: sp.csr_matrix | None) -> Callable[[], object]:
    """A search for all queries."""
    return lambda: index.search(parts.queries, _K, sparse=sparse, num_threads=1)


def complete_trees() -> FusionTrees:
    """Trees of random splits."""
    rng = np.random.default_rng(0)
    nodes, splits = 2 ** (_DEPTH + 1) - 1, 2**_DEPTH - 1
    at = np.arange(nodes)
    inner = np.tile(at < splits, _TREES)
    children = np.stack([2 * at + 1, 2 * at + 2], axis=1)
    starts = np.repeat(np.arange(_TREES) * nodes, nodes)
    return FusionTrees(
        offsets=np.arange(_TREES + 1) * nodes,
        columns=np.where(inner, rng.integers(0, len(EVIDENCE), inner.size), -1).astype(np.int32),
        thresholds=rng.standard_normal(inner.size).astype(np.float32),
        children=np.where(inner[:, None], np.tile(children, (_TREES, 1)) + starts[:, None], 0).astype(np.int32),
        values=rng.standard_normal(inner.size).astype(np.float32),
    )


def plain_evidence(parts: Parts, found: Evidence) -> tuple[list[FloatArray], list[FloatArray]]:
    """Margins and logs of votes of the first queries' candidates, by sparse products."""
    cosines = (parts.sparse[:_PLAIN_QUERIES] @ parts.rare.T).toarray()
    margins, votes = [], []
    for query, near in enumerate(np.argpartition(-cosines, _NEIGHBOURS)[:, :_NEIGHBOURS]):
        labels = found.labels[found.offsets[query] : found.offsets[query + 1]]
        margins.append((parts.ranker[labels] @ parts.sparse[query].T).toarray().ravel())
        of_all = sp.csr_matrix(cosines[query, near] ** 3) @ parts.text_labels[near].astype(bool)
        votes.append(np.log(of_all[0, labels].toarray().ravel() + 1e-3))
    return margins, votes


def check(parts: Parts, found: Evidence) -> None:
    """Holds the core's evidence to the plain one."""
    for name, plain in zip(("margin", "log_votes"), plain_evidence(parts, found), strict=True):
        np.testing.assert_allclose(found.values[:, EVIDENCE.index(name)], np.concatenate(plain), atol=1e-3)


if __name__ == "__main__":
    main()
