"""What training needs of an encoder. N training inputs, Q of them in a batch, F features, D dimensions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from torch import Tensor, nn

from elias_idx.config import Config
from elias_idx.encoders import Encoder
from elias_idx.errors import DataError
from elias_idx.train.row_table import RowTable


class TrainableEncoder(nn.Module, ABC):
    """What training needs of an encoder over the training inputs."""

    def prepare(self, folder: Path) -> None:
        """Computes what training needs of the inputs, or finds it in the folder of an interrupted run.

        Called once, after the module was moved to its device and before anything else is asked of it.
        """

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @property
    def sparse_features(self) -> sp.csr_matrix | None:
        """The inputs' n-grams, [N, F], to make clusters from; None if they have none."""
        return None

    def sparse_features_of(self, texts: Sequence[str]) -> sp.csr_matrix:  # noqa: ARG002 (for those that have any)
        """The n-grams of other texts, [N', F], if the training inputs have any.

        Raises:
            DataError: the inputs are no texts.
        """
        raise DataError("the training inputs are no texts, so their labels can have none")

    def dense_features(self) -> npt.NDArray[np.float32] | None:
        """The inputs' embeddings before training, [N, D'], to make clusters from; None if they say nothing yet."""
        return None

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """The embeddings of the training inputs with the given numbers, int64 [Q] → float32 [Q, D].

        Without the dropout on them, which training adds for all encoders.
        """

    @abstractmethod
    def row_tables(self) -> list[RowTable]:
        """The parameters of which a step touches few rows."""

    @abstractmethod
    def parameter_groups(self, config: Config) -> list[dict[str, Any]]:
        """All other parameters that are trained, as groups of AdamW with stage 1's `lr` and their `weight_decay`."""

    @abstractmethod
    def finished(self) -> Encoder:
        """The encoder as it is now, for inputs of any kind; it may share memory with this module."""
