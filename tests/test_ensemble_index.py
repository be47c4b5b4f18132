"""Searching several indexes at once, held to averaging their own results in NumPy."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
import oracle_fusion
from elias_idx import EVIDENCE, Index
from elias_idx.ensemble_index import MIN_DEPTH, EnsembleFilter, EnsembleIndex
from helpers_index import build

NAMES = [f"label {number}" for number in range(60)]


def random_index(seed, names, dim=8, num_clusters=7):
    """An index whose clusters lead to a third of the labels each, weights of a few steps so that some scores tie."""
    draw = np.random.default_rng(seed)
    edges = draw.integers(1, 9, (num_clusters, len(names))) / 8 * (draw.random((num_clusters, len(names))) < 0.35)
    return Index.build(
        draw.standard_normal((num_clusters, dim)),
        draw.standard_normal(num_clusters),
        sp.csr_matrix(edges),
        draw.standard_normal((len(names), dim)).round(),
        np.zeros(len(names)),
        label_names=names,
    )


def shuffled(names, seed):
    return [names[at] for at in np.random.default_rng(seed).permutation(len(names))]


@pytest.fixture(scope="module")
def members():
    """Three indexes of one dim: the same names, others' order, and some labels of its own but not all of the others."""
    return [
        random_index(0, NAMES),
        random_index(1, shuffled(NAMES, 1), num_clusters=5),
        random_index(2, [*shuffled(NAMES[:50], 2), "new", "newer"], num_clusters=9),
    ]


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(9).standard_normal((70, 8)).astype(np.float32)


def averaged(members, queries, k, allowed=None, min_score=0.0, **options):
    """The rows of (name, score) that an ensemble must return, the mean of float32 sums in the members' order."""
    order = {name: number for number, name in enumerate(dict.fromkeys(n for m in members for n in m.label_names))}
    rows = []
    for at, query in enumerate(queries):
        sums = {}
        for member in members:
            names = list(member.label_names)
            permitted = None if allowed is None else [name for name in names if name in allowed[at]]
            found = member.search(query, len(names), filter=permitted, **options)
            for label, score in zip(*found, strict=True):
                if label >= 0:
                    sums[names[label]] = sums.get(names[label], np.float32(0)) + score
        means = [(name, total / np.float32(len(members))) for name, total in sums.items()]
        best = sorted(means, key=lambda mean: (-mean[1], order[mean[0]]))
        rows.append([mean for mean in best if mean[1] >= min_score][:k])
    return rows


def as_rows(ensemble, found):
    names = ensemble.names(found.labels)
    return [
        [(name, score) for name, score in zip(*row, strict=True) if name is not None]
        for row in zip(names, found.scores, strict=True)
    ]


@pytest.mark.parametrize("num_threads", [1, None])
def test_scores_are_the_means_of_the_members(members, queries, num_threads):
    ensemble = EnsembleIndex(members)
    assert as_rows(ensemble, ensemble.search(queries, 10, num_threads=num_threads)) == averaged(members, queries, 10)
    options = {"beam_size": 2, "shortlist_size": 9}
    found = ensemble.search(queries, 70, num_threads=num_threads, **options)
    assert as_rows(ensemble, found) == averaged(members, queries, 70, **options)
    assert (found.labels[:, -1] == -1).all()
    assert (found.scores[:, -1] == 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), num_members=st.integers(2, 4), k=st.integers(1, 20), num_queries=st.integers(0, 5))
def test_any_ensemble_is_the_mean_of_its_members(seed, num_members, k, num_queries):
    draw = np.random.default_rng(seed)
    members = [
        random_index(seed + at, shuffled(NAMES, seed + at)[: draw.integers(1, 60)], dim=3) for at in range(num_members)
    ]
    queries = draw.standard_normal((num_queries, 3)).astype(np.float32)
    ensemble = EnsembleIndex(members)
    assert as_rows(ensemble, ensemble.search(queries, k)) == averaged(members, queries, k)


def test_labels_are_those_of_the_first_index_and_then_others(members):
    ensemble = EnsembleIndex(members)
    assert ensemble.label_names == [*NAMES, "new", "newer"]
    assert (ensemble.num_labels, ensemble.num_shared_labels) == (62, 50)
    for number, member in enumerate(members):
        assert ensemble.names(ensemble.labels_of(number)).tolist() == list(member.label_names)
    assert ensemble.names(61) == "newer"
    assert ensemble.names([[0, -1]]).tolist() == [["label 0", None]]
    assert EnsembleIndex([members[0]] * 2).num_shared_labels == 60
    with pytest.raises(ValueError, match="label 62 is out of range"):
        ensemble.names(62)


