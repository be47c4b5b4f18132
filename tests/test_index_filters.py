"""Filters and least scores: parity with the oracle, every way to give them, and what is refused."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from elias_idx import Index, LabelFilter
from helpers_index import build
from oracle import Array, Parts, random_parts

AWKWARD = oracle.awkward_parts()


def random_mask(seed: int, num_labels: int, share: float) -> Array:
    return np.random.default_rng(seed).random(num_labels) < share


SCREENED = 2e-3
"""The relative error of scores whose softmax's denominator was summed from codes."""


def assert_parity(
    index: Index, parts: Parts, sizes: tuple[int, int, int], given: Any, masks: list[Array | None]
) -> None:
    k, beam, shortlist = sizes
    tolerance = SCREENED if index.screen else 1e-6
    options = {"beam_size": beam, "shortlist_size": shortlist, "filter": given}
    oracle.assert_same_results(
        index.search(parts.queries, k, **options),
        oracle.search(parts, parts.queries, k, beam, shortlist, masks),
        tolerance=tolerance,
    )
    oracle.assert_same_results(
        index.shortlist(parts.queries, **options),
        oracle.shortlist(parts, parts.queries, beam, shortlist, masks),
        tolerance=tolerance,
    )


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [(5, 3, 20), (1, 1, 1), (70, 4, 10), (200, 1000, 1000)], ids=str)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_indexes(name: str, sizes: tuple[int, int, int], share: float) -> None:
    parts = AWKWARD[name]
    index = build(parts, screen=False)
    mask = random_mask(1, index.num_labels, share)
    assert_parity(index, parts, sizes, index.label_filter(mask), [mask] * len(parts.queries))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    num_clusters=st.integers(1, 60),
    num_labels=st.integers(1, 150),
    labels_per_cluster=st.integers(0, 20),
    sizes=st.tuples(st.integers(1, 160), st.integers(1, 40), st.integers(1, 160)),
    shares=st.tuples(*[st.sampled_from([0.0, 0.03, 0.3, 0.8, 1.0, None])] * 3),
    screen=st.booleans(),
)
def test_random_indexes_and_every_kind_of_filter(
    seed: int,
    num_clusters: int,
    num_labels: int,
    labels_per_cluster: int,
    sizes: tuple[int, int, int],
    shares: tuple[float | None, ...],
    screen: bool,
) -> None:
    parts = random_parts(
        seed,
        num_queries=3,
        num_clusters=num_clusters,
        num_labels=num_labels,
        labels_per_cluster=labels_per_cluster,
    )
    index = build(parts, screen=screen)
    rng = np.random.default_rng(seed)
    masks = [None if share is None else random_mask(i + seed, num_labels, share) for i, share in enumerate(shares)]
    filters = [None if mask is None else index.label_filter(mask) for mask in masks]
    assert_parity(index, parts, sizes, [*filters[:2], index.label_filter([])], [*masks[:2], np.zeros(num_labels, bool)])

    present = [np.zeros(num_labels, dtype=bool) if mask is None else mask for mask in masks]
    assert_parity(index, parts, sizes, scipy.sparse.csr_array(np.array(present)), list(present))
    labels = [rng.permutation(np.repeat(np.flatnonzero(mask), 2)) for mask in present]
    indptr = np.cumsum([0, *map(len, labels)])
    rows = indptr, np.concatenate(labels), rng.choice([-1.0, np.nan, 3.0], indptr[-1])
    assert_parity(index, parts, sizes, rows, list(present))
    assert_parity(index, parts, sizes, labels[0], [present[0]] * 3)


def test_every_way_to_make_a_filter(index: Index, parts: Parts) -> None:
    ids = [7, 3, 59, 3, 20]
    mask = np.isin(np.arange(60), ids)
    names = [f"label {label}" for label in ids]
    expected = index.search(parts.queries, 10, filter=index.label_filter(ids))
    assert (expected.labels >= 0).any()
    ways: list[Any] = [tuple(ids), set(ids), dict.fromkeys(ids), (label for label in ids), np.array(ids)]
    ways += [np.array(ids, dtype=dtype) for dtype in (np.uint8, np.uint64, ">i4", np.int16)]
    ways += [mask, mask.tolist(), np.repeat(mask, 2)[::2]]
    ways += [names, set(names), np.array(names), np.array(names, dtype=object), iter(names)]
    for way in ways:
        made = index.label_filter(way)
        assert len(made) == 4
        found = index.search(parts.queries, 10, filter=made)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.scores, expected.scores)
    for way in (ids, mask, names):
        found = index.search(parts.queries, 10, filter=way)
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert index.label_filter(["", "a\0b\n"]) is not None
    assert repr(made) == "<elias_idx.LabelFilter: 4 labels>"


