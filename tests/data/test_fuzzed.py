"""What fuzzing of the readers found worth keeping, tried again: `make fuzz` looks for more."""

import pytest

from elias_idx.data.reading import load_embeddings
from elias_idx.data.xmc import read_bag_of_words, read_raw_text
from elias_idx.errors import DataError
from helpers_fuzz import CORPUS, READERS, read

FIELDS = ("text", "labels")


@pytest.mark.parametrize("name", READERS)
def test_readers_give_a_result_or_a_data_error(name, tmp_path):
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) > 4
    for path in inputs:
        try:
            read(name, path.read_bytes(), tmp_path)
        except Exception as error:
            pytest.fail(f"{path}: {error!r}")


@pytest.mark.parametrize(
    "first_line",
    ["1 3 1000000000000", "1 3 2000000000", "1 1000000000000 4", "1000000000000 3 4", "1 3 " + "9" * 5000],
)
def test_no_memory_is_taken_for_rows_features_and_labels_that_are_only_claimed(tmp_path, first_line):
    path = tmp_path / "rows.txt"
    path.write_text(f"{first_line}\n0 0:1\n")
    with pytest.raises(DataError, match=r"at most 2,147,483,647|should be 2,000,000,000 labels"):
        read_bag_of_words(path, FIELDS)


def test_no_memory_is_taken_for_a_huge_number_of_a_label(tmp_path):
    (tmp_path / "trn.json").write_text('{"title": "a", "target_ind": [2000000000]}\n')
    with pytest.raises(DataError, match="should be 2,000,000,001 labels, but all rows together have 1"):
        read_raw_text(tmp_path / "trn.json", FIELDS)


@pytest.mark.parametrize("shape", [(10**9, 256), (3, 10**9), (2**62, 2**62), (0, 10**30), (10**30, 1), (-1, 4)])
def test_an_array_whose_header_claims_more_than_the_file_has(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    path = tmp_path / "rows.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for name in ("embeddings", "score_npy"):
        with pytest.raises(DataError, match=r"the file ends before row 0|expected floats \[N, D\]"):
            READERS[name][1](path)


def test_an_array_that_only_python_s_parser_refuses(tmp_path):
    path = tmp_path / "rows.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00((((((((((((((((")
    with pytest.raises(DataError, match=r"not a \.npy array"):
        load_embeddings(path)
