"""Parameters of many rows of which a step touches few: label classifiers, n-gram embeddings.

R rows, D columns, n rows touched in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# Rows updated together on a CPU: few enough that the passes over them stay in the cache.
_ROWS_PER_CHUNK = 512


@dataclass(frozen=True)
class RowGradient:
    """The gradient of some rows of a `RowTable`.

    Attributes:
        rows: int64 [n], ascending and distinct.
        weight: [n, D].
        bias: [n]; None where the table has no bias.
    """

    rows: Tensor
    weight: Tensor
    bias: Tensor | None = None


class RowTable(nn.Module):
    """Rows of weights, each with a bias perhaps, and the state of their row-wise Adam.

    Adam keeps one second moment a row, that of the row's mean squared gradient, so that its state takes one array of
    the weights' shape instead of two. A row without gradient in a step keeps its weights and its state.

    Products with a table (`sparse_ops`) leave its gradients in `gradients` instead of autograd's `grad`, and `step`
    applies them. All state is in the `state_dict`.

    Args:
        weight: the first weights, [R, D].
        bias: the first biases, [R]; None for a table without.

    Attributes:
        learning_rate: of the next step; see `Optimizers.begin_step`.
        gradients: of the step under way, to be added up.
    """

    momentum: Tensor
    second_moment: Tensor
    bias_momentum: Tensor
    bias_second_moment: Tensor
    steps: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.learning_rate = 0.0
        self.gradients: list[RowGradient] = []
        self.register_buffer("momentum", torch.zeros_like(weight))
        self.register_buffer("second_moment", torch.zeros(len(weight)))
        if bias is not None:
            self.register_buffer("bias_momentum", torch.zeros_like(bias))
            self.register_buffer("bias_second_moment", torch.zeros_like(bias))
        self.register_buffer("steps", torch.tensor(0))

    @torch.no_grad()
    def reset_state(self) -> None:
        """Forgets the moments and the number of steps, as at the start of a stage."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Updates the rows that have a gradient."""
        self.steps += 1
        if self.gradients:
            gradient = added_up(self.gradients)
            self.gradients = []
            size = _ROWS_PER_CHUNK if self.weight.device.type == "cpu" else max(1, len(gradient.rows))
            for rows, values in zip(gradient.rows.split(size), gradient.weight.split(size), strict=True):
                self._update(self.weight, self.momentum, self.second_moment, rows, values)
            if self.bias is not None:
                assert gradient.bias is not None
                bias, momentum = self.bias[:, None], self.bias_momentum[:, None]
                self._update(bias, momentum, self.bias_second_moment, gradient.rows, gradient.bias[:, None])

    def _update(self, weight: Tensor, momentum: Tensor, second_moment: Tensor, rows: Tensor, gradient: Tensor) -> None:
        steps = int(self.steps)
        learning_rate = self.learning_rate / (1 - _BETA1**steps)
        correction = 1 / (1 - _BETA2**steps)
        new_second = second_moment[rows].lerp_(gradient.square().mean(1), 1 - _BETA2)
        new_momentum = momentum[rows].lerp_(gradient, 1 - _BETA1)
        second_moment[rows] = new_second
        momentum[rows] = new_momentum
        scale = learning_rate / ((new_second * correction).sqrt_() + _EPSILON)
        weight[rows] = weight[rows].addcmul_(new_momentum, scale[:, None], value=-1)


def added_up(gradients: Sequence[RowGradient]) -> RowGradient:
    """The sum of one or more gradients of the same table."""
    if len(gradients) == 1:
        return gradients[0]
    rows, places = torch.cat([gradient.rows for gradient in gradients]).unique(return_inverse=True)
    weight = gradients[0].weight.new_zeros(len(rows), gradients[0].weight.shape[1])
    bias = None if gradients[0].bias is None else gradients[0].bias.new_zeros(len(rows))
    for gradient, own in zip(gradients, places.split([len(one.rows) for one in gradients]), strict=True):
        # One gradient's rows are distinct, so that the sums have one order.
        weight[own] += gradient.weight
        if bias is not None:
            assert gradient.bias is not None
            bias[own] += gradient.bias
    return RowGradient(rows, weight, bias)
