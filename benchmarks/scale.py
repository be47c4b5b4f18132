"""How elias_idx builds and searches an index of many millions of labels on one machine.

    python benchmarks/scale.py 10M
    python benchmarks/scale.py 100M

Builds the index in a folder from a model that is made while it is read, so that nothing else is stored, measures it,
and removes the folder, whatever happens. Each measurement runs in a process of its own, whose memory is watched.
A quick look: `python benchmarks/scale.py 10M --labels 1000000 --clusters 8192 --out /tmp/results`.

*Cold* means that the index's pages were dropped from the page cache before, and the process is new. What a hypervisor
caches isn't in reach.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from elias_idx import Index
from harness import environment, quality
from harness.contestants import Work, search_options
from harness.data import FloatArray
from harness.generated import TOPIC, GeneratedModel, ModelShape
from harness.markdown import described, row

Result = TypeVar("Result")

_SHAPES = {
    "10M": (ModelShape(10_000_000, 256, 256, 65_536, 1000), "float32"),
    "100M": (ModelShape(100_000_000, 256, 128, 131_072, 2000), "int8"),
}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 0}
"""Of a number of the exact label classifiers."""
_WARM_SINGLES = 256
_COLD_SINGLES = 32
_CHECKED_BY_ORACLE = 16


@click.command(context_settings={"show_default": True})
@click.argument("name", type=click.Choice(tuple(_SHAPES)))
@click.option("--labels", type=click.IntRange(1), help="L  [default: NAME's, as of all sizes]")
@click.option("--dim", type=click.IntRange(1), help="D")
@click.option("--label-dim", type=click.IntRange(1), help="D'")
@click.option("--clusters", type=click.IntRange(TOPIC), help=f"C, a multiple of {TOPIC}")
@click.option("--labels-per-cluster", type=click.IntRange(1), help="κ")
@click.option("--dtype", type=click.Choice(tuple(_BYTES)), help="of the label classifiers")
@click.option("--screen/--no-screen", default=True, help="whether 8-bit codes stand beside exact weights")
@click.option("--queries", default=4096, type=click.IntRange(1), help="of a batch")
@click.option("--threads", multiple=True, type=click.IntRange(1), default=(1, 2))
@click.option("--rounds", type=click.IntRange(1), default=3, help="of warm measurements")
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True), default=tempfile.gettempdir(), help="for the index"
)
@click.option("--keep", is_flag=True, help="leave the index in the folder, and search it again if it is there")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="for results")
def main(
    name: str,
    dtype: str | None,
    screen: bool,
    queries: int,
    threads: tuple[int, ...],
    rounds: int,
    folder: Path,
    keep: bool,
    out: Path,
    **sizes: int | None,
) -> None:
    """Builds an index of 10 or 100 million labels (NAME), searches it cold and warm, and writes dated results."""
    shape, default_dtype = _SHAPES[name]
    shape = _changed(shape, sizes)
    dtype = dtype or default_dtype
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the folder is removed
    work_folder = folder / f"elias_scale-{shape}-{dtype}{'+screen' if screen else ''}"
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/scale.py", *sys.argv[1:]]),
        "machine": environment.machine(),
        "versions": environment.versions(("elias_idx", "numpy")),
        "shape": asdict(shape),
        "dtype": dtype,
        "screen": screen,
        "work": asdict(Work()),
        "batch": queries,
        "build": None,
    }
    try:
        if not (work_folder / "index").exists():
            _check_disk(folder, _index_bytes(shape, dtype, screen=screen))
            work_folder.mkdir(exist_ok=True)
            click.echo(f"building in {work_folder}")
            results["build"] = _in_process(_build, shape, dtype, screen, queries, work_folder)
        results |= _searches(work_folder, threads, rounds)
    finally:
        if not keep:
            shutil.rmtree(work_folder, ignore_errors=True)
    results["load_average_at_end"] = os.getloadavg()[0]
    stem = out / f"scale-{name}-{results['date']}"
    out.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text("\n".join(_markdown(results)) + "\n", encoding="utf-8")
    click.echo(stem.with_suffix(".md").read_text(encoding="utf-8"))


def _changed(shape: ModelShape, sizes: Mapping[str, int | None]) -> ModelShape:
    """The shape, with the sizes that were asked for."""
    changed = ModelShape(
        num_labels=sizes["labels"] or shape.num_labels,
        dim=sizes["dim"] or shape.dim,
        label_dim=sizes["label_dim"] or min(shape.label_dim, sizes["dim"] or shape.dim),
        num_clusters=sizes["clusters"] or shape.num_clusters,
        labels_per_cluster=sizes["labels_per_cluster"] or shape.labels_per_cluster,
    )
    if changed.num_clusters % TOPIC or changed.num_clusters > changed.num_labels:
        raise click.BadParameter(f"--clusters must be a multiple of {TOPIC} and at most --labels")
    in_topic = TOPIC * (changed.num_labels // changed.num_clusters)
    if changed.labels_per_cluster > in_topic:
        raise click.BadParameter(f"--labels-per-cluster can be at most {in_topic}, 64 · L / C, at these sizes")
    return changed


def _index_bytes(shape: ModelShape, dtype: str, *, screen: bool) -> int:
    """What the index's files take, about."""
    a_label = _BYTES[dtype] * shape.label_dim + 4
    if screen or dtype == "int8":
        a_label += shape.label_dim + 16
    a_cluster = (5 if screen else 4) * shape.dim + 8 * shape.labels_per_cluster + 28
    return a_label * shape.num_labels + a_cluster * shape.num_clusters


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    reserve = 2 * 10**9
    if free < needed + reserve:
        raise click.ClickException(
            f"the index takes about {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free, of which "
            f"{reserve / 1e9:.0f} GB are to stay so: give another --folder, or free some"
        )


