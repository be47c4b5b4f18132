"""What training costs at millions of labels: time and memory of clustering, adjacency, and steps of both stages.

    python benchmarks/train_scale.py

A made-up set of the shape of Amazon-3M. Labels are clustered by all its texts' sparse features; what embeddings are
needed for has fewer texts. Of that, only the adjacency's time grows with their number, as every text is scored with all
clusters, and the memory of the embeddings themselves. A quick look:
`python benchmarks/train_scale.py --labels 100000 --texts 50000 --embedded-texts 10000 --clusters 1024`.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from harness import environment
from harness.generated_scale import ScaleShape, make_embeddings, make_features, make_labels
from harness.markdown import described, row
from harness.processes import in_process, process_memory

_AMAZON_3M = ScaleShape(2_812_281, 1_717_899, 36, 4096, 337_067, 100, 768)
_GB = 1e9


@click.command(context_settings={"show_default": True})
@click.option("--labels", default=_AMAZON_3M.num_labels, type=click.IntRange(2), help="L")
@click.option("--texts", default=_AMAZON_3M.num_texts, type=click.IntRange(1), help="N of the sparse features")
@click.option("--embedded-texts", default=100_000, type=click.IntRange(1), help="N of the embeddings")
@click.option("--clusters", default=32_768, type=click.IntRange(1), help="C")
@click.option("--labels-per-cluster", default=1000, type=click.IntRange(1), help="κ")
@click.option("--dim", default=_AMAZON_3M.dim, type=click.IntRange(1), help="D")
@click.option("--threads", default=2, type=click.IntRange(1))
@click.option("--steps", default=20, type=click.IntRange(2), help="of each stage")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="for results")
def main(
    labels: int,
    texts: int,
    embedded_texts: int,
    clusters: int,
    labels_per_cluster: int,
    dim: int,
    threads: int,
    steps: int,
    out: Path,
) -> None:
    """Times the parts of a training run at the shape of Amazon-3M, and writes dated results."""
    topics = min(_AMAZON_3M.num_topics, clusters)
    shape = replace(_AMAZON_3M, num_labels=labels, num_texts=texts, dim=dim, num_topics=topics)
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/train_scale.py", *sys.argv[1:]]),
        "machine": environment.machine(),
        "versions": environment.versions(("elias_idx", "numpy", "scipy", "torch")),
        "shape": asdict(shape),
        "embedded_texts": embedded_texts,
        "num_clusters": clusters,
        "labels_per_cluster": labels_per_cluster,
        "threads": threads,
        "steps": steps,
        "sparse": in_process(_cluster_by_features, shape, clusters, threads),
    }
    embedded = replace(shape, num_texts=embedded_texts)
    results["dense"] = in_process(_train_on_embeddings, embedded, clusters, labels_per_cluster, threads, steps)
    results["load_average_at_end"] = os.getloadavg()[0]
    stem = out / f"train_scale-{results['date']}"
    out.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text("\n".join(_markdown(results)) + "\n", encoding="utf-8")
    click.echo(stem.with_suffix(".md").read_text(encoding="utf-8"))


class _Phases:
    """Seconds and peak memory of consecutive parts of the work."""

    def __init__(self) -> None:
        self.measured: list[dict[str, Any]] = []
        self._begin()

    def end(self, name: str) -> None:
        """Ends a part; the next one begins."""
        seconds, cpu_seconds = time.perf_counter() - self._start, time.process_time() - self._cpu_start
        memory = {"peak_rss": process_memory("VmHWM"), "rss": process_memory("VmRSS")}
        self.measured.append({"name": name, "seconds": seconds, "cpu_seconds": cpu_seconds, **memory})
        click.echo(f"{name}: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU, {memory['peak_rss'] / _GB:.1f} GB", err=True)
        self._begin()

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts over
        self._start, self._cpu_start = time.perf_counter(), time.process_time()


def _cluster_by_features(shape: ScaleShape, num_clusters: int, num_threads: int) -> dict[str, Any]:
    from elias_idx.train.clustering import ClusteringFeatures, cluster_labels

    random, phases = np.random.default_rng(0), _Phases()
    labels, features = make_labels(shape, random), ClusteringFeatures(make_features(shape, random))
    phases.end("the data, made up")
    clusters = cluster_labels(labels, features, num_clusters, seed=0, num_threads=num_threads)
    phases.end("clustering by sparse features")
    sizes = [len(cluster) for cluster in clusters]
    topic = np.arange(shape.num_labels) * shape.num_topics // shape.num_labels
    pure = sum(int(np.bincount(topic[cluster]).max()) for cluster in clusters) / shape.num_labels
    return {"phases": phases.measured, "num_pairs": labels.nnz, "sizes": [min(sizes), max(sizes)], "purity": pure}


def _train_on_embeddings(
    shape: ScaleShape, num_clusters: int, labels_per_cluster: int, num_threads: int, steps: int
) -> dict[str, Any]:
    import torch

    from elias_idx.config import Config
    from elias_idx.train import memory
    from elias_idx.train.approximate_adjacency import approximate_adjacency
    from elias_idx.train.auto import resolved_for_sizes
    from elias_idx.train.clustering import cluster_labels, features_of
    from elias_idx.train.encoders import build_encoder
    from elias_idx.train.epoch import train_steps
    from elias_idx.train.model_sizes import ModelSizes
    from elias_idx.train.stage1 import start_stage1
    from elias_idx.train.stage2 import start_stage2

    torch.set_num_threads(num_threads)
    random, phases = np.random.default_rng(0), _Phases()
    labels, embeddings = make_labels(shape, random), make_embeddings(shape, random)
    config = Config(
        encoder="precomputed",
        num_clusters=num_clusters,
        labels_per_cluster=labels_per_cluster,
        label_dtype="bfloat16",
        num_threads=num_threads,
    )
    config = resolved_for_sizes(config, shape.num_texts, shape.num_labels)
    sizes = ModelSizes(shape.num_texts, shape.num_labels, labels.nnz, input_dim=shape.dim)
    account = memory.memory_account(config, sizes)
    encoder = build_encoder(config, embeddings)
    phases.end("the data, made up")
    clusters = cluster_labels(labels, features_of(encoder, None), num_clusters, 0, num_threads)
    phases.end("clustering by embeddings")
    trainee = start_stage1(encoder, labels, clusters, config)
    phases.end("start of stage 1")
    step_seconds = {}
    for stage in (1, 2):
        if stage == 2:
            pattern = approximate_adjacency(trainee, labels)
            phases.end("adjacency")
            start_stage2(trainee, pattern)
            del pattern
            phases.end("start of stage 2")
        moments = [time.perf_counter()]
        for _ in islice(train_steps(trainee, trainee.optimizers(1, 1.0), seed=0), steps):
            moments.append(time.perf_counter())
        step_seconds[str(stage)] = float(np.median(np.diff(moments)[1:]))
        phases.end(f"{steps} steps of stage {stage}")
    return {
        "phases": phases.measured,
        "step_seconds": step_seconds,
        "account": account.lines(),
        "num_pairs": labels.nnz,
    }


def _markdown(results: Mapping[str, Any]) -> Iterator[str]:
    shape, sparse, dense = results["shape"], results["sparse"], results["dense"]
    yield f"# Training at millions of labels, {results['date']}\n"
    yield described(results)
    yield (
        f"Command: `{results['command']}`. A made-up set of Amazon-3M's shape: {shape['num_labels']:,} labels in "
        f"{results['num_clusters']:,} clusters, {results['threads']} threads. Memory is the process's peak in each "
        "part, data and libraries included. CPU seconds are those of all threads, which other load disturbs less.\n"
    )
    yield (
        f"## Sparse features\n\n{shape['num_texts']:,} texts of {shape['features_per_text']} features out of "
        f"{shape['num_features']:,}, {sparse['num_pairs']:,} pairs of a text and a label.\n"
    )
    yield from _phase_table(sparse["phases"])
    smallest, largest = sparse["sizes"]
    yield (
        f"\nClusters have {smallest} to {largest} labels; {100 * sparse['purity']:.1f} % of the labels are of the "
        f"most frequent of {shape['num_topics']:,} topics in their cluster.\n"
    )
    yield (
        f"## Embeddings\n\n{results['embedded_texts']:,} texts (fewer than the set has), D = {shape['dim']}, "
        f"{dense['num_pairs']:,} pairs; κ = {results['labels_per_cluster']:,}, label classifiers in bfloat16, "
        "batches of 256 texts, B = 10, S = 500.\n"
    )
    yield from _phase_table(dense["phases"])
    steps = ", ".join(f"{1e3 * seconds:,.0f} ms in stage {stage}" for stage, seconds in dense["step_seconds"].items())
    yield f"\nA step takes {steps} (median).\n"
    yield "What `--dry-run` says of the same run before it starts:\n\n```"
    yield from dense["account"]
    yield "```"


def _phase_table(phases: list[dict[str, Any]]) -> Iterator[str]:
    yield row("part", "seconds", "of CPU", "peak GB", "GB after it")
    yield row("---", "---:", "---:", "---:", "---:")
    for phase in phases:
        memory = (f"{phase[name] / _GB:.1f}" for name in ("peak_rss", "rss"))
        yield row(phase["name"], f"{phase['seconds']:.1f}", f"{phase['cpu_seconds']:.1f}", *memory)


if __name__ == "__main__":
    main()
