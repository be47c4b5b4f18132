"""The training loss of ELIAS (section 3.3 of the paper), in log space. E pairs of a query and a shortlisted label."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# exp of a larger logit would overflow once multiplied by 1 − s; the loss is linear in z long before.
_MAX_LOGIT = 30.0
_SMALLEST_SCORE = 1e-30


def shortlist_loss(path_scores: Tensor, logits: Tensor, relevant: Tensor) -> Tensor:
    """Binary cross entropy of p = s · sigmoid(z) against the relevance, summed over the pairs.

    log(1 − p) = log1p((1 − s) e^z) − softplus(z), which needs no 1 − p.

    Args:
        path_scores: s in [0, 1], [E].
        logits: z of the label classifiers, [E].
        relevant: whether the label is one of the query's, bool [E].
    """
    log_p = path_scores.clamp_min(_SMALLEST_SCORE).log() + F.logsigmoid(logits)
    log_not_p = torch.log1p((1 - path_scores) * logits.clamp_max(_MAX_LOGIT).exp()) - F.softplus(logits)
    return -torch.where(relevant, log_p, log_not_p).sum()


def path_loss(path_scores: Tensor) -> Tensor:
    """Binary cross entropy of the path scores s of relevant labels against 1, summed; [P] → scalar."""
    return -path_scores.clamp_min(_SMALLEST_SCORE).log().sum()
