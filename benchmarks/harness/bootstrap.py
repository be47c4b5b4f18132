"""How sure averages over texts are. Q texts, M metrics, K labels predicted."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.metrics import canonical

Array = npt.NDArray[np.float64]

METRICS = ("P@1", "P@3", "P@5", "R@10", "R@100")

_DRAWS = 2000


def metrics_of_texts(predicted: npt.NDArray[np.integer], relevant: sp.csr_matrix) -> Array:
    """Each text's metrics in percent, [Q, M], for the texts that have labels; 0/0 is left out as NaN rows.

    Args:
        predicted: label ids [Q, K], best first, padded with −1.
        relevant: CSR [Q, L].
    """
    relevant = canonical(relevant)
    counts = np.diff(relevant.indptr)
    texts = np.repeat(np.arange(len(predicted)), predicted.shape[1])
    hits = np.asarray(relevant[texts, predicted.ravel().clip(0)]).reshape(predicted.shape) > 0
    hits &= predicted >= 0
    found = {k: hits[:, :k].sum(1) for k in (1, 3, 5, 10, 100)}
    with np.errstate(invalid="ignore"):
        columns = [found[k] / k for k in (1, 3, 5)] + [found[k] / counts for k in (10, 100)]
    return 100 * np.where(counts > 0, columns, np.nan).T


def intervals(metrics: Array, seed: int = 0) -> Array:
    """95 % intervals of the averages by the bootstrap's percentiles: [2, M], lower and upper ends.

    Args:
        metrics: of each text, [Q, M], without NaN.
        seed: of the draws; with the same one the same texts are drawn.
    """
    return np.percentile(_resampled(len(metrics), seed) @ metrics, (2.5, 97.5), axis=0)


def permutation_p(differences: Array, seed: int = 0) -> Array:
    """Two-sided p-values of averages of paired differences being 0, [M], by swapping the pairs of random texts.

    Args:
        differences: of the two systems' metrics of each text, [Q, M].
        seed: of the draws.
    """
    means = np.abs(_signs(len(differences), seed) @ differences) / len(differences)
    # A hair less than observed is as extreme: the sums round differently.
    as_extreme = (means >= np.abs(differences.mean(0)) * (1 - 1e-5)).sum(0)
    return (1 + as_extreme) / (1 + _DRAWS)


@lru_cache(maxsize=2)
def _resampled(num_texts: int, seed: int) -> npt.NDArray[np.float32]:
    """Weights of the texts in draws with replacement, [draws, Q]; all systems' averages are of the same draws."""
    random = np.random.default_rng(seed)
    draws = (np.bincount(random.integers(0, num_texts, num_texts), minlength=num_texts) for _ in range(_DRAWS))
    return np.stack([counts.astype(np.float32) / num_texts for counts in draws])


@lru_cache(maxsize=2)
def _signs(num_texts: int, seed: int) -> npt.NDArray[np.float32]:
    """1 or −1 for each text, [draws, Q]."""
    return np.random.default_rng(seed).integers(0, 2, (_DRAWS, num_texts), np.int8).astype(np.float32) * 2 - 1
