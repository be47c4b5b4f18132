"""The training step as it is usually written: what public implementations of such models do in torch.

The classifiers of each text's shortlist are gathered into a Q × S × D array, gradients and AdamW are dense over all
labels, repeated labels are found by sorting all candidates. Q texts, S shortlist, D dimensions, C clusters, L labels.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elias_idx.train.encoders.bag import BagModule
from elias_idx.train.epoch import Trainee
from elias_idx.train.teacher_forcing import EXTRA_CLUSTERS


class PlainStep:
    """Starts from the weights that a `Trainee` has now, of which it keeps copies."""

    def __init__(self, trainee: Trainee) -> None:
        config, network = trainee.config, trainee.network
        self.trainee, self.config = trainee, config
        self.num_labels = network.adjacency.num_labels
        # One row more, for padding.
        weight, bias = network.label_classifiers.weight.detach(), network.label_classifiers.bias
        assert bias is not None
        self.weight = nn.Parameter(F.pad(weight, (0, 0, 0, 1)))
        self.bias = nn.Parameter(F.pad(bias.detach(), (0, 1)))
        self.clusters = nn.Linear(weight.shape[1], network.adjacency.num_clusters)
        self.clusters.load_state_dict(network.clusters.state_dict())
        adjacency = network.adjacency
        self.rows = torch.where(adjacency.present, adjacency.labels, self.num_labels)
        self.present = adjacency.present
        self.own_cluster = F.pad(adjacency.best_cluster, (0, 1), value=-1)
        dense = [*self.clusters.parameters()]
        groups = [{"params": [self.weight, self.bias], "lr": 1e-4, "weight_decay": 0.0}]
        self.logits: nn.Parameter | None = None
        if adjacency.logits is not None:
            self.logits = nn.Parameter(adjacency.logits.weight.detach().clone())
            groups.append({"params": [self.logits], "lr": 1e-4, "weight_decay": 0.0})
        self.optimizers: list[torch.optim.Optimizer] = []
        encoder = trainee.encoder
        self.bag: nn.EmbeddingBag | None = None
        if isinstance(encoder, BagModule):
            start = encoder.embeddings.weight.detach().clone()
            self.bag = nn.EmbeddingBag.from_pretrained(start, freeze=False, mode="sum", sparse=True)
            self.layer_norm = nn.LayerNorm(start.shape[1])
            self.features = encoder.sparse_features
            self.length = encoder.length
            dense += self.layer_norm.parameters()
            self.optimizers.append(torch.optim.SparseAdam(self.bag.parameters(), lr=1e-4))
        groups.append({"params": dense, "lr": 1e-4, "weight_decay": 0.01})
        self.optimizers.append(torch.optim.AdamW(groups, foreach=True))

    def __call__(self, rows: Tensor) -> float:
        """One step on the texts with the given numbers."""
        loss = self._loss(rows)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def _loss(self, rows: Tensor) -> Tensor:
        config, batch = self.config, len(rows)
        positives = self._padded_labels(rows)
        embeddings = F.dropout(self._encode(rows), config.dropout)
        cluster_scores = (config.alpha * F.softmax(self.clusters(embeddings), 1)).clamp(max=1)
        beam, scores = self._beam(cluster_scores, positives)
        paths = scores[:, :, None] * self._weights()[beam]
        candidates, paths = self._distinct(self.rows[beam].flatten(1), paths.flatten(1))
        paths_top, order = paths.topk(min(config.train_shortlist_size, paths.shape[1]), 1)
        labels = candidates.gather(1, order)
        logits = torch.bmm(self.weight[labels], embeddings[:, :, None]).squeeze(2) + self.bias[labels]
        probabilities = (paths_top * torch.sigmoid(logits)).clamp(1e-7, 1 - 1e-6)
        mask = torch.zeros(batch, self.num_labels + 1).scatter_(1, positives, 1.0)
        mask[:, -1] = 0
        targets = mask.gather(1, labels)
        real = labels < self.num_labels
        first = F.binary_cross_entropy(probabilities, targets, weight=real.float(), reduction="sum")
        own = paths[mask.gather(1, candidates) > 0].clamp(1e-7, 1)
        return (first - config.path_loss_weight * own.log().sum()) / batch

    def _encode(self, rows: Tensor) -> Tensor:
        if self.bag is None:
            return self.trainee.encoder(rows)
        batch = self.features[rows.numpy()]
        indices, offsets = (torch.from_numpy(part.astype(np.int64)) for part in (batch.indices, batch.indptr[:-1]))
        bags = self.bag(indices, offsets, per_sample_weights=torch.from_numpy(batch.data))
        return self.length * F.normalize(self.layer_norm(bags), dim=1)

    def _padded_labels(self, rows: Tensor) -> Tensor:
        labels = self.trainee.labels.take(rows)
        parts = [labels.indices[start:end] for start, end in pairwise(labels.indptr.tolist())]
        return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=float(self.num_labels))

    def _beam(self, cluster_scores: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
        best = cluster_scores.topk(min(self.config.train_beam_size, cluster_scores.shape[1]), 1).indices
        clusters = torch.cat([best, self.own_cluster[positives]], 1).sort(1).values
        repeated = F.pad(clusters[:, 1:] == clusters[:, :-1], (1, 0)) | (clusters < 0)
        clusters = clusters.clamp_min(0)
        scores = cluster_scores.gather(1, clusters).masked_fill(repeated, 0.0)
        size = self.config.train_beam_size + EXTRA_CLUSTERS
        if clusters.shape[1] > size:
            kept = torch.multinomial(scores + 1e-9 * ~repeated + 1e-20, size)
            clusters, scores = clusters.gather(1, kept), scores.gather(1, kept)
        return clusters, scores

    def _weights(self) -> Tensor:
        if self.logits is None:
            return self.present.float()
        softmax = F.softmax(self.logits.masked_fill(~self.present, -1e30), 1)
        return (self.trainee.network.adjacency.beta * softmax).clamp(max=1) * self.present

    def _distinct(self, labels: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates by descending path score, repeated ones replaced by padding."""
        paths, order = paths.sort(1, descending=True)
        labels = labels.gather(1, order)
        by_label, order = labels.sort(dim=1, stable=True)
        repeated = torch.zeros_like(labels, dtype=torch.bool)
        repeated.scatter_(1, order, F.pad(by_label[:, 1:] == by_label[:, :-1], (1, 0)))
        return labels.masked_fill(repeated, self.num_labels), paths.masked_fill(repeated, 0.0)
