"""The bag of n-grams and a transformer side by side. N texts, D dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data import Inputs
from elias_idx.encoders.bag import BagEncoder
from elias_idx.encoders.transformer import TransformerEncoder
from elias_idx.features import Features


@dataclass(frozen=True)
class HybridEncoder:
    """φ(x) = [bag(x), transformer(x)], each of a fixed length.

    Attributes:
        bag: the first part.
        transformer: the second one.
    """

    kind: ClassVar[str] = "bag+transformer"

    bag: BagEncoder
    transformer: TransformerEncoder

    @property
    def dim(self) -> int:
        """D, the sum of the parts' sizes."""
        return self.bag.dim + self.transformer.dim

    @property
    def features(self) -> Features:
        """The bag's."""
        return self.bag.features

    def encode(
        self, inputs: Inputs, num_threads: int | None = None, *, sparse: sp.csr_matrix | None = None
    ) -> npt.NDArray[np.float32]:
        """The texts' embeddings, float32 [N, D], computed by at most so many threads.

        Args:
            inputs: N texts.
            num_threads: CPU threads at most.
            sparse: what `features` makes of the inputs, CSR [N, F], where that is there already.

        Raises:
            DataError: the inputs are an array, or not all strings.
        """
        bags = self.bag.encode(inputs, num_threads, sparse=sparse)
        return np.hstack([bags, self.transformer.encode(inputs, num_threads)])

    def save(self, folder: Path) -> None:
        """Writes both parts' files into the folder; no two have the same name."""
        self.bag.save(folder)
        self.transformer.save(folder)

    @classmethod
    def load(cls, folder: Path) -> HybridEncoder:
        """Reads what `save` wrote."""
        return cls(BagEncoder.load(folder), TransformerEncoder.load(folder))
