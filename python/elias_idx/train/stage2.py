"""Stage 2: the adjacency's entries become parameters, trained together with everything else.

E entries of the adjacency, C clusters, L labels.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.optimize import brentq

from elias_idx.train import distributed
from elias_idx.train.approximate_adjacency import AdjacencyPattern
from elias_idx.train.epoch import Trainee
from elias_idx.train.network import Adjacency
from elias_idx.train.stage1 import set_label_centroids

# What is added to the share of a label's texts that a cluster receives, which may be 0.
_SMALLEST_SHARE = 1e-3
# What an entry outside the initial partition starts with, relative to the cluster's own labels, if the cluster
# receives all of the label's texts.
_FOREIGN_SHARE = 0.1
# The largest weight that a row starts with: one at the clamp, 1, has no gradient and would stay there.
_LARGEST_WEIGHT = 0.8


def start_stage2(trainee: Trainee, pattern: AdjacencyPattern, labels: sp.csr_matrix) -> None:
    """Gives the network a learned adjacency of the given pattern; all else goes on from stage 1, moments don't.

    Label classifiers may start over, as the centroids of their texts under the trained encoder.

    Args:
        trainee: the model after stage 1.
        pattern: the entries that are learned.
        labels: the texts' labels, CSR [N, L].
    """
    config, network = trainee.config, trainee.network
    assert config.beta is not None
    logits = pattern.split(first_logits(pattern, config.adjacency_start, config.beta, config.seed))
    rows = pattern.split(pattern.labels)
    num_labels, initial_cluster = network.adjacency.num_labels, network.adjacency.initial_cluster
    network.adjacency = Adjacency(rows, num_labels, logits, config.beta, initial_cluster).to(config.device)
    for table in (network.label_classifiers, *trainee.encoder.row_tables()):
        table.reset_state()
    if config.stage2_label_start == "centroids":
        assert network.label_classifiers.bias is not None
        torch.nn.init.constant_(network.label_classifiers.bias, config.label_bias)
        set_label_centroids(trainee, labels)
        distributed.share_weights(network)


def first_logits(pattern: AdjacencyPattern, start: str, beta: float, seed: int) -> npt.NDArray[np.float32]:
    """The logits that stage 2 starts from, [E].

    "partition" stays near stage 1: 0 for a cluster's own labels, log(0.1 · share) for others. "counts" is the log of
    the share that the cluster receives of each label's texts. "uniform" is the published start: uniform in [0, 1), the
    pattern alone coming from stage 1. Rows whose largest weight β · softmax would be near the clamp are flattened.
    """
    if start == "uniform":
        logits = torch.rand(len(pattern.labels), generator=torch.Generator().manual_seed(seed)).numpy()
    else:
        logits = np.log(pattern.share + _SMALLEST_SHARE)
        if start == "partition":
            logits = np.where(pattern.own, np.float32(0), logits + np.float32(np.log(_FOREIGN_SHARE)))
    rows = [_unsaturated(logits[start:end], beta) for start, end in pairwise(pattern.indptr.tolist())]
    return np.concatenate(rows).astype(np.float32, copy=False)


def _unsaturated(row: npt.NDArray[np.float32], beta: float) -> npt.NDArray[np.float32]:
    """A row's logits times the factor, at most 1, that makes the largest weight 0.8, if it would be larger.

    Rows so short that no factor does stay as they are.
    """
    relative = row - row.max(initial=-np.inf)

    def excess(factor: float) -> float:
        return float(beta / np.exp(factor * relative).sum() - _LARGEST_WEIGHT)

    if not len(row) or excess(1.0) <= 0 or excess(0.0) >= 0:
        return row
    return np.float32(brentq(excess, 0.0, 1.0)) * row
