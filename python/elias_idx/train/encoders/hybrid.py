"""The bag of n-grams and a transformer side by side, in training. N texts, D dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from elias_idx.config import Config
from elias_idx.data import Inputs
from elias_idx.encoders.hybrid import HybridEncoder
from elias_idx.train.encoders.bag import BagModule
from elias_idx.train.encoders.base import TrainableEncoder
from elias_idx.train.encoders.transformer import transformer_module
from elias_idx.train.row_table import RowTable


class HybridModule(TrainableEncoder):
    """[bag, transformer], both of the same fixed length; see `HybridEncoder`."""

    def __init__(self, inputs: Inputs, config: Config) -> None:
        super().__init__()
        # So that the whole has the length that a single encoder's embeddings have.
        config = replace(config, embedding_norm=config.embedding_norm / math.sqrt(2))
        self.transformer = transformer_module(inputs, config)
        self.bag = BagModule(inputs, config)

    def prepare(self, folder: Path) -> None:
        self.bag.prepare(folder)
        self.transformer.prepare(folder)

    @property
    def dim(self) -> int:
        return self.bag.dim + self.transformer.dim

    @property
    def sparse_features(self) -> sp.csr_matrix | None:
        return self.bag.sparse_features

    def sparse_features_of(self, texts: Sequence[str]) -> sp.csr_matrix:
        return self.bag.sparse_features_of(texts)

    def dense_features(self) -> npt.NDArray[np.float32] | None:
        return self.transformer.dense_features()

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([self.bag(rows), self.transformer(rows)], dim=1)

    def row_tables(self) -> list[RowTable]:
        return [*self.bag.row_tables(), *self.transformer.row_tables()]

    def parameter_groups(self, config: Config) -> list[dict[str, Any]]:
        return [*self.bag.parameter_groups(config), *self.transformer.parameter_groups(config)]

    def finished(self) -> HybridEncoder:
        return HybridEncoder(self.bag.finished(), self.transformer.finished())
