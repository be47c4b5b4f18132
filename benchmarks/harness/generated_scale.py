"""Training sets of millions of labels, made up block by block: labels in topics, frequencies by a power law.

N texts, L labels, T topics, F features, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .data import FloatArray

_BLOCK = 65_536
_EMBEDDING_NORM = 8.0
# Words of a topic, and how much more they weigh than common ones.
_TOPIC_FEATURES = 200
_TOPIC_WEIGHT = 3.0


@dataclass(frozen=True)
class ScaleShape:
    """Sizes of a training set.

    Attributes:
        num_labels: L.
        num_texts: N.
        labels_per_text: about; each label has one text at least.
        num_topics: T.
        num_features: F.
        features_per_text: of each text.
        dim: D of dense embeddings.
    """

    num_labels: int
    num_texts: int
    labels_per_text: int
    num_topics: int
    num_features: int
    features_per_text: int
    dim: int


def make_labels(shape: ScaleShape, random: np.random.Generator) -> sp.csr_matrix:
    """CSR [N, L] of ones: text n's labels are of its topic, few ones often; consecutive labels share a topic."""
    num_drawn = max(1, shape.labels_per_text - shape.num_labels // shape.num_texts)
    drawn = np.empty((shape.num_texts, num_drawn), np.int32)
    for start in range(0, shape.num_texts, _BLOCK):
        part = drawn[start : start + _BLOCK]
        topics = _topics(shape, start, len(part))[:, None]
        ranks = random.random(part.shape, np.float32) ** 3 * (shape.num_labels // shape.num_topics)
        part[:] = topics * (shape.num_labels // shape.num_topics) + ranks.astype(np.int64)
    labels = np.arange(shape.num_labels)
    columns = np.concatenate([drawn.ravel(), labels.astype(np.int32)])
    rows = np.concatenate([
        np.repeat(np.arange(shape.num_texts, dtype=np.int32), num_drawn),
        (labels * shape.num_texts // shape.num_labels).astype(np.int32),
    ])  # fmt: skip
    matrix = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (shape.num_texts, shape.num_labels))
    matrix.data[:] = 1
    return matrix


def make_features(shape: ScaleShape, random: np.random.Generator) -> sp.csr_matrix:
    """CSR [N, F]: words of the text's topic, and others as frequent as words are."""
    num_own = shape.features_per_text // 2
    columns = np.empty((shape.num_texts, shape.features_per_text), np.int32)
    values = np.empty(columns.shape, np.float32)
    for start in range(0, shape.num_texts, _BLOCK):
        part = columns[start : start + _BLOCK]
        ranks = random.random((len(part), num_own), np.float32) ** 2 * _TOPIC_FEATURES
        own = _topics(shape, start, len(part))[:, None] * 7919 + ranks.astype(np.int64) * 104_729
        part[:, :num_own] = own % shape.num_features
        common = shape.num_features ** random.random((len(part), shape.features_per_text - num_own))
        part[:, num_own:] = np.minimum(common, shape.num_features - 1)
        values[start : start + _BLOCK] = random.random(part.shape, np.float32)
        values[start : start + _BLOCK, :num_own] *= _TOPIC_WEIGHT
    indptr = np.arange(shape.num_texts + 1, dtype=np.int64) * shape.features_per_text
    return sp.csr_matrix((values.ravel(), columns.ravel(), indptr), (shape.num_texts, shape.num_features))


def make_embeddings(shape: ScaleShape, random: np.random.Generator) -> FloatArray:
    """float32 [N, D]: the topic's centre and noise."""
    centres = random.standard_normal((shape.num_topics, shape.dim), np.float32)
    embeddings = random.standard_normal((shape.num_texts, shape.dim), np.float32)
    for start in range(0, shape.num_texts, _BLOCK):
        part = embeddings[start : start + _BLOCK]
        part += centres[_topics(shape, start, len(part))]
        part *= _EMBEDDING_NORM / np.linalg.norm(part, axis=1)[:, None]
    return embeddings


def _topics(shape: ScaleShape, start: int, count: int) -> np.ndarray:
    """The topics of consecutive texts, all topics in turn over the whole set."""
    return np.arange(start, start + count) * shape.num_topics // shape.num_texts
