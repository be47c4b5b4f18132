"""Threads, forks and Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from elias_idx import Index
from helpers_index import build
from oracle import Parts, random_parts


def count_threads() -> int:
    """The threads of this process."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


@pytest.fixture(scope="module")
def large() -> tuple[Index, Parts]:
    parts = random_parts(3, num_queries=300, dim=65, num_clusters=200, num_labels=400, labels_per_cluster=40)
    return build(parts), parts


def test_threads_and_splits_change_no_bit(large: tuple[Index, Parts]) -> None:
    index, parts = large
    labels, scores = index.search(parts.queries, 20, num_threads=1)
    for num_threads in (None, 2, 3, 7, 10**9):
        found = index.search(parts.queries, 20, num_threads=num_threads)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.scores, scores)
    for size in (1, 3, 16, 299):
        found_parts = [index.search(parts.queries[i : i + size], 20, num_threads=2) for i in range(0, 300, size)]
        np.testing.assert_array_equal(np.concatenate([part.labels for part in found_parts]), labels)
        np.testing.assert_array_equal(np.concatenate([part.scores for part in found_parts]), scores)


def test_one_index_serves_many_threads(large: tuple[Index, Parts]) -> None:
    index, parts = large
    expected = index.search(parts.queries)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: index.search(parts.queries, num_threads=2), range(40)):
            np.testing.assert_array_equal(found.labels, expected.labels)
        rows = pool.map(lambda _: index.search(index.label_weights[:20]).labels.tolist(), range(40))
        assert len({str(row) for row in rows}) == 1


def test_the_gil_is_released(large: tuple[Index, Parts]) -> None:
    index, parts = large
    queries = np.tile(parts.queries, (200, 1))
    counted = 0
    done = threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        start = time.perf_counter()
        index.search(queries, num_threads=1)
        seconds = time.perf_counter() - start
    finally:
        done.set()
        counter.join()
    assert counted > 20 * seconds, "the other thread went on meanwhile"


@needs_proc
def test_no_more_threads_than_asked(large: tuple[Index, Parts]) -> None:
    index, parts = large
    queries = np.tile(parts.queries, (100, 1))
    most: dict[int, int] = {}
    for num_threads in (1, 3):
        search = threading.Thread(target=index.search, args=(queries,), kwargs={"num_threads": num_threads})
        before = count_threads()
        search.start()
        counts = []
        while search.is_alive():
            counts.append(count_threads() - before)
        most[num_threads] = max(counts)
    assert most == {1: 1, 3: 3}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_can_search(large: tuple[Index, Parts]) -> None:
    index, parts = large
    expected = index.search(parts.queries, num_threads=2)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            found = index.search(parts.queries, num_threads=2)
            if (found.labels == expected.labels).all():
                os.write(write, b"same")
                status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"same"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


LONG_SEARCH = """
import sys
import numpy as np
from elias_idx import Index
rng = np.random.default_rng(0)
C, L, D, K = 2000, 20000, 64, 500
indices = np.concatenate([rng.choice(L, K, replace=False) for _ in range(C)])
adjacency = np.arange(C + 1) * K, indices, rng.uniform(0.1, 1, C * K)
index = Index.build(rng.standard_normal((C, D)), np.zeros(C), adjacency, rng.standard_normal((L, D)), np.zeros(L))
queries = rng.standard_normal((Q, D))
print("ready", flush=True)
try:
    index.search(queries, 10, beam_size=BEAM, shortlist_size=SHORTLIST, num_threads=THREADS)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    found = index.search(queries[:1], 1)
    print(len(found.labels), flush=True)
else:
    print("finished", flush=True)
"""


@pytest.mark.parametrize(
    ("queries", "beam", "shortlist", "threads"),
    [(400_000, 20, 2000, 1), (400_000, 20, 2000, 2), (200, 2000, 20000, 2)],
    ids=["one thread", "two threads", "long queries"],
)
def test_ctrl_c_ends_a_long_search_within_a_second(queries: int, beam: int, shortlist: int, threads: int) -> None:
    sizes = {"Q": queries, "BEAM": beam, "SHORTLIST": shortlist, "THREADS": threads}
    code = "\n".join(f"{name} = {value}" for name, value in sizes.items()) + LONG_SEARCH
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        start = time.perf_counter()
        assert process.stdout.readline() == "interrupted\n"
        seconds = time.perf_counter() - start
        assert process.stdout.readline() == "1\n"
    assert process.returncode == 0
    assert seconds < 1.0


INTERRUPTED_SEARCHES = """
import signal, threading
import numpy as np
from elias_idx import Index
rng = np.random.default_rng(0)
C, L, D, K = 2000, 4000, 16, 100
indices = np.concatenate([rng.choice(L, K, replace=False) for _ in range(C)])
adjacency = np.arange(C + 1) * K, indices, rng.uniform(0.1, 1, C * K)
index = Index.build(rng.standard_normal((C, D)), np.zeros(C), adjacency, rng.standard_normal((L, D)), np.zeros(L))
queries = rng.standard_normal((400_000, D))
for _ in range(5):
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    try:
        index.search(queries, 10, beam_size=BEAM, shortlist_size=SHORTLIST, num_threads=256)
        print("finished")
    except BaseException as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(("beam", "shortlist"), [(20, 2000), (2000, 4000)], ids=["short queries", "long queries"])
def test_ctrl_c_comes_out_however_long_the_threads_take_to_end(beam: int, shortlist: int) -> None:
    code = f"BEAM, SHORTLIST = {beam}, {shortlist}\n{INTERRUPTED_SEARCHES}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["KeyboardInterrupt"] * 5


@needs_proc
def test_threads_default_to_the_cpus_of_this_process(large: tuple[Index, Parts]) -> None:
    index, parts = large
    queries = np.tile(parts.queries, (100, 1))
    allowed = os.sched_getaffinity(0)
    search = threading.Thread(target=index.search, args=(queries,))
    before = count_threads()
    os.sched_setaffinity(0, {min(allowed)})
    try:
        search.start()
        most = 0
        while search.is_alive():
            most = max(most, count_threads() - before)
    finally:
        os.sched_setaffinity(0, allowed)
    assert most == 1


def test_a_mapped_index_is_shared_between_processes(large: tuple[Index, Parts], tmp_path: Path) -> None:
    index, parts = large
    index.save(tmp_path / "index")
    np.save(tmp_path / "queries.npy", parts.queries)
    code = (
        "import sys, numpy as np, elias_idx; "
        "index = elias_idx.Index.load(sys.argv[1]); print(index.search(np.load(sys.argv[2])).labels.sum())"
    )
    args = [sys.executable, "-c", code, str(tmp_path / "index"), str(tmp_path / "queries.npy")]
    done = subprocess.run(args, check=True, capture_output=True, text=True)
    assert int(done.stdout) == index.search(parts.queries).labels.sum()
