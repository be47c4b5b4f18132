"""Trains on the demo's fit split and evaluates on its dev split: how settings are chosen, away from the test texts.

    python benchmarks/icd10cm_dev.py --out dev-model --set dropout=0.2 --set stage1_epochs=6

Prints a line after each stage for several beams, for docs/experiments.md.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from elias_idx.config import Config
from elias_idx.data import Row
from elias_idx.demo import icd10cm
from elias_idx.model import Model
from elias_idx.train import EpochResult, TrainingSet, train_model

_BEAMS = ((5, 200), (10, 500), (20, 1000), (20, 2000), (40, 2000))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for the model, overwritten")
@click.option("--set", "settings", multiple=True, help="NAME=VALUE in JSON, such as dropout=0.2")
def main(out: Path, settings: tuple[str, ...]) -> None:
    """Trains with the given settings and prints dev metrics."""
    config = Config.from_mapping(dict(map(parse_setting, settings)))
    fit, dev = icd10cm.load().split_dev()
    start = time.perf_counter()

    def report(result: EpochResult) -> None:
        if result.ends_stage:
            click.echo(f"stage {result.progress.stage}, {time.perf_counter() - start:.0f} s: {' '.join(settings)}")
            print_metrics(result.model(), dev)

    data = TrainingSet([row.text for row in fit], [row.labels for row in fit])
    train_model(data, out, config, if_exists="overwrite", on_epoch=report)


def parse_setting(text: str) -> tuple[str, Any]:
    """Name and value of a setting written as NAME=VALUE, the value in JSON or a plain string."""
    name, value = text.split("=", 1)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def print_metrics(model: Model, rows: list[Row]) -> None:
    """Prints a line for each of several beams and shortlists."""
    texts, labels = [row.text for row in rows], [row.labels for row in rows]
    for beam_size, shortlist_size in _BEAMS:
        metrics = model.evaluate(texts, labels, beam_size=beam_size, shortlist_size=shortlist_size).metrics
        shown = "  ".join(f"{name} {metrics[name]:.2f}" for name in ("P@1", "P@3", "P@5", "R@10", "R@100"))
        click.echo(f"  B {beam_size:>2}, S {shortlist_size:>4}: {shown}")


if __name__ == "__main__":
    main()
