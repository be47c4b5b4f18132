"""Measuring a model with many settings: beams, shortlists, candidates of the fusion, and dtypes of label classifiers.

N texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx._arrays import as_count
from elias_idx._parts import memory_by_part
from elias_idx.data import TrainingSet, num_rows
from elias_idx.ensemble import Ensemble
from elias_idx.errors import ConfigError, DataError
from elias_idx.index import Dtype, Index
from elias_idx.metrics import evaluate
from elias_idx.model import Model

# Cut-offs of what settings are compared by; those up to the number of labels wanted are.
_PRECISIONS, _RECALLS = (1, 5), (10, 100)
_BEAMS = (5, 10, 20, 40, 80)
_SHORTLISTS = (500, 1000, 2000, 4000)
_CANDIDATES = (24, 100)
_SMALLER: dict[Dtype, tuple[Dtype, ...]] = {
    "float32": ("bfloat16", "int8"),
    "bfloat16": ("int8",),
    "float16": ("int8",),
}
# Texts whose searches are timed: more would take longer and tell no more. They are timed some at a time, since a short
# time is the likelier one in which nothing else disturbed.
_TIMED = 1024
_BLOCK = 256


class Setting(NamedTuple):
    """What a model searches with."""

    dtype: Dtype
    """What label classifiers are stored as."""
    beam_size: int
    shortlist_size: int
    num_candidates: int | None
    """Labels of the dense search that the fusion looks at; None for a model without fusion."""


@dataclass(frozen=True)
class Measured:
    """A setting and what it brings.

    Attributes:
        setting: what was searched with.
        metrics: P@1 and P@5, R@10 and R@100, as far as so many labels were searched for, and R@k; in percent.
        microseconds: a text's search for k labels takes; making its embedding and features not counted.
        nbytes: of the index, as stored.
    """

    setting: Setting
    metrics: dict[str, float]
    microseconds: float
    nbytes: int


@dataclass(frozen=True)
class Sweep:
    """All that was measured.

    Attributes:
        results: one for each setting.
        current: what the model searches with unless told otherwise; None for an ensemble whose members differ.
        memory: bytes of the index by part, for each dtype, see `memory_by_part`.
        encoding_microseconds: a text's embedding and features take, whatever the setting.
        num_texts: texts that the metrics are about.
        num_threads: threads at most; None for all CPUs.
        k: labels that were searched for.
    """

    results: tuple[Measured, ...]
    current: Setting | None
    memory: dict[Dtype, dict[str, int]]
    encoding_microseconds: float
    num_texts: int
    num_threads: int | None
    k: int


@dataclass(frozen=True)
class Grid:
    """What is tried, in all combinations; of each kind what is None follows from the model, what it has now included.

    Attributes:
        beam_sizes: clusters to keep.
        shortlist_sizes: labels to score.
        num_candidates: labels of the dense search that the fusion looks at, of a model that has one.
        dtypes: what label classifiers are stored as.
    """

    beam_sizes: Sequence[int] | None = None
    shortlist_sizes: Sequence[int] | None = None
    num_candidates: Sequence[int] | None = None
    dtypes: Sequence[Dtype] | None = None

    def settings(self, model: Model | Ensemble, k: int) -> list[Setting]:
        """All settings for k labels a text, those that come to the same for the model's size once.

        Raises:
            ConfigError: candidates for a model without fusion.
        """
        indexes = indexes_of(model)
        if self.num_candidates is not None and not any(index.has_fusion for index in indexes):
            raise ConfigError("num_candidates is for models with a fusion, and this one has none: leave it out")
        num_clusters = max(index.num_clusters for index in indexes)
        num_labels = max(index.num_labels for index in indexes)
        fused = [index.num_candidates for index in indexes if index.has_fusion]
        own = [*_CANDIDATES, *(count for count in fused if count is not None)]
        # A search for k labels looks at so many at least.
        tried = [max(k, as_count("num_candidates", count)) for count in self.num_candidates or own]
        candidates = _capped("num_candidates", tried, num_labels) if fused else [None]
        beams = self.beam_sizes or [*_BEAMS, *(index.beam_size for index in indexes)]
        shortlists = self.shortlist_sizes or [*_SHORTLISTS, *(index.shortlist_size for index in indexes)]
        combined = itertools.product(
            self.dtypes or _dtypes(indexes),
            _capped("beam_sizes", beams, num_clusters),
            _capped("shortlist_sizes", shortlists, num_labels),
            candidates,
        )
        return [Setting(*setting) for setting in combined]


def sweep(
    model: Model | Ensemble,
    data: TrainingSet,
    grid: Grid | None = None,
    *,
    k: int = 100,
    rounds: int = 3,
    max_texts: int = 5000,
    num_threads: int | None = None,
    on_search: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Measures a model with each setting: how good it is, how long a search takes, how large its index is.

    Settings take turns: each round times all of them, in another order, and the least time counts, of each 256 texts.
    Times are those of this machine, and of whatever else it does. The index is in memory once for each dtype.

    Args:
        model: a model, or an ensemble, whose members all get the same settings.
        data: N texts with their labels, like those to come; none that the model was trained on.
        grid: the settings to try.
        k: labels a text that will be asked for.
        rounds: how often each setting is timed.
        max_texts: texts to measure on at most, a random choice of those that have labels.
        num_threads: as in `Index.search`.
        on_search: called whenever a setting was measured or timed, with how often that is done and will be.

    Raises:
        DataError: the inputs are not what the model takes, or it knows none of their labels.
        ConfigError: the grid asks for candidates, but the model has no fusion.
        ValueError: a number below 1, or a dtype that the model's label classifiers can't be converted to.
    """
    k = as_count("k", k)
    settings = (grid or Grid()).settings(model, k)
    rounds = as_count("rounds", rounds)
    data, relevant = _texts(model, data, as_count("max_texts", max_texts))
    variants = _Variants(model, settings, k, num_threads)
    start = perf_counter()
    queries = model._queries(data.inputs, num_threads, fusion=True)
    encoding = (perf_counter() - start) / len(data)

    total, calls = len(settings) * (1 + rounds), itertools.count(1)

    def tell() -> None:
        if on_search is not None:
            on_search(next(calls), total)

    metrics = []
    for setting in settings:
        metrics.append(_metrics(variants.search(setting, queries), relevant, k))
        tell()
    timed = data.inputs[:_TIMED]
    blocks = [
        model._queries(timed[start : start + _BLOCK], num_threads, fusion=True)
        for start in range(0, num_rows(timed), _BLOCK)
    ]
    seconds = _seconds(variants, settings, blocks, rounds, tell)
    microseconds = 1e6 * seconds / num_rows(timed)
    results = tuple(
        Measured(setting, found, float(time), variants.of_dtype[setting.dtype]._index.nbytes)
        for setting, found, time in zip(settings, metrics, microseconds, strict=True)
    )
    memory = {dtype: memory_by_part(indexes_of(variant)) for dtype, variant in variants.of_dtype.items()}
    return Sweep(results, current_setting(model, k), memory, 1e6 * encoding, len(data), num_threads, k)


