"""Products of sparse and dense matrices whose gradients touch only the rows that took part.

Torch's own autograd would write a gradient for every row of the dense operand (every label, every feature) at every
step; here the touched rows' gradients are left in the operand, a `RowTable`. Q rows in a batch, R rows of a table,
D dimensions, E entries.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from elias_idx.train.ragged import Ragged
from elias_idx.train.row_table import RowGradient, RowTable

with warnings.catch_warnings():
    # Torch says once a process that CSR tensors are in beta; let it say so here.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), dtype=torch.float32)


def sparse_product(matrix: Ragged, table: RowTable) -> Tensor:
    """`matrix @ table.weight`: [Q, R] times [R, D] gives [Q, D]."""
    result: Tensor = _SparseProduct.apply(table.weight, table, matrix)
    return result


def sampled_dots(queries: Tensor, table: RowTable, pattern: Ragged, skip_below: float = 0.0) -> Tensor:
    """`queries[q] · weight[r] + bias[r]` at the entries (q, r) of a pattern, without gathering the rows.

    Args:
        queries: [Q, D].
        table: weights [R, D] of the queries' dtype, and biases.
        pattern: E entries of [Q, R], each row's columns ascending; its values are ignored.
        skip_below: entries whose gradient is smaller in magnitude add nothing to the gradients: most negatives of
            a trained model, whose sum is noise beside the rest.

    Returns:
        One value an entry, [E].
    """
    result: Tensor = _SampledDots.apply(queries, table.weight, table.bias, table, pattern, skip_below)
    return result


def some_rows_learn(table: RowTable, rows: Tensor) -> Tensor:
    """`table.weight`, of which only the given rows (int64, ascending) get a gradient."""
    result: Tensor = _SomeRowsLearn.apply(table.weight, table, rows)
    return result


class _SomeRowsLearn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, table: RowTable, rows: Tensor) -> Tensor:
        ctx.table, ctx.rows = table, rows
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        ctx.table.gradients.append(RowGradient(ctx.rows, gradient[ctx.rows]))
        return None, None, None


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, table: RowTable, matrix: Ragged) -> Tensor:
        assert matrix.values is not None
        ctx.table, ctx.matrix = table, matrix
        return _csr(matrix.indptr, matrix.indices, matrix.values, len(weight)) @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        matrix = ctx.matrix
        rows, weight = _transposed_product(matrix.owners(), matrix.indices, matrix.values, gradient)
        ctx.table.gradients.append(RowGradient(rows, weight))
        return None, None, None


class _SampledDots(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, weight: Tensor, bias: Tensor, table: RowTable, pattern: Ragged, skip_below: float
    ) -> Tensor:
        ctx.save_for_backward(queries, weight)
        ctx.table, ctx.pattern, ctx.skip_below = table, pattern, skip_below
        zeros = _csr(pattern.indptr, pattern.indices, queries.new_zeros(len(pattern.indices)), len(weight))
        dots = torch.sparse.sampled_addmm(zeros, queries, weight.t(), beta=0.0).values()
        return dots + bias[pattern.indices]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (queries, weight), pattern = ctx.saved_tensors, ctx.pattern
        kept = (gradient.abs() >= ctx.skip_below).nonzero()[:, 0]
        owners, columns, values = pattern.owners()[kept], pattern.indices[kept], gradient[kept]
        indptr = torch.searchsorted(kept, pattern.indptr)
        query_gradient = _csr(indptr, columns, values, len(weight)) @ weight
        # A column of ones gives the biases' gradient.
        rows, sums = _transposed_product(owners, columns, values, F.pad(queries, (0, 1), value=1.0))
        ctx.table.gradients.append(RowGradient(rows, sums[:, :-1], sums[:, -1]))
        return query_gradient, None, None, None, None, None


def _transposed_product(owners: Tensor, columns: Tensor, values: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
    """(M's columns, ascending, and their rows of `Mᵀ @ dense`) for the entries (owner, column, value) of M."""
    columns, order = columns.sort(stable=True)
    touched, counts = columns.unique_consecutive(return_counts=True)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return touched, _csr(indptr, owners[order], values[order], len(dense)) @ dense


def _csr(indptr: Tensor, indices: Tensor, values: Tensor, num_columns: int) -> Tensor:
    # Valid by construction; checking would cost more than the products.
    return torch.sparse_csr_tensor(indptr, indices, values, (len(indptr) - 1, num_columns), check_invariants=False)
