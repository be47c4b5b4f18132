"""A linear encoder over n-grams: tf-idf weighted embedding bag, layer norm, scaled to a fixed length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from elias_idx.errors import DataError, FormatError
from elias_idx.features import TextFeatures
from elias_idx.files import load_tensors, save_tensors

Array = npt.NDArray[np.float32]

# Of LayerNorm; the training side uses the same.
LAYER_NORM_EPSILON = 1e-5
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True)
class BagEncoder:
    """φ(x) = length · LN(Σ_f tf-idf_f(x) · v_f) / ‖LN(...)‖; F features, D dimensions.

    Attributes:
        features: turns texts into tf-idf vectors [N, F].
        embeddings: v, float32 [F, D].
        gain: of the layer norm, [D].
        bias: of the layer norm, [D].
        length: the norm of every embedding.
    """

    kind: ClassVar[str] = "bag"

    features: TextFeatures
    embeddings: Array
    gain: Array
    bias: Array
    length: float

    @property
    def dim(self) -> int:
        """D, the size of the embeddings."""
        return self.embeddings.shape[1]

    def encode(self, inputs: Sequence[str]) -> Array:
        """The texts' embeddings, float32 [N, D].

        Raises:
            DataError: the inputs are an array, or not all strings.
        """
        if isinstance(inputs, np.ndarray):
            raise DataError(f"this model takes texts, got an array of {inputs.dtype} of shape {list(inputs.shape)}")
        for number, text in enumerate(inputs):
            if not isinstance(text, str):
                raise DataError(f"text {number} must be a string, got {type(text).__name__}")
        result = np.empty((len(inputs), self.dim), np.float32)
        for start in range(0, len(inputs), _TEXTS_AT_ONCE):
            end = start + _TEXTS_AT_ONCE
            bags = self.features.transform(inputs[start:end]) @ self.embeddings
            result[start:end] = self._normalize(np.asarray(bags))
        return result

    def _normalize(self, bags: Array) -> Array:
        centred = bags - bags.mean(1, keepdims=True)
        variance = np.square(centred).mean(1, keepdims=True)
        normalized = centred / np.sqrt(variance + LAYER_NORM_EPSILON) * self.gain + self.bias
        lengths = np.linalg.norm(normalized, axis=1, keepdims=True)
        return normalized * (self.length / np.maximum(lengths, 1e-12))

    def save(self, folder: Path) -> None:
        """Writes the features' files, `bag.json` and `bag.safetensors` into the folder."""
        self.features.save(folder)
        (folder / "bag.json").write_text(json.dumps({"length": self.length}), encoding="utf-8")
        tensors = {"embeddings": self.embeddings, "gain": self.gain, "bias": self.bias}
        save_tensors(folder / "bag.safetensors", tensors)

    @classmethod
    def load(cls, folder: Path) -> BagEncoder:
        """Reads what `save` wrote."""
        settings = json.loads((folder / "bag.json").read_text(encoding="utf-8"))
        features, tensors = TextFeatures.load(folder), load_tensors(folder / "bag.safetensors")
        dim = tensors["embeddings"].shape[-1]
        shapes = {"embeddings": (features.num_features, dim), "gain": (dim,), "bias": (dim,)}
        for name, shape in shapes.items():
            if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
                raise FormatError(f"{folder}/bag.safetensors: {name} must be finite numbers of shape {list(shape)}")
        return cls(features, **tensors, length=settings["length"])
