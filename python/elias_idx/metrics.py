"""Ranking metrics of extreme classification, and their propensity-scored variants.

Q queries, K predicted labels a query, L labels. Where every query has labels, P@k, nDCG@k, R@k, PSP@k and PSnDCG@k are
what the tools of the extreme classification repository compute (https://github.com/kunaldahiya/pyxclib). Those count
queries without labels as zeros, which is done here with `all_queries` only. Propensities are those of Jain et al.,
"Extreme Multi-label Loss Functions for Recommendation, Tagging, Ranking & Other Missing Label Applications", KDD 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.errors import ConfigError, DataError

Array = npt.NDArray[np.float64]

_QUERIES_AT_ONCE = 65536


def evaluate(
    predicted: npt.ArrayLike,
    relevant: sp.csr_matrix,
    *,
    ks: Sequence[int] = (1, 3, 5),
    recall_ks: Sequence[int] = (10, 100),
    inverse_propensity: npt.ArrayLike | None = None,
    all_queries: bool = False,
) -> dict[str, float]:
    """Averages over the queries that have relevant labels, in percent, keyed "P@1", "nDCG@3", "R@10", ...

    PSP@k and PSnDCG@k are ratios of such averages, the best attainable below, in which queries without labels drop out.
    "macro P@k", "macro R@k" and "macro F1@k" are averages over the labels that some query has: of those of a label's
    predictions among the first k that are right (0 without predictions), of those of its queries that find it
    among the first k, and of the harmonic mean of these two.

    Args:
        predicted: label ids [Q, K], best first, padded with −1; no id twice in a row.
        relevant: CSR [Q, L]; the stored non-zeros are the relevant labels. Labels that can't be predicted
            (unseen in training) have columns too: they count in the denominators.
        ks: cut-offs of all but recall. P@k divides by k always.
        recall_ks: cut-offs of recall.
        inverse_propensity: 1/p_l for each of the L columns, from `inverse_propensities`.
        all_queries: whether queries without relevant labels count in P@k, nDCG@k and R@k, as zeros.

    Raises:
        ValueError: the shapes don't fit, or a label is none of the L.
        DataError: no query has a relevant label.
    """
    relevant = canonical(relevant)
    labels = _checked_predictions(predicted, relevant)
    counts = np.diff(relevant.indptr)
    if not counts.any():
        raise DataError("no query has a relevant label: there is nothing to evaluate")
    with_labels = counts > 0
    relevant, labels, counts = relevant[with_labels], labels[with_labels], counts[with_labels]
    is_hit = _hits(labels, relevant)
    hits = is_hit.astype(np.float64)
    # Which part of the queries that count the others, all zeros, are not.
    share = 1.0 if not all_queries else float(with_labels.mean())

    result = {f"P@{k}": share * hits[:, :k].sum(1).mean() / k for k in ks}
    result |= {f"nDCG@{k}": share * _ndcg(hits, counts, k) for k in ks}
    result |= {f"R@{k}": share * float((hits[:, :k].sum(1) / counts).mean()) for k in recall_ks}
    if inverse_propensity is not None:
        gain = np.asarray(inverse_propensity, np.float64)
        if gain.shape != (relevant.shape[1],):
            raise ValueError(f"inverse_propensity must be [{relevant.shape[1]}], got shape {list(gain.shape)}")
        gained = hits * gain[np.clip(labels, 0, None)]
        best = _best_gains(relevant, gain, max(ks))
        for k in ks:
            result[f"PSP@{k}"] = gained[:, :k].sum() / best[:, :k].sum()
            result[f"PSnDCG@{k}"] = _ndcg(gained, counts, k) / _ndcg(best, counts, k)
    for k in ks:
        result |= _macro(labels[:, :k], is_hit[:, :k], relevant.indices, relevant.shape[1], k)
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


def canonical(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """A copy as CSR: each non-zero entry stored once, in the order of the columns."""
    matrix = sp.csr_matrix(matrix, dtype=np.float64, copy=True)
    matrix.eliminate_zeros()
    matrix.sum_duplicates()
    return matrix


def _checked_predictions(predicted: npt.ArrayLike, relevant: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """The predicted labels as int64 [Q, K].

    Raises:
        ValueError: they are no whole numbers, not for Q queries, or none of the L labels.
    """
    labels = np.asarray(predicted)
    num_queries, num_labels = relevant.shape
    if labels.ndim != 2 or labels.shape[0] != num_queries or labels.dtype.kind not in "iu":
        raise ValueError(
            f"predicted must be whole numbers [{num_queries}, K], got {labels.dtype} of shape {labels.shape}"
        )
    if labels.max(initial=-1) >= num_labels:
        raise ValueError(f"predicted has label {labels.max()}, but there are {num_labels} labels")
    return labels.astype(np.int64, copy=False)


def _hits(predicted: npt.NDArray[np.int64], relevant: sp.csr_matrix) -> npt.NDArray[np.bool_]:
    """Whether each predicted label is relevant: bool [Q, K]."""
    wanted = _pair_keys(relevant)
    result = np.empty(predicted.shape, bool)
    for start in range(0, len(predicted), _QUERIES_AT_ONCE):
        part = predicted[start : start + _QUERIES_AT_ONCE]
        queries = np.arange(start, start + len(part))[:, None]
        result[start : start + len(part)] = _is_in(queries * np.int64(relevant.shape[1]) + part, wanted) & (part >= 0)
    return result


def _pair_keys(matrix: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """A number for each entry of a matrix with sorted indices, ascending."""
    queries = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return queries * matrix.shape[1] + matrix.indices


def _is_in(keys: npt.NDArray[np.int64], ascending: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each key is among those that stand in order."""
    padded = np.append(ascending, np.iinfo(np.int64).max)
    return padded[np.searchsorted(ascending, keys)] == keys


