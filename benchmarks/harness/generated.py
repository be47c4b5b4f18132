"""A model of any size whose weights are made when they are read, so that only its index is ever stored.

Shapes: Q queries, D dim, C clusters, L labels, D' label dim, κ labels a cluster.

It has what a trained model shows. Clusters come in topics of 64 near each other, and each label has a home cluster,
l mod C, whose centre its classifier is near to. A cluster leads to its own labels, and to the foremost ones of the
others in its topic, with weights that fall as 1/rank.

Random numbers are drawn once, for a pool of rows. A label's classifier is its home's centre and a row of the pool,
whose signs are others each time that the labels have gone through the pool: no two labels are equal, and a row costs
two copies and two multiplications.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .data import FloatArray, IntArray, normal, unit

TOPIC = 64
"""Clusters of a topic."""

_SEED = 0
_BETA = 150.0
_POOL = 99_991
"""Rows of the pool, a prime, so that a home's labels have other rows of it each."""
_PIECE = 4096
"""Rows made at once: these stay in the cache."""


class OnDemand:
    """An array whose slices of rows are made when they are asked for.

    Attributes:
        shape: of the whole array.
        dtype: of its values.
        seconds: spent making slices.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, make: Callable[[IntArray], npt.NDArray[Any]]):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.seconds = 0.0
        self._make = make

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start = time.perf_counter()
        made = self._make(np.arange(*rows.indices(self.shape[0])))
        self.seconds += time.perf_counter() - start
        return made


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        num_labels: L.
        dim: D.
        label_dim: D'; the model has a projection where it isn't D.
        num_clusters: C, a multiple of `TOPIC`, at most L.
        labels_per_cluster: κ, at most those of a topic.
    """

    num_labels: int
    dim: int
    label_dim: int
    num_clusters: int
    labels_per_cluster: int

    def __str__(self) -> str:
        return f"L{self.num_labels}-D{self.dim}-D{self.label_dim}-C{self.num_clusters}-K{self.labels_per_cluster}"


class GeneratedModel:
    """The parts of a model, as `Index.build` takes them, and queries for it; always the same for a shape."""

    def __init__(self, shape: ModelShape) -> None:
        rng = np.random.Generator(np.random.SFC64(_SEED))
        clusters = shape.num_clusters
        self._shape = shape
        self._rng = rng
        topics = unit(normal(rng, clusters // TOPIC, shape.dim))
        self._centres = unit(0.6 * np.repeat(topics, TOPIC, axis=0) + 0.8 * unit(normal(rng, clusters, shape.dim)))
        self.cluster_weights = 24 * self._centres
        self.cluster_bias = 0.3 * normal(rng, clusters)

        self.label_projection: FloatArray | None = None
        homes = self._centres
        if shape.label_dim != shape.dim:
            size = max(shape.dim, shape.label_dim)
            self.label_projection = _rotation(rng, size)[: shape.label_dim, : shape.dim].copy()
            homes = unit(self._centres @ self.label_projection.T)
        self._homes = 4.5 * homes
        self._pool = 8.9 * unit(normal(rng, _POOL, shape.label_dim))
        self._signs = np.sign(normal(rng, shape.num_labels // _POOL + 1, shape.label_dim))
        self._biases = -4.7 + 0.6 * normal(rng, _POOL)
        self.label_weights = OnDemand((shape.num_labels, shape.label_dim), np.float32, self._label_rows)
        self.label_bias = OnDemand((shape.num_labels,), np.float32, lambda labels: self._biases[labels % _POOL])

        self._neighbours, self._members = self._ranked()
        edges = clusters * shape.labels_per_cluster
        falling = np.exp(0.3 * normal(rng, shape.labels_per_cluster)) / np.arange(1, shape.labels_per_cluster + 1)
        self._falling = np.minimum(1, _BETA * falling / falling.sum()).astype(np.float32)
        self._factors = rng.uniform(0.5, 1, clusters).astype(np.float32)
        self.adjacency = (
            np.arange(0, edges + 1, shape.labels_per_cluster),
            OnDemand((edges,), np.int64, self._edge_labels),
            OnDemand((edges,), np.float32, self._edge_weights),
        )

    @property
    def seconds(self) -> float:
        """Spent making what was read."""
        return sum(part.seconds for part in (*self.adjacency[1:], self.label_weights, self.label_bias))

    def queries(self, count: int) -> FloatArray:
        """Embeddings [count, D] near a label, mostly a foremost one of its home, and its home."""
        shape, rng = self._shape, self._rng
        homes = rng.integers(0, shape.num_clusters, count)
        members = (shape.num_labels // shape.num_clusters * rng.random(count) ** 3).astype(np.int64)
        rows = self._label_rows(homes + shape.num_clusters * members)
        positives = unit(rows if self.label_projection is None else rows @ self.label_projection)
        return unit(0.5 * positives + 0.35 * self._centres[homes] + 0.75 * unit(normal(rng, count, shape.dim)))

    def _label_rows(self, labels: IntArray) -> FloatArray:
        rows = np.empty((len(labels), self._shape.label_dim), np.float32)
        for start in range(0, len(labels), _PIECE):
            piece = labels[start : start + _PIECE]
            out = rows[start : start + _PIECE]
            np.take(self._pool, piece % _POOL, axis=0, out=out)
            out *= self._signs[piece // _POOL]
            out += self._homes[piece % self._shape.num_clusters]
        return rows

    def _ranked(self) -> tuple[IntArray, IntArray]:
        """For each rank of a cluster's labels [κ]: how far in its topic their home is, and which of its they are.

        A cluster's own labels mostly come first.
        """
        shape = self._shape
        members = shape.num_labels // shape.num_clusters
        if shape.labels_per_cluster > TOPIC * members:
            raise ValueError(f"a topic has {TOPIC * members} labels, fewer than {shape.labels_per_cluster} a cluster")
        own = min(members, shape.labels_per_cluster)
        foreign = -(-(shape.labels_per_cluster - own) // (TOPIC - 1))
        neighbours = np.repeat(np.arange(TOPIC), [own] + [foreign] * (TOPIC - 1))
        which = np.concatenate([np.arange(own), np.tile(np.arange(foreign), TOPIC - 1)])
        order = np.argsort(-(self._rng.standard_normal(len(which)) + 2 * (neighbours == 0)))
        order = order[: shape.labels_per_cluster]
        return neighbours[order], which[order]

    def _edge_labels(self, edges: IntArray) -> IntArray:
        clusters, ranks = np.divmod(edges, self._shape.labels_per_cluster)
        homes = clusters - clusters % TOPIC + (clusters + self._neighbours[ranks]) % TOPIC
        return homes + self._shape.num_clusters * self._members[ranks]

    def _edge_weights(self, edges: IntArray) -> FloatArray:
        clusters, ranks = np.divmod(edges, self._shape.labels_per_cluster)
        return self._falling[ranks] * self._factors[clusters]


def _rotation(rng: np.random.Generator, size: int) -> FloatArray:
    """An orthogonal matrix [size, size]."""
    return np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
