"""Inputs as sparse vectors: tf-idf of texts' n-grams, or features that exist already. N inputs, F features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import scipy.sparse as sp

from elias_idx.data import Inputs
from elias_idx.errors import FormatError
from elias_idx.features.blocks import Block
from elias_idx.features.given import GivenFeatures
from elias_idx.features.text import TextFeatures

__all__ = ["Block", "Features", "GivenFeatures", "TextFeatures", "load_features"]


class Features(Protocol):
    """What turns inputs into sparse vectors."""

    @property
    def num_features(self) -> int:
        """F."""

    def fit_transform(self, inputs: Any, num_threads: int | None = None) -> sp.csr_matrix:
        """Learns what there is to learn of the training inputs; returns their float32 CSR matrix [N, F]."""

    def transform(self, inputs: Inputs, num_threads: int | None = None) -> sp.csr_matrix:
        """The inputs' float32 CSR matrix [N, F], computed by at most so many threads.

        Raises:
            DataError: they are of another kind.
        """

    def save(self, folder: Path) -> None:
        """Writes `features.json`, and perhaps `features.safetensors`."""


def load_features(folder: Path) -> Features:
    """Reads what the `save` of either kind wrote.

    Raises:
        FormatError: a file is damaged.
        OSError: one can't be read.
    """
    path = folder / "features.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} is damaged: it must hold an object")
    return GivenFeatures.load(folder) if "num_features" in content else TextFeatures.load(folder)
