"""Bad arguments, one by one: each is refused with an error that says what is wrong."""

import itertools
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from elias_idx import Index
from helpers_index import build, names_for
from oracle import Parts, random_parts


def changed(array: Any, at: Any, value: Any) -> Any:
    """A copy of an array with one element changed."""
    copy = array.copy()
    copy[at] = value
    return copy


# Searching.


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.zeros((2, 11)), "must have dim 12, as the index has, got 11"),
        (np.zeros(13), "must have dim 12, as the index has, got 13"),
        (np.zeros((0, 5)), "must have dim 12, as the index has, got 5"),
        ([], "must have dim 12, as the index has, got 0"),
        (np.zeros((2, 2, 12)), "must have 2 or 1 dimensions, got 3"),
        (0.5, "must have 2 or 1 dimensions, got 0"),
        ([[1.0] * 12, [1.0]], "must be an array of numbers"),
    ],
)
def test_embeddings_of_other_shapes(index: Index, queries: Any, message: str) -> None:
    for search in (index.search, index.beam, index.shortlist):
        with pytest.raises(ValueError, match=message):
            search(queries)


@pytest.mark.parametrize(
    "queries",
    [
        np.zeros((2, 12), dtype=complex),
        np.full((2, 12), "1"),
        np.full((2, 12), b"1"),
        np.full((2, 12), "x", dtype=object),
        np.full((2, 12), 1j, dtype=object),
        np.zeros((2, 12), dtype="datetime64[s]"),
        np.zeros((2, 12), dtype=[("a", "f4")]),
        [["x"] * 12],
    ],
    ids=lambda queries: str(np.asarray(queries).dtype),
)
def test_embeddings_that_are_no_numbers(index: Index, queries: Any) -> None:
    with pytest.raises(TypeError, match="embeddings must be real numbers, got dtype"):
        index.search(queries)


def test_embeddings_that_are_no_arrays(index: Index) -> None:
    for queries in (None, {}, "text", scipy.sparse.eye_array(12).tocsr()):
        with pytest.raises((TypeError, ValueError), match="embeddings must"):
            index.search(queries)

    class Far:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise TypeError("it is on another device")

    with pytest.raises(TypeError, match="embeddings can't become a NumPy array: it is on another device"):
        index.search(Far())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, None])
def test_embeddings_that_are_not_finite(index: Index, bad: float | None) -> None:
    queries = np.zeros((9, 12), dtype=object if bad is None else float)
    queries[6, 11] = bad
    for search in (index.search, index.beam, index.shortlist):
        with pytest.raises(ValueError, match="row 6 of embeddings holds NaN or infinity"):
            search(queries)


@pytest.mark.parametrize("name", ["k", "beam_size", "shortlist_size", "num_threads"])
def test_sizes_must_be_integers_of_at_least_one(index: Index, parts: Parts, name: str) -> None:
    for wrong in (1.0, "3", np.float32(2), [1]):
        with pytest.raises(TypeError, match=f"{name} must be an integer, got {type(wrong).__name__}"):
            index.search(parts.queries, **{name: wrong})
    for wrong in (0, -1, -(2**70), np.int64(0)):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got {wrong}"):
            index.search(parts.queries, **{name: wrong})
    with pytest.raises(TypeError, match="k must be an integer, got NoneType"):
        index.search(parts.queries, None)  # type: ignore[arg-type]
    if name in ("beam_size", "num_threads"):
        with pytest.raises(ValueError, match=name):
            index.beam(parts.queries, **{name: 0})
    if name != "k":
        with pytest.raises(ValueError, match=name):
            index.shortlist(parts.queries, **{name: 0})


def test_k_has_no_limit_but_memory(index: Index, parts: Parts) -> None:
    assert index.search(parts.queries, 100_000).labels.shape == (8, 100_000)
    for k in (2**45, 2**62, sys.maxsize):
        with pytest.raises(MemoryError, match="results"):
            index.search(parts.queries, k)
        with pytest.raises(MemoryError, match="results"):
            index.search(parts.queries[0], k)
    for k in (2**63, 2**64, 10**30):
        with pytest.raises(ValueError, match="k must be at most"):
            index.search(parts.queries, k)


