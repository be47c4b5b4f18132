"""Times a training step of elias_idx against the usual implementation in torch, in turns, on the same batches.

    python benchmarks/train_step.py icd10cm
    python benchmarks/train_step.py 670K

The data are made up in the shape of real sets. Both stages are trained for some steps first; then both contestants go
on from the same weights. A quick look: `python benchmarks/train_step.py icd10cm --texts 5000 --rounds 2 --warm-up 10`.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from elias_idx.config import Config
from elias_idx.train.approximate_adjacency import approximate_adjacency
from elias_idx.train.auto import resolved_for_sizes
from elias_idx.train.batch import Batch
from elias_idx.train.encoders import build_encoder
from elias_idx.train.epoch import Trainee, train_steps
from elias_idx.train.optimizer import Optimizers
from elias_idx.train.stage1 import start_stage1
from elias_idx.train.stage2 import start_stage2
from harness import environment
from harness.generated_training import GeneratedTrainingSet, TrainingShape
from harness.markdown import described, row
from harness.plain_training import PlainStep

# Texts have 100 features about, as titles have n-grams.
_SHAPES = {
    "icd10cm": (TrainingShape(46_881, 512, 20_000, 4, 300_000, 100, 0), (256, 512), 500),
    "670K": (TrainingShape(670_091, 8192, 20_000, 8, 0, 0, 768), (768,), 1000),
}


@click.command(context_settings={"show_default": True})
@click.argument("name", type=click.Choice(tuple(_SHAPES)))
@click.option("--dim", "dims", multiple=True, type=click.IntRange(1), help="D  [default: NAME's]")
@click.option("--label-dtype", default="float32", type=click.Choice(("float32", "bfloat16")))
@click.option("--texts", type=click.IntRange(1), help="N  [default: NAME's]")
@click.option("--labels", type=click.IntRange(1), help="L  [default: NAME's]")
@click.option("--clusters", type=click.IntRange(1), help="C  [default: NAME's]")
@click.option("--threads", multiple=True, type=click.IntRange(1), default=(1,))
@click.option("--warm-up", default=60, type=click.IntRange(0), help="steps of each stage before it is timed")
@click.option("--rounds", default=7, type=click.IntRange(1), help="turns of each contestant")
@click.option("--steps", default=2, type=click.IntRange(1), help="of a turn")
@click.option("--alone", is_flag=True, help="only elias_idx, where memory is short")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="for results")
def main(
    name: str,
    dims: tuple[int, ...],
    label_dtype: str,
    texts: int | None,
    labels: int | None,
    clusters: int | None,
    threads: tuple[int, ...],
    warm_up: int,
    rounds: int,
    steps: int,
    alone: bool,
    out: Path,
) -> None:
    """Times steps at the shape of ICD-10-CM or Amazon-670K (NAME), and writes dated results."""
    shape, default_dims, labels_per_cluster = _SHAPES[name]
    shape = replace(
        shape,
        num_texts=texts or shape.num_texts,
        num_labels=labels or shape.num_labels,
        num_clusters=clusters or shape.num_clusters,
    )
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/train_step.py", *sys.argv[1:]]),
        "machine": environment.machine(),
        "versions": environment.versions(("elias_idx", "numpy", "torch")),
        "shape": asdict(shape),
        "settings": {"rounds": rounds, "steps": steps, "warm_up": warm_up, "label_dtype": label_dtype},
        "measured": [],
    }
    for dim in dims or default_dims:
        data = GeneratedTrainingSet(replace(shape, dim=dim), seed=0)
        encoder = "bag" if shape.num_features else "precomputed"
        config = Config(encoder=encoder, dim=dim, labels_per_cluster=labels_per_cluster, label_dtype=label_dtype)
        config = resolved_for_sizes(replace(config, num_clusters=shape.num_clusters), *data.labels.shape)
        trainee = start_stage1(build_encoder(config, data.inputs), data.labels, data.clusters, config)
        for stage in (1, 2):
            if stage == 2:
                start_stage2(trainee, approximate_adjacency(trainee, data.labels))
            optimizers = trainee.optimizers(100, 1.0)
            _warm_up(trainee, optimizers, warm_up)
            for num_threads in threads:
                measured = _measure(trainee, optimizers, num_threads, rounds, steps, alone=alone)
                results["measured"].append({"dim": dim, "stage": stage, "threads": num_threads} | measured)
                click.echo(_table_row(results["measured"][-1]))
    results["load_average_at_end"] = os.getloadavg()[0]
    stem = out / f"train_step-{name}-{results['date']}"
    out.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text("\n".join(_markdown(results)) + "\n", encoding="utf-8")
    click.echo(stem.with_suffix(".md").read_text(encoding="utf-8"))


def _warm_up(trainee: Trainee, optimizers: Optimizers, steps: int) -> None:
    done = 0
    while done < steps:
        done += sum(1 for _ in islice(train_steps(trainee, optimizers, seed=done), steps - done))


def _measure(
    trainee: Trainee, optimizers: Optimizers, num_threads: int, rounds: int, steps: int, *, alone: bool
) -> dict[str, list[float]]:
    """Milliseconds a step of each contestant, one value a round."""
    contestants: dict[str, Callable[[Tensor], object]] = {"elias_idx": _OurStep(trainee, optimizers)}
    if not alone:
        contestants["plain"] = PlainStep(trainee)
    torch.set_num_threads(num_threads)
    generator = torch.Generator().manual_seed(0)
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    # The first round, in which memory is allocated, doesn't count.
    for turn in range(rounds + 1):
        batches = torch.randint(trainee.num_texts, (steps, trainee.config.batch_size), generator=generator)
        for name, step in contestants.items():
            start = time.perf_counter()
            for batch in batches:
                step(batch)
            if turn:
                seen[name].append(1e3 * (time.perf_counter() - start) / steps)
    return seen


class _OurStep:
    """A step as `train_steps` does it, on given texts."""

    def __init__(self, trainee: Trainee, optimizers: Optimizers) -> None:
        self.trainee, self.optimizers = trainee, optimizers

    def __call__(self, rows: Tensor) -> float:
        self.optimizers.begin_step()
        loss = self.trainee.loss(Batch.whole(rows, seed=0))
        loss.backward()
        self.optimizers.step()
        return loss.item()


def _markdown(results: Mapping[str, Any]) -> Iterator[str]:
    shape, settings = results["shape"], results["settings"]
    yield f"# Training step of {results['date']}\n"
    yield described(results)
    features = f"{shape['num_features']:,} features" if shape["num_features"] else "given embeddings"
    yield (
        f"Command: `{results['command']}`. {shape['num_labels']:,} labels in {shape['num_clusters']:,} clusters, "
        f"{features}, made up; batches of 256 texts, B = 10, S = 500, label classifiers in {settings['label_dtype']}. "
        f"Milliseconds a step: the median of {settings['rounds']} rounds, and the least; contestants take turns. "
        "*Plain* gathers the classifiers of each text's shortlist, has dense gradients of them and AdamW, finds "
        "repeated labels by sorting, and uses EmbeddingBag with SparseAdam.\n"
    )
    yield row("D", "stage", "threads", "elias_idx", "plain", "ratio")
    yield row("---:", "---:", "---:", "---:", "---:", "---:")
    for measured in results["measured"]:
        yield _table_row(measured)


def _table_row(measured: Mapping[str, Any]) -> str:
    ours, plain = measured["elias_idx"], measured.get("plain")
    ratio = f"{np.median(plain) / np.median(ours):.1f}" if plain else "–"
    cells = measured["dim"], measured["stage"], measured["threads"], _time(ours), _time(plain) if plain else "–", ratio
    return row(*cells)


def _time(milliseconds: Sequence[float]) -> str:
    return f"{np.median(milliseconds):.1f} ({min(milliseconds):.1f})"


if __name__ == "__main__":
    main()
