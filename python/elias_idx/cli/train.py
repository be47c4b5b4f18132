"""The command `elias-idx train`."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from elias_idx.cli.common import DATA, FILE, FOLDER, cli, explained
from elias_idx.cli.interruption import stoppable
from elias_idx.config import Config
from elias_idx.data import read_label_texts, read_training_set
from elias_idx.model import check_replaceable

if TYPE_CHECKING:
    from elias_idx.train import EpochResult

_Command = TypeVar("_Command", bound=Callable[..., Any])

_GO_ON = "The same command with --resume goes on from the last checkpoint."


def _config_options(command: _Command) -> _Command:
    """Adds an option for every field of the configuration."""
    hints = typing.get_type_hints(Config)
    for item in reversed(fields(Config)):
        hint = next(part for part in (*typing.get_args(hints[item.name]), hints[item.name]) if part is not type(None))
        pair = typing.get_origin(hints[item.name]) is tuple
        default = " ".join(map(str, item.default)) if pair and item.default else item.default
        option = f"--{item.name.replace('_', '-')}"
        command = click.option(
            f"{option}/{option.replace('--', '--no-', 1)}" if hint is bool else option,
            type=int if pair else hint,
            nargs=2 if pair else 1,
            default=None,
            help=item.metadata["help"] + ("" if default is None else f"  [default: {default}]"),
        )(command)
    return command


@cli.command(
    epilog="""\b
