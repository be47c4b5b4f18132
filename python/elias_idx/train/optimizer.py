"""A stage's optimisers and their schedule: AdamW for dense parameters, each row table's own Adam for its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from elias_idx.config import Config
from elias_idx.train import distributed
from elias_idx.train.encoders import TrainableEncoder
from elias_idx.train.network import EliasNetwork
from elias_idx.train.row_table import RowTable


class Optimizers:
    """A stage's optimisers and their common schedule: a linear rise over the warm-up, then a linear fall.

    A step is `begin_step`, then the loss and its `backward` for each part of the batch, then `step`.

    Args:
        encoder: φ.
        network: everything behind the encoder.
        config: the settings.
        num_steps: the stage's steps.
        factor: on all learning rates but the adjacency's.

    Attributes:
        immediate: whether row tables may be updated by `backward` already: not where several parts or processes add
            to a step's gradients.
    """

    def __init__(
        self, encoder: TrainableEncoder, network: EliasNetwork, config: Config, num_steps: int, factor: float
    ) -> None:
        learning_rate = factor * config.learning_rate
        groups = [
            {"params": network.dense_parameters(), "lr": config.learning_rate, "weight_decay": config.weight_decay},
            *encoder.parameter_groups(config),
        ]
        self.adamw = torch.optim.AdamW(groups, fused=True)
        for group in self.adamw.param_groups:
            group["full_lr"] = factor * group["lr"]
        self.tables: list[tuple[RowTable, float]] = [
            (network.label_classifiers, factor * config.label_learning_rate),
            *((table, learning_rate) for table in encoder.row_tables()),
        ]
        if network.adjacency.logits is not None:
            self.tables.append((network.adjacency.logits, config.adjacency_learning_rate))
        alone = distributed.num_processes() == 1
        self.immediate = config.device == "cpu" and config.accumulation_steps == 1 and alone
        self.num_steps = num_steps
        self.warmup_steps = max(1.0, config.warmup * num_steps)
        self.steps_done = 0

    def begin_step(self) -> None:
        """Sets the learning rates, which must be known before the loss is computed."""
        share = learning_rate_share(self.steps_done, self.num_steps, self.warmup_steps)
        for group in self.adamw.param_groups:
            group["lr"] = share * group["full_lr"]
        for table, learning_rate in self.tables:
            table.begin_step(share * learning_rate, immediate=self.immediate)

    def step(self) -> None:
        """Applies the gradients, added up over processes, and moves the schedule on."""
        dense = (parameter for group in self.adamw.param_groups for parameter in group["params"])
        distributed.add_up_gradients(dense, (table for table, _ in self.tables))
        self.adamw.step()
        self.adamw.zero_grad()
        for table, _ in self.tables:
            table.step()
        self.steps_done += 1

    def state(self) -> dict[str, Tensor]:
        """What a later run needs to go on beside the modules' own state, flat; restored by `load_state`."""
        state = {"steps_done": torch.tensor(self.steps_done)}
        for name, _, values in self._parameter_states():
            state |= {f"{name}.{key}": value for key, value in values.items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state` gave."""
        self.steps_done = int(state["steps_done"])
        for name, parameter, values in self._parameter_states():
            prefix = f"{name}."
            stored = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            values.update({key: value.to(parameter.device) for key, value in stored.items()})

    def _parameter_states(self) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
        parameters = (parameter for group in self.adamw.param_groups for parameter in group["params"])
        for position, parameter in enumerate(parameters):
            yield str(position), parameter, self.adamw.state[parameter]


def learning_rate_share(step: int, num_steps: int, warmup_steps: float) -> float:
    """The share of the full learning rate at a step from 0 on: 1 when the warm-up ends, near 0 at the last step."""
    falling_steps = max(1.0, num_steps - warmup_steps + 1)
    return min((step + 1) / warmup_steps, (num_steps - step) / falling_steps, 1.0)
