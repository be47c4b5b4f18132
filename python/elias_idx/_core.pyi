"""The compiled core; `elias_idx.index` is its face."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "EVIDENCE",
    "EliasIdxError",
    "FormatError",
    "Index",
    "IndexWriter",
    "LabelFilter",
    "LabelStep",
    "Staging",
    "TextFeatures",
    "__version__",
    "apply_gradients",
    "bag_gradient",
    "bag_product",
    "cluster_labels",
    "embed_bags",
    "instruction_set",
    "search_ensemble",
    "shared_labels",
    "split_words",
    "train_ranker",
]

_F32: TypeAlias = npt.NDArray[np.float32]
_I32: TypeAlias = npt.NDArray[np.int32]
_I64: TypeAlias = npt.NDArray[np.int64]
_U32: TypeAlias = npt.NDArray[np.uint32]
_U8: TypeAlias = npt.NDArray[np.uint8]

# CSR: indptr, indices, data, number of columns.
_Csr: TypeAlias = tuple[_I64, _I32, _F32, int]
# One for all queries, one or None for each, or CSR rows: indptr, indices, which elements count.
_Filter: TypeAlias = LabelFilter | list[LabelFilter | None] | tuple[_I64, _I64, _U8]
# Cluster, its rank and score, the edge's weight, the path's score, whether in the beam.
_Path: TypeAlias = tuple[int, int, float, float, float, bool]
# Label, whether allowed, paths, path score, logit, probability, score, path rank, rank.
_Explanation: TypeAlias = tuple[int, bool, list[_Path], float, float, float, float, int | None, int | None]

# A table that is trained: (weights, momentum), second moments, (biases and their moments), Adam's settings.
class _Table(Protocol):
    @property
    def weights(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]: ...
    @property
    def second_moment(self) -> _F32: ...
    @property
    def bias(self) -> tuple[_F32, _F32, _F32] | None: ...
    @property
    def adam(self) -> tuple[float, float, float, float, int]: ...

# Ragged rows: offsets, ids, values.
_Ragged: TypeAlias = tuple[_I64, _I64, _F32]
# Rows of a table, their gradients, those of their biases.
_Gradients: TypeAlias = tuple[_I64, _F32, _F32]
_Mode: TypeAlias = Literal["evaluate", "collect", "apply"]

# Label counts, ranker, label texts, co-occurrence, neighbours of new labels.
_NewEvidence: TypeAlias = tuple[
    _U32 | None, tuple[_Csr, _F32] | None, _Csr | None, _Csr | None, tuple[_Csr, _Csr] | None
]

# Trees: offsets, columns, thresholds, children, values.
_Trees: TypeAlias = tuple[_I64, _I32, _F32, _I32, _F32]

# A block of n-grams: field, kind, shortest and longest n, in how many texts, weight.
_Block: TypeAlias = tuple[str, str, int, int, int, float]
# Symbols, keys for n = 2, 3, ..., idf.
_BlockParts: TypeAlias = tuple[list[str], list[_I64], _F32]

__version__: Final[str]
EVIDENCE: Final[list[str]]

class EliasIdxError(Exception): ...
class FormatError(EliasIdxError): ...

@final
class LabelFilter:
    def __len__(self) -> int: ...
    def __copy__(self) -> LabelFilter: ...
    def __deepcopy__(self, _memo: dict[int, object]) -> LabelFilter: ...

@final
class Index:
    @staticmethod
    def load(path: str | os.PathLike[str], mmap: bool, prefault: bool) -> Index: ...
    @staticmethod
    def from_files(files: dict[str, bytes]) -> Index: ...
    def to_files(self) -> dict[str, bytes]: ...
    def save(self, path: str | os.PathLike[str], overwrite: bool) -> None: ...
    def quantize(self, dtype: str, screen: bool, path: str | os.PathLike[str] | None, overwrite: bool) -> Index: ...
    def remove_labels(self, labels: _I64, path: str | os.PathLike[str] | None, overwrite: bool) -> Index: ...
    def add_labels(
        self,
        dense: tuple[_F32, _F32, _Csr],
        names: list[str] | None,
        evidence: _NewEvidence,
        path: str | os.PathLike[str] | None,
        overwrite: bool,
    ) -> Index: ...
    def verify(self) -> None: ...
    def search(
        self,
        queries: _F32,
        out: tuple[_I64, _F32],
        beam_size: int | None,
        shortlist_size: int | None,
        num_threads: int | None,
        filter: _Filter | None,
        min_score: float | None,
        sparse: _Csr | None,
        num_candidates: int | None,
    ) -> None: ...
    def evidence(
        self,
        queries: _F32,
        sparse: _Csr,
        beam_size: int | None,
        shortlist_size: int | None,
        num_threads: int | None,
        num_candidates: int | None,
    ) -> tuple[_I64, _I64, _F32]: ...
    def with_evidence(
        self,
        num_features: int,
        num_candidates: int,
        num_neighbours: int,
        label_counts: _U32,
        ranker: tuple[_Csr, _F32] | None,
        neighbours: tuple[_Csr, _Csr] | None,
        label_texts: _Csr | None,
        cooccurrence: _Csr | None,
    ) -> Index: ...
    def with_fusion(self, linear: _F32, bias: float, trees: _Trees | None) -> Index: ...
    def with_defaults(self, beam_size: int | None, shortlist_size: int | None, num_candidates: int | None) -> Index: ...
    @property
    def fusion_linear(self) -> _F32 | None: ...
    @property
    def fusion_trees(self) -> _Trees | None: ...
    def beam(
        self,
        queries: _F32,
        out: tuple[_I64, _F32],
        beam_size: int | None,
        num_threads: int | None,
    ) -> None: ...
    def shortlist(
        self,
        queries: _F32,
        out: tuple[_I64, _F32],
        beam_size: int | None,
        shortlist_size: int | None,
        num_threads: int | None,
        filter: _Filter | None,
    ) -> None: ...
    def label_filter(self, labels: _I64) -> LabelFilter: ...
    def label_filter_of_mask(self, mask: _U8) -> LabelFilter: ...
    def find_labels(self, names: list[str]) -> _I64: ...
    def explain(
        self,
        queries: _F32,
        labels: _I64,
        beam_size: int | None,
        shortlist_size: int | None,
        filter: _Filter | None,
    ) -> tuple[int, int, int, list[_Explanation]]: ...
    def clusters_of(self, label: int) -> tuple[_U32, _F32]: ...
    def label_rows(self, labels: _I64, out: _F32) -> None: ...
    def memory(self) -> dict[str, int]: ...
    def names(self, labels: _I64) -> list[str | None]: ...
    @property
    def num_labels(self) -> int: ...
    @property
    def num_clusters(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def label_dim(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def has_screen(self) -> bool: ...
    @property
    def has_names(self) -> bool: ...
    @property
    def num_features(self) -> int | None: ...
    @property
    def num_candidates(self) -> int | None: ...
    @property
    def num_neighbours(self) -> int | None: ...
    @property
    def has_ranker(self) -> bool: ...
    @property
    def has_neighbours(self) -> bool: ...
    @property
    def has_label_texts(self) -> bool: ...
    @property
    def has_cooccurrence(self) -> bool: ...
    @property
    def has_fusion(self) -> bool: ...
    @property
    def alpha(self) -> float: ...
    @property
    def beam_size(self) -> int: ...
    @property
    def shortlist_size(self) -> int: ...
    @property
    def source(self) -> tuple[os.PathLike[str], str, bool, bool] | None: ...
    @property
    def cluster_weights(self) -> _F32: ...
    @property
    def cluster_bias(self) -> _F32: ...
    @property
    def adjacency(self) -> tuple[_I64, _U32, _F32]: ...
    @property
    def label_weights(self) -> _F32 | npt.NDArray[np.float16] | None: ...
    @property
    def label_bias(self) -> _F32: ...
    @property
    def label_projection(self) -> _F32 | None: ...

@final
class IndexWriter:
    def __new__(
        cls,
        cluster_weights: _F32,
        cluster_bias: _F32,
        indptr: _I64,
        num_edges: int,
        label_shape: tuple[int, int],
        label_projection: _F32 | None,
        label_names: list[str] | None,
        alpha: float,
        beam_size: int,
        shortlist_size: int,
        dtype: str,
        screen: bool,
        path: str | os.PathLike[str] | None,
        overwrite: bool,
    ) -> IndexWriter: ...
    def push_edges(self, indices: _I64, data: _F32) -> None: ...
    def push_labels(self, weights: _F32, bias: _F32) -> None: ...
    def finish(self) -> Index: ...
    def __enter__(self) -> IndexWriter: ...
    def __exit__(self, *_exception: object) -> None: ...

def cluster_labels(
    texts: _Csr,
    sparse: _Csr | None,
    dense: _F32 | None,
    num_clusters: int,
    max_entries: int,
    seed: int,
    num_threads: int | None,
    report: Callable[[float], object],
) -> _U32: ...
def train_ranker(
    features: _Csr,
    labels: _Csr,
    shortlists: _I64,
    positive_cost: float,
    negative_cost: float,
    tolerance: float,
    max_passes: int,
    weights_per_label: int,
    seed: int,
    num_threads: int | None,
    report: Callable[[float], object],
) -> tuple[_I64, _I32, _F32, _F32]: ...
def search_ensemble(
    members: list[tuple[Index, _F32, _U32 | None, _Filter | None, _Csr | None]],
    out: tuple[_I64, _F32],
    depth: int,
    beam_size: int | None,
    shortlist_size: int | None,
    num_threads: int | None,
    min_score: float | None,
) -> None: ...
def shared_labels(first: Index, others: list[Index]) -> tuple[list[_U32 | None], list[str]]: ...
def instruction_set() -> str: ...

@final
class Staging:
    def __new__(cls, target: str | os.PathLike[str], overwrite: bool) -> Staging: ...
    @property
    def path(self) -> Path: ...
    def publish(self) -> None: ...
    def remove(self) -> None: ...

@final
class LabelStep:
    def __new__(cls) -> LabelStep: ...
    def run(
        self,
        queries: tuple[_F32, _F32, _I64],
        positives: _Ragged,
        adjacency: tuple[_I64, _I64, _I64, _I64],
        logits: tuple[_Table, float] | None,
        classifiers: _Table,
        settings: tuple[int, float, float, float],
        mode: _Mode,
        num_threads: int,
    ) -> tuple[float, _F32, _F32, _Gradients, _Gradients | None]: ...

def bag_product(bags: _Ragged, weight: _F32, out: _F32, num_threads: int) -> None: ...
def bag_gradient(bags: _Ragged, gradient: _F32, table: _Table, apply: bool, num_threads: int) -> _Gradients: ...
def apply_gradients(table: _Table, gradients: tuple[_I64, _F32, _F32 | None], num_threads: int) -> None: ...

@final
class TextFeatures:
    @staticmethod
    def fit(blocks: list[_Block], texts: Sequence[str], num_threads: int | None) -> TextFeatures: ...
    @staticmethod
    def from_parts(blocks: list[tuple[_Block, _BlockParts]]) -> TextFeatures: ...
    def parts(self) -> list[_BlockParts]: ...
    @property
    def num_features(self) -> int: ...
    def transform(self, texts: Sequence[str], num_threads: int | None) -> tuple[_I64, _I32, _F32]: ...

def split_words(text: str) -> list[str]: ...
def embed_bags(
    features: _Csr,
    embeddings: _F32,
    norm: tuple[_F32, _F32, float, float],
    out: _F32,
    num_threads: int | None,
) -> None: ...
