"""What predicts the labels of texts and is evaluated on them: a model, or an ensemble of models.

N inputs, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx._arrays import as_count
from elias_idx.calibration import NUM_CANDIDATES, Calibration, ScoredPairs
from elias_idx.data import (
    Inputs,
    LabelVocabulary,
    TrainingSet,
    checked_matrix,
    is_sparse,
    labels_by_name,
    num_rows,
)
from elias_idx.errors import ConfigError, DataError
from elias_idx.metrics import (
    canonical,
    evaluate,
    evaluate_groups,
    inverse_propensities,
    without_entries,
    without_excluded,
)
from elias_idx.results import SearchResult

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11, for type checkers alone

    from elias_idx._core import LabelFilter
    from elias_idx.ensemble import Ensemble
    from elias_idx.ensemble_index import EnsembleFilter, EnsembleIndex
    from elias_idx.index import Index
    from elias_idx.model import Model

_TEXTS_AT_ONCE = 16384


class Prediction(NamedTuple):
    """The labels found for each input, best first, without padding.

    Attributes:
        names: label names, one list an input.
        scores: their scores, in the same order.
    """

    names: list[list[str]]
    scores: list[list[float]]


class Evaluation(NamedTuple):
    """How well a model predicts a test set.

    Attributes:
        metrics: "P@1" and so on, in percent; see `elias_idx.metrics.evaluate`.
        num_texts: how many texts were evaluated.
        num_without_labels: how many of them have no label, or none that isn't excluded. Where pairs were excluded,
            these count as zeros in P@k, nDCG@k and R@k; else they count in no metric.
        unseen_labels: labels of the test set that no training text had, which can't be predicted.
        groups: the same for "head", "torso" and "tail" labels; see `elias_idx.metrics.evaluate_groups`.
    """

    metrics: dict[str, float]
    num_texts: int
    num_without_labels: int
    unseen_labels: list[str]
    groups: dict[str, dict[str, float]]


class Predictor(ABC):
    """A `Model` or an `Ensemble` of models.

    Attributes:
        label_counts: in how many training texts each label occurs, int64 [L].
        num_training_texts: how many there were.
        calibration: what makes probabilities of its scores; None before `calibrate`.
    """

    label_counts: npt.NDArray[np.int64]
    num_training_texts: int
    calibration: Calibration | None

    @property
    @abstractmethod
    def takes_embeddings(self) -> bool:
        """Whether it takes embeddings instead of texts or features."""

    @property
    @abstractmethod
    def _index(self) -> Index | EnsembleIndex:
        """What knows the labels."""

    @abstractmethod
    def _queries(self, texts: Inputs, num_threads: int | None, fusion: bool) -> Any:
        """What the index is searched for: the texts' embeddings and, for the fusion where there is one, features."""

    @abstractmethod
    def _search_for(self, queries: Any, k: int, **options: Any) -> SearchResult:
        """The k best labels of each query of `_queries`; the options are those of `Index.search`."""

    def _search(self, texts: Inputs, k: int, *, num_threads: int | None, fusion: bool, **options: Any) -> SearchResult:
        """The k best labels of each text, by the fusion where there is one; the options are those of `Index.search`."""
        return self._search_for(self._queries(texts, num_threads, fusion), k, num_threads=num_threads, **options)

    def predict(
        self,
        texts: Inputs,
        k: int = 10,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        filter: Any = None,
        min_score: float | None = None,
        fusion: bool = True,
        calibrated: bool = False,
    ) -> Prediction:
        """The k best labels of each text.

        Args:
            texts: N texts; embeddings [N, D] or sparse features [N, F] for a model that takes those.
            k: labels a text; fewer come back where fewer are reachable.
            beam_size: as in `Index.search`.
            shortlist_size: as in `Index.search`.
            num_threads: as in `Index.search`.
            filter: as in `Index.search`; e.g. the names of the labels to choose from.
            min_score: as in `Index.search`; labels with a lower score are left out.
            fusion: whether scores are those of the fusion, in a model that has one; else they are the dense model's.
            calibrated: whether scores are given as probabilities, which `min_score` is then compared to; see
                `calibrate`.

        Raises:
            ConfigError: `calibrated` was asked for, but the model is not, or was for other scores.
            DataError: the texts are not what the model takes, or its index has no label names.
        """
        self._check_names()
        found = self._found(
            texts,
            # There is no padding here, so more labels than there are would only take memory.
            min(as_count("k", k), self._index.num_labels),
            beam_size=beam_size,
            shortlist_size=shortlist_size,
            num_threads=num_threads,
            filter=filter,
            min_score=min_score,
            fusion=fusion,
            calibrated=calibrated,
        )
        counts = (found.labels >= 0).sum(1)
        names = self._index.names(found.labels)
        return Prediction(
            [row[:count].tolist() for row, count in zip(names, counts, strict=True)],
            [row[:count].tolist() for row, count in zip(found.scores, counts, strict=True)],
        )

    def _found(
        self, texts: Inputs, k: int, *, calibrated: bool, min_score: float | None, fusion: bool, **options: Any
    ) -> SearchResult:
        """The k best labels of each text [N, k], with scores or probabilities; padded with −1 and 0."""
        if not calibrated:
            return self._search(texts, k, min_score=min_score, fusion=fusion, **options)
        calibration = self._calibration(fusion)
        labels, scores = self._search(texts, k, fusion=fusion, **options)
        probabilities = calibration(scores)
        given = (labels >= 0) & (probabilities >= (0 if min_score is None else min_score))
        return SearchResult(np.where(given, labels, -1), np.where(given, probabilities, 0).astype(np.float32))

    @property
    def has_calibration(self) -> bool:
        """Whether `predict(..., calibrated=True)` gives probabilities."""
        return self.calibration is not None

    def calibrate(self, data: TrainingSet, *, num_threads: int | None = None) -> Self:
        """Makes the same model with a calibration, which `save` keeps.

        It says how often labels of a score are right: isotonic regression on the 100 best labels of each text, with the
        fusion if the model has one. The order of labels stays.

        Args:
            data: N texts with their labels, like those to come; none that the model was trained on.
            num_threads: as in `Index.search`.

        Raises:
            DataError: the inputs are not what the model takes, or it knows none of their labels.
        """
        pairs = self.scored_pairs(data, num_threads=num_threads)
        return self.with_calibration(Calibration.fit(pairs.scores, pairs.relevances))

    def scored_pairs(self, data: TrainingSet, *, num_threads: int | None = None) -> ScoredPairs:
        """The 100 best labels of each text, with scores and relevances; arguments and errors are `calibrate`'s."""
        relevant, _ = self._vocabulary.renumber(data.labels, data.label_names)
        if not (relevant.indices < len(self._vocabulary)).any():
            raise DataError("there is nothing to calibrate by: the model knows none of these texts' labels")
        k, parts = min(NUM_CANDIDATES, self._index.num_labels), []
        for start in range(0, len(data), _TEXTS_AT_ONCE):
            inputs = data.inputs[start : start + _TEXTS_AT_ONCE]
            labels, scores = self._search(inputs, k, num_threads=num_threads, fusion=True)
            rows, ranks = np.nonzero(labels >= 0)
            found = np.asarray(relevant[rows + start, labels[rows, ranks]], np.float32).ravel()
            parts.append((rows + start, ranks, scores[rows, ranks], found))
        return ScoredPairs(*map(np.concatenate, zip(*parts, strict=True)))

    @abstractmethod
    def with_calibration(self, fitted: Calibration | None) -> Self:
        """A copy with another calibration, or without one."""

    @abstractmethod
    def with_defaults(
        self,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_candidates: int | None = None,
    ) -> Self:
        """Makes the same model with other sizes that it searches with unless told otherwise; see `Index.with_defaults`.

        An ensemble's members all get them, `num_candidates` those that have a fusion.
        """

    def _calibration(self, fusion: bool) -> Calibration:
        if self.calibration is None:
            raise ConfigError("this model has no calibration: make one with calibrate, or leave calibrated out")
        if not fusion and self._has_fusion:
            raise ConfigError("the calibration is that of the fusion's scores: leave out calibrated, or fusion=False")
        return self.calibration

    @property
    @abstractmethod
    def _has_fusion(self) -> bool:
        """Whether scores differ by `fusion`."""

    def evaluate(
        self,
        texts: Inputs,
        labels: Sequence[Sequence[str]] | sp.csr_matrix,
        *,
        label_names: Sequence[str] | None = None,
        excluded: sp.csr_matrix | None = None,
        ks: Sequence[int] = (1, 3, 5),
        recall_ks: Sequence[int] = (10, 100),
        propensity: tuple[float, float] = (0.55, 1.5),
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        fusion: bool = True,
    ) -> Evaluation:
        """Searches the texts' labels and compares them to the true ones.

        Args:
            texts: N texts, or what else the model takes.
            labels: the names of each text's true labels; or, with `label_names`, a CSR matrix [N, L'] whose entries are
                the true labels. Those unseen in training count in the denominators.
            label_names: of the matrix' columns.
            excluded: pairs of a text and a label that count neither as found nor as missed, the non-zeros of a sparse
                matrix of the same shape, such as XMC data sets have in `filter_labels_*.txt`. With it, texts without
                labels count as zeros, as with the repository's tools.
            ks: cut-offs of precision and nDCG.
            recall_ks: cut-offs of recall.
            propensity: a and b of the propensity model; see `elias_idx.metrics.inverse_propensities`.
            beam_size: as in `Index.search`.
            shortlist_size: as in `Index.search`.
            num_threads: as in `Index.search`.
            fusion: as in `predict`.

        Raises:
            DataError: labels, their names and texts don't fit, no text has a label that isn't excluded, or the model's
                index has no label names.
            ConfigError: there are no cut-offs, or a or b is not a positive number.
        """
        self._check_names()
        names: Sequence[str]
        if label_names is None:
            matrix, names = labels_by_name(labels)
        else:
            matrix, names = checked_matrix(labels, label_names), label_names
        if num_rows(texts) != matrix.shape[0]:
            raise DataError(f"there are {num_rows(texts)} texts, but labels for {matrix.shape[0]}")
        if not (cutoffs := (*ks, *recall_ks)):
            raise ConfigError("there is nothing to evaluate: ks and recall_ks are both empty")
        if excluded is not None:
            if label_names is None or excluded.shape != matrix.shape:
                raise DataError("excluded must be a matrix of the same shape as labels, which must be one too")
            excluded = canonical(excluded)
            matrix = without_entries(matrix, excluded)
            excluded, _ = self._vocabulary.renumber(excluded, names)
        if not matrix.nnz:
            raise DataError(
                "there is nothing to evaluate: no text has a label"
                + (" that isn't excluded" if excluded is not None else "")
            )
        relevant, unseen = self._vocabulary.renumber(matrix, names)
        counts = np.concatenate([self.label_counts, np.zeros(len(unseen), np.int64)])
        gains = inverse_propensities(counts, self.num_training_texts, *propensity)
        sizes = {"beam_size": beam_size, "shortlist_size": shortlist_size}
        search = {**sizes, "num_threads": num_threads, "fusion": fusion}
        found = self._search_counted(texts, max(cutoffs), excluded, search)
        how: dict[str, Any] = {"ks": ks, "recall_ks": recall_ks, "all_queries": excluded is not None}
        metrics = evaluate(found, relevant, inverse_propensity=gains, **how)
        groups = evaluate_groups(found, relevant, counts, **how)
        without_labels = int((np.diff(relevant.indptr) == 0).sum())
        return Evaluation(metrics, matrix.shape[0], without_labels, unseen, groups)

    @abstractmethod
    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Writes it to a folder, from which `Model.load` opens it."""

    def save_pretrained(
        self, path: str | PathLike[str], *, repo_id: str | None = None, overwrite: bool = False
    ) -> None:
        """Saves it with a model card, `README.md`: data, metrics, sizes, settings, and how it is used.

        Args:
            path: the folder, which `Model.from_pretrained` and `Model.load` open.
            repo_id: what the card calls it; by default the folder's name.
            overwrite: whether a model that is there may be replaced, with its card.

        Raises:
            FileExistsError: there is something at `path` and `overwrite` is False, or it is no model.
            OSError: the folder can't be written.
        """
        from elias_idx.hub import write_card

        self.save(path, overwrite)
        write_card(cast("Model | Ensemble", self), Path(path), repo_id or Path(path).resolve().name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
        create_pr: bool = False,
    ) -> str:
        """Uploads it with its model card to a repository of the Hugging Face Hub, which is made if there is none.

        A model that is there is replaced, in one commit. Needs the extra `elias_idx[hub]`.

        Args:
            repo_id: as in "someone/some-model".
            private: whether a new repository is private; by default as the account's settings say.
            token: with the right to write; by default the one that `hf auth login` has kept.
            revision: the branch, which must exist; by default the main one.
            commit_message: of the commit.
            create_pr: whether the model is proposed as a pull request.

        Returns:
            The commit's address.

        Raises:
            MissingExtraError: huggingface_hub is missing.
            OSError: the Hub refuses, or can't be reached.
        """
        from elias_idx.hub import upload

        with TemporaryDirectory(prefix="elias-idx-") as folder:
            saved = Path(folder, "model")
            self.save_pretrained(saved, repo_id=repo_id)
            return upload(
                saved, repo_id, private=private, token=token, revision=revision, commit_message=commit_message,
                create_pr=create_pr,
            )  # fmt: skip

    def label_filter(self, labels: Any) -> LabelFilter | EnsembleFilter:
        """Makes a filter of labels for `predict`, to be used as often as wanted; as `Index.label_filter`."""
        return self._index.label_filter(labels)

    def _search_counted(
        self, texts: Inputs, k: int, excluded: sp.csr_matrix | None, search: Mapping[str, Any]
    ) -> npt.NDArray[np.int64]:
        """The best labels of each text that aren't excluded, [N, min(k, L)]; some thousand texts at a time."""
        k = min(k, self._index.num_labels)
        if is_sparse(texts):
            texts = texts.tocsr()  # other formats have no slices
        parts = [np.empty((0, k), np.int64)]
        for start in range(0, num_rows(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            out = None if excluded is None else excluded[start : start + num_rows(part)]
            # Every excluded label may stand among the best.
            more = 0 if out is None else int(np.diff(out.indptr).max())
            labels = self._search(part, min(k + more, self._index.num_labels), **search).labels
            counted = labels if out is None else without_excluded(labels, out)
            padding = ((0, 0), (0, max(0, k - counted.shape[1])))
            parts.append(np.pad(counted[:, :k], padding, constant_values=-1))
        return np.concatenate(parts)

    @cached_property
    def _vocabulary(self) -> LabelVocabulary:
        return LabelVocabulary(self._check_names())

    def _check_names(self) -> Sequence[str]:
        """The label names, which an index need not have."""
        if self._index.label_names is None:
            raise DataError("this model's index has no label names, which predictions and evaluation need")
        return self._index.label_names


def check_inputs(texts: Inputs) -> None:
    """Raises a TypeError for a single text, which would pass for a sequence of its characters."""
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of strings; put a single text in a list")
