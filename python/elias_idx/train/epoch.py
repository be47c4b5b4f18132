"""One pass over the training texts, the same for both stages. N texts, Q in a batch, C clusters, L labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from elias_idx.config import Config
from elias_idx.errors import TrainingError
from elias_idx.train import distributed, fused, losses
from elias_idx.train.averaging import WeightAverage
from elias_idx.train.batch import Batch, derived_seed
from elias_idx.train.encoders import TrainableEncoder
from elias_idx.train.losses import LossSettings
from elias_idx.train.network import EliasNetwork
from elias_idx.train.optimizer import Optimizers
from elias_idx.train.ragged import Ragged
from elias_idx.train.teacher_forcing import expanded_beam

# Pairs whose gradient is below this share of the largest possible one are left out of the gradients.
_SKIPPED_GRADIENT = 1e-3
TEXTS_AT_ONCE = 2048


@dataclass(frozen=True)
class Trainee:
    """What is being trained, and on what.

    Attributes:
        encoder: φ, over the training inputs.
        network: everything behind the encoder.
        labels: the texts' labels with their relevance in (0, 1], [N, L].
        config: the settings.
        average: the mean of weights at the ends of stage 2's last epochs, if the settings ask for it.
    """

    encoder: TrainableEncoder
    network: EliasNetwork
    labels: Ragged
    config: Config
    average: WeightAverage = field(default_factory=WeightAverage)

    @property
    def num_texts(self) -> int:
        """N."""
        return len(self.labels.indptr) - 1

    @property
    def steps_per_epoch(self) -> int:
        """Steps that a pass over the texts takes."""
        return math.ceil(self.num_texts / (self.config.batch_size * self.config.accumulation_steps))

    def averaged_parameters(self) -> list[nn.Parameter]:
        """What is averaged: all that is trained but the adjacency."""
        named = [*self.encoder.named_parameters(), *self.network.named_parameters()]
        return [each for name, each in named if each.requires_grad and not name.startswith("adjacency.")]

    def optimizers(self, epochs: int, factor: float) -> Optimizers:
        """A stage's optimisers; `factor` is on all learning rates but the adjacency's."""
        return Optimizers(self.encoder, self.network, self.config, epochs * self.steps_per_epoch, factor)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of the batch's texts: Σ BCE(p, relevance) over the shortlist + λ Σ −log s over their labels.

        Divided by the number of texts of the whole step, so that its parts' losses add up to the step's. To be
        called after `Optimizers.begin_step`; with gradients enabled, rows of tables may be updated already.
        """
        network, config = self.network, self.config
        positives = self.labels.take(batch.rows)
        embeddings = self._dropped_out(self.encoder(batch.rows), batch)
        cluster_scores = network.cluster_scores(embeddings)
        beam = self._expanded_beam(cluster_scores, positives, batch)
        divisor = len(batch.step_rows)
        settings = LossSettings(
            config.train_shortlist_size, config.path_loss_weight, divisor, _SKIPPED_GRADIENT / divisor
        )
        label_loss = fused.label_loss if embeddings.device.type == "cpu" else losses.label_loss
        return label_loss(network, network.project(embeddings), cluster_scores, beam, positives, settings)

    def _dropped_out(self, embeddings: Tensor, batch: Batch) -> Tensor:
        share = self.config.dropout
        if share == 0:
            return embeddings
        kept = batch.uniform(embeddings.shape[1], "dropout") >= share
        return embeddings * (kept / (1 - share))

    def _expanded_beam(self, cluster_scores: Tensor, positives: Ragged, batch: Batch) -> Tensor:
        most_positives = int(self.labels.row_lengths(batch.step_rows).max())
        beam_size = min(self.config.train_beam_size, cluster_scores.shape[1])
        uniform = batch.uniform(beam_size + most_positives, "beam")
        return expanded_beam(cluster_scores, positives, self.network.adjacency.best_cluster, beam_size, uniform)

    @torch.no_grad()
    def embed_all(self) -> Iterator[Tensor]:
        """The embeddings of all training inputs in order, without dropout, some thousand at a time."""
        self.encoder.eval()
        try:
            for rows in torch.arange(self.num_texts, device=self.labels.indptr.device).split(TEXTS_AT_ONCE):
                yield self.encoder(rows)
        finally:
            self.encoder.train()


def train_steps(trainee: Trainee, optimizers: Optimizers, seed: int, first_step: int = 0) -> Iterator[float]:
    """Trains on every text once, in a random order, and gives each step's loss when the step is done.

    Everything random follows from `seed` and the step's number, so that what is repeated after a restart is the same.

    Args:
        trainee: what is trained.
        optimizers: the stage's.
        seed: the epoch's.
        first_step: steps of the epoch that are done already.

    Raises:
        TrainingError: the loss is not finite any more.
    """
    config = trainee.config
    order = torch.randperm(trainee.num_texts, generator=torch.Generator().manual_seed(seed))
    steps = order.to(trainee.labels.indptr.device).split(config.batch_size * config.accumulation_steps)
    for step, rows in enumerate(steps[first_step:], start=first_step):
        batch = Batch.whole(rows, derived_seed(seed, step))
        optimizers.begin_step()
        total = distributed.total(sum(_back_propagated(trainee, part) for part in batch.split(config.batch_size)))
        if not math.isfinite(total):
            raise TrainingError(f"the loss became {total} in step {step + 1}: start over with lower learning rates")
        optimizers.step()
        yield total


def _back_propagated(trainee: Trainee, batch: Batch) -> float:
    """The loss of this process' share of a batch, whose gradients are made."""
    batch = distributed.own_part(batch)
    if not len(batch.rows):
        return 0.0
    # For what draws its own random numbers, such as dropout within an encoder.
    torch.manual_seed(derived_seed(batch.seed, batch.start))
    loss = trainee.loss(batch)
    loss.backward()
    return loss.item()