def test_members_take_embeddings_of_their_own(members, queries):
    other = random_index(5, NAMES, dim=4)
    ensemble = EnsembleIndex([members[0], other])
    found = ensemble.search_each([queries, queries[:, :4]], 5)
    alone = [members[0].search(queries, 60), other.search(queries[:, :4], 60)]
    dense = np.zeros((2, len(queries), 61), np.float32)
    for member, (labels, scores) in enumerate(alone):
        np.put_along_axis(dense[member], labels, scores, 1)
    means = (dense[0] + dense[1]) / np.float32(2)
    assert (found.scores == -np.sort(-means[:, :60], axis=1)[:, :5]).all()
    with pytest.raises(ValueError, match="embeddings of different dims: 4, 8"):
        ensemble.search(queries)
    with pytest.raises(ValueError, match="dim 4"):
        ensemble.search_each([queries, queries], 5)
    with pytest.raises(ValueError, match="as many embeddings, got 70, 5"):
        ensemble.search_each([queries, queries[:5, :4]], 5)


def test_a_single_embedding_gives_a_single_row(members, queries):
    ensemble = EnsembleIndex(members)
    one, all_ = ensemble.search(queries[3], 4), ensemble.search(queries, 4)
    assert one.labels.shape == (4,)
    assert (one.labels == all_.labels[3]).all()
    assert (one.scores == all_.scores[3]).all()
    assert ensemble.search(queries[:0], 4).labels.shape == (0, 4)


