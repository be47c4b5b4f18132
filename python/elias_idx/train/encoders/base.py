"""What training needs of an encoder. N training inputs, Q of them in a batch, F features, D dimensions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from torch import Tensor, nn

from elias_idx.encoders import Encoder
from elias_idx.train.row_table import RowTable


class TrainableEncoder(nn.Module, ABC):
    """What training needs of an encoder over the training inputs.

    Attributes:
        sparse_features: of the inputs, CSR [N, F], for clustering; None where there are none.
    """

    sparse_features: sp.csr_matrix | None = None

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """The embeddings of the training inputs with the given numbers, int64 [Q] → float32 [Q, D].

        Without the dropout on them, which training adds for all encoders.
        """

    def dense_features(self) -> npt.NDArray[np.float32] | None:
        """Embeddings of the inputs before training, [N, D], for clustering; None where they would mean nothing."""
        return None

    @abstractmethod
    def row_tables(self) -> list[RowTable]:
        """The parameters of which a step touches few rows."""

    @abstractmethod
    def dense_parameters(self) -> list[nn.Parameter]:
        """All other parameters that are trained."""

    @abstractmethod
    def finished(self) -> Encoder:
        """The encoder as it is now, for inputs of any kind; it may share memory with this module."""