# Building.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cluster_weights": np.zeros((0, 12))}, r"cluster_weights must have no dimension of 0, got shape \[0, 12\]"),
        ({"cluster_weights": np.zeros((9, 0))}, r"cluster_weights must have no dimension of 0, got shape \[9, 0\]"),
        ({"label_weights": np.zeros((0, 12))}, r"label_weights must have no dimension of 0, got shape \[0, 12\]"),
        ({"label_weights": np.zeros((60, 0))}, r"label_weights must have no dimension of 0, got shape \[60, 0\]"),
        ({"cluster_weights": np.zeros(9)}, "cluster_weights must have 2 dimensions, got 1"),
        ({"label_weights": np.zeros((60, 12, 1))}, "label_weights must have 2 dimensions, got 3"),
        ({"cluster_bias": np.zeros((9, 1))}, "cluster_bias must have 1 dimensions, got 2"),
        ({"cluster_bias": np.zeros(8)}, "cluster_bias must have 9 values, got 8"),
        ({"label_bias": np.zeros(61)}, "label_bias must have 60 values, got 61"),
        ({"label_bias": 0.0}, "label_bias must have 1 dimensions, got 0"),
        ({"label_weights": np.zeros((60, 11))}, "label_weights must have dim 12, as cluster_weights has, got 11"),
        ({"label_projection": np.zeros((11, 12))}, r"label_projection must be .* \[12, 12\], got \[11, 12\]"),
        ({"label_projection": np.zeros((12, 11))}, r"label_projection must be .* \[12, 12\], got \[12, 11\]"),
        ({"label_projection": np.zeros(12)}, "label_projection must have 2 dimensions, got 1"),
    ],
)
def test_shapes_that_do_not_fit(parts: Parts, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(parts, **change)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_weights_must_be_finite(bad: float) -> None:
    parts = random_parts(label_dim=5)
    projection = np.zeros((5, 12))
    for name, array, at, position in (
        ("cluster_weights", parts.cluster_weights, (3, 7), "3, 7"),
        ("cluster_bias", parts.cluster_bias, 8, "8"),
        ("label_weights", parts.label_weights, (59, 4), "59, 4"),
        ("label_bias", parts.label_bias, 0, "0"),
        ("label_projection", projection, (4, 11), "4, 11"),
    ):
        wrong = changed(array.astype(np.float64), at, bad)
        with pytest.raises(ValueError, match=rf"{name}\[{position}\] is .*: it must be finite"):
            build(parts, **{name: wrong})


@pytest.mark.parametrize("name", ["cluster_weights", "cluster_bias", "label_weights", "label_bias", "label_projection"])
def test_weights_must_be_numbers(parts: Parts, name: str) -> None:
    shape = np.shape(getattr(parts, name)) or (12, 12)
    for wrong in (np.zeros(shape, dtype=complex), np.full(shape, "x"), np.full(shape, "x", dtype=object)):
        with pytest.raises(TypeError, match=f"{name} must be real numbers"):
            build(parts, **{name: wrong})


def test_weights_of_any_float_dtype_are_taken(parts: Parts) -> None:
    expected = build(parts).search(parts.queries)
    for dtype in (np.float64, ">f4", object):
        args = {name: getattr(parts, name).astype(dtype) for name in ("cluster_weights", "label_bias", "label_weights")}
        np.testing.assert_array_equal(build(parts, **args).search(parts.queries).scores, expected.scores)
    assert build(parts, cluster_weights=parts.cluster_weights.astype(np.float16)).dim == 12
    assert build(parts, label_weights=parts.label_weights.tolist()).num_labels == 60


def test_too_many_labels_are_refused_before_anything_is_copied(parts: Parts) -> None:
    count = 2**32 - 1
    weights = np.broadcast_to(np.float32(0), (count, 12))
    bias = np.broadcast_to(np.float32(0), (count,))
    with pytest.raises(ValueError, match="label_weights must have at most 4294967294 rows, got 4294967295"):
        build(parts, label_weights=weights, label_bias=bias)
    with pytest.raises(ValueError, match="cluster_weights must have at most 4294967294 rows"):
        build(parts, cluster_weights=weights, cluster_bias=bias)


@pytest.mark.parametrize("alpha", [0, -1.0, np.nan, np.inf, -np.inf])
def test_alpha_must_be_finite_and_positive(parts: Parts, alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be finite and positive, got"):
        build(parts, alpha=alpha)


def test_alpha_must_be_a_number(parts: Parts) -> None:
    for alpha in ("x", None, [1.0], 1j):
        with pytest.raises(TypeError, match="alpha must be a number, got"):
            build(parts, alpha=alpha)
    assert build(parts, alpha=np.float32(0.5)).alpha == 0.5


@pytest.mark.parametrize("name", ["beam_size", "shortlist_size"])
def test_default_sizes_must_be_integers_of_at_least_one(parts: Parts, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an integer, got float"):
        build(parts, **{name: 2.0})
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        build(parts, **{name: 0})


# The adjacency.


@pytest.mark.parametrize("kind", ["csc", "coo", "lil", "dok", "bsr", "dia"])
def test_other_sparse_formats_say_what_to_do(parts: Parts, kind: str) -> None:
    matrix = scipy.sparse.csr_array(parts.adjacency).asformat(kind)
    with pytest.raises(ValueError, match=rf"adjacency is in {kind} format: pass adjacency\.tocsr\(\)"):
        build(parts, adjacency=matrix)


@pytest.mark.parametrize("matrix", [None, "text", (1, 2), np.zeros((9, 60)), np.zeros((3, 60)), 3], ids=str)
def test_what_is_no_sparse_matrix(parts: Parts, matrix: Any) -> None:
    with pytest.raises(TypeError, match="adjacency must be a CSR matrix"):
        build(parts, adjacency=matrix)


def test_every_kind_of_csr_is_taken(parts: Parts) -> None:
    expected = build(parts).adjacency
    matrix = scipy.sparse.csr_matrix(parts.adjacency)
    indptr, indices, data = parts.csr
    stub = SimpleNamespace(indptr=indptr, indices=indices, data=data)
    kinds: list[Any] = [matrix, scipy.sparse.csr_array(matrix), stub, expected, [indptr, indices, data]]
    kinds += [
        (indptr.astype(dtype), indices.astype(dtype), data.astype(values))
        for dtype, values in ((np.int32, np.float64), (np.uint64, np.float32), (">i4", ">f8"), (np.int64, object))
    ]
    kinds.append((indptr.tolist(), indices.tolist(), data.tolist()))
    for kind in kinds:
        for array, same in zip(build(parts, adjacency=kind).adjacency, expected, strict=True):
            np.testing.assert_array_equal(array, same)


def test_unsorted_rows_are_sorted(parts: Parts) -> None:
    rng = np.random.default_rng(0)
    indptr, indices, data = parts.csr
    order = np.concatenate([rng.permutation(np.arange(a, b)) for a, b in itertools.pairwise(indptr)])
    shuffled = build(parts, adjacency=(indptr, indices[order], data[order]))
    for array, same in zip(shuffled.adjacency, build(parts).adjacency, strict=True):
        np.testing.assert_array_equal(array, same)


def broken_csr() -> dict[str, tuple[Any, str]]:
    indptr, indices, data = random_parts().csr
    last = len(data)
    return {
        "indptr too short": ((indptr[:-1], indices, data), r"indptr must have num_clusters \+ 1 = 10 entries, got 9"),
        "indptr too long": ((np.append(indptr, last), indices, data), "entries, got 11"),
        "indptr empty": ((indptr[:0], indices, data), "entries, got 0"),
        "indptr starts late": ((changed(indptr, 0, 1), indices, data), "indptr must start at 0, got 1"),
        "indptr negative": ((changed(indptr, 0, -5), indices, data), "indptr must start at 0, got -5"),
        "indptr decreases": ((changed(indptr, 3, 100), indices, data), "indptr decreases at row 3, from 100 to 60"),
        "indptr ends early": ((changed(indptr, 9, last - 1), indices, data), "indptr must end at .* 135, got 134"),
        "indptr ends late": ((changed(indptr, 9, 2**62), indices, data), "indptr must end at .* 135, got"),
        "indices too short": ((indptr, indices[:-1], data), "same length, got 134 and 135"),
        "data too short": ((indptr, indices, data[:-1]), "same length, got 135 and 134"),
        "label negative": ((indptr, changed(indices, 20, -1), data), r"indices\[20\] \(row 1\) is -1, must be from 0"),
        "label too large": ((indptr, changed(indices, 134, 60), data), r"indices\[134\] \(row 8\) is 60"),
        "label far too large": ((indptr, changed(indices, 0, 2**32), data), r"indices\[0\] \(row 0\) is 4294967296"),
        "label twice": ((indptr, changed(indices, 1, indices[0]), data), "occurs twice in row 0"),
        "explicit zero": ((indptr, indices, changed(data, 33, 0)), r"data\[33\] \(row 2\) is 0, .*eliminate_zeros"),
        "negative zero": ((indptr, indices, changed(data, 33, -0.0)), r"data\[33\] \(row 2\) is -0"),
        "zero in float32": ((indptr, indices, changed(data.astype(float), 33, 1e-60)), r"data\[33\] .* is 0"),
        "negative": ((indptr, indices, changed(data, 33, -0.5)), r"data\[33\] \(row 2\) is -0.5, must be in \(0, 1\]"),
        "above one": ((indptr, indices, changed(data, 33, 1.001)), r"data\[33\] \(row 2\) is 1.001"),
        "NaN": ((indptr, indices, changed(data, 33, np.nan)), r"data\[33\] \(row 2\) is NaN"),
        "infinite": ((indptr, indices, changed(data, 33, np.inf)), r"data\[33\] \(row 2\) is inf"),
        "two-dimensional": ((indptr, indices[None], data), r"adjacency\.indices must have 1 dimensions, got 2"),
        "huge unsigned": ((indptr, changed(indices.astype(np.uint64), 0, 2**64 - 1), data), "out of range"),
    }


@pytest.mark.parametrize("name", broken_csr())
def test_broken_csr_arrays(parts: Parts, name: str) -> None:
    arrays, message = broken_csr()[name]
    with pytest.raises(ValueError, match=message):
        build(parts, adjacency=arrays)


def test_csr_arrays_of_other_dtypes(parts: Parts) -> None:
    indptr, indices, data = parts.csr
    with pytest.raises(TypeError, match=r"adjacency\.indices must be integers, got dtype float64"):
        build(parts, adjacency=(indptr, indices.astype(float), data))
    with pytest.raises(TypeError, match=r"adjacency\.indptr must be integers, got dtype bool"):
        build(parts, adjacency=(indptr.astype(bool), indices, data))
    with pytest.raises(TypeError, match=r"adjacency\.data must be real numbers"):
        build(parts, adjacency=(indptr, indices, data.astype(complex)))


def test_a_csr_matrix_of_another_shape(parts: Parts) -> None:
    for shape in ((9, 61), (10, 60)):
        matrix = scipy.sparse.csr_array(np.pad(parts.adjacency, [(0, shape[0] - 9), (0, shape[1] - 60)]))
        with pytest.raises(ValueError, match=rf"= \[9, 60\], got \[{shape[0]}, {shape[1]}\]"):
            build(parts, adjacency=matrix)


def test_no_edges_at_all(parts: Parts) -> None:
    index = build(replace(parts, adjacency=np.zeros_like(parts.adjacency)))
    assert (index.search(parts.queries).labels == -1).all()
    nothing: tuple[list[int], list[int], list[float]] = ([0] * 10, [], [])
    assert len(build(parts, adjacency=nothing).adjacency.data) == 0


# Names.


def test_names_must_be_unique_strings_one_a_label(parts: Parts) -> None:
    names: list[Any] = names_for(parts)
    with pytest.raises(ValueError, match="label_names must have 60 names, one a label, got 59"):
        build(parts, label_names=names[:-1])
    with pytest.raises(ValueError, match='names must be unique, "label 5" is that of labels 5 and 9'):
        build(parts, label_names=changed(np.array(names, dtype=object), 9, "label 5").tolist())
    with pytest.raises(ValueError, match=r"label_names\[4\] is not valid Unicode"):
        build(parts, label_names=[*names[:4], "\ud800", *names[5:]])
    for wrong in (7, None, b"bytes", 1.5):
        with pytest.raises(TypeError, match=rf"label_names\[4\] must be a str, got {type(wrong).__name__}"):
            build(parts, label_names=[*names[:4], wrong, *names[5:]])
    for text in ("x" * 60, b"x" * 60):
        with pytest.raises(TypeError, match="label_names must be a sequence of strings, got one"):
            build(parts, label_names=text)


def test_names_of_any_sequence_are_taken(parts: Parts) -> None:
    names = names_for(parts)
    index = build(parts, label_names=tuple(names))
    for given in (np.array(names, dtype=object), iter(names), index.label_names):
        built = build(parts, label_names=given)
        assert list(built.label_names or []) == names
