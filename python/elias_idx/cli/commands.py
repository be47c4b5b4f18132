"""The commands of `elias-idx`. Each reads its files, calls the library and prints."""

from __future__ import annotations

import errno
import functools
import json
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from tqdm import tqdm

import elias_idx
from elias_idx import LabelFilter
from elias_idx._parts import described_parts, memory_by_part
from elias_idx._wording import counted, printable
from elias_idx.cli.interruption import stop
from elias_idx.config import Config
from elias_idx.data import (
    Inputs,
    TrainingSet,
    num_rows,
    read_excluded,
    read_inputs,
    read_label_texts,
    read_training_set,
    write_rows,
)
from elias_idx.data.lines import json_line
from elias_idx.ensemble import Ensemble
from elias_idx.ensemble_index import EnsembleFilter
from elias_idx.errors import DataError, EliasIdxError
from elias_idx.index import Dtype, Index
from elias_idx.model import Model, check_replaceable, load_single
from elias_idx.predictor import Evaluation, Predictor

if TYPE_CHECKING:
    from elias_idx.train import EpochResult

_Command = TypeVar("_Command", bound=Callable[..., Any])

_ROWS_AT_ONCE = 4096
_GO_ON = "The same command with --resume goes on from the last checkpoint."

_FOLDER = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_DATA = click.Path(path_type=Path, exists=True)


def whole_numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Reads whole numbers with a comma between each two, if there is anything to read."""
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} must be positive whole numbers with a comma between each two, as in 1,3,5")
    return tuple(map(int, parts))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(elias_idx.__version__)
def cli() -> None:
    """Learned search indexes for predicting the few right labels out of millions."""


def explained(command: _Command) -> _Command:
    """Turns the errors that a user can mend into a message without a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            # Whoever reads the output has seen enough; click ends quietly.
            raise
        except (EliasIdxError, OSError, MemoryError) as error:
            raise click.ClickException(_message(error)) from error
        except KeyboardInterrupt as interrupt:
            stop(interrupt)

    return typing.cast(_Command, run)


def _message(error: Exception) -> str:
    """What is wrong, and what to do about it where the error itself doesn't say."""
    message = printable(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{message}: make room there, and try again"
    return message


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
@click.argument("train_data", metavar="DATA", type=_DATA)
@click.option("--out", type=_FOLDER, required=True, help="folder of the new model")
@click.option("--dev", type=_DATA, help="rows to evaluate on after every epoch")
@click.option("--refit", is_flag=True, help="train the final model on the rows of --dev too")
@click.option("--embeddings", type=_FILE, help="the rows' embeddings (.npy, [N, D]) for the precomputed encoder")
@click.option("--dev-embeddings", type=_FILE, help="the same for the rows of --dev")
@click.option("--group-field", help="field of the rows: those where it is the same are held out together, if at all")
@click.option("--clusters", type=_FILE, help='JSON lines of {"label": ..., "cluster": ...}: the initial clusters')
@click.option("--labels", "label_file", type=_FILE, help='JSON lines of {"label", "text", "parents"}: labels\' names')
@click.option("--config", "config_file", type=_FILE, help="TOML file of settings; options take precedence")
@click.option("--tensorboard", type=_FOLDER, help="folder for TensorBoard's logs")
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
        model = pipeline.train_model(
            data, out, config, dev=dev_data, refit=refit, clusters=cluster_names, if_exists=if_exists,
            check_memory=not ignore_memory, log_dir=tensorboard, on_epoch=report,
            on_line=functools.partial(click.echo, err=True),
        )  # fmt: skip
    except KeyboardInterrupt as interrupt:
        stop(interrupt, _GO_ON if run_path(out).exists() else "")
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


@cli.command(
    epilog="""\b
Examples:
  elias-idx predict model texts.jsonl --out predictions.jsonl --k 5
  elias-idx predict model texts.jsonl --out predictions.jsonl --allow names.txt --min-score 0.1
  elias-idx predict model embeddings.npy --out predictions.jsonl"""
)
@click.argument("model", type=_FOLDER)
@click.argument("inputs", metavar="INPUT", type=_DATA)
@click.option("--out", type=_FOLDER, required=True, help="JSON lines to write; - for standard output")
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="labels a row")
@click.option("--beam-size", type=click.IntRange(min=1), help="clusters searched; by default the index's")
@click.option("--shortlist-size", type=click.IntRange(min=1), help="labels scored; by default the index's")
@click.option("--num-threads", type=click.IntRange(min=1), help="by default all CPUs that the process may use")
@click.option(
    "--fusion/--no-fusion", default=True, help="scores of the fusion, if the model has one, or the dense model's"
)
@click.option("--allow", type=_FILE, help="the only labels to predict: a text file with a name a line")
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


def check_output(model: Path, out: Path | None, overwrite: bool) -> None:
    """Refuses, before any work, a folder that a changed model can't or must not be written to; None for its own."""
    target = (out or model).absolute()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder: create it first")
    check_replaceable(target, overwrite=overwrite or out is None)


def _check_file(out: Path, overwrite: bool) -> None:
    """Refuses, before any work, a file that can't or must not be written."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is no folder: create it first")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists: choose another path, or give --overwrite")
    if out.exists() and not out.is_file():
        raise FileExistsError(f"{out} is no regular file, so it can't be replaced; --out - writes to standard output")


@cli.command(
    epilog="""\b
