"""A linear encoder over sparse features, such as n-grams: weighted embedding bag, layer norm, a fixed length."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import _core
from elias_idx._arrays import as_count_if_given, as_sparse
from elias_idx.data import Inputs, is_sparse, num_rows
from elias_idx.errors import FormatError
from elias_idx.features import Features, load_features
from elias_idx.files import map_tensors, save_tensors

Array = npt.NDArray[np.float32]

# Of LayerNorm; the training side uses the same.
LAYER_NORM_EPSILON = 1e-5
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True)
class BagEncoder:
    """φ(x) = length · LN(Σ_f x_f · v_f) / ‖LN(...)‖; F features, D dimensions.

    Attributes:
        features: turns inputs into sparse vectors x, [N, F].
        embeddings: v, float32 [F, D].
        gain: of the layer norm, [D].
        bias: of the layer norm, [D].
        length: the norm of every embedding.
    """

    kind: ClassVar[str] = "bag"

    features: Features
    embeddings: Array
    gain: Array
    bias: Array
    length: float

    @property
    def dim(self) -> int:
        """D, the size of the embeddings."""
        return self.embeddings.shape[1]

    def encode(
        self,
        inputs: Inputs,
        num_threads: int | None = None,
        *,
        sparse: sp.csr_matrix | None = None,
    ) -> Array:
        """The inputs' embeddings, float32 [N, D].

        Args:
            inputs: N texts, or sparse features.
            num_threads: CPU threads at most; by default all that the process may use.
            sparse: what `features` makes of the inputs, CSR [N, F], where that is there already.

        Raises:
            DataError: the inputs are not of the kind that the features are made of.
        """
        if sparse is not None:
            return self._embed(sparse, num_threads)
        if is_sparse(inputs):
            inputs = inputs.tocsr()  # other formats have no slices
        result = np.empty((num_rows(inputs), self.dim), np.float32)
        for start in range(0, num_rows(inputs), _TEXTS_AT_ONCE):
            rows = slice(start, start + _TEXTS_AT_ONCE)
            result[rows] = self._embed(self.features.transform(inputs[rows], num_threads), num_threads)
        return result

    def _embed(self, features: sp.csr_matrix, num_threads: int | None) -> Array:
        result = np.empty((features.shape[0], self.dim), np.float32)
        rows = as_sparse("features", features, (features.shape[0], self.features.num_features))
        norm = (self.gain, self.bias, LAYER_NORM_EPSILON, self.length)
        _core.embed_bags(rows, self.embeddings, norm, result, as_count_if_given("num_threads", num_threads))
        return result

    def save(self, folder: Path) -> None:
        """Writes the features' files, `bag.json` and `bag.safetensors` into the folder."""
        self.features.save(folder)
        (folder / "bag.json").write_text(json.dumps({"length": self.length}), encoding="utf-8")
        tensors = {"embeddings": self.embeddings, "gain": self.gain, "bias": self.bias}
        save_tensors(folder / "bag.safetensors", tensors)

    @classmethod
    def load(cls, folder: Path) -> BagEncoder:
        """Reads what `save` wrote."""
        length = json.loads((folder / "bag.json").read_text(encoding="utf-8"))["length"]
        if type(length) not in (int, float) or not 0 < length < math.inf:
            raise FormatError(f"{folder}/bag.json: length must be a positive number, it is {length!r}")
        features, tensors = load_features(folder), map_tensors(folder / "bag.safetensors")
        dim = tensors["embeddings"].shape[-1]
        shapes = {"embeddings": (features.num_features, dim), "gain": (dim,), "bias": (dim,)}
        for name, shape in shapes.items():
            if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
                raise FormatError(f"{folder}/bag.safetensors: {name} must be finite numbers of shape {list(shape)}")
        return cls(features, **tensors, length=length)
