"""The demo: ICD-10-CM codes for short clinical texts, from raw data to a searched index.

Everything lands in one folder:

    data/train.jsonl, data/test.jsonl   the texts
    data/descriptions.json              code → its description
    model/                              the trained model
    training.json                       seconds of training so far, and stage 1's metrics
    report.json                         seconds by step, metrics by stage, queries per second
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
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
from elias_idx.model import Model, load_single
from elias_idx.predictor import Evaluation
from elias_idx.train import EpochResult, IfExists, TrainingSet, train_model
from elias_idx.train.run_folder import run_path

_METRICS = ("P@1", "P@3", "P@5", "R@10", "R@100")
_EXAMPLES = 5
_EXAMPLE_LABELS = 3
_SEARCH_SECONDS = 2.0


def run_demo(out: Path, config: Config | None = None) -> dict[str, Any]:
    """Prepares the data, trains, searches the test texts, prints a report and writes it to `report.json`.

    What an earlier run left is used again where it is up to date; an interrupted training goes on.

    Args:
        out: the folder to work in; created with its parents.
        config: settings; by default those of the preset fast.
    """
    config = config or Config(preset="fast")
    seconds: dict[str, float] = {}
    click.echo(f"preparing the data in {out / 'data'}")
    with _timed("data", seconds):
        _prepare_data(out / "data")
    train, test = (list(read_rows(out / "data" / f"{part}.jsonl")) for part in ("train", "test"))
    texts, labels = [row.text for row in test], [row.labels for row in test]
    click.echo(f"training on {len(train):,} texts")
    training = _train(out, config, train, (texts, labels))
    seconds["train"] = training["seconds"]

    with _timed("load", seconds):
        model = load_single(out / "model")
    with _timed("encode", seconds):
        embeddings = model.encode(texts)
    with _timed("search", seconds):
        model.index.search(embeddings, 100)
    report = {
        "settings": asdict(config),
        "seconds": seconds,
        "metrics": {"stage 1": training["stage 1"], "final": _shown(model.evaluate(texts, labels))},
        "queries_per_second": _throughput(model, embeddings),
    }
    _write_json(out / "report.json", report)
    _print_report(report)
    _print_examples(model, texts, labels, _read_json(out / "data" / "descriptions.json"))
    return report


def _prepare_data(folder: Path) -> None:
    """Writes the texts, unless they are there from the same version of the tabular list."""
    source = {"simple-icd-10-cm": icd10cm.installed_version(), "layout": 1}
    files = ["train.jsonl", "test.jsonl", "descriptions.json"]
    if _read_json(folder / "source.json") == source and all((folder / name).is_file() for name in files):
        return
    data = icd10cm.load()
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder / "train.jsonl", data.train)
    _write_rows(folder / "test.jsonl", data.test)
    _write_json(folder / "descriptions.json", data.descriptions)
    _write_json(folder / "source.json", source)


def _write_rows(path: Path, rows: list[Row]) -> None:
    write_rows(path, ({"text": row.text, "labels": row.labels} for row in rows))


def _train(out: Path, config: Config, rows: list[Row], test: tuple[list[str], list[list[str]]]) -> dict[str, Any]:
    """Trains the model unless it is up to date; returns the seconds that took and stage 1's metrics.

    Both are kept in `training.json` after every epoch, so that they survive an interruption. The time of
    evaluating stage 1 does not count.
    """
    data = TrainingSet([row.text for row in rows], [row.labels for row in rows])
    something_there = (out / "model").exists() or run_path(out / "model").exists()
    record = _read_json(out / "training.json") if something_there else {}
    started, counted = time.perf_counter(), 0.0

    def count_seconds() -> None:
        nonlocal counted
        elapsed = time.perf_counter() - started
        record["seconds"] = record.get("seconds", 0.0) + elapsed - counted
        counted = elapsed
        _write_json(out / "training.json", record)

    def after_epoch(result: EpochResult) -> None:
        nonlocal counted
        progress = result.progress
        click.echo(f"stage {progress.stage}, epoch {progress.epochs_done}: loss {progress.loss:.3f}")
        count_seconds()
        if progress.stage == 1 and result.ends_stage:
            record["stage 1"] = _shown(result.model().evaluate(*test))
            counted = time.perf_counter() - started
            _write_json(out / "training.json", record)

    try:
        if_exists: IfExists = "resume" if record else "overwrite"
        train_model(data, out / "model", config, if_exists=if_exists, on_epoch=after_epoch)
    except (ConfigError, FormatError):
        # What is there has other settings or data, or is damaged.
        record.clear()
        train_model(data, out / "model", config, if_exists="overwrite", on_epoch=after_epoch)
    if counted:
        count_seconds()
    else:
        click.echo(f"{out / 'model'} is up to date")
    return record


def _throughput(model: Model, embeddings: npt.NDArray[np.float32]) -> float:
    """Searches of the test embeddings, all at once and again and again, a second."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SEARCH_SECONDS:
        model.index.search(embeddings, 10)
        count += len(embeddings)
    return count / elapsed


def _shown(evaluation: Evaluation) -> dict[str, float]:
    return {name: evaluation.metrics[name] for name in _METRICS}


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


def _read_json(path: Path) -> dict[str, Any]:
    """What the file holds; nothing if it is missing or damaged, for then it is made again."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
