"""Explanations, and the adjacency both ways."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from elias_idx import Index
from helpers_index import build
from oracle import Parts, random_parts


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    num_clusters=st.integers(1, 40),
    num_labels=st.integers(1, 60),
    labels_per_cluster=st.integers(0, 20),
    label_dim=st.sampled_from([None, 5]),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    share=st.sampled_from([None, 0.0, 0.1, 0.7]),
)
def test_explanations_say_what_search_does(
    seed: int,
    num_clusters: int,
    num_labels: int,
    labels_per_cluster: int,
    label_dim: int | None,
    sizes: tuple[int, int],
    share: float | None,
) -> None:
    parts = random_parts(
        seed,
        num_queries=1,
        num_clusters=num_clusters,
        num_labels=num_labels,
        labels_per_cluster=labels_per_cluster,
        label_dim=label_dim,
    )
    index, query = build(parts), parts.queries[0]
    allowed = np.ones(num_labels, bool) if share is None else np.random.default_rng(seed).random(num_labels) < share
    beam_size, shortlist_size = sizes
    options: dict[str, Any] = {"beam_size": beam_size, "shortlist_size": shortlist_size}
    options["filter"] = None if share is None else allowed
    found = index.search(query, num_labels, **options)
    shortlisted = set(index.shortlist(query, **options).labels.tolist()) - {-1}
    order = {int(label): rank for rank, label in enumerate(found.labels, 1) if label >= 0}
    scores = oracle.cluster_scores(parts, query.astype(np.float64))
    ranked = oracle.best(scores, np.ones(num_clusters, bool), num_clusters)

    for label, it in enumerate(index.explain(query, range(num_labels), **options)):
        assert (it.label, it.name) == (label, None)
        assert it.rank == order.get(label)
        assert it.in_shortlist == (label in shortlisted)
        if it.rank is not None:
            np.testing.assert_allclose(it.score, found.scores[it.rank - 1], rtol=2e-3)
        clusters = [path.cluster for path in it.paths]
        assert sorted(clusters) == np.flatnonzero(parts.adjacency[:, label]).tolist()
        for path in it.paths:
            assert ranked[path.cluster_rank - 1] == path.cluster
            np.testing.assert_allclose(path.cluster_score, scores[path.cluster], rtol=2e-3)
            assert path.weight == parts.adjacency[path.cluster, label]
            np.testing.assert_allclose(path.score, path.cluster_score * path.weight, rtol=1e-6)
        assert [path.score for path in it.paths] == sorted((path.score for path in it.paths), reverse=True)
        if share is None:
            assert [path.in_beam for path in it.paths] == [path.cluster_rank <= beam_size for path in it.paths]
        assert it.in_beam == any(path.in_beam for path in it.paths)
        through = [path for path in it.paths if path.in_beam] or list(it.paths)
        assert it.best_path == (through[0] if through else None)
        assert it.path_score == (through[0].score if through else 0)
        np.testing.assert_allclose(it.probability, oracle.sigmoid(np.float64(it.logit)), rtol=1e-5)
        np.testing.assert_allclose(it.score, it.path_score * it.probability, rtol=1e-5)
        words = {
            "does not allow": not allowed[label],
            "no cluster leads to it": allowed[label] and not it.paths,
            "rank": allowed[label] and len(it.paths) > 0,
            "but cut": allowed[label] and it.in_beam and not it.in_shortlist,
            "the beam holds": allowed[label] and len(it.paths) > 0 and not it.in_beam,
        }
        assert {text for text in words if text in it.reason} == {text for text, said in words.items() if said}


def example() -> tuple[Index, Any]:
    """Clusters 0, 1, 2, ... rank in this order; label 0 has them all, the others one each, but the last one none."""
    num_clusters = 25
    adjacency = np.zeros((num_clusters, num_clusters + 2), dtype=np.float32)
    adjacency[:, 0] = 0.5
    adjacency[np.arange(num_clusters), np.arange(num_clusters) + 1] = 1
    adjacency[[20, 23], 5] = 0.25
    adjacency[4, 5] = 0
    parts = Parts(
        cluster_weights=-np.arange(num_clusters, dtype=np.float32)[:, None] / 10,
        cluster_bias=np.zeros(num_clusters),
        adjacency=adjacency,
        label_weights=np.zeros((num_clusters + 2, 1)),
        label_bias=np.zeros(num_clusters + 2),
        alpha=1.0,
    )
    return build(parts, label_names=[f"L{label}" for label in range(num_clusters + 2)]), np.ones(1)


def test_reasons_in_words() -> None:
    index, query = example()

    def reason(label: int, **options: Any) -> str:
        return index.explain(query, [label], **{"beam_size": 3, "shortlist_size": 3, **options})[0].reason

    assert reason(1) == "ranks 1st of the 3 labels in the shortlist"
    assert reason(2) == "ranks 2nd of the 3 labels in the shortlist"
    assert reason(0) == "reached, but cut: its path ranks 4th of 4, the shortlist holds 3"
    assert reason(21) == "not reached: its only cluster ranks 21st, the beam holds 3"
    assert reason(5) == "not reached: its clusters rank 21st and 24th, the beam holds 3"
    assert reason(26) == "not reached: no cluster leads to it"
    assert reason(3, filter=[0, 1, 2]) == "the filter does not allow it"
    assert reason(12, beam_size=12, shortlist_size=99) == "ranks 12th of the 12 labels in the shortlist"
    # The beam widens until it leads to three allowed labels.
    assert reason(4, filter=[2, 3, 4, 25]) == "ranks 3rd of the 3 labels in the shortlist"
    assert reason(25, filter=[2, 3, 4, 25]) == "not reached: its only cluster ranks 25th, the beam holds 4"


def test_many_clusters_are_not_listed() -> None:
    parts = random_parts(3, num_clusters=40, num_labels=41, labels_per_cluster=0)
    adjacency = parts.adjacency.copy()
    adjacency[:, 40] = 0.5
    index = build(Parts(**{**vars(parts), "adjacency": adjacency}))
    order = index.beam(parts.queries[0], beam_size=40).clusters
    adjacency[order[:11], 40] = 0
    index = build(Parts(**{**vars(parts), "adjacency": adjacency}))
    (it,) = index.explain(parts.queries[0], [40], beam_size=10)
    assert it.reason == "not reached: the best of its 29 clusters ranks 12th, the beam holds 10"


def test_an_explanation_is_a_frozen_sentence() -> None:
    index, query = example()
    (it,) = index.explain(query, ["L2"], beam_size=3, shortlist_size=3)
    assert (it.label, it.name) == (2, "L2")
    assert str(it) == (
        f"label 2 'L2': ranks 2nd of the 3 labels in the shortlist; score {it.score:.4g} = "
        f"path {it.path_score:.4g} x probability 0.5"
    )
    with pytest.raises(FrozenInstanceError):
        it.score = 1.0  # type: ignore[misc]
    assert index.explain(query[None], [], beam_size=3) == ()
    assert [one.label for one in index.explain(query, [3, 1, 3])] == [3, 1, 3]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embedding": np.zeros((2, 12))}, ValueError, "explain takes one embedding, got 2"),
        ({"embedding": np.zeros(11)}, ValueError, "must have dim 12"),
        ({"embedding": np.full(12, np.nan)}, ValueError, "row 0 of embeddings holds NaN"),
        ({"labels": [60]}, ValueError, "label 60 is out of range"),
        ({"labels": [-1]}, ValueError, "label -1 is out of range"),
        ({"labels": ["nothing"]}, ValueError, 'no label is called "nothing"'),
        ({"labels": [0.5]}, TypeError, "labels must be integers"),
        ({"labels": np.ones(60, dtype=bool)}, TypeError, "labels must be ids or names, got booleans"),
        ({"labels": 3}, TypeError, "labels must be an array or list"),
        ({"beam_size": 0}, ValueError, "beam_size must be at least 1"),
        ({"shortlist_size": 1.5}, TypeError, "shortlist_size must be an integer"),
        ({"filter": [60]}, ValueError, "label 60 is out of range"),
    ],
)
def test_bad_arguments(index: Index, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        index.explain(**{"embedding": np.zeros(12), "labels": [1], **change})


# The adjacency, both ways.


def test_edges_both_ways(index: Index, parts: Parts) -> None:
    for label in range(60):
        clusters, weights = index.clusters(label)
        expected = parts.adjacency[:, label]
        assert sorted(clusters.tolist()) == np.flatnonzero(expected).tolist()
        np.testing.assert_array_equal(weights, expected[clusters])
        pairs = list(zip(-weights, clusters, strict=True))
        assert pairs == sorted(pairs)
    indptr, indices, data = index.adjacency
    for cluster in range(9):
        labels, weights = index.labels(cluster)
        np.testing.assert_array_equal(labels, indices[indptr[cluster] : indptr[cluster + 1]])
        np.testing.assert_array_equal(weights, data[indptr[cluster] : indptr[cluster + 1]])
        assert np.shares_memory(labels, indices)
        assert np.shares_memory(weights, data)
        for view in (labels, weights):
            with pytest.raises(ValueError, match="read-only"):
                view[:1] = 0


def test_equal_weights_come_by_cluster() -> None:
    parts = oracle.awkward_parts()["every path to every label"]
    assert build(parts).clusters(3).clusters.tolist() == list(range(9))


def test_ids_of_edges_are_checked(index: Index) -> None:
    for edges, name, count in ((index.clusters, "label", 60), (index.labels, "cluster", 9)):
        for outside in (-1, count, 2**70):
            with pytest.raises(ValueError, match=f"{name} {outside} is out of range: the index has {count} {name}s"):
                edges(outside)
        for wrong in (1.0, "1", None, [1]):
            with pytest.raises(TypeError, match=f"{name} must be an integer, got {type(wrong).__name__}"):
                edges(wrong)  # type: ignore[arg-type]
        assert len(edges(np.uint8(1))) == 2  # type: ignore[arg-type]
