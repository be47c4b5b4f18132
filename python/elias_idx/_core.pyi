"""The compiled core; `elias_idx.index` is its face."""

import os
from typing import Final, TypeAlias, final

import numpy as np
import numpy.typing as npt

__all__ = ["EliasIdxError", "FormatError", "Index", "__version__", "replace_folder"]

_F32: TypeAlias = npt.NDArray[np.float32]
_I64: TypeAlias = npt.NDArray[np.int64]
_U32: TypeAlias = npt.NDArray[np.uint32]

__version__: Final[str]

class EliasIdxError(Exception): ...
class FormatError(EliasIdxError): ...

@final
class Index:
    @staticmethod
    def build(
        cluster_weights: _F32,
        cluster_bias: _F32,
        indptr: _I64,
        indices: _I64,
        data: _F32,
        label_weights: _F32,
        label_bias: _F32,
        label_projection: _F32 | None,
        label_names: list[str] | None,
        alpha: float,
        beam_size: int,
        shortlist_size: int,
    ) -> Index: ...
    @staticmethod
    def load(path: str | os.PathLike[str], mmap: bool) -> Index: ...
    @staticmethod
    def from_files(files: dict[str, bytes]) -> Index: ...
    def to_files(self) -> dict[str, bytes]: ...
    def save(self, path: str | os.PathLike[str], overwrite: bool) -> None: ...
    def verify(self) -> None: ...
    def search(
        self,
        queries: _F32,
        out: tuple[_I64, _F32],
        beam_size: int | None,
        shortlist_size: int | None,
        num_threads: int | None,
    ) -> None: ...
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
    ) -> None: ...
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
    def has_names(self) -> bool: ...
    @property
    def alpha(self) -> float: ...
    @property
    def beam_size(self) -> int: ...
    @property
    def shortlist_size(self) -> int: ...
    @property
    def source(self) -> tuple[os.PathLike[str], str, bool] | None: ...
    @property
    def cluster_weights(self) -> _F32: ...
    @property
    def cluster_bias(self) -> _F32: ...
    @property
    def adjacency(self) -> tuple[_I64, _U32, _F32]: ...
    @property
    def label_weights(self) -> _F32: ...
    @property
    def label_bias(self) -> _F32: ...
    @property
    def label_projection(self) -> _F32 | None: ...

def replace_folder(source: str | os.PathLike[str], target: str | os.PathLike[str], overwrite: bool) -> None: ...
