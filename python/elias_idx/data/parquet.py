"""Parquet: a column "text", a column "labels" of lists, and perhaps a column "relevance" of lists of numbers."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from elias_idx.data.contents import Contents
from elias_idx.data.groups import Group
from elias_idx.data.labels import LabelCollector
from elias_idx.errors import DataError, MissingExtraError

_ROWS_AT_ONCE = 8192


def parquet_files(folder: Path) -> list[Path]:
    """The folder's Parquet files, in the order of their names: parts of one data set."""
    return sorted(folder.glob("*.parquet"))


def read_parquet(files: list[Path], fields: Container[str], group_field: str | None = None) -> Contents:
    """The files' texts, labels and groups, one file after the other; labels that are numbers are their digits.

    Raises:
        MissingExtraError: pyarrow is missing.
        DataError: a file is no Parquet file, or lacks a column; the message says which, or which row is wrong.
        OSError: a file can't be read.
    """
    texts: list[str] = []
    groups: list[Group] = []
    collector = LabelCollector()
    for path in files:
        row = 0
        for batch in _batches(path, fields, group_field):
            for text, labels, relevance, group in batch:
                where = f"{path}, row {row}"
                if text is None or labels is None:
                    missing = "text" if text is None else "labels"
                    raise DataError(f"{where}: {missing!r} is null; a row without labels has an empty list")
                texts.append(text)
                collector.add(labels, relevance, where)
                if group_field is not None:
                    groups.append(group)
                row += 1
    return Contents.of(fields, texts, *collector.finish(), groups)


def _batches(
    path: Path, fields: Container[str], group_field: str | None
) -> Iterator[Iterator[tuple[Any, Any, Any, Group]]]:
    """Rows of (text, labels, relevances, group), some thousand at a time; what isn't asked for is empty."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "parquet") from error
    start = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow, fields, group_field)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                texts = batch["text"].cast(pa.large_string()).to_pylist() if "text" in columns else [""] * len(batch)
                labels = _names(batch["labels"]).to_pylist() if "labels" in columns else [[]] * len(batch)
                relevances = batch["relevance"].to_pylist() if "relevance" in columns else [None] * len(batch)
                groups = [None] * len(batch) if group_field is None else batch[group_field].to_pylist()
                yield zip(texts, labels, relevances, groups, strict=True)
                start += len(batch)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, rows {start} to {start + len(batch) - 1}: a string is not UTF-8: {error}") from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from error


def _columns(path: Path, schema: Any, fields: Container[str], group_field: str | None) -> list[str]:
    """The columns to read, whose types are checked."""
    import pyarrow.types as types

    def is_text(kind: Any) -> bool:
        # Of categories, as pandas calls them, the file has a dictionary.
        plain = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(plain) or types.is_large_string(plain)

    def is_list(kind: Any, of: tuple[Callable[[Any], bool], ...]) -> bool:
        return (types.is_list(kind) or types.is_large_list(kind)) and any(test(kind.value_type) for test in of)

    wanted: dict[str, Callable[[Any], bool]] = {
        "text": is_text,
        "labels": lambda kind: is_list(kind, (is_text, types.is_integer)),
        "relevance": lambda kind: is_list(kind, (types.is_floating,)),
    }
    kinds = {"text": "strings", "labels": "lists of strings or of whole numbers", "relevance": "lists of floats"}
    columns = [name for name in ("text", "labels") if name in fields]
    if "labels" in fields and "relevance" in schema.names:
        columns.append("relevance")
    if group_field is not None:
        wanted[group_field] = lambda kind: is_text(kind) or types.is_integer(kind)
        kinds[group_field] = "strings or whole numbers"
        columns.append(group_field)
    for name in columns:
        if name not in schema.names:
            raise DataError(f"{path}: there is no column {name!r}; there are {schema.names}")
        if not wanted[name](schema.field(name).type):
            raise DataError(f"{path}: column {name!r} must hold {kinds[name]}, it holds {schema.field(name).type}")
    return columns


def _names(labels: Any) -> Any:
    """Lists of labels as strings, whole numbers turned into their digits."""
    import pyarrow as pa
    import pyarrow.types as types

    return labels.cast(pa.large_list(pa.string()) if types.is_large_list(labels.type) else pa.list_(pa.string()))
