"""Label weights in every dtype, with and without 8-bit codes beside them."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import oracle
from elias_idx import FormatError, Index
from helpers_index import build, names_for, tolerance_of
from oracle import Parts, random_parts

DTYPES = ["float32", "bfloat16", "float16", "int8"]


def to_bfloat16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rounds to the upper half of a float32, halves to even."""
    bits = array.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def to_int8(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    scale = np.abs(array).max(axis=1, keepdims=True).astype(np.float64) / 127
    return np.rint(array / scale) * scale


def files(index: Index) -> dict[str, bytes]:
    return index._core.to_files()


@pytest.mark.parametrize("screen", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_built_saved_and_loaded(parts: Parts, tmp_path: Path, dtype: Any, screen: bool) -> None:
    index = build(parts, dtype=dtype, screen=screen, label_names=names_for(parts))
    assert (index.dtype, index.screen) == (dtype, screen)
    assert f"dim 12, {dtype}, " in repr(index)
    index.save(tmp_path / "index")
    expected = index.search(parts.queries)
    for loaded in (
        Index.load(tmp_path / "index"),
        Index.load(tmp_path / "index", prefault=True),
        Index.load(tmp_path / "index", mmap=False),
        pickle.loads(pickle.dumps(index)),
        pickle.loads(pickle.dumps(Index.load(tmp_path / "index", prefault=True))),
    ):
        loaded.verify()
        assert (loaded.dtype, loaded.screen, loaded.nbytes) == (dtype, screen, index.nbytes)
        np.testing.assert_array_equal(loaded.search(parts.queries).labels, expected.labels)
        np.testing.assert_array_equal(loaded.label_rows(np.arange(60)), index.label_rows(np.arange(60)))


def test_rows_are_rounded_to_nearest(parts: Parts) -> None:
    weights, ids = parts.label_weights.astype(np.float32), np.arange(60)
    rows = {dtype: build(parts, dtype=dtype).label_rows(ids) for dtype in DTYPES}
    np.testing.assert_array_equal(rows["float32"], weights)
    np.testing.assert_array_equal(rows["float16"], weights.astype(np.float16))
    np.testing.assert_array_equal(rows["bfloat16"], to_bfloat16(weights))
    np.testing.assert_allclose(rows["int8"], to_int8(weights), rtol=1e-6)
    assert all(array.dtype == np.float32 for array in rows.values())


def test_label_rows_keep_the_shape_of_the_ids(parts: Parts) -> None:
    index = build(parts, dtype="int8")
    rows = index.label_rows([[5, 0, 59], [5, 5, 1]])
    assert rows.shape == (2, 3, 12)
    np.testing.assert_array_equal(rows[0, 0], rows[1, 1])
    np.testing.assert_array_equal(index.label_rows(5), rows[0, 0])
    assert index.label_rows([]).shape == (0, 12)
    for outside in (60, -1, 2**40):
        with pytest.raises(ValueError, match=f"label {outside} is out of range: the index has 60 labels"):
            index.label_rows([0, outside])
    with pytest.raises(TypeError, match="labels must be integers"):
        index.label_rows([0.5])


def test_label_weights_are_views_where_numpy_has_the_dtype(parts: Parts) -> None:
    for dtype in ("float32", "float16"):
        weights = build(parts, dtype=dtype).label_weights
        assert (weights.dtype, weights.shape) == (dtype, (60, 12))
        assert not weights.flags.owndata
        assert not weights.flags.writeable
    for dtype in ("bfloat16", "int8"):
        index = build(parts, dtype=dtype)
        with pytest.raises(AttributeError, match=rf"{dtype} label weights: label_rows\(ids\)"):
            _ = index.label_weights


@pytest.mark.parametrize("screen", [True, False])
@pytest.mark.parametrize("label_dim", [None, 7])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_search_scores_the_rows_that_are_stored(dtype: Any, label_dim: int | None, screen: bool) -> None:
    parts = random_parts(3, label_dim=label_dim)
    index = build(parts, dtype=dtype, screen=screen)
    stored = replace(parts, label_weights=index.label_rows(np.arange(60)))
    oracle.assert_same_results(
        index.search(parts.queries, 20, beam_size=4, shortlist_size=30),
        oracle.search(stored, parts.queries, 20, 4, 30),
        tolerance=tolerance_of(index),
    )


def test_codes_alone_give_about_the_same_labels() -> None:
    parts = random_parts(3, dim=64, num_labels=500, labels_per_cluster=100, num_queries=20)
    exact = build(parts).search(parts.queries, 50).labels
    for screen in (True, False):
        found = build(parts, dtype="int8", screen=screen).search(parts.queries, 50).labels
        overlap = [len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True)]
        assert np.mean(overlap) > 47


def test_codes_alone_are_a_third_of_the_size_and_find_nearly_the_same() -> None:
    # As after training: a decaying spectrum, queries near the clusters, weights that fall with the rank.
    rng = np.random.default_rng(0)
    num_clusters, num_labels, dim, edges = 100, 10_000, 256, 300
    spectrum = (1 / np.sqrt(1 + np.arange(dim))).astype(np.float32)
    clusters, labels = (rng.standard_normal((n, dim)) * spectrum for n in (num_clusters, num_labels))
    queries = clusters[rng.integers(num_clusters, size=200)] + rng.standard_normal((200, dim)) * spectrum
    indices = np.concatenate([rng.choice(num_labels, edges, replace=False) for _ in range(num_clusters)])
    adjacency = np.arange(num_clusters + 1) * edges, indices, np.tile(1 / (1 + np.arange(edges)), num_clusters)
    index = Index.build(clusters, np.zeros(num_clusters), adjacency, labels, np.full(num_labels, -4.7), screen=False)
    exact = index.search(queries, 100).labels
    for screen in (True, False):
        coded = index.quantize("int8", screen=screen)
        assert coded.nbytes <= 0.35 * index.nbytes
        found = coded.search(queries, 100).labels
        overlap = [len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True)]
        assert np.mean(overlap) >= 99


