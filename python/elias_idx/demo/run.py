"""The demo: ICD-10-CM codes for short clinical texts, from raw data to a searched index.

Everything lands in one folder:

    data/train.jsonl, data/test.jsonl   the texts
    data/descriptions.json              code → its description
    model/                              the trained model
    report.json                         seconds by step, metrics by stage, queries per second
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from elias_idx.config import Config
from elias_idx.data import Row, read_rows, write_rows
from elias_idx.demo import icd10cm
from elias_idx.errors import ConfigError, FormatError
from elias_idx.files import replacing
from elias_idx.model import Model
from elias_idx.train import EpochResult, IfExists, TrainingSet, train_model

_METRICS = ("P@1", "P@3", "P@5", "R@10", "R@100")
_EXAMPLES = 5
_EXAMPLE_LABELS = 3
_SEARCH_SECONDS = 2.0


def run_demo(out: Path, config: Config | None = None) -> dict[str, Any]:
    """Prepares the data, trains, searches the test texts, prints a report and writes it to `report.json`.

    What an earlier run left is used again where it is up to date; an interrupted training goes on.

    Args:
        out: the folder to work in; created with its parents.
        config: settings other than the defaults.
    """
    config = config or Config()
    report = _read_report(out)
    seconds: dict[str, float] = {}
    with _timed("data", seconds):
        _prepare_data(out / "data")
    train, test = (list(read_rows(out / "data" / f"{part}.jsonl")) for part in ("train", "test"))
    descriptions = json.loads((out / "data" / "descriptions.json").read_text(encoding="utf-8"))

    texts, labels = [row.text for row in test], [row.labels for row in test]
    if _is_trained(out, config, report):
        click.echo(f"{out / 'model'} is up to date")
        seconds["train"] = report["seconds"]["train"]
    else:
        report = {"metrics": {}}
        seconds["train"] = _train(out, config, train, (texts, labels), report["metrics"])
    with _timed("load", seconds):
        model = Model.load(out / "model")
    with _timed("encode", seconds):
        embeddings = model.encode(texts)
    with _timed("search", seconds):
        report["metrics"]["final"] = _shown(model.evaluate(texts, labels).metrics)
    report |= {
        "settings": asdict(config),
        "seconds": seconds,
        "queries_per_second": _throughput(model, embeddings),
    }
    _write_report(out, report)
    _print_report(report)
    _print_examples(model, texts, labels, descriptions)
    return report


def _prepare_data(folder: Path) -> None:
    source = {"simple-icd-10-cm": version("simple-icd-10-cm"), "layout": 1}
    stamp = folder / "source.json"
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == source:
        return
    data = icd10cm.load()
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "train.jsonl", map(asdict, data.train))
    write_rows(folder / "test.jsonl", map(asdict, data.test))
    (folder / "descriptions.json").write_text(json.dumps(data.descriptions), encoding="utf-8")
    stamp.write_text(json.dumps(source), encoding="utf-8")


def _is_trained(out: Path, config: Config, report: dict[str, Any]) -> bool:
    """Whether the model is there, by this version's format, these settings and this data."""
    try:
        Model.load(out / "model")
    except (FileNotFoundError, FormatError):
        return False
    newer = (out / "model" / "model.json").stat().st_mtime >= (out / "data" / "train.jsonl").stat().st_mtime
    return newer and report.get("settings") == json.loads(json.dumps(asdict(config)))


def _train(
    out: Path,
    config: Config,
    rows: list[Row],
    test: tuple[list[str], list[list[str]]],
    metrics: dict[str, Any],
) -> float:
    """Trains the model, puts stage 1's metrics into `metrics`, and returns the seconds without its evaluation."""
    data = TrainingSet([row.text for row in rows], [row.labels for row in rows])
    stage1_metrics = out / "stage1.json"
    evaluating: dict[str, float] = {}

    def after_epoch(result: EpochResult) -> None:
        click.echo(f"stage {result.progress.stage}, epoch {result.progress.epochs_done}: loss {result.loss:.3f}")
        if result.progress.stage == 1 and result.ends_stage:
            with _timed("stage1", evaluating):
                found = _shown(result.model.evaluate(*test).metrics)
                stage1_metrics.write_text(json.dumps(found), encoding="utf-8")

    start = time.perf_counter()
    interrupted = (out / "model.training").exists()
    try:
        if_exists: IfExists = "resume" if interrupted else "overwrite"
        train_model(data, out / "model", config, if_exists=if_exists, on_epoch=after_epoch)
    except ConfigError:
        if not interrupted:
            raise
        # What was interrupted had other settings or data: start over.
        train_model(data, out / "model", config, if_exists="overwrite", on_epoch=after_epoch)
    metrics["stage 1"] = json.loads(stage1_metrics.read_text(encoding="utf-8"))
    return time.perf_counter() - start - evaluating.get("stage1", 0.0)


def _throughput(model: Model, embeddings: npt.NDArray[np.float32]) -> float:
    """Searches of the test embeddings, all at once and again and again, a second."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SEARCH_SECONDS:
        model.index.search(embeddings, 10)
        count += len(embeddings)
    return count / elapsed


def _shown(metrics: dict[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in _METRICS}


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


def _read_report(out: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return report


def _write_report(out: Path, report: dict[str, Any]) -> None:
    with replacing(out / "report.json") as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _print_report(report: dict[str, Any]) -> None:
    click.echo(f"\n{'':<10}" + "".join(f"{name:>8}" for name in _METRICS))
    for stage, metrics in report["metrics"].items():
        click.echo(f"{stage:<10}" + "".join(f"{metrics[name]:8.2f}" for name in _METRICS))
    click.echo("\nseconds    " + "   ".join(f"{step} {value:.1f}" for step, value in report["seconds"].items()))
    click.echo(f"search     {report['queries_per_second']:,.0f} queries per second")


def _print_examples(model: Model, texts: list[str], labels: list[list[str]], descriptions: dict[str, str]) -> None:
    chosen = range(0, len(texts), -(-len(texts) // _EXAMPLES))
    found = model.predict([texts[number] for number in chosen], _EXAMPLE_LABELS)
    for number, names, scores in zip(chosen, found.names, found.scores, strict=True):
        click.echo(f"\n{texts[number]}")
        for name, score in zip(names, scores, strict=True):
            mark = "*" if name in labels[number] else " "
            click.echo(f"  {mark} {score:.3f}  {name:<8} {descriptions[name]}")
    click.echo("\n* one of the text's true codes")
