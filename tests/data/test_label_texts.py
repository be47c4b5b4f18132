import json

import numpy as np
import pytest

from elias_idx.data import LabelText, TrainingSet, read_label_texts
from elias_idx.errors import DataError


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def small_set():
    return TrainingSet(["one", "two", "three"], [["b"], ["a", "c"], ["c"]])


def test_reads_texts_and_parents(tmp_path):
    path = write(
        tmp_path / "labels.jsonl",
        {"label": "a", "text": "Äpfel"},
        {"label": "b", "text": "pears", "parents": ["fruit", "a"], "more": 1},
    )
    assert read_label_texts(path) == {"a": LabelText("Äpfel"), "b": LabelText("pears", ("fruit", "a"))}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": "a"}, "no 'text'"),
        ({"text": "a"}, "no 'label'"),
        ({"label": 1, "text": "a"}, "'label' must be a string, got int"),
        ({"label": "a", "text": None}, "'text' must be a string, got NoneType"),
        ({"label": "a", "text": "t", "parents": "b"}, "'parents' must be a list of labels, got str"),
        ({"label": "a", "text": "t", "parents": [1]}, "'parents' must be a string, got int"),
        ({"label": "known", "text": "again"}, "'known' has a text already"),
    ],
)
def test_refuses_rows_that_are_no_label_text(tmp_path, row, message):
    path = write(tmp_path / "labels.jsonl", {"label": "known", "text": "t"}, row)
    with pytest.raises(DataError, match=f"labels.jsonl:2: .*{message}"):
        read_label_texts(path)


def test_texts_stand_in_the_order_of_the_labels():
    texts = {"c": LabelText("sea", ("above", "lost")), "a": LabelText("eh", ()), "above": LabelText("water", ("a",))}
    data = small_set().with_label_texts(texts)
    assert data.label_names == ["a", "b", "c"]
    assert data.label_texts.own == ["eh", "", "sea"]
    # One level up, and only what has a text.
    assert data.label_texts.with_parents == ["eh", "", "sea\nwater"]


def test_texts_follow_their_labels():
    matrix = small_set().labels
    matrix = matrix.multiply(np.array([0, 1, 1])).tocsr()
    matrix.eliminate_zeros()
    data = TrainingSet(["one", "two", "three"], matrix, label_names=["a", "b", "c"])
    data = data.with_label_texts({"a": LabelText("A"), "c": LabelText("C")})
    assert data.without_unused_labels().label_texts.own == ["", "C"]
    assert data.subset(np.array([2])).label_texts == data.label_texts


def test_other_texts_make_another_set():
    data = small_set()
    sets = [data, *(data.with_label_texts({"a": LabelText(text)}) for text in ("A", "B"))]
    assert len({each.fingerprint() for each in sets}) == 3


def test_refuses_texts_of_other_labels_alone():
    with pytest.raises(DataError, match="none of the 3 labels has a text"):
        small_set().with_label_texts({"A": LabelText("wrong case")})