@pytest.mark.parametrize("source_screen", [True, False])
def test_quantizing_gives_what_building_gives(parts: Parts, tmp_path: Path, source_screen: bool) -> None:
    names = names_for(parts)
    source = build(parts, screen=source_screen, label_names=names)
    source.save(tmp_path / "source")
    mapped = Index.load(tmp_path / "source")
    for dtype in DTYPES:
        for screen in (True, False):
            expected = files(build(parts, dtype=dtype, screen=screen, label_names=names))
            assert files(source.quantize(dtype, screen=screen)) == expected
            streamed = mapped.quantize(dtype, screen=screen, path=tmp_path / f"{dtype}-{screen}")
            assert streamed.path == tmp_path / f"{dtype}-{screen}"
            assert files(streamed) == expected


def test_conversions_that_can_not_be(parts: Parts, tmp_path: Path) -> None:
    coded = build(parts, dtype="int8")
    for dtype in ("float32", "bfloat16", "float16"):
        with pytest.raises(ValueError, match=f"an int8 index can't become {dtype}: start from the index"):
            coded.quantize(dtype, path=tmp_path / "new")
    large = parts.label_weights.copy()
    large[58, 3] = -70_000
    for make in (lambda: build(parts, label_weights=large, dtype="float16"),
                 lambda: build(parts, label_weights=large).quantize("float16", path=tmp_path / "new")):  # fmt: skip
        with pytest.raises(ValueError, match=r"label_weights\[58, 3\] is -70000, beyond the 65504 that float16 can"):
            make()
    for wrong in ("float64", "int4", "", "Float32"):
        with pytest.raises(ValueError, match=f"dtype must be 'float32', .* or 'int8', got '{wrong}'"):
            build(parts, dtype=wrong)
        with pytest.raises(ValueError, match="dtype must be"):
            coded.quantize(wrong)  # type: ignore[arg-type]
    for no_name in (np.float32, None, 32):
        with pytest.raises(TypeError, match="dtype must be a str"):
            build(parts, dtype=no_name)
        with pytest.raises(TypeError, match="dtype must be a str"):
            coded.quantize(no_name)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        coded.quantize("int8", path=tmp_path / "missing" / "index")
    assert list(tmp_path.iterdir()) == []


def test_quantizing_replaces_only_when_asked(parts: Parts, tmp_path: Path) -> None:
    build(parts).save(tmp_path / "index")
    mapped = Index.load(tmp_path / "index")
    expected = mapped.search(parts.queries)
    with pytest.raises(FileExistsError, match="overwrite"):
        mapped.quantize("int8", path=tmp_path / "index")
    assert mapped.quantize("int8", path=tmp_path / "index", overwrite=True).dtype == "int8"
    np.testing.assert_array_equal(mapped.search(parts.queries).scores, expected.scores)
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_a_damaged_index_is_not_saved_or_converted(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    file = tmp_path / "index" / "cluster_weights.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    damaged = Index.load(tmp_path / "index")
    with pytest.raises(FormatError, match=r"cluster_weights\.safetensors: damaged"):
        damaged.save(tmp_path / "copy")
    with pytest.raises(FormatError, match=r"cluster_weights\.safetensors: damaged"):
        damaged.quantize("int8", path=tmp_path / "copy")
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_prefault_brings_all_pages_in_and_reading_takes_own_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(40_000, 256)).astype(np.float32)
    edges = ([0, 1], [0], [1.0])
    Index.build(weights[:1], [0.0], edges, weights, np.zeros(40_000), path=tmp_path / "index", screen=False)
    code = """
import sys
from elias_idx import Index
def kib(kind):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(kind))
before = kib("RssFile"), kib("RssAnon")
index = Index.load(sys.argv[1], **eval(sys.argv[2]))
print(kib("RssFile") - before[0], kib("RssAnon") - before[1])
"""
    grown = {}
    for options in ("{}", "{'prefault': True}", "{'mmap': False}"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "index"), options], check=True, capture_output=True, text=True
        )
        grown[options] = [int(number) for number in done.stdout.split()]
    size = weights.nbytes // 1024
    assert grown["{}"][0] < size // 4
    assert grown["{'prefault': True}"][0] >= size
    assert grown["{'prefault': True}"][1] < size // 4
    assert grown["{'mmap': False}"][1] >= size
