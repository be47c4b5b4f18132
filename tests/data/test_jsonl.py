"""Reading and writing JSON lines."""

import gzip
import json
import lzma

import pytest

from elias_idx.data import Row, read_inputs, read_rows, read_training_set, write_rows
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
        ('{"text": "x", "labels": [1]}', "labels must be strings, got 1"),
        ('{"text": "\\udc00", "labels": []}', "'text' has a lone surrogate"),
        ('{"text": "x", "labels": ["\\ud800"]}', "lone surrogate"),
        ('{"text": "x", "labels": ["a"], "relevance": [0]}', "relevances must be over 0 and at most 1, got 0"),
        ('{"text": "x", "labels": ["a"], "relevance": 1}', "'relevance' must be a list of 1 numbers"),
        ("[1]", "expected a JSON object, got list"),
        ("{", "not a JSON object"),
        ("", "the line is empty"),
        ('{"text": "a", "labels": ' + 100_000 * "[", "not a JSON object"),
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
    good = b'{"text": "x", "labels": []}\n'
    path.write_bytes(good * 50 + b'{"text": "\xff", "labels": []}\n' + good)
    with pytest.raises(DataError, match=r"rows\.jsonl:51: not UTF-8"):
        list(read_rows(path))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "x", "labels": []}\r\n')
    assert list(read_rows(path)) == [Row("x", [])]


def test_a_truncated_archive_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in ROWS) * 100)[:-20])
    with pytest.raises(DataError, match="can't be unpacked"):
        list(read_rows(path))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_damaged_archive_is_an_error(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    write_rows(path, [{"text": str(number), "labels": []} for number in range(5000)])
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 40] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"can't be unpacked|not a JSON object|not UTF-8"):
        list(read_rows(path))


def test_only_the_wanted_fields_are_needed(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x"}\n', encoding="utf-8")
    assert list(read_rows(path, ["text"])) == [Row("x")]


def test_data_errors_are_value_errors_of_the_library():
    assert issubclass(DataError, ValueError)
    assert issubclass(DataError, EliasIdxError)


def test_a_training_set_has_texts_labels_and_relevances(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    write_rows(path, [{"text": "one", "labels": ["b", "a"], "relevance": [0.5, 1]}, *ROWS])
    data = read_training_set(path)
    assert data.inputs == ["one", "naïve text", ""]
    assert data.label_names == ["a", "b"]
    assert data.labels.toarray().tolist() == [[1, 0.5], [1, 1], [0, 0]]
    assert read_inputs(path) == data.inputs


def test_a_file_without_labels_is_no_training_set(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS[1:])
    with pytest.raises(DataError, match=r"rows\.jsonl: the data set is empty: there is no row with a label"):
        read_training_set(tmp_path / "rows.jsonl")