Examples:
  elias-idx train train.jsonl --out model
  elias-idx train train.jsonl --dev dev.jsonl --out model --stage1-epochs 8
  elias-idx train train.jsonl --out model --config settings.toml --resume
  torchrun --nproc-per-node 2 -m elias_idx train train.jsonl --out model"""
)
@click.argument("train_data", metavar="DATA", type=DATA)
@click.option("--out", type=FOLDER, required=True, help="folder of the new model")
@click.option("--dev", type=DATA, help="rows to evaluate on after every epoch")
@click.option("--refit", is_flag=True, help="train the final model on the rows of --dev too")
@click.option("--embeddings", type=FILE, help="the rows' embeddings (.npy, [N, D]) for the precomputed encoder")
@click.option("--dev-embeddings", type=FILE, help="the same for the rows of --dev")
@click.option("--group-field", help="field of the rows: those where it is the same are held out together, if at all")
@click.option("--clusters", type=FILE, help='JSON lines of {"label": ..., "cluster": ...}: the initial clusters')
@click.option("--labels", "label_file", type=FILE, help='JSON lines of {"label", "text", "parents"}: labels\' names')
@click.option("--config", "config_file", type=FILE, help="TOML file of settings; options take precedence")
@click.option("--tensorboard", type=FOLDER, help="folder for TensorBoard's logs")
@click.option("--dry-run", is_flag=True, help="check everything; print settings, expected time and memory")
@click.option("--ignore-memory", is_flag=True, help="start even if the estimated memory is more than there is")
@click.option("--resume", is_flag=True, help="go on from the last checkpoint of an interrupted run")
@click.option("--overwrite", is_flag=True, help="replace a model or an unfinished run at --out")
@_config_options
@explained
def train(
    train_data: Path,
    out: Path,
    dev: Path | None,
    refit: bool,
    embeddings: Path | None,
    dev_embeddings: Path | None,
    group_field: str | None,
    clusters: Path | None,
    label_file: Path | None,
    config_file: Path | None,
    tensorboard: Path | None,
    dry_run: bool,
    ignore_memory: bool,
    resume: bool,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Trains a model on labelled texts, features or embeddings.

    DATA is a file of JSON lines of {"text": ..., "labels": [...]}, with an optional "relevance": [...] in (0, 1];
    a Parquet file (or a folder of them) with such columns; a .txt file in the bag-of-words format of the extreme
    classification repository; or a folder of its raw text. All but Parquet may be packed by gzip or xz.
    """
    from elias_idx.train import IfExists, distributed, memory, pipeline
    from elias_idx.train.given_clusters import read_clusters
    from elias_idx.train.run_folder import check_parent, run_path
    from elias_idx.train.selection import shown_metrics

    if resume and overwrite:
        raise click.UsageError("--resume goes on, --overwrite starts over: give one of them")
    if dev_embeddings and not dev:
        raise click.UsageError("--dev-embeddings are the embeddings of the rows of --dev: give both")
    if dev and (embeddings is None) != (dev_embeddings is None):
        raise click.UsageError("--embeddings and --dev-embeddings go together")
    if refit and not dev:
        raise click.UsageError("--refit trains on the rows of --dev too: give both")
    if group_field and dev:
        raise click.UsageError("--group-field is for texts that are held out, but with --dev there are none: drop it")
    given = {name: value for name, value in settings.items() if value is not None}
    config = Config.from_toml(config_file, given) if config_file else Config.from_mapping(given)
    if (config.encoder == "precomputed") != (embeddings is not None):
        raise click.UsageError("--embeddings and --encoder precomputed go together")
    check_parent(out.absolute())
    check_replaceable(out, overwrite=overwrite or resume)
    data = read_training_set(train_data, embeddings=embeddings, group_field=group_field)
    dev_data = read_training_set(dev, embeddings=dev_embeddings, split="tst") if dev else None
    if label_file is not None:
        label_texts = read_label_texts(label_file)
        data = data.with_label_texts(label_texts)
        # Labels that only its rows have are trained too.
        if refit and dev_data and not label_texts.keys().isdisjoint(dev_data.label_names):
            dev_data = dev_data.with_label_texts(label_texts)
    cluster_names = read_clusters(clusters) if clusters else None

    def report(result: EpochResult) -> None:
        progress = result.progress
        line = f"stage {progress.stage}, epoch {progress.epochs_done} of {result.num_epochs}: loss {progress.loss:.4f}"
        if progress.metrics:
            line += f"; {'dev' if dev else 'held-out'} {shown_metrics(progress.metrics, config.dev_metric)}"
        click.echo(line, err=True)
        if progress.metrics and result.ends_stage:
            click.echo(f"kept: stage {progress.stage}, epoch {result.best_epoch}{_early_end(result)}", err=True)

    if_exists: IfExists = "resume" if resume else "overwrite" if overwrite else "error"
    if dry_run:
        account = pipeline.dry_run(
            data, out, config, dev=dev_data, refit=refit, clusters=cluster_names, if_exists=if_exists,
            on_line=click.echo,
        )  # fmt: skip
        click.echo("\n".join(account.lines()))
        click.echo(memory.available_line())
        return
    if resume and not run_path(out).exists() and not out.exists():
        click.echo(f"there is nothing to resume at {out}: starting anew", err=True)
    try:
        with stoppable(lambda: _GO_ON if run_path(out).exists() else ""):
            model = pipeline.train_model(
                data, out, config, dev=dev_data, refit=refit, clusters=cluster_names, if_exists=if_exists,
                check_memory=not ignore_memory, log_dir=tensorboard, on_epoch=report,
                on_line=functools.partial(click.echo, err=True),
            )  # fmt: skip
    except OSError:
        if run_path(out).exists():
            click.echo(_GO_ON, err=True)
        raise
    if distributed.is_first():
        click.echo(f"{out}: {model.index!r}", err=True)
        test = " --embeddings TEST.npy" if embeddings else ""
        click.echo(f"next: elias-idx evaluate {out} TEST_DATA{test}", err=True)
        rows = "EMBEDDINGS.npy" if embeddings else "DATA"
        click.echo(f"      elias-idx predict {out} {rows} --out predictions.jsonl", err=True)


def _early_end(result: EpochResult) -> str:
    """Why a stage ended before its last epoch, if it did."""
    if (done := result.progress.epochs_done) == result.num_epochs:
        return ""
    return f"; none of the {done - result.best_epoch} after it was better, so the stage ends before epoch {done + 1}"
