"""What training needs of an encoder. N training inputs, Q of them in a batch, F features, D dimensions."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from elias_idx.encoders import Encoder
from elias_idx.train.clustering import Features
from elias_idx.train.row_table import RowTable


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
        """The embeddings of the training inputs with the given numbers, int64 [Q] → float32 [Q, D].

        Without the dropout on them, which training adds for all encoders.
        """

    @abstractmethod
    def row_tables(self) -> list[RowTable]:
        """The parameters of which a step touches few rows."""

    @abstractmethod
    def dense_parameters(self) -> list[nn.Parameter]:
        """All other parameters that are trained."""

    @abstractmethod
    def finished(self) -> Encoder:
        """The encoder as it is now, for inputs of any kind; it may share memory with this module."""
