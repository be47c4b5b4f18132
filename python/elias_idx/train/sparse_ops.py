"""Products of sparse and dense matrices whose gradients touch only the rows that took part.

Torch's own autograd would write a gradient for every row of the dense operand (every label, every feature) at every
step; here it is a sparse tensor of whole rows. Q rows in a batch, R rows of a parameter, D dimensions, E entries.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elias_idx.train.ragged import Ragged

with warnings.catch_warnings():
    # Torch says once a process that CSR tensors are in beta; let it say so here.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), dtype=torch.float32)


def sparse_product(matrix: Ragged, dense: Tensor) -> Tensor:
    """`matrix @ dense`: [Q, R] times [R, D] gives [Q, D]; differentiable in `dense` by row-sparse gradients."""
    result: Tensor = _SparseProduct.apply(dense, matrix)
    return result


def sampled_dots(queries: Tensor, rows: Tensor, bias: Tensor, pattern: Ragged, skip_below: float = 0.0) -> Tensor:
    """`queries[q] · rows[r] + bias[r]` at the entries (q, r) of a pattern, without gathering the rows.

    Args:
        queries: [Q, D].
        rows: [R, D]; its gradient is a sparse tensor of the rows in the pattern.
        bias: [R, 1]; likewise.
        pattern: E entries of [Q, R], each row's columns ascending; its values are ignored.
        skip_below: entries whose gradient is smaller in magnitude add nothing to the gradients: most negatives of
            a trained model, whose sum is noise beside the rest.

    Returns:
        One value an entry, [E].
    """
    result: Tensor = _SampledDots.apply(queries, rows, bias, pattern, skip_below)
    return result


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Ragged) -> Tensor:
        assert matrix.values is not None
        ctx.matrix = matrix
        return _csr(matrix.indptr, matrix.indices, matrix.values, len(dense)) @ dense

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        matrix = ctx.matrix
        return _transposed_product(matrix.owners(), matrix.indices, matrix.values, gradient, matrix.num_columns), None


class _SampledDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, rows: Tensor, bias: Tensor, pattern: Ragged, skip_below: float) -> Tensor:
        ctx.save_for_backward(queries, rows)
        ctx.pattern, ctx.skip_below = pattern, skip_below
        zeros = _csr(pattern.indptr, pattern.indices, rows.new_zeros(len(pattern.indices)), len(rows))
        dots = torch.sparse.sampled_addmm(zeros, queries, rows.t(), beta=0.0).values()
        return dots + bias[pattern.indices, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (queries, rows), pattern = ctx.saved_tensors, ctx.pattern
        kept = (gradient.abs() >= ctx.skip_below).nonzero()[:, 0]
        owners, columns, values = pattern.owners()[kept], pattern.indices[kept], gradient[kept]
        indptr = torch.searchsorted(kept, pattern.indptr)
        query_gradient = _csr(indptr, columns, values, len(rows)) @ rows
        row_gradient = _transposed_product(owners, columns, values, queries, len(rows))
        ones = queries.new_ones(len(queries), 1)
        bias_gradient = _transposed_product(owners, columns, values, ones, len(rows))
        return query_gradient, row_gradient, bias_gradient, None, None


def _transposed_product(owners: Tensor, columns: Tensor, values: Tensor, dense: Tensor, num_columns: int) -> Tensor:
    """`Mᵀ @ dense` [num_columns, D] for the entries (owner, column, value) of M, as a sparse tensor of rows."""
    columns, order = columns.sort(stable=True)
    touched, counts = columns.unique_consecutive(return_counts=True)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    rows = _csr(indptr, owners[order], values[order], len(dense)) @ dense
    return torch.sparse_coo_tensor(
        touched[None], rows, (num_columns, rows.shape[1]), is_coalesced=True, check_invariants=False
    )


def _csr(indptr: Tensor, indices: Tensor, values: Tensor, num_columns: int) -> Tensor:
    # Valid by construction; checking would cost more than the products.
    return torch.sparse_csr_tensor(indptr, indices, values, (len(indptr) - 1, num_columns), check_invariants=False)
