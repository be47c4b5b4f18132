"""Labels that join a trained model: where they belong, and what tells them apart, from a few texts that have them.

The encoder, the clusters and all that is known of other labels stay as they are, and so does the fusion.

n new labels, T texts: the examples, and then others that have none of these labels. C clusters, L labels of the model,
D dimensions, D' of label classifiers, F sparse features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx._change import NewEvidence
from elias_idx.config import Config
from elias_idx.data import Inputs, is_sparse, num_rows, same_inputs
from elias_idx.errors import DataError
from elias_idx.index import Index
from elias_idx.model import Model
from elias_idx.train.cooccurrence import label_cooccurrence
from elias_idx.train.parts import SHORTLIST
from elias_idx.train.ranker import train_ranker

# The best clusters of an example, which lead to its labels.
BEAM_SIZE = 10
# An edge weighs as much as its cluster's mean score of the label's examples, if that is this share of the largest.
MIN_SHARE = 0.1
# Texts without a label that its classifier learns to tell from its own: those that are most like these.
NEGATIVES = 100
# What a squared weight of a classifier costs, beside the losses of its texts.
RIDGE = 0.3
STEPS = 100

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NewTexts:
    """The texts that new labels are placed by.

    Attributes:
        embeddings: float32 [T, D].
        sparse: their features, CSR [T, F]; None for a model that has no fusion.
        labels: which new labels each has, float32 CSR [T, n].
        num_examples: of the texts, the first ones, which have labels.
    """

    embeddings: Array
    sparse: sp.csr_matrix | None
    labels: sp.csr_matrix
    num_examples: int

    @classmethod
    def of(
        cls, model: Model, texts_by_label: Mapping[str, Inputs], other_texts: Inputs | None, num_threads: int | None
    ) -> NewTexts:
        """Encodes the texts; one that several labels have counts once."""
        parts = [*texts_by_label.values(), *([] if other_texts is None else [other_texts])]
        inputs = _stacked(parts)
        columns = np.repeat(np.arange(len(parts)), [num_rows(part) for part in parts])
        # Numbered in the order of their first uses: other texts come last, but for those that are examples, too.
        numbers = same_inputs(inputs)
        _, firsts = np.unique(numbers, return_index=True)
        inputs = _rows_of(inputs, firsts)
        is_example = columns < len(texts_by_label)
        places = numbers[is_example], columns[is_example]
        labels = sp.csr_matrix((np.ones(is_example.sum(), np.float32), places), (len(firsts), len(texts_by_label)))
        labels.data[:] = 1  # of a text that stands twice under a label
        embeddings, sparse = model.vectorise(inputs, num_threads)
        return cls(embeddings, sparse, labels, int(places[0].max()) + 1)


def with_new_labels(
    model: Model,
    texts_by_label: Mapping[str, Inputs],
    other_texts: Inputs | None,
    label_texts: Mapping[str, str],
    num_threads: int | None,
) -> Model:
    """The model with more labels; see `Model.add_labels`."""
    if model.index.has_fusion and model.features is None:
        raise DataError("the model's index has a fusion, but there are no features that it could be given")
    names = _checked_names(model, texts_by_label, other_texts, label_texts)
    texts = NewTexts.of(model, texts_by_label, other_texts, num_threads)
    counts = np.bincount(texts.labels.indices, minlength=len(names))
    weights, bias = classifiers(model.index, texts)
    dense = weights, bias, edges(model.index, texts, num_threads)
    index = model.index.add_labels(*dense, names)
    if model.index.has_fusion:
        # The dense model alone says which texts might have the new labels: those that the ranker learns from.
        own = None
        if model.index.has_label_texts and model.features is not None:
            own = model.features.transform([label_texts.get(name, "") for name in names], num_threads)
        index = model.index.add_labels(*dense, names, evidence=evidence(model, index, texts, counts, own, num_threads))
    clusters = model.initial_clusters
    if clusters is not None:
        clusters = np.concatenate([clusters, np.full(len(names), -1, np.int32)])
    return replace(
        model,
        index=index,
        initial_clusters=clusters,
        label_counts=np.concatenate([model.label_counts, counts]),
        num_training_texts=model.num_training_texts + texts.num_examples,
        path=None,
    )


def edges(index: Index, texts: NewTexts, num_threads: int | None) -> sp.csr_matrix:
    """The clusters that lead to the new labels, CSR [C, n]: those that their examples reach."""
    beam = index.beam(texts.embeddings[: texts.num_examples], beam_size=BEAM_SIZE, num_threads=num_threads)
    offsets = np.arange(len(beam.clusters) + 1) * beam.clusters.shape[1]
    shape = (len(beam.clusters), index.num_clusters)
    scores = sp.csr_matrix((beam.scores.ravel(), beam.clusters.ravel(), offsets), shape)
    labels = texts.labels[: texts.num_examples]
    shares = (labels.T @ scores).multiply(1 / labels.sum(0).T).tocsr()  # [n, C]
    largest = shares.max(1).toarray().ravel()
    shares.data[shares.data < MIN_SHARE * np.repeat(largest, np.diff(shares.indptr))] = 0
    shares.eliminate_zeros()
    np.minimum(shares.data, 1, out=shares.data)
    weights = shares.T.tocsr()
    weights.sort_indices()
    return weights.astype(np.float32)


def classifiers(index: Index, texts: NewTexts) -> tuple[Array, Array]:
    """The new labels' classifiers [n, D'] and their biases [n]: logistic regression.

    A label's texts are told from those without it that are most like them. The bias is that of the labels there are.
    """
    projection = index.label_projection
    points = texts.embeddings if projection is None else texts.embeddings @ projection.T
    bias = float(np.median(index.label_bias))
    by_label = texts.labels.T.tocsr()
    weights = np.empty((by_label.shape[0], points.shape[1]), np.float32)
    for label in range(len(weights)):
        own = by_label.indices[by_label.indptr[label] : by_label.indptr[label + 1]]
        likeness = points @ points[own].mean(0)
        likeness[own] = -np.inf
        count = min(NEGATIVES, len(points) - len(own))
        others = np.argpartition(-likeness, count)[:count]
        weights[label] = _fitted(points[own], points[others], bias)
    return weights, np.full(len(weights), bias, np.float32)


def _fitted(positives: Array, negatives: Array, bias: float) -> Array:
    """The weights of a logistic regression with a given bias.

    Minimises ½ RIDGE ‖w‖² + Σ log(1 + exp(∓(w·x + b))) by steps that are safe since the loss's curvature is a quarter
    at most; so one inverse does for all of them, that of the smaller side of the rows.
    """
    rows = np.concatenate([positives, negatives]).astype(np.float64)
    truth = np.arange(len(rows)) < len(positives)
    if len(rows) <= rows.shape[1]:
        step = rows.T @ np.linalg.inv(rows @ rows.T + 4 * RIDGE * np.eye(len(rows)))
    else:
        step = np.linalg.solve(rows.T @ rows + 4 * RIDGE * np.eye(rows.shape[1]), rows.T)
    weights = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        logits = rows @ weights
        weights = step @ (logits + 4 * (truth - _sigmoid(logits + bias)))
    return weights.astype(np.float32)


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * values))


def evidence(
    model: Model,
    index: Index,
    texts: NewTexts,
    counts: npt.NDArray[np.int64],
    label_texts: sp.csr_matrix | None,
    num_threads: int | None,
) -> NewEvidence:
    """What the model's fusion looks at of the new labels, which `index` has in its dense part."""
    num_old, num_labels, sparse = model.index.num_labels, index.num_labels, texts.sparse
    assert sparse is not None
    ranker = None
    if index.has_ranker:
        new = np.arange(num_old, num_labels)
        k = min(SHORTLIST, len(new))
        found = index.search(texts.embeddings, k, filter=new, num_threads=num_threads).labels
        trained = train_ranker(
            sparse,
            texts.labels,
            np.where(found < 0, -1, found - num_old),
            cost=model.settings.get("ranker_cost", Config.ranker_cost),
            weights_per_label=model.settings.get("ranker_weights", Config.ranker_weights),
            num_threads=num_threads,
        )
        ranker = trained.weights, trained.bias
    examples = slice(texts.num_examples)
    labels = _shifted(texts.labels[examples], num_old)
    return NewEvidence(
        label_counts=counts,
        ranker=ranker,
        label_texts=label_texts,
        cooccurrence=label_cooccurrence(labels) if index.has_cooccurrence else None,
        neighbours=(sparse[examples], labels) if index.has_neighbours else None,
    )


