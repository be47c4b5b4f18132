"""Several processes that save to one path at once: who loads meanwhile gets one of their versions whole."""

import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from elias_idx import Index
from helpers_index import build
from oracle import random_parts

SAVERS, SAVES = 4, 25
PARTS = random_parts(5, num_queries=4, dim=16, num_clusters=12, num_labels=60, labels_per_cluster=12)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and exchanges folders in one step"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning"),
]


def version(number: int) -> Index:
    """All its arrays differ from those of other versions; its α tells which one it is."""
    parts = random_parts(number, num_queries=1, dim=16, num_clusters=12, num_labels=60, labels_per_cluster=12)
    return build(replace(parts, alpha=1.0 + number))


VERSIONS = [version(number) for number in range(SAVERS)]


def save_often(index: Index, path: Path, pipe: Connection) -> None:
    """A process's part: saves when it is told to, and sends what went wrong."""
    errors = []
    pipe.recv()
    for _ in range(SAVES):
        try:
            index.save(path, overwrite=True)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
    pipe.send(errors)


def check(path: Path) -> None:
    """Loads what is there and finds all of one version in it."""
    found = Index.load(path)
    found.verify()
    expected = VERSIONS[int(found.alpha) - 1].search(PARTS.queries, 20)
    labels, scores = found.search(PARTS.queries, 20)
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(scores, expected.scores)


def saved_at_once(path: Path, meanwhile: Callable[[], None]) -> list[str]:
    """Lets all savers go, does something until all of them are done, and gives what went wrong with them."""
    context, pipes, processes = multiprocessing.get_context("fork"), [], []
    for index in VERSIONS:
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=save_often, args=(index, path, theirs)))
        processes[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.send("go")
    try:
        while not all(pipe.poll() for pipe in pipes):
            assert all(process.is_alive() or pipe.poll() for process, pipe in zip(processes, pipes, strict=True))
            meanwhile()
        return [error for pipe in pipes for error in pipe.recv()]
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_loads_amid_saves_find_whole_versions(tmp_path: Path) -> None:
    path = tmp_path / "index"
    VERSIONS[0].save(path)
    assert saved_at_once(path, lambda: check(path)) == []
    check(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_savers_at_once_may_find_nothing_there(tmp_path: Path) -> None:
    path = tmp_path / "index"
    assert saved_at_once(path, lambda: check(path) if path.exists() else None) == []
    check(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]
