"""What callers pass comes in any layout, dtype and size: results are those of plain arrays to the bit, or errors tell.

Every way of giving the same numbers is tried against contiguous float32 (or int64) arrays of them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elias_idx import Index
from elias_idx.errors import DataError
from elias_idx.features import GivenFeatures
from elias_idx.metrics import evaluate, inverse_propensities
from helpers_index import build
from oracle import Array, random_parts

PARTS = random_parts(7, label_dim=5)
EXTREMES = np.array([3.4e38, -3.4e38, 1e20, -1e20, 1e-39, 1e-45, -1e-45, 0.0, -0.0, 1.0], dtype=np.float32)

Way = Callable[[Array], Any]


class Subclass(np.ndarray):
    """An array of a class of its own."""


def unaligned(array: Array) -> Array:
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Way] = {
    "as it is": lambda array: array,
    "Fortran": np.asfortranarray,
    "every other": lambda array: np.repeat(array, 2, axis=0)[::2],
    "backwards": lambda array: array[::-1].copy()[::-1],
    "columns of a wider one": lambda array: np.concatenate([array, array], axis=-1)[..., : array.shape[-1]],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "read-only": read_only,
    "subclass": lambda array: array.view(Subclass),
    "masked, with nothing masked": np.ma.array,
    "list": lambda array: array.tolist(),
    "tuple": lambda array: tuple(array.tolist()),
    "objects": lambda array: array.astype(object),
    "tensor": lambda array: torch.from_numpy(array.copy()),
    "tensor, transposed": lambda array: torch.from_numpy(array.T.copy()).swapaxes(0, -1),
}
FLOATS: dict[str, Way] = {
    **LAYOUTS,
    "float64": lambda array: array.astype(np.float64),
    "long double": lambda array: array.astype(np.longdouble),
    "float64, big-endian, Fortran": lambda array: np.asfortranarray(array.astype(">f8")),
    "tensor of float64": lambda array: torch.from_numpy(array.astype(np.float64)),
}
INTEGERS: dict[str, Way] = {
    **{name: way for name, way in LAYOUTS.items() if name != "objects"},
    **{
        dtype: (lambda array, dtype=dtype: array.astype(dtype))
        for dtype in ("int16", "uint8", "int32", "uint64", ">i4")
    },
}
floats, integers = (st.sampled_from(list(ways.values())) for ways in (FLOATS, INTEGERS))


@pytest.fixture(scope="module")
def index() -> Index:
    return build(PARTS)


def assert_equal(found: Any, expected: Any) -> None:
    for array, same in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, same)
        assert array.dtype == same.dtype


def assert_sound(found: Any, count: int) -> None:
    """Ids that there are, each once and padded behind, and scores from 1 to 0 that fall."""
    ids, scores = found
    assert ((ids >= -1) & (ids < count)).all()
    assert ((scores >= 0) & (scores <= 1)).all()  # NaN is neither
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (np.diff((ids < 0).astype(int), axis=1) >= 0).all()
    for row in ids:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(way=floats, num_queries=st.sampled_from([0, 1, 2, 17]), extremes=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_embeddings(way: Way, num_queries: int, extremes: float, seed: int) -> None:
    index, rng = build(PARTS), np.random.default_rng(seed)
    queries = rng.standard_normal((num_queries, 12)).astype(np.float32)
    queries = np.where(rng.random(queries.shape) < extremes, rng.choice(EXTREMES, queries.shape), queries)
    # An empty list doesn't say how long its rows would be.
    passed = way(queries) if num_queries else np.asarray(way(queries)).reshape(0, 12)
    for search in (index.search, index.beam, index.shortlist):
        expected = search(queries)
        assert_equal(search(passed), expected)
        assert_sound(expected, index.num_clusters if search == index.beam else index.num_labels)
        if num_queries:
            assert_equal(search(way(queries[0])), [part[0] for part in expected])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(ways=st.tuples(*[floats] * 6), whole=st.tuples(integers, integers), dtype=st.sampled_from(["float32", "int8"]))
def test_an_index_is_the_same_whatever_it_is_built_from(ways: Any, whole: Any, dtype: Any) -> None:
    expected = build(PARTS, dtype=dtype)._core.to_files()
    indptr, indices, data = PARTS.csr
    names = ["cluster_weights", "cluster_bias", "label_weights", "label_bias", "label_projection"]
    passed = {name: way(getattr(PARTS, name)) for name, way in zip(names, ways, strict=False)}
    csr = (whole[0](indptr), whole[1](indices), ways[-1](data))
    assert build(PARTS, **passed, adjacency=csr, dtype=dtype)._core.to_files() == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ways=st.tuples(floats, floats), labels=integers)
def test_labels_join_and_leave_the_same_way(ways: Any, labels: Way) -> None:
    index = build(PARTS)
    weights, bias = PARTS.label_weights[:3] + 1, PARTS.label_bias[:3]
    edges = sp.csr_matrix(PARTS.adjacency[:, :3])
    expected = index.add_labels(weights, bias, edges)._core.to_files()
    assert index.add_labels(ways[0](weights), ways[1](bias), edges)._core.to_files() == expected
    ids = np.array([3, 50, 7, 3])
    assert index.remove_labels(labels(ids))._core.to_files() == index.remove_labels(ids)._core.to_files()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    shares=st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=6, max_size=6),
    dim=st.integers(1, 40),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 30), st.integers(1, 60)),
    label_dim=st.sampled_from([None, 1, 9]),
    alpha=st.sampled_from([1e-38, 1.0, 3e38]),
    dtype=st.sampled_from(["float32", "bfloat16", "float16", "int8"]),
    screen=st.booleans(),
)
def test_sums_that_overflow_give_scores_all_the_same(
    seed: int, shares: Any, dim: int, sizes: Any, label_dim: int | None, alpha: float, dtype: Any, screen: bool
) -> None:
    rng = np.random.default_rng(seed)
    clusters, labels = sizes[1:]
    parts = random_parts(seed, dim=dim, num_clusters=clusters, num_labels=labels, label_dim=label_dim, alpha=alpha)
    limit = {"float16": 6e4, "bfloat16": 3e38}.get(dtype, 3.4e38)

    def with_extremes(array: Array | None, share: float) -> Array | None:
        if array is None:
            return None
        return np.where(
            rng.random(array.shape) < share, np.clip(rng.choice(EXTREMES, array.shape), -limit, limit), array
        )

    names = ["cluster_weights", "cluster_bias", "label_weights", "label_bias", "queries", "label_projection"]
    parts = replace(parts, **{n: with_extremes(getattr(parts, n), s) for n, s in zip(names, shares, strict=True)})
    index = build(parts, dtype=dtype, screen=screen)
    for given_filter in (None, [0], rng.random(labels) < 0.5):
        options = {"beam_size": sizes[0], "shortlist_size": 20, "filter": given_filter}
        assert_sound(index.search(parts.queries, 10, **options), labels)
        assert_sound(index.shortlist(parts.queries, **options), labels)
    assert_sound(index.beam(parts.queries, beam_size=sizes[0]), clusters)


@pytest.mark.parametrize("name", ["cluster_weights", "cluster_bias", "label_weights", "label_bias", "label_projection"])
def test_masked_values_are_refused(name: str) -> None:
    values = getattr(PARTS, name)
    values = np.ma.array(values, mask=np.arange(values.size).reshape(values.shape) == 3)
    with pytest.raises(ValueError, match=f"{name} has masked values"):
        build(PARTS, **{name: values})


def test_masked_embeddings_and_labels_are_refused(index: Index) -> None:
    queries = np.ma.masked_less(np.zeros((2, 12)), 0)
    assert_equal(index.search(queries), index.search(np.zeros((2, 12))))
    queries[1, 4] = np.ma.masked
    with pytest.raises(ValueError, match="embeddings has masked values"):
        index.search(queries)
    for labels in (np.ma.array([3, 4], mask=[0, 1]), np.ma.array(np.ones(60, dtype=bool), mask=np.arange(60) == 9)):
        with pytest.raises(ValueError, match="labels has masked values"):
            index.search(np.zeros((2, 12)), filter=labels)
        with pytest.raises(ValueError, match="labels has masked values"):
            index.remove_labels(labels)


# Filters.


@settings(max_examples=80, deadline=None, derandomize=True)
@given(way=integers, ids=st.lists(st.integers(0, 59), min_size=1), num_queries=st.sampled_from([1, 5]))
def test_filters_by_ids_and_masks(way: Way, ids: list[int], num_queries: int) -> None:
    index = build(PARTS)
    queries, allowed = PARTS.queries[:num_queries], np.isin(np.arange(60), ids)
    expected = index.search(queries, 20, filter=index.label_filter(sorted(set(ids))))
    assert np.isin(expected.labels, [-1, *ids]).all()
    masks = [layout(allowed) for name, layout in LAYOUTS.items() if name != "objects"]
    for given_filter in (way(np.array(ids)), set(ids), iter(ids), *masks):
        # Three ids as a tuple are ids, not the arrays of a CSR matrix.
        assert_equal(index.search(queries, 20, filter=given_filter), expected)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(["bool", "int8", "uint64", "float16", "float32", ">f8"]),
    index_dtype=st.sampled_from([np.int32, np.int64]),
    explicit_zeros=st.booleans(),
)
def test_filters_by_sparse_matrices(seed: int, dtype: str, index_dtype: Any, explicit_zeros: bool) -> None:
    index, rng = build(PARTS), np.random.default_rng(seed)
    masks = rng.random((8, 60)) < 0.2
    expected = index.search(PARTS.queries, 20, filter=[index.label_filter(mask) for mask in masks])
    stored = masks | (rng.random(masks.shape) < 0.1) if explicit_zeros else masks
    indptr, indices = np.cumsum([0, *stored.sum(1)]), np.nonzero(stored)[1]
    data = masks[stored].astype(dtype)
    triple = (indptr.astype(index_dtype), indices.astype(index_dtype), data)
    matrix = sp.csr_array((data.astype(data.dtype.newbyteorder("=")), indices, indptr), shape=(8, 60))
    for given_filter in (triple, matrix if dtype != "float16" else triple):
        assert_equal(index.search(PARTS.queries, 20, filter=given_filter), expected)
    for form in ("csc", "coo", "lil", "dok"):
        with pytest.raises(ValueError, match=rf"filter is in {form} format: pass filter\.tocsr\(\)"):
            index.search(PARTS.queries, filter=sp.csr_array(masks).asformat(form))


# Sparse features, metrics.

FEATURES = sp.random_array((9, 14), density=0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(0))


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_features_of_any_format(form: str, dtype: str) -> None:
    expected = GivenFeatures(14).transform(FEATURES)
    found = GivenFeatures(14).transform(FEATURES.astype(dtype).asformat(form))
    assert_equal((found.indptr, found.indices, found.data), (expected.indptr, expected.indices, expected.data))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64"])
def test_whole_features(dtype: str) -> None:
    counts = sp.csr_array(np.array([[1, 0, 1], [0, 1, 0]], dtype=dtype))
    assert GivenFeatures(3).transform(counts).data == pytest.approx([0.5**0.5, 0.5**0.5, 1])


def test_features_that_are_stored_twice_add_up() -> None:
    twice = sp.csr_array((np.array([1.0, 4.0, 2.0]), np.array([0, 2, 0]), np.array([0, 3])), shape=(1, 3))
    found = GivenFeatures(3).transform(twice)
    assert found.indices.tolist() == [0, 2]
    assert found.data == pytest.approx([0.6, 0.8])
    assert twice.nnz == 3


@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e-20, 1e20, 3.4e38])
def test_features_however_small_or_large_have_unit_length(size: float) -> None:
    found = GivenFeatures(4).transform(sp.csr_array(np.full((2, 4), size)))
    assert found.data == pytest.approx([0.5] * 8)


def test_features_that_are_no_real_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="features must be real numbers, got complex"):
        GivenFeatures(14).transform(FEATURES.astype(complex))
    with pytest.raises(DataError, match="the features of row 0 are not all finite"):
        GivenFeatures(1).transform(sp.csr_array([[1e300]]))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(way=st.sampled_from([way for name, way in INTEGERS.items() if name not in ("uint8", "uint64")]))
def test_predictions_to_evaluate(way: Way) -> None:
    rng = np.random.default_rng(0)
    predicted = np.array([rng.permutation(30)[:10] for _ in range(7)])
    predicted[:, 8:] = -1
    relevant = sp.csr_array(rng.random((7, 30)) < 0.2)
    weights = inverse_propensities(np.arange(30), 100)
    expected = evaluate(predicted, relevant, inverse_propensity=weights)
    for form in (relevant, relevant.astype(np.float32).tocsc(), relevant.tocoo(), relevant.astype(np.int8)):
        assert evaluate(way(predicted), form, inverse_propensity=FLOATS["list"](weights)) == expected
