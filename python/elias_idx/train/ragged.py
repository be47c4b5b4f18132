"""Rows of unequal length on the training device: a CSR matrix whose rows are picked a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """A CSR matrix of R rows and E entries.

    Attributes:
        indptr: int64 [R + 1], where each row's entries start and end.
        indices: int64 [E], the column of each entry.
        num_columns: the number of columns.
        values: float32 [E]; None where only the pattern matters.
    """

    indptr: Tensor
    indices: Tensor
    num_columns: int
    values: Tensor | None = None

    @classmethod
    def from_scipy(cls, matrix: sp.csr_matrix, device: torch.device) -> Ragged:
        """Copies a SciPy CSR matrix to the device."""
        return cls(
            torch.from_numpy(matrix.indptr.astype(np.int64)).to(device),
            torch.from_numpy(matrix.indices.astype(np.int64)).to(device),
            matrix.shape[1],
            torch.from_numpy(matrix.data.astype(np.float32)).to(device),
        )

    def take(self, rows: Tensor) -> Ragged:
        """The given rows (int64 [R']), in that order, as a matrix of R' rows."""
        starts, ends = self.indptr[rows], self.indptr[rows + 1]
        indptr = torch.cat([starts.new_zeros(1), (ends - starts).cumsum(0)])
        entries = torch.arange(int(indptr[-1]), device=rows.device) + (starts - indptr[:-1]).repeat_interleave(
            ends - starts
        )
        values = None if self.values is None else self.values[entries]
        return Ragged(indptr, self.indices[entries], self.num_columns, values)

    def row_lengths(self, rows: Tensor) -> Tensor:
        """The numbers of entries of the given rows (int64 [R'])."""
        return self.indptr[rows + 1] - self.indptr[rows]

    def values_at(self, pattern: Ragged) -> Tensor:
        """The values at another matrix's entries, 0 where there is none here; float32, one for each of its entries."""
        assert self.values is not None
        keys, order = self._keys().sort()
        wanted = pattern._keys()
        if not len(keys):
            return torch.zeros_like(wanted, dtype=self.values.dtype)
        places = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
        return torch.where(keys[places] == wanted, self.values[order[places]], 0.0)

    def _keys(self) -> Tensor:
        """One number for each entry's (row, column)."""
        return self.owners() * self.num_columns + self.indices

    def owners(self) -> Tensor:
        """The row of each entry, int64 [E]."""
        return torch.arange(len(self.indptr) - 1, device=self.indptr.device).repeat_interleave(self.indptr.diff())

    def padded(self, values: Tensor, fill: int) -> Tensor:
        """Lays one value an entry ([E]) out as a rectangle [R, longest row], filled up with `fill`."""
        owners = self.owners()
        positions = torch.arange(len(owners), device=owners.device) - self.indptr[owners]
        width = int(self.indptr.diff().max()) if len(self.indptr) > 1 else 0
        rectangle = values.new_full((len(self.indptr) - 1, width), fill)
        rectangle[owners, positions] = values
        return rectangle
