"""Inputs as sparse vectors: tf-idf of texts' word and character n-grams, or features that exist already.

N inputs, F features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.preprocessing import normalize

from elias_idx.data import Inputs, as_texts, is_sparse
from elias_idx.errors import DataError, FormatError
from elias_idx.files import load_tensors, save_tensors


@dataclass(frozen=True)
class FeatureConfig:
    """Which n-grams become features.

    Attributes:
        word_ngrams: shortest and longest word n-gram; (0, 0) for none.
        char_ngrams: shortest and longest character n-gram, within words padded by spaces; (0, 0) for none.
        min_word_texts: in how many training texts a word n-gram must occur.
        min_char_texts: in how many training texts a character n-gram must occur.
    """

    word_ngrams: tuple[int, int]
    char_ngrams: tuple[int, int]
    min_word_texts: int
    min_char_texts: int


class Features(Protocol):
    """What turns inputs into sparse vectors."""

    @property
    def num_features(self) -> int:
        """F."""

    def fit_transform(self, inputs: Any) -> sp.csr_matrix:
        """Learns what there is to learn of the training inputs; returns their float32 CSR matrix [N, F]."""

    def transform(self, inputs: Inputs) -> sp.csr_matrix:
        """The inputs' float32 CSR matrix [N, F].

        Raises:
            DataError: they are of another kind.
        """

    def save(self, folder: Path) -> None:
        """Writes `features.json`, and perhaps `features.safetensors`."""


class TextFeatures:
    """tf-idf with sublinear term frequencies, all n-grams normalised together to unit length.

    A text without a known n-gram becomes a row of zeros.
    """

    def __init__(
        self,
        config: FeatureConfig,
        vocabularies: Mapping[str, list[str]] | None = None,
        idf: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.config = config
        kinds = {
            "word": (config.word_ngrams, config.min_word_texts),
            "char_wb": (config.char_ngrams, config.min_char_texts),
        }
        self._counters = {
            kind: CountVectorizer(
                analyzer=kind,
                ngram_range=ngrams,
                min_df=min_texts,
                token_pattern=r"(?u)\b\w+\b" if kind == "word" else None,
                vocabulary=None if vocabularies is None else vocabularies[kind],
                dtype=np.float32,
            )
            for kind, (ngrams, min_texts) in kinds.items()
            if ngrams != (0, 0) and (vocabularies is None or kind in vocabularies)
        }
        self._tfidf = TfidfTransformer(sublinear_tf=True)
        if idf is not None:
            self._tfidf.idf_ = idf

    @property
    def num_features(self) -> int:
        """F, the number of n-grams."""
        return len(self._tfidf.idf_)

    def fit_transform(self, texts: Sequence[str]) -> sp.csr_matrix:
        """Learns the n-grams and their weights; returns the texts' float32 CSR matrix [N, F].

        A kind of n-gram of which none is frequent enough is left out.

        Raises:
            DataError: that leaves nothing.
        """
        counts = []
        for kind, counter in list(self._counters.items()):
            try:
                counts.append(counter.fit_transform(texts))
            except ValueError:
                # How scikit-learn says that nothing is left of the vocabulary.
                del self._counters[kind]
        if not counts:
            raise DataError(
                "the training texts give no features: no n-gram is in enough of them; "
                "lower min_word_texts or min_char_texts if there are any words"
            )
        return self._sorted(self._tfidf.fit_transform(sp.hstack(counts, format="csr")))

    def transform(self, inputs: Inputs) -> sp.csr_matrix:
        """The texts' float32 CSR matrix [N, F]; n-grams that `fit_transform` did not see are left out.

        Raises:
            DataError: the inputs are not all strings.
        """
        texts = as_texts(inputs)
        counts = sp.hstack([counter.transform(texts) for counter in self._counters.values()], format="csr")
        return self._sorted(self._tfidf.transform(counts))

    @staticmethod
    def _sorted(matrix: sp.csr_matrix) -> sp.csr_matrix:
        matrix = sp.csr_matrix(matrix, dtype=np.float32)
        matrix.sort_indices()
        return matrix

    def save(self, folder: Path) -> None:
        """Writes `features.json` (settings and n-grams) and `features.safetensors` (idf weights)."""
        vocabularies = {kind: counter.get_feature_names_out().tolist() for kind, counter in self._counters.items()}
        content = {"config": asdict(self.config), "vocabularies": vocabularies}
        (folder / "features.json").write_text(json.dumps(content), encoding="utf-8")
        save_tensors(folder / "features.safetensors", {"idf": self._tfidf.idf_.astype(np.float32)})

    @classmethod
    def load(cls, folder: Path) -> TextFeatures:
        """Reads what `save` wrote."""
        content = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        settings: dict[str, Any] = content["config"]
        settings |= {name: tuple(settings[name]) for name in ("word_ngrams", "char_ngrams")}
        vocabularies, idf = content["vocabularies"], load_tensors(folder / "features.safetensors")["idf"]
        num_features = sum(map(len, vocabularies.values()))
        if idf.shape != (num_features,) or not np.isfinite(idf).all():
            raise FormatError(f"{folder}/features.safetensors: idf must be finite numbers of shape [{num_features}]")
        return cls(FeatureConfig(**settings), vocabularies, idf)


class GivenFeatures:
    """Features that exist already, such as an XMC data set's tf-idf: each row is scaled to unit length.

    A row without features stays a row of zeros.
    """

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features

    def fit_transform(self, inputs: Any) -> sp.csr_matrix:
        """Like `transform`: there is nothing to learn."""
        return self.transform(inputs)

    def transform(self, inputs: Inputs) -> sp.csr_matrix:
        """The rows as float32 CSR [N, F], of unit length.

        Raises:
            DataError: the inputs are no sparse matrix of F columns, or not finite.
        """
        if not is_sparse(inputs):
            raise DataError(f"this model takes sparse features, a CSR matrix [N, {self.num_features}]")
        if inputs.shape[1] != self.num_features:
            raise DataError(f"this model takes {self.num_features} features a row, got {inputs.shape[1]}")
        matrix = sp.csr_matrix(inputs, dtype=np.float32)
        if not np.isfinite(matrix.data).all():
            row = np.searchsorted(matrix.indptr, np.flatnonzero(~np.isfinite(matrix.data))[0], side="right") - 1
            raise DataError(f"the features of row {row} are not all finite")
        matrix = normalize(matrix)
        matrix.sort_indices()
        return matrix

    def save(self, folder: Path) -> None:
        """Writes `features.json`."""
        (folder / "features.json").write_text(json.dumps({"num_features": self.num_features}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> GivenFeatures:
        """Reads what `save` wrote."""
        num_features = json.loads((folder / "features.json").read_text(encoding="utf-8"))["num_features"]
        if type(num_features) is not int:
            raise FormatError(f"{folder}/features.json: num_features is {num_features!r}")
        return cls(num_features)


def load_features(folder: Path) -> Features:
    """Reads what the `save` of either kind wrote."""
    content = json.loads((folder / "features.json").read_text(encoding="utf-8"))
    return GivenFeatures.load(folder) if "num_features" in content else TextFeatures.load(folder)
