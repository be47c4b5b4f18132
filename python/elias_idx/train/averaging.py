"""Stochastic weight averaging: the model is the mean of the weights at the ends of several epochs.

Training goes on from the last ones. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization", UAI 2018.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightAverage:
    """The mean of parameters at some moments, and which of the two, mean or last ones, they hold now.

    Both trade places without being copied.

    Attributes:
        count: the moments that the mean is of.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shown = False
        # What the parameters don't hold: the mean, or while that is shown the weights to train on.
        self._others: list[Tensor] = []

    @torch.no_grad()
    def add(self, parameters: Iterable[nn.Parameter]) -> None:
        """Counts the parameters as they are now, and shows the mean.

        Args:
            parameters: the same ones in the same order each time; the mean has their dtypes.
        """
        parameters = list(parameters)
        self.hide(parameters)
        self.count += 1
        if self.count == 1:
            self._others = [parameter.detach().clone() for parameter in parameters]
        for mean, parameter in zip(self._others, parameters, strict=True):
            mean.lerp_(parameter, 1 / self.count)
        self._trade(parameters)

    def hide(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gives the parameters the weights to train on, if they hold the mean."""
        if self._shown:
            self._trade(parameters)

    def _trade(self, parameters: Iterable[nn.Parameter]) -> None:
        held = []
        for parameter, other in zip(parameters, self._others, strict=True):
            held.append(parameter.data)
            parameter.data = other
        self._others = held
        self._shown = not self._shown

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside the parameters, restored by `load_state`; nothing before the first moment."""
        if not self.count:
            return {}
        others = {f"others.{position:04}": other for position, other in enumerate(self._others)}
        return {"count": torch.tensor(self.count), "shown": torch.tensor(self._shown), **others}

    def load_state(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Goes on from what `state` gave, for parameters on the device."""
        self.count, self._shown = int(state.get("count", 0)), bool(state.get("shown", False))
        self._others = [state[name].to(device) for name in sorted(state) if name.startswith("others.")]
