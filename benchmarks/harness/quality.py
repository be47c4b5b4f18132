"""How good answers are: against the exact search, against all labels' scores, and against the truth.

Shapes: Q queries, D dim, L labels, k labels returned.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import Index
from elias_idx.metrics import evaluate
from elias_idx.results import SearchResult

from .contestants import Work, index_folder, search_options
from .data import Dataset, FloatArray, IntArray


def exact_search(dataset: Dataset, queries: FloatArray, work: Work, *, allowed: float = 1.0) -> SearchResult:
    """The search that the others should agree with: float32 and no screen."""
    index = Index.load(index_folder(dataset, "float32", screen=False))
    return index.search(queries, work.k, **search_options(index, work, allowed))


def oracle_search(index: Index, queries: FloatArray, work: Work) -> SearchResult:
    """The same from the model's equations, in NumPy and float64: to check a few queries."""
    indptr, edge_labels, edge_weights = index.adjacency
    labels = np.full((len(queries), work.k), -1)
    scores = np.zeros((len(queries), work.k), np.float32)
    for row, query in enumerate(queries.astype(np.float64)):
        logits = index.cluster_weights @ query + index.cluster_bias
        exponentials = np.exp(logits - logits.max())
        clusters = np.minimum(1, index.alpha * exponentials / exponentials.sum())
        beam = _highest(clusters, work.beam_size)
        edges = [slice(indptr[cluster], indptr[cluster + 1]) for cluster in beam]
        scores_of_edges = [clusters[cluster] * edge_weights[edge] for cluster, edge in zip(beam, edges, strict=True)]
        reached, places = np.unique(np.concatenate([edge_labels[edge] for edge in edges]), return_inverse=True)
        best_paths = np.zeros(len(reached))
        np.maximum.at(best_paths, places, np.concatenate(scores_of_edges))
        kept = _highest(best_paths, work.shortlist_size)
        shortlist, paths = reached[kept], best_paths[kept]
        projected = query if index.label_projection is None else index.label_projection @ query
        logits = index.label_rows(shortlist) @ projected + index.label_bias[shortlist]
        final = paths / (1 + np.exp(-logits))
        best = _highest(final, work.k)
        labels[row, : len(best)] = shortlist[best]
        scores[row, : len(best)] = final[best]
    return SearchResult(labels, scores)


def overlap(labels: IntArray, expected: IntArray) -> float:
    """The mean share of expected labels [Q, k] that are among the labels [Q, k]; −1 is padding."""
    shares = []
    for found, wanted in zip(labels, expected, strict=True):
        present = np.isin(wanted[wanted >= 0], found)
        shares.append(present.mean() if len(present) else 1.0)
    return float(np.mean(shares))


def against_truth(labels: IntArray, relevant: sp.csr_matrix) -> dict[str, float]:
    """P@5 and R@100 of labels [Q, 100], in percent."""
    metrics = evaluate(labels, relevant, ks=(5,), recall_ks=(100,))
    return {name: metrics[name] for name in ("P@5", "R@100")}


def _highest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """The ids of the highest values, best first, smaller ids first among equals."""
    return np.argsort(-values, kind="stable")[:count]
