"""Labels of many rows as sparse matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from elias_idx.data import LabelVocabulary, TrainingSet, labels_by_name
from elias_idx.errors import DataError

NAMES = st.lists(st.lists(st.sampled_from(["a", "b", "c", "ä", "Z"]), max_size=6), max_size=8)


@given(NAMES)
def test_names_become_ones_in_columns_in_order_of_the_names(rows):
    matrix, names = labels_by_name(rows)
    assert names == sorted({name for row in rows for name in row})
    assert matrix.dtype == np.float32
    assert matrix.has_canonical_format
    assert matrix.toarray().tolist() == [[float(name in row) for name in names] for row in rows]


def test_relevances_go_with_their_labels_and_repeats_add_up_to_1_at_most():
    matrix, names = labels_by_name([["b", "a"], [], ["b", "b", "a", "a"]], [[0.5, 1.0], [], [0.25, 0.25, 0.75, 0.75]])
    assert names == ["a", "b"]
    assert matrix.toarray().tolist() == [[1, 0.5], [0, 0], [1, 0.5]]


@pytest.mark.parametrize(
    ("relevances", "message"),
    [
        ([[0.5], [0.0, 1]], "row 1: relevances must be over 0 and at most 1, got 0.0"),
        ([[0.5], [1, 1.5]], "row 1: relevances must be over 0 and at most 1, got 1.5"),
        ([[0.5], [1, float("nan")]], "row 1: .* got nan"),
        ([[0.5], [1e-60, 1]], "row 1: .* got 1e-60"),
        ([[0.5], [1, True]], "row 1: .* got True"),
        ([[0.5], [1, "1"]], "row 1: .* got '1'"),
        ([[0.5], [1]], "row 1: 'relevance' must be a list of 2 numbers"),
        ([[0.5]], "labels for 2 inputs, but relevances for 1"),
    ],
)
def test_relevances_that_are_none(relevances, message):
    with pytest.raises(DataError, match=message):
        labels_by_name([["a"], ["a", "b"]], relevances)


@given(NAMES, st.permutations(["a", "c", "Z", "y"]))
def test_renumbered_labels_are_the_same_labels(rows, known):
    vocabulary = LabelVocabulary(known)
    labels, names = labels_by_name(rows)
    matrix, unseen = vocabulary.renumber(labels, names)
    assert unseen == sorted(set(names) - set(known))
    assert matrix.shape == (len(rows), len(known) + len(unseen))
    every = [*known, *unseen]
    assert [{every[column] for column in matrix[row].indices} for row in range(len(rows))] == [set(row) for row in rows]


def test_names_that_do_not_occur_are_not_unseen():
    labels = sp.csr_matrix(np.array([[0, 1, 0]], np.float32))
    matrix, unseen = LabelVocabulary(["b"]).renumber(labels, ["a", "b", "c"])
    assert unseen == []
    assert matrix.toarray().tolist() == [[1]]


def training_set(**changes):
    parts = {
        "inputs": ["one", "two"],
        "labels": sp.csr_matrix(np.array([[0, 1, 0], [0.5, 0, 0]], np.float32)),
        "label_names": ["x", "y", "z"],
    }
    return TrainingSet(**(parts | changes))


def test_a_matrix_of_labels_stays_as_it_is_and_unused_labels_can_be_left_out():
    data = training_set()
    assert data.labels.toarray().tolist() == [[0, 1, 0], [0.5, 0, 0]]
    used = data.without_unused_labels()
    assert list(used.label_names) == ["x", "y"]
    assert used.labels.toarray().tolist() == [[0, 1], [0.5, 0]]
    assert used.without_unused_labels() is used


def test_the_caller_s_matrix_is_not_changed():
    labels = sp.csr_matrix((np.array([0.5, 0.25, 0.25]), np.array([1, 0, 0]), np.array([0, 3])), shape=(1, 2))
    data = TrainingSet(["one"], labels, label_names=["x", "y"])
    assert data.labels.toarray().tolist() == [[0.5, 0.5]]
    assert labels.indices.tolist() == [1, 0, 0]


def test_repeats_of_a_matrix_add_up_to_1_at_most_and_stored_zeros_are_none():
    data, columns = np.array([1, 1, 0, 0.25, 0.5]), np.array([1, 1, 0, 0, 0])
    labels = sp.csr_matrix((data, columns, np.array([0, 3, 5])), shape=(2, 2))
    made = TrainingSet(["one", "two"], labels, label_names=["x", "y"]).labels
    assert made.nnz == 2
    assert made.toarray().tolist() == [[0, 1], [0.75, 0]]
    assert labels.nnz == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": ["x", "y"]}, "labels has 3 columns, but there are 2 label names"),
        ({"label_names": ["x", "y", "x"]}, "must be unique"),
        ({"label_names": None}, "needs the names of its columns"),
        ({"label_names": "xyz"}, "got the string 'xyz'"),
        ({"label_names": ["x", "y", 3]}, "label_names: labels must be strings, got 3"),
        ({"relevances": [[0.5], [1]]}, "relevances go with labels by name"),
        ({"inputs": "ab"}, "put a single text in a list"),
        ({"labels": sp.csr_matrix([[0, 1e-60, 0], [1, 0, 0]])}, "over 0, as float32 too"),
        ({"labels": sp.csr_matrix([[0, -1.0, 0], [1, 0, 0]])}, "over 0 and at most 1"),
        ({"inputs": ["one"]}, "1 inputs, but labels for 2"),
        ({"labels": sp.csr_matrix([[0, 2.0, 0], [1, 0, 0]])}, "over 0 and at most 1"),
        ({"labels": sp.csr_matrix([[0, np.nan, 0], [1, 0, 0]])}, "over 0 and at most 1"),
        ({"labels": sp.csr_matrix((2, 3))}, "no row with a label"),
    ],
)
def test_matrices_that_dont_fit(changes, message):
    with pytest.raises(DataError, match=message):
        training_set(**changes)


INPUTS = {
    "texts": ["one", "two"],
    "other texts": ["onet", "wo"],
    "embeddings": np.ones((2, 3), np.float32),
    "wider embeddings": np.ones((2, 4), np.float32),
    "features": sp.csr_matrix(np.eye(2, 4)),
    "other features": sp.csr_matrix(np.eye(2, 5)),
}


def test_sets_that_differ_have_other_fingerprints():
    sets = [training_set(inputs=inputs) for inputs in INPUTS.values()]
    sets += [
        training_set(label_names=["x", "y", "w"]),
        training_set(label_names=["xy", "", "z"]),
        training_set(labels=sp.csr_matrix(np.array([[0, 1, 0], [0.25, 0, 0]]))),
        training_set(labels=sp.csr_matrix(np.array([[0, 1, 0], [0, 0.5, 0]]))),
    ]
    assert len({data.fingerprint() for data in sets}) == len(sets)


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS.keys())
def test_equal_sets_have_equal_fingerprints(inputs):
    again = inputs.copy()
    assert training_set(inputs=inputs).fingerprint() == training_set(inputs=again).fingerprint()
