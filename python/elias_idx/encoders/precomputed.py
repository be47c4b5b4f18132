"""Embeddings that exist already: an encoder that only checks them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.errors import DataError

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class PrecomputedEncoder:
    """Takes arrays instead of texts.

    Attributes:
        dim: D, the size of the embeddings.
    """

    kind: ClassVar[str] = "precomputed"

    dim: int

    @property
    def features(self) -> None:
        """None: there are no sparse features."""

    def encode(
        self,
        inputs: npt.ArrayLike,
        num_threads: int | None = None,  # noqa: ARG002
        *,
        sparse: sp.csr_matrix | None = None,  # noqa: ARG002
    ) -> npt.NDArray[np.float32]:
        """The inputs themselves as float32 [N, D].

        Raises:
            DataError: they are no array of that size, or not finite.
        """
        array = np.asarray(inputs)  # of sparse features, an object that the check refuses
        if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != self.dim:
            raise DataError(
                f"this model takes embeddings, a float array [N, {self.dim}]; "
                f"got {array.dtype} of shape {list(array.shape)}"
            )
        check_finite(array)
        return np.ascontiguousarray(array, np.float32)

    def save(self, folder: Path) -> None:
        """Writes `precomputed.json` into the folder."""
        (folder / "precomputed.json").write_text(json.dumps({"dim": self.dim}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> PrecomputedEncoder:
        """Reads what `save` wrote."""
        return cls(**json.loads((folder / "precomputed.json").read_text(encoding="utf-8")))


def check_finite(embeddings: npt.NDArray[Any]) -> None:
    """Raises a DataError unless all numbers [N, D] are finite as float32; looks at some rows at a time."""
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        with np.errstate(over="ignore"):
            finite = np.isfinite(embeddings[start : start + _ROWS_AT_ONCE].astype(np.float32, copy=False)).all(1)
        if not finite.all():
            raise DataError(f"the embedding of row {start + int(np.argmin(finite))} is not finite as float32")
