"""The trainable halves of the encoders: torch modules over the training inputs.

N training inputs, Q of them in a batch, F features, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elias_idx.config import Config
from elias_idx.encoders import BagEncoder, Encoder, PrecomputedEncoder
from elias_idx.encoders.bag import LAYER_NORM_EPSILON
from elias_idx.errors import DataError
from elias_idx.features import TextFeatures
from elias_idx.train.clustering import Features
from elias_idx.train.ragged import Ragged
from elias_idx.train.sparse_ops import sparse_product

_FIRST_EMBEDDING_NORM = 0.8


class TrainableEncoder(nn.Module, ABC):
    """What training needs of an encoder over the training inputs.

    Attributes:
        clustering_features: what the initial clusters are made from, [N, F].
    """

    clustering_features: Features

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """The embeddings of the training inputs with the given numbers, int64 [Q] → float32 [Q, D]."""

    @abstractmethod
    def row_parameters(self) -> list[nn.Parameter]:
        """The parameters whose gradients are row-sparse."""

    @abstractmethod
    def dense_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""

    @abstractmethod
    def finished(self) -> Encoder:
        """The encoder as it is now, for inputs of any kind; it may share memory with this module."""


def build_encoder(config: Config, inputs: Sequence[str] | npt.NDArray[np.floating]) -> TrainableEncoder:
    """The trainable encoder that the configuration names, over the training inputs.

    Raises:
        DataError: the inputs are not what that encoder takes.
    """
    if config.encoder == "precomputed":
        return PrecomputedModule(np.asarray(inputs), config.dropout)
    return BagModule(inputs, config)


class BagModule(TrainableEncoder):
    """Embedding bag → layer norm → fixed length → dropout; see `BagEncoder`."""

    def __init__(self, texts: Sequence[str] | npt.NDArray[np.floating], config: Config) -> None:
        super().__init__()
        if isinstance(texts, np.ndarray):
            raise DataError("the bag encoder takes a list of texts; an array of embeddings needs encoder = precomputed")
        self.features = TextFeatures(config.features)
        self.clustering_features = self.features.fit_transform(texts)
        self._inputs = Ragged.from_scipy(self.clustering_features, torch.device(config.device))
        start = torch.randn(self.features.num_features, config.dim) * (_FIRST_EMBEDDING_NORM / config.dim**0.5)
        self.embeddings = nn.Parameter(start)
        self.layer_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPSILON)
        self.length = config.embedding_norm
        self.dropout = nn.Dropout(config.dropout)

    @property
    def dim(self) -> int:
        return self.embeddings.shape[1]

    def forward(self, rows: Tensor) -> Tensor:
        bags = sparse_product(self._inputs.take(rows), self.embeddings)
        embeddings: Tensor = self.dropout(self.length * F.normalize(self.layer_norm(bags), dim=1))
        return embeddings

    def row_parameters(self) -> list[nn.Parameter]:
        return [self.embeddings]

    def dense_parameters(self) -> list[nn.Parameter]:
        return list(self.layer_norm.parameters())

    def finished(self) -> BagEncoder:
        tensors = (self.embeddings, self.layer_norm.weight, self.layer_norm.bias)
        embeddings, gain, bias = (tensor.detach().cpu().numpy() for tensor in tensors)
        return BagEncoder(self.features, embeddings, gain, bias, self.length)


class PrecomputedModule(TrainableEncoder):
    """Embeddings that exist already: dropout is all that training adds."""

    def __init__(self, embeddings: npt.NDArray[np.floating], dropout: float) -> None:
        super().__init__()
        if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or 0 in embeddings.shape:
            raise DataError(
                f"the precomputed encoder takes a float array [N, D], got {embeddings.dtype} "
                f"of shape {list(embeddings.shape)}"
            )
        checked = PrecomputedEncoder(embeddings.shape[1]).encode(embeddings)
        # Torch takes no read-only arrays, such as mapped files.
        self.clustering_features = np.require(checked, requirements="W")
        self.register_buffer("inputs", torch.from_numpy(self.clustering_features), persistent=False)
        self.dropout = nn.Dropout(dropout)

    @property
    def dim(self) -> int:
        return self.clustering_features.shape[1]

    def forward(self, rows: Tensor) -> Tensor:
        embeddings: Tensor = self.dropout(self.get_buffer("inputs")[rows])
        return embeddings

    def row_parameters(self) -> list[nn.Parameter]:
        return []

    def dense_parameters(self) -> list[nn.Parameter]:
        return []

    def finished(self) -> PrecomputedEncoder:
        return PrecomputedEncoder(self.dim)
