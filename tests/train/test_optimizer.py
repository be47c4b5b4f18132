"""The row-wise Adam against a plain transcription of its definition."""

import numpy as np
import pytest
import torch

from elias_idx.train.optimizer import RowAdam


def reference(weights, gradients, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """One row at a time; `gradients` are {row: gradient} for each step."""
    weights = weights.astype(np.float64)
    momentum, second = np.zeros_like(weights), np.zeros(len(weights))
    for step, rows in enumerate(gradients, start=1):
        for row, gradient in rows.items():
            momentum[row] = beta1 * momentum[row] + (1 - beta1) * gradient
            second[row] = beta2 * second[row] + (1 - beta2) * np.mean(gradient**2)
            corrected = np.sqrt(second[row] / (1 - beta2**step)) + eps
            weights[row] -= lr * momentum[row] / (1 - beta1**step) / corrected
    return weights


def sparse(rows, shape, order):
    indices = torch.tensor([order])
    return torch.sparse_coo_tensor(indices, torch.stack([torch.from_numpy(rows[row]) for row in order]), shape)


@pytest.mark.parametrize("num_rows", [5, 1500])
def test_touched_rows_move_as_defined_and_others_not_at_all(num_rows):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(num_rows, 4)).astype(np.float32)
    steps = []
    for _ in range(4):
        touched = rng.choice(num_rows - 1, size=max(2, num_rows // 2), replace=False)
        steps.append({int(row): rng.normal(size=4).astype(np.float32) for row in np.sort(touched)})
    weights = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = RowAdam([weights], lr=0.1)
    for rows in steps:
        weights.grad = sparse(rows, weights.shape, list(rows))
        optimizer.step()
    assert weights.detach().numpy() == pytest.approx(reference(start, steps, 0.1), abs=1e-5)
    assert np.array_equal(weights.detach().numpy()[-1], start[-1])


def test_repeated_rows_in_a_gradient_are_summed():
    start = np.ones((3, 2), np.float32)
    weights = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = RowAdam([weights], lr=0.1)
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    weights.grad = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), values, (3, 2))
    optimizer.step()
    expected = reference(start, [{1: np.array([4.0, 6.0])}], 0.1)
    assert weights.detach().numpy() == pytest.approx(expected, abs=1e-6)


def test_parameters_without_gradient_stay():
    weights = torch.nn.Parameter(torch.ones(2, 2))
    RowAdam([weights], lr=0.1).step()
    assert bool((weights == 1).all())
