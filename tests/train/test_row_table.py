"""The row-wise Adam of tables against a plain transcription of its definition."""

import numpy as np
import pytest
import torch

from elias_idx.train.row_table import RowGradient, RowTable, added_up


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


def table_of(weight, bias=None, learning_rate=0.1):
    table = RowTable(torch.from_numpy(weight.copy()), None if bias is None else torch.from_numpy(bias.copy()))
    table.learning_rate = learning_rate
    return table


def gradient_of(rows, biases=None):
    order = sorted(rows)
    bias = None if biases is None else torch.tensor([biases[row] for row in order], dtype=torch.float32)
    return RowGradient(torch.tensor(order), torch.stack([torch.from_numpy(rows[row]) for row in order]), bias)


def random_gradient(rng, num_rows):
    touched = rng.choice(num_rows - 1, size=max(2, num_rows // 2), replace=False)
    return {int(row): rng.normal(size=4).astype(np.float32) for row in touched}


@pytest.mark.parametrize("num_rows", [5, 1500])
def test_touched_rows_move_as_defined_and_others_not_at_all(num_rows):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(num_rows, 4)).astype(np.float32), rng.normal(size=num_rows).astype(np.float32)
    table = table_of(weight, bias)
    steps, bias_steps = [random_gradient(rng, num_rows) for _ in range(4)], []
    for rows in steps:
        bias_steps.append({row: rng.normal(size=1) for row in rows})
        table.gradients.append(gradient_of(rows, {row: value[0] for row, value in bias_steps[-1].items()}))
        table.step()
    assert table.weight.detach().numpy() == pytest.approx(reference(weight, steps, 0.1), abs=1e-5)
    assert table.bias.detach().numpy() == pytest.approx(reference(bias[:, None], bias_steps, 0.1)[:, 0], abs=1e-5)
    assert np.array_equal(table.weight.detach().numpy()[-1], weight[-1])


def test_several_gradients_of_a_step_are_added_up():
    rng = np.random.default_rng(1)
    parts = [random_gradient(rng, 40) for _ in range(3)]
    expected = {}
    for rows in parts:
        for row, values in rows.items():
            expected[row] = expected.get(row, 0) + values
    total = added_up([gradient_of(rows, {row: values[0] for row, values in rows.items()}) for rows in parts])
    assert total.rows.tolist() == sorted(expected)
    assert total.weight.numpy() == pytest.approx(np.stack([expected[row] for row in sorted(expected)]), abs=1e-6)
    assert total.bias.numpy() == pytest.approx(total.weight[:, 0].numpy(), abs=1e-6)


def test_a_step_without_gradient_changes_nothing():
    table = table_of(np.ones((2, 2), np.float32))
    table.step()
    assert bool((table.weight == 1).all())


def test_a_step_uses_each_gradient_once():
    table = table_of(np.ones((2, 2), np.float32))
    table.gradients.append(gradient_of({1: np.ones(2, np.float32)}))
    table.step()
    after = table.weight.detach().clone()
    table.step()
    assert torch.equal(table.weight, after)


def test_a_state_dict_holds_all_state():
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(9, 4)).astype(np.float32), np.zeros(9, np.float32)
    one, other = table_of(weight, bias), table_of(np.zeros((9, 4), np.float32), bias + 1)
    gradients = [random_gradient(rng, 9) for _ in range(2)]
    for number, rows in enumerate(gradients):
        if number == 1:
            other.load_state_dict(one.state_dict())
        for table in (one, other):
            table.gradients = [gradient_of(rows, dict.fromkeys(rows, 0.5))]
            table.step()
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_reset_state_starts_over_from_the_same_weights():
    rows = {0: np.array([1.0, -2.0], np.float32)}
    table = table_of(np.ones((2, 2), np.float32))
    for _ in range(2):
        before = table.weight.detach().clone()
        table.gradients.append(gradient_of(rows))
        table.step()
        moved = (table.weight - before)[0].detach().numpy()
        assert moved == pytest.approx(reference(np.zeros((1, 2)), [rows], 0.1)[0], abs=1e-6)
        table.reset_state()
