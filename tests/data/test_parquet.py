"""Parquet files of texts and labels."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elias_idx.data import parquet, read_inputs, read_training_set
from elias_idx.errors import DataError, EliasIdxError

COLUMNS = {
    "text": ["one", "", "three"],
    "labels": [["b", "a"], [], ["c"]],
    "relevance": [[0.5, 1.0], [], [0.25]],
    "other": [1, 2, 3],
}


def write(path, row_group_size=2, **changes):
    columns = {name: column for name, column in (COLUMNS | changes).items() if column is not None}
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def test_texts_labels_and_relevances_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", 2)
    data = read_training_set(write(tmp_path / "train.parquet"))
    assert data.inputs == ["one", "", "three"]
    assert data.label_names == ["a", "b", "c"]
    assert data.labels.toarray().tolist() == [[1, 0.5, 0], [0, 0, 0], [0, 0, 0.25]]
    data = read_training_set(write(tmp_path / "train.parquet", relevance=None))
    assert data.labels.toarray().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.int64())])
def test_labels_may_be_whole_numbers(tmp_path, kind):
    labels = pa.array([[20, 3], [], [3]], kind)
    data = read_training_set(write(tmp_path / "train.parquet", labels=labels, relevance=None))
    assert data.label_names == ["20", "3"]
    assert data.labels.toarray().tolist() == [[1, 1], [0, 0], [0, 1]]


def test_large_types_are_read(tmp_path):
    changes = {
        "text": pa.array(COLUMNS["text"], pa.large_string()),
        "labels": pa.array(COLUMNS["labels"], pa.large_list(pa.large_string())),
        "relevance": pa.array(COLUMNS["relevance"], pa.large_list(pa.float32())),
    }
    one, other = write(tmp_path / "one.parquet"), write(tmp_path / "other.parquet", **changes)
    assert read_training_set(one).fingerprint() == read_training_set(other).fingerprint()


CATEGORIES = {
    "text": pa.array(COLUMNS["text"]).dictionary_encode(),
    "labels": pa.ListArray.from_arrays(
        pa.array([0, 2, 2, 3], pa.int32()), pa.array(["b", "a", "c"]).dictionary_encode()
    ),
}


# Arrow reads lists of categories from a single row group only.
@pytest.mark.parametrize(("column", "row_group_size"), [("text", 2), ("labels", 3)])
def test_strings_may_be_categories(tmp_path, column, row_group_size):
    changes = {column: CATEGORIES[column]}
    one, other = write(tmp_path / "one.parquet"), write(tmp_path / "other.parquet", row_group_size, **changes)
    assert "dictionary" in str(pq.read_schema(other).field(column).type)
    assert read_training_set(one).fingerprint() == read_training_set(other).fingerprint()


def damaged_strings(count, bad):
    """Strings of which one is not UTF-8, which Arrow does not check by itself."""
    content = [b"\xff" if row == bad else b"x" for row in range(count)]
    return pa.array(content, pa.binary()).view(pa.string())


@pytest.mark.parametrize("column", ["text", "labels"])
def test_strings_that_are_not_utf8_are_an_error(tmp_path, monkeypatch, column):
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", 2)
    strings = damaged_strings(6, bad=3)
    lists = pa.ListArray.from_arrays(pa.array(range(7), pa.int32()), strings if column == "labels" else ["x"] * 6)
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": strings if column == "text" else ["x"] * 6, "labels": lists}), path)
    with pytest.raises(DataError, match=r"train\.parquet, rows 2 to 3: a string is not UTF-8"):
        read_training_set(path)


def test_a_folder_s_files_are_one_set(tmp_path):
    write(tmp_path / "b.parquet", text=["4", "5", "6"])
    write(tmp_path / "a.parquet")
    data = read_training_set(tmp_path)
    assert data.inputs == ["one", "", "three", "4", "5", "6"]
    assert data.labels.toarray()[3:].tolist() == data.labels.toarray()[:3].tolist()


def test_inputs_need_no_labels(tmp_path):
    assert read_inputs(write(tmp_path / "texts.parquet", labels=None)) == COLUMNS["text"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None}, "no column 'text'; there are"),
        ({"labels": None}, "no column 'labels'"),
        ({"text": [1, 2, 3]}, "column 'text' must hold strings, it holds int64"),
        ({"labels": ["a", "b", "c"]}, "'labels' must hold lists of strings or of whole numbers, it holds string"),
        ({"labels": [[0.5], [], []]}, "'labels' must hold lists of strings or of whole numbers, it holds list"),
        ({"relevance": [[1], [2], [3]]}, "'relevance' must hold lists of floats"),
        ({"text": ["one", None, "three"]}, "row 1: 'text' is null"),
        ({"labels": [["a", "b"], [], None]}, "row 2: 'labels' is null; a row without labels has an empty list"),
        ({"labels": [["a", None], [], ["b"]]}, "row 0: labels must be strings, got None"),
        ({"relevance": [[0.5, 1.0], [], [2.0]]}, "row 2: relevances must be over 0 and at most 1"),
        ({"relevance": [[0.5], [], [1.0]]}, "row 0: 'relevance' must be a list of 2 numbers"),
        ({"labels": pa.array([[], [], []], pa.list_(pa.string())), "relevance": None}, "no row with a label"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    path = write(tmp_path / "train.parquet", **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_training_set(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_training_set(tmp_path / "train.parquet")


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "train.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EliasIdxError, match=r"elias_idx\[parquet\]"):
        read_training_set(path)
