"""The whole training, from texts to a saved model: what is to be trained, in which folder and state of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elias_idx._wording import counted
from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError, DataError
from elias_idx.model import Model
from elias_idx.train import auto, distributed, duration, hold_out, memory
from elias_idx.train.clustering import Clusters
from elias_idx.train.dense import train_dense
from elias_idx.train.full import FullTraining
from elias_idx.train.given_clusters import clusters_of_labels, with_given_clusters
from elias_idx.train.logs import TrainingLog
from elias_idx.train.model_sizes import ModelSizes, sizes_of
from elias_idx.train.run_folder import IfExists, RunFolder, alone, describe_run, finished_model
from elias_idx.train.selection import Selection
from elias_idx.train.stages import EpochResult
from elias_idx.train.steps import Steps


def train_model(
    data: TrainingSet,
    out: str | PathLike[str],
    config: Config | None = None,
    *,
    dev: TrainingSet | None = None,
    refit: bool = False,
    clusters: Mapping[str, str] | None = None,
    if_exists: IfExists = "error",
    check_memory: bool = True,
    log_dir: str | PathLike[str] | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Model:
    """Trains a model and writes it to `out`.

    The preset says what it has: fast is the dense model alone, both its stages; full is that, the sparse ranker, the
    nearest training texts' labels, and a fusion of all they say. What they are worth is found on held-out texts
    (`hold_out`) by a first training of the rest, or on the dev data; the model is trained on all of `data`. Without
    sparse features (of given embeddings), or with too few texts to hold some out, full is fast.

    The model appears at `out` when it is whole. Until then the run lives in the folder `out` + ".training", with a
    checkpoint after an epoch, at most one a minute, or after every epoch and every `checkpoint_steps` steps if set; an
    interrupted run goes on from there with `if_exists="resume"`.

    With dev data the dense model is evaluated on them after every epoch. Each stage keeps its best epoch by
    `dev_metric`: stage 2 starts from stage 1's, and stage 2's is the model. Held-out texts tell the best epochs in the
    same way, and the model gets as many. With neither it is the last epoch.

    Args:
        data: the training set.
        out: the folder to write.
        config: the settings.
        dev: what epochs are compared on and, of the full preset, what the fusion is fitted on.
        refit: whether the model of the full preset is trained on the dev data too. They are held out of its first
            training then, in place of texts of `data`: better where texts to come are like the dev data.
        clusters: the initial cluster of each label, by name, instead of clusters made from the texts; there are as
            many as names among those of the training labels. Labels that aren't trained may have one too.
        if_exists: what to do with a model or an unfinished run at `out`: refuse, start over, or go on. A model that
            is there already stays until the new one is whole.
        check_memory: whether a run is refused whose estimated memory is more than there is; see `dry_run`.
        log_dir: a folder for TensorBoard's event files: loss, learning rate and seconds of every step, dev metrics.
        on_epoch: called after every epoch, when its checkpoint is written if there is one; after a resume once more for
            the epoch of the checkpoint, since the call may have been what was interrupted.
        on_line: called with lines for people: what is done, how long it took, and how good it is.

    Several processes that `torchrun` starts train together on CPUs: each calls this with the same arguments and takes
    its share of every batch. The first one writes and calls `on_epoch` and `on_line`; all must see the folder of `out`.

    Torch's random state and number of threads are as before when it returns.

    Raises:
        FileExistsError: there is something at `out` and `if_exists` is "error", or another process trains there.
        ConfigError: the settings don't fit the data, or the run to resume had others.
        DataError: the data can't be trained on.
        MissingExtraError: a package is missing that the settings ask for.
    """
    out = Path(out).absolute()
    job = _prepared(data, config, dev, refit, clusters)
    selection = job.selection()

    def train(run: RunFolder) -> Callable[[], Model]:
        account = distributed.from_first(job.account)
        if check_memory:
            distributed.from_first(lambda: memory.check_memory(account))
        steps = Steps(on_line)
        job.say_plan(steps, account)
        if job.judge is None:
            return train_dense(job.data, job.config, job.given, run, selection, log, on_epoch)
        folder = None if log_dir is None else Path(log_dir)
        judged = (job.data, job.rest, job.judge, job.config, job.given)
        return FullTraining(*judged, run, selection, steps, folder, on_epoch).train()

    with distributed.joined(job.config.device), TrainingLog(log_dir) as log, ExitStack() as until_the_end:
        distributed.from_first(lambda: until_the_end.enter_context(alone(out)))
        with _torch_state(job.config):
            return finished_model(out, if_exists, job.description(), train)


def dry_run(
    data: TrainingSet,
    out: str | PathLike[str],
    config: Config | None = None,
    *,
    dev: TrainingSet | None = None,
    refit: bool = False,
    clusters: Mapping[str, str] | None = None,
    if_exists: IfExists = "error",
    on_line: Callable[[str], None] | None = None,
) -> memory.MemoryAccount:
    """Checks what `train_model` checks before it starts, says the same, and gives the memory that it would take.

    Args and errors are `train_model`'s; a run that takes too much memory is no error.
    """
    job = _prepared(data, config, dev, refit, clusters)
    job.selection()
    RunFolder.check(Path(out).absolute(), if_exists, job.description())
    with _torch_state(job.config):
        account = job.account()
    job.say_plan(Steps(on_line), account)
    return account


@dataclass(frozen=True)
class _Job:
    """What is to be trained.

    Attributes:
        data: the training set, all of whose labels occur.
        config: the settings, with those that follow from the data.
        given: the labels of given clusters.
        dev: the dev data.
        rest: of the full preset without dev data, the texts that are not held out.
        judge: of the full preset, the held-out texts or the dev data; None trains the dense model alone.
        why_dense: why it is trained alone although the preset is full.
    """

    data: TrainingSet
    config: Config
    given: Clusters | None
    dev: TrainingSet | None
    rest: TrainingSet | None = None
    judge: TrainingSet | None = None
    why_dense: str = ""

    def selection(self) -> Selection:
        """How epochs are chosen; checks the settings of that, and the dev data."""
        return Selection.check(self.config, self.data, self.judge or self.dev)

    def description(self) -> dict[str, Any]:
        """What makes the run what it is."""
        return describe_run(self.config, self.data, self.dev, self.given)

    def account(self) -> memory.MemoryAccount:
        """The memory that training takes."""
        return memory.memory_account(self.trained, self.sizes)

    @property
    def trained(self) -> Config:
        """The settings with the preset that is trained."""
        return self.config if self.judge is not None else replace(self.config, preset="fast")

    @cached_property
    def sizes(self) -> ModelSizes:
        """Of data and encoder."""
        return sizes_of(self.data, self.config, self.given)

    def say_plan(self, steps: Steps, account: memory.MemoryAccount) -> None:
        """Says what is trained, how, and what that takes."""
        for line in (*self.lines(), self.expected(account)):
            steps.say(line)

    def lines(self) -> list[str]:
        """What there is to train on, and how it is trained."""
        why_dense = []
        if self.why_dense:
            epochs = ", for as many epochs as the settings say" if self.dev is None else ""
            why_dense = [f"the dense model alone is trained{epochs}: {self.why_dense}"]
        return [self._summary(), *why_dense, *auto.describe(self.config, texts=auto.are_texts(self.data.inputs))]

    def expected(self, account: memory.MemoryAccount) -> str:
        """The time and memory that training takes, as a line."""
        num_bytes = f"about {memory.shown_bytes(account.peak())} of memory"
        if self.config.transformer is not None:
            return f"takes {num_bytes}"
        num_judged = len(self.judge or self.dev or ())
        return f"takes {duration.expected(self.trained, self.sizes, 2 if self.rest else 1, num_judged)}, {num_bytes}"

    def _summary(self) -> str:
        line = f"{counted(len(self.data), 'text')}, {counted(len(self.data.label_names), 'label')}"
        if judge := self.judge or self.dev:
            line += (
                f"; {counted(len(judge), 'dev text')}" if self.rest is None else f"; {len(judge):,} of them held out"
            )
        return line


def _prepared(
    data: TrainingSet,
    config: Config | None,
    dev: TrainingSet | None,
    refit: bool,
    clusters: Mapping[str, str] | None,
) -> _Job:
    """The labels that occur, the settings that follow from their number, their given clusters, and what judges."""
    if not isinstance(data, TrainingSet) or not isinstance(config, Config | None):
        kinds = f"{type(data).__name__} and {type(config).__name__}"
        raise TypeError(f"training takes a TrainingSet and a Config, got {kinds}")
    if not isinstance(dev, TrainingSet | None):
        raise TypeError(f"dev must be a TrainingSet, got {type(dev).__name__}")
    if data.label_texts is not None and not auto.are_texts(data.inputs):
        raise DataError("labels have texts, but the inputs are none that these could be compared to: leave them out")
    config, given, like_dev = config or Config(), None, None
    if refit:
        data, like_dev = _with_dev(data, dev, config)
    data = data.without_unused_labels()
    if clusters is not None:
        given = clusters_of_labels(clusters, data.label_names)
        config = with_given_clusters(config, len(given))
    job = _Job(data, auto.resolved(config, data), given, dev)
    if config.preset == "full":
        job = _with_judge(job, like_dev)
    if refit and job.judge is None:
        raise ConfigError(f"refit can't hold out dev texts: {job.why_dense}; leave it out")
    return job


def _with_dev(data: TrainingSet, dev: TrainingSet | None, config: Config) -> tuple[TrainingSet, hold_out.Rows]:
    """Training and dev data as one set, and the numbers of the dev texts in it."""
    if dev is None:
        raise ConfigError("refit trains on the dev data too: give some")
    if config.preset != "full":
        raise ConfigError(f"refit is for the preset full, which trains twice: leave it out with {config.preset}")
    return data.joined(dev), np.arange(len(data), len(data) + len(dev))


def _with_judge(job: _Job, like_dev: hold_out.Rows | None) -> _Job:
    """The job of the full preset, unless there is nothing to train it on or to judge it by."""
    if job.config.encoder == "precomputed":
        return replace(job, why_dense="embeddings have no sparse features to rank by")
    if len(job.data.label_names) == 1:
        return replace(job, why_dense="a single label leaves nothing to rank")
    if job.dev is not None and like_dev is None:
        if (num_labelled := np.count_nonzero(np.diff(job.dev.labels.indptr))) >= hold_out.FEWEST:
            return replace(job, judge=job.dev)
        return replace(
            job, why_dense=f"to fit a fusion takes {hold_out.FEWEST} dev texts with labels, not {num_labelled}"
        )
    split = hold_out.hold_out(job.data, job.config.seed, like_dev)
    if split.is_enough:
        rest = job.data.subset(split.rest).without_unused_labels()
        return replace(job, rest=rest, judge=job.data.subset(split.held_out))
    texts = counted(len(job.data), "text") if like_dev is None else counted(len(like_dev), "dev text")
    return replace(
        job,
        why_dense=f"of {texts} only {len(split.held_out)} can be held out (a fifth of all at most, whole groups, and "
        f"none without a label that another text has), but to choose epochs and fit a fusion takes {hold_out.FEWEST}",
    )


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