def _shifted(labels: sp.csr_matrix, num_old: int) -> sp.csr_matrix:
    """Labels of new ones, CSR [T, n], as labels of all, CSR [T, L + n]."""
    shape = (labels.shape[0], num_old + labels.shape[1])
    return sp.csr_matrix((labels.data, labels.indices + num_old, labels.indptr), shape)


def _checked_names(
    model: Model, texts_by_label: Mapping[str, Inputs], other_texts: Inputs | None, label_texts: Mapping[str, str]
) -> list[str]:
    if not texts_by_label:
        raise DataError("there are no labels to add")
    known = set(model._check_names())
    for name, texts in texts_by_label.items():
        if not isinstance(name, str):
            raise DataError(f"labels must be strings, got {name!r}")
        if name in known:
            raise DataError(f"the model has the label {name!r}: remove it first, or train again")
        _check_rows(f"label {name!r}", texts)
        if not num_rows(texts):
            raise DataError(f"label {name!r} has no texts: it needs one at least")
    if other_texts is not None:
        _check_rows("other_texts", other_texts)
    if unknown := label_texts.keys() - texts_by_label.keys():
        raise DataError(f"label_texts has {min(unknown)!r}, which is none of the labels to add")
    return list(texts_by_label)


def _check_rows(name: str, inputs: Inputs) -> None:
    if isinstance(inputs, str):
        raise DataError(f"{name}: put a single text in a list")
    if not (is_sparse(inputs) or isinstance(inputs, (Sequence, np.ndarray))):
        raise DataError(f"{name} must be a list of texts, or an array, got {type(inputs).__name__}")


def _stacked(parts: Sequence[Any]) -> Inputs:
    """Inputs one after the other."""
    kinds = {_kind(part) for part in parts}
    if len(kinds) > 1:
        raise DataError(f"examples and other texts must all be of one kind, got {' and '.join(sorted(kinds))}")
    if kinds == {"features"}:
        return sp.vstack([part.tocsr().sorted_indices() for part in parts], format="csr")
    return np.concatenate(parts) if kinds == {"embeddings"} else [text for part in parts for text in part]


def _kind(inputs: Inputs) -> str:
    return "features" if is_sparse(inputs) else "embeddings" if isinstance(inputs, np.ndarray) else "texts"


def _rows_of(inputs: Any, rows: npt.NDArray[np.int64]) -> Inputs:
    return [inputs[row] for row in rows] if isinstance(inputs, list) else inputs[rows]
