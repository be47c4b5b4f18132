"""What an `Index` offers: results, properties, names, copies and pickles."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import elias_idx
from elias_idx import EliasIdxError, Index
from helpers_index import build, names_for
from oracle import Parts, random_parts


def test_results_have_names_shapes_and_dtypes(index: Index, parts: Parts) -> None:
    result = index.search(parts.queries, k=5)
    labels, scores = result
    assert result.labels is labels
    assert result.scores is scores
    assert (labels.shape, labels.dtype) == ((8, 5), np.int64)
    assert (scores.shape, scores.dtype) == ((8, 5), np.float32)
    assert index.search(parts.queries).labels.shape == (8, 10)
    beam = index.beam(parts.queries, beam_size=3)
    assert (beam.clusters.shape, beam.clusters.dtype) == ((8, 3), np.int64)
    assert (beam.scores.shape, beam.scores.dtype) == ((8, 3), np.float32)
    shortlist = index.shortlist(parts.queries, shortlist_size=7)
    assert (shortlist.labels.shape, shortlist.scores.dtype) == ((8, 7), np.float32)


def test_a_single_embedding_gives_a_single_row(index: Index, parts: Parts) -> None:
    for single, batch in (
        (index.search(parts.queries[3], 5), index.search(parts.queries, 5)),
        (index.beam(parts.queries[3]), index.beam(parts.queries)),
        (index.shortlist(parts.queries[3]), index.shortlist(parts.queries)),
    ):
        assert single[0].ndim == 1
        np.testing.assert_array_equal(single[0], batch[0][3])
        np.testing.assert_array_equal(single[1], batch[1][3])


def test_no_queries_give_no_rows(index: Index) -> None:
    none = np.zeros((0, index.dim))
    assert index.search(none, 3).labels.shape == (0, 3)
    assert index.beam(none).scores.shape == (0, 9)
    assert index.shortlist(none).labels.shape == (0, 60)


def test_padding_is_only_for_what_is_not_reachable() -> None:
    parts = random_parts(num_clusters=2, num_labels=30, labels_per_cluster=4)
    bias = np.full(30, -1000.0)
    labels, scores = build(parts, label_bias=bias).search(parts.queries, 50, beam_size=1)
    assert ((labels >= 0).sum(axis=1) == 4).all()
    assert (labels[:, 4:] == -1).all()
    assert not scores.any(), "all underflow, and keep their labels"


def test_defaults_are_used_and_clamped(parts: Parts) -> None:
    index = build(parts, beam_size=2, shortlist_size=6, alpha=3.5)
    assert (index.beam_size, index.shortlist_size, index.alpha) == (2, 6, 3.5)
    assert index.beam(parts.queries).clusters.shape == (8, 2)
    assert index.shortlist(parts.queries).labels.shape == (8, 6)
    np.testing.assert_array_equal(
        index.search(parts.queries).labels, index.search(parts.queries, beam_size=2, shortlist_size=6).labels
    )
    assert (build(parts).beam_size, build(parts).shortlist_size, build(parts).alpha) == (20, 2000, 10.0)
    huge = 10**30
    everything = build(parts, beam_size=huge, shortlist_size=huge)
    assert everything.beam(parts.queries).clusters.shape == (8, 9)
    assert everything.shortlist(parts.queries, beam_size=huge, shortlist_size=huge).labels.shape == (8, 60)
    assert everything.search(parts.queries, beam_size=np.int8(3), num_threads=huge).labels.shape == (8, 10)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", ">f8", np.longdouble, np.int8, np.uint64, bool])
def test_numbers_of_any_kind_are_taken(index: Index, dtype: Any) -> None:
    queries = np.random.default_rng(0).integers(0, 2, (4, index.dim)).astype(dtype)
    expected = index.search(queries.astype(np.float32))
    np.testing.assert_array_equal(index.search(queries).scores, expected.scores)
    np.testing.assert_array_equal(index.search(queries.tolist()).scores, expected.scores)
    np.testing.assert_array_equal(index.search(queries.astype(object)).scores, expected.scores)


def test_arrays_of_any_layout_are_taken(index: Index, parts: Parts) -> None:
    expected = index.search(parts.queries).labels
    wide = np.zeros((16, 24), dtype=np.float32)
    wide[::2, ::2] = parts.queries
    read_only = parts.queries.copy()
    read_only.flags.writeable = False
    unaligned = np.zeros(parts.queries.nbytes + 1, dtype=np.uint8)[1:].view(np.float32).reshape(8, 12)
    unaligned[:] = parts.queries
    for queries in (np.asfortranarray(parts.queries), wide[::2, ::2], read_only, unaligned, parts.queries[::-1][::-1]):
        np.testing.assert_array_equal(index.search(queries).labels, expected)
    single = np.broadcast_to(np.float32(0.5), (3, 12))
    np.testing.assert_array_equal(index.search(single).labels[2], index.search(single[0]).labels)


def test_its_own_rows_can_be_searched_for(index: Index) -> None:
    assert index.search(index.label_weights[:5]).labels.shape == (5, 10)


def test_properties(index: Index, parts: Parts) -> None:
    assert (index.num_labels, index.num_clusters, index.dim, index.label_dim) == (60, 9, 12, 12)
    assert index.path is None
    assert index.label_projection is None
    np.testing.assert_array_equal(index.cluster_weights, parts.cluster_weights)
    np.testing.assert_array_equal(index.cluster_bias, parts.cluster_bias)
    np.testing.assert_array_equal(index.label_weights, parts.label_weights)
    np.testing.assert_array_equal(index.label_bias, parts.label_bias)
    indptr, indices, data = index.adjacency
    assert (indptr.dtype, indices.dtype, data.dtype) == (np.int64, np.uint32, np.float32)
    dense = scipy.sparse.csr_array((data, indices, indptr), shape=(9, 60)).toarray()
    np.testing.assert_array_equal(dense, parts.adjacency)
    for row in range(9):
        weights = data[indptr[row] : indptr[row + 1]]
        assert (np.diff(weights) <= 0).all()
    tensors = [index.cluster_weights, index.cluster_bias, index.label_weights, index.label_bias, indptr, indices, data]
    names = sum(len(name.encode()) for name in names_for(parts)) + 8 * 61
    exact = sum(tensor.nbytes for tensor in tensors) + names
    assert build(parts, screen=False, label_names=names_for(parts)).nbytes == exact
    # Panels of 16 clusters; four numbers a row; a byte for each weight of a label.
    assert index.nbytes == exact + 16 * 12 + 9 * 16 + 60 * 12 + 60 * 16
    assert sum(index.memory().values()) == index.nbytes
    assert index.memory()["label_codes"] == 60 * 12


def test_a_projection_comes_back() -> None:
    parts = random_parts(label_dim=5)
    index = build(parts)
    assert (index.dim, index.label_dim) == (12, 5)
    projection = index.label_projection
    assert projection is not None
    np.testing.assert_array_equal(projection, parts.label_projection)


def test_the_repr_says_what_it_is(index: Index, tmp_path: Path) -> None:
    assert repr(index) == f"<elias_idx.Index: 60 labels, 9 clusters, dim 12, float32, {index.nbytes / 1000:.1f} KB>"
    index.save(tmp_path / "index")
    assert str(tmp_path / "index") in repr(Index.load(tmp_path / "index"))


@pytest.mark.parametrize("kind", ["built", "mapped", "read"])
def test_arrays_are_read_only_views_that_keep_the_index_alive(parts: Parts, tmp_path: Path, kind: str) -> None:
    index = build(parts, label_names=names_for(parts))
    if kind != "built":
        index.save(tmp_path / "index")
        index = Index.load(tmp_path / "index", mmap=kind == "mapped")
    names = index.label_names
    assert names is not None
    arrays = [index.cluster_weights, index.cluster_bias, *index.adjacency, index.label_weights, index.label_bias]
    again = [index.cluster_weights, index.cluster_bias, *index.adjacency, index.label_weights, index.label_bias]
    for array, same in zip(arrays, again, strict=True):
        assert np.shares_memory(array, same), "a view, no copy"
        assert not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True
    copies = [array.copy() for array in arrays]
    alive = weakref.ref(index)
    del index, again
    gc.collect()
    assert alive() is None
    for array, expected in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert names[3] == "label 3"


def test_it_is_immutable_and_not_made_by_hand(index: Index) -> None:
    with pytest.raises(AttributeError):
        index.alpha = 3.0  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        index.new = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="immutable"):
        del index._core
    with pytest.raises(TypeError, match=r"Index\.build"):
        Index()


def test_label_names_are_a_lazy_sequence(index: Index, parts: Parts) -> None:
    names, expected = index.label_names, names_for(parts)
    assert isinstance(names, Sequence)
    assert len(names) == 60
    assert list(names) == expected
    assert (names[0], names[1], names[2], names[-1]) == (*expected[:3], expected[-1])
    for at in (slice(None), slice(5, 2), slice(50, 99), slice(None, None, -7), slice(-3, None)):
        part = names[at]
        assert list(part) == expected[at]
        assert len(part) == len(expected[at])
    assert names[10:20][-1] == expected[19]
    assert "label 7" in names
    assert "nothing" not in names
    assert names.index("label 9") == 9
    assert list(reversed(names)) == expected[::-1]
    assert repr(names) == f"<LabelNames ['', {expected[1]!r}, {expected[2]!r}, ...], 60 names>"
    for outside in (60, -61):
        with pytest.raises(IndexError):
            names[outside]
    with pytest.raises(TypeError):
        names["label 7"]  # type: ignore[call-overload]


def test_names_keep_the_shape(index: Index) -> None:
    names = index.names([[5, -1], [0, 1]])
    assert names.dtype == object
    assert names.tolist() == [["label 5", None], ["", "Fièvre 🌡 typhoïde"]]
    assert index.names(np.array([[[7]]], dtype=np.uint16)).tolist() == [[["label 7"]]]
    assert index.names(np.arange(9)[::-2].astype(">i4")).tolist() == [f"label {i}" for i in (8, 6, 4)] + ["a\0b\n", ""]
    assert index.names(4) == "label 4"
    assert index.names(np.int32(4)) == "label 4"
    assert index.names(-1) is None
    assert index.names([]).shape == (0,)
    assert index.names(np.zeros((3, 0), dtype=int)).shape == (3, 0)
    assert index.names(index.search(np.ones((2, 12)), 70).labels).shape == (2, 70)


@pytest.mark.parametrize("labels", [[60], [-2], [0, 2**62], np.array([2**64 - 1], dtype=np.uint64)])
def test_names_of_labels_that_do_not_exist(index: Index, labels: Any) -> None:
    with pytest.raises(ValueError, match="out of range: the index has 60 labels"):
        index.names(labels)


@pytest.mark.parametrize("labels", [[1.0], ["label 1"], [True], [None], 1.5])
def test_names_of_what_is_no_label(index: Index, labels: Any) -> None:
    with pytest.raises(TypeError, match="labels must be integers"):
        index.names(labels)


def test_an_index_without_names_says_so(parts: Parts) -> None:
    index = build(parts)
    assert index.label_names is None
    with pytest.raises(ValueError, match="no label names"):
        index.names([0])


def test_copies_are_the_index_itself(index: Index) -> None:
    assert copy.copy(index) is index
    assert copy.deepcopy({"index": index})["index"] is index


def assert_same_index(one: Index, other: Index) -> None:
    for name in ("cluster_weights", "cluster_bias", "label_weights", "label_bias"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for array, same in zip(one.adjacency, other.adjacency, strict=True):
        np.testing.assert_array_equal(array, same)
    assert list(one.label_names or []) == list(other.label_names or [])
    assert (one.alpha, one.beam_size, one.shortlist_size) == (other.alpha, other.beam_size, other.shortlist_size)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_built_index_pickles_by_bytes(index: Index, protocol: int) -> None:
    copied = pickle.loads(pickle.dumps(index, protocol))
    assert_same_index(index, copied)
    assert copied.path is None
    copied.verify()
    assert_same_index(index, pickle.loads(pickle.dumps(copied)))


@pytest.mark.parametrize("mmap", [True, False])
def test_a_loaded_index_pickles_by_path(
    index: Index, tmp_path: Path, mmap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index.save("index")
    loaded = Index.load("index", mmap=mmap)
    assert loaded.path == tmp_path / "index"
    pickled = pickle.dumps(loaded)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    assert_same_index(index, pickle.loads(pickled))


def test_a_pickle_of_an_index_that_changed_is_refused(index: Index, parts: Parts, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    pickled = pickle.dumps(Index.load(tmp_path / "index"))
    build(parts, label_bias=parts.label_bias + 1).save(tmp_path / "index", overwrite=True)
    with pytest.raises(EliasIdxError, match="has changed since it was pickled"):
        pickle.loads(pickled)
    index.save(tmp_path / "index", overwrite=True)
    assert_same_index(index, pickle.loads(pickled))


def test_the_package_needs_numpy_alone() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "scipy", "sklearn", "safetensors", "tqdm", "typer", "click", "rich"}:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
import numpy, elias_idx
index = elias_idx.Index.build([[1.0]], [0.0], ([0, 1], [0], [1.0]), [[1.0]], [0.0])
assert index.search([[1.0]], 1).labels.tolist() == [[0]]
assert elias_idx.__version__.count(".") == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attributes_of_the_package() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = elias_idx.Nothing
    assert set(elias_idx.__all__) <= {*dir(elias_idx), "Ensemble", "Model"}