def _macro(
    predicted: npt.NDArray[np.integer],
    hits: npt.NDArray[np.bool_],
    relevant: npt.NDArray[np.integer],
    num_labels: int,
    k: int,
) -> dict[str, float]:
    """The averages over labels, of k predictions a query [Q, k] and all relevant labels [E]."""
    uses = np.bincount(relevant, minlength=num_labels)
    found = np.bincount(predicted[hits], minlength=num_labels)[uses > 0]
    tried = np.bincount(predicted[predicted >= 0], minlength=num_labels)[uses > 0]
    uses = uses[uses > 0]
    return {
        f"macro P@{k}": float((found / np.maximum(tried, 1)).mean()),
        f"macro R@{k}": float((found / uses).mean()),
        f"macro F1@{k}": float((2 * found / (tried + uses)).mean()),
    }


def frequency_groups(label_counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Which labels are head (0), torso (1) and tail (2): each group has a third of all labels' uses in training.

    Groups of equal volume are what quantiles of labels mean in extreme classification (Mittal et al., "ECLARE: Extreme
    Classification with Label Graph Correlations", WWW 2021, has five). Labels without uses are in the tail.

    Args:
        label_counts: in how many training texts each label occurs, [L].

    Returns:
        int64 [L].
    """
    counts = np.asarray(label_counts, np.int64)
    order = np.argsort(-counts, kind="stable")
    more_frequent = np.concatenate([[0], counts[order].cumsum()[:-1]])
    groups = np.empty(len(counts), np.int64)
    groups[order] = np.minimum(3 * more_frequent // max(1, counts.sum()), 2)
    return groups


def evaluate_groups(
    predicted: npt.ArrayLike,
    relevant: sp.csr_matrix,
    label_counts: npt.ArrayLike,
    *,
    ks: Sequence[int] = (1, 3, 5),
    recall_ks: Sequence[int] = (10, 100),
    all_queries: bool = False,
) -> dict[str, dict[str, float]]:
    """How much head, torso and tail labels contribute, and how well they are found; see `frequency_groups`.

    Args:
        predicted: as in `evaluate`.
        relevant: as in `evaluate`.
        label_counts: in how many training texts each label occurs, [L].
        ks: cut-offs of precision.
        recall_ks: cut-offs of recall.
        all_queries: as in `evaluate`.

    Returns:
        For "head", "torso" and "tail": how many "labels" are in the group and how many "uses" of them in `relevant`;
        "P@k", the share of P@k that comes from them (the three add up to P@k), and "R@k", which share of the uses is
        found among the first k; both in percent.

    Raises:
        ValueError: the shapes don't fit, or a label is none of the L.
    """
    relevant = canonical(relevant)
    labels = _checked_predictions(predicted, relevant)
    groups = frequency_groups(label_counts)
    if len(groups) != relevant.shape[1]:
        raise ValueError(f"label_counts must be [{relevant.shape[1]}], got shape {list(groups.shape)}")
    hits = _hits(labels, relevant)
    num_queries = max(1, len(labels) if all_queries else int((np.diff(relevant.indptr) > 0).sum()))
    result: dict[str, dict[str, float]] = {}
    for group, name in enumerate(("head", "torso", "tail")):
        own = hits & (groups[np.clip(labels, 0, None)] == group)
        uses = int((groups[relevant.indices] == group).sum())
        result[name] = {"labels": int((groups == group).sum()), "uses": uses}
        result[name] |= {f"P@{k}": 100 * float(own[:, :k].sum() / num_queries / k) for k in ks}
        result[name] |= {f"R@{k}": 100 * float(own[:, :k].sum() / max(1, uses)) for k in recall_ks}
    return result


def without_excluded(predicted: npt.NDArray[np.int64], excluded: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """Predictions without the pairs of a query and a label that don't count; later ones move up.

    Args:
        predicted: label ids [Q, K], best first, padded with −1.
        excluded: CSR [Q, L] as `canonical` makes it; its entries are the pairs.

    Returns:
        int64 [Q, K], padded with −1.

    Raises:
        ValueError: the shapes don't fit, or a label is none of the L.
    """
    predicted = _checked_predictions(predicted, excluded)
    out = _hits(predicted, excluded)
    order = np.argsort(out, axis=1, kind="stable")
    kept = np.take_along_axis(predicted, order, 1)
    return np.where(np.take_along_axis(out, order, 1), -1, kept)


def without_entries(matrix: sp.csr_matrix, excluded: sp.csr_matrix) -> sp.csr_matrix:
    """A copy of a CSR matrix without the entries that `excluded` has too; of one shape, as `canonical` makes them."""
    matrix = matrix.copy()
    matrix.data[_is_in(_pair_keys(matrix), _pair_keys(excluded))] = 0
    matrix.eliminate_zeros()
    return matrix


def _discounted(gains: Array, k: int) -> Array:
    """Σ_{i<k} gain_i / log2(i + 2) for each query, [Q]."""
    gains = gains[:, :k]
    return gains @ (1 / np.log2(np.arange(gains.shape[1]) + 2))


def _ndcg(gains: Array, counts: npt.NDArray[np.integer], k: int) -> float:
    """The mean of the queries' discounted gains, each relative to that of hits at all places that it has labels for."""
    places = np.minimum(counts, min(k, counts.max()))
    ideal = np.cumsum(1 / np.log2(np.arange(places.max()) + 2))
    return float((_discounted(gains, k) / ideal[places - 1]).mean())


def _best_gains(relevant: sp.csr_matrix, gain: Array, k: int) -> Array:
    """The k largest gains among each query's relevant labels, descending, padded with 0.

    [Q, k], or less wide where no query has as many labels.
    """
    counts = np.diff(relevant.indptr)
    k = min(k, int(counts.max()))
    queries = np.repeat(np.arange(len(counts)), counts)
    gains = gain[relevant.indices]
    order = np.lexsort((-gains, queries))
    rank = np.arange(len(order)) - np.repeat(relevant.indptr[:-1], counts)
    best = np.zeros((len(counts), k))
    kept = rank < k
    best[queries[kept], rank[kept]] = gains[order][kept]
    return best