Examples:
  elias-idx evaluate model test.jsonl
  elias-idx evaluate model test.jsonl --k 1,3,5,10 --json > metrics.json
  elias-idx evaluate model LF-AmazonTitles-131K --filter LF-AmazonTitles-131K/filter_labels_test.txt"""
)
@click.argument("model", type=_FOLDER)
@click.argument("test_data", metavar="DATA", type=_DATA)
@click.option("--embeddings", type=_FILE, help="the rows' embeddings (.npy, [N, D]) for the precomputed encoder")
@click.option("--filter", "filter_file", type=_FILE, help="pairs of a row and a label that don't count, of an XMC set")
@click.option(
    "--k", "ks", callback=whole_numbers, default="1,3,5", show_default=True, help="cut-offs of all but recall"
)
@click.option(
    "--recall-k", "recall_ks", callback=whole_numbers, default="10,100", show_default=True, help="recall's cut-offs"
)
@click.option("--propensity", type=float, nargs=2, default=(0.55, 1.5), show_default=True, help="a and b of PSP@k")
@click.option("--beam-size", type=click.IntRange(min=1), help="clusters searched; by default the index's")
@click.option("--shortlist-size", type=click.IntRange(min=1), help="labels scored; by default the index's")
@click.option("--num-threads", type=click.IntRange(min=1), help="by default all CPUs that the process may use")
@click.option(
    "--fusion/--no-fusion", default=True, help="scores of the fusion, if the model has one, or the dense model's"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@explained
def evaluate(
    model: Path,
    test_data: Path,
    embeddings: Path | None,
    filter_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Prints P@k, nDCG@k, recall@k, the propensity-scored PSP@k and PSnDCG@k, and macro averages, in percent.

    Below stands how much of P@k comes from frequent (head), middling (torso) and rare labels (tail), each with a third
    of all labels' uses in training, and what share of their uses is among the first k (recall).

    DATA has labelled rows in any format that `train` takes.
    """
    loaded = Model.load(model)
    if loaded.takes_embeddings != (embeddings is not None):
        raise DataError(f"{model} takes {'texts' if embeddings else 'embeddings: give --embeddings'}")
    data = read_training_set(test_data, embeddings=embeddings, split="tst")
    excluded = read_excluded(filter_file, test_data, data) if filter_file else None
    result = _evaluate(loaded, data, excluded=excluded, **options)
    if as_json:
        click.echo(json.dumps(_as_json(result), ensure_ascii=False))
        return
    for name, value in result.metrics.items():
        click.echo(f"{name:<12} {value:6.2f}")
    _echo_groups(result.groups)
    handled = "left out" if excluded is None else "counted as zeros"
    texts = counted(result.num_texts, "text")
    click.echo(f"{texts}, {result.num_without_labels:,} of them without labels and {handled}")
    click.echo(f"labels never seen in training, which can't be predicted: {len(result.unseen_labels)}")


def _echo_groups(groups: dict[str, dict[str, float]]) -> None:
    """Prints a line for each group of labels."""
    columns = list(groups["head"])
    click.echo("\n" + f"{'':<6}" + "".join(f"{column:>10}" for column in columns))
    for name, values in groups.items():
        shown = (f"{values[column]:10.2f}" if "@" in column else f"{values[column]:10,}" for column in columns)
        click.echo(f"{name:<6}" + "".join(shown))
    click.echo()


def _as_json(result: Evaluation) -> dict[str, Any]:
    return {**result._asdict(), "unseen_labels": len(result.unseen_labels)}


@cli.command(
    epilog="""\b
Example:
  elias-idx info model"""
)
@click.argument("model", type=_FOLDER)
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
@click.argument("model", type=_FOLDER)
@click.option("--dtype", type=click.Choice(typing.get_args(Dtype)), required=True, help="what label weights become")
@click.option("--out", type=_FOLDER, required=True, help="folder of the new model")
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
@click.argument("members", metavar="MODEL...", type=_FOLDER, nargs=-1, required=True)
@click.option("--out", type=_FOLDER, required=True, help="folder of the ensemble, which gets copies of the models")
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


@cli.command(
    epilog="""\b
Example:
  elias-idx demo --out artifacts/demo"""
)
@click.option("--out", type=_FOLDER, default=Path("artifacts/demo"), show_default=True, help="folder to work in")
@explained
def demo(out: Path) -> None:
    """Trains on ICD-10-CM, searches its test texts and prints how well that went."""
    from elias_idx.demo.run import run_demo

    run_demo(out)


def _evaluate(model: Predictor, data: TrainingSet, **options: Any) -> Evaluation:
    return model.evaluate(data.inputs, data.labels, label_names=data.label_names, **options)


def _inputs(path: Path, needs_embeddings: bool) -> Inputs:
    if needs_embeddings != (path.suffix == ".npy"):
        wanted = (
            "an array of embeddings (.npy)" if needs_embeddings else "texts or features, in a file as `train` takes"
        )
        raise DataError(f"this model takes {wanted}, got {path}")
    return read_inputs(path)
