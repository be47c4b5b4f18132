"""Building an index block by block: from anything that can be sliced, to a folder or to memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse

from elias_idx import Index, _arrays, _core
from helpers_index import build, names_for
from oracle import Parts, random_parts


def files(index: Index) -> dict[str, bytes]:
    return index._core.to_files()


class Rows:
    """An array that only gives slices of rows, and remembers the longest."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.longest = 0

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        block = self._array[rows]
        self.longest = max(self.longest, len(block))
        return block


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows."""
    monkeypatch.setattr(_arrays, "BLOCK_BYTES", 200)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.usefixtures("small_blocks")
def test_a_folder_holds_what_memory_would(parts: Parts, tmp_path: Path, dtype: str) -> None:
    names = names_for(parts)
    for screen in (True, False):
        built = build(parts, dtype=dtype, screen=screen, label_names=names)
        path = tmp_path / str(screen)
        mapped = build(parts, dtype=dtype, screen=screen, label_names=names, path=path)
        assert mapped.path == path
        mapped.verify()
        assert files(mapped) == files(built)
        np.testing.assert_array_equal(mapped.search(parts.queries).labels, built.search(parts.queries).labels)
        assert {file.name: file.read_bytes() for file in path.iterdir()} == files(built)


def test_blocks_do_not_change_the_index(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = files(build(parts))
    for size in (1, 100, 777, 5000):
        monkeypatch.setattr(_arrays, "BLOCK_BYTES", size)
        assert files(build(parts)) == expected


@pytest.mark.usefixtures("small_blocks")
def test_anything_with_slices_is_read_in_blocks(parts: Parts, tmp_path: Path) -> None:
    indptr, indices, data = parts.csr
    expected = files(build(parts))
    mapped = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (60, 12))
    mapped[:] = parts.label_weights
    for weights in (mapped, Rows(parts.label_weights), Rows(parts.label_weights.astype(np.float64))):
        assert files(build(parts, label_weights=weights)) == expected
    lazy = {"weights": Rows(parts.label_weights), "bias": Rows(parts.label_bias)}
    edges = Rows(indices.astype(np.int32)), Rows(data.astype(np.float64))
    index = build(parts, label_weights=lazy["weights"], label_bias=lazy["bias"], adjacency=(indptr, *edges))
    assert files(index) == expected
    assert lazy["weights"].longest == 4
    assert lazy["bias"].longest == 4
    assert max(edge.longest for edge in edges) <= max(np.diff(indptr).max(), 12)


def test_tensors_of_torch_are_taken(parts: Parts) -> None:
    torch = pytest.importorskip("torch")
    weights = torch.tensor(parts.label_weights)
    assert files(build(parts, label_weights=weights)) == files(build(parts))
    with pytest.raises(TypeError, match=r"label_weights can't become a NumPy array: .*grad"):
        build(parts, label_weights=weights.requires_grad_())


def test_what_is_no_array_of_rows(parts: Parts) -> None:
    class Lying(Rows):
        def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
            return super().__getitem__(rows)[:2]

    with pytest.raises(ValueError, match=r"label_weights\[0:60\] has shape \[2, 12\]"):
        build(parts, label_weights=Lying(parts.label_weights))
    with pytest.raises(ValueError, match="label_weights must have 2 dimensions, got 0"):
        build(parts, label_weights=scipy.sparse.csr_array(parts.label_weights))
    with pytest.raises(ValueError, match="label_bias must have 1 dimensions, got 2"):
        build(parts, label_bias=Rows(parts.label_bias[:, None]))


@pytest.mark.parametrize("row", [0, 7, 59])
@pytest.mark.usefixtures("small_blocks")
def test_places_are_named_within_the_whole(parts: Parts, row: int) -> None:
    for name, at, place in (("label_weights", (row, 5), f"{row}, 5"), ("label_bias", row, str(row))):
        wrong = getattr(parts, name).copy()
        wrong[at] = np.nan
        with pytest.raises(ValueError, match=rf"{name}\[{place}\] is NaN: it must be finite"):
            build(parts, **{name: wrong})


@pytest.mark.usefixtures("small_blocks")
def test_a_failure_midway_leaves_nothing(parts: Parts, tmp_path: Path) -> None:
    class Failing(Rows):
        error: BaseException = OSError("the disk is gone")

        def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
            if rows.start and rows.start > 30:
                raise self.error
            return super().__getitem__(rows)

    build(random_parts(5)).save(tmp_path / "old")
    before = files(Index.load(tmp_path / "old"))
    for error in (OSError("the disk is gone"), KeyboardInterrupt()):
        weights = Failing(parts.label_weights)
        weights.error = error
        for name in ("old", "new"):
            with pytest.raises(type(error)) as caught:
                build(parts, label_weights=weights, path=tmp_path / name, overwrite=True)
            # Even while the exception, and with it the frames that it came through, is kept.
            assert caught.value is error
            assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    with pytest.raises(ValueError, match="occurs twice"):
        build(parts, adjacency=([0] * 9 + [2], [1, 1], [0.5, 0.25]), path=tmp_path / "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    assert files(Index.load(tmp_path / "old")) == before


def test_what_is_there_is_refused_before_anything_is_read(parts: Parts, tmp_path: Path) -> None:
    class Unread(Rows):
        def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
            assert rows == slice(0)
            return super().__getitem__(rows)

    weights = Unread(parts.label_weights)
    build(parts).save(tmp_path / "index")
    with pytest.raises(FileExistsError, match="overwrite"):
        build(parts, label_weights=weights, path=tmp_path / "index")
    with pytest.raises(FileNotFoundError):
        build(parts, label_weights=weights, path=tmp_path / "missing" / "index")
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileExistsError, match=r"no index\.json"):
        build(parts, label_weights=weights, path=tmp_path / "photos", overwrite=True)
    with pytest.raises(TypeError):
        build(parts, path=3)
    other = build(random_parts(5), path=tmp_path / "index", overwrite=True)
    assert other.path == tmp_path / "index"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index", "photos"]


def test_a_writer_is_finished_once_and_useless_after_a_failure() -> None:
    one = np.ones((1, 1), dtype=np.float32)
    offsets, bias = np.array([0, 0]), np.zeros(1, dtype=np.float32)
    args = (None, None, 10.0, 20, 2000, "float32", True, None, False)
    writer = _core.IndexWriter(one, bias, offsets, 0, (1, 1), *args)
    writer.push_labels(one, bias)
    assert writer.finish().num_labels == 1
    for call in (writer.finish, lambda: writer.push_labels(one, bias)):
        with pytest.raises(RuntimeError, match="finished"):
            call()
    writer = _core.IndexWriter(one, bias, offsets, 0, (1, 1), *args)
    with pytest.raises(ValueError, match="label_bias must have 1 values, got 2"):
        writer.push_labels(np.ones((2, 1), dtype=np.float32), np.zeros(2, dtype=np.float32))
    for call in (writer.finish, lambda: writer.push_labels(one, bias)):
        with pytest.raises((ValueError, RuntimeError), match=r"earlier push .* failed|finished"):
            call()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_memory_does_not_grow_with_the_labels(tmp_path: Path, dtype: str) -> None:
    """Anonymous memory while an index is built from mapped arrays, and while it is converted."""
    code = """
