"""The command `elias-idx predict`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from elias_idx import LabelFilter
from elias_idx.cli.common import DATA, FILE, FOLDER, cli, explained
from elias_idx.data import Inputs, num_rows, read_inputs, write_rows
from elias_idx.data.lines import json_line
from elias_idx.ensemble_index import EnsembleFilter
from elias_idx.errors import DataError
from elias_idx.model import Model
from elias_idx.predictor import Predictor

_ROWS_AT_ONCE = 4096


@cli.command(
    epilog="""\b
Examples:
  elias-idx predict model texts.jsonl --out predictions.jsonl --k 5
  elias-idx predict model texts.jsonl --out predictions.jsonl --allow names.txt --min-score 0.1
  elias-idx predict model embeddings.npy --out predictions.jsonl"""
)
@click.argument("model", type=FOLDER)
@click.argument("inputs", metavar="INPUT", type=DATA)
@click.option("--out", type=FOLDER, required=True, help="JSON lines to write; - for standard output")
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="labels a row")
@click.option("--beam-size", type=click.IntRange(min=1), help="clusters searched; by default the index's")
@click.option("--shortlist-size", type=click.IntRange(min=1), help="labels scored; by default the index's")
@click.option("--num-threads", type=click.IntRange(min=1), help="by default all CPUs that the process may use")
@click.option(
    "--fusion/--no-fusion", default=True, help="scores of the fusion, if the model has one, or the dense model's"
)
@click.option("--allow", type=FILE, help="the only labels to predict: a text file with a name a line")
@click.option("--min-score", type=float, help="labels with a lower score are left out")
@click.option("--calibrated", is_flag=True, help="probabilities as scores, of a model with a calibration")
@click.option("--overwrite", is_flag=True, help="replace an existing output")
@explained
def predict(model: Path, inputs: Path, out: Path, allow: Path | None, overwrite: bool, **options: Any) -> None:
    """Writes {"labels": [...], "scores": [...]} for each row of INPUT, in order, best first.

    INPUT has the rows in any format that `train` takes, whose labels are ignored, or is a .npy file of embeddings.
    """
    to_stdout = str(out) == "-"
    if not to_stdout:
        _check_file(out, overwrite)
    if math.isnan(options["min_score"] or 0.0):
        raise click.UsageError("--min-score must be a number")
    loaded = Model.load(model)
    options["filter"] = None if allow is None else _label_filter(loaded, allow)
    rows = _inputs(inputs, needs_embeddings=loaded.takes_embeddings)

    def predictions() -> Iterator[dict[str, Any]]:
        with tqdm(total=num_rows(rows), desc="predict", unit="row", disable=None) as progress:
            for start in range(0, num_rows(rows), _ROWS_AT_ONCE):
                found = loaded.predict(rows[start : start + _ROWS_AT_ONCE], **options)
                for names, scores in zip(found.names, found.scores, strict=True):
                    yield {"labels": names, "scores": scores}
                progress.update(len(found.names))

    if to_stdout:
        for row in predictions():
            click.echo(json_line(row))
    else:
        write_rows(out.resolve(), predictions())


def _label_filter(model: Predictor, path: Path) -> LabelFilter | EnsembleFilter:
    """A filter of the labels that a file names line by line."""
    try:
        # `splitlines` would cut at characters that names may hold.
        return model.label_filter([line for line in path.read_text(encoding="utf-8").split("\n") if line])
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _check_file(out: Path, overwrite: bool) -> None:
    """Refuses, before any work, a file that can't or must not be written."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is no folder: create it first")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists: choose another path, or give --overwrite")
    if out.exists() and not out.is_file():
        raise FileExistsError(f"{out} is no regular file, so it can't be replaced; --out - writes to standard output")


def _inputs(path: Path, needs_embeddings: bool) -> Inputs:
    if needs_embeddings != (path.suffix == ".npy"):
        wanted = (
            "an array of embeddings (.npy)" if needs_embeddings else "texts or features, in a file as `train` takes"
        )
        raise DataError(f"this model takes {wanted}, got {path}")
    return read_inputs(path)
