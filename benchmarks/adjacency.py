"""What learning the adjacency gains: relevant labels found against labels evaluated, learned beside fixed.

    pip install -r benchmarks/requirements.txt
    python benchmarks/adjacency.py --set ICD-10-CM FIXED_MODEL LEARNED_MODEL TEXTS.jsonl

The models differ in stage 2 alone; for a fair comparison the fixed one is trained for as many epochs, such as
`--stage1-epochs 8 --stage2-epochs 0` beside `--stage1-epochs 4 --stage2-epochs 4`. With several `--set`, each gets its
own column in the figure.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt

from elias_idx.data import LabelVocabulary, TrainingSet, read_training_set
from elias_idx.metrics import evaluate
from elias_idx.model import Model
from harness import environment
from harness.markdown import described, row

_COLOURS = {"fixed": "tab:orange", "learned": "tab:blue"}
# The lines of beams.
_LINES = {5: "--", 20: "-"}
_SHORTLISTS = (12, 25, 50, 100, 200, 400, 800, 1600)
# What is shown of a search: all true labels that are in the shortlist, and those among its best.
_REACHED, _METRICS = "in the shortlist", ("P@1", "P@5", "R@10")


@dataclass(frozen=True)
class Point:
    """A search of all texts.

    Attributes:
        kind: of the adjacency.
        beam_size: B.
        shortlist_size: S.
        evaluated: labels that the label classifiers scored, the mean over the texts; fewer than S where the beam leads
            to fewer.
        metrics: in percent.
    """

    kind: str
    beam_size: int
    shortlist_size: int
    evaluated: float
    metrics: dict[str, float]


@click.command()
@click.option(
    "--set", "sets", type=(str, *[click.Path(exists=True, path_type=Path)] * 3), multiple=True, required=True,
    help="a name, the model with a fixed adjacency, the one with a learned, and texts with labels",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="folder")
@click.option("--num-threads", type=int, default=1, show_default=True)
def main(sets: Sequence[tuple[str, Path, Path, Path]], out: Path, num_threads: int) -> None:
    """Searches with both models of each set, and writes a figure and a table."""
    host = {"machine": environment.machine(), "versions": environment.versions(["numpy"])}
    results = {}
    for name, fixed, learned, texts in sets:
        data = read_training_set(texts, split="tst")
        results[name] = [
            point
            for kind, folder in zip(_COLOURS, (fixed, learned), strict=True)
            for point in searches(kind, Model.load(folder), data, num_threads)
        ]
    stem = out / f"adjacency-{date.today()}"
    draw(results, stem.with_suffix(".png"))
    host["load_average_at_end"] = os.getloadavg()[0]
    stem.with_suffix(".md").write_text("\n".join(_markdown(results, host, stem.name)) + "\n", encoding="utf-8")
    click.echo(f"wrote {stem}.md and .png")


def searches(kind: str, model: Model, data: TrainingSet, num_threads: int) -> Iterator[Point]:
    """The model's searches of the texts with each beam and shortlist."""
    names = model.index.label_names
    assert names is not None
    relevant, _ = LabelVocabulary(names).renumber(data.labels, data.label_names)
    queries = model.encode(data.inputs, num_threads)
    for beam_size in _LINES:
        for size in _SHORTLISTS:
            # As many labels as the shortlist has: all of it.
            found = model.index.search(
                queries, size, beam_size=beam_size, shortlist_size=size, num_threads=num_threads
            ).labels
            metrics = evaluate(found, relevant, ks=(1, 5), recall_ks=(10, size))
            shown = {_REACHED: metrics[f"R@{size}"], **{name: metrics[name] for name in _METRICS}}
            yield Point(kind, beam_size, size, float((found >= 0).sum(1).mean()), shown)


def draw(results: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Two figures a data set: true labels in the shortlist, and P@5, by labels evaluated."""
    shape = {"figsize": (4.5 * len(results), 7), "sharex": "col", "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(2, len(results), **shape)
    for column, (name, points) in zip(axes.T, results.items(), strict=True):
        column[0].set_title(name)
        for axis, metric in zip(column, (_REACHED, "P@5"), strict=True):
            for (kind, colour), (beam_size, line) in itertools.product(_COLOURS.items(), _LINES.items()):
                own = [point for point in points if (point.kind, point.beam_size) == (kind, beam_size)]
                places = [point.evaluated for point in own], [point.metrics[metric] for point in own]
                axis.plot(*places, line, color=colour, marker="o", markersize=4, label=f"{kind}, B = {beam_size}")
            axis.set_xscale("log")
            axis.grid(alpha=0.3)
        column[1].set_xlabel("labels evaluated a text")
    axes[0, 0].set_ylabel("true labels in the shortlist, %")
    axes[1, 0].set_ylabel("P@5, %")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _markdown(results: Mapping[str, Sequence[Point]], machine: Mapping[str, Any], name: str) -> Iterator[str]:
    yield f"# The learned adjacency beside the fixed one, {date.today()}\n"
    yield described(machine)
    yield f"Command: `{shlex.join([Path(sys.executable).name, *sys.argv])}`. All but the number of labels in percent.\n"
    yield f"![True labels in the shortlist and P@5 by labels evaluated]({name}.png)\n"
    for title, points in results.items():
        yield f"## {title}\n"
        for beam_size in _LINES:
            yield from _table(beam_size, [point for point in points if point.beam_size == beam_size])


def _table(beam_size: int, points: Sequence[Point]) -> Iterator[str]:
    shown = ("labels evaluated", _REACHED, *_METRICS)
    yield row(f"S at B = {beam_size}", *(f"{what}: fixed, learned" for what in shown))
    yield row("---:", *["---:"] * len(shown))
    for size in _SHORTLISTS:
        pair = [next(each for each in points if (each.kind, each.shortlist_size) == (kind, size)) for kind in _COLOURS]
        figures = [[point.evaluated, *point.metrics.values()] for point in pair]
        cells = [f"{fixed:.0f}, {learned:.0f}" for fixed, learned in zip(*(own[:1] for own in figures), strict=True)]
        cells += [f"{fixed:.2f}, {learned:.2f}" for fixed, learned in zip(*(own[1:] for own in figures), strict=True)]
        yield row(size, *cells)
    yield ""


if __name__ == "__main__":
    main()
