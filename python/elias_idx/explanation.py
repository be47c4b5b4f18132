"""Why a model gives a label to a text: the way to it through the clusters, its classifier, and what the fusion adds up.

P columns of evidence, n candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elias_idx._fusion import EVIDENCE, FusionFunction, FusionTrees
from elias_idx.errors import DataError
from elias_idx.results import LabelExplanation

if TYPE_CHECKING:
    from elias_idx.model import Model


@dataclass(frozen=True)
class Term:
    """What one column of evidence adds to a fusion's logit.

    Attributes:
        name: of the column, one of `EVIDENCE`.
        value: the evidence.
        weight: its weight in the linear part.
    """

    name: str
    value: float
    weight: float

    @property
    def share(self) -> float:
        """What it adds."""
        return self.weight * self.value


@dataclass(frozen=True)
class FusedScore:
    """A fusion's score of a label, and what it is the sum of.

    Attributes:
        terms: the linear part, a term for each column of `EVIDENCE`.
        bias: what is added for every label.
        trees: the sum of the trees' leaves; they look at several columns at once, so that it has no parts.
    """

    terms: tuple[Term, ...]
    bias: float
    trees: float

    @property
    def logit(self) -> float:
        """The sum of all."""
        return sum(term.share for term in self.terms) + self.bias + self.trees

    @property
    def score(self) -> float:
        """σ of it: what `Model.predict` gives."""
        small = math.exp(-abs(self.logit))
        return (1 if self.logit > 0 else small) / (1 + small)


@dataclass(frozen=True)
class Explanation:
    """Why `Model.predict` gives a label to a text, or why not; see `Model.explain`.

    Attributes:
        dense: the dense model's part: all paths through clusters, the classifier, and what search does with them.
        fused: the fusion's part; None for a model without fusion, and for a label that is none of its candidates.
        has_fusion: whether the model has a fusion.
    """

    dense: LabelExplanation
    fused: FusedScore | None
    has_fusion: bool

    @property
    def label(self) -> int:
        """The label's id."""
        return self.dense.label

    @property
    def name(self) -> str | None:
        """Its name, if the index has names."""
        return self.dense.name

    @property
    def score(self) -> float:
        """The score that it is returned with; 0 for one that isn't returned however many labels are asked for."""
        if self.has_fusion:
            return 0.0 if self.fused is None else self.fused.score
        return self.dense.score if self.dense.in_shortlist else 0.0

    def __str__(self) -> str:
        if not self.has_fusion:
            return str(self.dense)
        if self.fused is None:
            return f"{self.dense}; none of the fusion's candidates"
        return f"{self.dense}; fused score {self.score:.4g}"


def explain(
    model: Model, text: Any, labels: Any, beam_size: int | None, shortlist_size: int | None
) -> tuple[Explanation, ...]:
    """`Model.explain`."""
    embeddings, sparse = model.vectorise([text] if isinstance(text, str) else text)
    if len(embeddings) != 1:
        raise DataError(f"explain takes one text, got {len(embeddings)}")
    sizes = {"beam_size": beam_size, "shortlist_size": shortlist_size}
    dense = model.index.explain(embeddings, labels, **sizes)
    function = model.index.fusion
    if function is None or sparse is None:
        return tuple(Explanation(each, None, has_fusion=False) for each in dense)
    found = model.index.evidence(embeddings, sparse, **sizes)
    rows = {int(label): row for row, label in enumerate(found.labels)}
    return tuple(
        Explanation(
            each, _fused(function, found.values[rows[each.label]]) if each.label in rows else None, has_fusion=True
        )
        for each in dense
    )


def _fused(function: FusionFunction, evidence: npt.NDArray[np.float32]) -> FusedScore:
    terms = zip(EVIDENCE, evidence.tolist(), function.linear.tolist(), strict=True)
    trees = 0.0 if function.trees is None else _sum_of_leaves(function.trees, evidence)
    return FusedScore(tuple(Term(*term) for term in terms), function.bias, trees)


def _sum_of_leaves(trees: FusionTrees, evidence: npt.NDArray[np.float32]) -> float:
    """The sum of the leaves that a candidate's evidence [P] leads to."""
    nodes = trees.offsets[:-1]
    while (columns := trees.columns[nodes]).max(initial=-1) >= 0:
        goes_right = evidence[columns] > trees.thresholds[nodes]
        nodes = np.where(columns >= 0, trees.children[nodes, goes_right.astype(np.intp)], nodes)
    return float(trees.values[nodes].sum(dtype=np.float64))
