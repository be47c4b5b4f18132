"""Stage 1: encoder, cluster classifiers and label classifiers over the fixed partition.

N texts, L labels, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from elias_idx.config import Config
from elias_idx.train.encoders import TrainableEncoder
from elias_idx.train.epoch import Trainee
from elias_idx.train.network import Adjacency, EliasNetwork
from elias_idx.train.ragged import Ragged


def start_stage1(
    encoder: TrainableEncoder,
    labels: sp.csr_matrix,
    clusters: Sequence[npt.NDArray[np.int64]],
    config: Config,
) -> Trainee:
    """The model at the start of stage 1: a_{c,l} = 1 for the labels of each cluster, and no other entries.

    Args:
        encoder: φ, over the N training inputs.
        labels: the texts' labels, CSR [N, L].
        clusters: the label ids of each cluster.
        config: the settings.
    """
    device = torch.device(config.device)
    adjacency = Adjacency(clusters, labels.shape[1])
    network = EliasNetwork(
        encoder.dim, adjacency, alpha=config.alpha, label_bias=config.label_bias, label_dtype=config.label_dtype
    ).to(device)
    trainee = Trainee(encoder, network, Ragged.from_scipy(labels, device), config)
    with torch.no_grad():
        network.label_classifiers.weight.copy_(torch.from_numpy(_label_centroids(trainee, labels)))
    return trainee


def _label_centroids(trainee: Trainee, labels: sp.csr_matrix) -> npt.NDArray[np.float32]:
    """The mean direction of each label's texts under the untrained encoder, less that of all texts; [L, D].

    A random encoder of n-grams keeps similar texts near each other, which makes this a far better start than noise.
    """
    sums = np.zeros((labels.shape[1], trainee.encoder.dim), np.float32)
    total = np.zeros(trainee.encoder.dim, np.float64)
    position = 0
    for embeddings in trainee.embed_all():
        directions = F.normalize(embeddings, dim=1).cpu().numpy()
        sums += labels[position : position + len(directions)].T @ directions
        total += directions.sum(0, dtype=np.float64)
        position += len(directions)
    counts = np.asarray(labels.sum(0)).reshape(-1, 1)
    centred = sums - counts * (total / position).astype(np.float32)
    centroids: npt.NDArray[np.float32] = F.normalize(torch.from_numpy(centred), dim=1).numpy()
    return centroids