def test_an_empty_filter_gives_padding(index: Index, parts: Parts) -> None:
    for empty in ([], set(), np.zeros(60, dtype=bool), np.array([], dtype=np.int32), index.label_filter([])):
        labels, scores = index.search(parts.queries, 3, filter=empty)
        assert (labels == -1).all()
        assert not scores.any()
        assert (index.shortlist(parts.queries, filter=empty).labels == -1).all()


def test_a_narrow_filter_finds_what_no_beam_reaches(index: Index, parts: Parts) -> None:
    rare = int(index.search(parts.queries[0], 60, beam_size=9).labels[-1])
    if rare < 0:
        rare = int(np.flatnonzero(parts.adjacency.any(axis=0))[-1])
    found = index.search(parts.queries[0], 2, beam_size=1, filter=[rare])
    assert found.labels.tolist() == [rare, -1]
    assert found.scores[0] > 0


def test_a_filter_for_a_single_embedding(index: Index, parts: Parts) -> None:
    made = index.label_filter(range(0, 60, 2))
    expected = index.search(parts.queries[:1], 5, filter=made)
    matrix = scipy.sparse.csr_array(np.arange(60)[None] % 2 == 0)
    for given_filter in (made, [made], matrix):
        found = index.search(parts.queries[0], 5, filter=given_filter)
        assert found.labels.shape == (5,)
        np.testing.assert_array_equal(found.labels, expected.labels[0])
    assert index.search(np.zeros((0, 12)), 5, filter=[]).labels.shape == (0, 5)
    assert index.search(np.zeros((0, 12)), 5, filter=made).labels.shape == (0, 5)


def test_one_filter_serves_many_threads(index: Index, parts: Parts) -> None:
    queries = np.tile(parts.queries, (20, 1))
    fresh = build(parts)
    made = fresh.label_filter(range(5))
    expected = index.search(queries, 5, filter=range(5))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: fresh.search(queries, 5, filter=made, num_threads=2), range(40)):
            np.testing.assert_array_equal(found.labels, expected.labels)


