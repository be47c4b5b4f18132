"""The Rust search against the NumPy oracle, over ordinary and awkward indexes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from elias_idx import Index
from helpers_index import build, tolerance_of

AWKWARD = oracle.awkward_parts()
# k, beam and shortlist: ordinary, all the smallest, k beyond what is reachable, all beyond what exists.
SIZES = [(5, 3, 20), (1, 1, 1), (70, 4, 30), (200, 1000, 1000)]


def assert_parity(index: Index, parts: oracle.Parts, sizes: tuple[int, int, int]) -> None:
    k, beam, shortlist = sizes
    queries = parts.queries
    tolerance = tolerance_of(index)
    oracle.assert_same_results(
        index.search(queries, k, beam_size=beam, shortlist_size=shortlist),
        oracle.search(parts, queries, k, beam, shortlist),
        tolerance=tolerance,
    )
    oracle.assert_same_results(
        index.beam(queries, beam_size=beam), oracle.beam(parts, queries, beam), tolerance=tolerance
    )
    oracle.assert_same_results(
        index.shortlist(queries, beam_size=beam, shortlist_size=shortlist),
        oracle.shortlist(parts, queries, beam, shortlist),
        tolerance=tolerance,
    )


@pytest.mark.parametrize("screen", [True, False], ids=["screen", "no screen"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_indexes(name: str, sizes: tuple[int, int, int], screen: bool) -> None:
    assert_parity(build(AWKWARD[name], screen=screen), AWKWARD[name], sizes)


@pytest.mark.parametrize("screen", [True, False], ids=["screen", "no screen"])
@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", ["plain", "projection", "empty rows", "no edges"])
def test_loaded_indexes(name: str, mmap: bool, screen: bool, tmp_path: Path) -> None:
    build(AWKWARD[name], screen=screen).save(tmp_path / "index")
    assert_parity(Index.load(tmp_path / "index", mmap=mmap), AWKWARD[name], SIZES[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    dim=st.sampled_from([1, 3, 16, 65]),
    num_clusters=st.integers(1, 30),
    num_labels=st.integers(1, 60),
    label_dim=st.sampled_from([None, 1, 17]),
    labels_per_cluster=st.integers(0, 20),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 70)),
)
def test_random_indexes(
    seed: int,
    dim: int,
    num_clusters: int,
    num_labels: int,
    label_dim: int | None,
    labels_per_cluster: int,
    sizes: tuple[int, int, int],
) -> None:
    parts = oracle.random_parts(
        seed,
        num_queries=3,
        dim=dim,
        num_clusters=num_clusters,
        num_labels=num_labels,
        label_dim=label_dim,
        labels_per_cluster=labels_per_cluster,
    )
    for screen in (True, False):
        assert_parity(build(parts, screen=screen), parts, sizes)


@pytest.mark.parametrize("screen", [True, False], ids=["screen", "no screen"])
def test_ties_go_to_the_smaller_id(screen: bool) -> None:
    parts = AWKWARD["ties of everything"]
    index = build(parts, screen=screen)
    assert index.search(parts.queries, 7).labels.tolist() == [list(range(7))] * len(parts.queries)
    assert index.beam(parts.queries, beam_size=4).clusters.tolist() == [list(range(4))] * len(parts.queries)
    shortlist = index.shortlist(parts.queries, beam_size=2, shortlist_size=5)
    assert shortlist.labels.tolist() == [list(range(5))] * len(parts.queries)


def test_the_oracle_on_an_example_by_hand() -> None:
    # Two clusters with logits (ln 3, 0): softmax (3/4, 1/4), with alpha 1 scores of the same.
    parts = oracle.Parts(
        cluster_weights=np.array([[np.log(3)], [0.0]]),
        cluster_bias=np.zeros(2),
        adjacency=np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.8]]),
        label_weights=np.zeros((3, 1)),
        label_bias=np.array([0.0, np.log(3), 0.0]),
        alpha=1.0,
    )
    query = np.ones((1, 1))
    clusters, scores, *_ = oracle.beam(parts, query, 2)
    assert clusters.tolist() == [[0, 1]]
    np.testing.assert_allclose(scores, [[0.75, 0.25]])
    labels, scores, *_ = oracle.shortlist(parts, query, 2, 3)
    assert labels.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(scores, [[0.75, 0.375, 0.2]])
    labels, scores, *_ = oracle.search(parts, query, 4, 2, 2)
    assert labels.tolist() == [[0, 1, -1, -1]]
    np.testing.assert_allclose(scores, [[0.375, 0.28125, 0, 0]])
    for screen in (True, False):
        assert_parity(build(parts, screen=screen), replace(parts, queries=query.astype(np.float32)), (4, 2, 2))


def ranked(scores: list[float], k: int) -> oracle.Results:
    """The best k of one query's scores, by id; −1 for what isn't reached."""
    every = np.array(scores)
    ids = oracle.best(every, every >= 0, k)
    padded_ids, padded_scores = oracle.padded(ids, every[ids], k)
    return oracle.Results(padded_ids[None], padded_scores[None], every[None], np.zeros(1))


NOT_REACHED = -1.0
# What was ranked (a score by id), what may come out for k results, and what may not.
COMPARISONS = {
    "a label that isn't reached": ([0.1, NOT_REACHED, 0.5, 0.25], [[2, 3]], [[1, 3], [2, 1]]),
    "a label that doesn't exist": ([0.1, 0.2, 0.5, 0.25], [[2, 3]], [[9, 3], [2, 9], [2, -1]]),
    "twice": ([0.25, 0.25 + 1e-9], [[1, 0], [0, 1]], [[1, 1], [0, 0]]),
    "another order": ([0.1, 0.2, 0.5, 0.25], [[2, 3]], [[3, 2]]),
    "the last place": ([0.1, 0.2, 0.5, 0.25], [[2, 3]], [[2, 1], [2, 0]]),
    "the only place": ([0.1, 0.2, 0.5, 0.25], [[2]], [[0], [1], [3]]),
    "a tie": ([0.1, 0.25 + 1e-9, 0.25], [[1, 2], [2, 1]], [[0, 1], [1, 0]]),
    "a tie with what was cut off": ([0.1, 0.25, 0.25 + 1e-9], [[2], [1]], [[0]]),
    "tiny scores": ([1e-31, 2e-31, 5e-31, 2.5e-31], [[2, 3]], [[3, 2], [2, 1], [2, 0]]),
    "a tie of tiny scores": ([1e-31, 2e-31, 2e-31 + 1e-38], [[2, 1], [1, 2]], [[0, 1], [1, 0]]),
    "all zero": ([0.0, 0.0, 0.0], [[0, 1]], [[1, 0], [0, 2], [2, 1]]),
    "equal scores": ([0.1, 0.25, 0.25, 0.25], [[1, 2]], [[2, 1], [1, 3], [0, 1]]),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_comparison_notices_ids(name: str) -> None:
    scores, same, wrong = COMPARISONS[name]
    expected = ranked(scores, len(same[0]))
    for ids in same:
        oracle.assert_same_results((np.array([ids]), expected.scores), expected)
    for ids in wrong:
        with pytest.raises(AssertionError):
            oracle.assert_same_results((np.array([ids]), expected.scores), expected)


@pytest.mark.parametrize("factor", [1.0, 1e-30])
def test_the_comparison_notices_scores(factor: float) -> None:
    expected = ranked([0.5 * factor, 0.25 * factor, 0.0], 4)
    for changes in ([1 + 1e-7, 1, 1, 1], [1, 1 - 1e-7, 1, 1]):
        oracle.assert_same_results((expected.ids, expected.scores * changes), expected)
    for change in ([1e-5, 0, 0, 0], [0, -1e-5, 0, 0], [0, 0, 1e-9, 0], [0, 0, 0, 1e-9], [0, np.nan, 0, 0]):
        with pytest.raises(AssertionError):
            oracle.assert_same_results((expected.ids, expected.scores + np.array(change) * factor), expected)
    loosely = expected._replace(rounding=np.array([1e-4]))
    oracle.assert_same_results((expected.ids, expected.scores * (1 + 1e-5)), loosely)


def test_the_comparison_notices_padding() -> None:
    expected = ranked([0.5, 0.25, NOT_REACHED], 3)
    for padding in (2, 9, 0):
        with pytest.raises(AssertionError):
            oracle.assert_same_results((np.array([[0, 1, padding]]), expected.scores), expected)
