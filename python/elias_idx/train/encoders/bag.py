"""The trainable bag of n-grams. Q training inputs in a batch, F features, D dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elias_idx.config import Config
from elias_idx.data import Inputs, is_sparse
from elias_idx.encoders import BagEncoder
from elias_idx.encoders.bag import LAYER_NORM_EPSILON
from elias_idx.errors import DataError
from elias_idx.features import Features, GivenFeatures, TextFeatures
from elias_idx.train.encoders.base import TrainableEncoder
from elias_idx.train.fused import bag_product
from elias_idx.train.ragged import Ragged
from elias_idx.train.row_table import RowTable

_FIRST_EMBEDDING_NORM = 0.8


class BagModule(TrainableEncoder):
    """Embedding bag → layer norm → fixed length; see `BagEncoder`."""

    def __init__(self, inputs: Inputs, config: Config) -> None:
        super().__init__()
        if isinstance(inputs, np.ndarray):
            raise DataError(
                "the bag encoder takes a list of texts, or sparse features; "
                "an array of embeddings needs encoder = precomputed"
            )
        self.features: Features = GivenFeatures(inputs.shape[1]) if is_sparse(inputs) else TextFeatures(config.blocks)
        self._num_threads = config.num_threads
        self._sparse_features = self.features.fit_transform(inputs, config.num_threads)
        self._inputs = Ragged.from_scipy(self._sparse_features, torch.device(config.device))
        start = torch.randn(self.features.num_features, config.dim) * (_FIRST_EMBEDDING_NORM / config.dim**0.5)
        self.embeddings = RowTable(start)
        self.layer_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPSILON)
        self.length = config.embedding_norm

    @property
    def dim(self) -> int:
        return self.embeddings.weight.shape[1]

    @property
    def sparse_features(self) -> sp.csr_matrix:
        return self._sparse_features

    def sparse_features_of(self, texts: Sequence[str]) -> sp.csr_matrix:
        return self.features.transform(texts, self._num_threads)

    def forward(self, rows: Tensor) -> Tensor:
        bags = bag_product(self._inputs.take(rows), self.embeddings)
        return self.length * F.normalize(self.layer_norm(bags), dim=1)

    def row_tables(self) -> list[RowTable]:
        return [self.embeddings]

    def parameter_groups(self, config: Config) -> list[dict[str, Any]]:
        parameters = list(self.layer_norm.parameters())
        return [{"params": parameters, "lr": config.learning_rate, "weight_decay": config.weight_decay}]

    def finished(self) -> BagEncoder:
        tensors = (self.embeddings.weight, self.layer_norm.weight, self.layer_norm.bias)
        embeddings, gain, bias = (tensor.detach().cpu().numpy() for tensor in tensors)
        return BagEncoder(self.features, embeddings, gain, bias, self.length)
