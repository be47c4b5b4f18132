"""What is compared: elias_idx and the other ways to find a query's labels, behind one small interface.

Shapes: Q queries, D dim, C clusters, L labels, B beam, S shortlist, κ labels a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from elias_idx import Index
from elias_idx.index import Dtype

from .data import Dataset, FloatArray, IntArray


@dataclass(frozen=True)
class Work:
    """How hard a search tries; who has no beam or shortlist scores about `shortlist_size` labels."""

    beam_size: int = 20
    shortlist_size: int = 2000
    k: int = 100


class Searcher(Protocol):
    """An open index."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds or maps."""
        ...

    @property
    def label_evaluations(self) -> float:
        """How many labels' classifiers a query is multiplied with, about, known after a search."""
        ...

    @property
    def batch_size(self) -> int:
        """The queries to give to one `search` where there are many."""
        ...

    def set_threads(self, count: int) -> None:
        """Lets the searches that follow use so many threads."""
        ...

    def search(self, queries: FloatArray) -> IntArray:
        """Labels [Q, k] of queries [Q, D], best first, padded with −1."""
        ...


class Contestant(NamedTuple):
    """A way to search; opened anew for each turn, so that only one holds memory."""

    name: str
    open: Callable[[Dataset, Work], Searcher]


def search_all(searcher: Searcher, queries: FloatArray) -> IntArray:
    """Labels [Q, k] of all queries, batch by batch."""
    starts = range(0, len(queries), searcher.batch_size)
    return np.concatenate([searcher.search(queries[start : start + searcher.batch_size]) for start in starts])


@dataclass(frozen=True)
class Variant:
    """How elias_idx stores label classifiers and loads its index.

    Attributes:
        dtype: of the label classifiers.
        screen: whether 8-bit codes stand beside them.
        mmap: whether the index is mapped instead of copied into memory.
        allowed: the share of the labels that a filter allows; 1 for no filter.
    """

    dtype: Dtype = "float32"
    screen: bool = True
    mmap: bool = False
    allowed: float = 1.0

    def __str__(self) -> str:
        name = f"elias_idx {self.dtype}{' + screen' if self.screen else ''}{', mapped' if self.mmap else ''}"
        return name if self.allowed == 1 else f"{name}, {100 * self.allowed:g} % allowed"


def index_folder(dataset: Dataset, dtype: Dtype, *, screen: bool) -> Path:
    """The data set's index in another form, made first if it isn't there."""
    index = Index.load(dataset.index_folder)
    if (index.dtype, index.screen) == (dtype, screen):
        return dataset.index_folder
    return dataset.derived(
        f"{dtype}{'+screen' if screen else ''}.index",
        lambda path: index.quantize(dtype, screen=screen, path=path, overwrite=True),
    )


def search_options(index: Index, work: Work, allowed: float = 1.0) -> dict[str, Any]:
    """Arguments of `Index.search`, with a filter that allows this share of the labels, always the same ones."""
    options: dict[str, Any] = {"beam_size": work.beam_size, "shortlist_size": work.shortlist_size}
    if allowed < 1:
        count = max(1, round(allowed * index.num_labels))
        labels = np.random.default_rng(0).choice(index.num_labels, count, replace=False)
        options["filter"] = index.label_filter(labels)
    return options


class _EliasIdx:
    """This library."""

    batch_size = 4096

    def __init__(self, dataset: Dataset, work: Work, variant: Variant) -> None:
        folder = index_folder(dataset, variant.dtype, screen=variant.screen)
        self._index = Index.load(folder, mmap=variant.mmap)
        self._options = search_options(self._index, work, variant.allowed)
        self._k = work.k
        self._num_threads = 1
        self.label_evaluations = float(work.shortlist_size)

    @property
    def nbytes(self) -> int:
        return self._index.nbytes

    def set_threads(self, count: int) -> None:
        self._num_threads = count

    def search(self, queries: FloatArray) -> IntArray:
        return self._index.search(queries, self._k, num_threads=self._num_threads, **self._options).labels


def elias_idx(variant: Variant) -> Contestant:
    """elias_idx in one variant."""
    return Contestant(str(variant), lambda dataset, work: _EliasIdx(dataset, work, variant))
