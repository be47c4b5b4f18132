"""Sparse products and their gradients against dense autograd."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from elias_idx.train.ragged import Ragged
from elias_idx.train.sparse_ops import sampled_dots, sparse_product

CPU = torch.device("cpu")


def random_pattern(rows, columns, density, seed):
    matrix = sp.random(rows, columns, density, "csr", np.float32, np.random.default_rng(seed))
    matrix.sort_indices()
    return matrix


@pytest.mark.parametrize("density", [0.0, 0.1, 0.6])
def test_sparse_product_and_its_gradient(density):
    matrix = random_pattern(9, 30, density, 0)
    dense = torch.randn(30, 5, requires_grad=True)
    result = sparse_product(Ragged.from_scipy(matrix, CPU), dense)
    weight = torch.randn_like(result)
    (result * weight).sum().backward()
    expected = dense.detach().clone().requires_grad_()
    (torch.from_numpy(matrix.toarray()) @ expected * weight).sum().backward()
    torch.testing.assert_close(result, torch.from_numpy(matrix.toarray()) @ dense)
    assert dense.grad.is_sparse
    torch.testing.assert_close(dense.grad.to_dense(), expected.grad)
    assert dense.grad._nnz() == len(np.unique(matrix.indices))


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5])
def test_sampled_dots_and_their_gradients(density):
    matrix = random_pattern(8, 40, density, 1)
    pattern = Ragged.from_scipy(matrix, CPU)
    generator = torch.Generator().manual_seed(0)
    sizes = (8, 6), (40, 6), (40, 1)
    sparse_side = [torch.randn(size, generator=generator).requires_grad_() for size in sizes]
    dense_side = [tensor.detach().clone().requires_grad_() for tensor in sparse_side]
    weight = torch.randn(matrix.nnz, generator=generator)

    found = sampled_dots(*sparse_side, pattern)
    queries, rows, bias = dense_side
    expected = (queries @ rows.t() + bias[:, 0])[pattern.owners(), pattern.indices]
    torch.testing.assert_close(found, expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for ours, theirs in zip(sparse_side, dense_side, strict=True):
        torch.testing.assert_close(ours.grad.to_dense() if ours.grad.is_sparse else ours.grad, theirs.grad)
    assert rows.grad is not None
    assert sparse_side[1].grad.is_sparse
    assert sparse_side[2].grad.is_sparse


def test_small_gradients_are_skipped_and_no_others():
    pattern = Ragged.from_scipy(random_pattern(4, 20, 0.5, 2), CPU)
    queries, rows = torch.randn(4, 3, requires_grad=True), torch.randn(20, 3, requires_grad=True)
    bias = torch.zeros(20, 1, requires_grad=True)
    gradient = torch.randn(len(pattern.indices))
    sampled_dots(queries, rows, bias, pattern, skip_below=0.5).backward(gradient)
    kept = torch.where(gradient.abs() >= 0.5, gradient, 0.0)
    dense = torch.zeros(4, 20)
    dense[pattern.owners(), pattern.indices] = kept
    torch.testing.assert_close(queries.grad, dense @ rows.detach())
    torch.testing.assert_close(rows.grad.to_dense(), dense.t() @ queries.detach())
    torch.testing.assert_close(bias.grad.to_dense()[:, 0], dense.sum(0))


def test_ragged_rows_are_those_of_the_matrix():
    matrix = random_pattern(12, 9, 0.3, 3)
    rows = np.array([3, 3, 0, 11, 5])
    taken = Ragged.from_scipy(matrix, CPU).take(torch.from_numpy(rows))
    expected = matrix[rows]
    assert taken.indptr.tolist() == expected.indptr.tolist()
    assert taken.indices.tolist() == expected.indices.tolist()
    assert taken.values.numpy() == pytest.approx(expected.data)
    assert taken.owners().tolist() == np.repeat(np.arange(5), np.diff(expected.indptr)).tolist()


def test_padding_lays_rows_out_as_a_rectangle():
    matrix = sp.csr_matrix(np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], np.float32))
    ragged = Ragged.from_scipy(matrix, CPU)
    assert ragged.padded(ragged.indices, fill=-1).tolist() == [[1, 2], [-1, -1], [0, -1]]
