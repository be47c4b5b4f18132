"""Encoders turn inputs (texts, sparse features, embeddings) into query embeddings. N inputs, D dimensions.

Each encoder has two halves: the one here encodes and needs no torch, unless it is a transformer; its twin in
`elias_idx.train.encoders` is the trainable module that ends up as it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.encoders.bag import BagEncoder
from elias_idx.encoders.precomputed import PrecomputedEncoder
from elias_idx.errors import FormatError
from elias_idx.features import Features

__all__ = ["BagEncoder", "Encoder", "PrecomputedEncoder", "load_encoder"]


class Encoder(Protocol):
    """What a model needs of its encoder."""

    kind: ClassVar[str]

    @property
    def dim(self) -> int:
        """D, the size of the embeddings."""

    @property
    def features(self) -> Features | None:
        """What turns inputs into the sparse features that it encodes; None if it encodes nothing of the kind."""

    def encode(
        self, inputs: Any, num_threads: int | None = None, *, sparse: sp.csr_matrix | None = None
    ) -> npt.NDArray[np.float32]:
        """The inputs' embeddings, float32 [N, D].

        Args:
            inputs: N texts, or what else the encoder takes.
            num_threads: computed by at most so many threads.
            sparse: what `features` makes of the inputs, CSR [N, F], where that is there already.
        """

    def save(self, folder: Path) -> None:
        """Writes the encoder's files into an existing folder."""


def load_encoder(kind: str, folder: Path) -> Encoder:
    """Reads the encoder of the given kind from its folder.

    Transformers, and with them torch, are imported only for an encoder that has one.

    Raises:
        FormatError: no encoder is of that kind, or its files are damaged.
        MissingExtraError: it has a transformer, and packages for that are missing.
    """
    if kind == BagEncoder.kind:
        return BagEncoder.load(folder)
    if kind == PrecomputedEncoder.kind:
        return PrecomputedEncoder.load(folder)
    if kind == "transformer":
        from elias_idx.encoders.transformer import TransformerEncoder

        return TransformerEncoder.load(folder)
    if kind == "bag+transformer":
        from elias_idx.encoders.hybrid import HybridEncoder

        return HybridEncoder.load(folder)
    raise FormatError(f"{folder}: unknown encoder {kind!r}: the model may come from a newer elias_idx")
