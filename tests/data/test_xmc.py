"""Data sets of the extreme classification repository."""

import gzip
import json
import lzma

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from elias_idx.data import read_excluded, read_inputs, read_training_set, write_rows, xmc
from elias_idx.errors import DataError

ROWS = st.lists(
    st.tuples(
        st.sets(st.integers(0, 6)),
        st.dictionaries(st.integers(0, 9), st.floats(-(2.0**99), 2.0**99, width=32).filter(lambda value: value != 0)),
    ),
    min_size=1,
    max_size=30,
).filter(lambda rows: any(labels for labels, _ in rows))


def bag_of_words(path, rows, num_features=10, num_labels=7):
    lines = [
        ",".join(map(str, labels)) + " " + " ".join(f"{number}:{value!r}" for number, value in features.items())
        for labels, features in rows
    ]
    path.write_text("\n".join([f"{len(rows)} {num_features} {num_labels}", *lines, ""]))
    return path


@given(rows=ROWS, lines_at_once=st.integers(1, 9))
@settings(max_examples=40)
def test_what_stands_in_a_bag_of_words_file_is_read(tmp_path_factory, rows, lines_at_once):
    path = bag_of_words(tmp_path_factory.mktemp("bow") / "train.txt", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xmc, "_LINES_AT_ONCE", lines_at_once)
        data = read_training_set(path)
    expected = np.zeros((len(rows), 10), np.float32)
    for number, (_, features) in enumerate(rows):
        expected[number, list(features)] = list(features.values())
    assert np.array_equal(data.inputs.toarray(), expected)
    assert data.label_names == [str(label) for label in range(7)]
    assert [set(data.labels[row].indices) for row in range(len(rows))] == [labels for labels, _ in rows]
    assert (data.labels.data == 1).all()
    assert (read_inputs(path) != data.inputs).nnz == 0


