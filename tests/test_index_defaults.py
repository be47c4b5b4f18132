"""Indexes with other sizes to search with, and what the fusion scores with."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import oracle_fusion
from elias_idx import EVIDENCE, Index
from helpers_index import build, names_for
from oracle import random_parts

PARTS = random_parts(1, num_queries=7)
FUSION = oracle_fusion.random_fusion(PARTS)
SPARSE = sp.csr_matrix(FUSION.sparse)
LINEAR = np.linspace(-0.1, 0.1, len(EVIDENCE), dtype=np.float32)


@pytest.fixture(scope="module")
def index() -> Index:
    return build(PARTS, beam_size=9, shortlist_size=60, label_names=names_for(PARTS), alpha=3.0)


def same(found, expected) -> bool:
    return all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_searches_use_the_new_sizes(index):
    small = index.with_defaults(2, 5)
    assert (small.beam_size, small.shortlist_size, small.alpha) == (2, 5, 3.0)
    expected = index.search(PARTS.queries, 20, beam_size=2, shortlist_size=5)
    assert same(small.search(PARTS.queries, 20), expected)
    assert not same(index.search(PARTS.queries, 20), expected)
    assert same(small.search(PARTS.queries, 20, beam_size=9, shortlist_size=60), index.search(PARTS.queries, 20))


def test_what_is_not_given_stays(index):
    assert (index.with_defaults(beam_size=2).beam_size, index.with_defaults(beam_size=2).shortlist_size) == (2, 60)
    assert (index.with_defaults(shortlist_size=3).beam_size, index.with_defaults().shortlist_size) == (9, 60)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_all_else_is_the_same(index, dtype, tmp_path):
    index = index.quantize(dtype)
    index.save(tmp_path / "index")
    mapped = Index.load(tmp_path / "index")
    for source in (index, mapped):
        small = source.with_defaults(2, 5)
        assert np.shares_memory(small.cluster_weights, source.cluster_weights)
        assert (small.memory(), small.dtype, small.screen) == (source.memory(), dtype, True)
        assert list(small.label_names) == list(source.label_names)
        small.save(tmp_path / "small", overwrite=True)
        loaded = Index.load(tmp_path / "small")
        loaded.verify()
        for again in (loaded, pickle.loads(pickle.dumps(small))):
            assert (again.beam_size, again.shortlist_size) == (2, 5)
            assert same(again.search(PARTS.queries), small.search(PARTS.queries))


def test_an_index_may_take_the_place_of_its_source(index, tmp_path):
    index.save(tmp_path / "index")
    mapped = Index.load(tmp_path / "index")
    mapped.with_defaults(beam_size=3).save(tmp_path / "index", overwrite=True)
    assert Index.load(tmp_path / "index").beam_size == 3
    assert same(mapped.search(PARTS.queries), index.search(PARTS.queries))


def test_candidates_of_the_fusion(index, tmp_path):
    fused = FUSION.add_to(index).with_fusion(LINEAR, -0.5, oracle_fusion.random_trees())
    few = fused.with_defaults(num_candidates=3)
    assert (few.num_candidates, few.beam_size) == (3, 9)
    expected = fused.search(PARTS.queries, 2, sparse=SPARSE, num_candidates=3)
    assert same(few.search(PARTS.queries, 2, sparse=SPARSE), expected)
    assert not same(fused.search(PARTS.queries, 2, sparse=SPARSE), expected)
    few.save(tmp_path / "index")
    assert Index.load(tmp_path / "index").num_candidates == 3


@pytest.mark.parametrize("trees", [None, oracle_fusion.random_trees()])
def test_the_fusion_comes_back_as_it_was_given(index, trees):
    assert index.fusion is None
    assert FUSION.add_to(index).fusion is None
    linear, bias, found = FUSION.add_to(index).with_fusion(LINEAR, -0.5, trees).fusion
    assert (linear == LINEAR).all()
    assert bias == -0.5
    assert (found is None) == (trees is None)
    if trees is not None:
        assert same(found, trees)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"beam_size": 0}, ValueError, "beam_size must be at least 1"),
        ({"shortlist_size": -1}, ValueError, "shortlist_size must be at least 1"),
        ({"beam_size": 1.5}, TypeError, "beam_size must be an integer"),
        ({"num_candidates": 0}, ValueError, "num_candidates must be at least 1"),
        ({"num_candidates": 5}, ValueError, "the index takes no sparse features"),
    ],
)
def test_bad_sizes(index, sizes, error, message):
    with pytest.raises(error, match=message):
        index.with_defaults(**sizes)
