"""The folder of a training run: it stands beside the model's until the model is whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError, FormatError
from elias_idx.files import load_tensors, replacing, save_tensors, written_to
from elias_idx.model import Model, check_replaceable, load_single
from elias_idx.train import distributed
from elias_idx.train.checkpoint import Checkpoints
from elias_idx.train.clustering import Clusters

try:
    import fcntl
except ModuleNotFoundError:
    fcntl = None  # type: ignore[assignment]

IfExists = Literal["error", "overwrite", "resume"]

_DESCRIPTION = "run.json"
_CLUSTERS = "clusters.safetensors"
# What a resumed run may have otherwise: the result is the same, on the same number of threads to the last bit.
_CHANGEABLE = ("num_threads", "checkpoint_steps")


def run_path(out: Path) -> Path:
    """Where the run of a model at `out` lives until the model is whole."""
    return out.with_name(out.name + ".training")


def check_parent(out: Path) -> None:
    """Raises an OSError unless there is a folder for `out` that can be written to."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is no folder: create it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{out.parent} can't be written to: choose another folder")


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keeps other processes from training a model at `out` meanwhile, where the system has such locks (not Windows).

    The lock ends with the process, however that ends.

    Raises:
        FileExistsError: another process is training there.
        OSError: the folder can't be written to.
    """
    check_parent(out)
    path = out.with_name(f".{run_path(out).name}.lock")
    try:
        file = path.open("a")
    except OSError as error:
        raise type(error)(f"{out.parent} can't be written to ({error.strerror}): choose another folder") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"another process is training at {run_path(out)}: let it end, or choose another folder"
                raise FileExistsError(message) from error
            # Or the file is one that a process has removed that ended just now: the next one locks another.
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise FileExistsError(f"another process was training at {run_path(out)} until now: try again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its checkpoint, and what must stay the same for the run to be resumed.

    Attributes:
        path: see `run_path`.
        description: the settings and a fingerprint of the data; see `describe_run`.
        goes_on: whether there is an earlier run in the folder, to be resumed.
    """

    path: Path
    description: Mapping[str, Any]
    goes_on: bool

    @classmethod
    def check(cls, out: Path, if_exists: IfExists, description: Mapping[str, Any]) -> RunFolder:
        """The run of a model at `out`; changes nothing yet.

        Raises:
            FileExistsError: there is a model or an unfinished run and `if_exists` is "error", or something else.
            FileNotFoundError: the parent folder is missing.
            PermissionError: it can't be written to.
            ConfigError: the run to resume had other settings or data.
        """
        if if_exists not in get_args(IfExists):
            raise ConfigError(f"if_exists must be one of {', '.join(get_args(IfExists))}; got {if_exists!r}")
        check_parent(out)
        check_replaceable(out, overwrite=if_exists != "error")
        path = run_path(out)
        run = cls(path, description, goes_on=if_exists == "resume" and path.exists())
        if path.exists():
            run._check_existing(if_exists)
        return run

    def _check_existing(self, if_exists: IfExists) -> None:
        if not (self.path / _DESCRIPTION).is_file():
            raise FileExistsError(f"{self.path} is needed for the training run, but is something else: move it away")
        if if_exists == "error":
            raise FileExistsError(f"there is an unfinished run at {self.path}: resume it, or overwrite to start over")
        if if_exists == "resume":
            try:
                stored = json.loads((self.path / _DESCRIPTION).read_text(encoding="utf-8"))
            except ValueError as error:
                message = f"{self.path / _DESCRIPTION} is damaged: remove {self.path} to start over"
                raise FormatError(message) from error
            self.check_same(stored, f"the unfinished run at {self.path}")

    def check_same(self, stored: Mapping[str, Any], what: str) -> None:
        """Raises a ConfigError unless the stored description is this run's."""
        names = sorted(self.description.keys() | stored.keys())
        if changed := [name for name in names if self.description.get(name) != stored.get(name)]:
            raise ConfigError(f"{what} had other values of {', '.join(changed)}: use the same, or overwrite it")

    def start(self) -> None:
        """Makes the folder, in place of an earlier run's."""
        self.remove()
        # With its description from the first moment on, or it would not be known as a run's folder.
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.mkdir(exist_ok=True)
        with written_to(self.path):
            (partial / _DESCRIPTION).write_text(json.dumps(self.description, indent=2) + "\n", encoding="utf-8")
        partial.rename(self.path)

    @property
    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.path)

    def save_clusters(self, clusters: Clusters) -> None:
        """Keeps the initial clusters, so that a run resumed before its first checkpoint needn't make them again."""
        with replacing(self.path / _CLUSTERS) as partial:
            save_tensors(partial, {"labels": np.concatenate(clusters), "sizes": np.array([len(c) for c in clusters])})

    def load_clusters(self) -> Clusters | None:
        """The label ids of each cluster; None if they were not saved."""
        if not (self.path / _CLUSTERS).exists():
            return None
        stored = load_tensors(self.path / _CLUSTERS)
        return np.split(stored["labels"], stored["sizes"].cumsum()[:-1])

    def remove_if_bare(self) -> None:
        """Removes a folder with nothing but its description: of a run that failed at once, there is nothing to keep."""
        if self.path.exists() and [entry.name for entry in self.path.iterdir()] == [_DESCRIPTION]:
            self.remove()

    def remove(self) -> None:
        """Removes the folder, if it is there, and what a removal that was killed has left."""
        # Under another name first, since half a folder would be known neither as a run's nor as none.
        removed = self.path.with_name(f".{self.path.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        if self.path.exists():
            self.path.rename(removed)
            shutil.rmtree(removed)


def finished_model(
    out: Path,
    if_exists: IfExists,
    description: Mapping[str, Any],
    train: Callable[[RunFolder], Callable[[], Model]],
) -> Model:
    """The model at `out`: one that is finished already, if it is to be resumed, or a new one.

    Args:
        out: its folder.
        if_exists: what to do with a model or an unfinished run there.
        description: what makes the run what it is.
        train: trains in a run's folder and gives a function that makes the model, in the first process.

    Raises:
        FileExistsError: see `RunFolder.check`, like the other errors.
    """
    run = distributed.from_first(lambda: RunFolder.check(out, if_exists, description))
    if if_exists == "resume" and out.exists() and not run.goes_on:
        finished = load_single(out)
        run.check_same(finished.settings, f"the model at {out}")
    else:
        made = train(run)
        distributed.from_first(lambda: made().save(out, overwrite=if_exists != "error"))
    distributed.from_first(run.remove)
    return load_single(out)


def describe_run(
    config: Config, train: TrainingSet, dev: TrainingSet | None, clusters: Clusters | None
) -> dict[str, Any]:
    """What makes a run what it is: its settings, and fingerprints of its data and of given clusters."""
    # Through JSON, so that it compares to what is read from a file.
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    for name in _CHANGEABLE:
        del settings[name]
    given = json.dumps([cluster.tolist() for cluster in clusters or []])
    return {
        **settings,
        "training_data": train.fingerprint(),
        "dev_data": None if dev is None else dev.fingerprint(),
        "given_clusters": None if clusters is None else hashlib.sha256(given.encode()).hexdigest(),
    }
