"""Labels that leave an index and join it: the index that comes of it is, to the byte, one that was built so."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle_fusion
from elias_idx import EVIDENCE, FormatError, Index, NewEvidence
from helpers_index import build, names_for
from oracle import Array, Parts, random_parts
from oracle_fusion import FusionParts

LINEAR = np.random.default_rng(0).normal(0, 0.05, len(EVIDENCE)).astype(np.float32)
DTYPES = ["float32", "bfloat16", "float16", "int8"]


def some_labels(parts: Parts, labels: Array) -> Parts:
    """The parts of an index with some labels alone."""
    return replace(
        parts,
        adjacency=parts.adjacency[:, labels],
        label_weights=parts.label_weights[labels],
        label_bias=parts.label_bias[labels],
    )


def some_of_evidence(fusion: FusionParts, labels: Array) -> FusionParts:
    changes: dict[str, Any] = {"label_counts": fusion.label_counts[labels]}
    for name in ("ranker", "ranker_bias", "label_texts"):
        if (part := getattr(fusion, name)) is not None:
            changes[name] = part[labels]
    if fusion.text_labels is not None:
        changes["text_labels"] = fusion.text_labels[:, labels]
    if fusion.cooccurrence is not None:
        changes["cooccurrence"] = fusion.cooccurrence[np.ix_(labels, labels)]
    return replace(fusion, **changes)


def fused(parts: Parts, fusion: FusionParts, names: list[str], **changes: Any) -> Index:
    """An index of the parts with all there can be."""
    index = fusion.add_to(build(parts, label_names=names, **changes))
    return index.with_fusion(LINEAR, -0.5, oracle_fusion.random_trees())


def files(index: Index) -> dict[str, bytes]:
    return index._core.to_files()


def as_new(parts: Parts, labels: Array) -> tuple[Array, Array, sp.csr_matrix]:
    """What `add_labels` takes of labels that some parts have."""
    return parts.label_weights[labels], parts.label_bias[labels], sp.csr_matrix(parts.adjacency[:, labels])


def new_evidence(fusion: FusionParts, old: Array, labels: Array, num_old_texts: int) -> NewEvidence:
    """What is said of new labels, that come after the old ones: of texts those after some."""
    both = np.concatenate([old, labels])
    cooccurrence = fusion.cooccurrence[np.ix_(both, both)].copy()
    cooccurrence[: len(old), : len(old)] = 0
    texts, has = fusion.texts[num_old_texts:], fusion.text_labels[num_old_texts:, both]
    return NewEvidence(
        label_counts=fusion.label_counts[labels],
        ranker=(sp.csr_matrix(fusion.ranker[labels]), fusion.ranker_bias[labels]),
        label_texts=sp.csr_matrix(fusion.label_texts[labels]),
        cooccurrence=sp.csr_matrix(cooccurrence),
        neighbours=(sp.csr_matrix(texts), sp.csr_matrix(has)),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    num_clusters=st.integers(1, 20),
    num_labels=st.integers(2, 80),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.95]),
    dtype=st.sampled_from(DTYPES),
    screen=st.booleans(),
    projected=st.booleans(),
)
def test_an_index_without_labels_is_one_built_without_them(
    seed: int, num_clusters: int, num_labels: int, share: float, dtype: str, screen: bool, projected: bool
) -> None:
    sizes: dict[str, Any] = {"num_clusters": num_clusters, "num_labels": num_labels}
    parts = random_parts(seed, label_dim=7 if projected else None, labels_per_cluster=9, **sizes)
    kept = np.random.default_rng(seed).random(num_labels) >= share
    kept[seed % num_labels] = True
    names, options = names_for(parts), {"dtype": dtype, "screen": screen}
    index = build(parts, label_names=names, **options).remove_labels(~kept)
    staying = np.flatnonzero(kept)
    built = build(some_labels(parts, staying), label_names=[names[label] for label in staying], **options)
    assert files(index) == files(built)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    num_clusters=st.integers(1, 20),
    num_labels=st.integers(2, 80),
    num_new=st.integers(1, 79),
    dtype=st.sampled_from(DTYPES),
    screen=st.booleans(),
)
def test_an_index_with_more_labels_is_one_built_with_them(
    seed: int, num_clusters: int, num_labels: int, num_new: int, dtype: str, screen: bool
) -> None:
    parts = random_parts(seed, num_clusters=num_clusters, num_labels=num_labels, labels_per_cluster=9)
    old, new = np.split(np.arange(num_labels), [max(1, num_labels - num_new)])
    names, options = names_for(parts), {"dtype": dtype, "screen": screen}
    index = build(some_labels(parts, old), label_names=names[: len(old)], **options)
    if len(new):
        index = index.add_labels(*as_new(parts, new), names[len(old) :])
    assert files(index) == files(build(parts, label_names=names, **options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_that_is_known_of_labels_leaves_and_joins_with_them(dtype: str) -> None:
    parts = random_parts(3, num_queries=12)
    fusion, names = oracle_fusion.random_fusion(parts), names_for(parts)
    old, new = np.arange(40), np.arange(40, 60)
    # Texts of old labels alone, then those that come with the new ones.
    num_texts = len(fusion.texts)
    whole = fused(parts, fusion, names, dtype=dtype)
    removed = whole.remove_labels(new)
    rest = fused(some_labels(parts, old), some_of_evidence(fusion, old), names[:40], dtype=dtype)
    assert files(removed) == files(rest)
    few = replace(fusion, texts=fusion.texts[: num_texts - 5], text_labels=fusion.text_labels[: num_texts - 5])
    rest = fused(some_labels(parts, old), some_of_evidence(few, old), names[:40], dtype=dtype)
    added = rest.add_labels(*as_new(parts, new), names[40:], evidence=new_evidence(fusion, old, new, num_texts - 5))
    # Old texts have no new labels.
    known = fusion.text_labels.copy()
    known[: num_texts - 5, 40:] = 0
    assert (np.abs(few.texts).sum(0) > 0)[np.abs(fusion.texts).sum(0) > 0].all()
    assert files(added) == files(fused(parts, replace(fusion, text_labels=known), names, dtype=dtype))


def test_searches_without_labels_are_those_that_are_filtered() -> None:
    """Where the beam is as wide as can be: else a filter widens it."""
    parts = random_parts(5, num_queries=12)
    fusion = oracle_fusion.random_fusion(parts)
    index, sparse = fused(parts, fusion, names_for(parts)), sp.csr_matrix(fusion.sparse)
    kept = np.random.default_rng(0).random(60) < 0.6
    smaller, wide = index.remove_labels(np.flatnonzero(~kept)), {"beam_size": 9, "shortlist_size": 60}
    for options in ({}, {"sparse": sparse}):
        expected = index.search(parts.queries, 8, filter=kept, **wide, **options)
        found = smaller.search(parts.queries, 8, **wide, **options)
        assert smaller.names(found.labels).tolist() == index.names(expected.labels).tolist()
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_new_labels_without_evidence_are_as_labels_without_texts() -> None:
    parts = random_parts(6, num_queries=5)
    fusion, names = oracle_fusion.random_fusion(parts), names_for(parts)
    old, new = np.arange(50), np.arange(50, 60)
    index = fused(some_labels(parts, old), some_of_evidence(fusion, old), names[:50])
    bare = {"label_counts": 0, "ranker": 0, "ranker_bias": -1, "label_texts": 0}
    changes = {name: getattr(fusion, name).copy() for name in bare}
    for name, value in bare.items():
        changes[name][50:] = value
    changes["text_labels"], changes["cooccurrence"] = fusion.text_labels.copy(), fusion.cooccurrence.copy()
    changes["text_labels"][:, 50:] = changes["cooccurrence"][50:] = changes["cooccurrence"][:, 50:] = 0
    expected = fused(parts, replace(fusion, **changes), names)
    assert files(index.add_labels(*as_new(parts, new), names[50:])) == files(expected)


def test_features_that_no_text_is_listed_for_stay_so() -> None:
    """They may have been left out as too common."""
    parts = random_parts(2, num_labels=20)
    fusion = oracle_fusion.random_fusion(parts)
    texts = fusion.texts.copy()
    texts[:, 0] = 0
    index = replace(fusion, texts=texts).add_to(build(parts))
    text = np.zeros((1, texts.shape[1]), np.float32)
    text[0, 0] = 1
    evidence = NewEvidence(neighbours=(sp.csr_matrix(text), sp.csr_matrix(([1.0], ([0], [20])), (1, 21))))
    added = index.add_labels([parts.label_weights[0]], [0.0], sp.csr_matrix(parts.adjacency[:, :1]), evidence=evidence)
    assert added._core.to_files()["neighbour_texts.safetensors"] == files(index)["neighbour_texts.safetensors"]


def test_folders_and_pickles(tmp_path: Path, index: Index, parts: Parts) -> None:
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    smaller = loaded.remove_labels(["", "Fièvre 🌡 typhoïde"], path=tmp_path / "smaller")
    assert smaller.path == tmp_path / "smaller"
    assert files(smaller) == files(index.remove_labels([0, 1, 1]))
    dense = as_new(parts, np.array([0, 1]))
    larger = smaller.add_labels(*dense, ["one", "two"], path=tmp_path / "smaller", overwrite=True)
    assert larger.num_labels == index.num_labels
    assert list(larger.label_names)[-2:] == ["one", "two"]
    assert smaller.search(parts.queries, 3).labels.shape == (8, 3)  # of files that are gone
    larger.verify()
    assert files(pickle.loads(pickle.dumps(larger))) == files(larger)
    with pytest.raises(FileExistsError):
        loaded.remove_labels([0], path=tmp_path / "smaller")


def test_damage_is_not_copied(tmp_path: Path, index: Index) -> None:
    index.save(tmp_path / "index")
    file = tmp_path / "index" / "label_weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(FormatError, match=r"label_weights.*SHA-256"):
        Index.load(tmp_path / "index").remove_labels([0])


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([60], ValueError, "label 60 is out of range"),
        ([-1], ValueError, "label -1 is out of range"),
        (["no such"], ValueError, 'no label is called "no such"'),
        (np.ones(59, bool), ValueError, "mask must have 60 values"),
        (np.ones(60, bool), ValueError, "at least one label"),
        ("label 3", TypeError, "got one str"),
        ([0.5], TypeError, "integers"),
    ],
)
def test_what_cant_be_removed(index: Index, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        index.remove_labels(labels)


EDGES = sp.csr_matrix(np.full((9, 2), 0.5, np.float32))
NOTHING = {"bias": [], "weights": np.zeros((0, 12)), "edges": EDGES[:, :0], "names": []}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": np.zeros((2, 11))}, ValueError, r"weights must be \[new labels, label dim\] = \[2, 12\]"),
        ({"weights": np.full((2, 12), np.nan)}, ValueError, r"label_weights\[60, 0\] is NaN"),
        ({"bias": [0.0, np.inf]}, ValueError, r"label_bias\[61\] is inf"),
        (NOTHING, ValueError, "number of new labels must be"),
        ({"edges": EDGES[:, :1]}, ValueError, r"edges must be .* \[9, 2\], got \[9, 1\]"),
        ({"edges": EDGES * 3}, ValueError, r"edges: a weight isn't in \(0, 1\]"),
        ({"edges": (np.r_[0, np.full(9, 2)], [1, 0], [0.5, 0.5])}, ValueError, "edges: a row's columns don't ascend"),
        ({"names": None}, ValueError, "the index has names"),
        ({"names": ["a"]}, ValueError, "names must have 2 names"),
        ({"names": ["a", "a"]}, ValueError, "names must be unique"),
        ({"names": ["a", "label 7"]}, ValueError, "of labels 7 and 61"),
        ({"names": ["a", 3]}, TypeError, r"names\[1\] must be a str"),
        ({"evidence": NewEvidence(label_counts=[1, 2])}, ValueError, "label_counts: the index has no such part"),
    ],
)
def test_what_cant_be_added(index: Index, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    dense = {"weights": np.zeros((2, 12)), "bias": np.zeros(2), "edges": EDGES, "names": ["new", "newer"]}
    with pytest.raises(error, match=message):
        index.add_labels(**{**dense, **changes})


def test_names_of_an_index_without_names(parts: Parts) -> None:
    with pytest.raises(ValueError, match="the index has no names"):
        build(parts).add_labels(np.zeros((2, 12)), np.zeros(2), EDGES, ["new", "newer"])


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"label_counts": [1]}, "label_counts must have 2 values, got 1"),
        ({"ranker": (sp.csr_matrix((2, 3)), [0, 0])}, "ranker must be"),
        ({"ranker": "of two", "ranker_bias": [0]}, "the ranker's bias must have 2 values, got 1"),
        ({"cooccurrence": ([0, 5], [1, 60], 62)}, None),
        ({"cooccurrence": ([0, 5], [1, 59], 62)}, "two labels which the index has already"),
        ({"neighbours": 61}, "neighbours' labels must be"),
    ],
)
def test_evidence_must_fit(evidence: dict[str, Any], message: str | None) -> None:
    parts = random_parts(1)
    fusion = oracle_fusion.random_fusion(parts)
    num_features = fusion.sparse.shape[1]
    given: dict[str, Any] = dict(evidence)
    if "ranker_bias" in given:
        given = {"ranker": (sp.csr_matrix((2, num_features)), given["ranker_bias"])}
    if "cooccurrence" in given:
        rows, columns, size = given["cooccurrence"]
        given["cooccurrence"] = sp.csr_matrix(([0.5, 0.5], (rows, [60, columns[1]])), (size, size))
    if "neighbours" in given:
        given["neighbours"] = (sp.csr_matrix((1, num_features)), sp.csr_matrix((1, given["neighbours"])))
    index, dense = fusion.add_to(build(parts)), (np.zeros((2, 12)), np.zeros(2), EDGES)
    if message is None:
        assert index.add_labels(*dense, evidence=NewEvidence(**given)).num_labels == 62
        return
    with pytest.raises(ValueError, match=message):
        index.add_labels(*dense, evidence=NewEvidence(**given))