def _seconds(
    variants: _Variants, settings: Sequence[Setting], blocks: Sequence[Any], rounds: int, tell: Callable[[], None]
) -> npt.NDArray[np.float64]:
    """What searches for all blocks of queries take with each setting, the least of each block's times added up."""
    least = np.full((len(settings), len(blocks)), np.inf)
    random = np.random.default_rng(0)
    for _ in range(rounds):
        for number in random.permutation(len(settings)):
            for at, block in enumerate(blocks):
                least[number, at] = min(least[number, at], variants.seconds(settings[number], block))
            tell()
    return least.sum(1)


class _Variants:
    """A model with the dtypes and numbers of candidates of some settings."""

    def __init__(self, model: Model | Ensemble, settings: Sequence[Setting], k: int, num_threads: int | None) -> None:
        self.k, self.num_threads = k, num_threads
        own = {index.dtype for index in indexes_of(model)}
        screen = all(index.screen for index in indexes_of(model))
        self.of_dtype: dict[Dtype, Model | Ensemble] = {}
        for dtype in dict.fromkeys(setting.dtype for setting in settings):
            self.of_dtype[dtype] = model if own == {dtype} else model.quantize(dtype, screen=screen)
        # Beam and shortlist are given to each search instead: an index keeps memory for its searches.
        self._all = {
            (dtype, count): self.of_dtype[dtype].with_defaults(num_candidates=count)
            for dtype, _, _, count in settings
        }  # fmt: skip

    def search(self, setting: Setting, queries: Any) -> Any:
        """The labels [N, k] of queries that the model made of texts."""
        variant = self._all[setting.dtype, setting.num_candidates]
        sizes = {"beam_size": setting.beam_size, "shortlist_size": setting.shortlist_size}
        k = min(self.k, variant._index.num_labels)
        return variant._search_for(queries, k, num_threads=self.num_threads, **sizes).labels

    def seconds(self, setting: Setting, queries: Any) -> float:
        """What a search takes."""
        start = perf_counter()
        self.search(setting, queries)
        return perf_counter() - start


