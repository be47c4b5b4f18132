"""A scoring job from its inputs to its parts: reading, encoding, searching and writing at the same time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import pyarrow as pa

from elias_idx._arrays import as_count
from elias_idx.arrow import BadRowError, Scorer
from elias_idx.errors import ConfigError, DataError
from elias_idx.score.batches import Batch, read_batches
from elias_idx.score.inputs import InputFile, find_inputs
from elias_idx.score.manifest import NAME, Job, Manifest
from elias_idx.score.parts import Scored, check_parts, remove_other_parts, write_empty_part, write_part
from elias_idx.score.progress import Progress
from elias_idx.score.readers import Wanted, read_schema

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second job out of the folder
    fcntl = None  # type: ignore[assignment]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_READ_AHEAD = 2
# Not part of what a job's results follow from.
_FREE_OPTIONS = ("model", "num_threads")


def score(
    model: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    batch_rows: int = 4096,
    part_rows: int = 131_072,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda _: None,
    **options: Any,
) -> Manifest:
    """Scores all rows of files and writes the results to a folder, as Parquet files in the order of the inputs.

    A job that was interrupted goes on where it stopped, and ends with the same files as an undisturbed one.

    Args:
        model: the folder of a model, an ensemble or a bare index.
        inputs: paths and URIs; see `elias_idx.score.inputs.find_inputs`.
        out: the folder to write to. It is new or empty, or has this same job.
        batch_rows: rows that are scored together. Some five such batches are in memory at a time.
        part_rows: rows of a file of results.
        overwrite: whether results of another job at `out` may be replaced.
        say: is told, as lines, how far the job is, where there is no terminal for a bar.
        options: those of `elias_idx.arrow.Scorer`.

    Returns:
        What the folder has in the end.

    Raises:
        ConfigError: options are out of range or at odds with each other or with the job that `out` has.
        DataError: an input can't be read, or a row can't be scored; which one is said. Finished parts stay.
        FileExistsError: `out` has something else.
        FormatError: the model, or what `out` has, is damaged.
        OSError: a file can't be read or written.
    """
    paths = [os.fspath(given) for given in inputs]
    if surrounding := [path for path in paths if Path(out).absolute().is_relative_to(Path(path).absolute())]:
        raise ConfigError(f"{out} lies in the input {surrounding[0]}: choose a folder outside, so that it isn't read")
    files = find_inputs(paths)
    scorer = Scorer(model, **options)
    if scorer.text_column is scorer.embedding_column is None and all(file.format == "npy" for file in files):
        scorer = replace(scorer, embedding_column="embedding")
    sizes = {"batch_rows": as_count("batch_rows", batch_rows), "part_rows": as_count("part_rows", part_rows)}
    wanted = Wanted(scorer.input_column, scorer.takes_embeddings, tuple(scorer.keep), sizes["batch_rows"])
    schema = read_schema(files[0], wanted)
    options = {item.name: getattr(scorer, item.name) for item in fields(scorer) if item.name not in _FREE_OPTIONS}
    run = _Run(files, scorer, wanted, schema, sizes["part_rows"], Path(out), say)
    scorer.schema(schema)  # refuses embeddings of another size before there is anything at `out`
    with _locked(run.out):
        manifest = _begin(
            run.out, Job.of(Path(model), {**options, "keep": list(scorer.keep), **sizes}, files), overwrite
        )
        return manifest if manifest.finished else run.go_on(manifest)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Makes the folder if need be, and keeps other jobs out of it."""
    out.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise FileExistsError(f"another job is writing to {out} right now") from error
    finally:
        os.close(folder)


def _begin(out: Path, job: Job, overwrite: bool) -> Manifest:
    """The manifest to go on from, in a folder with nothing but what it says."""
    if not (out / NAME).exists() and any(not _is_left_over(path) for path in out.iterdir()):
        raise FileExistsError(f"{out} is no folder of scores, and it isn't empty: choose another one")
    manifest = None if overwrite else Manifest.load(out)
    if manifest is None or not manifest.parts:
        manifest = Manifest(job)
    else:
        job.check_goes_on(out, manifest.job)
        check_parts(out, manifest)
        manifest = replace(manifest, job=job)
    manifest.save(out)
    remove_other_parts(out, manifest)
    return manifest


def _is_left_over(path: Path) -> bool:
    """Whether it is the first manifest of a job that was killed while it wrote that."""
    return path.name == f".{NAME}.partial.json"


@dataclass(frozen=True)
class _Run:
    """What a job works with."""

    files: list[InputFile]
    scorer: Scorer
    wanted: Wanted
    schema: pa.Schema
    part_rows: int
    out: Path
    say: Callable[[str], object]

    def go_on(self, manifest: Manifest) -> Manifest:
        """Writes all parts that are missing."""
        schema = self.scorer.schema(self.schema)
        scorers = _for_threads(self.scorer)
        progress = Progress(manifest.rows, self.say)
        batches = read_batches(self.files, self.wanted, self.schema, manifest.end, self.part_rows)
        with closing(progress), closing(batches), _pool(1) as reader, _pool(len(scorers)) as searchers:
            results = progress.counted(_scored(searchers, scorers, _read_ahead(reader, batches)))
            while part := write_part(self.out, len(manifest.parts), schema, results, self.part_rows):
                manifest = replace(manifest, parts=(*manifest.parts, part))
                manifest.save(self.out)
        if not manifest.parts:
            manifest = replace(manifest, parts=(write_empty_part(self.out, schema),))
        manifest = replace(manifest, finished=True)
        manifest.save(self.out)
        return manifest


def _for_threads(scorer: Scorer) -> list[Scorer]:
    """Scorers for batches at the same time, so that one encodes while the other searches; they share the threads.

    A transformer keeps all threads busy by itself, and must not be called twice at once.
    """
    num_threads = scorer.num_threads
    if num_threads == 1 or not scorer.is_reentrant:
        return [scorer]
    if num_threads is None:
        return [scorer, scorer]
    return [replace(scorer, num_threads=part) for part in (num_threads - num_threads // 2, num_threads // 2)]


@contextmanager
def _pool(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads, which don't begin anything new once the block has ended."""
    pool = ThreadPoolExecutor(num_threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _read_ahead(reader: ThreadPoolExecutor, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, of which the next ones are read meanwhile."""
    pending = deque(reader.submit(next, batches, None) for _ in range(_READ_AHEAD))
    while (batch := pending.popleft().result()) is not None:
        pending.append(reader.submit(next, batches, None))
        yield batch


def _scored(pool: ThreadPoolExecutor, scorers: list[Scorer], batches: Iterator[Batch]) -> Iterator[Scored]:
    """Results in the order of the batches; each scorer has one batch at a time, and one more waits."""
    idle: SimpleQueue[Scorer] = SimpleQueue()
    for scorer in scorers:
        idle.put(scorer)

    def score_one(batch: Batch) -> Scored:
        scorer = idle.get()
        try:
            return Scored(scorer(batch.rows), batch.end, batch.share)
        except BadRowError as error:
            raise DataError(f"{batch.where(error.row)}: {error.reason}") from error
        finally:
            idle.put(scorer)

    running: deque[Future[Scored]] = deque()
    for batch in batches:
        running.append(pool.submit(score_one, batch))
        if len(running) > len(scorers):
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
