"""What an index returns.

Shapes: Q queries, C clusters, L labels, B beam, S shortlist, nnz edges of the adjacency.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast, overload

import numpy as np
import numpy.typing as npt

from elias_idx import _core as core
from elias_idx._arrays import FloatArray, IntArray


class SearchResult(NamedTuple):
    """The best labels of each query, best first."""

    labels: IntArray
    """Label ids [Q, k], or [k] for a single embedding; −1 where fewer than k labels are reachable."""
    scores: FloatArray
    """Scores in [0, 1], of the same shape; 0 where there is no label."""


class BeamResult(NamedTuple):
    """The best clusters of each query, best first."""

    clusters: IntArray
    """Cluster ids [Q, min(B, C)], or one row of that for a single embedding."""
    scores: FloatArray
    """Cluster scores min(1, α · softmax), of the same shape."""


class ShortlistResult(NamedTuple):
    """The labels of each query that come before the label classifiers, best path first."""

    labels: IntArray
    """Label ids [Q, min(S, L)], or one row of that for a single embedding; −1 where there are fewer."""
    scores: FloatArray
    """Path scores, cluster score times adjacency weight, of the same shape; 0 where there is no label."""


class Adjacency(NamedTuple):
    """The edges from clusters to labels as CSR; each row is by descending weight, then label."""

    indptr: IntArray
    """[C + 1]"""
    indices: npt.NDArray[np.uint32]
    """Labels [nnz]."""
    data: FloatArray
    """Weights in (0, 1] [nnz]."""


class ClusterEdges(NamedTuple):
    """The clusters that lead to a label, by descending weight, then cluster."""

    clusters: npt.NDArray[np.uint32]
    """Cluster ids [n]."""
    weights: FloatArray
    """Weights in (0, 1] [n]."""


class LabelEdges(NamedTuple):
    """The labels that a cluster leads to, by descending weight, then label; read-only views of the index."""

    labels: npt.NDArray[np.uint32]
    """Label ids [n]."""
    weights: FloatArray
    """Weights in (0, 1] [n]."""


@dataclass(frozen=True)
class LabelPath:
    """A way from the query through a cluster to a label.

    Attributes:
        cluster: the cluster's id.
        cluster_rank: its place among all clusters, from 1.
        cluster_score: s_c = min(1, α · softmax).
        weight: the weight of the edge from the cluster to the label.
        score: cluster score times weight.
        in_beam: whether the beam holds the cluster.
    """

    cluster: int
    cluster_rank: int
    cluster_score: float
    weight: float
    score: float
    in_beam: bool


@dataclass(frozen=True)
class LabelExplanation:
    """How a search treats a label, whether it returns it or not; see `Index.explain`.

    Attributes:
        label: the label's id.
        name: its name, if the index has names.
        paths: all paths to it, the best one first.
        path_score: the score of `best_path`; 0 without paths.
        logit: the label classifier's w · T e + b.
        probability: sigmoid(logit).
        score: path score times probability: the score with which it is returned, if it is.
        in_beam: whether a path leads through the beam.
        in_shortlist: whether it is among the labels that are scored.
        rank: its place among these by score, from 1: `search` returns it if `k` is at least that. None for a label
            that isn't among them.
        reason: in words, why it is returned or not.
    """

    label: int
    name: str | None
    paths: tuple[LabelPath, ...]
    path_score: float
    logit: float
    probability: float
    score: float
    in_beam: bool
    in_shortlist: bool
    rank: int | None
    reason: str

    @property
    def best_path(self) -> LabelPath | None:
        """The path that counts: the best one through the beam, or else the best one of all."""
        return next((path for path in self.paths if path.in_beam), self.paths[0] if self.paths else None)

    def __str__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return (
            f"label {self.label}{name}: {self.reason}; score {self.score:.4g} = "
            f"path {self.path_score:.4g} x probability {self.probability:.4g}"
        )


class LabelNames(Sequence[str]):
    """The names of an index's labels, read when they are asked for.

    A slice is again such a sequence. Names are checked when they are read: `FormatError` for one whose
    stored bytes are damaged.
    """

    __slots__ = ("_core", "_ids")

    def __init__(self, index: core.Index, ids: range) -> None:
        self._core = index
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "LabelNames": ...
    def __getitem__(self, at: int | slice) -> "str | LabelNames":
        ids = self._ids[at]
        return LabelNames(self._core, ids) if isinstance(ids, range) else self._read(range(ids, ids + 1))[0]

    def __iter__(self) -> Iterator[str]:
        block = 1024
        for start in range(0, len(self), block):
            yield from self._read(self._ids[start : start + block])

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"<LabelNames [{shown}{', ...' if len(self) > 3 else ''}], {len(self)} names>"

    def _read(self, ids: range) -> list[str]:
        # Only −1 has no name, and it isn't among the ids of labels.
        names = self._core.names(np.arange(ids.start, ids.stop, ids.step, dtype=np.int64))
        return cast("list[str]", names)
