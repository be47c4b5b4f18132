"""A scikit-learn classifier for up to millions of labels. N rows, L labels.

It trains a `Model`, which stays in the attribute `model_`. Needs the extra `elias_idx[sklearn]`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from elias_idx._arrays import as_count
from elias_idx._targets import label_names, labels_by_row, read_targets
from elias_idx.config import Config
from elias_idx.data import Inputs, TrainingSet, is_sparse, num_rows
from elias_idx.errors import ConfigError, DataError
from elias_idx.model import load_single
from elias_idx.results import SearchResult

__all__ = ["EliasClassifier", "TopLabels"]

_ROWS_AT_ONCE = 16384
# What the parameters are called by that stand for settings of `config`.
_SETTING = "config__"


class TopLabels(NamedTuple):
    """The best labels of each row, best first."""

    labels: npt.NDArray[np.object_]
    """Labels [N, k]; None where fewer than k are reachable."""
    scores: npt.NDArray[np.float32]
    """Their scores in [0, 1], [N, k]; 0 where there is no label."""


class EliasClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Classifies texts, sparse features or dense embeddings by many labels.

    Texts and sparse features are trained with the encoder `bag`, dense arrays with `precomputed`, unless `config` names
    another one.

    Args:
        preset: "full", or "fast" for the dense model alone; see `Config`.
        k: labels that are looked at for each row; all others have score 0 in `predict` and `predict_proba`.
        threshold: the least score of a label that `predict` gives, unless y has one label a row.
        random_state: of everything random.
        num_threads: CPU threads; by default all that the process may use.
        verbose: whether the steps of the training are printed to standard error.
        config: further settings of `Config`, by name. Each of them is a parameter too, `config__<name>`.

    Attributes:
        model_: the trained `Model`; `model_.save(folder)` keeps it.
        classes_: the labels [L], ascending; of an indicator, the numbers of its columns.
        n_features_in_: columns of X, unless it was texts.
    """

    def __init__(
        self,
        preset: str = "full",
        *,
        k: int = 100,
        threshold: float = 0.5,
        random_state: int | np.random.RandomState | None = 0,
        num_threads: int | None = None,
        verbose: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.preset = preset
        self.k = k
        self.threshold = threshold
        self.random_state = random_state
        self.num_threads = num_threads
        self.verbose = verbose
        self.config = config

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; with `deep` also `config__<name>` for each setting in `config`."""
        params: dict[str, Any] = super().get_params(deep=False)
        # Whatever else `config` may be set to is refused by `fit` alone, as scikit-learn has it.
        settings = self.config if deep and isinstance(self.config, Mapping) else {}
        return params | {_SETTING + name: value for name, value in settings.items()}

    def set_params(self, **params: Any) -> EliasClassifier:
        """Sets parameters; `config__<name>` sets one of `config`'s settings and keeps the others.

        Raises:
            ValueError: there is no such parameter or setting.
        """
        settings = {name: params.pop(name) for name in list(params) if name.startswith(_SETTING)}
        if unknown := sorted(settings.keys() - {_SETTING + item.name for item in fields(Config)}):
            raise ConfigError(f"there are no settings {', '.join(unknown)}: see elias_idx.config.Config")
        super().set_params(**params)
        if settings:
            # Another mapping, since this one may be the caller's, or a clone's.
            own = {name.removeprefix(_SETTING): value for name, value in settings.items()}
            self.config = {**(self.config or {}), **own}
        return self

    def fit(self, X: Any, y: Any) -> EliasClassifier:  # noqa: N803
        """Trains a model.

        The training works in a temporary folder, on disk; the model is in memory.

        Args:
            X: N texts, sparse features [N, F] or dense ones [N, D].
            y: a label for each row; or a list of labels for each, which may be anything hashable; or an indicator
                [N, L], dense or sparse.

        Raises:
            ValueError: X and y don't fit, can't be trained on, or the parameters don't fit them.
        """
        from elias_idx.train import train_model  # torch is for training alone

        kind, classes, matrix = read_targets(y)
        X = self._inputs(X, reset=True)  # noqa: N806
        names = label_names(classes)
        data = TrainingSet(X, matrix, label_names=names)
        say = partial(print, file=sys.stderr) if self.verbose else None
        with TemporaryDirectory(prefix="elias-idx-") as folder:
            path = Path(folder, "model")
            train_model(data, path, self._config(X), on_line=say)
            model = load_single(path)
            # The folder goes away.
            self.model_ = replace(model, index=model.index.in_memory(), path=None)
        self.classes_ = classes
        self._kind = kind
        columns = {name: column for column, name in enumerate(names)}
        self._columns = np.array([columns[name] for name in self.model_.index.label_names or ()])
        return self

    def predict_topk(self, X: Any, k: int = 10) -> TopLabels:  # noqa: N803
        """The k best labels of each row, at most L, and their scores.

        Raises:
            NotFittedError: there is no model yet.
            ValueError: X is not like that in `fit`.
        """
        columns, scores = self._search(X, k)
        labels = np.empty(columns.shape, object)
        found = columns >= 0
        labels[found] = _objects(self.classes_)[columns[found]]
        return TopLabels(labels, scores)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The labels of each row, in the form that y had in `fit`.

        That is the best label if y had one a row; else those of the `k` best whose score is at least `threshold`: as
        lists, best first, or as an indicator [N, L], dense or CSR. Errors are those of `predict_topk`.
        """
        if self._fitted_kind() == "single":
            # A row that reaches no label has the same probability for all of them.
            return self.classes_[np.maximum(self._search(X, 1).labels[:, 0], 0)]
        columns, scores = self._search(X, self.k, min_score=self.threshold)
        if self._kind == "lists":
            return [self.classes_[row[row >= 0]].tolist() for row in columns]
        indicator = self._scattered(columns, np.ones(scores.shape, np.int64))
        return indicator.toarray() if self._kind == "dense" else indicator

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """The scores of each row's `k` best labels, 0 for the others, [N, L].

        A CSR matrix, float32, if y was lists or a sparse indicator, or an array if it was a dense one. If y had one
        label a row, an array too, float64, and each row is scaled to sum to 1. Errors are those of `predict_topk`.
        """
        kind = self._fitted_kind()
        matrix = self._scattered(*self._search(X, self.k))
        if kind in ("lists", "sparse"):
            return matrix
        if kind == "dense":
            return matrix.toarray()
        array = matrix.toarray().astype(np.float64)
        array[~array.any(1)] = 1
        return array / array.sum(1, keepdims=True)

    def score(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> float:  # noqa: N803
        """Precision at 1: the share of rows whose best label is one of their own. Rows without labels don't count.

        With one label a row that is the accuracy, as scikit-learn has it.

        Args:
            X: N rows, as in `fit`.
            y: their labels, in any form that `fit` takes; an indicator must have L columns.
            sample_weight: a weight for each row, [N].

        Raises:
            ValueError: X and y don't fit, or no row has a label.
        """
        best = self.predict_topk(X, 1).labels[:, 0]
        rows = list(labels_by_row(y))
        if len(rows) != len(best):
            raise DataError(f"there are {len(best)} rows, but labels for {len(rows)}")
        weights = np.ones(len(rows)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        counted = weights * [len(row) > 0 for row in rows]
        if not counted.any():
            raise DataError("there is nothing to score: no row has a label")
        return float(np.average([label in row for label, row in zip(best, rows, strict=True)], weights=counted))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.string = True
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags

    def _config(self, X: Inputs) -> Config:  # noqa: N803
        random = self.random_state
        seed = random if isinstance(random, int) else int(check_random_state(random).randint(2**31 - 1))
        own = {"preset": self.preset, "seed": seed, "num_threads": self.num_threads}
        if not isinstance(settings := self.config or {}, Mapping):
            raise ConfigError(f"config must hold settings by name, got {settings!r}")
        if twice := sorted(own.keys() & settings.keys()):
            parameters = ", ".join("random_state" if name == "seed" else name for name in twice)
            raise ConfigError(f"config holds {', '.join(twice)}: give the parameter {parameters} instead")
        encoder = "precomputed" if isinstance(X, np.ndarray) else "bag"
        return Config.from_mapping({"encoder": encoder, **own, **settings})

    def _inputs(self, X: Any, *, reset: bool) -> Inputs:  # noqa: N803
        """X as a model takes it; `reset` says whether X sets the number of columns, or is held to it."""
        if _are_texts(X):
            return list(X)
        # Rows of 32-bit indices, which is what the features' code is made for.
        checked: Inputs = validate_data(
            self, X, reset=reset, accept_sparse="csr", accept_large_sparse=False, dtype=[np.float32, np.float64]
        )
        return sp.csr_matrix(checked) if is_sparse(checked) else checked

    def _search(self, X: Any, k: int, min_score: float | None = None) -> SearchResult:  # noqa: N803
        """The k best labels of each row, as columns of `classes_`; −1 where there are fewer."""
        check_is_fitted(self, "model_")
        inputs, model = self._inputs(X, reset=False), self.model_
        k = min(as_count("k", k), model.index.num_labels)
        labels, scores = [np.empty((0, k), np.int64)], [np.empty((0, k), np.float32)]
        for start in range(0, num_rows(inputs), _ROWS_AT_ONCE):
            embeddings, sparse = model.vectorise(inputs[start : start + _ROWS_AT_ONCE], self.num_threads)
            found = model.index.search(embeddings, k, sparse=sparse, num_threads=self.num_threads, min_score=min_score)
            labels.append(np.where(found.labels >= 0, self._columns[found.labels], -1))
            scores.append(found.scores)
        return SearchResult(np.concatenate(labels), np.concatenate(scores))

    def _fitted_kind(self) -> str:
        check_is_fitted(self, "model_")
        return self._kind

    def _scattered(self, columns: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> sp.csr_matrix:
        """A CSR matrix [N, L] of values [N, k] at columns [N, k], of which those that are −1 are left out."""
        found = columns >= 0
        indptr = np.concatenate([[0], found.sum(1).cumsum()])
        matrix = sp.csr_matrix((values[found], columns[found], indptr), (len(columns), len(self.classes_)))
        matrix.sort_indices()
        return matrix


def _are_texts(X: Any) -> bool:  # noqa: N803
    if isinstance(X, str):
        raise TypeError("X must be a sequence of strings: put a single text in a list")
    if not (isinstance(X, Sequence) or getattr(X, "ndim", 0) == 1) or is_sparse(X):
        return False
    return isinstance(next(iter(X), None), str)


def _objects(labels: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    """The labels as Python's own objects."""
    return labels.astype(object)
