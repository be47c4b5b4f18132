"""Searches with sparse features against the NumPy oracle."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st

import oracle
import oracle_fusion
from elias_idx import EVIDENCE, Index
from helpers_index import build, tolerance_of
from oracle import Parts
from oracle_fusion import FusionParts

PARTS = oracle.random_parts(1, num_queries=12)
FUSION = oracle_fusion.random_fusion(PARTS)
TREES = oracle_fusion.random_trees()
# Small, so that scores don't reach 1.
LINEAR = np.random.default_rng(0).normal(0, 0.05, len(EVIDENCE)).astype(np.float32)
SIZES = {"beam_size": 3, "shortlist_size": 20}


def fused(parts: Parts = PARTS, fusion: FusionParts = FUSION, trees: Any = TREES, **changes: Any) -> Index:
    return fusion.add_to(build(parts, **changes)).with_fusion(LINEAR, -0.5, trees)


def assert_same_evidence(index: Index, parts: Parts, fusion: FusionParts, **sizes: int) -> None:
    """Holds the evidence of all queries to the oracle's.

    Candidates whose scores tie but for rounding may come in another order, or others of them at the end.
    """
    found = index.evidence(parts.queries, sp.csr_matrix(fusion.sparse), **sizes)
    assert found.values.shape == (len(found.labels), len(EVIDENCE))
    assert len(found.offsets) == len(parts.queries) + 1
    # In logs, relative errors are absolute ones.
    tolerance = 1e-4 + tolerance_of(index)
    num_candidates = sizes.pop("num_candidates", fusion.num_candidates)
    for query in range(len(parts.queries)):
        rows = slice(found.offsets[query], found.offsets[query + 1])
        labels = found.labels[rows]
        expected = oracle_fusion.evidence(parts, fusion, query, num_candidates=num_candidates, like=labels, **sizes)
        assert labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(found.values[rows], expected.values, rtol=1e-4, atol=tolerance)


def expected_results(
    parts: Parts, fusion: FusionParts, k: int, trees: Any = TREES, like: Any = None, **known: Any
) -> oracle.Results:
    rows = []
    known.setdefault("num_candidates", max(k, fusion.num_candidates))
    for query in range(len(parts.queries)):
        own = None if like is None else like.labels[like.offsets[query] : like.offsets[query + 1]]
        found = oracle_fusion.evidence(parts, fusion, query, like=own, **known)
        row = np.full(len(parts.label_bias), -1.0)
        row[found.labels] = oracle_fusion.scores(found, LINEAR, -0.5, trees)
        rows.append(row)
    tops = [oracle.best(row, row >= 0, k) for row in rows]
    padded = [oracle.padded(top, row[top], k) for top, row in zip(tops, rows, strict=True)]
    labels, scores = (np.array(part) for part in zip(*padded, strict=True))
    return oracle.Results(labels, scores, np.array(rows), np.full(len(rows), 1e-3))


def assert_same_results(index: Index, parts: Parts, fusion: FusionParts, k: int, **sizes: int) -> None:
    sparse = sp.csr_matrix(fusion.sparse)
    found = index.search(parts.queries, k, sparse=sparse, **sizes)
    num_candidates = max(k, sizes.pop("num_candidates", fusion.num_candidates))
    like = index.evidence(parts.queries, sparse, num_candidates=num_candidates, **sizes)
    expected = expected_results(parts, fusion, k, like=like, num_candidates=num_candidates, **sizes)
    oracle.assert_same_results(found, expected, tolerance=tolerance_of(index))


def test_the_columns_are_the_specified_ones() -> None:
    assert list(EVIDENCE) == oracle_fusion.COLUMNS


@pytest.mark.parametrize("screen", [True, False], ids=["screen", "no screen"])
@pytest.mark.parametrize("num_candidates", [1, 10, 60, 1000])
def test_evidence(num_candidates: int, screen: bool) -> None:
    index = FUSION.add_to(build(PARTS, screen=screen))
    assert_same_evidence(index, PARTS, FUSION, num_candidates=num_candidates, **SIZES)


@pytest.mark.parametrize("part", ["ranker", "neighbours", "label_texts", "cooccurrence"])
def test_evidence_without_a_part(part: str) -> None:
    fusion = oracle_fusion.without(FUSION, part)
    index = fusion.add_to(build(PARTS))
    assert not getattr(index, f"has_{part}")
    assert_same_evidence(index, PARTS, fusion, **SIZES)


@pytest.mark.parametrize("name", ["projection", "no edges", "underflow of cluster scores", "zero queries"])
def test_evidence_of_awkward_indexes(name: str) -> None:
    parts = oracle.awkward_parts()[name]
    fusion = oracle_fusion.random_fusion(parts)
    assert_same_evidence(fusion.add_to(build(parts)), parts, fusion, beam_size=9, shortlist_size=60)


def test_evidence_of_empty_and_strange_queries() -> None:
    sparse = FUSION.sparse.copy()
    sparse[:4] = 0
    # Not of length 1: margins grow beyond their bounds, cosines don't.
    sparse[4] *= 1e30
    index = FUSION.add_to(build(PARTS))
    found = index.evidence(PARTS.queries, sp.csr_matrix(sparse), **SIZES)
    assert np.isfinite(found.values).all()
    empty = found.values[: found.offsets[4]]
    assert (empty[:, EVIDENCE.index("best_neighbour")] == 0).all()
    assert (empty[:, EVIDENCE.index("name_overlap")] == 0).all()
    strange = found.values[found.offsets[4] : found.offsets[5]]
    assert set(np.abs(strange[:, EVIDENCE.index("margin")])) == {30.0}
    assert strange[:, EVIDENCE.index("best_neighbour")].max() == 1


@pytest.mark.parametrize("trees", [TREES, None], ids=["trees", "linear"])
@pytest.mark.parametrize("k", [1, 5, 30, 200])
def test_search(k: int, trees: Any) -> None:
    index = fused(trees=trees)
    found = index.search(PARTS.queries, k, sparse=sp.csr_matrix(FUSION.sparse), **SIZES)
    oracle.assert_same_results(found, expected_results(PARTS, FUSION, k, trees, **SIZES), tolerance=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_dtypes(dtype: Any, tmp_path: Path) -> None:
    index = fused().quantize(dtype, path=tmp_path / "index")
    assert index.has_fusion
    rounded = replace(PARTS, label_weights=index.label_rows(np.arange(60)))
    assert_same_results(index, rounded, FUSION, 10, **SIZES)


@pytest.mark.parametrize("num_queries", [1, 12, 150])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_the_same_bits_however_a_batch_is_split(num_queries: int, num_threads: int) -> None:
    parts = oracle.random_parts(2, num_queries=num_queries, num_labels=900, labels_per_cluster=300)
    fusion = oracle_fusion.random_fusion(parts)
    index, sparse = fused(parts, fusion), sp.csr_matrix(fusion.sparse)
    together = index.search(parts.queries, 10, sparse=sparse, num_threads=num_threads)
    for query, embedding in enumerate(parts.queries):
        alone = index.search(embedding, 10, sparse=sparse[query], num_threads=1)
        assert alone.labels.tolist() == together.labels[query].tolist()
        assert alone.scores.tolist() == together.scores[query].tolist()


def test_a_filter_and_a_least_score_count_for_fused_scores() -> None:
    index, sparse = fused(), sp.csr_matrix(FUSION.sparse)
    mask = np.arange(60) % 3 == 0
    found = index.search(PARTS.queries, 8, sparse=sparse, filter=mask, **SIZES)
    expected = expected_results(PARTS, FUSION, 8, allowed=mask, **SIZES)
    oracle.assert_same_results(found, expected, tolerance=2e-3)
    least = float(np.median(found.scores))
    cut = index.search(PARTS.queries, 8, sparse=sparse, filter=mask, min_score=least, **SIZES)
    keep = found.scores >= least
    assert keep.any()
    assert not keep.all()
    np.testing.assert_array_equal(cut.labels, np.where(keep, found.labels, -1))
    np.testing.assert_array_equal(cut.scores, np.where(keep, found.scores, 0))


def test_without_sparse_features_the_dense_model_is_searched() -> None:
    for found, expected in zip(fused().search(PARTS.queries), build(PARTS).search(PARTS.queries), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_results_go_where_they_are_wanted() -> None:
    index, sparse = fused(), sp.csr_matrix(FUSION.sparse)
    labels, scores = np.zeros((12, 4), dtype=np.int64), np.zeros((12, 4), dtype=np.float32)
    result = index.search(PARTS.queries, 4, sparse=sparse, out=(labels, scores))
    expected = index.search(PARTS.queries, 4, sparse=sparse)
    assert result.labels is labels
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(scores, expected.scores)


def test_streams() -> None:
    index, sparse = fused(), sp.csr_matrix(FUSION.sparse)
    results = list(index.search_batches([PARTS.queries[:5], PARTS.queries[5:]], 4, sparse=[sparse[:5], sparse[5:]]))
    expected = index.search(PARTS.queries, 4, sparse=sparse)
    np.testing.assert_array_equal(np.concatenate([result.labels for result in results]), expected.labels)


@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_saved_is_loaded(mmap: bool, tmp_path: Path) -> None:
    index, sparse = fused(), sp.csr_matrix(FUSION.sparse)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index", mmap=mmap)
    loaded.verify()
    assert (loaded.num_features, loaded.num_candidates, loaded.num_neighbours) == (40, 10, 5)
    assert loaded.memory() == index.memory()
    for found, expected in zip(
        loaded.search(PARTS.queries, sparse=sparse), index.search(PARTS.queries, sparse=sparse), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_parts_are_replaced_and_the_rest_stays() -> None:
    index = fused()
    dense = build(PARTS)
    assert index.label_names == dense.label_names
    again = index.with_fusion(LINEAR * 2)
    assert "fusion_tree_offsets" in index.memory()
    assert "fusion_tree_offsets" not in again.memory()
    assert again.has_ranker
    less = oracle_fusion.without(FUSION, "ranker").add_to(index)
    assert not less.has_fusion
    assert not less.has_ranker
    assert less.has_neighbours
    # The first index isn't changed.
    assert index.has_fusion
    assert index.has_ranker


# Two sums of votes that differ by rounding alone, at the end of the candidates.
@example(seed=128, num_labels=43, num_features=27, num_texts=28, num_candidates=3, num_neighbours=20, k=1)
@settings(max_examples=int(os.environ.get("ELIAS_IDX_PARITY_MODELS", "40")), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    num_labels=st.integers(1, 60),
    num_features=st.integers(1, 30),
    num_texts=st.integers(0, 30),
    num_candidates=st.integers(1, 70),
    num_neighbours=st.integers(1, 40),
    k=st.integers(1, 70),
)
def test_random_indexes(
    seed: int, num_labels: int, num_features: int, num_texts: int, num_candidates: int, num_neighbours: int, k: int
) -> None:
    parts = oracle.random_parts(seed, num_queries=3, num_labels=num_labels)
    sizes = {"num_candidates": num_candidates, "num_neighbours": num_neighbours}
    fusion = oracle_fusion.random_fusion(parts, seed, num_features=num_features, num_texts=num_texts, **sizes)
    index = fused(parts, fusion, screen=False)
    assert_same_evidence(index, parts, fusion, beam_size=4, shortlist_size=25)
    assert_same_results(index, parts, fusion, k, beam_size=4, shortlist_size=25)
