"""The whole training, from texts to a saved model: clusters → stage 1 → adjacency → stage 2 → export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError
from elias_idx.model import Model
from elias_idx.train.approximate_adjacency import approximate_adjacency
from elias_idx.train.batch import derived_seed
from elias_idx.train.checkpoint import Progress, load_optimizers, load_trainee, read_progress, save_checkpoint
from elias_idx.train.clustering import cluster_labels, default_num_clusters
from elias_idx.train.encoders import build_encoder
from elias_idx.train.epoch import Trainee, train_epoch
from elias_idx.train.export import export_index
from elias_idx.train.run_folder import IfExists, RunFolder, describe_run
from elias_idx.train.stage1 import start_stage1
from elias_idx.train.stage2 import start_stage2


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        progress: which epoch of which stage it was, and its mean training loss.
        num_epochs: how many epochs the stage has.
        model: gives the model as it is now; its arrays are valid only during the callback.
    """

    progress: Progress
    num_epochs: int
    model: Callable[[], Model]

    @property
    def ends_stage(self) -> bool:
        """Whether this was the stage's last epoch."""
        return self.progress.epochs_done == self.num_epochs


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
        on_epoch: called after every epoch, when its checkpoint is written; after a resume once more for the epoch of
            the checkpoint, since the call may have been what was interrupted.

    Torch's random state and number of threads are as before when it returns.

    Raises:
        FileExistsError: there is something at `out` and `if_exists` is "error".
        ConfigError: the settings don't fit the data, or the run to resume had others.
        DataError: the data can't be trained on.
    """
    out = Path(out).absolute()
    data = data.without_unused_labels()
    num_labels = len(data.label_names)
    config = (config or Config()).with_clusters(num_labels, default_num_clusters(num_labels))
    run = RunFolder.check(out, if_exists, describe_run(config, data))
    if if_exists == "resume" and out.exists() and not run.path.exists():
        finished = Model.load(out)
        run.check_same(finished.settings, f"the model at {out}")
        return finished
    with _torch_state(config):
        _train(data, config, run, resume=if_exists == "resume", on_epoch=on_epoch).save(
            out, overwrite=if_exists != "error"
        )
    run.remove()
    return Model.load(out)


def _train(
    data: TrainingSet,
    config: Config,
    run: RunFolder,
    *,
    resume: bool,
    on_epoch: Callable[[EpochResult], None] | None,
) -> Model:
    labels = data.labels
    encoder = build_encoder(config, data.inputs).to(config.device)
    progress = read_progress(run.path) if resume else None
    if progress is None:
        assert config.num_clusters is not None
        clusters = cluster_labels(labels, encoder.clustering_features, config.num_clusters, config.seed)
        trainee = start_stage1(encoder, labels, clusters, config)
        progress = Progress(stage=1, epochs_done=0)
        run.start()
    else:
        trainee = load_trainee(run.path, encoder, labels, config)

    stages = _Stages(trainee, data.label_names, run, on_epoch)
    if progress.stage == 1:
        stages.run(1, progress)
        if config.stage2_epochs:
            start_stage2(trainee, approximate_adjacency(trainee, labels))
        progress = Progress(stage=2, epochs_done=0)
    stages.run(2, progress)
    return stages.current_model()


@dataclass(frozen=True)
class _Stages:
    """Runs the epochs of a stage, with a checkpoint and a callback after each."""

    trainee: Trainee
    label_names: Sequence[str]
    folder: RunFolder
    on_epoch: Callable[[EpochResult], None] | None

    def run(self, stage: int, progress: Progress) -> None:
        """Runs the epochs of a stage that are not done yet."""
        trainee, config = self.trainee, self.trainee.config
        epochs = config.stage1_epochs if stage == 1 else config.stage2_epochs
        optimizers = trainee.optimizers(epochs, 1.0 if stage == 1 else config.stage2_learning_rate_factor)
        if progress.epochs_done:
            load_optimizers(self.folder.path, optimizers)
            self._report(progress, epochs)
        for epoch in range(progress.epochs_done, epochs):
            trainee.network.adjacency.refresh_best_cluster()
            title = f"stage {stage}, epoch {epoch + 1} of {epochs}"
            loss = train_epoch(trainee, optimizers, derived_seed(config.seed, stage, epoch), title)
            done = Progress(stage, epoch + 1, loss)
            save_checkpoint(self.folder.path, done, trainee, optimizers)
            self._report(done, epochs)

    def _report(self, progress: Progress, epochs: int) -> None:
        if self.on_epoch is not None:
            self.on_epoch(EpochResult(progress, epochs, self.current_model))

    def current_model(self) -> Model:
        """The model as it is now; it shares the encoder's memory."""
        trainee, config = self.trainee, self.trainee.config
        index = export_index(trainee.network, self.label_names, config.beam_size, config.shortlist_size)
        label_counts = trainee.labels.indices.bincount(minlength=len(self.label_names)).cpu().numpy()
        return Model(trainee.encoder.finished(), index, label_counts, trainee.num_texts, self.folder.description)


@contextmanager
def _torch_state(config: Config) -> Iterator[None]:
    """Seeds torch, sets its threads and tries the device; the caller's state comes back in the end.

    Raises:
        ConfigError: torch does not know the device, or there is none.
    """
    try:
        device = torch.empty(0, device=config.device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {config.device!r} can't be used: {str(error).splitlines()[0]}") from error
    threads = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.num_threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
