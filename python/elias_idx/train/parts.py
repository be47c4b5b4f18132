"""What the full preset adds to a dense model: sparse features, a ranker on them, the training texts' labels.

N training texts, F sparse features, L labels, Q texts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.config import Config
from elias_idx.data import Inputs, TrainingSet, as_texts, num_rows
from elias_idx.features import Features, TextFeatures
from elias_idx.files import load_tensors, replacing, save_tensors
from elias_idx.index import Index
from elias_idx.model import Model
from elias_idx.train.cooccurrence import label_cooccurrence
from elias_idx.train.ranker import SparseRanker, train_ranker

# Labels of a training text's search that the ranker learns to tell from its own.
SHORTLIST = 100
TEXTS_AT_ONCE = 16384


@dataclass(frozen=True)
class Parts:
    """A dense model and what is added to it.

    Attributes:
        model: the dense model, with sparse features.
        features: what makes them of texts.
        sparse: those of the training texts, float32 CSR [N, F].
        labels: the training texts', float32 CSR [N, L].
        label_texts: the features of the labels' own texts, float32 CSR [L, F]; None without texts.
        config: the settings.
    """

    model: Model
    features: Features
    sparse: sp.csr_matrix
    labels: sp.csr_matrix
    label_texts: sp.csr_matrix | None
    config: Config

    @classmethod
    def of(cls, model: Model, data: TrainingSet, config: Config) -> Parts:
        """The parts of a dense model of the given texts, which gets features of its own if its encoder has none."""
        if (features := model.features) is not None:
            sparse = features.transform(data.inputs, config.num_threads)
        else:
            features = TextFeatures(config.blocks)
            sparse = features.fit_transform(as_texts(data.inputs), config.num_threads)
            model = replace(model, own_features=features)
        own = None if data.label_texts is None else data.label_texts.own
        label_texts = None if own is None else features.transform(own, config.num_threads)
        return cls(model, features, sparse, data.labels, label_texts, config)

    def ranker(self, inputs: Inputs, path: Path) -> SparseRanker:
        """The ranker of the training texts, kept in a file, from which it comes back."""
        if not path.exists():
            ranker = train_ranker(
                self.sparse,
                self.labels,
                self._shortlists(inputs),
                cost=self.config.ranker_cost,
                weights_per_label=self.config.ranker_weights,
                seed=self.config.seed,
                num_threads=self.config.num_threads,
            )
            weights = ranker.weights
            tensors = {name: getattr(weights, name) for name in ("indptr", "indices", "data")}
            with replacing(path) as partial:
                save_tensors(partial, {**tensors, "bias": ranker.bias})
        stored = load_tensors(path)
        shape = (self.labels.shape[1], self.sparse.shape[1])
        return SparseRanker(sp.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape), stored["bias"])

    def _shortlists(self, inputs: Inputs) -> npt.NDArray[np.int64]:
        """The best labels of each training text by the dense model, [N, min(100, L)]."""
        found = []
        for start in range(0, num_rows(inputs), TEXTS_AT_ONCE):
            rows = slice(start, start + TEXTS_AT_ONCE)
            embeddings = embedded(self.model, inputs[rows], self.sparse[rows], self.config)
            k = min(SHORTLIST, self.model.index.num_labels)
            found.append(self.model.index.search(embeddings, k, num_threads=self.config.num_threads).labels)
        return np.concatenate(found)

    def index(self, ranker: SparseRanker | None, *, neighbours: bool, cooccurrence: bool) -> Index:
        """The dense model's index with what evidence is computed from, but without a fusion yet."""
        return self.model.index.with_evidence(
            num_features=self.sparse.shape[1],
            num_candidates=self.config.num_candidates,
            label_counts=self.model.label_counts,
            ranker=None if ranker is None else (ranker.weights, ranker.bias),
            neighbours=(self.sparse, self.labels) if neighbours else None,
            num_neighbours=self.config.num_neighbours,
            label_texts=self.label_texts,
            cooccurrence=label_cooccurrence(self.labels) if cooccurrence else None,
        )


def embedded(model: Model, inputs: Inputs, sparse: sp.csr_matrix, config: Config) -> npt.NDArray[np.float32]:
    """The inputs' embeddings, float32 [Q, D], whose sparse features [Q, F] are there already."""
    own = None if model.encoder.features is None else sparse
    return model.encoder.encode(inputs, config.num_threads, sparse=own)
