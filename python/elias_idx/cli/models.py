"""The commands that describe, convert and join models: `elias-idx info`, `quantize` and `ensemble`."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from elias_idx._parts import described_parts, memory_by_part
from elias_idx._wording import counted, printable
from elias_idx.cli.common import FOLDER, cli, explained
from elias_idx.ensemble import Ensemble
from elias_idx.index import Dtype, Index
from elias_idx.model import Model, load_single


@cli.command(
    epilog="""\b
Example:
  elias-idx info model"""
)
@click.argument("model", type=FOLDER)
@explained
def info(model: Path) -> None:
    """Says what a model, an ensemble or a bare index is."""
    if (model / "index.json").is_file():
        _echo_index(Index.load(model))
        return
    loaded = Model.load(model)
    if isinstance(loaded, Model):
        _echo_model(model, loaded)
        return
    _echo_ensemble(loaded)
    for number, member in enumerate(loaded.members):
        click.echo()
        _echo_model(model / "members" / str(number), member)


@cli.command(
    epilog="""\b
Examples:
  elias-idx quantize model --dtype int8 --out small
  elias-idx quantize model --dtype bfloat16 --no-screen --out half"""
)
@click.argument("model", type=FOLDER)
@click.option("--dtype", type=click.Choice(typing.get_args(Dtype)), required=True, help="what label weights become")
@click.option("--out", type=FOLDER, required=True, help="folder of the new model")
@click.option("--screen/--no-screen", default=True, show_default=True, help="8-bit codes beside exact weights: faster")
@click.option("--overwrite", is_flag=True, help="replace a model (or index) at --out")
@explained
def quantize(model: Path, dtype: Dtype, out: Path, screen: bool, overwrite: bool) -> None:
    """Writes a model (or a bare index) anew with label weights of another dtype."""
    source = Index.load(model) if (model / "index.json").is_file() else Model.load(model)
    try:
        made = source.quantize(dtype, screen=screen, path=out, overwrite=overwrite)
    except ValueError as error:  # weights that the dtype can't be made of
        raise click.ClickException(printable(str(error))) from error
    click.echo(f"{out}: {made.index if isinstance(made, Model) else made!r}", err=True)


@cli.command(
    epilog="""\b
Examples:
  elias-idx ensemble model-a model-b model-c --out ensemble
  elias-idx evaluate ensemble test.jsonl"""
)
@click.argument("members", metavar="MODEL...", type=FOLDER, nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="folder of the ensemble, which gets copies of the models")
@click.option("--overwrite", is_flag=True, help="replace a model at --out")
@explained
def ensemble(members: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Joins models of the same labels to one that averages their scores.

    They may have been trained with different seeds, clusterings, settings or encoders. All other commands take an
    ensemble like a model.
    """
    made = Ensemble([load_single(member) for member in members])
    made.save(out, overwrite)
    click.echo(out, err=True)
    _echo_ensemble(made, err=True)


def _echo_ensemble(made: Ensemble, err: bool = False) -> None:
    num_labels, num_shared = made.num_labels, made.num_shared_labels
    click.echo(f"ensemble    {counted(len(made.members), 'model')} whose scores are averaged", err=err)
    known = "all known to all models"
    if num_shared < num_labels:
        known = f"of which {num_labels - num_shared:,} are not known to all models: their scores there count as 0"
    click.echo(f"labels      {num_labels:,}, {known}", err=err)
    encoders = "the same: its index takes embeddings" if made.has_one_encoder else "different: it predicts from texts"
    click.echo(f"encoders    {encoders}", err=err)
    if num_shared < num_labels / 2:
        shared = f"only {counted(num_shared, 'label')} in common"
        click.echo(f"warning: the models have {shared}: do they belong together?", err=True)


def _echo_model(path: Path, model: Model) -> None:
    click.echo(f"model       {path}")
    click.echo(f"encoder     {model.encoder.kind}, {model.encoder.dim} dimensions")
    click.echo(f"trained on  {model.num_training_texts:,} rows")
    click.echo(f"calibrated  {'yes: --calibrated gives probabilities' if model.has_calibration else 'no'}")
    _echo_index(model.index)
    for name, value in model.settings.items():
        click.echo(printable(f"  {name} = {value}"))


def _echo_index(index: Index) -> None:
    click.echo(f"labels      {index.num_labels:,}")
    click.echo(f"clusters    {index.num_clusters:,}, {len(index.adjacency.indices):,} edges to labels")
    click.echo(f"search      beam {index.beam_size}, shortlist {index.shortlist_size}, alpha {index.alpha:g}")
    if index.has_fusion:
        parts = {
            "sparse ranker": index.has_ranker,
            "neighbours": index.has_neighbours,
            "co-occurrence": index.has_cooccurrence,
        }
        named = ", ".join(["dense model", *(name for name, there in parts.items() if there)])
        click.echo(f"fusion      of {named}; {index.num_candidates} candidates")
    click.echo(f"stored as   {index.dtype}, {'with' if index.screen else 'without'} 8-bit codes to screen by")
    click.echo(f"index size  {index.nbytes / 2**20:,.1f} MiB: {described_parts(memory_by_part([index]))}")
