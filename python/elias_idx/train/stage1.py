"""Stage 1: encoder, cluster classifiers and label classifiers over the fixed partition.

N texts, L labels, D dimensions of embeddings, D' of label classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from elias_idx.config import Config
from elias_idx.train.encoders import TrainableEncoder
from elias_idx.train.epoch import Trainee
from elias_idx.train.label_texts import weights_of
from elias_idx.train.network import Adjacency, EliasNetwork
from elias_idx.train.ragged import Ragged

# Bytes of label centroids that are made at a time, and rows of them that are worked on at a time.
LARGEST_BLOCK = 2**31
_ROWS_AT_ONCE = 16_384


def start_stage1(
    encoder: TrainableEncoder,
    labels: sp.csr_matrix,
    clusters: Sequence[npt.NDArray[np.int64]],
    config: Config,
    label_texts: Sequence[str] | None = None,
) -> Trainee:
    """The model at the start of stage 1: a_{c,l} = 1 for the labels of each cluster, and no other entries.

    Args:
        encoder: φ, over the N training inputs.
        labels: the texts' labels, CSR [N, L].
        clusters: the label ids of each cluster.
        config: the settings.
        label_texts: of the labels, [L], if they have any: each label's first classifier leans towards its own.
    """
    device = torch.device(config.device)
    adjacency = Adjacency(clusters, labels.shape[1])
    network = EliasNetwork.from_config(encoder.dim, adjacency, config).to(device)
    trainee = Trainee(encoder, network, Ragged.from_scipy(labels, device), config)
    set_label_centroids(trainee, labels, label_texts)
    return trainee


@torch.no_grad()
def set_label_centroids(trainee: Trainee, labels: sp.csr_matrix, texts: Sequence[str] | None = None) -> None:
    """Starts each label classifier as the mean direction of its texts under the encoder as it is, less all texts'.

    Even a random encoder of n-grams keeps similar texts near each other: a far better start than noise. Of millions
    of labels only some are done at a time, for which all texts are embedded again: the sums of all would take more
    memory than the classifiers.
    """
    weight = trainee.network.label_classifiers.weight
    for block in torch.arange(labels.shape[1]).split(max(1, LARGEST_BLOCK // (4 * weight.shape[1]))):
        start, stop = int(block[0]), int(block[-1]) + 1
        own = None if texts is None else texts[start:stop]
        weight[start:stop].copy_(_label_centroids(trainee, labels[:, start:stop], own))


def _label_centroids(trainee: Trainee, labels: sp.csr_matrix, texts: Sequence[str] | None) -> Tensor:
    """The normalised sum of the directions of each label's texts, less as many mean directions; [L, D'] on the CPU."""
    dim = trainee.network.label_classifiers.weight.shape[1]
    sums = np.zeros((labels.shape[1], dim), np.float32)
    total = np.zeros(dim, np.float64)
    position = 0
    for embeddings in trainee.embed_all():
        directions = F.normalize(trainee.network.project(embeddings), dim=1).cpu().numpy()
        transposed = sp.csr_matrix(labels[position : position + len(directions)].T)
        touched = np.flatnonzero(np.diff(transposed.indptr))
        sums[touched] += transposed[touched] @ directions
        total += directions.sum(0, dtype=np.float64)
        position += len(directions)
    mean = (total / position).astype(np.float32)
    counts = np.asarray(labels.sum(0)).ravel()
    if texts is not None:
        weights = weights_of(texts, trainee.config.label_text_weight)
        own = torch.from_numpy(trainee.encoder.finished().encode(texts)).to(trainee.labels.indptr.device)
        sums += weights[:, None] * F.normalize(trainee.network.project(own), dim=1).cpu().numpy()
        counts = counts + weights
    for rows in np.array_split(np.arange(len(sums)), -(-len(sums) // _ROWS_AT_ONCE)):
        sums[rows] -= counts[rows, None] * mean
    centroids = torch.from_numpy(sums)
    return F.normalize(centroids, dim=1, out=centroids)
