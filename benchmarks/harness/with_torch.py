"""The same search written in PyTorch, the way of the model's public implementation and a faster one.

Shapes: Q queries, D dim, C clusters, L labels, B beam, S shortlist, κ the most labels that a cluster has.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from elias_idx import Index

from .contestants import Contestant, Work
from .data import Dataset, FloatArray, IntArray


class _Batched:
    """Every step on the whole batch: gathers label classifiers [Q, S, D] and multiplies them with the queries."""

    batch_size = 64  # 400 MB of gathered rows at S = 2,000 and D = 768

    def __init__(self, dataset: Dataset, work: Work) -> None:
        index = Index.load(dataset.index_folder)
        self._work = work
        self.label_evaluations = float(work.shortlist_size)
        self._alpha = index.alpha
        self._cluster_weights = _tensor(index.cluster_weights)
        self._cluster_bias = _tensor(index.cluster_bias)
        self._label_weights = _tensor(index.label_weights)
        self._label_bias = _tensor(index.label_bias)
        self._edge_labels, self._edge_weights = _padded_adjacency(index)

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, torch.Tensor))

    def set_threads(self, count: int) -> None:
        torch.set_num_threads(count)

    def search(self, queries: FloatArray) -> IntArray:
        with torch.inference_mode():
            batch = torch.from_numpy(queries)
            clusters = F.softmax(self._cluster_logits(batch), dim=1).mul_(self._alpha).clamp_(max=1)
            scores, beam = clusters.topk(min(self._work.beam_size, clusters.shape[1]))
            paths = (scores.unsqueeze(2) * self._edge_weights[beam]).flatten(1)
            labels, paths = self._shortlist(self._edge_labels[beam].flatten(1), paths, 2 * self._work.shortlist_size)
            final = self._label_logits(batch, labels).sigmoid_().mul_(paths)
            best, order = final.topk(min(self._work.k, final.shape[1]))
            return labels.gather(1, order).masked_fill_(best < 0, -1).numpy()

    def _shortlist(
        self, labels: torch.Tensor, paths: torch.Tensor, candidates: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels [Q, S] with their best paths, out of the best `candidates` paths if they have enough labels."""
        top, order = paths.topk(min(candidates, paths.shape[1]))
        top_labels = labels.gather(1, order)
        by_label, order = top_labels.sort(dim=1, stable=True)  # the best path of a label stays its first
        repeats = torch.zeros_like(top_labels, dtype=torch.bool)
        repeats.scatter_(1, order[:, 1:], by_label[:, 1:] == by_label[:, :-1])
        best, order = top.masked_fill(repeats, -1).topk(min(self._work.shortlist_size, top.shape[1]))
        if top.shape[1] < paths.shape[1] and bool((best[:, -1] < 0).any()):
            return self._shortlist(labels, paths, paths.shape[1])
        return top_labels.gather(1, order), best

    def _cluster_logits(self, batch: torch.Tensor) -> torch.Tensor:
        return F.linear(batch, self._cluster_weights, self._cluster_bias)

    def _label_logits(self, batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        bias = self._label_bias[labels].unsqueeze(2)
        return torch.baddbmm(bias, self._label_weights[labels], batch.unsqueeze(2)).squeeze(2)


class _Tuned(_Batched):
    """The slow steps replaced by what measured fastest: products with vectors, and one query's rows at a time."""

    def __init__(self, dataset: Dataset, work: Work) -> None:
        super().__init__(dataset, work)
        self._rows = torch.empty(0)

    def _cluster_logits(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 1:
            return super()._cluster_logits(batch)
        return torch.addmv(self._cluster_bias, self._cluster_weights, batch[0]).unsqueeze(0)

    def _label_logits(self, batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self._label_bias[labels]
        rows = self._rows.resize_(labels.shape[1], batch.shape[1])
        for query, query_labels, query_logits in zip(batch, labels, logits, strict=True):
            torch.index_select(self._label_weights, 0, query_labels, out=rows)
            query_logits.addmv_(rows, query)
        return logits


TORCH = Contestant("torch", _Batched)
TORCH_TUNED = Contestant("torch, tuned", _Tuned)


def _tensor(array: FloatArray) -> torch.Tensor:
    """A copy, in memory of its own."""
    return torch.from_numpy(np.array(array))


def _padded_adjacency(index: Index) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and weights [C, κ], filled up with label 0 at weight −1, which loses to every real path."""
    indptr, indices, data = index.adjacency
    counts = np.diff(indptr)
    filled = np.arange(counts.max()) < counts[:, None]
    labels = np.zeros(filled.shape, np.int64)
    weights = np.full(filled.shape, -1, np.float32)
    labels[filled] = indices
    weights[filled] = data
    return torch.from_numpy(labels), torch.from_numpy(weights)
