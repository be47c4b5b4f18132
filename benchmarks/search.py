"""How fast elias_idx searches, beside what one could use instead, on the same work in the same run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/search.py --model artifacts/demo/model

Makes two data sets of Amazon-670K's shape in the cache folder (28 GB with all that is derived; some minutes the first
time), lets the contestants take turns on them and on the trained model, and writes dated results. With `--graph`
usearch takes part, whose graphs take long to build the first time.

A quick look: `--labels 20000 --dim 64 --clusters 256 --labels-per-cluster 500 --rounds 2 --out /tmp/results`.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy.sparse as sp

from elias_idx import Index
from elias_idx.data import LabelVocabulary, read_training_set
from elias_idx.model import Model
from harness import ann, bandwidth, data, environment, quality, report, with_torch
from harness.contestants import Contestant, Variant, Work, elias_idx
from harness.timing import Measured, time_in_turns

_CONTESTANTS = (
    *(
        elias_idx(Variant(dtype, screen))
        for dtype, screen in itertools.product(("float32", "bfloat16", "float16", "int8"), (True, False))
    ),
    *(elias_idx(Variant(dtype, mmap=True)) for dtype in ("float32", "bfloat16", "int8")),
    with_torch.TORCH,
    with_torch.TORCH_TUNED,
    ann.FAISS_FLAT,
    ann.FAISS_BF16,
)
_EFFORTS = ((1, 100), (2, 200), (5, 500), (10, 1000), (20, 2000), (40, 4000), (80, 8000))
"""B and S of the points of the curve on a trained model."""
_ALLOWED = (1.0, 0.5, 0.01, 0.0001)
"""The shares of labels that filters allow."""
_TRACED = {str(Variant("float32")), str(Variant("bfloat16")), str(Variant("int8", screen=False))}
"""The variants of elias_idx that the curve shows."""
_PACKAGES = ("elias_idx", "faiss-cpu", "numpy", "torch", "usearch")
_ANSWERED = 4096
_SCORED_EXHAUSTIVELY = 128
_CHECKED_BY_ORACLE = 16


@click.command(context_settings={"show_default": True})
@click.option("--data", "kinds", multiple=True, type=click.Choice(data.KINDS), default=data.KINDS, help="made data")
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="a trained model's folder, searched too")
@click.option(
    "--test", type=click.Path(path_type=Path), help="its test texts, JSON lines  [default: MODEL/../data/test.jsonl]"
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path(tempfile.gettempdir()) / "elias_bench",
    help="folder for data sets and indexes, kept",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="for results")
@click.option("--graph", is_flag=True, help="let usearch's HNSW graph take part")
@click.option("--only", multiple=True, help="contestants whose names contain this  [default: all]")
@click.option("--threads", multiple=True, type=click.IntRange(1), default=(1, 2))
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--labels", default=670_091, help="L")
@click.option("--dim", default=768, help="D")
@click.option("--clusters", default=8192, help="C")
@click.option("--labels-per-cluster", default=1000, help="κ")
@click.option("--queries", default=8192, help="Q")
@click.option("--beam-size", default=Work.beam_size, help="B")
@click.option("--shortlist-size", default=Work.shortlist_size, help="S")
@click.option("-k", default=Work.k, help="labels returned a query")
def main(
    kinds: tuple[str, ...],
    model: Path | None,
    test: Path | None,
    cache: Path,
    out: Path,
    graph: bool,
    only: tuple[str, ...],
    threads: tuple[int, ...],
    rounds: int,
    labels: int,
    dim: int,
    clusters: int,
    labels_per_cluster: int,
    queries: int,
    beam_size: int,
    shortlist_size: int,
    k: int,
) -> None:
    """Times elias_idx, PyTorch, faiss and usearch on the same work, in turns, and writes dated results."""
    all_contestants = (*_CONTESTANTS, ann.USEARCH_BF16) if graph else _CONTESTANTS
    contestants = [each for each in all_contestants if not only or any(part in each.name for part in only)]
    if not contestants:
        raise click.BadParameter(f"the contestants are: {', '.join(each.name for each in all_contestants)}")
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/search.py", *sys.argv[1:]]),
        "machine": environment.machine(),
        "versions": environment.versions(_PACKAGES),
        "settings": {"threads": threads, "rounds": rounds},
        "data_sets": [],
        "curve": [],
    }
    work = Work(beam_size, shortlist_size, k)
    shape = data.Shape(labels, dim, clusters, labels_per_cluster, queries)
    for kind in kinds:
        click.echo(f"making {kind} data in {cache}, unless it is there")
        dataset = data.load_or_make(kind, shape, cache)
        results["data_sets"].append(_compare(contestants, dataset, work, threads, rounds))
    if model is not None:
        dataset, relevant = _of_model(model, test or model.parent / "data" / "test.jsonl", cache)
        results["data_sets"].append(_compare(contestants, dataset, work, threads, rounds))
        results["curve"] = _trace(contestants, dataset, relevant, threads, rounds)
        results["all_labels"] = quality.against_truth(ann.exact_labels(dataset, dataset.queries, Work.k), relevant)
    results["load_average_at_end"] = os.getloadavg()[0]
    for path in report.write(results, out / f"search-{results['date']}"):
        click.echo(path)


def _compare(
    contestants: Sequence[Contestant], dataset: data.Dataset, work: Work, threads: Sequence[int], rounds: int
) -> dict[str, Any]:
    """All contestants on one data set."""
    queries = dataset.queries[:_ANSWERED]
    index = Index.load(dataset.index_folder)
    exact = quality.exact_search(dataset, queries, work)
    oracle = quality.oracle_search(index, queries[:_CHECKED_BY_ORACLE], work)
    nearest = ann.exact_labels(dataset, queries[:_SCORED_EXHAUSTIVELY], work.k)
    with_elias_idx = any(each.name.startswith("elias_idx") for each in contestants)
    differences = np.abs(exact.scores[: len(oracle.scores)] - oracle.scores) / np.maximum(oracle.scores, 1e-30)
    entries = [(each, work) for each in contestants]
    measured = time_in_turns(entries, dataset, queries, threads, rounds, click.echo)
    return {
        "name": dataset.name,
        "dims": {
            "num_labels": index.num_labels,
            "dim": index.dim,
            "num_clusters": index.num_clusters,
            "edges": len(index.adjacency.indices),
            "num_queries": len(queries),
        },
        "work": asdict(work),
        "floor": {str(count): bandwidth.floor(index, work.shortlist_size, count) for count in threads},
        "oracle": {
            "num_queries": len(oracle.labels),
            "overlap": quality.overlap(exact.labels[: len(oracle.labels)], oracle.labels),
            "largest_difference": float(differences.max()),
        },
        "contestants": [
            _summary(each)
            | {
                "overlap": quality.overlap(each.labels, exact.labels),
                "recall": quality.overlap(each.labels[: len(nearest)], nearest),
            }
            for each in measured
        ],
        "filters": _filter(dataset, queries, work, threads, rounds) if with_elias_idx else [],
    }


def _filter(
    dataset: data.Dataset, queries: data.FloatArray, work: Work, threads: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """elias_idx with filters that allow more or less."""
    variants = [Variant(allowed=share) for share in _ALLOWED]
    entries = [(elias_idx(variant), work) for variant in variants]
    measured = time_in_turns(entries, dataset, queries, threads, rounds, click.echo)
    exact = [quality.exact_search(dataset, queries, work, allowed=variant.allowed) for variant in variants]
    return [
        _summary(each) | {"overlap": quality.overlap(each.labels, expected.labels)}
        for each, expected in zip(measured, exact, strict=True)
    ]


def _trace(
    contestants: Sequence[Contestant],
    dataset: data.Dataset,
    relevant: sp.csr_matrix,
    threads: Sequence[int],
    rounds: int,
) -> list[dict[str, Any]]:
    """Quality and time of all contestants at several efforts."""
    works = [Work(beam_size, shortlist_size) for beam_size, shortlist_size in _EFFORTS]
    shown = [each for each in contestants if each.name in _TRACED or not each.name.startswith("elias_idx")]
    entries = [(each, work) for each in shown for work in works]
    measured = time_in_turns(entries, dataset, dataset.queries, [max(threads)], rounds, click.echo)
    return [_summary(each) | quality.against_truth(each.labels, relevant) for each in measured]


def _summary(measured: Measured) -> dict[str, Any]:
    return {
        "name": measured.name,
        "work": asdict(measured.work),
        "nbytes": measured.nbytes,
        "label_evaluations": measured.label_evaluations,
        "microseconds": {str(count): modes for count, modes in measured.microseconds.items()},
    }


def _of_model(folder: Path, test: Path, cache: Path) -> tuple[data.Dataset, sp.csr_matrix]:
    """A trained model's index with its test texts as queries, and their true labels."""
    model = Model.load(folder)
    test_set = read_training_set(test, split="tst")
    names = model.index.label_names
    if names is None:
        raise click.BadParameter(f"the index of {folder} has no label names, so its test texts can't be judged")
    relevant, _ = LabelVocabulary(names).renumber(test_set.labels, test_set.label_names)
    derived = cache / "model"
    derived.mkdir(parents=True, exist_ok=True)
    queries = model.encode(test_set.inputs)
    return data.Dataset("trained model", folder / "index", queries, None, derived), relevant


if __name__ == "__main__":
    main()
