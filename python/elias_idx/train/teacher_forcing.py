"""Teacher forcing: the clusters of a query's own labels join its beam during training. Q queries, B beam."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from elias_idx.train.network import top_clusters
from elias_idx.train.ragged import Ragged

# How far the expanded beam may exceed the plain one (section 3.3 of the paper).
EXTRA_CLUSTERS = 5


@torch.no_grad()
def expanded_beam(
    cluster_scores: Tensor, positives: Ragged, best_cluster: Tensor, beam_size: int, uniform: Tensor
) -> Tensor:
    """The model's best clusters and those of the query's labels, without repeats.

    Of more than B + 5 clusters, B + 5 are drawn in proportion to their scores (Gumbel top-k).

    Args:
        cluster_scores: s_c, [Q, C].
        positives: the queries' labels, [Q, L].
        best_cluster: label → its best cluster, −1 for none; [L].
        beam_size: B.
        uniform: random numbers in [0, 1), [Q, min(B, C) + P], where no query has more than P positives.

    Returns:
        Cluster ids [Q, at most B + 5], padded with −1.
    """
    top = top_clusters(cluster_scores, beam_size)
    own = positives.padded(best_cluster[positives.indices], fill=-1)
    own = F.pad(own, (0, uniform.shape[1] - top.shape[1] - own.shape[1]), value=-1)
    clusters = torch.cat([top, own], dim=1).sort(dim=1).values
    repeated = torch.zeros_like(clusters, dtype=torch.bool)
    repeated[:, 1:] = clusters[:, 1:] == clusters[:, :-1]
    absent = repeated | (clusters < 0)
    gumbel = -(-uniform.clamp_min(1e-20).log()).log()
    scores = cluster_scores.gather(1, clusters.clamp_min(0)).clamp_min(1e-20)
    keys = (scores.log() + gumbel).masked_fill(absent, -torch.inf)
    drawn = keys.topk(min(beam_size + EXTRA_CLUSTERS, keys.shape[1]), dim=1)
    return torch.where(drawn.values.isinf(), -1, clusters.gather(1, drawn.indices))
