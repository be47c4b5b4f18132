"""What a scoring job costs: its throughput beside bare searches, its memory, and that of several workers on a host.

    python benchmarks/score.py throughput
    python benchmarks/score.py memory
    python benchmarks/score.py workers --model MODEL

The index, where none is given, is made of random numbers. Measurements that are compared take turns.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elias_idx import Index
from elias_idx.arrow import Scorer
from elias_idx.score import score
from harness.processes import in_process, process_memory

FloatArray = npt.NDArray[np.floating]

_DIM, _CLUSTERS, _LABELS_PER_CLUSTER = 256, 1024, 500
_BATCH_ROWS = 4096


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measures scoring jobs."""


@main.command()
@click.option("--labels", default=100_000, help="L")
@click.option("--rows", default=8 * _BATCH_ROWS, help="Q")
@click.option("--rounds", default=5)
@click.option("--num-threads", default=1)
def throughput(labels: int, rows: int, rounds: int, num_threads: int) -> None:
    """Compares a job on embeddings to `Index.search` on the same batches."""
    with _folder() as folder:
        _save_index(folder / "index", labels)
        _save_embeddings(folder / "rows.npy", rows)
        index, embeddings = Index.load(folder / "index"), np.load(folder / "rows.npy")

        def search() -> None:
            for first in range(0, rows, _BATCH_ROWS):
                index.search(embeddings[first : first + _BATCH_ROWS], num_threads=num_threads)

        def run_job() -> None:
            score(
                folder / "index", [folder / "rows.npy"], folder / "out",
                batch_rows=_BATCH_ROWS, num_threads=num_threads, overwrite=True,
            )  # fmt: skip

        search(), run_job()  # warm up
        ratios = []
        for _ in range(rounds):
            searched, scored = _seconds(search), _seconds(run_job)
            ratios.append(searched / scored)
            click.echo(
                f"search {rows / searched[0]:9,.0f} rows/s, job {rows / scored[0]:9,.0f} rows/s: {ratios[-1][0]:.2f}; "
                f"in CPU time {ratios[-1][1]:.2f}"
            )
        wall, cpu = np.median(ratios, axis=0)
        click.echo(f"median: a job has {wall:.0%} of the throughput of searches, {cpu:.0%} by CPU time")


@main.command()
@click.option("--labels", default=100_000, help="L")
@click.option("--rows", default=100_000, help="Q")
def memory(labels: int, rows: int) -> None:
    """Compares the peak memory of jobs with 1, 3 and 10 times the rows, each in a process of its own."""
    with _folder() as folder:
        _save_index(folder / "index", labels)
        for times in (1, 3, 10):
            _save_embeddings(folder / "rows.npy", rows * times)
            size = (folder / "rows.npy").stat().st_size
            peak = in_process(partial(_peak, folder))
            click.echo(f"{rows * times:10,} rows, {size / 2**20:7,.0f} MiB: peak {peak / 2**20:,.0f} MiB")


@main.command()
@click.option("--model", type=click.Path(path_type=Path), help="a bare index")
@click.option("--labels", default=500_000, help="L of the index that is made without one")
@click.option("--rows", default=_BATCH_ROWS, help="Q of each worker")
def workers(model: Path | None, labels: int, rows: int) -> None:
    """Shows the proportional set size of 1, 2 and 4 worker processes that have all searched in the same index."""
    with _folder() as folder:
        if model is None:
            model = folder / "index"
            _save_index(model, labels)
        index = Index.load(model)
        click.echo(f"index: {index.nbytes / 2**20:,.0f} MiB")
        for count in (1, 2, 4):
            sizes = _sizes(Scorer(model, num_threads=1), index.dim, rows, count)
            pss, rss = (sum(size[name] for size in sizes) / 2**20 for name in ("Pss", "Rss"))
            click.echo(
                f"{count} workers: {pss:7,.0f} MiB in all, {pss / count:7,.0f} each (resident: {rss / count:,.0f})"
            )


def _seconds(run: Callable[[], None]) -> FloatArray:
    """Seconds that it takes, by the clock and of all CPUs."""
    start = np.array([time.perf_counter(), time.process_time()])
    run()
    return np.array([time.perf_counter(), time.process_time()]) - start


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="score-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _save_index(path: Path, num_labels: int) -> None:
    """Random numbers in the shape of an index, with names."""
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, num_labels, (_CLUSTERS, _LABELS_PER_CLUSTER)), axis=1)
    is_first = np.diff(edges, prepend=-1) > 0
    indptr = np.concatenate([[0], np.cumsum(is_first.sum(1))])
    weights = rng.uniform(0.05, 1, indptr[-1]).astype(np.float32)
    Index.build(
        _normal(rng, _CLUSTERS), np.zeros(_CLUSTERS), (indptr, edges[is_first], weights),
        _normal(rng, num_labels), np.zeros(num_labels),
        label_names=[f"label number {label}" for label in range(num_labels)], path=path,
    )  # fmt: skip


def _save_embeddings(path: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, _DIM))
    for first in range(0, count, _BATCH_ROWS):
        rows[first : first + _BATCH_ROWS] = _normal(rng, min(_BATCH_ROWS, count - first)) * 8


def _normal(rng: np.random.Generator, count: int) -> FloatArray:
    return rng.standard_normal((count, _DIM), dtype=np.float32) / np.float32(np.sqrt(_DIM))


def _peak(folder: Path) -> int:
    """Bytes that a job has in memory at most; small beams, as only memory counts."""
    score(
        folder / "index", [folder / "rows.npy"], folder / "out",
        overwrite=True, num_threads=1, beam_size=2, shortlist_size=100,
    )  # fmt: skip
    return process_memory("VmHWM")


def _sizes(scorer: Scorer, dim: int, rows: int, count: int) -> list[dict[str, int]]:
    """Bytes by the kernel's name for them, of each of some processes while all of them live."""
    spawn = get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(count)]
    processes = [spawn.Process(target=_work, args=(theirs, scorer, dim, rows)) for _, theirs in pipes]
    for process in processes:
        process.start()
    ours = [pipe for pipe, _ in pipes]
    for pipe in ours:
        pipe.recv()  # it has searched
    for pipe in ours:
        pipe.send("how large are you?")
    sizes = [pipe.recv() for pipe in ours]
    for pipe, process in zip(ours, processes, strict=True):
        pipe.send("done")
        process.join()
    return sizes


def _work(pipe: Connection, scorer: Scorer, dim: int, rows: int) -> None:
    numbers = np.random.default_rng(2).standard_normal(rows * dim).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers), dim)
    scorer(pa.record_batch({"embedding": column}))
    pipe.send("searched")
    pipe.recv()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    pipe.send({name.rstrip(":"): int(size) * 1024 for name, size, *_ in map(str.split, lines)})
    pipe.recv()


if __name__ == "__main__":
    main()