def _in_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Runs the work in a new process; its result with `peak_rss` and `peak_anonymous`, in bytes."""
    peaks = {"VmHWM": 0, "RssAnon": 0}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        status = Path(f"/proc/{pool.submit(os.getpid).result()}/status")
        future = pool.submit(work, *arguments)
        while True:
            done = wait([future], timeout=0.02).done
            for line in status.read_text().splitlines():
                key, _, value = line.partition(":")
                if key in peaks:
                    peaks[key] = max(peaks[key], 1024 * int(value.split()[0]))
            if done:
                return future.result() | {"peak_rss": peaks["VmHWM"], "peak_anonymous": peaks["RssAnon"]}


def _build(shape: ModelShape, dtype: Any, screen: bool, num_queries: int, folder: Path) -> dict[str, Any]:
    model = GeneratedModel(shape)
    np.save(folder / "queries.npy", model.queries(num_queries))
    start = time.perf_counter()
    index = Index.build(
        model.cluster_weights,
        model.cluster_bias,
        model.adjacency,
        model.label_weights,
        model.label_bias,
        label_projection=model.label_projection,
        dtype=dtype,
        screen=screen,
        path=folder / "index",
    )
    return {
        "seconds": time.perf_counter() - start,
        "seconds_generating": model.seconds,
        "edges": len(index.adjacency.indices),
    }


def _searches(folder: Path, threads: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """All measurements of the index in the folder."""
    cold = []
    for count in threads:
        for batch in (False, True):
            _drop_from_cache(folder / "index")
            click.echo(f"searching cold, {'a batch' if batch else 'single queries'}, {count} thr.")
            cold.append(_in_process(_search_cold, folder, count, batch))
    click.echo("searching warm, mapped")
    warm = {"mapped": _in_process(_search_warm, folder, True, threads, rounds)}
    nbytes = sum(path.stat().st_size for path in (folder / "index").iterdir())
    if nbytes + 2 * 10**9 < _available_memory():
        click.echo("searching in memory")
        warm["in memory"] = _in_process(_search_warm, folder, False, threads, rounds)
    else:
        click.echo("there is too little memory to hold the index")
    click.echo("comparing with the oracle")
    return {"bytes": nbytes, "cold": cold, "warm": warm, "oracle": _in_process(_compare, folder)}


def _search_cold(folder: Path, num_threads: int, batch: bool) -> dict[str, Any]:
    queries = np.load(folder / "queries.npy")
    start = time.perf_counter()
    index = Index.load(folder / "index")
    load = time.perf_counter() - start
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    start = time.perf_counter()
    if batch:
        count = len(queries)
        _search(index, queries, num_threads)
    else:
        count = min(_COLD_SINGLES, len(queries))
        _search_singles(index, queries[:count], num_threads)
    milliseconds = (time.perf_counter() - start) / count * 1e3
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults
    return {
        "threads": num_threads,
        "batch": batch,
        "load_seconds": load,
        "milliseconds": milliseconds,
        "major_faults": faults / count,
    }


def _search_warm(folder: Path, mmap: bool, threads: tuple[int, ...], rounds: int) -> dict[str, Any]:
    queries = np.load(folder / "queries.npy")
    start = time.perf_counter()
    index = Index.load(folder / "index", mmap=mmap)
    load = time.perf_counter() - start
    singles = queries[:_WARM_SINGLES]
    _search(index, queries, max(threads))
    _search_singles(index, singles, max(threads))
    one: dict[str, list[float]] = {str(count): [] for count in threads}
    batch: dict[str, list[float]] = {str(count): [] for count in threads}
    for _ in range(rounds):
        for count in threads:
            start = time.perf_counter()
            _search(index, queries, count)
            middle = time.perf_counter()
            _search_singles(index, singles, count)
            one[str(count)].append((time.perf_counter() - middle) / len(singles) * 1e3)
            batch[str(count)].append((middle - start) / len(queries) * 1e3)
    return {"load_seconds": load, "one": one, "batch": batch}


def _compare(folder: Path) -> dict[str, Any]:
    queries = np.load(folder / "queries.npy")[:_CHECKED_BY_ORACLE]
    index = Index.load(folder / "index")
    expected = quality.oracle_search(index, queries, Work())
    found = index.search(queries, Work.k, **search_options(index, Work()))
    return {"num_queries": len(queries), "overlap": quality.overlap(found.labels, expected.labels)}


def _search(index: Index, queries: FloatArray, num_threads: int) -> None:
    index.search(queries, Work.k, num_threads=num_threads, **search_options(index, Work()))


def _search_singles(index: Index, queries: FloatArray, num_threads: int) -> None:
    for number in range(len(queries)):
        _search(index, queries[number : number + 1], num_threads)


def _drop_from_cache(folder: Path) -> None:
    """Drops the pages of the folder's files from the page cache; no process may have them mapped."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only clean pages are dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _available_memory() -> int:
    """Bytes that new processes can have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _markdown(results: Mapping[str, Any]) -> Iterator[str]:
    shape, work, build, oracle = (results[part] for part in ("shape", "work", "build", "oracle"))
    codes = " with 8-bit codes" if results["screen"] and results["dtype"] != "int8" else ""
    yield f"# Scale benchmark of {results['date']}\n"
    yield described(results)
    yield (
        f"L = {shape['num_labels']:,}, D = {shape['dim']}, D' = {shape['label_dim']}, C = {shape['num_clusters']:,}, "
        f"κ = {shape['labels_per_cluster']:,}, label classifiers in {results['dtype']}{codes}: "
        f"{results['bytes'] / 1e9:.2f} GB. B = {work['beam_size']}, S = {work['shortlist_size']:,}, k = {work['k']}, "
        f"batches of {results['batch']:,}. Of {oracle['num_queries']} queries the search finds "
        f"{oracle['overlap']:.4f} of the labels that a float64 oracle finds with the stored weights.\n"
    )
    if build:
        yield (
            f"Built in {build['seconds']:,.0f} s, of which {build['seconds_generating']:,.0f} s went into making the "
            f"model's {build['edges']:,} edges and label classifiers; peak RSS {build['peak_rss'] / 1e9:.2f} GB, most "
            f"of it mapped files; peak anonymous memory {build['peak_anonymous'] / 1e6:,.0f} MB, with what makes the "
            "model.\n"
        )
    yield f"Command: `{results['command']}`. Milliseconds a query; warm ones the median of the rounds, and the least.\n"
    threads = [cold["threads"] for cold in results["cold"] if cold["batch"]]
    yield row(
        "",
        "load",
        *(f"{mode}, {count} thr." for count in threads for mode in ("one query", "batch")),
        "peak RSS",
        "peak anonymous",
    )
    yield row("---", *["---:"] * (2 * len(threads) + 3))
    yield row(
        "mapped, cold",
        f"{np.median([cold['load_seconds'] for cold in results['cold']]):.2f} s",
        *(f"{cold['milliseconds']:.2f}" for cold in results["cold"]),
        *(f"{max(cold[peak] for cold in results['cold']) / 1e9:.2f} GB" for peak in ("peak_rss", "peak_anonymous")),
    )
    for name, warm in results["warm"].items():
        yield row(
            f"{name}, warm",
            f"{warm['load_seconds']:.2f} s",
            *(
                f"{np.median(times):.2f} ({min(times):.2f})"
                for count in threads
                for times in (warm["one"][str(count)], warm["batch"][str(count)])
            ),
            *(f"{warm[peak] / 1e9:.2f} GB" for peak in ("peak_rss", "peak_anonymous")),
        )
    faults = ", ".join(f"{cold['major_faults']:,.1f}" for cold in results["cold"])
    yield f"\nMajor page faults a query of the cold searches, in the order of the columns: {faults}."


if __name__ == "__main__":
    main()
