"""The training loss of ELIAS (section 3.3 of the paper), in log space. E pairs of a query and a shortlisted label."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_SCORE = 1e-30
_LARGEST_BELOW_1 = 1 - 2**-24


def shortlist_loss(path_scores: Tensor, logits: Tensor, relevance: Tensor) -> Tensor:
    """Binary cross entropy of p = s · sigmoid(z) against the relevance, summed over the pairs.

    With p = s / (1 + e^−z), log(1 − p) is log1p((1 − s) e^z) − softplus(z), which is accurate for z ≤ 0, and
    log(1 − s + e^−z) − softplus(−z), which is for z > 0. No gradient reaches an s of 1, since min(1, ·) stops it.

    Args:
        path_scores: s in [0, 1], [E].
        logits: z of the label classifiers, [E].
        relevance: of the label for the query, in [0, 1]; [E].
    """
    log_p = path_scores.clamp_min(_SMALLEST_SCORE).log() + F.logsigmoid(logits)
    # `where` and not `clamp`, whose gradient at the bound itself is 0.
    not_positive = torch.where(logits > 0, 0.0, logits)
    where_negative = torch.log1p((1 - path_scores) * not_positive.exp()) - F.softplus(logits)
    rest = torch.log1p(-path_scores.clamp_max(_LARGEST_BELOW_1))
    tail = torch.where(path_scores < 1, torch.logaddexp(rest, -logits), -logits)
    where_positive = tail - F.softplus(-logits)
    log_not_p = torch.where(logits > 0, where_positive, where_negative)
    return -(relevance * log_p + (1 - relevance) * log_not_p).sum()


def path_loss(path_scores: Tensor) -> Tensor:
    """Binary cross entropy of the path scores s of relevant labels against 1, summed; [P] → scalar."""
    return -path_scores.clamp_min(_SMALLEST_SCORE).log().sum()
