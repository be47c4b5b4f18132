"""The row-wise Adam of tables against a plain transcription of its definition."""

import itertools

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


def table_of(weight, bias=None, **options):
    bias = None if bias is None else torch.from_numpy(bias.copy())
    return RowTable(torch.from_numpy(weight.copy()), bias, **options)


def step(table, gradient=None, learning_rate=0.1):
    table.begin_step(learning_rate)
    if gradient is not None:
        table.gradients.append(gradient)
    table.step()


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
        step(table, gradient_of(rows, {row: value[0] for row, value in bias_steps[-1].items()}))
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
    step(table)
    assert bool((table.weight == 1).all())


def test_a_step_uses_each_gradient_once():
    table = table_of(np.ones((2, 2), np.float32))
    step(table, gradient_of({1: np.ones(2, np.float32)}))
    after = table.weight.detach().clone()
    step(table)
    assert torch.equal(table.weight, after)


def test_an_update_needs_a_step():
    table = table_of(np.ones((2, 2), np.float32))
    table.gradients.append(gradient_of({1: np.ones(2, np.float32)}))
    with pytest.raises(ValueError, match="begin one"):
        table.step()


def test_a_state_dict_holds_all_state():
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(9, 4)).astype(np.float32), np.zeros(9, np.float32)
    one, other = table_of(weight, bias), table_of(np.zeros((9, 4), np.float32), bias + 1)
    gradients = [random_gradient(rng, 9) for _ in range(2)]
    for number, rows in enumerate(gradients):
        if number == 1:
            other.load_state_dict(one.state_dict())
        for table in (one, other):
            step(table, gradient_of(rows, dict.fromkeys(rows, 0.5)))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_reset_state_starts_over_from_the_same_weights():
    rows = {0: np.array([1.0, -2.0], np.float32)}
    table = table_of(np.ones((2, 2), np.float32))
    for _ in range(2):
        before = table.weight.detach().clone()
        step(table, gradient_of(rows))
        moved = (table.weight - before)[0].detach().numpy()
        assert moved == pytest.approx(reference(np.zeros((1, 2)), [rows], 0.1)[0], abs=1e-6)
        table.reset_state()


def elementwise_reference(weights, gradients, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    weights = weights.astype(np.float64)
    momentum, second = np.zeros_like(weights), np.zeros_like(weights)
    for number, rows in enumerate(gradients, start=1):
        for row, gradient in rows.items():
            momentum[row] = beta1 * momentum[row] + (1 - beta1) * gradient
            second[row] = beta2 * second[row] + (1 - beta2) * gradient**2
            corrected = np.sqrt(second[row] / (1 - beta2**number)) + eps
            weights[row] -= lr * momentum[row] / (1 - beta1**number) / corrected
    return weights


def test_second_moments_may_be_of_each_weight():
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(30, 4)).astype(np.float32)
    table, steps = table_of(weight, elementwise=True), [random_gradient(rng, 30) for _ in range(4)]
    for rows in steps:
        step(table, gradient_of(rows))
    assert table.weight.detach().numpy() == pytest.approx(elementwise_reference(weight, steps, 0.1), abs=1e-5)


@pytest.mark.parametrize("elementwise", [False, True])
def test_the_update_in_torch_is_that_of_the_core(elementwise):
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(50, 4)).astype(np.float32)
    bias = None if elementwise else rng.normal(size=50).astype(np.float32)
    one, other = (table_of(weight, bias, elementwise=elementwise) for _ in range(2))
    for _ in range(4):
        rows = random_gradient(rng, 50)
        gradient = gradient_of(rows, None if elementwise else {row: values[0] for row, values in rows.items()})
        step(one, gradient)
        other.begin_step(0.1)
        with torch.no_grad():
            other._update(gradient)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-5, atol=1e-6, msg=name)


def bfloat16_table(num_rows, dim, value):
    return RowTable(torch.full((num_rows, dim), value, dtype=torch.bfloat16))


def test_bfloat16_is_rounded_without_bias():
    # A step of a tenth of the distance between neighbours: most weights stay, some move by ten steps.
    table = bfloat16_table(400, 64, 1.0)
    gradient = RowGradient(torch.arange(400), torch.ones(400, 64))
    step(table, gradient, learning_rate=2**-8 / 10)
    moved = 1.0 - table.weight.detach().double()
    assert moved.unique().tolist() == [0.0, 2**-8]
    assert moved.mean().item() == pytest.approx(2**-8 / 10, rel=0.05)
    # Neither rows nor columns go together.
    for axis in (0, 1):
        shares = (moved > 0).double().mean(axis)
        assert 0.5 < shares.var().item() / (0.09 / moved.shape[axis]) < 1.5


def test_bfloat16_is_rounded_by_other_bits_in_each_step():
    # Half of the weights move in a step.
    table, moves = bfloat16_table(400, 64, 1.0), []
    for _ in range(4):
        before = table.weight.detach().clone()
        step(table, RowGradient(torch.arange(400), torch.ones(400, 64)), learning_rate=2**-9)
        moves.append((before != table.weight).detach().double())
    assert all(abs(moved.mean().item() - 0.5) < 0.02 for moved in moves)
    for one, other in itertools.pairwise(moves):
        for rows, columns in itertools.product((-1, 0, 1), range(-3, 4)):
            correlation = np.corrcoef(
                one[1:-1, 3:-3].flatten(), other.roll((rows, columns), (0, 1))[1:-1, 3:-3].flatten()
            )
            assert abs(correlation[0, 1]) < 0.05


def test_steps_below_the_precision_of_bfloat16_add_up():
    table = bfloat16_table(50, 64, 1.0)
    for _ in range(200):
        step(table, RowGradient(torch.arange(50), torch.ones(50, 64)), learning_rate=1e-4)
    assert table.weight.detach().double().mean().item() == pytest.approx(1 - 200 * 1e-4, abs=1e-3)


def test_bfloat16_is_rounded_the_same_every_time():
    one, other = bfloat16_table(20, 33, 0.7), bfloat16_table(20, 33, 0.7)
    for number in range(3):
        gradient = RowGradient(torch.arange(20), torch.randn(20, 33, generator=torch.Generator().manual_seed(number)))
        for table in (one, other):
            step(table, gradient, learning_rate=0.01)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.momentum, other.momentum)


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (RowGradient(torch.tensor([1, 0]), torch.zeros(2, 3)), "rows must ascend"),
        (RowGradient(torch.tensor([0, 9]), torch.zeros(2, 3)), "rows holds 9, which must be below 5"),
        (RowGradient(torch.tensor([-1, 0]), torch.zeros(2, 3)), "rows holds -1"),
        (RowGradient(torch.tensor([0]), torch.zeros(1, 4)), "weights must have 3 values, got 4"),
        (RowGradient(torch.tensor([0]), torch.zeros(1, 3), torch.zeros(1)), "biases must have 0 values, got 1"),
    ],
)
def test_gradients_that_dont_fit_are_an_error(gradient, message):
    with pytest.raises(ValueError, match=message):
        step(RowTable(torch.zeros(5, 3)), gradient)
