"""What the commands share: their group, their errors, and models with the rows that they are tried on."""

from __future__ import annotations

import errno
import functools
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import elias_idx
from elias_idx._wording import printable
from elias_idx.cli.interruption import stoppable
from elias_idx.data import TrainingSet, read_training_set
from elias_idx.ensemble import Ensemble
from elias_idx.errors import DataError, EliasIdxError
from elias_idx.model import Model, check_replaceable

_Command = TypeVar("_Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
DATA = click.Path(path_type=Path, exists=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(elias_idx.__version__)
def cli() -> None:
    """Learned search indexes for predicting the few right labels out of millions."""


def explained(command: _Command) -> _Command:
    """Turns the errors that a user can mend into a message without a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with stoppable():
                return command(*args, **kwargs)
        except BrokenPipeError:
            # Whoever reads the output has seen enough; click ends quietly.
            raise
        except (EliasIdxError, OSError, MemoryError) as error:
            raise click.ClickException(_message(error)) from error

    return typing.cast(_Command, run)


def _message(error: Exception) -> str:
    """What is wrong, and what to do about it where the error itself doesn't say."""
    message = printable(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{message}: make room there, and try again"
    return message


def whole_numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Reads whole numbers with a comma between each two, if there is anything to read."""
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} must be positive whole numbers with a comma between each two, as in 1,3,5")
    return tuple(map(int, parts))


def check_output(model: Path, out: Path | None, overwrite: bool) -> None:
    """Refuses, before any work, a folder that a changed model can't or must not be written to; None for its own."""
    target = (out or model).absolute()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder: create it first")
    check_replaceable(target, overwrite=overwrite or out is None)


def load_with_rows(
    model: Path, data: Path, embeddings: Path | None, mmap: bool = True
) -> tuple[Model | Ensemble, TrainingSet]:
    """A model and labelled rows to try it on, with the embeddings that it takes in place of texts, if it does."""
    loaded = Model.load(model, mmap=mmap)
    if loaded.takes_embeddings != (embeddings is not None):
        raise DataError(f"{model} takes {'texts' if embeddings else 'embeddings: give --embeddings'}")
    return loaded, read_training_set(data, embeddings=embeddings, split="tst")
