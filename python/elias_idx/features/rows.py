"""Rows of sparse matrices."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def scale_rows(matrix: sp.csr_matrix, length: float = 1.0) -> None:
    """Gives each row of a float32 CSR matrix this length, in place; rows of zeros stay so."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    squares = np.bincount(rows, np.square(matrix.data, dtype=np.float64), matrix.shape[0])
    factors = length / np.sqrt(squares, where=squares > 0, out=np.ones(len(squares)))
    matrix.data *= factors.astype(np.float32)[rows]
