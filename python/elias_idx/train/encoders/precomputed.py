"""Embeddings that exist already, as the input of training. N training inputs, Q of them in a batch, D dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elias_idx.config import Config
from elias_idx.data import Inputs
from elias_idx.encoders import PrecomputedEncoder
from elias_idx.encoders.precomputed import check_finite
from elias_idx.errors import DataError
from elias_idx.train.encoders.base import TrainableEncoder
from elias_idx.train.row_table import RowTable


class PrecomputedModule(TrainableEncoder):
    """Embeddings that exist already; those of a mapped file are read from there batch by batch."""

    def __init__(self, embeddings: Inputs) -> None:
        super().__init__()
        if not isinstance(embeddings, np.ndarray):
            raise DataError(
                "the precomputed encoder takes a float array [N, D]; texts and sparse features need another"
            )
        if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or 0 in embeddings.shape:
            raise DataError(
                f"the precomputed encoder takes a float array [N, D], got {embeddings.dtype} "
                f"of shape {list(embeddings.shape)}"
            )
        check_finite(embeddings)
        self._embeddings = embeddings

    @property
    def dim(self) -> int:
        return self._embeddings.shape[1]

    def forward(self, rows: Tensor) -> Tensor:
        chosen = self._embeddings[rows.cpu().numpy()].astype(np.float32, copy=False)
        return torch.from_numpy(chosen).to(rows.device)

    def dense_features(self) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(self._embeddings, np.float32)

    def row_tables(self) -> list[RowTable]:
        return []

    def parameter_groups(self, config: Config) -> list[dict[str, Any]]:  # noqa: ARG002
        return []

    def finished(self) -> PrecomputedEncoder:
        return PrecomputedEncoder(self.dim)
