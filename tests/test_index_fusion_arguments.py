"""What searches with sparse features refuse, and how they say it."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import oracle
import oracle_fusion
from elias_idx import EVIDENCE, FusionTrees, Index
from helpers_index import build

PARTS = oracle.random_parts(1)
FUSION = oracle_fusion.random_fusion(PARTS)
SPARSE = sp.csr_matrix(FUSION.sparse)
LINEAR = np.zeros(len(EVIDENCE))


@pytest.fixture(scope="module")
def dense() -> Index:
    return build(PARTS)


@pytest.fixture(scope="module")
def with_evidence(dense: Index) -> Index:
    return FUSION.add_to(dense)


@pytest.fixture(scope="module")
def fused(with_evidence: Index) -> Index:
    return with_evidence.with_fusion(LINEAR)


def changed(matrix: Any, **parts: Any) -> Any:
    """A copy of a CSR matrix with other arrays, unchecked."""
    copy = matrix.copy()
    for name, part in parts.items():
        setattr(copy, name, part)
    return copy


def unsorted(matrix: Any) -> Any:
    """The matrix with the columns of its longest row reversed."""
    copy = matrix.copy()
    row = int(np.diff(copy.indptr).argmax())
    entries = slice(copy.indptr[row], copy.indptr[row + 1])
    copy.indices[entries] = copy.indices[entries][::-1]
    return copy


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("num_features", 0, "num_features must be at least 1"),
        ("num_candidates", 0, "num_candidates must be at least 1"),
        ("num_neighbours", 0, "num_neighbours must be at least 1"),
        ("label_counts", np.zeros(59, dtype=int), "label_counts must have 60 values, got 59"),
        ("label_counts", np.full(60, -1), "label_counts must be from 0"),
        ("ranker", (sp.csr_matrix((59, 40)), np.zeros(59)), r"ranker must be .* = \[60, 40\], got \[59, 40\]"),
        ("ranker", (sp.csr_matrix((60, 40)), np.zeros(59)), "the ranker's bias must have 60 values, got 59"),
        ("ranker", (sp.csr_matrix((60, 40)), np.full(60, np.nan)), "bias.* is NaN"),
        ("ranker", (unsorted(sp.csr_matrix(FUSION.ranker)), np.zeros(60)), "ranker: a row's columns don't ascend"),
        ("ranker", (sp.csc_matrix((60, 40)), np.zeros(60)), "ranker is in csc format"),
        ("label_texts", sp.csr_matrix((60, 41)), "label_texts must be"),
        ("neighbours", (sp.csr_matrix((5, 41)), sp.csr_matrix((5, 60))), "the neighbours' features must be"),
        ("neighbours", (sp.csr_matrix((5, 40)), sp.csr_matrix((6, 60))), "the neighbours' labels must be"),
    ],
)
def test_evidence_that_does_not_fit_is_refused(dense: Index, part: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dense.with_evidence(**{**FUSION.evidence_args(), part: value})


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("num_features", 1.5, "num_features must be an integer"),
        ("ranker", sp.csr_matrix((60, 40)), "ranker must be a pair"),
        ("label_texts", np.zeros((60, 40)), "label_texts must be a CSR matrix"),
        ("neighbours", (np.zeros((5, 40)), sp.csr_matrix((5, 60))), "the neighbours' features must be a CSR matrix"),
        ("label_counts", np.zeros(60), "label_counts must be integers"),
    ],
)
def test_evidence_of_other_types_is_refused(dense: Index, part: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        dense.with_evidence(**{**FUSION.evidence_args(), part: value})


def test_values_that_are_not_finite_are_refused(dense: Index) -> None:
    ranker = sp.csr_matrix(FUSION.ranker)
    ranker.data[7] = np.inf
    with pytest.raises(ValueError, match="ranker: a value is NaN or infinite"):
        dense.with_evidence(**{**FUSION.evidence_args(), "ranker": (ranker, np.zeros(60))})


@pytest.mark.parametrize(
    ("sparse", "message"),
    [
        (SPARSE[:5], r"sparse must be .* = \[8, 40\], got \[5, 40\]"),
        (sp.csr_matrix((8, 41)), "sparse must be"),
        (unsorted(SPARSE), "sparse: a row's columns don't ascend: sum_duplicates"),
        (changed(SPARSE, data=np.full_like(SPARSE.data, np.nan)), "sparse: a value is NaN"),
        (changed(SPARSE, indices=SPARSE.indices + 40), "sparse: a column index is out of range"),
        ((SPARSE.indptr[:-1], SPARSE.indices, SPARSE.data), r"indptr must rise|sparse must be \[8, 40\]"),
        (SPARSE.tocoo(), "sparse is in coo format"),
    ],
)
def test_features_that_do_not_fit_are_refused(fused: Index, sparse: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fused.search(PARTS.queries, sparse=sparse)
    with pytest.raises(ValueError, match=message):
        fused.evidence(PARTS.queries, sparse)


def test_indexes_without_the_parts_say_so(dense: Index, with_evidence: Index) -> None:
    with pytest.raises(ValueError, match="the index takes no sparse features: with_evidence makes one"):
        dense.search(PARTS.queries, sparse=SPARSE)
    with pytest.raises(ValueError, match="the index takes no sparse features"):
        dense.evidence(PARTS.queries, SPARSE)
    with pytest.raises(ValueError, match="the index takes no sparse features"):
        dense.with_fusion(LINEAR)
    with pytest.raises(ValueError, match="the index has no fusion: with_fusion makes one"):
        with_evidence.search(PARTS.queries, sparse=SPARSE)
    with pytest.raises(ValueError, match="num_candidates is for searches with sparse features"):
        with_evidence.search(PARTS.queries, num_candidates=5)
    assert (dense.num_features, dense.num_candidates, dense.num_neighbours) == (None, None, None)


def test_sizes_are_refused(fused: Index) -> None:
    with pytest.raises(ValueError, match="num_candidates must be at least 1"):
        fused.search(PARTS.queries, sparse=SPARSE, num_candidates=0)
    with pytest.raises(TypeError, match="num_candidates must be an integer"):
        fused.evidence(PARTS.queries, SPARSE, num_candidates="5")  # type: ignore[arg-type]


def test_streams_need_as_many_features_as_items(fused: Index) -> None:
    with pytest.raises(TypeError, match="sparse must be an iterable of CSR matrices"):
        fused.search_batches([PARTS.queries], sparse=SPARSE)
    with pytest.raises(ValueError, match="shorter"):
        list(fused.search_batches([PARTS.queries, PARTS.queries], sparse=[SPARSE]))


@pytest.mark.parametrize(
    ("linear", "bias", "message"),
    [
        (LINEAR[:-1], 0.0, f"linear must have {len(EVIDENCE)} values, got {len(EVIDENCE) - 1}"),
        (np.full(len(EVIDENCE), np.nan), 0.0, "linear.* is NaN"),
        (LINEAR, np.inf, "bias.* is inf"),
        (LINEAR[:, None], 0.0, "linear must have 1 dimensions"),
    ],
)
def test_weights_that_do_not_fit_are_refused(with_evidence: Index, linear: Any, bias: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_evidence.with_fusion(linear, bias)


def stump(**changes: Any) -> FusionTrees:
    """A tree of one split, and one of a leaf alone."""
    tree = FusionTrees(
        offsets=np.array([0, 3, 4]),
        columns=np.array([4, -1, -1, -1], dtype=np.int32),
        thresholds=np.zeros(4, dtype=np.float32),
        children=np.array([[1, 2], [0, 0], [0, 0], [0, 0]], dtype=np.int32),
        values=np.arange(4, dtype=np.float32),
    )
    return tree._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 3])}, "offsets must ascend from 0 to the number of nodes"),
        ({"offsets": np.array([0, 3, 3, 4])}, "no tree empty"),
        ({"offsets": np.array([], dtype=int)}, "offsets must ascend"),
        ({"values": np.zeros(3)}, "differ in length"),
        ({"columns": np.array([99, -1, -1, -1])}, "node 0 looks at column 99 of"),
        ({"columns": np.array([-2, -1, -1, -1])}, "node 0 looks at column -2 of"),
        ({"thresholds": np.array([np.nan, 0, 0, 0])}, "node 0 has the threshold NaN"),
        ({"values": np.array([0, 1, np.inf, 0])}, "node 2 has the value inf"),
        ({"children": np.array([[0, 2], [0, 0], [0, 0], [0, 0]])}, r"node 0 has the children \[0, 2\]"),
        ({"children": np.array([[1, 3], [0, 0], [0, 0], [0, 0]])}, "must follow it in its tree"),
        ({"children": np.array([[1, 1], [0, 0], [0, 0], [0, 0]])}, "node 1 has several parents"),
        ({"columns": np.full(4, -1)}, "node 1 has no parent"),
        ({"children": np.array([[2**40, 2], [0, 0], [0, 0], [0, 0]])}, "beyond 32 bits"),
    ],
)
def test_trees_that_are_not_proper_are_refused(with_evidence: Index, changes: dict[str, Any], message: str) -> None:
    with_evidence.with_fusion(LINEAR, trees=stump())
    with pytest.raises(ValueError, match=message):
        with_evidence.with_fusion(LINEAR, trees=stump(**changes))


def test_trees_of_other_types_are_refused(with_evidence: Index) -> None:
    with pytest.raises(TypeError, match="trees must be FusionTrees"):
        with_evidence.with_fusion(LINEAR, trees=[1, 2])  # type: ignore[arg-type]


def test_thresholds_between_two_float32_keep_their_sides(with_evidence: Index) -> None:
    # The nearest float32 to 0.1 lies above it: a value that equals it goes right.
    values = with_evidence.evidence(PARTS.queries, SPARSE).values[:, 0]
    at = float(values[0])
    for threshold, goes_left in [(at, True), (np.nextafter(at, -np.inf), False), (np.nextafter(at, np.inf), True)]:
        columns = np.array([0, -1, -1, -1])
        trees = stump(columns=columns, thresholds=np.array([threshold, 0, 0, 0]), values=np.array([0, 1, 2, 0]))
        index = with_evidence.with_fusion(LINEAR, trees=trees)
        label = with_evidence.evidence(PARTS.queries, SPARSE).labels[0]
        found = index.search(PARTS.queries[0], 60, sparse=SPARSE[0])
        score = found.scores[found.labels == label][0]
        assert score == pytest.approx(oracle.sigmoid(np.array(1.0 if goes_left else 2.0)))
