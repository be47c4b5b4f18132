"""Logs for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from elias_idx.errors import MissingExtraError
from elias_idx.train import distributed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Writes what happens in training as TensorBoard's event files, or nothing at all.

    Steps are counted from the start of stage 1, as if no stage ended early, so that a resumed run goes on with the
    same numbers; what an interrupted run logged beyond its checkpoint is replaced.

    Args:
        folder: of the event files; None logs nothing.

    Raises:
        MissingExtraError: the package tensorboard is not installed.
        OSError: the folder can't be made.
    """

    def __init__(self, folder: str | PathLike[str] | None) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._last_step_at = 0.0
        if folder is not None:
            _check_installed()
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise type(error)(f"TensorBoard's folder {folder} can't be made: {error.strerror}") from error

    def start(self, step: int) -> None:
        """Opens the log, whose next step has the given number."""
        self._last_step_at = time.perf_counter()
        if self._folder is not None and distributed.is_first():
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Logs a step that has just been done, and the label classifiers' learning rate in it."""
        now = time.perf_counter()
        if self._writer is not None:
            self._writer.add_scalar("train/loss", loss, step)
            self._writer.add_scalar("train/learning_rate", learning_rate, step)
            self._writer.add_scalar("train/seconds_per_step", now - self._last_step_at, step)
        self._last_step_at = now

    def epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the dev metrics after an epoch, whose last step is given."""
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(f"dev/{name}", value, step)
            self._writer.flush()
        self._last_step_at = time.perf_counter()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _check_installed() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorboard", "tensorboard") from error