def test_the_first_labels_do_not_depend_on_how_many_are_asked_for():
    names = [f"label {number}" for number in range(1000)]
    members = [random_index(seed, names) for seed in range(2)]
    queries = np.random.default_rng(1).standard_normal((20, 8))
    ensemble = EnsembleIndex(members)
    assert 2 * MIN_DEPTH < 1000
    many, few = ensemble.search(queries, MIN_DEPTH // 2), ensemble.search(queries, 3)
    assert (many.labels[:, :3] == few.labels).all()
    assert (many.scores[:, :3] == few.scores).all()
    # With more, every index finds more too.
    assert (ensemble.search(queries, 2 * MIN_DEPTH).labels >= 0).all()


def test_filters_of_all_kinds_agree(members, queries):
    ensemble = EnsembleIndex(members)
    names = ["newer", *NAMES[3:40:4]]
    ids = [ensemble.label_names.index(name) for name in names]
    expected = averaged(members, queries, 5, allowed=[set(names)] * len(queries))
    mask = np.isin(np.arange(62), ids)
    rows = sp.csr_matrix(np.tile(mask, (len(queries), 1)))
    made = ensemble.label_filter(ids + ids[:2])
    assert len(made) == len(names)
    for allowed in (names, ids, mask, made, rows, [made] * len(queries)):
        assert as_rows(ensemble, ensemble.search(queries, 5, filter=allowed)) == expected


def test_each_query_may_have_a_filter_of_its_own(members, queries, monkeypatch):
    # Several batches, so that filters are cut like the queries.
    monkeypatch.setattr("elias_idx.ensemble_index._QUERIES_AT_ONCE", 16)
    ensemble = EnsembleIndex(members)
    names = ensemble.label_names
    allowed = [set(names[at % 5 :: 5]) for at in range(len(queries))]
    expected = averaged(members, queries, 4, allowed=allowed)
    rows = sp.csr_matrix([[name in row for name in names] for row in allowed])
    assert as_rows(ensemble, ensemble.search(queries, 4, filter=rows)) == expected
    each = [ensemble.label_filter(sorted(row)) for row in allowed]
    assert as_rows(ensemble, ensemble.search(queries, 4, filter=each)) == expected
    each[0] = None
    assert as_rows(ensemble, ensemble.search(queries[:1], 4, filter=[None])) == averaged(members, queries[:1], 4)


def test_a_filter_of_labels_that_a_member_lacks(members, queries):
    ensemble = EnsembleIndex(members)
    found = ensemble.search(queries, 2, filter=["new"])
    alone = members[2].search(queries, 1, filter=["new"]).scores
    assert found.scores[:, :1] == pytest.approx(alone / 3)
    assert (found.labels[:, 1] == -1).all()


def test_members_with_fusion_give_its_scores(monkeypatch):
    monkeypatch.setattr("elias_idx.ensemble_index._QUERIES_AT_ONCE", 5)
    parts = oracle.random_parts(1, num_queries=12)
    fusion = oracle_fusion.random_fusion(parts)
    names = [f"label {number}" for number in range(len(parts.label_bias))]
    linear = np.random.default_rng(0).normal(0, 0.05, len(EVIDENCE))
    fused = fusion.add_to(build(parts, label_names=names)).with_fusion(linear)
    dense = build(parts, label_names=names[::-1])
    sparse, num_labels = sp.csr_matrix(fusion.sparse), len(names)
    sums = np.zeros((12, num_labels), np.float32)
    alone = fused.search(parts.queries, fusion.num_candidates, sparse=sparse)
    put_scores(sums, alone)
    others = np.zeros_like(sums)
    put_scores(others, dense.search(parts.queries, num_labels))
    sums += others[:, ::-1]
    ensemble = EnsembleIndex([fused, dense])
    found = ensemble.search(parts.queries, 4, sparse=sparse)
    expected = np.argsort(-sums, axis=1, kind="stable")[:, :4]
    assert (found.labels == expected).all()
    assert (found.scores == np.take_along_axis(sums / np.float32(2), expected, 1)).all()
    # A search without features is that of the dense models.
    plain = ensemble.search(parts.queries, 4)
    assert (
        plain.labels == EnsembleIndex([build(parts, label_names=names), dense]).search(parts.queries, 4).labels
    ).all()
    with pytest.raises(ValueError, match="none of the indexes takes sparse features"):
        EnsembleIndex([dense, dense]).search(parts.queries, 4, sparse=sparse)
    with pytest.raises(ValueError, match="sparse must be"):
        ensemble.search(parts.queries, 4, sparse=sparse[:, :-1])


def put_scores(sums, found):
    rows, columns = np.nonzero(found.labels >= 0)
    sums[rows, found.labels[rows, columns]] = found.scores[rows, columns]


def test_low_means_are_left_out(members, queries):
    ensemble = EnsembleIndex(members)
    least = float(np.median(ensemble.search(queries, 5).scores))
    assert as_rows(ensemble, ensemble.search(queries, 5, min_score=least)) == averaged(
        members, queries, 5, min_score=least
    )


def test_bad_arguments_are_explained(members, queries):
    ensemble = EnsembleIndex(members)
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        EnsembleIndex(members[:1])
    with pytest.raises(ValueError, match="no label names"):
        EnsembleIndex([members[0], Index.build([[1.0]], [0.0], sp.eye(1, format="csr"), [[1.0]], [0.0])])
    for arguments, error, text in (
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"k": 1.5}, TypeError, "k must be an integer"),
        ({"beam_size": 0}, ValueError, "beam_size must be at least 1"),
        ({"num_threads": "2"}, TypeError, "num_threads must be an integer"),
        ({"min_score": np.nan}, ValueError, "min_score must not be NaN"),
        ({"filter": ["nothing"]}, ValueError, "no label is called"),
        ({"filter": [62]}, ValueError, "label 62 is out of range"),
        ({"filter": np.ones(60, bool)}, ValueError, "must have 62 values"),
        ({"filter": [None] * 3}, ValueError, "must have 70 filters"),
        ({"filter": [None, "label 1"]}, TypeError, r"filter\[1\] must be an EnsembleFilter or None"),
        ({"filter": sp.csr_matrix((70, 60))}, ValueError, r"\[70, 62\]"),
        ({"filter": members[0].label_filter([1])}, TypeError, "labels must be an array or list"),
    ):
        with pytest.raises(error, match=text):
            ensemble.search(queries, **arguments)
    with pytest.raises(ValueError, match="row 2 of embeddings holds NaN"):
        ensemble.search([[0] * 8] * 2 + [[np.nan] * 8])
    foreign = EnsembleIndex([random_index(7, NAMES), random_index(8, NAMES)]).label_filter([1])
    with pytest.raises(ValueError, match="another"):
        EnsembleIndex(members[:2]).search(queries, filter=foreign)
    for of_others in (foreign, [foreign] * len(queries)):
        with pytest.raises(ValueError, match="another ensemble"):
            ensemble.search(queries, filter=of_others)
    with pytest.raises(ValueError, match="as many embeddings, got 70, 69, 70"):
        ensemble.search_each([queries, queries[1:], queries])
    assert isinstance(foreign, EnsembleFilter)
    assert copy.copy(foreign) == foreign
