"""From scores to probabilities: a monotone map that is fitted on labelled texts.

P pairs of a text and one of its best labels, M points of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from elias_idx.errors import DataError, FormatError
from elias_idx.files import load_tensors, save_tensors

FILE = "calibration.safetensors"
# What scores are taken of for each text: a label beyond these is hardly ever predicted.
NUM_CANDIDATES = 100
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Calibration:
    """A map of scores to probabilities, linear between its points and constant outside.

    Attributes:
        scores: ascending, float32 [M].
        probabilities: those of the scores, never descending, in [0, 1], float32 [M].
    """

    scores: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, scores: npt.NDArray[np.float32], relevances: npt.NDArray[np.float32]) -> Calibration:
        """Isotonic regression: of all monotone maps that with the least squared error.

        Args:
            scores: of P ≥ 1 pairs, [P].
            relevances: how relevant the label is to the text, in [0, 1], [P].
        """
        from sklearn.isotonic import IsotonicRegression  # is slow to import, and needed for fitting alone

        fitted = IsotonicRegression(y_min=0, y_max=1).fit(scores, relevances)
        return cls(fitted.X_thresholds_.astype(np.float32), fitted.y_thresholds_.astype(np.float32))

    def __call__(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Probabilities of scores of any shape, float32."""
        return np.interp(scores, self.scores, self.probabilities).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Writes `calibration.safetensors`."""
        save_tensors(folder / FILE, {"scores": self.scores, "probabilities": self.probabilities})

    @classmethod
    def load(cls, folder: Path) -> Calibration | None:
        """Reads what `save` wrote; None if there is no such file.

        Raises:
            FormatError: it is damaged.
        """
        if not (folder / FILE).exists():
            return None
        stored = load_tensors(folder / FILE)
        if stored.keys() != {"scores", "probabilities"} or not _is_map(**stored):
            raise FormatError(f"{folder / FILE} holds no map of scores to probabilities")
        return cls(**stored)


def _is_map(scores: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32]) -> bool:
    if scores.dtype != np.float32 or probabilities.dtype != np.float32 or scores.ndim != 1 or not len(scores):
        return False
    if scores.shape != probabilities.shape or not np.isfinite(scores).all():
        return False
    # Not a number is in no range.
    in_range = ((probabilities >= 0) & (probabilities <= 1)).all()
    return bool(in_range and (np.diff(scores) >= 0).all() and (np.diff(probabilities) >= 0).all())


class ScoredPairs(NamedTuple):
    """Pairs of a text and one of its best labels, all [P]."""

    texts: npt.NDArray[np.int64]
    """The numbers of the texts."""
    ranks: npt.NDArray[np.int64]
    """The places of the labels among those of their text, from 0."""
    scores: npt.NDArray[np.float32]
    """The labels' scores."""
    relevances: npt.NDArray[np.float32]
    """How relevant the labels are to the texts, 0 for those that aren't their labels."""

    def where(self, chosen: npt.NDArray[np.bool_]) -> ScoredPairs:
        """Some of the pairs."""
        return ScoredPairs._make(part[chosen] for part in self)


class Reliability(NamedTuple):
    """What probabilities are worth: pairs in bins of equal width, without empty ones."""

    counts: npt.NDArray[np.int64]
    """Pairs in each bin."""
    probabilities: npt.NDArray[np.float64]
    """The mean of their probabilities."""
    relevances: npt.NDArray[np.float64]
    """The mean of their relevances: what the probabilities should be."""

    @property
    def error(self) -> float:
        """The expected calibration error: how far the means are apart, on average over the pairs."""
        return float(np.average(np.abs(self.probabilities - self.relevances), weights=self.counts))


def reliability(
    probabilities: npt.NDArray[np.float32], relevances: npt.NDArray[np.float32], num_bins: int = 20
) -> Reliability:
    """Compares probabilities, or scores, of P ≥ 1 pairs in [0, 1] to what is relevant, bin by bin."""
    bins = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins)
    used = np.flatnonzero(counts)
    means = (np.bincount(bins, weights=values)[used] / counts[used] for values in (probabilities, relevances))
    return Reliability(counts[used], *means)


def cross_calibrated(pairs: ScoredPairs) -> npt.NDArray[np.float32]:
    """The pairs' probabilities [P], each by a calibration that was fitted on other texts, as for texts to come.

    Raises:
        DataError: there are pairs of one text alone.
    """
    if len(np.unique(pairs.texts)) < 2:
        raise DataError("a calibration can't be judged by a single text: give more")
    _, numbers = np.unique(pairs.texts, return_inverse=True)
    probabilities = np.empty_like(pairs.scores)
    for fold in range(_FOLDS):
        held_out = numbers % _FOLDS == fold
        fitted = Calibration.fit(pairs.scores[~held_out], pairs.relevances[~held_out])
        probabilities[held_out] = fitted(pairs.scores[held_out])
    return probabilities