def indexes_of(model: Model | Ensemble) -> list[Index]:
    """A model's index, or those of an ensemble's members."""
    return [member.index for member in (model.members if isinstance(model, Ensemble) else [model])]


def current_setting(model: Model | Ensemble, k: int) -> Setting | None:
    """What a model searches for k labels with unless told otherwise; None for an ensemble whose members differ."""
    settings = {
        Setting(
            index.dtype,
            min(index.beam_size, index.num_clusters),
            min(index.shortlist_size, index.num_labels),
            min(max(k, index.num_candidates), index.num_labels) if index.has_fusion and index.num_candidates else None,
        )
        for index in indexes_of(model)
    }
    return settings.pop() if len(settings) == 1 else None


def with_setting(model: Model | Ensemble, setting: Setting) -> Model | Ensemble:
    """The same model, which searches with a setting unless told otherwise."""
    indexes = indexes_of(model)
    if any(index.dtype != setting.dtype for index in indexes):
        model = model.quantize(setting.dtype, screen=all(index.screen for index in indexes))
    _, *sizes = setting
    return model.with_defaults(*sizes)


def _dtypes(indexes: Sequence[Index]) -> list[Dtype]:
    """What all indexes can be stored as without growing."""
    first = indexes[0].dtype
    if any(index.dtype != first for index in indexes):
        return ["int8"]
    return [first, *_SMALLER.get(first, ())]


def _capped(name: str, values: Sequence[int], largest: int) -> list[int]:
    """The values in ascending order, each once, none above what there is."""
    return sorted({min(as_count(name, value), largest) for value in values})


def _texts(model: Model | Ensemble, data: TrainingSet, most: int) -> tuple[TrainingSet, sp.csr_matrix]:
    """A random choice of the texts that have labels, and these as the model numbers them."""
    rows = np.flatnonzero(np.diff(data.labels.indptr))
    data = data.subset(np.random.default_rng(0).permutation(rows)[:most])
    relevant, _ = model._vocabulary.renumber(data.labels, data.label_names)
    if not (relevant.indices < len(model._vocabulary)).any():
        raise DataError("there is nothing to tune by: the model knows none of these texts' labels")
    return data, relevant


def _metrics(labels: Any, relevant: sp.csr_matrix, k: int) -> dict[str, float]:
    precisions = [cut for cut in _PRECISIONS if cut <= k]
    recalls = sorted({*(cut for cut in _RECALLS if cut <= k), k})
    found = evaluate(labels, relevant, ks=precisions, recall_ks=recalls)
    return {name: found[name] for name in (*(f"P@{cut}" for cut in precisions), *(f"R@{cut}" for cut in recalls))}
