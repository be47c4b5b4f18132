"""Data sets of the shape of a large model, made once from a fixed seed and kept on disk.

Shapes: Q queries, D dim, C clusters, L labels, κ labels a cluster.

`random` has independent normal weights: nothing to exploit. `trained` has what a trained model shows: embeddings
whose spectrum decays, label classifiers near those of their cluster, clusters near those of their topic, labels as
frequent as Zipf says, biases of about the log odds of a rare label, and adjacency weights that fall as 1/rank.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from elias_idx import Index

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

KINDS = ("random", "trained")

_SEED = 0
_ALPHA = 10.0
_BETA = 150.0
_BLOCK = 32_768
"""Label rows made at once: 100 MB at D = 768."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a data set."""

    num_labels: int
    dim: int
    num_clusters: int
    labels_per_cluster: int
    num_queries: int

    def __str__(self) -> str:
        return f"L{self.num_labels}-D{self.dim}-C{self.num_clusters}-K{self.labels_per_cluster}-Q{self.num_queries}"


@dataclass(frozen=True)
class Dataset:
    """An index on disk and queries for it.

    Attributes:
        name: what reports call it.
        index_folder: the index, with its label classifiers in float32.
        queries: embeddings [Q, D].
        partition: each label's list [L], for indexes that search by lists; None leaves that to them.
        cache: a folder for what is derived from the index.
    """

    name: str
    index_folder: Path
    queries: FloatArray
    partition: IntArray | None
    cache: Path

    def derived(self, name: str, make: Callable[[Path], object]) -> Path:
        """What `make` wrote to the path that it was given; kept in the cache and made anew for another index."""
        checksum = json.loads((self.index_folder / "index.json").read_text(encoding="utf-8"))["sha256"]
        path = self.cache / f"{checksum[:16]}-{name}"
        if not path.exists():
            partial = path.with_name(f".partial-{path.name}")
            make(partial)
            partial.rename(path)
        return path


class _Parts(NamedTuple):
    """All of a data set; label classifiers block by block, queries given all label classifiers [L, D]."""

    cluster_weights: FloatArray
    cluster_bias: FloatArray
    adjacency_labels: IntArray
    adjacency_weights: FloatArray
    label_weights: Iterator[FloatArray]
    label_bias: FloatArray
    queries: Callable[[FloatArray], FloatArray]
    partition: IntArray


def load_or_make(kind: str, shape: Shape, cache: Path) -> Dataset:
    """The data set in `cache`, made first if it isn't there; takes a minute or two at full size."""
    folder = cache / f"{kind}-{shape}"
    if not folder.exists():
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write({"random": _random, "trained": _trained}[kind](shape), shape, partial)
        partial.rename(folder)
    return Dataset(
        name=kind,
        index_folder=folder / "index",
        queries=np.load(folder / "queries.npy"),
        partition=np.load(folder / "partition.npy"),
        cache=folder,
    )


def _write(parts: _Parts, shape: Shape, folder: Path) -> None:
    np.save(folder / "partition.npy", parts.partition)
    rows_file = folder / "label_weights.npy"
    rows = np.lib.format.open_memmap(rows_file, mode="w+", dtype=np.float32, shape=(shape.num_labels, shape.dim))
    for block, weights in zip(_blocks(shape.num_labels), parts.label_weights, strict=True):
        rows[block] = weights
    np.save(folder / "queries.npy", parts.queries(rows))
    per_cluster = parts.adjacency_labels.shape[1]
    indptr = np.arange(0, parts.adjacency_labels.size + 1, per_cluster)
    Index.build(
        parts.cluster_weights,
        parts.cluster_bias,
        (indptr, parts.adjacency_labels.ravel(), parts.adjacency_weights.ravel()),
        rows,
        parts.label_bias,
        alpha=_ALPHA,
        screen=False,
        path=folder / "index",
    )
    rows_file.unlink()  # the index has them


def _random(shape: Shape) -> _Parts:
    rng = np.random.default_rng(_SEED)
    clusters, per_cluster = shape.num_clusters, min(shape.labels_per_cluster, shape.num_labels)
    labels = np.stack(
        [rng.choice(shape.num_labels, per_cluster, replace=False, shuffle=False) for _ in range(clusters)]
    )
    logits = rng.random((clusters, per_cluster), dtype=np.float32)
    return _Parts(
        cluster_weights=0.05 * normal(rng, clusters, shape.dim),
        cluster_bias=np.zeros(clusters, np.float32),
        adjacency_labels=labels,
        adjacency_weights=np.minimum(_BETA * _softmax(logits), 1).astype(np.float32),
        label_weights=(0.05 * normal(rng, len(block), shape.dim) for block in _blocks(shape.num_labels)),
        label_bias=np.zeros(shape.num_labels, np.float32),
        queries=lambda _: normal(rng, shape.num_queries, shape.dim),
        partition=rng.permutation(shape.num_labels) % clusters,
    )


