"""The whole training, from texts to a saved model: clusters → stage 1 → adjacency → stage 2 → export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path

import torch

from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError
from elias_idx.model import Model, load_single
from elias_idx.train import auto, distributed, memory
from elias_idx.train.clustering import Clusters
from elias_idx.train.dense import train_dense
from elias_idx.train.given_clusters import clusters_of_labels, with_given_clusters
from elias_idx.train.logs import TrainingLog
from elias_idx.train.model_sizes import sizes_of
from elias_idx.train.run_folder import IfExists, RunFolder, alone, describe_run
from elias_idx.train.selection import Selection
from elias_idx.train.stages import EpochResult


def train_model(
    data: TrainingSet,
    out: str | PathLike[str],
    config: Config | None = None,
    *,
    dev: TrainingSet | None = None,
    clusters: Mapping[str, str] | None = None,
    if_exists: IfExists = "error",
    check_memory: bool = True,
    log_dir: str | PathLike[str] | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> Model:
    """Trains both stages and writes the model to `out`.

    The model appears at `out` when it is whole. Until then the run lives in the folder `out` + ".training", with a
    checkpoint after every epoch and every `checkpoint_steps` steps; an interrupted run goes on from there with
    `if_exists="resume"`.

    With dev data the model is evaluated on them after every epoch. Each stage keeps its best epoch by `dev_metric`:
    stage 2 starts from stage 1's, and stage 2's is the model. Without dev data it is the last epoch.

    Args:
        data: the training set.
        out: the folder to write.
        config: the settings.
        dev: what epochs are compared on.
        clusters: the initial cluster of each label, by name, instead of clusters made from the texts; there are as
            many as names among those of the training labels. Labels that aren't trained may have one too.
        if_exists: what to do with a model or an unfinished run at `out`: refuse, start over, or go on. A model that
            is there already stays until the new one is whole.
        check_memory: whether a run is refused whose estimated memory is more than there is; see `dry_run`.
        log_dir: a folder for TensorBoard's event files: loss, learning rate and seconds of every step, dev metrics.
        on_epoch: called after every epoch, when its checkpoint is written; after a resume once more for the epoch of
            the checkpoint, since the call may have been what was interrupted.

    Several processes that `torchrun` starts train together on CPUs: each calls this with the same arguments and takes
    its share of every batch. The first one writes and calls `on_epoch`; all must see the folder of `out`.

    Torch's random state and number of threads are as before when it returns.

    Raises:
        FileExistsError: there is something at `out` and `if_exists` is "error", or another process trains there.
        ConfigError: the settings don't fit the data, or the run to resume had others.
        DataError: the data can't be trained on.
        MissingExtraError: a package is missing that the settings ask for.
    """
    out = Path(out).absolute()
    data, config, given = _completed(data, config, clusters)
    selection = Selection.check(config, data, dev)
    with distributed.joined(config.device), TrainingLog(log_dir) as log, ExitStack() as until_the_end:
        distributed.from_first(lambda: until_the_end.enter_context(alone(out)))
        run = distributed.from_first(lambda: RunFolder.check(out, if_exists, describe_run(config, data, dev, given)))
        if if_exists == "resume" and out.exists() and not run.goes_on:
            finished = load_single(out)
            run.check_same(finished.settings, f"the model at {out}")
            distributed.from_first(run.remove)
            return finished
        with _torch_state(config):
            if check_memory:
                distributed.from_first(lambda: memory.check_memory(_account(data, config, given)))
            stages = train_dense(data, config, given, run, selection, log, on_epoch)
            distributed.from_first(lambda: stages.current_model().save(out, overwrite=if_exists != "error"))
        distributed.from_first(run.remove)
        return load_single(out)


def dry_run(
    data: TrainingSet,
    out: str | PathLike[str],
    config: Config | None = None,
    *,
    dev: TrainingSet | None = None,
    clusters: Mapping[str, str] | None = None,
    if_exists: IfExists = "error",
) -> memory.MemoryAccount:
    """Checks what `train_model` checks before it starts, and gives the memory that it would take.

    Args and errors are `train_model`'s; a run that takes too much memory is no error.
    """
    data, config, given = _completed(data, config, clusters)
    Selection.check(config, data, dev)
    RunFolder.check(Path(out).absolute(), if_exists, describe_run(config, data, dev, given))
    with _torch_state(config):
        return _account(data, config, given)


def _completed(
    data: TrainingSet, config: Config | None, clusters: Mapping[str, str] | None
) -> tuple[TrainingSet, Config, Clusters | None]:
    """The labels that occur, the settings that follow from their number, and their given clusters."""
    if not isinstance(data, TrainingSet) or not isinstance(config, Config | None):
        kinds = f"{type(data).__name__} and {type(config).__name__}"
        raise TypeError(f"training takes a TrainingSet and a Config, got {kinds}")
    data, config, given = data.without_unused_labels(), config or Config(), None
    if clusters is not None:
        given = clusters_of_labels(clusters, data.label_names)
        config = with_given_clusters(config, len(given))
    return data, auto.resolved(config, data), given


def _account(data: TrainingSet, config: Config, given: Clusters | None) -> memory.MemoryAccount:
    return memory.memory_account(config, sizes_of(data, config, given))


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
        wanted = config.num_threads or distributed.fair_num_threads(threads)
        torch.set_num_threads(min(wanted, max(threads, distributed.usable_cpus())))
        try:
            yield
        finally:
            torch.set_num_threads(threads)
