"""Ranking metrics of extreme classification, and their propensity-scored variants.

Q queries, K predicted labels a query, L labels. Definitions: P@k, nDCG@k as in the extreme classification
repository; PSP@k, PSnDCG@k of Jain et al., "Extreme Multi-label Loss Functions for Recommendation,
Tagging, Ranking & Other Missing Label Applications", KDD 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.errors import ConfigError

Array = npt.NDArray[np.float64]


def evaluate(
    predicted: npt.ArrayLike,
    relevant: sp.csr_matrix,
    *,
    ks: Sequence[int] = (1, 3, 5),
    recall_ks: Sequence[int] = (10, 100),
    inverse_propensity: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Averages over the queries that have relevant labels, in percent, keyed "P@1", "nDCG@3", "R@10", ...

    Args:
        predicted: label ids [Q, K], best first, padded with −1; no id twice in a row.
        relevant: CSR [Q, L]; the stored non-zeros are the relevant labels. Labels that can't be predicted
            (unseen in training) have columns too: they count in the denominators.
        ks: cut-offs of P and nDCG and, with propensities, of PSP and PSnDCG. P@k divides by k always.
        recall_ks: cut-offs of recall.
        inverse_propensity: 1/p_l for each of the L columns, from `inverse_propensities`.

    Raises:
        ValueError: the shapes don't fit, or no query has a relevant label.
    """
    predicted = np.asarray(predicted)
    if predicted.ndim != 2 or predicted.shape[0] != relevant.shape[0]:
        raise ValueError(f"predicted must be [{relevant.shape[0]}, K], got shape {predicted.shape}")
    relevant = sp.csr_matrix(relevant, dtype=np.float64, copy=True)
    relevant.eliminate_zeros()
    relevant.sort_indices()
    counts = np.diff(relevant.indptr)
    if not counts.any():
        raise ValueError("no query has a relevant label: there is nothing to evaluate")
    with_labels = counts > 0
    hits = _hits(predicted, relevant)[with_labels].astype(np.float64)
    counts = counts[with_labels]

    result = {f"P@{k}": hits[:, :k].sum(1).mean() / k for k in ks}
    result |= {f"nDCG@{k}": _ndcg(hits, counts, k) for k in ks}
    result |= {f"R@{k}": float((hits[:, :k].sum(1) / counts).mean()) for k in recall_ks}
    if inverse_propensity is not None:
        gain = np.asarray(inverse_propensity, np.float64)
        gained = hits * gain[np.clip(predicted[with_labels], 0, None)]
        best = _best_gains(relevant, gain, max(ks))[with_labels]
        for k in ks:
            result[f"PSP@{k}"] = gained[:, :k].sum() / best[:, :k].sum()
            result[f"PSnDCG@{k}"] = _discounted(gained, k).sum() / _discounted(best, k).sum()
    return {name: 100 * float(value) for name, value in result.items()}


def inverse_propensities(label_counts: npt.ArrayLike, num_texts: int, a: float = 0.55, b: float = 1.5) -> Array:
    """1/p_l = 1 + C (N_l + b)^−a with C = (ln N − 1)(b + 1)^a (Jain et al. 2016).

    Args:
        label_counts: N_l, in how many of the N training texts each label occurs; [L].
        num_texts: N.
        a: 0.55, but 0.6 for Amazon's and 0.5 for Wikipedia's data sets.
        b: 1.5, but 2.6 for Amazon's and 0.4 for Wikipedia's data sets.

    Raises:
        ConfigError: a or b is not a positive number.
    """
    if not (0 < a < math.inf and 0 < b < math.inf):
        raise ConfigError(f"the propensity model's a and b must be positive numbers, got {a} and {b}")
    # Of fewer than e texts the formula would make rare labels less valuable than frequent ones.
    c = max(0.0, math.log(max(num_texts, 1)) - 1) * (b + 1) ** a
    return 1 + c * (np.asarray(label_counts, np.float64) + b) ** -a


def _hits(predicted: npt.NDArray[np.integer], relevant: sp.csr_matrix) -> npt.NDArray[np.bool_]:
    """Whether each predicted label is relevant: bool [Q, K]."""
    num_queries, num_labels = relevant.shape
    queries = np.repeat(np.arange(num_queries), np.diff(relevant.indptr))
    wanted = queries * np.int64(num_labels) + relevant.indices
    found = np.arange(num_queries)[:, None] * np.int64(num_labels) + predicted
    return np.isin(found, wanted) & (predicted >= 0)


def _discounted(gains: Array, k: int) -> Array:
    """Σ_{i<k} gain_i / log2(i + 2) for each query, [Q]."""
    gains = gains[:, :k]
    return gains @ (1 / np.log2(np.arange(gains.shape[1]) + 2))


def _ndcg(hits: Array, counts: npt.NDArray[np.integer], k: int) -> float:
    ideal = np.cumsum(1 / np.log2(np.arange(k) + 2))
    return float((_discounted(hits, k) / ideal[np.minimum(counts, k) - 1]).mean())


def _best_gains(relevant: sp.csr_matrix, gain: Array, k: int) -> Array:
    """The k largest gains among each query's relevant labels, descending, padded with 0; [Q, k]."""
    counts = np.diff(relevant.indptr)
    queries = np.repeat(np.arange(len(counts)), counts)
    gains = gain[relevant.indices]
    order = np.lexsort((-gains, queries))
    rank = np.arange(len(order)) - np.repeat(relevant.indptr[:-1], counts)
    best = np.zeros((len(counts), k))
    kept = rank < k
    best[queries[kept], rank[kept]] = gains[order][kept]
    return best
