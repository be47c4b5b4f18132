"""Sparse products and their gradients against dense autograd."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from elias_idx.train.ragged import Ragged
from elias_idx.train.row_table import RowTable
from elias_idx.train.sparse_ops import sampled_dots, sparse_product

CPU = torch.device("cpu")


def random_pattern(rows, columns, density, seed):
    matrix = sp.random(rows, columns, density, "csr", np.float32, np.random.default_rng(seed))
    matrix.sort_indices()
    return matrix


def dense_gradient(rows, values, num_rows):
    return values.new_zeros(num_rows, *values.shape[1:]).index_add(0, rows, values)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.6])
def test_sparse_product_and_its_gradient(density):
    matrix = random_pattern(9, 30, density, 0)
    table = RowTable(torch.randn(30, 5))
    result = sparse_product(Ragged.from_scipy(matrix, CPU), table)
    weight = torch.randn_like(result)
    (result * weight).sum().backward()
    expected = table.weight.detach().clone().requires_grad_()
    (torch.from_numpy(matrix.toarray()) @ expected * weight).sum().backward()
    torch.testing.assert_close(result, torch.from_numpy(matrix.toarray()) @ table.weight)
    [gradient] = table.gradients
    assert gradient.rows.tolist() == np.unique(matrix.indices).tolist()
    torch.testing.assert_close(dense_gradient(gradient.rows, gradient.weight, 30), expected.grad)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5])
def test_sampled_dots_and_their_gradients(density):
    matrix = random_pattern(8, 40, density, 1)
    pattern = Ragged.from_scipy(matrix, CPU)
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(size, generator=generator) for size in ((8, 6), (40, 6), (40,))]
    queries, rows, bias = dense_side = [tensor.clone().requires_grad_() for tensor in start]
    own_queries, table = start[0].requires_grad_(), RowTable(*start[1:])
    weight = torch.randn(matrix.nnz, generator=generator)

    found = sampled_dots(own_queries, table, pattern)
    expected = (queries @ rows.t() + bias)[pattern.owners(), pattern.indices]
    torch.testing.assert_close(found, expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    [gradient] = table.gradients
    ours = own_queries.grad, *(dense_gradient(gradient.rows, part, 40) for part in (gradient.weight, gradient.bias))
    for found, parameter in zip(ours, dense_side, strict=True):
        torch.testing.assert_close(found, parameter.grad)
    assert gradient.rows.tolist() == np.unique(matrix.indices).tolist()


def test_small_gradients_are_skipped_and_no_others():
    pattern = Ragged.from_scipy(random_pattern(4, 20, 0.5, 2), CPU)
    queries, table = torch.randn(4, 3, requires_grad=True), RowTable(torch.randn(20, 3), torch.zeros(20))
    gradient = torch.randn(len(pattern.indices))
    sampled_dots(queries, table, pattern, skip_below=0.5).backward(gradient)
    kept = torch.where(gradient.abs() >= 0.5, gradient, 0.0)
    dense = torch.zeros(4, 20)
    dense[pattern.owners(), pattern.indices] = kept
    torch.testing.assert_close(queries.grad, dense @ table.weight.detach())
    [gradient] = table.gradients
    torch.testing.assert_close(dense_gradient(gradient.rows, gradient.weight, 20), dense.t() @ queries.detach())
    torch.testing.assert_close(dense_gradient(gradient.rows, gradient.bias, 20), dense.sum(0))


def test_ragged_rows_are_those_of_the_matrix():
    matrix = random_pattern(12, 9, 0.3, 3)
    rows = np.array([3, 3, 0, 11, 5])
    taken = Ragged.from_scipy(matrix, CPU).take(torch.from_numpy(rows))
    expected = matrix[rows]
    assert taken.indptr.tolist() == expected.indptr.tolist()
    assert taken.indices.tolist() == expected.indices.tolist()
    assert taken.values.numpy() == pytest.approx(expected.data)
    assert taken.owners().tolist() == np.repeat(np.arange(5), np.diff(expected.indptr)).tolist()


def test_values_are_looked_up_at_another_pattern():
    matrix, pattern = random_pattern(12, 30, 0.3, 4), random_pattern(12, 30, 0.4, 5)
    values = Ragged.from_scipy(matrix, CPU).values_at(Ragged.from_scipy(pattern, CPU))
    rows = np.repeat(np.arange(12), np.diff(pattern.indptr))
    assert values.tolist() == matrix.toarray()[rows, pattern.indices].tolist()
    empty = Ragged.from_scipy(sp.csr_matrix((12, 30), dtype=np.float32), CPU)
    assert not empty.values_at(Ragged.from_scipy(pattern, CPU)).any()


def test_padding_lays_rows_out_as_a_rectangle():
    matrix = sp.csr_matrix(np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], np.float32))
    ragged = Ragged.from_scipy(matrix, CPU)
    assert ragged.padded(ragged.indices, fill=-1).tolist() == [[1, 2], [-1, -1], [0, -1]]
