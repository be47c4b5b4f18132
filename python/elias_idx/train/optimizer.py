"""Optimisers: AdamW for small dense parameters, a row-wise Adam for those with row-sparse gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

# Rows updated together on a CPU: few enough that the passes over them stay in the cache.
_ROWS_PER_CHUNK = 512


class RowAdam(torch.optim.Optimizer):
    """Adam over the rows that a sparse gradient touches, with one second moment a row.

    The second moment is that of the row's mean squared gradient, so that the state takes one array of the
    parameter's shape instead of two. A row without gradient keeps its weights and its state.

    Args:
        params: parameters [R, D] whose gradients are coalesced sparse tensors of whole rows.
        lr: learning rate.
        betas: decay of the first and the second moment.
        eps: keeps the step finite.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "momentum": torch.zeros_like(parameter),
                    "second_moment": torch.zeros_like(parameter[:, 0]),
                }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates the touched rows of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("RowAdam takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, self.state[parameter], group)

    def _update(self, parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        state["step"] += 1
        step = float(state["step"])
        learning_rate = group["lr"] / (1 - beta1**step)
        correction = 1 / (1 - beta2**step)
        for rows, values in _row_chunks(parameter.grad):
            second_moment = state["second_moment"][rows].lerp_(values.square().mean(1), 1 - beta2)
            momentum = state["momentum"][rows].lerp_(values, 1 - beta1)
            state["second_moment"][rows] = second_moment
            state["momentum"][rows] = momentum
            scale = learning_rate / ((second_moment * correction).sqrt_() + group["eps"])
            parameter[rows] = parameter[rows].addcmul_(momentum, scale[:, None], value=-1)


def _row_chunks(gradient: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """(row numbers, gradients) of the touched rows, each row once, a chunk at a time."""
    assert gradient is not None
    # Autograd forgets that a sparse gradient is coalesced, and to coalesce it again would cost as much as the update.
    rows, values = gradient._indices()[0], gradient._values()
    if not bool((rows[1:] > rows[:-1]).all()):
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    size = _ROWS_PER_CHUNK if rows.device.type == "cpu" else max(1, len(rows))
    yield from zip(rows.split(size), values.split(size), strict=True)
