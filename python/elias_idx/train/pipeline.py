"""The whole training, from texts to a saved model: clusters → stage 1 → adjacency → stage 2 → export."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from elias_idx.config import Config
from elias_idx.data import LabelVocabulary
from elias_idx.errors import ConfigError, DataError
from elias_idx.model import Inputs, Model, check_replaceable
from elias_idx.train.approximate_adjacency import approximate_adjacency
from elias_idx.train.checkpoint import Progress, load_optimizers, load_trainee, read_progress, save_checkpoint
from elias_idx.train.clustering import cluster_labels, default_num_clusters
from elias_idx.train.encoders import build_encoder
from elias_idx.train.epoch import Optimizers, train_epoch
from elias_idx.train.export import export_index
from elias_idx.train.stage1 import start_stage1
from elias_idx.train.stage2 import start_stage2

IfExists = Literal["error", "overwrite", "resume"]
_DESCRIPTION = "run.json"


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        progress: which epoch of which stage it was.
        num_epochs: how many epochs the stage has.
        loss: the mean training loss.
        model: the model as it is now; its arrays are valid only during the callback.
    """

    progress: Progress
    num_epochs: int
    loss: float
    model: Model

    @property
    def ends_stage(self) -> bool:
        """Whether this was the stage's last epoch."""
        return self.progress.epochs_done == self.num_epochs


@dataclass(frozen=True)
class TrainingSet:
    """Inputs and their labels.

    Attributes:
        inputs: N texts, or a float array of embeddings [N, D] for the precomputed encoder.
        labels: the labels of each.
    """

    inputs: Inputs
    labels: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(f"there are {len(self.inputs)} inputs, but labels for {len(self.labels)}")
        if not any(self.labels):
            raise DataError("the training set is empty: there is no row with a label")


def train_model(
    data: TrainingSet,
    out: str | PathLike[str],
    config: Config | None = None,
    *,
    if_exists: IfExists = "error",
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> Model:
    """Trains both stages and writes the model to `out`.

    The model appears at `out` when it is whole. Until then the run lives in the folder `out` + ".training", with a
    checkpoint after every epoch; an interrupted run goes on from there with `if_exists="resume"`.

    Args:
        data: the training set.
        out: the folder to write.
        config: the settings.
        if_exists: what to do with a model or an unfinished run at `out`: refuse, start over, or go on. A model that
            is there already stays until the new one is whole.
        on_epoch: called after every epoch.

    Raises:
        FileExistsError: there is something at `out` and `if_exists` is "error".
        ConfigError: the settings don't fit the data, or the run to resume had others.
        DataError: the data can't be trained on.
    """
    config = config or Config()
    out = Path(out).absolute()
    run = out.with_name(out.name + ".training")
    _check_output(out, run, if_exists)
    if if_exists == "resume" and out.exists() and not run.exists():
        return Model.load(out)
    _open_run(run, _description(data, config), if_exists)

    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    torch.manual_seed(config.seed)
    vocabulary = LabelVocabulary(label for row in data.labels for label in row)
    labels = vocabulary.matrix(data.labels)
    config = config.with_clusters(len(vocabulary), default_num_clusters(len(vocabulary)))
    encoder = build_encoder(config, data.inputs).to(config.device)
    label_counts = np.asarray(labels.sum(0), np.int64).ravel()

    def current_model() -> Model:
        index = export_index(trainee.network, vocabulary.names, config.beam_size, config.shortlist_size)
        return Model(encoder.finished(), index, label_counts, len(data.labels), asdict(config))

    def run_stage(stage: int, epochs: int, learning_rate_factor: float) -> None:
        optimizers = Optimizers(trainee, epochs, learning_rate_factor)
        first = progress.epochs_done if progress.stage == stage else 0
        if first:
            load_optimizers(run, optimizers)
        for epoch in range(first, epochs):
            trainee.network.adjacency.refresh_best_cluster()
            title = f"stage {stage}, epoch {epoch + 1} of {epochs}"
            loss = train_epoch(trainee, optimizers, _epoch_seed(config.seed, stage, epoch), title)
            done = Progress(stage, epoch + 1)
            save_checkpoint(run, done, trainee, optimizers)
            if on_epoch is not None:
                on_epoch(EpochResult(done, epochs, loss, current_model()))

    if (stored := read_progress(run)) is not None:
        progress, trainee = stored, load_trainee(run, encoder, labels, config)
    else:
        progress = Progress(stage=1, epochs_done=0)
        assert config.num_clusters is not None
        clusters = cluster_labels(labels, encoder.clustering_features, config.num_clusters, config.seed)
        trainee = start_stage1(encoder, labels, clusters, config)
    if progress.stage == 1:
        run_stage(1, config.stage1_epochs, learning_rate_factor=1.0)
        if config.stage2_epochs:
            start_stage2(trainee, approximate_adjacency(trainee, labels))
    run_stage(2, config.stage2_epochs, config.stage2_learning_rate_factor)

    current_model().save(out, overwrite=if_exists != "error")
    shutil.rmtree(run)
    return Model.load(out)


def _epoch_seed(seed: int, stage: int, epoch: int) -> int:
    """A seed for each epoch, so that a resumed run draws what an undisturbed one would."""
    digest = hashlib.sha256(f"{seed}/{stage}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def _check_output(out: Path, run: Path, if_exists: IfExists) -> None:
    if if_exists not in get_args(IfExists):
        raise ConfigError(f"if_exists must be one of {', '.join(get_args(IfExists))}; got {if_exists!r}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is no folder: create it first")
    check_replaceable(out, overwrite=if_exists != "error")
    if run.exists() and if_exists == "error":
        raise FileExistsError(f"there is an unfinished run at {run}: resume it, or overwrite to start over")
    if run.exists() and not (run / _DESCRIPTION).is_file():
        raise FileExistsError(f"{run} is needed for the training run, but is something else: move it away")


def _open_run(run: Path, description: dict[str, Any], if_exists: IfExists) -> None:
    """Creates the run's folder, or checks that the one to resume had the same data and settings."""
    if run.exists() and if_exists == "resume":
        stored = json.loads((run / _DESCRIPTION).read_text(encoding="utf-8"))
        changed = sorted(name for name in description | stored if description.get(name) != stored.get(name))
        if changed:
            raise ConfigError(
                f"the unfinished run at {run} had other values of {', '.join(changed)}: "
                "use the same to resume it, or overwrite to start over"
            )
        return
    if run.exists():
        shutil.rmtree(run)
    run.mkdir()
    (run / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _description(data: TrainingSet, config: Config) -> dict[str, Any]:
    """What must stay the same for a run to be resumed: the settings, and a fingerprint of the data."""
    digest = hashlib.sha256()
    if isinstance(data.inputs, np.ndarray):
        digest.update(np.ascontiguousarray(data.inputs).tobytes())
    else:
        digest.update(json.dumps(list(data.inputs)).encode())
    digest.update(json.dumps([list(row) for row in data.labels]).encode())
    settings = json.loads(json.dumps(asdict(config)))
    del settings["num_threads"]
    return {**settings, "training data": digest.hexdigest()}