import sys, threading, time
import numpy as np
from elias_idx import Index, _arrays

_arrays.BLOCK_BYTES = 1 << 22
folder, dtype = sys.argv[1:]
L, D, C, K = 300_000, 128, 1024, 3000
weights = np.memmap(folder + "/weights", np.float32, "w+", shape=(L, D))
bias = np.memmap(folder + "/bias", np.float64, "w+", shape=(L,))
indices = np.memmap(folder + "/indices", np.int32, "w+", shape=(C, K))
data = np.memmap(folder + "/data", np.float64, "w+", shape=(C, K))
indices[:] = np.arange(K, dtype=np.int32)
data[:] = np.linspace(1.0, 0.1, K)
clusters = np.ones((C, D), dtype=np.float32)

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) // 1024

def watch():
    global most
    while not done:
        most = max(most, anonymous())
        time.sleep(0.002)

before = most = anonymous()
done = False
watcher = threading.Thread(target=watch)
watcher.start()
args = clusters, np.zeros(C), (np.arange(C + 1) * K, indices.reshape(-1), data.reshape(-1)), weights, bias
index = Index.build(*args, dtype=dtype, path=folder + "/index")
index.quantize("int8", path=folder + "/again")
index.save(folder + "/saved")
done = True
watcher.join()
print(most - before, sum(array.nbytes for array in (weights, bias, indices, data)) >> 20)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), dtype], check=True, capture_output=True, text=True
    )
    grown, given = (int(number) for number in done.stdout.split())
    assert given > 180
    assert grown < 60
