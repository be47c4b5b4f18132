"""Joining sets."""

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.data import LabelText, TrainingSet
from elias_idx.errors import DataError


def test_joins_another_set():
    ours = TrainingSet(["one", "two"], [["b"], ["a"]]).with_label_texts({"a": LabelText("A")})
    joined = ours.joined(TrainingSet(["three"], [["c", "a"]], [[0.5, 1.0]]))
    assert joined.inputs == ["one", "two", "three"]
    assert joined.label_names == ["a", "b", "c"]
    np.testing.assert_array_equal(joined.labels.toarray(), [[0, 1, 0], [1, 0, 0], [1, 0, 0.5]])
    assert joined.label_texts.own == ["A", "", ""]


def test_labels_of_the_other_set_alone_keep_their_texts():
    texts = {"a": LabelText("A"), "c": LabelText("C", ("a",)), "d": LabelText("D")}
    ours = TrainingSet(["one"], [["a"]]).with_label_texts(texts)
    theirs = TrainingSet(["two"], [["d", "c", "b"]]).with_label_texts(texts)
    joined = ours.joined(theirs)
    assert joined.label_names == ["a", "b", "c", "d"]
    assert joined.label_texts.own == ["A", "", "C", "D"]
    assert joined.label_texts.with_parents == ["A", "", "C\nA", "D"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["text"], np.zeros((1, 3))),
        (np.zeros((1, 2)), np.zeros((1, 3))),
        (sp.csr_matrix((1, 2)), sp.csr_matrix((1, 3))),
    ],
)
def test_sets_of_two_kinds_are_not_joined(first, second):
    with pytest.raises(DataError, match="of one kind and size"):
        TrainingSet(first, [["a"]]).joined(TrainingSet(second, [["a"]]))


def test_sets_with_groups_are_not_joined():
    plain = TrainingSet(["text"], [["a"]])
    with pytest.raises(DataError, match="sets with groups"):
        plain.joined(TrainingSet(["text"], [["a"]], groups=["g"]))
