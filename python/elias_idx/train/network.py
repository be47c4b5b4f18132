"""The trainable two-stage model: cluster classifiers, adjacency, label classifiers, and their search.

Q queries, D embedding size, D' ≤ D that of label classifiers, C clusters, L labels, κ labels kept per cluster, B beam,
S shortlist.
Equations: Gupta et al., "ELIAS: End-to-End Learning to Index and Search in Large Output Spaces", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from elias_idx import _core
from elias_idx.config import Config
from elias_idx.errors import ConfigError
from elias_idx.train.ragged import Ragged
from elias_idx.train.row_table import RowTable
from elias_idx.train.sparse_ops import sampled_dots, some_rows_learn

_Number = TypeVar("_Number", np.int32, np.float32)

_LARGEST_ID = 2**32 - 1
_EXCLUDED_LOGIT = -1e30
# Slots of the adjacency that int32 can name, and those whose weights are computed at once.
_MOST_SLOTS = 2**31 - 1
SLOTS_AT_ONCE = 2**22


class Adjacency(nn.Module):
    """The sparse cluster → label matrix A, fixed (all weights 1) or learned.

    Rows are padded to κ entries; the transpose gives each label's entries by their slots, cluster · κ + position.
    Learned: a_{c,l} = min(1, β · softmax over the row's logits).

    Args:
        rows: the label ids of each cluster.
        num_labels: L.
        logits: initial logits of the entries of each row; None fixes all weights at 1.
        beta: β.
        initial_cluster: each label's in the partition that training began with, −1 for none, int32 [L]; by default the
            rows are that partition.
    """

    labels: Tensor
    lengths: Tensor
    best_cluster: Tensor
    initial_cluster: Tensor
    label_indptr: Tensor
    label_slots: Tensor

    def __init__(
        self,
        rows: Sequence[npt.NDArray[np.integer]],
        num_labels: int,
        logits: Sequence[npt.NDArray[np.float32]] | None = None,
        beta: float = 1.0,
        initial_cluster: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.beta = beta
        lengths = np.array([len(row) for row in rows])
        width = max(1, int(lengths.max()))
        if len(rows) * width > _MOST_SLOTS:
            raise ConfigError(f"{len(rows)} clusters of {width} labels are too many: lower labels_per_cluster")
        indptr = np.concatenate([[0], lengths.cumsum()])
        entries = np.concatenate(rows).astype(np.int32)
        # Where each entry stands: cluster · κ + position.
        slots = np.arange(len(entries), dtype=np.int32) + np.repeat(
            (np.arange(len(rows)) * width - indptr[:-1]).astype(np.int32), lengths
        )
        self.register_buffer("labels", torch.from_numpy(_padded(entries, slots, (len(rows), width))))
        self.register_buffer("lengths", torch.from_numpy(lengths))
        self.logits = None
        if logits is not None:
            start = _padded(np.concatenate(logits).astype(np.float32, copy=False), slots, (len(rows), width))
            self.logits = RowTable(torch.from_numpy(start), elementwise=True)
        # What follows from the entries is not part of a checkpoint.
        by_label = sp.csr_matrix((slots, entries, indptr), shape=(len(rows), num_labels)).tocsc()
        label_indptr = torch.from_numpy(by_label.indptr.astype(np.int64))
        self.disjoint = bool((label_indptr.diff() <= 1).all())
        self.register_buffer("label_indptr", label_indptr, persistent=False)
        self.register_buffer("label_slots", torch.from_numpy(by_label.data), persistent=False)
        self.register_buffer("best_cluster", torch.empty(num_labels, dtype=torch.int64), persistent=False)
        self.refresh_best_cluster()
        # Learned entries don't tell it, so it is part of a checkpoint.
        self.register_buffer("initial_cluster", self.best_cluster.int() if initial_cluster is None else initial_cluster)

    @property
    def num_clusters(self) -> int:
        """C."""
        return len(self.labels)

    @property
    def labels_per_cluster(self) -> int:
        """κ, the padded length of the rows."""
        return self.labels.shape[1]

    @property
    def present(self) -> Tensor:
        """Which entries are none of the padding, bool [C, κ]."""
        return self.present_in(torch.arange(self.num_clusters, device=self.labels.device))

    def present_in(self, clusters: Tensor) -> Tensor:
        """The same for the given clusters, [...] → [..., κ]."""
        places = torch.arange(self.labels_per_cluster, device=clusters.device)
        return places < self.lengths[clusters][..., None]

    def weights(self, beam: Tensor | None = None) -> Tensor:
        """a_{c,l} of every entry, [C, κ]; 0 where a row is padded.

        Args:
            beam: cluster ids, padded with −1: those whose logits get a gradient; None if none do.
        """
        if self.logits is None:
            return self.present.float()
        logits = self.logits.weight.detach() if beam is None else some_rows_learn(self.logits, beam[beam >= 0].unique())
        return self._learned(logits, self.present)

    def _learned(self, logits: Tensor, present: Tensor) -> Tensor:
        # A finite filling, since the gradient of a row of nothing but −inf would be NaN.
        softmax = logits.masked_fill(~present, _EXCLUDED_LOGIT).softmax(1)
        return (self.beta * softmax).clamp(max=1.0) * present

    def slots_of(self, labels: Tensor) -> Ragged:
        """The slots (cluster · κ + position) of each label's entries, as the indices of a ragged matrix."""
        return Ragged(self.label_indptr, self.label_slots, self.labels.numel()).take(labels)

    @torch.no_grad()
    def refresh_best_cluster(self) -> None:
        """Sets `best_cluster` [L]: the cluster with a label's largest weight (the smaller id if equal), −1 for none."""
        best = torch.full((self.num_labels,), -1, device=self.labels.device)
        for clusters, present, weights in self._blocks():
            keys = pack(weights, clusters[:, None].expand_as(weights))[present]
            best.scatter_reduce_(0, self.labels[clusters][present].long(), keys, "amax")
        self.best_cluster.copy_(torch.where(best >= 0, unpack_id(best), -1))

    @torch.no_grad()
    def to_csr(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """(indptr, indices, data) of A without the entries whose weight underflows to 0."""
        lengths, labels, data = [], [], []
        for clusters, _, weights in self._blocks():
            kept = weights > 0
            lengths.append(kept.sum(1).cpu().numpy())
            labels.append(self.labels[clusters][kept].cpu().numpy())
            data.append(weights[kept].cpu().numpy())
        indptr = np.concatenate([[0], np.concatenate(lengths).cumsum()])
        return indptr, np.concatenate(labels), np.concatenate(data)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Some clusters at a time: their ids, `present` and `weights` of their rows."""
        ids = torch.arange(self.num_clusters, device=self.labels.device)
        for clusters in ids.split(max(1, SLOTS_AT_ONCE // self.labels_per_cluster)):
            present = self.present_in(clusters)
            yield (
                clusters,
                present,
                (present.float() if self.logits is None else self._learned(self.logits.weight[clusters], present)),
            )


@dataclass(frozen=True)
class Shortlist:
    """Pairs of a query and a shortlisted label.

    Attributes:
        pattern: [Q, L], one entry a pair, each row's labels ascending.
        path_scores: s_l of each pair, [E]; differentiable.
    """

    pattern: Ragged
    path_scores: Tensor


class EliasNetwork(nn.Module):
    """Cluster classifiers, adjacency and label classifiers over query embeddings.

    Args:
        dim: D.
        adjacency: A.
        alpha: α, the factor on the cluster softmax.
        label_bias: the initial b_L.
        label_dtype: of the label classifiers, float32 or bfloat16.
        label_dim: D', the size that T projects embeddings to for the label classifiers; None for no T, D' = D.
    """

    def __init__(
        self,
        dim: int,
        adjacency: Adjacency,
        *,
        alpha: float,
        label_bias: float,
        label_dtype: str = "float32",
        label_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        # The memory of fused steps.
        self.label_step = _core.LabelStep()
        self.clusters = nn.Linear(dim, adjacency.num_clusters)
        self.label_projection = None if label_dim is None else _first_projection(dim, label_dim)
        self.adjacency = adjacency
        self.label_classifiers = RowTable(
            torch.zeros(adjacency.num_labels, label_dim or dim, dtype=getattr(torch, label_dtype)),
            torch.full((adjacency.num_labels,), label_bias),
        )

    @classmethod
    def from_config(cls, dim: int, adjacency: Adjacency, config: Config) -> EliasNetwork:
        """The network that the settings describe, for embeddings of size D."""
        return cls(
            dim,
            adjacency,
            alpha=config.alpha,
            label_bias=config.label_bias,
            label_dtype=config.label_dtype,
            label_dim=config.label_dim,
        )

    def dense_parameters(self) -> list[nn.Parameter]:
        """What every step updates as a whole: W_C, b_C and T."""
        projection = [] if self.label_projection is None else self.label_projection.parameters()
        return [*self.clusters.parameters(), *projection]

    def project(self, embeddings: Tensor) -> Tensor:
        """T e, what the label classifiers take; [Q, D] → [Q, D']."""
        if self.label_projection is None:
            return embeddings
        projected: Tensor = self.label_projection(embeddings)
        return projected

    def cluster_scores(self, embeddings: Tensor) -> Tensor:
        """s_c = min(1, α · softmax_c(W_C e + b_C)); [Q, D] → [Q, C]."""
        return (self.alpha * self.clusters(embeddings).softmax(1)).clamp(max=1.0)

    def shortlist(self, cluster_scores: Tensor, beam: Tensor, weights: Tensor, size: int) -> Shortlist:
        """The `size` labels with the best paths s_c · a_{c,l} from each query's beam; a label keeps its best path.

        Args:
            cluster_scores: s_c, [Q, C].
            beam: cluster ids, [Q, B], padded with −1.
            weights: `adjacency.weights()`, [C, κ].
            size: S.
        """
        width = self.adjacency.labels_per_cluster
        with torch.no_grad():
            clusters = beam.clamp_min(0)
            paths = cluster_scores.gather(1, clusters)[:, :, None] * weights[clusters]
            reached = self.adjacency.present_in(clusters) & (beam >= 0)[:, :, None]
            keys = pack(paths, self.adjacency.labels[clusters].long()).masked_fill(~reached, -1).flatten(1)
            best, position = _largest_distinct(keys, size, disjoint=self.adjacency.disjoint)
            slots = clusters.gather(1, position // width) * width + position % width
            # Ascending labels, with the padding behind them.
            labels, order = torch.where(best >= 0, unpack_id(best), self.adjacency.num_labels).sort(1)
            found = labels < self.adjacency.num_labels
            slots, labels = slots.gather(1, order)[found], labels[found]
            indptr = torch.cat([found.new_zeros(1, dtype=torch.int64), found.sum(1).cumsum(0)])
            pattern = Ragged(indptr, labels, self.adjacency.num_labels)
        return Shortlist(pattern, self._path_scores(cluster_scores, weights, pattern.owners(), slots))

    def best_paths(self, cluster_scores: Tensor, beam: Tensor, weights: Tensor, positives: Ragged) -> Tensor:
        """s_l of the given labels that the beam reaches, cut off by no shortlist; [reached] of the E labels.

        Args:
            cluster_scores: s_c, [Q, C].
            beam: cluster ids, [Q, B], padded with −1.
            weights: `adjacency.weights()`, [C, κ].
            positives: E labels of the Q queries.
        """
        slots = self.adjacency.slots_of(positives.indices)
        entries, clusters = slots.owners(), slots.indices // self.adjacency.labels_per_cluster
        queries = positives.owners()[entries]
        in_beam = (beam[queries] == clusters[:, None]).any(1)
        paths = self._path_scores(cluster_scores, weights, queries[in_beam], slots.indices[in_beam])
        best = paths.new_full((len(positives.indices),), -1.0)
        best = best.scatter_reduce(0, entries[in_beam], paths, "amax")
        return best[best >= 0]

    def _path_scores(self, cluster_scores: Tensor, weights: Tensor, queries: Tensor, slots: Tensor) -> Tensor:
        """s_c · a_{c,l} of the entries in the given slots (cluster · κ + position) for the given queries, [E]."""
        clusters = slots // self.adjacency.labels_per_cluster
        # By `index_select`, whose gradient adds up in one order on CPUs; that of indexing depends on the threads.
        scores = cluster_scores.flatten().index_select(0, queries * cluster_scores.shape[1] + clusters)
        return scores * weights.flatten().index_select(0, slots)

    def label_logits(self, projected: Tensor, pattern: Ragged, skip_below: float = 0.0) -> Tensor:
        """The logits z = w_l · T e + b_l at the pattern's entries, [E]; see `sampled_dots` for `skip_below`."""
        return sampled_dots(projected, self.label_classifiers, pattern, skip_below)

    @torch.no_grad()
    def search(self, embeddings: Tensor, k: int, beam_size: int, shortlist_size: int) -> tuple[Tensor, Tensor]:
        """The search of the paper in torch: (label ids, scores), each [Q, k], padded with −1 and 0.

        Equal scores are ordered by the smaller id at every step, as the index does.
        """
        cluster_scores = self.cluster_scores(embeddings)
        beam = top_clusters(cluster_scores, beam_size)
        found = self.shortlist(cluster_scores, beam, self.adjacency.weights(), shortlist_size)
        scores = found.path_scores * self.label_logits(self.project(embeddings), found.pattern).sigmoid()
        keys = found.pattern.padded(pack(scores, found.pattern.indices), fill=-1)
        best = keys.topk(min(k, keys.shape[1]), dim=1).values
        best = nn.functional.pad(best, (0, k - best.shape[1]), value=-1)
        return torch.where(best >= 0, unpack_id(best), -1), torch.where(best >= 0, unpack_score(best), 0.0)


def _first_projection(dim: int, label_dim: int) -> nn.Linear:
    """A random T with orthogonal rows, which keeps the length of embeddings on average."""
    projection = nn.Linear(dim, label_dim, bias=False)
    nn.init.orthogonal_(projection.weight, gain=(dim / label_dim) ** 0.5)
    return projection


def _padded(values: npt.NDArray[_Number], slots: npt.NDArray[np.int32], shape: tuple[int, int]) -> npt.NDArray[_Number]:
    """Values at the given places of an array of the shape, zeros elsewhere."""
    array = np.zeros(shape, values.dtype)
    array.reshape(-1)[slots] = values
    return array


def top_clusters(cluster_scores: Tensor, beam_size: int) -> Tensor:
    """The `beam_size` clusters with the highest scores, the smaller id first where equal; [Q, C] → [Q, B]."""
    ids = torch.arange(cluster_scores.shape[1], device=cluster_scores.device)
    keys = pack(cluster_scores.detach(), ids.expand_as(cluster_scores))
    return unpack_id(keys.topk(min(beam_size, len(ids)), dim=1).values)


def pack(scores: Tensor, ids: Tensor) -> Tensor:
    """Scores and ids as int64 keys: a larger key is a higher score, or an equal one with a smaller id.

    Args:
        scores: not negative; compared as float32.
        ids: below 2³² − 1, of the same shape.
    """
    return (scores.float().contiguous().view(torch.int32).long() << 32) | (_LARGEST_ID - ids)


def unpack_id(keys: Tensor) -> Tensor:
    """The ids that `pack` put into the keys."""
    return _LARGEST_ID - (keys & _LARGEST_ID)


def unpack_score(keys: Tensor) -> Tensor:
    """The float32 scores that `pack` put into the keys."""
    return (keys >> 32).int().view(torch.float32)


def _largest_distinct(keys: Tensor, count: int, *, disjoint: bool) -> tuple[Tensor, Tensor]:
    """The `count` largest keys with distinct ids in each row, and where they stand; −1 where there are fewer.

    The largest keys are looked at first, and more of them only when repeated ids leave too few: the result is
    exact, and does not need a row as long as the number of labels.

    Args:
        keys: packed scores and ids, −1 for padding; [Q, M].
        count: how many.
        disjoint: whether no id can stand in a row twice.
    """
    width = keys.shape[1]
    considered = min(width, count if disjoint else 4 * count)
    while True:
        best, position = keys.topk(considered, dim=1)
        if disjoint:
            return best, position
        # A stable sort by id leaves the best of equal ids first.
        ids, order = unpack_id(best).sort(dim=1, stable=True)
        repeated = torch.zeros_like(best, dtype=torch.bool)
        repeated.scatter_(1, order[:, 1:], ids[:, 1:] == ids[:, :-1])
        distinct = best.masked_fill(repeated, -1)
        if considered == width or bool(((distinct >= 0).sum(1) >= count).all()):
            best, inner = distinct.topk(min(count, considered), dim=1)
            return best, position.gather(1, inner)
        considered = min(width, 2 * considered)