def test_filters_belong_to_their_index(index: Index, parts: Parts, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    loaded, again = Index.load(tmp_path / "index"), Index.load(tmp_path / "index", mmap=False)
    made = loaded.label_filter([1, 2, 3])
    np.testing.assert_array_equal(
        again.search(parts.queries, filter=made).labels, loaded.search(parts.queries, filter=made).labels
    )
    assert len(index.search(parts.queries, filter=made).labels) == 8, "the index that was saved is the same"
    for other in (build(random_parts(1)), build(parts, label_bias=parts.label_bias + 1)):
        for given_filter in (made, [made] * 8):
            with pytest.raises(ValueError, match="made by another index: make it with label_filter of this one"):
                other.search(parts.queries, filter=given_filter)
        with pytest.raises(ValueError, match="another index"):
            other.shortlist(parts.queries, filter=made)
        with pytest.raises(ValueError, match="another index"):
            other.explain(parts.queries[0], [1], filter=made)


def test_filters_are_made_by_indexes_and_not_pickled(index: Index) -> None:
    with pytest.raises(TypeError):
        LabelFilter()
    with pytest.raises(TypeError, match=r"can't be pickled: make it again by Index\.label_filter"):
        pickle.dumps(index.label_filter([1]))


def test_a_copy_of_a_filter_is_the_filter(index: Index) -> None:
    made = index.label_filter([1])
    assert copy.copy(made) is made
    assert copy.deepcopy([made])[0] is made


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 60], ValueError, "label 60 is out of range: the index has 60 labels"),
        ([-1], ValueError, "label -1 is out of range"),
        (np.array([2**64 - 1], dtype=np.uint64), ValueError, "18446744073709551615, which is out of range"),
        ([[1, 2]], ValueError, "labels must have 1 dimensions, got 2"),
        ([[1], [2, 3]], ValueError, "labels must be an array of numbers"),
        (np.ones(61, dtype=bool), ValueError, "a boolean mask must have 60 values, one a label, got 61"),
        ([True], ValueError, "must have 60 values, one a label, got 1"),
        (["label 5", "nothing"], ValueError, 'no label is called "nothing"'),
        (["\ud800"], ValueError, r"labels\[0\] is not valid Unicode"),
        ([1.0], TypeError, "labels must be integers, got dtype float64"),
        (np.ones(60), TypeError, "labels must be integers, got dtype float64"),
        (["label 5", 3], TypeError, r"labels\[1\] must be a name, as others are, got int"),
        ("label 5", TypeError, "labels must be an array or list .*, got one str"),
        (5, TypeError, "labels must be .*, got int"),
        (None, TypeError, "labels must be .*, got NoneType"),
        ([None], TypeError, "labels must be integers, got dtype object"),
        ([b"label 5"], TypeError, "labels must be ids, names or booleans, got byte strings"),
        (np.array([b"label 5"]), TypeError, "labels must be ids, names or booleans, got byte strings"),
    ],
)
def test_what_makes_no_filter(index: Index, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        index.label_filter(labels)


def test_names_need_an_index_with_names(parts: Parts) -> None:
    with pytest.raises(ValueError, match="no label names: give label_names to"):
        build(parts).label_filter(["label 5"])


def rows(indptr: Any, indices: Any, data: Any) -> Callable[[Index], Any]:
    return lambda _: (np.array(indptr), np.array(indices), np.array(data))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda index: [index.label_filter([1])] * 7, ValueError, "filter must have 8 filters, one a query, got 7"),
        (lambda index: [index.label_filter([1]), 3], TypeError, r"filter\[1\] must be a LabelFilter or None, got int"),
        (lambda _: scipy.sparse.csr_array((7, 60)), ValueError, r"filter must be .* = \[8, 60\], got \[7, 60\]"),
        (lambda _: scipy.sparse.csr_array((8, 61)), ValueError, r"filter must be .* = \[8, 60\], got \[8, 61\]"),
        (lambda _: scipy.sparse.coo_array((8, 60)), ValueError, r"filter is in coo format: pass filter\.tocsr\(\)"),
        (rows([0] * 8, [0][:0], [1][:0]), ValueError, "filter must have 8 values, got 7"),
        (rows([0] * 8 + [1], [60], [1]), ValueError, "label 60 is out of range"),
        (rows([0] * 8 + [1], [-1], [0]), ValueError, "label -1 is out of range"),
        (rows([0] * 8 + [2], [1], [1]), ValueError, "filter: indptr must end at the number of entries, 1, got 2"),
        (rows([1] * 9, [1], [1]), ValueError, "filter: indptr must start at 0, got 1"),
        (rows([0, 1] + [0] * 7, [1], [1]), ValueError, "filter: indptr decreases at row 1"),
        (rows([0] * 8 + [1], [1], [1, 1]), ValueError, "filter: .* same length, got 1 and 2"),
        (rows([0] * 8 + [1], [1.0], [1]), TypeError, r"filter\.indices must be integers, got dtype float64"),
        (rows([0] * 8 + [1], [1], ["x"]), TypeError, r"filter\.data must be real numbers"),
        (lambda _: "label 5", TypeError, "got one str"),
        (lambda _: 1.5, TypeError, "got float"),
    ],
)
def test_bad_filters(index: Index, parts: Parts, make: Any, error: type[Exception], message: str) -> None:
    for search in (index.search, index.shortlist):
        with pytest.raises(error, match=message):
            search(parts.queries, filter=make(index))


# Least scores.


def test_results_under_the_least_score_are_left_out(index: Index, parts: Parts) -> None:
    every = index.search(parts.queries, 20)
    for least in (0, -3.5, float(every.scores[2, 3]), np.float32(0.05), 2, np.inf, True):
        labels, scores = index.search(parts.queries, 20, min_score=least)
        kept = (every.labels >= 0) & (every.scores >= np.float64(least))
        np.testing.assert_array_equal(labels, np.where(kept, every.labels, -1))
        np.testing.assert_array_equal(scores, np.where(kept, every.scores, 0))
    assert index.search(parts.queries[0], 5, min_score=2).labels.tolist() == [-1] * 5


def test_least_scores_that_are_none(index: Index, parts: Parts) -> None:
    with pytest.raises(ValueError, match="min_score must not be NaN"):
        index.search(parts.queries, min_score=np.nan)
    for wrong in ("0.5", b"1", [0.5], 1j):
        with pytest.raises(TypeError, match=f"min_score must be a number, got {type(wrong).__name__}"):
            index.search(parts.queries, min_score=wrong)  # type: ignore[arg-type]


def test_booleans_may_be_any_bytes() -> None:
    index = build(random_parts())
    bytes_ = np.random.default_rng(0).choice([0, 1, 2, 128, 255], index.num_labels).astype(np.uint8)
    allowed = np.flatnonzero(bytes_)
    for mask in (bytes_.view(bool), np.repeat(bytes_, 2).view(bool)[::2]):
        assert len(index.label_filter(mask)) == len(allowed)
        assert index.remove_labels(mask).num_labels == index.num_labels - len(allowed)
    one = random_parts().queries[:1]
    rows = (np.array([0, len(bytes_)]), np.arange(len(bytes_)), bytes_.view(bool))
    found = index.search(one, 60, filter=rows)
    assert found.labels.tolist() == index.search(one, 60, filter=index.label_filter(allowed)).labels.tolist()
