"""Parameters of many rows of which a step touches few: label classifiers, n-gram embeddings.

R rows, D columns, n rows touched in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from elias_idx import _core

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


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


class TableArrays(NamedTuple):
    """A table as the compiled core takes it.

    Attributes:
        weights: the weights and their momentum, [R, D] each; bfloat16 as its bits in int16.
        second_moment: [R] or [R, D].
        bias: the biases, their momentum and second moment, [R] each.
        adam: learning rate, β₁, β₂, ε, and the step's number, 0 where none was begun.
    """

    weights: tuple[npt.NDArray[Any], npt.NDArray[Any]]
    second_moment: npt.NDArray[np.float32]
    bias: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]] | None
    adam: tuple[float, float, float, float, int]


class RowTable(nn.Module):
    """Rows of weights, each with a bias perhaps, and the state of their row-wise Adam.

    Adam keeps one second moment a row, that of the row's mean squared gradient, so that its state takes one array of
    the weights' shape instead of two. A row without gradient in a step keeps its weights and its state. bfloat16
    weights and momenta are rounded at random, so that steps too small to round to count on average; such tables are
    for CPUs and fused products.

    A step is `begin_step`, then products with the table (`fused`, `sparse_ops`) and their `backward`, then `step`.
    Products leave the gradients in `gradients`, not in autograd's `grad`, and `step` applies them; or fused products
    update the rows themselves, if `begin_step` allows it. All state is in the `state_dict`.

    Args:
        weight: the first weights, [R, D].
        bias: the first biases, [R]; None for a table without.
        elementwise: whether each weight has a second moment of its own, as in plain Adam.

    Attributes:
        learning_rate: of the step under way.
        immediate: whether products may update rows: where nothing else adds to their gradients in the step.
        gradients: of the step under way, to be added up.
    """

    momentum: Tensor
    second_moment: Tensor
    bias_momentum: Tensor
    bias_second_moment: Tensor
    steps: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, elementwise: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.learning_rate = 0.0
        self.immediate = False
        self.gradients: list[RowGradient] = []
        self.register_buffer("momentum", torch.zeros_like(weight))
        self.register_buffer("second_moment", torch.zeros(weight.shape if elementwise else len(weight)))
        if bias is not None:
            self.register_buffer("bias_momentum", torch.zeros_like(bias))
            self.register_buffer("bias_second_moment", torch.zeros_like(bias))
        self.register_buffer("steps", torch.tensor(0))

    @torch.no_grad()
    def reset_state(self) -> None:
        """Forgets the moments and the number of steps, as at the start of a stage."""
        for buffer in self.buffers():
            buffer.zero_()

    def begin_step(self, learning_rate: float, *, immediate: bool = False) -> None:
        """Starts a step with the given learning rate; see `immediate` above."""
        self.learning_rate = learning_rate
        self.immediate = immediate
        self.steps += 1

    @torch.no_grad()
    def step(self) -> None:
        """Updates the rows whose gradients were left for it.

        Raises:
            ValueError: gradients that don't fit, or no step was begun.
        """
        if self.gradients:
            gradient = added_up(self.gradients)
            self.gradients = []
            if self.weight.device.type == "cpu":
                bias = None if gradient.bias is None else gradient.bias.numpy()
                arrays = gradient.rows.numpy(), gradient.weight.contiguous().numpy(), bias
                _core.apply_gradients(self.arrays(), arrays, torch.get_num_threads())
            else:
                self._update(gradient)

    def arrays(self) -> TableArrays:
        """The table for the compiled core, on a CPU: arrays over its memory, and the settings of its Adam."""
        bias = None
        if self.bias is not None:
            bias = self.bias.detach().numpy(), self.bias_momentum.numpy(), self.bias_second_moment.numpy()
        adam = self.learning_rate, _BETA1, _BETA2, _EPSILON, int(self.steps)
        return TableArrays(
            (_as_array(self.weight.detach()), _as_array(self.momentum)), self.second_moment.numpy(), bias, adam
        )

    def _update(self, gradient: RowGradient) -> None:
        """What `_core.apply_gradients` does, in torch: for float32 on other devices."""
        self._update_rows(self.weight, self.momentum, self.second_moment, gradient.rows, gradient.weight)
        if self.bias is not None:
            assert gradient.bias is not None
            bias, momentum = self.bias[:, None], self.bias_momentum[:, None]
            self._update_rows(bias, momentum, self.bias_second_moment, gradient.rows, gradient.bias[:, None])

    def _update_rows(
        self, weight: Tensor, momentum: Tensor, second_moment: Tensor, rows: Tensor, gradient: Tensor
    ) -> None:
        steps = int(self.steps)
        learning_rate = self.learning_rate / (1 - _BETA1**steps)
        correction = 1 / (1 - _BETA2**steps)
        squares = gradient.square()
        if second_moment.dim() == 1:
            second_moment, squares = second_moment[:, None], squares.mean(1, keepdim=True)
        new_second = second_moment[rows].lerp_(squares, 1 - _BETA2)
        new_momentum = momentum[rows].lerp_(gradient, 1 - _BETA1)
        second_moment[rows] = new_second
        momentum[rows] = new_momentum
        scale = learning_rate / ((new_second * correction).sqrt_() + _EPSILON)
        weight[rows] = weight[rows].addcmul_(new_momentum, scale.expand_as(new_momentum), value=-1)


def _as_array(tensor: Tensor) -> npt.NDArray[Any]:
    """The tensor's memory as an array; NumPy has no bfloat16, so that these come as their bits."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


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
