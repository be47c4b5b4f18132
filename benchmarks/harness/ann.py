"""Nearest-neighbour indexes over the label classifiers: the labels of the highest w_l · e + b_l.

They look for another ranking than the model's, whose scores take paths through clusters into account, and are here for
speed on about the same number of label evaluations; the reports give their recall of what they look for.
Label projections are not supported.

Shapes: Q queries, D dim, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
from usearch.index import Index as UsearchIndex

from elias_idx import Index

from .contestants import Contestant, Work
from .data import Dataset, FloatArray, IntArray

_BLOCK = 65_536
"""Label rows handled at once."""
_EXPANSION_ADD = 64
"""Half of what usearch does by default, so that graphs are built in about half the time."""


def exact_labels(dataset: Dataset, queries: FloatArray, k: int) -> IntArray:
    """Labels [Q, k] of the highest w_l · e + b_l, best first, by scoring all labels."""
    index = Index.load(dataset.index_folder)
    flat = faiss.IndexFlatIP(index.dim + 1)
    for _, rows in _label_blocks(index, flat.d):
        flat.add(rows)
    return flat.search(_augmented(queries, 1, flat.d), k)[1]


class _FaissIvf:
    """Inverted lists of labels, of which a query scores the `nprobe` nearest.

    Threads share the queries of a batch. One query's lists shared among threads (`parallel_mode` 1) measured slower
    than one thread.
    """

    batch_size = 4096

    def __init__(self, dataset: Dataset, work: Work, kind: str) -> None:
        path = dataset.derived(f"{kind}.faiss", lambda path: _build_ivf(dataset, kind, path))
        self._index = faiss.read_index(str(path))
        self.nbytes = path.stat().st_size
        self._k = work.k
        lists = self._index.nlist
        self._index.nprobe = min(lists, max(1, round(work.shortlist_size * lists / self._index.ntotal)))
        faiss.cvar.indexIVF_stats.reset()

    @property
    def label_evaluations(self) -> float:
        stats = faiss.cvar.indexIVF_stats
        return stats.ndis / max(1, stats.nq)

    def set_threads(self, count: int) -> None:
        faiss.omp_set_num_threads(count)

    def search(self, queries: FloatArray) -> IntArray:
        return self._index.search(_augmented(queries, 1, self._index.d), self._k)[1]


def _build_ivf(dataset: Dataset, kind: str, path: Path) -> None:
    index = Index.load(dataset.index_folder)
    # The bias is one more dim. faiss needs a multiple of 16 for its vector instructions on bfloat16.
    width = -(-(index.dim + 1) // 16) * 16
    quantizer = faiss.IndexFlatIP(width)
    lists = index.num_clusters
    if kind == "flat":
        ivf = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
    else:
        ivf = faiss.IndexIVFScalarQuantizer(
            quantizer, width, lists, faiss.ScalarQuantizer.QT_bf16, faiss.METRIC_INNER_PRODUCT, False
        )
    if dataset.partition is None:
        ivf.train(np.concatenate([rows for _, rows in _label_blocks(index, width)]))
    else:
        quantizer.add(_centroids(index, dataset.partition, width))
        ivf.train(np.zeros((1, width), np.float32))  # nothing is left to learn
    for labels, rows in _label_blocks(index, width):
        if dataset.partition is None:
            ivf.add_with_ids(rows, labels)
        else:
            own = dataset.partition[labels]
            ivf.add_core(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(labels), faiss.swig_ptr(own))
    faiss.write_index(ivf, str(path))


def _centroids(index: Index, partition: IntArray, width: int) -> FloatArray:
    """The mean label of each list [lists, width]."""
    sums = np.zeros((partition.max() + 1, width), np.float64)
    for labels, rows in _label_blocks(index, width):
        order = np.argsort(partition[labels], kind="stable")
        lists, starts = np.unique(partition[labels][order], return_index=True)
        sums[lists] += np.add.reduceat(rows[order], starts, axis=0)
    return (sums / np.bincount(partition)[:, None]).astype(np.float32)


class _UsearchHnsw:
    """A graph of labels that is walked towards the query.

    Inner products make bad graphs, so labels get one more dim that brings all to the same length: then the nearest
    label by distance is the one of the highest inner product.
    """

    batch_size = 4096

    def __init__(self, dataset: Dataset, work: Work, dtype: str) -> None:
        path = dataset.derived(f"{dtype}.usearch", lambda path: _build_hnsw(dataset, dtype, path))
        index = Index.load(dataset.index_folder)
        # Measured: a walk evaluates about 20 labels for each place of its queue.
        self._index = _empty_graph(index, dtype, expansion_search=max(work.k, work.shortlist_size // 20))
        self._index.load(str(path))
        self.nbytes = path.stat().st_size
        self._k = work.k
        self._threads = 1
        self.label_evaluations = 0.0

    def set_threads(self, count: int) -> None:
        self._threads = count

    def search(self, queries: FloatArray) -> IntArray:
        matches = self._index.search(_augmented(queries, 1, self._index.ndim), self._k, threads=self._threads)
        self.label_evaluations = matches.computed_distances / len(queries)
        return np.asarray(matches.keys).astype(np.int64).reshape(len(queries), -1)


def _build_hnsw(dataset: Dataset, dtype: str, path: Path) -> None:
    index = Index.load(dataset.index_folder)
    graph = _empty_graph(index, dtype, expansion_add=_EXPANSION_ADD)
    longest = max((rows**2).sum(1).max() for _, rows in _label_blocks(index, graph.ndim))
    for labels, rows in _label_blocks(index, graph.ndim):
        rows[:, -1] = np.sqrt(np.maximum(longest - (rows**2).sum(1), 0))
        graph.add(labels, rows)
    graph.save(str(path))


def _empty_graph(index: Index, dtype: str, **options: int) -> UsearchIndex:
    return UsearchIndex(ndim=index.dim + 2, metric="l2sq", dtype=dtype, **options)


FAISS_FLAT = Contestant("faiss IVF flat", lambda dataset, work: _FaissIvf(dataset, work, "flat"))
FAISS_BF16 = Contestant("faiss IVF bf16", lambda dataset, work: _FaissIvf(dataset, work, "bf16"))
USEARCH_BF16 = Contestant("usearch HNSW bf16", lambda dataset, work: _UsearchHnsw(dataset, work, "bf16"))


def _label_blocks(index: Index, width: int) -> Iterator[tuple[IntArray, FloatArray]]:
    """Label ids and their classifiers with the bias appended, padded with zeros [n, width]."""
    for first in range(0, index.num_labels, _BLOCK):
        block = slice(first, first + _BLOCK)
        rows = _augmented(index.label_weights[block], index.label_bias[block], width)
        yield np.arange(first, first + len(rows)), rows


def _augmented(rows: FloatArray, last: FloatArray | float, width: int) -> FloatArray:
    """Rows [n, D] with one more value each, then zeros, [n, width]."""
    padded = np.zeros((len(rows), width), np.float32)
    padded[:, : rows.shape[1]] = rows
    padded[:, rows.shape[1]] = last
    return padded
