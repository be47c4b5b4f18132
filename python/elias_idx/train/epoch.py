"""One pass over the training texts, the same for both stages. N texts, Q in a batch, C clusters, L labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from elias_idx.config import Config
from elias_idx.errors import TrainingError
from elias_idx.train.encoders import TrainableEncoder
from elias_idx.train.losses import path_loss, shortlist_loss
from elias_idx.train.network import EliasNetwork
from elias_idx.train.optimizer import RowAdam
from elias_idx.train.ragged import Ragged
from elias_idx.train.teacher_forcing import expanded_beam

# Pairs whose gradient is below this share of the largest possible one are left out of the gradients.
_SKIPPED_GRADIENT = 1e-3
_TEXTS_AT_ONCE = 2048


@dataclass(frozen=True)
class Trainee:
    """What is being trained, and on what.

    Attributes:
        encoder: φ, over the training inputs.
        network: everything behind the encoder.
        labels: the texts' labels, [N, L].
        config: the settings.
    """

    encoder: TrainableEncoder
    network: EliasNetwork
    labels: Ragged
    config: Config

    @property
    def num_texts(self) -> int:
        """N."""
        return len(self.labels.indptr) - 1

    def loss(self, rows: Tensor) -> Tensor:
        """The batch's loss: Σ BCE(p, relevance) over the shortlist + λ Σ −log s over its labels, a query's mean."""
        network, config = self.network, self.config
        positives = self.labels.take(rows)
        embeddings = self.encoder(rows)
        cluster_scores = network.cluster_scores(embeddings)
        weights = network.adjacency.weights()
        beam = expanded_beam(cluster_scores, positives, network.adjacency.best_cluster, config.train_beam_size)
        shortlist = network.shortlist(cluster_scores, beam, weights, config.train_shortlist_size)
        logits = network.label_logits(embeddings, shortlist.pattern, _SKIPPED_GRADIENT / len(rows))
        relevant = torch.isin(_pair_keys(shortlist.pattern), _pair_keys(positives))
        own_paths = network.best_paths(cluster_scores, beam, weights, positives)
        total = shortlist_loss(shortlist.path_scores, logits, relevant)
        return (total + config.path_loss_weight * path_loss(own_paths)) / len(rows)

    @torch.no_grad()
    def embed_all(self) -> Iterator[Tensor]:
        """The embeddings of all training inputs in order, without dropout, some thousand at a time."""
        self.encoder.eval()
        try:
            for rows in torch.arange(self.num_texts, device=self.labels.indptr.device).split(_TEXTS_AT_ONCE):
                yield self.encoder(rows)
        finally:
            self.encoder.train()


class Optimizers:
    """A stage's optimisers and their common schedule: a linear rise over the warm-up, then a linear fall."""

    def __init__(self, trainee: Trainee, epochs: int, factor: float) -> None:
        config, network, encoder = trainee.config, trainee.network, trainee.encoder
        dense = [*encoder.dense_parameters(), *network.clusters.parameters()]
        dense_groups = [{"params": dense, "lr": factor * config.learning_rate, "weight_decay": config.weight_decay}]
        if network.adjacency.logits is not None:
            learning_rate = config.adjacency_learning_rate
            dense_groups.append({"params": [network.adjacency.logits], "lr": learning_rate, "weight_decay": 0.0})
        row_groups = [
            {"params": [network.label_weights, network.label_bias], "lr": factor * config.label_learning_rate}
        ]
        if rows := encoder.row_parameters():
            row_groups.append({"params": rows, "lr": factor * config.learning_rate})
        self.optimizers = [torch.optim.AdamW(dense_groups, fused=True), RowAdam(row_groups, lr=0.0)]
        self.num_steps = epochs * math.ceil(trainee.num_texts / config.batch_size)
        self.warmup_steps = max(1.0, config.warmup * self.num_steps)
        self.steps_done = 0
        for group in self._groups():
            group["full_lr"] = group["lr"]

    def step(self) -> None:
        """Applies the gradients and moves the schedule on."""
        share = learning_rate_share(self.steps_done, self.num_steps, self.warmup_steps)
        for group in self._groups():
            group["lr"] = share * group["full_lr"]
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.steps_done += 1

    def _groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self.optimizers:
            yield from optimizer.param_groups

    def state(self) -> dict[str, Tensor]:
        """All that a later run needs to go on, flat; restored by `load_state`."""
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

    def _parameter_states(self) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        for number, optimizer in enumerate(self.optimizers):
            parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
            for position, parameter in enumerate(parameters):
                yield f"{number}.{position}", parameter, optimizer.state[parameter]


def learning_rate_share(step: int, num_steps: int, warmup_steps: float) -> float:
    """The share of the full learning rate at a step from 0 on: 1 when the warm-up ends, near 0 at the last step."""
    falling_steps = max(1.0, num_steps - warmup_steps + 1)
    return min((step + 1) / warmup_steps, (num_steps - step) / falling_steps, 1.0)


def train_epoch(trainee: Trainee, optimizers: Optimizers, seed: int, title: str) -> float:
    """Trains on every text once, in a random order; returns the mean loss.

    Everything random follows from `seed`, so that an epoch repeated after a restart is the same epoch.

    Raises:
        TrainingError: the loss is not finite any more.
    """
    torch.manual_seed(seed)
    order = torch.randperm(trainee.num_texts).to(trainee.labels.indptr.device)
    total = 0.0
    with tqdm(order.split(trainee.config.batch_size), desc=title, unit="step", disable=None) as batches:
        for number, rows in enumerate(batches, start=1):
            loss = trainee.loss(rows)
            if not math.isfinite(value := loss.item()):
                raise TrainingError(f"{title}: the loss became {value}: lower the learning rates")
            loss.backward()
            optimizers.step()
            total += value
            batches.set_postfix(loss=f"{total / number:.3f}", refresh=False)
    return total / len(batches)


def _pair_keys(pattern: Ragged) -> Tensor:
    """One number for each (query, label) entry."""
    return pattern.owners() * pattern.num_columns + pattern.indices
