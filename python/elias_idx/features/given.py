"""Features that exist already, such as an XMC data set's tf-idf. N inputs, F features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from elias_idx.data import Inputs, is_sparse
from elias_idx.errors import DataError, FormatError


class GivenFeatures:
    """Rows scaled to unit length.

    A row without features stays a row of zeros.
    """

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features

    def fit_transform(self, inputs: Any, num_threads: int | None = None) -> sp.csr_matrix:
        """Like `transform`: there is nothing to learn."""
        return self.transform(inputs, num_threads)

    def transform(
        self,
        inputs: Inputs,
        num_threads: int | None = None,  # noqa: ARG002 (always one)
    ) -> sp.csr_matrix:
        """The rows as float32 CSR [N, F], of unit length.

        Raises:
            DataError: the inputs are no sparse matrix of F columns, or not finite.
        """
        if not is_sparse(inputs):
            raise DataError(f"this model takes sparse features, a CSR matrix [N, {self.num_features}]")
        if inputs.shape[1] != self.num_features:
            raise DataError(f"this model takes {self.num_features} features a row, got {inputs.shape[1]}")
        if inputs.dtype.kind not in "biuf":
            raise DataError(f"features must be real numbers, got {inputs.dtype}")
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite
            matrix = sp.csr_matrix(inputs, dtype=np.float32, copy=True)
        # Entries of one place are added up, and columns ascend.
        matrix.sum_duplicates()
        if not np.isfinite(matrix.data).all():
            row = np.searchsorted(matrix.indptr, np.flatnonzero(~np.isfinite(matrix.data))[0], side="right") - 1
            raise DataError(f"the features of row {row} are not all finite")
        _scale_rows(matrix)
        return matrix

    def save(self, folder: Path) -> None:
        """Writes `features.json`."""
        (folder / "features.json").write_text(json.dumps({"num_features": self.num_features}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> GivenFeatures:
        """Reads what `save` wrote."""
        num_features = json.loads((folder / "features.json").read_text(encoding="utf-8"))["num_features"]
        if type(num_features) is not int:
            raise FormatError(f"{folder}/features.json: num_features is {num_features!r}")
        return cls(num_features)


def _scale_rows(matrix: sp.csr_matrix) -> None:
    """Gives each row of a float32 CSR matrix unit length, in place; rows of zeros stay so."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    squares = np.bincount(rows, np.square(matrix.data, dtype=np.float64), matrix.shape[0])
    factors = 1 / np.sqrt(squares, where=squares > 0, out=np.ones(len(squares)))
    # In float64: float32 can't hold the factors of rows that are very short or very long.
    matrix.data = (matrix.data * factors[rows]).astype(np.float32)
