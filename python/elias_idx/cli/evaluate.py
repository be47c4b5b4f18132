"""The command `elias-idx evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from elias_idx._wording import counted
from elias_idx.cli.common import DATA, FILE, FOLDER, cli, explained, load_with_rows, whole_numbers
from elias_idx.data import read_excluded
from elias_idx.predictor import Evaluation


@cli.command(
    epilog="""\b
Examples:
  elias-idx evaluate model test.jsonl
  elias-idx evaluate model test.jsonl --k 1,3,5,10 --json > metrics.json
  elias-idx evaluate model LF-AmazonTitles-131K --filter LF-AmazonTitles-131K/filter_labels_test.txt"""
)
@click.argument("model", type=FOLDER)
@click.argument("test_data", metavar="DATA", type=DATA)
@click.option("--embeddings", type=FILE, help="the rows' embeddings (.npy, [N, D]) for the precomputed encoder")
@click.option("--filter", "filter_file", type=FILE, help="pairs of a row and a label that don't count, of an XMC set")
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
    loaded, data = load_with_rows(model, test_data, embeddings)
    excluded = read_excluded(filter_file, test_data, data) if filter_file else None
    result = loaded.evaluate(data.inputs, data.labels, label_names=data.label_names, excluded=excluded, **options)
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
