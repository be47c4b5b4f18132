"""Many threads and processes at once: the same bits from all of them, whatever happens to the files meanwhile."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

import oracle_fusion
from elias_idx import EVIDENCE, Index
from elias_idx.ensemble_index import EnsembleIndex
from helpers_index import build, run_with_small_index
from oracle import random_parts

PARTS = random_parts(3, num_queries=60, dim=33, num_clusters=60, num_labels=200, labels_per_cluster=30)
FUSION = oracle_fusion.random_fusion(PARTS)
LINEAR = np.random.default_rng(0).normal(0, 0.05, len(EVIDENCE)).astype(np.float32)
NAMES = [f"label {label}" for label in range(200)]

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
Search = Callable[[], Found]


def dense(index: Index) -> Found:
    found = index.search(PARTS.queries, 20, num_threads=2)
    return found.labels, found.scores


def fused(index: Index) -> Found:
    found = index.search(PARTS.queries, 20, num_threads=2, sparse=sp.csr_matrix(FUSION.sparse))
    return found.labels, found.scores


def averaged(index: EnsembleIndex) -> Found:
    found = index.search(PARTS.queries, 20, num_threads=2)
    return found.labels, found.scores


SEARCHES: dict[str, Callable[[], Search]] = {
    "plain": lambda: partial(dense, build(PARTS)),
    "int8": lambda: partial(dense, build(PARTS).quantize("int8")),
    "fused": lambda: partial(
        fused, FUSION.add_to(build(PARTS)).with_fusion(LINEAR, -0.5, oracle_fusion.random_trees())
    ),
    "ensemble": lambda: partial(
        averaged, EnsembleIndex([build(PARTS, label_names=names) for names in (NAMES, NAMES[::-1])])
    ),
}


def same(found: Found, expected: Found) -> bool:
    return [part.tobytes() for part in found] == [part.tobytes() for part in expected]


@pytest.mark.parametrize("kind", SEARCHES)
def test_64_threads_get_the_same_bits(kind: str) -> None:
    search = SEARCHES[kind]()
    expected, start = search(), threading.Barrier(64)

    def run(_: int) -> bool:
        start.wait()
        return all(same(search(), expected) for _ in range(5))

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(run, range(64)))


def answer(search: Search, expected: Found, pipe: Connection) -> None:
    """A process's part: says that it is ready, searches when it is told to, and says whether all was the same."""
    pipe.send("ready")
    pipe.recv()
    pipe.send(all(same(search(), expected) for _ in range(20)))


