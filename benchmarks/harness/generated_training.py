"""Training sets that are made up, with the shapes of real ones and something to learn.

N texts, L labels, C clusters of labels, F features, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .data import FloatArray, IntArray

_LABEL_FEATURES = 6
_CLUSTER_FEATURES = 40
_EMBEDDING_NORM = 8.0


@dataclass(frozen=True)
class TrainingShape:
    """Sizes of a training set.

    Attributes:
        num_labels: L.
        num_clusters: C; the labels of a cluster resemble each other.
        num_texts: N.
        labels_per_text: of each text, at most.
        num_features: F; 0 for dense embeddings instead of features.
        features_per_text: of each text, about.
        dim: D of dense embeddings.
    """

    num_labels: int
    num_clusters: int
    num_texts: int
    labels_per_text: int
    num_features: int
    features_per_text: int
    dim: int


class GeneratedTrainingSet:
    """Labels, their clusters, and texts as features or embeddings.

    Attributes:
        clusters: the labels of each cluster.
        labels: CSR [N, L] of ones.
        inputs: CSR [N, F] of rows of length 1, or float32 [N, D].
    """

    def __init__(self, shape: TrainingShape, seed: int) -> None:
        self._shape, self._random = shape, np.random.default_rng(seed)
        self.clusters: list[IntArray] = np.array_split(self._random.permutation(shape.num_labels), shape.num_clusters)
        self._cluster_of = np.empty(shape.num_labels, np.int64)
        for cluster, labels in enumerate(self.clusters):
            self._cluster_of[labels] = cluster
        self.labels = self._draw_labels()
        self.inputs = self._sparse_inputs() if shape.num_features else self._dense_inputs()

    def _draw_labels(self) -> sp.csr_matrix:
        """A text's labels: one of any cluster, the others of the same or the next clusters."""
        shape, random = self._shape, self._random
        first = random.integers(shape.num_labels, size=shape.num_texts)
        own = np.minimum(random.geometric(0.6, shape.num_texts), shape.labels_per_text)
        rows = np.repeat(np.arange(shape.num_texts), own)
        offsets = (random.random(len(rows)) < 0.3) * random.integers(1, 4, len(rows))
        clusters = (self._cluster_of[first[rows]] + offsets) % shape.num_clusters
        sizes = np.array([len(labels) for labels in self.clusters])
        starts = np.concatenate([[0], sizes.cumsum()[:-1]])
        flat = np.concatenate(self.clusters)
        columns = flat[starts[clusters] + (random.random(len(rows)) * sizes[clusters]).astype(np.int64)]
        ones = np.ones(len(rows), np.float32)
        labels = sp.csr_matrix((ones, (rows, columns)), (shape.num_texts, shape.num_labels))
        labels.data[:] = 1
        return labels

    def _sparse_inputs(self) -> sp.csr_matrix:
        """Features of the labels and of their clusters, and others as frequent as words are."""
        shape, random = self._shape, self._random
        entries = self.labels.tocoo()
        of_label = random.integers(shape.num_features, size=(shape.num_labels, _LABEL_FEATURES))
        of_cluster = random.integers(shape.num_features, size=(shape.num_clusters, _CLUSTER_FEATURES))
        clusters = self._cluster_of[entries.col]
        picked = random.integers(_CLUSTER_FEATURES, size=(len(clusters), _CLUSTER_FEATURES // 2))
        num_others = shape.features_per_text // 2 * shape.num_texts
        others = (shape.num_features ** random.random(num_others)).astype(np.int64) % shape.num_features
        rows = np.concatenate([
            np.repeat(entries.row, _LABEL_FEATURES),
            np.repeat(entries.row, picked.shape[1]),
            np.repeat(np.arange(shape.num_texts), shape.features_per_text // 2),
        ])  # fmt: skip
        columns = np.concatenate([of_label[entries.col].ravel(), of_cluster[clusters[:, None], picked].ravel(), others])
        values = 0.5 + random.random(len(rows), dtype=np.float32)
        features = sp.csr_matrix((values, (rows, columns)), (shape.num_texts, shape.num_features), np.float32)
        norms = np.sqrt(np.asarray(features.multiply(features).sum(1)).ravel())
        return sp.csr_matrix(sp.diags(1 / norms) @ features, dtype=np.float32)

    def _dense_inputs(self) -> FloatArray:
        shape, random = self._shape, self._random
        centres = random.standard_normal((shape.num_clusters, shape.dim), np.float32)
        labels = centres[self._cluster_of] + random.standard_normal((shape.num_labels, shape.dim), np.float32)
        embeddings = self.labels @ labels + random.standard_normal((shape.num_texts, shape.dim), np.float32)
        found: npt.NDArray[np.float32] = embeddings * (_EMBEDDING_NORM / np.linalg.norm(embeddings, axis=1))[:, None]
        return found
