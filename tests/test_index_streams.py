"""Searching into the caller's arrays, and batch by batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from elias_idx import Index
from helpers_index import build
from oracle import Parts


def arrays(*shape: int) -> tuple[Any, Any]:
    return np.full(shape, 7, dtype=np.int64), np.full(shape, 7, dtype=np.float32)


def test_results_go_to_the_arrays_given(index: Index, parts: Parts) -> None:
    expected = index.search(parts.queries, 5)
    labels, scores = arrays(8, 5)
    result = index.search(parts.queries, 5, out=(labels, scores))
    assert result.labels is labels
    assert result.scores is scores
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(scores, expected.scores)
    again = index.search(parts.queries[::-1], 5, out=result)
    assert again.labels is labels
    np.testing.assert_array_equal(labels, expected.labels[::-1])
    row = index.search(parts.queries[3], 5, out=(labels[1], scores[1]))
    assert row.labels.shape == (5,)
    np.testing.assert_array_equal(labels[1], expected.labels[3])
    np.testing.assert_array_equal(labels[2], expected.labels[5])
    assert index.search(np.zeros((0, 12)), 5, out=arrays(0, 5)).labels.shape == (0, 5)


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def overlapping() -> tuple[Any, Any]:
    memory = np.zeros(80, dtype=np.int64)
    return memory[:40].reshape(8, 5), memory[38:58].view(np.float32).reshape(8, 5)


def unaligned() -> Any:
    return np.zeros(8 * 5 * 8 + 1, dtype=np.uint8)[1:].view(np.int64).reshape(8, 5)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (arrays(8, 5)[0], TypeError, r"out must be two arrays, \(labels, scores\), got ndarray"),
        (arrays(8, 5)[:1], TypeError, "out must be two arrays, .* got 1 values"),
        ((arrays(8, 5)[0].tolist(), arrays(8, 5)[1]), TypeError, r"out\[0\] must be a NumPy array, got list"),
        (arrays(8, 5)[::-1], TypeError, r"out\[0\] must be int64, got float32"),
        ((arrays(8, 5)[0].astype(np.int32), arrays(8, 5)[1]), TypeError, r"out\[0\] must be int64, got int32"),
        ((arrays(8, 5)[0].astype(">i8"), arrays(8, 5)[1]), TypeError, r"out\[0\] must be int64, got >i8"),
        ((arrays(8, 5)[0], arrays(8, 5)[1].astype(float)), TypeError, r"out\[1\] must be float32, got float64"),
        ((arrays(8, 5)[0], arrays(8, 4)[1]), ValueError, r"out\[1\] must have shape \[8, 5\], got \[8, 4\]"),
        ((arrays(40)[0], arrays(8, 5)[1]), ValueError, r"out\[0\] must have shape \[8, 5\], got \[40\]"),
        ((arrays(5, 8)[0].T, arrays(8, 5)[1]), ValueError, r"out\[0\] must be C-contiguous and aligned"),
        ((arrays(8, 5)[0], arrays(8, 10)[1][:, ::2]), ValueError, r"out\[1\] must be C-contiguous"),
        ((unaligned(), arrays(8, 5)[1]), ValueError, r"out\[0\] must be C-contiguous and aligned"),
        ((arrays(8, 5)[0], read_only(arrays(8, 5)[1])), ValueError, r"out\[1\] must be writable"),
        (overlapping(), ValueError, r"out\[0\] must not overlap out\[1\]"),
    ],
)
def test_arrays_that_cannot_be_written_to(
    index: Index, parts: Parts, out: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        index.search(parts.queries, 5, out=out)


def test_arrays_that_overlap_the_embeddings(index: Index) -> None:
    memory = np.zeros((8, 12), dtype=np.float32)
    labels, scores = arrays(8, 5)
    with pytest.raises(ValueError, match=r"out\[1\] must not overlap the embeddings"):
        index.search(memory, 5, out=(labels, memory.reshape(-1)[50:90].reshape(8, 5)))
    with pytest.raises(ValueError, match=r"out\[0\] must not overlap the embeddings"):
        index.search(memory, 5, out=(memory.reshape(-1)[:80].view(np.int64).reshape(8, 5), scores))
    assert not memory.any()


def test_batches_come_one_by_one(index: Index, parts: Parts) -> None:
    taken = []

    def batches() -> Iterator[Any]:
        for batch in (parts.queries[:3], parts.queries[3], np.zeros((0, 12)), parts.queries[4:].tolist()):
            taken.append(batch)
            yield batch

    options: dict[str, Any] = {
        "beam_size": 2,
        "shortlist_size": 9,
        "num_threads": 1,
        "filter": range(40),
        "min_score": 0.01,
    }
    results = index.search_batches(batches(), 4, **options)
    assert not taken
    expected = index.search(parts.queries, 4, **options)
    for count, (found, rows) in enumerate(zip(results, (slice(3), 3, slice(0), slice(4, 8)), strict=True), 1):
        assert len(taken) == count
        np.testing.assert_array_equal(found.labels, expected.labels[rows])
        np.testing.assert_array_equal(found.scores, expected.scores[rows])
    assert list(index.search_batches([])) == []


def test_arguments_are_checked_before_the_first_batch(index: Index, parts: Parts) -> None:
    def never() -> Iterator[Any]:
        raise AssertionError("it was asked for a batch")
        yield

    foreign = build(parts, alpha=2).label_filter([1])
    for change, error, message in (
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"beam_size": "3"}, TypeError, "beam_size must be an integer"),
        ({"shortlist_size": 0}, ValueError, "shortlist_size must be at least 1"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1"),
        ({"min_score": np.nan}, ValueError, "min_score must not be NaN"),
        ({"filter": [60]}, ValueError, "label 60 is out of range"),
        ({"filter": foreign}, ValueError, "another index"),
        ({"filter": [index.label_filter([1]), None]}, TypeError, "labels must be integers"),
    ):
        with pytest.raises(error, match=message):
            index.search_batches(never(), **change)
    with pytest.raises(TypeError, match="batches must be an iterable of embeddings, got int"):
        index.search_batches(3)  # type: ignore[arg-type]
    results = index.search_batches([parts.queries, np.zeros(11)])
    next(results)
    with pytest.raises(ValueError, match="must have dim 12"):
        next(results)