def started(method: str, search: Search, expected: Found) -> tuple[Any, Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context(method).Process(target=answer, args=(search, expected, theirs))  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    return process, ours


def received(pipe: Connection) -> Any:
    assert pipe.poll(120), "the process hangs"
    return pipe.recv()


@forks
@pytest.mark.parametrize("kind", SEARCHES)
def test_forked_and_spawned_processes_get_the_same_bits_at_once(kind: str) -> None:
    search = SEARCHES[kind]()
    expected = search()
    # The index is forked with the process, or pickled.
    processes = [started(method, search, expected) for method in ("fork", "spawn") for _ in range(8)]
    for _, pipe in processes:
        assert received(pipe) == "ready"
    for _, pipe in processes:
        pipe.send("go")
    assert all(same(search(), expected) for _ in range(20))
    for process, pipe in processes:
        assert received(pipe) is True
        process.join()
        assert process.exitcode == 0


SEARCHES_A_MAP = """
import sys
import numpy as np
from elias_idx import Index
index, queries = Index.load(sys.argv[1]), np.load(sys.argv[2])
first = index.search(queries, 20)
print("mapped", flush=True)
same = True
sys.stdin.readline()  # the others have mapped it too, and it will be replaced now
for _ in range(200):
    found = index.search(queries, 20)
    same &= found.labels.tobytes() == first.labels.tobytes() and found.scores.tobytes() == first.scores.tobytes()
print(same, first.labels.sum(), flush=True)
"""


def test_saving_over_what_others_have_mapped_leaves_them_correct(tmp_path: Path) -> None:
    old, new = build(PARTS), build(PARTS, label_bias=PARTS.label_bias[::-1].copy())
    old.save(tmp_path / "index")
    np.save(tmp_path / "queries.npy", PARTS.queries)
    args = [sys.executable, "-c", SEARCHES_A_MAP, str(tmp_path / "index"), str(tmp_path / "queries.npy")]
    others = [subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    mine = Index.load(tmp_path / "index")
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "mapped\n"
    for other in others:
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
    for index in (new, old, new):
        index.save(tmp_path / "index", overwrite=True)
    expected = dense(old)
    assert same(dense(mine), expected)
    for other in others:
        printed, _ = other.communicate(timeout=120)
        assert printed.split() == ["True", str(expected[0].sum())]
    assert same(dense(Index.load(tmp_path / "index")), dense(new))


def test_the_interpreter_ends_while_daemon_threads_search() -> None:
    done = run_with_small_index("""
import threading
many = np.tile(queries, (200, 1))

def search(number, searched):
    while True:
        index.search(many[:number])
        searched.set()

# The first one's search goes on for long after the others have finished some.
events = {number: threading.Event() for number in (400_000, 20, 1)}
for arguments in events.items():
    threading.Thread(target=search, args=arguments, daemon=True).start()
for number in (20, 1):
    assert events[number].wait(60)
print("end")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_queries_that_change_during_a_search_do_no_harm() -> None:
    index = FUSION.add_to(build(PARTS)).with_fusion(LINEAR, -0.5)
    queries, sparse = PARTS.queries.copy(), sp.csr_matrix(FUSION.sparse)
    expected, done = dense(index), threading.Event()
    indices, values = sparse.indices.copy(), np.array([0, 1e30, np.nan, np.inf, -1], np.float32)

    def scribble() -> None:
        rng = np.random.default_rng(0)
        while not done.is_set():
            queries[rng.integers(len(queries))] = rng.choice(values)
            sparse.indices[rng.integers(len(indices))] = rng.choice([-1, 2**31 - 1, 0])

    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    try:
        for _ in range(200):
            # Results of such queries mean nothing; what is wrong with them may be seen at first or too late.
            try:
                index.search(queries, 20, sparse=sparse, num_threads=2)
            except (ValueError, RuntimeError):
                sparse.indices[:] = indices
                queries[:] = PARTS.queries
    finally:
        done.set()
        scribbler.join()
    assert same(dense(index), expected)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts maps and files in /proc")
@pytest.mark.parametrize("loads", [1000, pytest.param(100_000, marks=pytest.mark.integration)])
def test_loads_and_searches_keep_nothing(loads: int, tmp_path: Path) -> None:
    plain, texts = build(PARTS), sp.csr_matrix(FUSION.sparse)[:2]
    whole = FUSION.add_to(plain).with_fusion(LINEAR, -0.5, oracle_fusion.random_trees())
    for name, index in {"plain": plain, "int8": plain.quantize("int8"), "fused": whole}.items():
        index.save(tmp_path / name)
    (tmp_path / "damaged").mkdir()
    for file in (tmp_path / "plain").iterdir():
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes()[:-1])
    queries = PARTS.queries[:2]

    def use(turn: int) -> None:
        name = ("plain", "int8", "fused")[turn % 3]
        index = Index.load(tmp_path / name, mmap=turn % 2 == 0)
        index.search(queries, 10, sparse=texts if name == "fused" else None)
        index.search(queries, 10, filter=index.label_filter([turn % 200]))
        for wrong in (lambda: index.search(queries[:, 1:]), lambda: index.label_filter([200])):
            with pytest.raises(ValueError, match=r"dim|label 200"):
                wrong()
        with pytest.raises(Exception, match="damaged"):
            Index.load(tmp_path / "damaged", mmap=turn % 2 == 0)

    for turn in range(loads // 4):
        use(turn)
    before = resources()
    for turn in range(loads):
        use(turn)
    memory, files, maps = (now - then for now, then in zip(resources(), before, strict=True))
    assert files == 0
    assert maps <= 8, "the allocator may map a few times more"
    assert memory <= 4 << 20


def resources() -> tuple[int, int, int]:
    """Resident bytes, open files, maps."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    return pages * os.sysconf("SC_PAGE_SIZE"), files, len(Path("/proc/self/maps").read_text().splitlines())
