"""Stage 2: the adjacency's entries become parameters, trained together with everything else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from elias_idx.train.approximate_adjacency import AdjacencyPattern
from elias_idx.train.epoch import Trainee
from elias_idx.train.network import Adjacency

# What an entry outside the initial partition starts with, relative to the cluster's own labels, if the cluster
# receives all of the label's texts.
_FOREIGN_SHARE = 0.1
_SMALLEST_SHARE = 1e-4


def start_stage2(trainee: Trainee, pattern: AdjacencyPattern) -> None:
    """Gives the network a learned adjacency of the given pattern; all weights go on from stage 1, moments don't."""
    config, network = trainee.config, trainee.network
    assert config.beta is not None
    logits = pattern.split(first_logits(pattern, config.adjacency_start, config.seed))
    rows = pattern.split(pattern.labels)
    network.adjacency = Adjacency(rows, network.adjacency.num_labels, logits, config.beta).to(config.device)
    for table in (network.label_classifiers, *trainee.encoder.row_tables()):
        table.reset_state()


def first_logits(pattern: AdjacencyPattern, start: str, seed: int) -> npt.NDArray[np.float32]:
    """The logits that stage 2 starts from, [E].

    "partition" stays near stage 1: 0 for a cluster's own labels, log(0.1 · share) for others. "uniform" is the
    published start: uniform in [0, 1), the pattern alone coming from stage 1.
    """
    if start == "uniform":
        return torch.rand(len(pattern.labels), generator=torch.Generator().manual_seed(seed)).numpy()
    foreign = np.log(_FOREIGN_SHARE * pattern.share + _SMALLEST_SHARE)
    return np.where(pattern.own, np.float32(0), foreign).astype(np.float32)