def test_packed_files_and_windows_line_ends_are_read(tmp_path):
    with gzip.open(tmp_path / "train.txt.gz", "wb") as file:
        file.write(b"2 3 2\r\n0,1 0:1 2:2e-1\r\n 1:.5\r\n")
    data = read_training_set(tmp_path / "train.txt.gz")
    assert data.inputs.toarray().tolist() == [[1, 0, np.float32(0.2)], [0, 0.5, 0]]
    assert data.labels.toarray().tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,7 1:1", "label 7 is none of the numbers 0 to 6"),
        ("-1 1:1", "label -1 is none of"),
        ("0,x 1:1", "expected whole numbers"),
        ("1.5 1:1", "expected whole numbers"),
        ("0,,1 1:1", "expected whole numbers|comma"),
        ("0 10:1", "feature 10 is none of the numbers 0 to 9"),
        ("0 1:x", "expected numbers"),
        ("0 1:nan", "not finite"),
        ("0 1:1e60", "not finite"),
        ("0 1.5:1", "feature 1.5 is no whole number"),
        ("0 1:1 2", "pairs NUMBER:VALUE"),
        ("0 1 :1", "pairs NUMBER:VALUE"),
        ("0 1:1:2 3", "pairs NUMBER:VALUE"),
        ("0 1:2:3:4 5 6", "pairs NUMBER:VALUE"),
        ("0 1:1:2", "pairs NUMBER:VALUE"),
        ("1:1 2:3", "expected whole numbers"),
        ("\u00e9 1:1", "expected whole numbers"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "train.txt"
    path.write_text(f"4 10 7\n0 1:1\n1,2 3:4\n{line}\n3 4:1\n")
    with pytest.raises(DataError, match=message) as caught:
        read_training_set(path)
    assert f"{path}:4: " in str(caught.value)


def test_a_row_does_not_lend_a_colon_to_the_next(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("4 10 7\n0 1:1\n0 1:1:2\n1 3\n3 4:1\n")
    with pytest.raises(DataError, match=r"train\.txt:3: features must be pairs NUMBER:VALUE"):
        read_training_set(path)


@pytest.mark.parametrize("first", ["", "4 10", "4 10 x", '{"text": "JSON lines", "labels": []}'])
def test_a_file_without_sizes_on_the_first_line(tmp_path, first):
    (tmp_path / "train.txt").write_text(f"{first}\n0 1:1\n")
    with pytest.raises(DataError, match=r"train.txt:1: expected 'N F L'"):
        read_training_set(tmp_path / "train.txt")


def test_a_file_that_is_not_whole(tmp_path):
    (tmp_path / "train.txt").write_text("3 10 7\n0 1:1\n")
    with pytest.raises(DataError, match="says 3 rows, but 1 follow"):
        read_training_set(tmp_path / "train.txt")


LABELS = [{"uid": "B01", "title": "a"}, {"uid": "B02", "title": "b"}, {"uid": 3}]
TRN = [
    {"uid": "1", "title": "red shoe", "content": "size 9", "target_ind": [2, 0], "target_rel": [0.5, 1.0]},
    {"uid": "2", "title": "blue shoe", "target_ind": []},
]
TST = [{"uid": "3", "title": "", "content": "green", "target_ind": [1]}]


def write_lines(path, rows):
    with gzip.open(path, "wb") as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def raw_text(tmp_path):
    for name, rows in {"lbl": LABELS, "trn": TRN, "tst": TST}.items():
        write_lines(tmp_path / f"{name}.json.gz", rows)
    return tmp_path


def test_raw_text_is_title_and_content_and_labels_are_called_by_uid(raw_text):
    data = read_training_set(raw_text)
    assert data.inputs == ["red shoe\nsize 9", "blue shoe"]
    assert data.label_names == ["B01", "B02", "3"]
    assert data.labels.toarray().tolist() == [[1, 0, 0.5], [0, 0, 0]]
    assert read_training_set(raw_text / "trn.json.gz").fingerprint() == data.fingerprint()
    test = read_training_set(raw_text, split="tst")
    assert test.inputs == ["green"]
    assert test.labels.toarray().tolist() == [[0, 1, 0]]
    assert read_inputs(raw_text / "tst.json.gz") == ["green"]


def test_files_may_be_packed_by_xz(raw_text):
    expected = read_training_set(raw_text).fingerprint()
    for name in ("lbl", "trn"):
        packed = raw_text / f"{name}.json.gz"
        with lzma.open(raw_text / f"{name}.json.xz", "wb") as file:
            file.write(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert read_training_set(raw_text).fingerprint() == expected
    assert read_training_set(raw_text / "trn.json.xz").fingerprint() == expected


@pytest.mark.parametrize("name", ["tst.json", "trn.json.gz"])
def test_rows_of_another_format_under_these_names_are_refused_as_inputs_too(tmp_path, name):
    write_rows(tmp_path / name, [{"text": "one", "labels": ["a"]}])
    with pytest.raises(DataError, match=rf"{name}:1: .* a file of 'text' and 'labels' needs another name"):
        read_inputs(tmp_path / name)


def test_labels_without_names_are_called_by_number(raw_text):
    (raw_text / "lbl.json.gz").unlink()
    data = read_training_set(raw_text)
    assert data.label_names == ["0", "1", "2"]
    assert data.labels.toarray().tolist() == [[1, 0, 0.5], [0, 0, 0]]


def test_titles_of_labels_may_be_in_any_encoding(raw_text):
    with gzip.open(raw_text / "lbl.json.gz", "wb") as file:
        file.write('{"uid": "B01", "title": "caf\u00e9"}\n{"uid": "B02"}\n{"uid": "B03"}\n'.encode("latin-1"))
    assert read_training_set(raw_text).label_names == ["B01", "B02", "B03"]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("trn", {"title": "x", "target_ind": [3]}, "label 3 is none of the numbers 0 to 2"),
        ("trn", {"title": "x", "target_ind": [-1]}, "label -1 is none of"),
        ("trn", {"title": "x", "target_ind": [True]}, "label True is none of"),
        ("trn", {"title": "x"}, "'target_ind' must be a list of label numbers, got None"),
        ("trn", {"title": "x", "target_ind": [1], "target_rel": [2]}, "over 0 and at most 1, got 2"),
        ("trn", {"title": "x", "target_ind": [1], "target_rel": []}, "a list of 1 numbers"),
        ("trn", {"title": 3, "target_ind": [1]}, "'title' must be a string, got int"),
        ("trn", {"text": "x", "target_ind": [1]}, "neither 'title' nor 'content'.* needs another name"),
        ("lbl", {"title": "x"}, "the label has no 'uid'"),
        ("lbl", {"uid": "B01"}, "'B01' stands there twice"),
        ("lbl", {"uid": True}, "'uid' must be a string, got bool"),
        ("lbl", {"uid": "\ud800"}, "'uid' has a lone surrogate"),
    ],
)
def test_bad_rows_of_raw_text_are_named(raw_text, name, row, message):
    rows = {"trn": TRN, "lbl": LABELS}[name]
    write_lines(raw_text / f"{name}.json.gz", [*rows, row])
    with pytest.raises(DataError, match=message) as caught:
        read_training_set(raw_text)
    assert f"{name}.json.gz:{len(rows) + 1}: " in str(caught.value)


def test_a_folder_without_the_rows_asked_for(raw_text):
    (raw_text / "tst.json.gz").unlink()
    with pytest.raises(DataError, match=r"without tst.json, tst.json.gz or \*.parquet"):
        read_training_set(raw_text, split="tst")


def test_only_labels_are_read_beside_embeddings(tmp_path):
    path = bag_of_words(tmp_path / "train.txt", [({1}, {2: 1.0}), ({0}, {})])
    np.save(tmp_path / "embeddings.npy", np.eye(2, 4, dtype=np.float32))
    data = read_training_set(path, embeddings=tmp_path / "embeddings.npy")
    assert np.array_equal(data.inputs, np.eye(2, 4))
    assert isinstance(data.labels, sp.csr_matrix)
    assert data.labels.indices.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 1\n1 x\n", "expected two whole numbers a line"),
        ("0 1 2\n", "expected two whole numbers a line, a row and a label; there are 3"),
        ("0 1\n2 0\n", r"filter\.txt:2: there is no row 2 with a label 0 in a set of 2 rows and 3 labels"),
        ("0 3\n", "no row 0 with a label 3"),
        ("0 -1\n", "no row 0 with a label -1"),
    ],
)
def test_a_file_of_excluded_pairs_that_does_not_fit(raw_text, content, message):
    (raw_text / "filter.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_excluded(raw_text / "filter.txt", raw_text, read_training_set(raw_text))


def test_excluded_pairs_are_read_with_repeats(raw_text):
    (raw_text / "filter.txt").write_text("1 2\n0 0\n1 2\n")
    excluded = read_excluded(raw_text / "filter.txt", raw_text, read_training_set(raw_text))
    assert (excluded.toarray() > 0).tolist() == [[True, False, False], [False, False, True]]


def test_rows_to_predict_may_be_few_of_a_set_of_many_labels(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("1 3 20000000\n19999999 0:1\n")
    assert read_inputs(path).toarray().tolist() == [[1, 0, 0]]
    with pytest.raises(DataError, match="one in 16 must occur"):
        read_training_set(path)
