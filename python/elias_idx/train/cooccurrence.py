"""Which labels go together. N texts, L labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

# Labels that a label keeps: those that stand beside it most often.
COMPANIONS = 100
# Products of pairs that are added up at once, which bounds the memory.
_PAIRS_AT_ONCE = 1 << 25


def label_cooccurrence(labels: sp.csr_matrix) -> sp.csr_matrix:
    """For each label m and others l the share of the texts with m that have l, too.

    Args:
        labels: the texts' labels, CSR [N, L], whose stored entries count.

    Returns:
        float32 CSR [L, L], row m being of label m, with the 100 largest shares of a row.
    """
    ones = np.ones(labels.nnz, np.float32)
    has = sp.csr_matrix((ones, labels.indices, labels.indptr), labels.shape)
    texts = has.T.tocsr()
    pairs = texts @ np.diff(has.indptr)
    blocks = [_shares(texts[rows], has, rows.start) for rows in _blocks(pairs)]
    return sp.vstack(blocks, format="csr")


def _blocks(pairs: np.ndarray) -> Iterator[slice]:
    """Consecutive labels with not too many pairs, or a single one with more."""
    sums = np.concatenate([[0], np.cumsum(pairs)])
    start = 0
    while start < len(pairs):
        end = int(np.searchsorted(sums, sums[start] + _PAIRS_AT_ONCE, side="right")) - 1
        yield slice(start, max(end, start + 1))
        start = max(end, start + 1)


def _shares(texts: sp.csr_matrix, has: sp.csr_matrix, first: int) -> sp.csr_matrix:
    """The rows of some labels, [R, L], from the texts that have them, CSR [R, N]."""
    counts = (texts @ has).tocoo()
    other = counts.col != counts.row + first
    rows, columns = counts.row[other], counts.col[other]
    shares = counts.data[other] / np.diff(texts.indptr).astype(np.float32)[rows]
    order = np.lexsort((columns, -shares, rows))
    place = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    kept = order[place < COMPANIONS]
    matrix = sp.csr_matrix((shares[kept], (rows[kept], columns[kept])), counts.shape)
    matrix.sort_indices()
    return matrix