def _trained(shape: Shape) -> _Parts:
    rng = np.random.default_rng(_SEED)
    clusters, num_labels = shape.num_clusters, shape.num_labels
    space = _DecayingSpace(rng, shape.dim)
    topics = space.sample(256)
    centres = unit(0.6 * topics[rng.integers(0, len(topics), clusters)] + 0.8 * space.sample(clusters))
    partition = rng.permutation(num_labels) % clusters
    by_frequency = rng.permutation(num_labels)
    labels, weights = _trained_adjacency(rng, shape, centres, partition, by_frequency)
    norms = 10 * np.clip(1 + 0.15 * normal(rng, num_labels), 0.5, 2)

    def label_rows() -> Iterator[FloatArray]:
        for block in _blocks(num_labels):
            directions = unit(0.45 * centres[partition[block]] + 0.89 * space.sample(len(block)))
            yield norms[block, None] * directions

    def queries(rows: FloatArray) -> FloatArray:
        positives = by_frequency[_Zipf(num_labels, 0.7).sample(rng, shape.num_queries)]
        near = 0.5 * unit(rows[positives]) + 0.35 * centres[partition[positives]]
        return unit(near + 0.75 * space.sample(shape.num_queries))

    return _Parts(
        cluster_weights=16 * centres,
        cluster_bias=0.3 * normal(rng, clusters),
        adjacency_labels=labels,
        adjacency_weights=weights,
        label_weights=label_rows(),
        label_bias=np.clip(-4.7 + 0.6 * normal(rng, num_labels), -6, -3),
        queries=queries,
        partition=partition,
    )


def _trained_adjacency(
    rng: np.random.Generator, shape: Shape, centres: FloatArray, partition: IntArray, by_frequency: IntArray
) -> tuple[IntArray, FloatArray]:
    """Labels and weights [C, κ]: a cluster's own labels mostly first, then neighbours' and frequent ones."""
    clusters, per_cluster = shape.num_clusters, min(shape.labels_per_cluster, shape.num_labels // 4)
    members = np.split(np.argsort(partition, kind="stable"), np.cumsum(np.bincount(partition))[:-1])
    # Neighbours' labels fill about two thirds of a row.
    num_neighbours = max(1, round(2 * per_cluster * clusters / (3 * shape.num_labels)))
    frequencies = _Zipf(shape.num_labels, 1.0)
    labels = np.empty((clusters, per_cluster), np.int64)
    for cluster in range(clusters):
        if cluster % 1024 == 0:
            similar = centres[cluster : cluster + 1024] @ centres.T
            nearest = np.argpartition(-similar, num_neighbours, axis=1)[:, : num_neighbours + 1]
        near = nearest[cluster % 1024]
        candidates = np.concatenate(
            [
                members[cluster],
                *(members[other] for other in near if other != cluster),
                by_frequency[frequencies.sample(rng, 3 * per_cluster)],
            ]
        )
        preference = rng.standard_normal(len(candidates)) + 0.2
        preference[: len(members[cluster])] += 2
        ordered = candidates[np.argsort(-preference)]
        distinct = ordered[np.sort(np.unique(ordered, return_index=True)[1])]
        missing = per_cluster - len(distinct)
        if missing > 0:  # a small data set, where most draws repeat
            rest = np.setdiff1d(np.arange(shape.num_labels), distinct)
            distinct = np.concatenate([distinct, rng.choice(rest, missing, replace=False)])
        labels[cluster] = distinct[:per_cluster]
    falling = np.exp(0.3 * normal(rng, clusters, per_cluster)) / np.arange(1, per_cluster + 1)
    weights = np.minimum(_BETA * falling / falling.sum(axis=1, keepdims=True), 1)
    return labels, weights.astype(np.float32)


class _DecayingSpace:
    """Vectors of expected length 1 whose variances fall along rotated axes, as in learned embeddings."""

    def __init__(self, rng: np.random.Generator, dim: int) -> None:
        self._rng = rng
        deviations = (np.arange(dim) + 10.0) ** -0.4
        rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        axes = (deviations / np.linalg.norm(deviations))[:, None] * rotation
        self._axes = axes.astype(np.float32)

    def sample(self, count: int) -> FloatArray:
        """Unit vectors [count, D]."""
        return unit(normal(self._rng, count, len(self._axes)) @ self._axes)


class _Zipf:
    """Ranks below a count, rank r with a probability in proportion to (r + 1)^-exponent."""

    def __init__(self, count: int, exponent: float) -> None:
        self._cumulative = np.cumsum(np.arange(1, count + 1) ** -exponent)

    def sample(self, rng: np.random.Generator, size: int) -> IntArray:
        return np.searchsorted(self._cumulative, rng.random(size) * self._cumulative[-1])


def _blocks(count: int) -> Iterator[IntArray]:
    """Ids below `count`, a block of rows at a time."""
    for first in range(0, count, _BLOCK):
        yield np.arange(first, min(first + _BLOCK, count))


def normal(rng: np.random.Generator, *shape: int) -> FloatArray:
    """Independent standard normal numbers of this shape."""
    return rng.standard_normal(shape, dtype=np.float32)


def unit(rows: FloatArray) -> FloatArray:
    """The rows [n, D], brought to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)
