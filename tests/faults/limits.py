"""Too little memory, too few threads, processes or open files: an error that says so, or less speed, and no harm."""

from __future__ import annotations

import errno
import os
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elias_idx import Index, Model
from faults.disks import jobs
from faults.files import QUERIES
from faults.harness import in_child
from faults.subjects import NEW_TEXTS, Subjects, larger_index

NOBODY = 65534
ABORTED = -6


def memory(subjects: Subjects, _: Path, count: int, rng: random.Random) -> Counter[str]:
    """Address space that ends anywhere: a MemoryError that says how much was asked for, and the index still works."""
    seen: Counter[str] = Counter()
    index = Index.load(subjects.index)
    many = np.repeat(QUERIES, 500, axis=0)
    actions: dict[str, Callable[[], Any]] = {
        "load": lambda: Index.load(subjects.index, mmap=False),
        "map": lambda: Index.load(subjects.index),
        "search": lambda: index.search(many, 2000, shortlist_size=3000, num_threads=1),
        "many results": lambda: index.search(many, 10**6, num_threads=1),
        "build": larger_index,
        "quantize": lambda: index.quantize("int8"),
        "remove labels": lambda: index.remove_labels(np.arange(0, 3000, 2)),
        "filter of few": lambda: index.search(QUERIES, filter=[1, 2, 3], num_threads=1),
        "model": lambda: Model.load(subjects.model, mmap=False),
    }
    expected = index.search(QUERIES, num_threads=1)

    def attempt(action: Callable[[], Any], room: int) -> None:
        used = 1024 * int(Path("/proc/self/statm").read_text().split()[0]) * 4
        resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
        try:
            action()
            print("enough")
        except MemoryError as error:
            print("refused" if str(error) else "refused without a word")
        except OSError as error:
            print("refused" if error.errno == errno.ENOMEM else f"another error: {error}")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        again = index.search(QUERIES, num_threads=1)
        assert all(np.array_equal(*pair) for pair in zip(again, expected, strict=True))

    for name, action in actions.items():
        for _ in range(count):
            ended = in_child(partial(attempt, action, int(2 ** rng.uniform(12, 24))))
            assert ended.status in (0, ABORTED), f"{name}: {ended.output}"
            assert "another error" not in ended.output, f"{name}: {ended.output}"
            seen[f"{name}: {ended.last_line if not ended.status else 'aborted'}"] += 1
    return seen


def threads(subjects: Subjects, work: Path, count: int, _: random.Random) -> Counter[str]:
    """No thread can be started: searches use the calling one, other work says what is missing."""
    seen: Counter[str] = Counter()
    work.chmod(0o777)
    for parent in [*subjects.model.parents, *work.parents]:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    expected = Index.load(subjects.index).search(QUERIES, num_threads=1)

    def limit() -> None:
        os.setgid(NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        os.setuid(NOBODY)

    def search() -> None:
        index = Index.load(subjects.index)
        for num_threads in (None, 2, 64):
            found = index.search(QUERIES, num_threads=num_threads)
            assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
        Model.load(subjects.model).predict(NEW_TEXTS[:10], num_threads=4)

    for _ in range(count):
        ended = in_child(search, setup=limit)
        assert ended.status == 0, ended.output
        seen["searched by the calling thread"] += 1

    def limit_after(work_in: Callable[[Path], Any]) -> None:
        # What it imports may lie where nobody else may read.
        with tempfile.TemporaryDirectory() as folder:
            work_in(Path(folder))
        limit()

    for name, work_in in jobs(subjects).items():
        ended = in_child(partial(work_in, work), setup=partial(limit_after, work_in))
        assert ended.status in (0, 1), f"{name}: {ended.output}"
        assert "Traceback" not in ended.output, f"{name}: {ended.output}"
        seen[f"{name}: {'worked' if not ended.status else 'said why not'}"] += 1
    return seen


def open_files(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Too few open files: an error that says so."""
    seen: Counter[str] = Counter()
    index = larger_index()
    actions: dict[str, Callable[[], Any]] = {
        "load": lambda: Index.load(subjects.index),
        "model": lambda: Model.load(subjects.model),
        "save": lambda: index.save(work / "index", overwrite=True),
        **{name: partial(work_in, work / name) for name, work_in in jobs(subjects).items()},
    }
    for name in jobs(subjects):
        (work / name).mkdir()
    for name, action in actions.items():
        for _ in range(count):
            most = rng.randrange(len(list(Path("/proc/self/fd").iterdir())), 24)
            ended = in_child(action, setup=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most, most)))
            assert ended.status == 0 or "Too many open files" in ended.output, f"{name}: {ended.output}"
            assert ended.status in (0, 1, 3), f"{name}: {ended.output}"
            seen["enough" if not ended.status else "refused"] += 1
    return seen
