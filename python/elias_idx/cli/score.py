"""The command `elias-idx score`."""

from __future__ import annotations

import functools
import math
import typing
from pathlib import Path
from typing import Any

import click

from elias_idx._wording import counted
from elias_idx.cli.common import cli, explained
from elias_idx.cli.interruption import stoppable
from elias_idx.index import Dtype


def _names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    """Reads names with a comma between each two."""
    return [name.strip() for name in value.split(",")] if value else []


@cli.command(
    epilog="""\b
Examples:
  elias-idx score model texts.parquet --out scores --keep id,lang
  elias-idx score model 's3://bucket/docs/*.parquet' --text-column body --keep id --out scores
  elias-idx score index embeddings.npy --out scores --k 20 --num-threads 8"""
)
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder of the results")
@click.option("--text-column", help="column of the texts  [default: text]")
@click.option("--embedding-column", help="column of query embeddings instead, lists of floats  [default: embedding]")
@click.option("--keep", callback=_names, default="", help="columns to carry over, as in id,lang")
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="labels a row")
@click.option("--min-score", type=float, help="labels with a lower score are left out")
@click.option("--beam-size", type=click.IntRange(min=1), help="clusters searched; by default the index's")
@click.option("--shortlist-size", type=click.IntRange(min=1), help="labels scored; by default the index's")
@click.option(
    "--fusion/--no-fusion", default=True, help="scores of the fusion, if the model has one, or the dense model's"
)
@click.option("--calibrated", is_flag=True, help="probabilities as scores, of a model with a calibration")
@click.option(
    "--dtype",
    type=click.Choice(typing.get_args(Dtype)),
    help="what label weights are converted to in memory before the first search; by default they stay mapped, as they "
    "are stored (`elias-idx quantize` stores them in another one for good)",
)
@click.option(
    "--num-threads", type=click.IntRange(min=1), help="that encode and search; by default all CPUs that may be used"
)
@click.option("--batch-rows", type=click.IntRange(min=1), default=4096, show_default=True, help="rows scored at once")
@click.option("--part-rows", type=click.IntRange(min=1), default=131_072, show_default=True, help="rows of a part")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "null"]),
    default="raise",
    show_default=True,
    help="a row that is null, of the wrong length or not finite ends the job, or gets null labels and scores",
)
@click.option("--overwrite", is_flag=True, help="replace results of another job at --out")
@explained
def score(model: Path, inputs: tuple[str, ...], min_score: float | None, **options: Any) -> None:
    """Writes labels and scores of each row of INPUT... to Parquet files, in order, best label first.

    INPUT is a file, a folder or a glob (in quotes) of Parquet (.parquet), JSON lines (.jsonl, .json, .ndjson), CSV
    (.csv) or embeddings (.npy, [N, D]); or such a URI: s3://, gs://, hdfs:// and what fsspec knows. MODEL is a model,
    an ensemble or a bare index.

    A job that was interrupted, even killed, goes on where it stopped when the same command is given again.
    """
    from elias_idx.score import score as run

    if min_score is not None and math.isnan(min_score):
        raise click.UsageError("--min-score must be a number")
    out = options["out"]
    with stoppable(lambda: "The same command goes on where it stopped."):
        manifest = run(model, inputs, min_score=min_score, say=functools.partial(click.echo, err=True), **options)
    bad = f", {manifest.null_rows:,} of them null, as they could not be scored" if manifest.null_rows else ""
    click.echo(f"{out}: {manifest.rows:,} rows{bad}, in {counted(len(manifest.parts), 'part')}", err=True)
