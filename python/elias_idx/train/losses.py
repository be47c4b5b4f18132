"""The training loss of ELIAS (section 3.3 of the paper), in log space. E pairs of a query and a shortlisted label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from elias_idx.train.network import EliasNetwork
from elias_idx.train.ragged import Ragged


@dataclass(frozen=True)
class LossSettings:
    """Numbers that the loss of a batch depends on.

    Attributes:
        shortlist_size: S.
        path_loss_weight: λ.
        divisor: what the sums are divided by, the number of texts in the whole step.
        skip_below: pairs whose derivative by the logit is smaller in magnitude add nothing to the gradients.
    """

    shortlist_size: int
    path_loss_weight: float
    divisor: float
    skip_below: float


_SMALLEST_SCORE = 1e-30
_LARGEST_BELOW_1 = 1 - 2**-24


def label_loss(
    network: EliasNetwork,
    projected: Tensor,
    cluster_scores: Tensor,
    beam: Tensor,
    positives: Ragged,
    settings: LossSettings,
) -> Tensor:
    """Σ BCE(p, relevance) over the shortlists + λ Σ −log s over the queries' labels, in torch on any device.

    `fused.label_loss` is the same for CPUs.

    Args:
        network: all behind the encoder.
        projected: `network.project` of the embeddings, [Q, D'].
        cluster_scores: s_c, [Q, C].
        beam: cluster ids, [Q, B], padded with −1.
        positives: the queries' labels and their relevance, [Q, L].
        settings: numbers.
    """
    weights = network.adjacency.weights(beam)
    shortlist = network.shortlist(cluster_scores, beam, weights, settings.shortlist_size)
    logits = network.label_logits(projected, shortlist.pattern, settings.skip_below)
    own_paths = network.best_paths(cluster_scores, beam, weights, positives)
    total = shortlist_loss(shortlist.path_scores, logits, positives.values_at(shortlist.pattern))
    return (total + settings.path_loss_weight * path_loss(own_paths)) / settings.divisor


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
