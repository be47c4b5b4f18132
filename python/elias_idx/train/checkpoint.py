"""Checkpoints of a training run, replaced atomically; no pickle, so that loading them runs no code.

    state.json                                  how far the run is, and what its epochs came to
    checkpoint-STAGE-EPOCHS-STEPS.safetensors   the newest state, and that of the stage's best epoch if it is another

`state.json` is written when the files that it stands for are whole, and only then are older ones removed: a crash at
any moment leaves this checkpoint or the one before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import scipy.sparse as sp
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from elias_idx.config import Config
from elias_idx.errors import FormatError
from elias_idx.files import replacing
from elias_idx.train.encoders import TrainableEncoder
from elias_idx.train.epoch import Trainee
from elias_idx.train.network import Adjacency, EliasNetwork
from elias_idx.train.optimizer import Optimizers
from elias_idx.train.ragged import Ragged

_STATE = "state.json"


@dataclass(frozen=True)
class Progress:
    """A finished epoch, and what it came to.

    Attributes:
        stage: 1 or 2; 0 for a first stage 1, after which labels are clustered again.
        epochs_done: finished epochs of that stage, this one included.
        loss: its mean training loss.
        metrics: of the model after it on dev data, in percent; empty without dev data.
    """

    stage: int
    epochs_done: int
    loss: float = field(default=math.nan, compare=False)
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Position:
    """A place in a run: finished epochs of a stage, and finished steps of the next one."""

    stage: int
    epochs_done: int = 0
    steps_done: int = 0

    @property
    def file_name(self) -> str:
        """The checkpoint's that was written there."""
        return f"checkpoint-{self.stage}-{self.epochs_done}-{self.steps_done}.safetensors"


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        position: where it is.
        loss_sum: the sum of the losses of the steps of the epoch under way.
        epochs: all finished epochs, both stages'.
    """

    position: Position
    loss_sum: float = 0.0
    epochs: tuple[Progress, ...] = ()

    @property
    def stage_epochs(self) -> tuple[Progress, ...]:
        """The finished epochs of the present stage."""
        return tuple(epoch for epoch in self.epochs if epoch.stage == self.position.stage)

    def after_step(self, loss: float) -> RunState:
        """The state when one more step is done."""
        position = replace(self.position, steps_done=self.position.steps_done + 1)
        return replace(self, position=position, loss_sum=self.loss_sum + loss)

    def after_epoch(self, metrics: Mapping[str, float]) -> RunState:
        """The state when the steps done are an epoch."""
        stage, epochs_done = self.position.stage, self.position.epochs_done + 1
        done = Progress(stage, epochs_done, self.loss_sum / self.position.steps_done, metrics)
        return RunState(Position(stage, epochs_done), epochs=(*self.epochs, done))


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in the folder of a run."""

    folder: Path

    def state(self) -> RunState | None:
        """The newest checkpoint's state; None if there is no checkpoint.

        Raises:
            FormatError: the file is damaged.
        """
        path = self.folder / _STATE
        if not path.exists():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            epochs = tuple(Progress(**epoch) for epoch in stored["epochs"])
            return RunState(Position(**stored["position"]), stored["loss_sum"], epochs)
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(path) from error

    def write(self, state: RunState, kept: Position, trainee: Trainee, optimizers: Optimizers) -> None:
        """Writes a checkpoint; then removes all others but the kept one.

        Raises:
            OSError: it can't be written.
        """
        optimizer_state = {f"optimizers.{name}": value for name, value in optimizers.state().items()}
        self._write_tensors(state.position, _weights(trainee) | optimizer_state, trainee)
        with replacing(self.folder / _STATE) as partial:
            partial.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
        self._remove_all_but({state.position, kept})

    def write_weights(self, position: Position, named: set[Position], trainee: Trainee) -> None:
        """Writes what `restore` reads, from which no run can go on; then removes all but that and the named.

        Args:
            position: where the run is.
            named: the positions of the newest checkpoint and of the best epoch before it.
            trainee: what is trained.

        Raises:
            OSError: it can't be written.
        """
        self._write_tensors(position, _weights(trainee), trainee)
        self._remove_all_but({position, *named})

    def _write_tensors(self, position: Position, tensors: Mapping[str, Tensor], trainee: Trainee) -> None:
        path = self.folder / position.file_name
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        metadata = {"beta": repr(trainee.network.adjacency.beta)}
        try:
            with replacing(path) as partial:
                save_file(contiguous, partial, metadata)
        except SafetensorError as error:
            # How safetensors reports a full disk.
            raise OSError(f"{path} can't be written: {error}") from error

    def _remove_all_but(self, positions: set[Position]) -> None:
        kept = {position.file_name for position in positions}
        # Partial files too, which a killed run leaves.
        for path in self.folder.glob("*checkpoint-*"):
            if path.name not in kept:
                path.unlink()

    def load_trainee(
        self, position: Position, encoder: TrainableEncoder, labels: sp.csr_matrix, config: Config
    ) -> Trainee:
        """The encoder and the network as they were at a checkpoint, the adjacency's pattern included.

        Args:
            position: the checkpoint's.
            encoder: the untrained encoder over the same inputs; its weights are replaced.
            labels: the texts' labels, CSR [N, L].
            config: the settings.
        """
        # Not all of the network, which `restore` reads: label classifiers may be most of the memory.
        stored = self._tensors(position, "network.adjacency.")
        lengths, adjacency_labels = stored["lengths"].tolist(), stored["labels"].numpy()
        rows = [row[:length] for row, length in zip(adjacency_labels, lengths, strict=True)]
        logits = stored.get("logits.weight")
        logit_rows = None
        if logits is not None:
            logit_rows = [row[:length] for row, length in zip(logits.numpy(), lengths, strict=True)]
        adjacency = Adjacency(rows, labels.shape[1], logit_rows, self._beta(position))
        network = EliasNetwork.from_config(encoder.dim, adjacency, config)
        device = torch.device(config.device)
        trainee = Trainee(encoder, network.to(device), Ragged.from_scipy(labels, device), config)
        self.restore(position, trainee)
        return trainee

    def restore(self, position: Position, trainee: Trainee) -> None:
        """Puts the weights of a checkpoint of the same stage into the trainee.

        Raises:
            FormatError: the file is damaged, missing, or another version's.
        """
        try:
            trainee.encoder.load_state_dict(self._tensors(position, "encoder."))
            trainee.network.load_state_dict(self._tensors(position, "network."))
        except RuntimeError as error:
            path = self.folder / position.file_name
            raise FormatError(f"{path} was written by another version: remove {self.folder} to start over") from error
        device = torch.device(trainee.config.device)
        trainee.average.load_state(self._tensors(position, "average."), device)
        trainee.network.adjacency.best_cluster.copy_(self._tensors(position, "best_cluster")[""])

    def load_optimizers(self, position: Position, optimizers: Optimizers) -> None:
        """Restores the optimisers' state."""
        optimizers.load_state(self._tensors(position, "optimizers."))

    def _tensors(self, position: Position, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with the prefix, without it."""
        path = self.folder / position.file_name
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not iterable)
                return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        except (SafetensorError, FileNotFoundError) as error:
            raise self._damaged(path) from error

    def _beta(self, position: Position) -> float:
        path = self.folder / position.file_name
        try:
            with safe_open(path, framework="pt") as file:
                return float(file.metadata()["beta"])
        except (SafetensorError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(path) from error

    def _damaged(self, path: Path) -> FormatError:
        return FormatError(f"{path} is damaged or missing: remove {self.folder} to start over")


def _weights(trainee: Trainee) -> dict[str, Tensor]:
    """All weights, and what else a model at the end of an epoch depends on."""
    return {
        **{f"encoder.{name}": value for name, value in trainee.encoder.state_dict().items()},
        **{f"network.{name}": value for name, value in trainee.network.state_dict().items()},
        **{f"average.{name}": value for name, value in trainee.average.state().items()},
        # Which is made anew at the start of an epoch only.
        "best_cluster": trainee.network.adjacency.best_cluster,
    }
