"""The training of the dense model: clusters → stage 1 → adjacency → stage 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.model import Model
from elias_idx.train import distributed
from elias_idx.train.approximate_adjacency import approximate_adjacency
from elias_idx.train.checkpoint import Position, RunState
from elias_idx.train.clustering import ClusteringFeatures, Clusters, cluster_labels, features_of
from elias_idx.train.encoders import TrainableEncoder, build_encoder
from elias_idx.train.epoch import Trainee
from elias_idx.train.label_texts import with_label_texts
from elias_idx.train.logs import TrainingLog
from elias_idx.train.run_folder import RunFolder
from elias_idx.train.selection import Selection
from elias_idx.train.stage1 import start_stage1
from elias_idx.train.stage2 import start_stage2
from elias_idx.train.stages import EpochResult, Stages


def train_dense(
    data: TrainingSet,
    config: Config,
    given: Clusters | None,
    run: RunFolder,
    selection: Selection,
    log: TrainingLog,
    on_epoch: Callable[[EpochResult], None] | None,
) -> Callable[[], Model]:
    """Trains both stages, going on from the run's newest checkpoint if it has one.

    Args:
        data: the training set, all of whose labels occur.
        config: the settings, with C and β.
        given: the initial clusters' labels; None to make clusters.
        run: the folder that keeps the checkpoints.
        selection: which epoch of a stage is kept.
        log: what TensorBoard shows.
        on_epoch: called after every epoch.

    Returns:
        A function that gives the model, whose index is mapped from the run's folder. Its report says which epoch of
        each stage was kept, and what its metrics on dev data were.
    """
    trainee, state = _start_or_resume(data, config, given, run)
    stages = Stages(trainee, data.label_names, run, selection, log, on_epoch)
    log.start(stages.step_number(state))
    if state.position.stage == 0:
        state = replace(stages.finish(state), position=Position(stage=1))
        clusters = distributed.from_first(lambda: _cluster_again(trainee, data.labels))
        # The memory is needed for what takes their place.
        del trainee, stages
        encoder = _fresh_encoder(data, config)
        _prepare(encoder, run)
        trainee = _start_stage1(encoder, data, clusters, config)
        stages = Stages(trainee, data.label_names, run, selection, log, on_epoch)
    if state.position.stage == 1:
        state = stages.finish(state)
        if config.stage2_epochs:
            pattern = distributed.from_first(lambda: approximate_adjacency(trainee, data.labels))
            start_stage2(trainee, pattern, data.labels)
        state = replace(state, position=Position(stage=2))
    state = stages.finish(state)
    return lambda: replace(stages.current_model(), report=_report(state, selection))


def _report(state: RunState, selection: Selection) -> dict[str, Any]:
    kept = {}
    for stage in sorted({epoch.stage for epoch in state.epochs}):
        kept[stage] = selection.best([epoch for epoch in state.epochs if epoch.stage == stage])
    # The names as JSON has them, since it comes back from a file.
    epochs = {str(stage): epoch.epochs_done for stage, epoch in kept.items()}
    return {"epochs": epochs, "metrics": dict(kept[max(kept)].metrics)}


def _start_or_resume(
    data: TrainingSet, config: Config, given: Clusters | None, run: RunFolder
) -> tuple[Trainee, RunState]:
    """What is trained and how far it is, from the run's newest checkpoint if it has one.

    A checkpoint holds all weights and the adjacency. The encoder's features are made from the data each time, which
    gives the same ones.
    """
    encoder = _fresh_encoder(data, config)
    if not run.goes_on:
        distributed.from_first(run.start)
    _prepare(encoder, run)
    if state := run.checkpoints.state():
        return run.checkpoints.load_trainee(state.position, encoder, data.labels, config), state
    clusters = distributed.from_first(lambda: _first_clusters(encoder, data, config, given, run))
    first_stage = 0 if config.recluster_epochs else 1
    return _start_stage1(encoder, data, clusters, config), RunState(Position(first_stage))


def _fresh_encoder(data: TrainingSet, config: Config) -> TrainableEncoder:
    """The untrained encoder, the same one each time."""
    torch.manual_seed(config.seed)
    return build_encoder(config, data.inputs).to(config.device)


def _prepare(encoder: TrainableEncoder, run: RunFolder) -> None:
    with distributed.first_goes_first():
        encoder.prepare(run.path)


def _first_clusters(
    encoder: TrainableEncoder, data: TrainingSet, config: Config, given: Clusters | None, run: RunFolder
) -> Clusters:
    """The clusters that an interrupted run made, or those that were given, or new ones."""
    if (clusters := run.load_clusters() or given) is not None:
        return clusters
    assert config.num_clusters is not None
    labels, features = data.labels, features_of(encoder, config.cluster_by)
    if data.label_texts is not None:
        texts = data.label_texts.with_parents
        labels, features = with_label_texts(labels, features, encoder, texts, config.label_text_weight)
    clusters = cluster_labels(labels, features, config.num_clusters, config.seed, config.num_threads)
    run.save_clusters(clusters)
    return clusters


def _start_stage1(encoder: TrainableEncoder, data: TrainingSet, clusters: Clusters, config: Config) -> Trainee:
    """Stage 1's start, with the same weights in all processes."""
    texts = None if data.label_texts is None else data.label_texts.with_parents
    trainee = start_stage1(encoder, data.labels, clusters, config, texts)
    distributed.share_weights(encoder, trainee.network)
    return trainee


def _cluster_again(trainee: Trainee, labels: sp.csr_matrix) -> Clusters:
    """Clusters from the trained embeddings, beside the sparse features if there are any."""
    embeddings = np.empty((trainee.num_texts, trainee.encoder.dim), np.float32)
    at = 0
    for part in trainee.embed_all():
        embeddings[at : at + len(part)] = part.cpu().numpy()
        at += len(part)
    config, num_clusters = trainee.config, trainee.network.adjacency.num_clusters
    features = ClusteringFeatures(trainee.encoder.sparse_features, embeddings)
    return cluster_labels(labels, features, num_clusters, config.seed, config.num_threads)
