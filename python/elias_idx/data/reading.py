"""Data sets in files of any format that elias_idx reads; which one it is, the path says.

    *.txt                     bag of words of the extreme classification repository
    trn.json, tst.json        its raw text; a folder of these stands for the training or test rows
    *.parquet                 Parquet; a folder of these for all of them
    *.npy                     embeddings, where inputs alone are wanted
    anything else             JSON lines

Text files may be packed (`trn.json.gz`, `train.txt.xz`).
"""

from __future__ import annotations

import os
from collections.abc import Container
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data.contents import Contents, Inputs
from elias_idx.data.jsonl import read_jsonl
from elias_idx.data.npy import read_npy_header
from elias_idx.data.parquet import parquet_files, read_parquet
from elias_idx.data.training_set import TrainingSet
from elias_idx.data.xmc import is_raw_text, raw_text_file, read_bag_of_words, read_pairs, read_raw_text
from elias_idx.errors import DataError

Split = Literal["trn", "tst"]


def read_training_set(
    path: str | PathLike[str],
    *,
    embeddings: str | PathLike[str] | None = None,
    split: Split = "trn",
    group_field: str | None = None,
) -> TrainingSet:
    """Reads labelled inputs from a file or folder of any known format.

    Memory is needed for the texts (or features) and 8 bytes a label of a row.

    Args:
        path: see `elias_idx.data.reading`.
        embeddings: a `.npy` file of the rows' embeddings, [N, D], which take the place of texts or features.
        split: which rows of a raw-text folder: "trn" or "tst".
        group_field: a field of each row (a column of a Parquet file), a string or a whole number: rows where it is the
            same belong together; see `TrainingSet.groups`. A row where it is null stands alone.

    Raises:
        DataError: a file is damaged or not of its format, or no row has a label, or a row no such field; the message
            says where.
        OSError: a file can't be read.
    """
    path = Path(path)
    contents = _read(path, ("text", "labels") if embeddings is None else ("labels",), split, group_field)
    assert contents.labels is not None
    inputs = contents.inputs if embeddings is None else load_embeddings(Path(embeddings))
    assert inputs is not None
    if embeddings is not None and len(inputs) != contents.labels.shape[0]:
        raise DataError(f"{embeddings} has {len(inputs)} rows, {path} has {contents.labels.shape[0]}")
    try:
        groups = None if group_field is None else contents.groups
        return TrainingSet(inputs, contents.labels, label_names=contents.label_names, groups=groups)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_inputs(path: str | PathLike[str], split: Split = "tst") -> Inputs:
    """Reads inputs without labels: like `read_training_set`, or embeddings from a `.npy` file.

    Raises:
        DataError: as `read_training_set`.
        OSError: a file can't be read.
    """
    path = Path(path)
    inputs = load_embeddings(path) if path.suffix == ".npy" else _read(path, ("text",), split).inputs
    assert inputs is not None
    return inputs


def read_excluded(path: str | PathLike[str], data_path: str | PathLike[str], data: TrainingSet) -> sp.csr_matrix:
    """Reads which pairs of a row and a label don't count in an evaluation, from an XMC set's `filter_labels_*.txt`.

    Args:
        path: the file.
        data_path: where the data comes from.
        data: what `read_training_set` read there.

    Returns:
        CSR [N, L], whose entries are the pairs.

    Raises:
        DataError: the data is of another format, whose labels have no numbers; or the file doesn't fit it.
        OSError: the file can't be read.
    """
    source = Path(data_path)
    raw_text = is_raw_text(source) or (source.is_dir() and not parquet_files(source))
    if not (raw_text or _is_bag_of_words(source)):
        raise DataError(
            f"{path} has labels by number, but those of {source} have only names: they must be an XMC set's"
        )
    return read_pairs(Path(path), data.labels.shape)


def _is_bag_of_words(path: Path) -> bool:
    return path.name.removesuffix(".gz").removesuffix(".xz").endswith(".txt")


def _read(path: Path, fields: Container[str], split: Split, group_field: str | None = None) -> Contents:
    if group_field in ("text", "labels", "relevance"):
        raise DataError(f"groups must have a field of their own, got {group_field!r}")
    if path.is_dir():
        if (file := raw_text_file(path, split)) is not None:
            return read_raw_text(file, fields, group_field)
        if files := parquet_files(path):
            return read_parquet(files, fields, group_field)
        raise DataError(f"{path} is a folder without {split}.json, {split}.json.gz or *.parquet: name the file to read")
    if is_raw_text(path):
        return read_raw_text(path, fields, group_field)
    if path.suffix == ".parquet":
        return read_parquet([path], fields, group_field)
    if not _is_bag_of_words(path):
        return read_jsonl(path, fields, group_field)
    if group_field is not None:
        raise DataError(f"{path} is a bag-of-words file, whose rows have no field {group_field!r} to group by")
    return read_bag_of_words(path, fields)


def load_embeddings(path: Path) -> npt.NDArray[np.floating]:
    """Opens a `.npy` file of embeddings, floats [N, D], as a mapped array.

    Raises:
        DataError: it is none.
    """
    try:
        with path.open("rb") as file:
            header = read_npy_header(file, os.fstat(file.fileno()).st_size)
            order: Literal["F", "C"] = "F" if header.by_columns else "C"
            return np.memmap(file, header.dtype, "r", header.start, header.shape, order)
    # NumPy's own is of a file that has become shorter.
    except (DataError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
