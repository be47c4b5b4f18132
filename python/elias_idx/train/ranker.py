"""The sparse ranker: a linear classifier of each label on the texts' sparse features.

N texts, F features, L labels, K labels of a shortlist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import _core
from elias_idx.train.core import core_csr, share_bar

# How exactly a label is solved: smaller values take longer and rank no better (docs/experiments.md).
TOLERANCE = 0.1
MAX_PASSES = 20


@dataclass(frozen=True)
class SparseRanker:
    """Margins of labels: `features @ weights.T + bias`.

    Attributes:
        weights: float32 CSR [L, F].
        bias: float32 [L].
    """

    weights: sp.csr_matrix
    bias: npt.NDArray[np.float32]


def train_ranker(
    features: sp.csr_matrix,
    labels: sp.csr_matrix,
    shortlists: npt.NDArray[np.int64],
    *,
    cost: float,
    weights_per_label: int,
    negative_cost: float | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> SparseRanker:
    """Trains a classifier for each label, on its texts and on those whose shortlist holds it without their having it.

    A label's weights w and bias b minimise ½ (‖w‖² + b²) + Σ c · max(0, 1 ∓ (w·x + b))², where c is the cost of a text.
    Only features of the label's own texts get weights. A label without texts has none, and the bias −1.

    Args:
        features: the texts' features, float32 CSR [N, F]; rows of unit length or zeros.
        labels: the texts' labels and their relevances, CSR [N, L].
        shortlists: labels that the texts might have [N, K], −1 for none.
        cost: c of a text that has the label, times its relevance.
        weights_per_label: weights that labels keep on average at most, the largest ones of all; a single label keeps
            up to 32 times as many.
        negative_cost: c of a text that does not have it; by default `cost`.
        seed: of the order in which texts are looked at.
        num_threads: CPU threads, on which the result does not depend; by default all that the process may use.

    Raises:
        ValueError: the arrays do not fit one another, or a setting is out of range.
    """
    if len(shortlists) != features.shape[0]:
        raise ValueError(f"shortlists must have {features.shape[0]} rows, one a text, got {len(shortlists)}")
    with share_bar("sparse ranker") as report:
        offsets, columns, weights, bias = _core.train_ranker(
            features=core_csr(features),
            labels=core_csr(labels),
            shortlists=np.ascontiguousarray(shortlists, np.int64),
            positive_cost=cost,
            negative_cost=cost if negative_cost is None else negative_cost,
            tolerance=TOLERANCE,
            max_passes=MAX_PASSES,
            weights_per_label=weights_per_label,
            seed=seed,
            num_threads=num_threads,
            report=report,
        )
    shape = (labels.shape[1], features.shape[1])
    return SparseRanker(sp.csr_matrix((weights, columns, offsets), shape), bias)
