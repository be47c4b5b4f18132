"""Groups of rows: read from every format that has fields, and what is no group."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elias_idx.data import TrainingSet, read_training_set, write_rows
from elias_idx.errors import DataError

VALUES = ["anna", 7, None, "anna", None, 7]
ROWS = [{"text": f"text {at}", "labels": ["x"], "patient": value} for at, value in enumerate(VALUES)]
EXPECTED = [0, 1, 2, 0, 3, 1]


def write_raw_text(path):
    rows = [{"title": row["text"], "target_ind": [0], "patient": row["patient"]} for row in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("name", ["rows.jsonl", "trn.json", "rows.parquet"])
def test_rows_of_the_same_value_are_a_group(tmp_path, name):
    path = tmp_path / name
    if name == "rows.jsonl":
        write_rows(path, ROWS)
    elif name == "trn.json":
        write_raw_text(path)
    else:
        named = [None if row["patient"] is None else str(row["patient"]) for row in ROWS]
        columns = {"text": [row["text"] for row in ROWS], "labels": [["x"]] * len(ROWS), "patient": named}
        pq.write_table(pa.table(columns), path)
    data = read_training_set(path, group_field="patient")
    assert data.groups.tolist() == EXPECTED
    assert read_training_set(path).groups is None
    with pytest.raises(DataError, match="'doctor'"):
        read_training_set(path, group_field="doctor")


def test_groups_stand_beside_embeddings(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    np.save(tmp_path / "rows.npy", np.eye(len(ROWS), dtype=np.float32))
    data = read_training_set(tmp_path / "rows.jsonl", embeddings=tmp_path / "rows.npy", group_field="patient")
    assert data.groups.tolist() == EXPECTED


def test_a_bag_of_words_has_no_fields_and_texts_are_no_groups(tmp_path):
    (tmp_path / "train.txt").write_text("1 2 1\n0 0:1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no field 'patient' to group by"):
        read_training_set(tmp_path / "train.txt", group_field="patient")
    write_rows(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError, match="a field of their own, got 'text'"):
        read_training_set(tmp_path / "rows.jsonl", group_field="text")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"], "2 inputs, but groups for 1"),
        (["a", 1.5], "row 1: a group must be"),
        ([True, "a"], "row 0: a group"),
    ],
)
def test_what_is_no_group_is_refused(groups, message):
    with pytest.raises(DataError, match=message):
        TrainingSet(["one", "two"], [["x"], ["x"]], groups=groups)


def test_labels_that_are_left_out_leave_the_groups():
    data = TrainingSet(["one", "two"], [["x"], ["y"]], groups=["a", "a"])
    assert data.without_unused_labels().groups.tolist() == [0, 0]
    assert data.subset(np.array([1])).without_unused_labels().groups.tolist() == [0]
