"""Checkpoints of a training run: one safetensors file, replaced atomically; no pickle, so loading runs no code."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
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

_FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        stage: 1 or 2.
        epochs_done: finished epochs of that stage.
        loss: the mean training loss of the last one.
    """

    stage: int
    epochs_done: int
    loss: float = field(default=math.nan, compare=False)


def save_checkpoint(folder: Path, progress: Progress, trainee: Trainee, optimizers: Optimizers) -> None:
    """Writes the state after an epoch; a crash at any moment leaves this checkpoint or the one before."""
    tensors = {f"encoder.{name}": value for name, value in trainee.encoder.state_dict().items()}
    tensors |= {f"network.{name}": value for name, value in trainee.network.state_dict().items()}
    tensors |= {f"optimizers.{name}": value for name, value in optimizers.state().items()}
    beta = trainee.network.adjacency.beta
    metadata = {"progress": json.dumps({**asdict(progress), "beta": beta})}
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(folder / _FILE) as partial:
            save_file(contiguous, partial, metadata)
    except SafetensorError as error:
        # How safetensors reports a full disk.
        raise OSError(f"{folder / _FILE} can't be written: {error}") from error


def read_progress(folder: Path) -> Progress | None:
    """How far the run in the folder has come, None where no epoch has been finished."""
    if not (folder / _FILE).exists():
        return None
    stored = _metadata(folder)
    return Progress(int(stored["stage"]), int(stored["epochs_done"]), stored["loss"])


def load_trainee(folder: Path, encoder: TrainableEncoder, labels: sp.csr_matrix, config: Config) -> Trainee:
    """The encoder and the network as they were at the checkpoint, the adjacency's pattern included.

    Args:
        folder: of the run.
        encoder: the untrained encoder over the same inputs; its weights are replaced.
        labels: the texts' labels, CSR [N, L].
        config: the settings.
    """
    stored = _tensors(folder, "network.")
    present, adjacency_labels = stored["adjacency.present"], stored["adjacency.labels"]
    counts = present.sum(1).tolist()
    rows = [row.numpy() for row in adjacency_labels[present].split(counts)]
    logits = stored.get("adjacency.logits")
    logit_rows = None if logits is None else [row.numpy() for row in logits[present].split(counts)]
    adjacency = Adjacency(rows, labels.shape[1], logit_rows, _metadata(folder)["beta"])
    network = EliasNetwork(encoder.dim, adjacency, alpha=config.alpha, label_bias=config.label_bias)
    network.load_state_dict(stored)
    encoder.load_state_dict(_tensors(folder, "encoder."))
    device = torch.device(config.device)
    return Trainee(encoder, network.to(device), Ragged.from_scipy(labels, device), config)


def load_optimizers(folder: Path, optimizers: Optimizers) -> None:
    """Restores the optimisers' state."""
    optimizers.load_state(_tensors(folder, "optimizers."))


def _tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    try:
        with safe_open(folder / _FILE, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not iterable)
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise _damaged(folder) from error


def _metadata(folder: Path) -> dict[str, float]:
    try:
        with safe_open(folder / _FILE, framework="pt") as file:
            stored: dict[str, float] = json.loads(file.metadata()["progress"])
            return stored
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> FormatError:
    return FormatError(f"{folder / _FILE} is damaged: remove {folder} to start over")
