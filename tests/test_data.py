"""Reading JSON lines and label vocabularies."""

import gzip
import json
import lzma

import numpy as np
import pytest

from elias_idx.data import LabelVocabulary, Row, read_rows, write_rows
from elias_idx.errors import DataError, EliasIdxError

ROWS = [{"text": "naïve text", "labels": ["b", "a"]}, {"text": "", "labels": [], "other": 1}]


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_reads_plain_and_packed_files(tmp_path, suffix, opener):
    path = tmp_path / f"rows.jsonl{suffix}"
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    assert list(read_rows(path)) == [Row("naïve text", ["b", "a"]), Row("", [])]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_written_rows_read_back(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    write_rows(path, ROWS)
    assert [row.text for row in read_rows(path)] == ["naïve text", ""]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)

    def broken():
        yield {"text": "new"}
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_rows(path, broken())
    assert len(list(read_rows(path))) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"labels": []}', "no 'text'"),
        ('{"text": "x"}', "no 'labels'"),
        ('{"text": 3, "labels": []}', "'text' must be a string, got int"),
        ('{"text": "x", "labels": "a"}', "'labels' must be a list of strings"),
        ('{"text": "x", "labels": [1]}', "'labels' must be a list of strings"),
        ('{"text": "x", "labels": ["\\ud800"]}', "lone surrogate"),
        ("[1]", "expected a JSON object, got list"),
        ("{", "not a JSON object"),
        ("", "not a JSON object"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(ROWS[0])}\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        list(read_rows(path))
    assert f"{path}:2:" in str(caught.value)


def test_bytes_that_are_no_text_are_named_by_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "\xff", "labels": []}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: can't be read"):
        list(read_rows(path))


def test_a_truncated_archive_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode() * 100)[:-20])
    with pytest.raises(DataError, match="can't be read"):
        list(read_rows(path))


def test_only_the_wanted_fields_are_needed(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x"}\n', encoding="utf-8")
    assert list(read_rows(path, ["text"])) == [Row("x")]


def test_data_errors_are_value_errors_of_the_library():
    assert issubclass(DataError, ValueError)
    assert issubclass(DataError, EliasIdxError)


def test_vocabulary_sorts_names_and_merges_repeats():
    vocabulary = LabelVocabulary(["b", "a", "b", "c"])
    assert vocabulary.names == ["a", "b", "c"]
    matrix = vocabulary.matrix([["c", "a", "c"], [], ["b"]])
    assert matrix.dtype == np.float32
    assert matrix.toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_unseen_labels_get_columns_behind_the_known_ones():
    matrix, unseen = LabelVocabulary(["a", "b"]).matrix_with_unseen([["z", "a"], ["y", "z"]])
    assert unseen == ["y", "z"]
    assert matrix.toarray().tolist() == [[1, 0, 0, 1], [0, 0, 1, 1]]
