"""The fusion: a function from evidence to scores, fitted on held-out texts.

Texts that the parts were trained on can't teach it: on those the parts look better than they are. What it could use it
uses only where that pays: in cross-validation over the held-out texts, by more than chance explains.

Q held-out texts, L labels, P columns of evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import EVIDENCE, Evidence, FusionTrees
from elias_idx.errors import DataError
from elias_idx.files import load_tensors, save_tensors
from elias_idx.train.fusion_fit import PRECISIONS, RECALLS, Array, Pairs, Score, cross_validated, exported, fit_score

# What something must gain to be used, in standard errors of the gain.
CLEAR = 1.0

DENSE = "log_dense"
OF_RANKER = ("margin", "log_hinge", "margin_gap")
OF_NEIGHBOURS = ("vote_share", "log_votes", "nearest", "best_neighbour")
OF_COOCCURRENCE = ("log_cooccurrence",)
ALWAYS = tuple(name for name in EVIDENCE if name not in OF_RANKER + OF_NEIGHBOURS + OF_COOCCURRENCE)

# What is tried, in this order, and the columns that come with it.
_OPTIONS = {"ranker": OF_RANKER, "trees": (), "neighbours": OF_NEIGHBOURS, "co-occurrence": OF_COOCCURRENCE}


@dataclass(frozen=True)
class Step:
    """Something that a fusion may use, and what that gained in cross-validation.

    Attributes:
        name: what it is.
        metrics: P@k and R@k with it, in percent.
        gain: in the mean of these metrics, over what was best without it.
        standard_error: of the gain.
        used: whether the fusion uses it.
    """

    name: str
    metrics: dict[str, float]
    gain: float
    standard_error: float
    used: bool

    def __str__(self) -> str:
        figures = "  ".join(f"{name} {value:.2f}" for name, value in self.metrics.items())
        gain = f"  gain {self.gain:+.2f} ± {self.standard_error:.2f}" if self.standard_error else ""
        return f"{self.name:<14}{figures}{gain}{'' if self.used else ', left out'}"


@dataclass(frozen=True)
class Fusion:
    """What `Index.with_fusion` takes, which parts that needs, and how it was chosen.

    Attributes:
        linear: a weight for each column of evidence, float32 [P]; 0 for those of parts that it doesn't use.
        bias: what is added.
        trees: what is added to that, if they pay.
        uses_ranker: whether the sparse ranker pays.
        uses_neighbours: whether the neighbours pay, their votes and their labels as candidates.
        uses_cooccurrence: whether it pays to know which labels go together.
        steps: the cross-validated figures, first those of the dense model alone; none if there was nothing to learn.
    """

    linear: npt.NDArray[np.float32]
    bias: float
    trees: FusionTrees | None
    uses_ranker: bool
    uses_neighbours: bool
    uses_cooccurrence: bool
    steps: tuple[Step, ...]

    @property
    def report(self) -> dict[str, Any]:
        """The steps as plain values."""
        return {"fusion": [asdict(step) for step in self.steps]}

    def lines(self, judges: str) -> list[str]:
        """The steps as lines to print, below what they say of the texts that judged."""
        if not self.steps:
            return [f"{judges}: nothing to learn from, the dense model's ranking stays"]
        return [
            f"P@k and R@k of what was added one after the other, cross-validated on {judges}; gain: that of their mean "
            "over what was best before, ± its standard error; left out of the model: what gains less than that error",
            *map(str, self.steps),
        ]

    def save(self, path: Path) -> None:
        """Writes a file of tensors.

        Raises:
            OSError: it can't be written.
        """
        names = ("bias", "uses_ranker", "uses_neighbours", "uses_cooccurrence")
        rest = json.dumps({name: getattr(self, name) for name in names} | self.report)
        trees = {} if self.trees is None else self.trees._asdict()
        save_tensors(path, {"linear": self.linear, "rest": np.frombuffer(rest.encode(), np.uint8), **trees})

    @classmethod
    def load(cls, path: Path) -> Fusion:
        """Reads what `save` wrote.

        Raises:
            FormatError: the file is damaged.
            OSError: it can't be read.
        """
        tensors = load_tensors(path)
        rest = json.loads(tensors["rest"].tobytes())
        trees = FusionTrees(*(tensors[name] for name in FusionTrees._fields)) if "offsets" in tensors else None
        steps = tuple(Step(**step) for step in rest.pop("fusion"))
        return cls(tensors["linear"], trees=trees, steps=steps, **rest)


def fit_fusion(evidence: Evidence, labels: sp.csr_matrix, *, seed: int = 0) -> Fusion:
    """Fits a fusion to the evidence of held-out texts; its scores are probabilities.

    The linear part is a logistic regression. Trees, boosted from its scores on, are added where they pay.

    Args:
        evidence: of Q texts that the model, the ranker and the neighbours haven't seen.
        labels: their labels, CSR [Q, L]; columns beyond those of the index are of labels that it doesn't know.
        seed: of the folds, and of which candidates are learned from.

    Raises:
        DataError: there are labels of another number of texts.
    """
    if labels.shape[0] != len(evidence.offsets) - 1:
        raise DataError(f"there is evidence of {len(evidence.offsets) - 1} texts, but labels of {labels.shape[0]}")
    pairs = Pairs.of(evidence, labels, seed)
    if pairs.right.all() or not pairs.right.any():
        return _unfitted()
    best = _Trial.run("dense model", pairs, (DENSE,), neighbours=False)
    steps = [best.compared(best)]
    for name, columns in _OPTIONS.items():
        if columns and not evidence.values[:, _places(columns)].any():
            continue  # the index lacks this part
        columns, neighbours = (*best.columns, *ALWAYS, *columns), best.neighbours or name == "neighbours"
        # What to make of a label that only has votes, a line can't tell: neighbours have trees beside them.
        trial = _Trial.run(name, pairs, columns, neighbours, trees=name != "ranker")
        steps.append(trial.compared(best))
        if steps[-1].used:
            best = trial
    return best.fusion(pairs, tuple(steps))


@dataclass(frozen=True)
class _Trial:
    """A fusion of some columns, judged by cross-validation."""

    name: str
    columns: tuple[str, ...]
    neighbours: bool
    rounds: int
    metrics: Array

    @classmethod
    def run(cls, name: str, pairs: Pairs, columns: Iterable[str], neighbours: bool, *, trees: bool = False) -> _Trial:
        """Judges the fusion of these columns, in any order and repeated or not."""
        columns = tuple(sorted(set(columns), key=EVIDENCE.index))
        return cls(name, columns, neighbours, *cross_validated(pairs, _places(columns), neighbours, trees))

    def compared(self, best: _Trial) -> Step:
        """What this one gains over the best one before it; the first one, compared to itself, is used."""
        gains = (self.metrics - best.metrics).mean(1)
        gain, error = float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
        names = [f"P@{k}" for k in PRECISIONS] + [f"R@{k}" for k in RECALLS]
        metrics = dict(zip(names, self.metrics.mean(0).tolist(), strict=True))
        return Step(self.name, metrics, gain, error, self is best or gain > CLEAR * error)

    def fusion(self, pairs: Pairs, steps: tuple[Step, ...]) -> Fusion:
        """The same, fitted on all pairs."""
        score = fit_score(pairs, pairs.scored(self.neighbours), _places(self.columns), self.rounds)
        return Fusion(
            _spread(score),
            score.bias,
            exported(score),
            uses_ranker=not set(OF_RANKER).isdisjoint(self.columns),
            uses_neighbours=self.neighbours,
            uses_cooccurrence=not set(OF_COOCCURRENCE).isdisjoint(self.columns),
            steps=steps,
        )


def _places(columns: Iterable[str]) -> tuple[int, ...]:
    return tuple(EVIDENCE.index(name) for name in columns)


def _spread(score: Score) -> npt.NDArray[np.float32]:
    """The weights of the columns that are used among those of all."""
    linear = np.zeros(len(EVIDENCE), np.float32)
    linear[list(score.columns)] = score.weights
    return linear


def _unfitted() -> Fusion:
    """The dense model's ranking, for texts from which there is nothing to learn."""
    linear = (np.array(EVIDENCE) == DENSE).astype(np.float32)
    return Fusion(linear, 0.0, None, uses_ranker=False, uses_neighbours=False, uses_cooccurrence=False, steps=())
