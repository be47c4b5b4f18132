"""Embeddings in `.npy` files: what is mapped is the file that was opened, whatever happens to its name."""

import os
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from elias_idx.data import reading
from elias_idx.data.npy import NpyHeader
from elias_idx.data.reading import load_embeddings
from elias_idx.errors import DataError

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", ROWS)
    return tmp_path / "rows.npy"


@pytest.mark.skipif(os.name == "nt", reason="open files can't be replaced there")
def test_a_file_replaced_while_it_is_open_is_read_to_its_own_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = path.with_name("other.npy")
    np.save(other, -ROWS[:1])
    opened = Path.open

    def open_and_replace(self: Path, mode: str) -> IO[bytes]:
        file = opened(self, mode)
        other.replace(self)
        return file

    monkeypatch.setattr(Path, "open", open_and_replace)
    np.testing.assert_array_equal(load_embeddings(path), ROWS)


@pytest.mark.skipif(os.name == "nt", reason="open files can't be cut there")
def test_a_file_cut_behind_its_header_is_an_error_with_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = reading.read_npy_header

    def read_and_cut(file: IO[bytes], size: int) -> NpyHeader:
        header = read(file, size)
        os.truncate(path, size - 1)
        return header

    monkeypatch.setattr(reading, "read_npy_header", read_and_cut)
    with pytest.raises(DataError, match=r"rows\.npy: "):
        load_embeddings(path)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="there are no such floats there")
def test_floats_of_more_than_8_bytes_are_refused_as_such(path: Path) -> None:
    np.save(path, ROWS.astype(np.longdouble))
    with pytest.raises(DataError, match=r"expected floats \[N, D\] of at most 8 bytes, got float"):
        load_embeddings(path)
